"""What README.md and the pages about backends promise: commands that run, hooks as they are, a backend that works."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from phi3_core import hookspecs

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
WRITING = (ROOT / "docs" / "backends" / "writing.md").read_text(encoding="utf-8")


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


def test_ci_runs_the_readmes_test_commands():
    (commands,) = [block for block in blocks("console") if "nox" in block]
    assert commands == 'python -m pip install "nox[uv]"\npython -m nox\n'
    assert f"\n\n{commands}" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_main_command_installs_what_is_there():
    (command,) = [block for block in blocks("console") if "pip install" in block and "phi3 run" in block]
    for folder in re.findall(r'"?(\./[\w/-]+)', command):
        assert (ROOT / folder / "pyproject.toml").is_file()


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_hooks_page_describes_every_hook_as_it_is():
    page = (ROOT / "docs" / "backends" / "hooks.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `(\w+)\(([^)]*)\)`", page, re.MULTILINE))
    specs = {
        name: ", ".join(inspect.signature(function).parameters)
        for name, function in vars(hookspecs).items()
        if inspect.isfunction(function) and hasattr(function, "phi3_core_spec")
    }
    assert documented == specs


def test_a_backend_in_thirty_lines_goes_the_whole_way(tmp_path, sample_needed):
    (toml,), (source,) = blocks("toml", WRITING), blocks("python", WRITING)
    assert len([line for line in source.splitlines() if line.strip()]) <= 30
    name, module = re.search(r'^(\w+) = "(\w+)"$', toml, re.MULTILINE).groups()
    distribution = re.search(r'name = "([\w-]+)"', toml).group(1)
    site = tmp_path / "site"
    info = site / f"{module}-0.1.dist-info"
    info.mkdir(parents=True)
    (site / f"{module}.py").write_text(source, encoding="utf-8")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[phi3]\n{name} = {module}\n", encoding="utf-8")
    environment = {**os.environ, "PHI3_HOME": str(tmp_path / "home"), "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-m", "phi3_core", "run", "--model", "sample", "--device", "parrot:0", "Hello"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Hello" in done.stdout
    assert "parrot:0 (Parrot 3000): asked for as parrot:0" in done.stderr


@pytest.mark.parametrize("folder", ["core", "plugins/phi3-dml", "plugins/phi3-npu", "plugins/phi3-openvino"])
def test_every_distribution_has_its_papers(folder):
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"):
        assert (ROOT / folder / name).is_file()
