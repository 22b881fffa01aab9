"""``phi3 config``: what is configured, and where each value comes from; ``set``, ``unset`` and ``edit`` change it."""

from __future__ import annotations

import argparse
import os
import sys

from phi3_core.errors import UsageError

from . import options

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from phi3_core.config.values import Found


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "config",
        help="what is configured, and where each value comes from",
        description="Show what is configured, and where each value comes from, or change the configuration file.",
    )
    _finish(command, call_show, json="print everything as JSON")
    command.set_defaults(key=None)
    verbs = command.add_subparsers(metavar="VERB", parser_class=type(command))
    show = verbs.add_parser("show", help="show all settings, or the value of one")
    show.add_argument("key", metavar="KEY", nargs="?", help="print only this setting's value")
    _finish(show, call_show, json="print everything as JSON")
    _finish(verbs.add_parser("path", help="print the path of the file"), call_path)
    change = verbs.add_parser("set", help="set a key in the file")
    change.add_argument("key", metavar="KEY", help="a setting, aliases.NAME, or options.BACKEND.KEY")
    change.add_argument("value", metavar="VALUE", nargs="+", help="the value; stop takes several")
    _finish(change, call_set)
    remove = verbs.add_parser("unset", help="remove a key from the file")
    remove.add_argument("key", metavar="KEY")
    _finish(remove, call_unset)
    _finish(verbs.add_parser("edit", help="open the file in an editor (VISUAL or EDITOR), and check it"), call_edit)


def _finish(command: Any, call: Any, *, json: str = "") -> None:
    options.finish(command, call, json=json, quiet=False)
    command.set_defaults(unconfigured=True)  # what is wrong in the file is to be repaired with it


def call_show(given: argparse.Namespace) -> int:
    """Run ``phi3 config`` and return its exit code."""
    from phi3_core.config import file, values
    from phi3_core.config.table import OTHERS, SECRET, SETTINGS
    from phi3_core.models import aliases

    from . import output

    values.check()
    aliases.check(values.aliases())
    if given.key is not None:
        return _show_one(given)
    found = [_filled(values.find(setting.name)) for setting in SETTINGS]
    others = {name: "(set)" if name in SECRET else os.environ[name] for name in OTHERS if os.environ.get(name)}
    path, unknown = file.location(), values.unknown_variables()
    exists = path is not None and path.exists()
    if given.json:
        rows = [
            {
                "key": each.setting.key or None,
                "variable": each.setting.variable,
                "value": each.value,
                "source": each.source,
                "where": each.where or None,
                "default": each.setting.default,
                "meaning": each.setting.meaning.replace("`", ""),
            }
            for each in found
        ]
        document = {"file": path, "exists": exists, "settings": rows, "aliases": values.aliases()}
        rest = {"options": values.engine_options(), "other_variables": others, "unknown_variables": list(unknown)}
        output.print_json({**document, **rest})
    else:
        table: list[tuple[object, ...]] = [
            (
                each.setting.name,
                _text(each),
                each.where or "default",
            )
            for each in found
        ]
        table += [(f"aliases.{name}", model, path) for name, model in values.aliases().items()]
        for backend, chosen in values.engine_options().items():
            table += [(f"options.{backend}.{name}", value, path) for name, value in chosen.items()]
        table += [(name, value, "environment") for name, value in others.items()]
        output.print_table(("setting", "value", "from"), table)
        if path is not None and not exists:
            print(f"there is no file {path}")
    for name, meant in unknown.items():
        output.logger.warning("%s is no setting%s", name, f"; did you mean {meant}?" if meant else "")
    return 0


def _filled(found: Found) -> Found:
    """Return a setting with the path that its value, or the platform's place, stands for."""
    from phi3_core import paths
    from phi3_core.config import file

    if found.setting.key == "home":
        return found._replace(value=str(paths.home()))
    if found.setting.variable == file.VARIABLE and (path := file.location()) is not None:
        return found._replace(value=str(path))
    return found


def _text(found: Found) -> str:
    """Return the value of a setting for people."""
    from phi3_core.config.table import shown

    is_default = found.value == found.setting.default
    return found.setting.default_text.replace("`", "") if is_default else shown(found.value)


def _show_one(given: argparse.Namespace) -> int:
    from phi3_core.config import keys, values
    from phi3_core.config.table import shown

    from . import output

    key = keys.key_of(given.key)
    value: Any
    if key[0] == "aliases":
        value = values.aliases().get(key[1])
    elif key[0] == "options":
        value = values.engine_options().get(key[1], {}).get(key[2])
    else:
        value = _filled(values.find(".".join(key))).value
    if given.json:
        output.print_json({"key": ".".join(key), "value": value})
    else:
        print(shown(value))
    return 0


def call_path(_: argparse.Namespace) -> int:
    """Run ``phi3 config path`` and return its exit code."""
    print(_path())
    return 0


def _path() -> Path:
    from phi3_core.config import file

    path = file.location()
    if path is None:
        raise UsageError("no configuration file is read", hint=f"unset {file.VARIABLE}")
    return path


def call_set(given: argparse.Namespace) -> int:
    """Run ``phi3 config set`` and return its exit code."""
    from phi3_core.config import keys, kinds, writing

    from . import output

    key, texts = keys.key_of(given.key), given.value
    kind = keys.kind_of(key)
    if isinstance(kind, kinds.Path):
        texts = [_absolute(text, kind) for text in texts]
    if key[0] == "aliases":
        _check_alias(key[1], texts[0])
    path = writing.change(key, texts)
    variable = _overriding(key)
    output.logger.warning("%s is set in %s%s", ".".join(key), path, f", but {variable} comes first" if variable else "")
    return 0


def _absolute(text: str, kind: Any) -> str:
    """Return a path that means the same in the file, whose own relative paths begin at its folder."""
    from pathlib import Path

    from phi3_core.config import kinds, values
    from phi3_core.models.catalogue import CATALOGUE
    from phi3_core.paths import absolute

    if not text or "\0" in text or text.startswith("~"):
        return text
    if isinstance(kind, kinds.Model) and (text in CATALOGUE or not (values.is_path(text) or Path(text).exists())):
        return text
    return str(absolute(text))


def _check_alias(name: str, model: str) -> None:
    from phi3_core.config import values
    from phi3_core.models import aliases
    from phi3_core.store.store import Store

    if why := aliases.problem(name):
        raise UsageError(f"{name!r} cannot be an alias: {why}", hint="phi3 config set aliases.NAME MODEL")
    if Store().knows(name):
        raise UsageError(f"the store has a model {name!r} already", hint="choose another name")
    aliases.check({**values.aliases(), name: model})


def _overriding(key: tuple[str, ...]) -> str:
    """Return the environment variable that comes before a key of the file, if it is set."""
    from phi3_core.config.table import BY_KEY

    setting = BY_KEY.get(".".join(key))
    return setting.variable if setting is not None and os.environ.get(setting.variable) else ""


def call_unset(given: argparse.Namespace) -> int:
    """Run ``phi3 config unset`` and return its exit code."""
    from phi3_core.config import writing

    from . import output

    output.logger.warning("%s is removed from %s", given.key, writing.remove(given.key))
    return 0


def call_edit(_: argparse.Namespace) -> int:
    """Run ``phi3 config edit`` and return its exit code."""
    import shlex
    import subprocess

    from phi3_core.config import file, values, writing
    from phi3_core.models import aliases

    path = _path()
    if file.read_bytes(path) is None:
        writing.create(path)
    windows = sys.platform == "win32"
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ("notepad" if windows else "vi")
    # Windows' programs split their command line themselves.
    command = f'{editor} "{path}"' if windows else [*shlex.split(editor), str(path)]
    try:
        done = subprocess.run(command, check=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the editor {editor!r} does not start: {error}", hint=f"set EDITOR, or open {path}"
        ) from error
    if done.returncode:
        raise UsageError(f"the editor {editor!r} ended with exit code {done.returncode}", hint=f"the file is {path}")
    file.forget()
    values.check()
    aliases.check(values.aliases())
    return 0
