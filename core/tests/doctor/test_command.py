"""``phi3 doctor``: what it says, what it survives, and what its report does not tell."""

from __future__ import annotations

import getpass
import json
import sys
from pathlib import Path

DIAGNOSIS = """
from phi3_core import Finding

@hookimpl
def diagnose(machine):
    return [
        Finding(severity="info", message=f"driver 1.2 on {machine.os}"),
        Finding(severity="warning", message="the food is old", remedy="buy some"),
        Finding(severity="error", message="the cage is open", remedy="close it"),
    ]
"""
REFUSING = """
from phi3_core import Finding, Refusal

@hookimpl
def detect(machine):
    return [Refusal(reason="no bird is here", remedy="get one")]

@hookimpl
def diagnose(machine):
    return [Finding(severity="info", message="no bird is here"), Finding(severity="warning", message="no seed either")]
"""
SYSTEM = {"win32": "windows", "darwin": "macos"}.get(sys.platform, "linux")


def starting(lines, *words):
    return [line for line in lines if line.startswith(words)]


def test_it_says_what_is_installed_what_can_run_and_what_is_wrong(plugins, doctor, monkeypatch):
    monkeypatch.setenv("PHI3_DETECT_LIMIT", "15")
    monkeypatch.setenv("PHI3_API_KEY", "hunter2")
    plugins.add("parrot", changes=DIAGNOSIS)
    plugins.add("bird", changes=REFUSING)
    code, lines, _ = doctor("--no-generate")
    assert code == 5  # a device is there, and an error was found
    assert "PHI3_DETECT_LIMIT=15" in lines
    assert "PHI3_API_KEY=(set)" in lines
    assert starting(lines, "phi3-core ")
    own = lines[lines.index("phi3-parrot 1.0 (parrot)") :]
    assert own[1:3] == ["usable: parrot:CPU (cpu): A parrot; fp16", f"driver 1.2 on {SYSTEM}"]
    # The severest comes first, whatever the backend's order.
    said = starting(lines, "error: parrot", "warning: parrot")
    assert said == ["error: parrot: the cage is open -> close it", "warning: parrot: the food is old -> buy some"]
    # What is refused is said once.
    assert [line for line in lines if "no bird is here" in line] == ["not usable: no bird is here -> get one"]
    assert "warning: bird: no seed either" in lines


def test_a_backend_that_cannot_say_costs_the_others_nothing(plugins, doctor, monkeypatch):
    limit = 20 if sys.platform == "win32" else 8  # a process takes seconds to start there when others do too
    monkeypatch.setenv("PHI3_DIAGNOSE_LIMIT", str(limit))
    plugins.add("parrot", changes=DIAGNOSIS)
    plugins.add("dies", changes="@hookimpl\ndef diagnose(machine):\n    import os; os.abort()\n")
    plugins.add("hangs", changes="@hookimpl\ndef diagnose(machine):\n    import time; time.sleep(600)\n")
    plugins.add("raises", changes="@hookimpl\ndef diagnose(machine):\n    raise OSError('no such DLL')\n")
    plugins.add("nonsense", changes="@hookimpl\ndef diagnose(machine):\n    return ['all is well']\n")
    plugins.add("missing", changes="raise ImportError('no such module')")
    code, lines, _ = doctor("--no-generate")
    assert code == 5
    assert starting(lines, "error: parrot: the cage is open")
    for name, error in {
        "dies": "its process died during diagnose",
        "hangs": f"did not answer 'diagnose' within {limit} s",
        "raises": "no such DLL",
        "nonsense": "diagnose returned",
        "missing": "no such module",
    }.items():
        (line,) = starting(lines, f"broken: {name} ")
        assert error in line
        assert line.endswith(f" -> pip install --upgrade phi3-{name}, or pip uninstall phi3-{name}")


def test_without_a_backend_nothing_works(doctor, monkeypatch):
    monkeypatch.setattr("phi3_core.surveys.installed", lambda: ((), ()))
    code, lines, _ = doctor()
    assert code == 3
    assert "no backend is installed -> pip install phi3-openvino" in lines
    assert lines[-1].startswith("nothing works")


def test_the_report_is_one_text_file_without_names_folders_and_secrets(plugins, doctor, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hunter2-hunter2")
    monkeypatch.setenv("COMPUTERNAME", "ANNS-BOX")
    monkeypatch.setenv("USERNAME", "Zoë Quux")
    secret = Path.home() / "Documents" / "me.txt"
    words = f"{secret} of ZOË QUUX on anns-box with hunter2-hunter2 and /media/{getpass.getuser()}/disk"
    finding = f"Finding(severity='warning', message={words!r})"
    plugins.add(
        "parrot",
        changes=f"from phi3_core import Finding\n@hookimpl\ndef diagnose(machine):\n    return [{finding}]\n",
    )
    file = tmp_path / "new" / "report.txt"
    code, lines, err = doctor("--no-generate", "--report", file, "--json")
    assert (code, "report is in" in err) == (0, True)
    report = file.read_text(encoding="utf-8")
    document = json.loads("\n".join(lines))
    (message,) = [one["finding"]["message"] for one in document["diagnoses"] if one["backend"] == "parrot"]
    documents = Path("~", "Documents", "me.txt")
    assert message == f"{documents} of <user> on <host> with <secret> and /media/<user>/disk"
    assert f"warning: parrot: {message}" in report
    for private in (str(Path.home()), "hunter2", "anns-box", "zoë"):
        assert private not in report.casefold()
    (answer,) = [one for one in document["survey"]["answers"] if one["name"] == "parrot"]
    assert (answer["distribution"], answer["version"]) == ("phi3-parrot", "1.0")
    assert answer["offers"][0]["device"]["id"] == "CPU"
    assert document["settings"]["PHI3_HOME"] == "<store>"
    assert document["packages"]["phi3-parrot"] == "1.0"
    assert "PHI3_HOME=<store>" in report
    assert "phi3-parrot 1.0 (parrot)" in report
    assert max(map(len, report.splitlines())) <= 120


def test_a_report_that_cannot_be_written_is_one_line(plugins, doctor, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = doctor("--no-generate", "--report", tmp_path / "file" / "report.txt")
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert "the report cannot be written" in err
