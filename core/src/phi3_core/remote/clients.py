"""The settings with which clients of others use a server."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import field, frozen

from phi3_core.errors import UsageError
from phi3_core.user_folders import home_folder

NO_KEY = "none"
"""What clients state that insist on an API key, to a server that has none."""


@frozen(kw_only=True)
class ClientSettings:
    """What one client needs: environment variables, or lines of a file."""

    variables: Mapping[str, str] = field(factory=dict)
    file: Path
    """The file that has them, as the client reads it."""
    lines: tuple[str, ...]
    """What the file needs to have."""
    joins: str = ""
    """How lines are added to a file that is there: ``-`` to its list, ``:`` or ``=`` to its keys; empty: not at all."""
    hint: str
    """What to do then."""


@frozen(kw_only=True)
class Target:
    """The server and the model that a client will use."""

    address: str
    """The URL of the server, without a path."""
    model: str
    key: str | None = field(default=None, repr=False)

    @property
    def base(self) -> str:
        """The URL of OpenAI's interface."""
        return f"{self.address}/v1"


def _variables(hint: str, variables: Mapping[str, str]) -> ClientSettings:
    lines = tuple(f"{name}={value}" for name, value in variables.items())
    return ClientSettings(variables=variables, file=Path(".env"), lines=lines, joins="=", hint=hint)


def openai(target: Target) -> ClientSettings:
    """Return the settings of the openai package, and of what is built on it."""
    variables = {"OPENAI_BASE_URL": target.base, "OPENAI_API_KEY": target.key or NO_KEY}
    return _variables(f'ask for model="{target.model}"', variables)


def anthropic(target: Target) -> ClientSettings:
    """Return the settings of the anthropic package, and of what is built on it."""
    variables = {"ANTHROPIC_BASE_URL": target.address, "ANTHROPIC_API_KEY": target.key or NO_KEY}
    return _variables(f'ask for model="{target.model}"', variables)


def open_webui(target: Target) -> ClientSettings:
    """Return the settings of Open WebUI."""
    variables = {
        "OPENAI_API_BASE_URL": target.base,
        "OPENAI_API_KEY": target.key or NO_KEY,
        "ENABLE_OLLAMA_API": "false",
    }
    # It reads no .env but one beside its own package; python-dotenv, which it brings, has the command.
    return _variables("dotenv run -- open-webui serve, from the folder of .env", variables)


def aider(target: Target) -> ClientSettings:
    """Return the settings of aider."""
    lines = {
        "openai-api-base": target.base,
        "openai-api-key": target.key or NO_KEY,
        "model": f"openai/{target.model}",
        "show-model-warnings": False,  # of a model whose price it does not know, with a question at each start
    }
    return ClientSettings(
        file=Path(".aider.conf.yml"),
        lines=tuple(f"{name}: {json.dumps(value)}" for name, value in lines.items()),
        joins=":",
        hint="aider, in this folder",
    )


def continue_dev(target: Target) -> ClientSettings:
    """Return the settings of Continue."""
    lines = (
        "name: phi3",
        "version: 0.0.1",
        "schema: v1",
        "models:",
        f"  - name: {json.dumps(target.model)}",
        "    provider: openai",
        f"    model: {json.dumps(target.model)}",
        f"    apiBase: {json.dumps(target.base)}",
        f"    apiKey: {json.dumps(target.key or NO_KEY)}",
        "    roles: [chat, edit, apply]",
    )
    file = _home("Continue") / ".continue" / "config.yaml"
    hint = f'choose the model in Continue, or cn --config "{file}"'  # without it, cn asks for a key of Anthropic's
    return ClientSettings(file=file, lines=lines, hint=hint)


def llm(target: Target) -> ClientSettings:
    """Return the settings of the command ``llm``."""
    name = f"phi3-{target.model}"
    lines = [f"- model_id: {json.dumps(name)}", f"  model_name: {json.dumps(target.model)}"]
    lines.append(f"  api_base: {json.dumps(target.base)}")
    hint = f"llm -m {name} 'What is the capital of France?'"
    if target.key is not None:
        lines.append("  api_key_name: phi3")
        hint = f"llm keys set phi3, which asks for the key; then {hint}"
    return ClientSettings(file=_llm_folder() / "extra-openai-models.yaml", lines=tuple(lines), joins="-", hint=hint)


def _llm_folder() -> Path:
    """Return where ``llm`` keeps its files: Click's folder for the application ``io.datasette.llm``."""
    if given := os.environ.get("LLM_USER_PATH"):
        return Path(given)
    if sys.platform == "darwin":
        folder = _home("llm") / "Library" / "Application Support"
    elif given := os.environ.get("APPDATA" if sys.platform == "win32" else "XDG_CONFIG_HOME"):
        folder = Path(given)
    else:
        folder = _home("llm") / ("" if sys.platform == "win32" else ".config")
    return folder / "io.datasette.llm"


def _home(client: str) -> Path:
    if (home := home_folder()) is None:
        raise UsageError(f"there is no home folder, in which {client} has its settings", hint="set HOME")
    return home


CLIENTS: Mapping[str, Callable[[Target], ClientSettings]] = {
    "aider": aider,
    "anthropic": anthropic,
    "continue": continue_dev,
    "llm": llm,
    "open-webui": open_webui,
    "openai": openai,
}
"""Clients by the names that ``phi3 launch`` takes."""


def merged(settings: ClientSettings, text: str) -> str | None:
    """Return the text of a file with the lines added; None if it cannot have them beside what it says already.

    Args:
        settings: what to add.
        text: what the file has; empty if there is none.
    """
    there = text.splitlines()
    if all(line in there for line in settings.lines):
        return text
    meaningful = [line for line in there if line.strip() and not line.lstrip().startswith("#")]
    if meaningful and not _may_join(settings, meaningful):
        return None
    return "\n".join([*there, *settings.lines]) + "\n"


def _may_join(settings: ClientSettings, there: list[str]) -> bool:
    """Return whether the lines may stand below those of a file."""
    if not settings.joins:
        return False
    if settings.joins == "-":
        return settings.lines[0] not in there and all(line.startswith(("-", " ")) for line in there)
    names = {line.partition(settings.joins)[0] for line in settings.lines}
    return all(line.partition(settings.joins)[0].removeprefix("export ").strip() not in names for line in there)


def shell_lines(variables: Mapping[str, str], *, windows: bool) -> list[str]:
    """Return the commands that set environment variables, for PowerShell or a POSIX shell."""
    if windows:
        return [f"$env:{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in variables.items()]
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
