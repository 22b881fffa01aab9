"""What README.md and the site show: commands that run as they are written, with this output, in every shell.

A ``console`` block is a list of commands, and a ``text`` block behind it is what the last of them prints. A block that
is not run says why, in a comment before it: ``<!-- not run: needs the hub -->``.
"""

from __future__ import annotations

import argparse
import inspect
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from attrs import frozen
from phi3_core import errors
from phi3_core.cli.parser import parser
from phi3_core.config.table import OTHERS, SETTINGS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in (
        "*.md",
        ".github/*.md",
        "core/README.md",
        "plugins/*/README.md",
        "examples/*/README.md",
        "docs/**/*.md",
    )
    for path in ROOT.glob(pattern)
)
RUN = ("README.md", "docs/index.md")
QUICK = (RUN[0], *(pytest.param(page, marks=pytest.mark.slow) for page in RUN[1:]))
"""README.md always, the others where slow tests run too."""
INSTALLS = "python -m pip install "

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n\n?)?^```console\n(?P<commands>.*?)^```\n"
    r"(?:\n```text\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
# What bash takes and cmd.exe or Windows PowerShell 5.1 does not, or takes as something else.
_FOREIGN = {
    "&&": "PowerShell 5.1 has no &&",
    "||": "PowerShell 5.1 has no ||",
    ";": "cmd.exe has no ;",
    "'": "cmd.exe has no single quotes",
    "$": "cmd.exe has no $",
    "%": "bash and PowerShell have no %",
    "`": "PowerShell escapes with it, bash runs what is in it",
    "\\": "bash escapes with it, and the others do not continue a line with it",
    "<": "PowerShell 5.1 has no <",
    " #": "cmd.exe has no comments behind a command",
}


@frozen(kw_only=True)
class Block:
    """Commands of a page, and what the last of them prints."""

    commands: tuple[str, ...]
    output: str
    reason: str
    """Why they are not run."""


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    return [
        Block(
            commands=tuple(found["commands"].splitlines()), output=found["output"] or "", reason=found["reason"] or ""
        )
        for found in _BLOCK.finditer(read(page))
    ]


@pytest.mark.parametrize("page", PAGES)
def test_commands_work_in_bash_and_cmd_and_powershell(page):
    assert len(blocks(page)) == read(page).count("```console")
    assert [
        f"{command}: {why}"
        for block in blocks(page)
        for command in block.commands
        for word, why in _FOREIGN.items()
        if word in command
    ] == []


class Shell:
    """Runs commands in a copy of the checkout, with an environment's programs first on the path and an empty store."""

    def __init__(self, name: str, programs: Path, folder: Path) -> None:
        self.name = name
        self.checkout, home = folder / "checkout", folder / "home"
        for part in ("core", "plugins"):
            shutil.copytree(ROOT / part, self.checkout / part)
        self.path = os.pathsep.join([str(programs), os.environ["PATH"]])
        self.environment = {**os.environ, "PATH": self.path, "PHI3_HOME": str(home), "PYTHONIOENCODING": "utf-8"}

    def run(self, commands: list[str]) -> str:
        """Run commands one after the other, each of which has to succeed, and return what they print."""
        if self.name == "bash":
            return self._run(["bash", "-c", "\n".join(["set -e", *commands])])
        return "".join(map(self._run_line, commands))

    def _run_line(self, command: str) -> str:
        if self.name == "cmd":
            return self._run(command, shell=True)
        if self.name == "powershell":
            return self._run(["powershell", "-NoProfile", "-NonInteractive", "-Command", command])
        program, *arguments = shlex.split(command)
        found = shutil.which(program, path=self.path)
        assert found, f"no program {program}"
        return self._run([found, *arguments])

    def _run(self, command: str | list[str], *, shell: bool = False) -> str:
        done = subprocess.run(
            command,
            cwd=self.checkout,
            env=self.environment,
            shell=shell,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=900,
        )
        # A backend may be installed here without its runtime, which the doctor finds.
        words = command if isinstance(command, str) else " ".join(command)
        expected = {0, 5} if "phi3 doctor" in words else {0}
        assert done.returncode in expected, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def follow(page: str, shell: Shell, *, installing: bool) -> None:
    """Do what a page says, and hold what is printed against what it shows."""
    for block in blocks(page):
        if block.reason:
            continue
        commands = [line for line in block.commands if installing or not line.startswith(INSTALLS)]
        printed = shell.run(commands)
        if block.output:
            compare(commands[-1], block.output, printed)


def compare(command: str, shown: str, printed: str) -> None:
    """Whether a page shows what a command prints, apart from what differs between machines."""
    if command == "phi3 devices":
        headings = ["device", "kind", "name", "precisions", "memory", "why"]
        assert headings in [line.split() for line in shown.splitlines()]
        assert headings in [line.split() for line in printed.splitlines()]
        first = r"\w+ on \w+, [\d.]+ GB of memory; policy \w+ \(auto, on [\w ]+\)"
        assert re.fullmatch(first, shown.splitlines()[0])
        assert re.fullmatch(first, printed.splitlines()[0])
        assert all(re.search(r" openvino:CPU +cpu ", text) for text in (shown, printed))
    else:
        # Close calls between two tokens fall differently on other processors, so the end of an answer may differ.
        last = printed.splitlines()[-len(shown.splitlines()) :]
        assert "\n".join(last).startswith(shown.strip().rstrip("."))


@pytest.fixture(params=["bash", pytest.param("lines", marks=pytest.mark.slow), "cmd", "powershell"])
def shell_name(request):
    if (request.param in {"cmd", "powershell"}) != (sys.platform == "win32") and request.param != "lines":
        pytest.skip(f"no {request.param} on this system")
    return request.param


@pytest.mark.parametrize("page", QUICK)
def test_what_a_page_says_can_be_done(page, shell_name, sample_needed, tmp_path):
    follow(page, Shell(shell_name, Path(sysconfig.get_path("scripts")), tmp_path), installing=False)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "name"), list(zip(RUN, ("bash", "lines"), strict=True)))
def test_what_a_page_says_can_be_done_from_nothing(page, name, tmp_path):
    """In a new virtual environment, with an empty store: what the page installs is all that there is."""
    venv.create(tmp_path / "venv", with_pip=True)
    windows = sys.platform == "win32"
    programs = tmp_path / "venv" / ("Scripts" if windows else "bin")
    follow(page, Shell("lines" if windows else name, programs, tmp_path), installing=True)


@pytest.mark.parametrize("page", QUICK)
def test_the_python_that_a_page_shows_runs(page, sample_needed, tmp_path):
    (source,) = re.findall(r"^```python\n(.*?)^```", read(page), re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, "PHI3_HOME": str(tmp_path / "home"), "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The capital of France is Paris")


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", read(page), flags=re.MULTILINE | re.DOTALL)
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", [page for page in PAGES if "decisions/0" not in page])
def test_names_of_core_exist(page):
    for name in re.findall(r"`(phi3_core(?:\.\w+)+)", read(page)):
        try:
            pkgutil.resolve_name(name)
        except (AttributeError, ImportError) as error:
            pytest.fail(f"{name}: {error}")


def test_every_decision_is_in_the_index():
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (folder / "index.md").read_text(encoding="utf-8"))
    assert listed == sorted(path.name for path in folder.glob("0*.md"))


def commands_of(command: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    groups = [action for action in command._actions if isinstance(action, argparse._SubParsersAction)]
    return [command, *(each for group in groups for child in group.choices.values() for each in commands_of(child))]


def test_the_options_page_has_every_flag():
    documented = set(re.findall(r"`(?:-\w`, `)?(--[a-z-]+)", read("docs/guide/options.md")))
    there = {
        name
        for command in commands_of(parser())
        for action in command._actions
        for name in action.option_strings
        if name.startswith("--") and name != "--help"
    }
    assert documented == there


def test_the_configuration_page_has_every_setting():
    page = read("docs/guide/configuration.md")
    rows = [
        f"| {f'`{each.key}`' if each.key else '-'} | `{each.variable}` | {each.meaning} | {each.default_text} |"
        for each in SETTINGS
    ]
    assert re.findall(r"^\|.* \| `PHI3_.*$", page, re.MULTILINE) == rows
    others = [f"| `{name}` | {meaning} |" for name, meaning in OTHERS.items()]
    assert re.findall(r"^\| `[A-Z_]+` \| [^|]* \|$", page, re.MULTILINE) == others


def test_the_errors_page_has_every_error_with_its_exit_code():
    rows = re.findall(r"^\| (\d+) \|[^|]*\|([^|]*)\|", read("docs/guide/errors.md"), re.MULTILINE)
    documented = {name: int(code) for code, names in rows for name in re.findall(r"`(\w+Error)`", names)}
    there = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.Phi3Error)
    }
    assert documented == there
