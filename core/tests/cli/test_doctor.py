"""``phi3 doctor``: what it says, what it survives, and what its report does not tell."""

from __future__ import annotations

import getpass
import json
import shutil
import sys
from pathlib import Path

import pytest
from phi3_core import diagnostics
from phi3_core.cli import main

DIAGNOSIS = """
from phi3_core import Finding

@hookimpl
def diagnose(machine):
    return [
        Finding(severity="info", message=f"driver 1.2 on {machine.os}"),
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


@pytest.fixture
def doctor(plugins, capfd, monkeypatch):
    monkeypatch.chdir(plugins.site)

    def run(*arguments):
        capfd.readouterr()
        code = main(["doctor", *map(str, arguments)])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def test_it_says_what_is_installed_what_can_run_and_what_is_wrong(plugins, doctor, monkeypatch):
    monkeypatch.setenv("PHI3_DETECT_LIMIT", "15")
    plugins.add("parrot", changes=DIAGNOSIS)
    plugins.add("quiet")
    code, out, _ = doctor()
    lines = out.splitlines()
    assert code == 0
    assert "phi3-parrot 1.0" in lines[1]
    assert "phi3-core" in lines[1]
    assert "PHI3_DETECT_LIMIT=15" in lines
    assert "usable: parrot:CPU (cpu): A parrot; fp16" in lines
    assert "error: parrot: the cage is open -> close it" in lines
    # The severest comes first, whatever the backend's order.
    said = [line for line in lines if line.startswith(("error: parrot", "info: parrot"))]
    assert [line.partition(":")[0] for line in said] == ["error", "info"]


def test_what_is_refused_is_said_once(plugins, doctor):
    plugins.add("parrot", changes=REFUSING)
    _, out, _ = doctor()
    assert out.count("no bird is here") == 1
    assert "not usable: parrot: no bird is here -> get one" in out
    assert "warning: parrot: no seed either" in out


def test_a_backend_that_cannot_say_costs_the_others_nothing(plugins, doctor, monkeypatch):
    limit = 20 if sys.platform == "win32" else 8  # a process takes seconds to start there when others do too
    monkeypatch.setenv("PHI3_DIAGNOSE_LIMIT", str(limit))
    plugins.add("parrot", changes=DIAGNOSIS)
    plugins.add("dies", changes="@hookimpl\ndef diagnose(machine):\n    import os; os.abort()\n")
    plugins.add("hangs", changes="@hookimpl\ndef diagnose(machine):\n    import time; time.sleep(600)\n")
    plugins.add("raises", changes="@hookimpl\ndef diagnose(machine):\n    raise OSError('no such DLL')\n")
    plugins.add("nonsense", changes="@hookimpl\ndef diagnose(machine):\n    return ['all is well']\n")
    plugins.add("missing", changes="raise ImportError('no such module')")
    code, out, _ = doctor()
    assert code == 0
    assert "error: parrot: the cage is open" in out
    for name, error in {
        "dies": "its process died during diagnose",
        "hangs": f"did not answer 'diagnose' within {limit} s",
        "raises": "no such DLL",
        "nonsense": "diagnose returned",
        "missing": "no such module",
    }.items():
        (line,) = [line for line in out.splitlines() if line.startswith(f"broken: {name} ")]
        assert error in line


def test_the_report_is_one_file_without_names_and_folders(plugins, doctor, tmp_path):
    secret = Path.home() / "Documents" / "me.txt"
    finding = f"Finding(severity='info', message={str(secret)!r} + ' and /media/' + {getpass.getuser()!r} + '/disk')"
    plugins.add(
        "parrot",
        changes=f"from phi3_core import Finding\n@hookimpl\ndef diagnose(machine):\n    return [{finding}]\n",
    )
    file = tmp_path / "report.json"
    code, out, err = doctor("--report", file, "--json")
    assert (code, "report is in" in err) == (0, True)
    document = json.loads(file.read_text(encoding="utf-8"))
    assert json.loads(out) == document
    (finding,) = [one["finding"]["message"] for one in document["diagnoses"] if one["backend"] == "parrot"]
    assert Path(finding.partition(" and ")[0].replace("~", str(Path.home()))) == secret
    assert finding.endswith("/media/<user>/disk")
    assert str(Path.home()) not in file.read_text(encoding="utf-8")
    (answer,) = [one for one in document["survey"]["answers"] if one["name"] == "parrot"]
    assert (answer["distribution"], answer["version"]) == ("phi3-parrot", "1.0")
    assert answer["offers"][0]["device"]["id"] == "CPU"
    assert document["settings"]["PHI3_HOME"] == "<store>"
    assert document["packages"]["phi3-parrot"] == "1.0"


def test_a_report_that_cannot_be_written_is_one_line(plugins, doctor, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = doctor("--report", tmp_path / "file" / "report.json")
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert "the report cannot be written" in err


def test_every_device_generates_if_asked_to(plugins, doctor, phi3_folder, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(phi3_folder, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "phi3"}), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"\0" * 8)
    plugins.add("parrot")
    plugins.add("mute", changes="@hookimpl\ndef load(artifact, device, options):\n    raise OSError('no voice')\n")
    code, out, _ = doctor("--generate", folder)
    assert code == 0
    (parrot,) = [line for line in out.splitlines() if line.startswith("generated: parrot:CPU: ")]
    assert "France" in parrot
    assert "ready after" in parrot
    (mute,) = [line for line in out.splitlines() if line.startswith("generated: mute:CPU: ")]
    assert "no voice" in mute


def test_names_are_taken_out_of_paths_only():
    user = getpass.getuser()
    texts = {"a": [f"/mnt/{user}/x", f"{user} is a word", f"/mnt/{user}"], "b": 1, "c": None}
    assert diagnostics.anonymous(texts) == {
        "a": ["/mnt/<user>/x", f"{user} is a word", "/mnt/<user>"],
        "b": 1,
        "c": None,
    }


def test_packages_are_ours_and_what_they_need_of_others(plugins):
    plugins.add("parrot")
    for name, requires in {
        "feathers": ["quill>=1", 'paint; extra == "colour"'],
        "quill": ["Some.Ink (>=2)"],
        "some-ink": [],
        "paint": [],
        "seed": [],
    }.items():
        info = plugins.site / f"{name.replace('-', '_')}-2.0.dist-info"
        info.mkdir()
        lines = [
            "Metadata-Version: 2.1",
            f"Name: {name}",
            "Version: 2.0",
            *(f"Requires-Dist: {one}" for one in requires),
        ]
        (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    metadata = plugins.site / "phi3_parrot-1.0.dist-info" / "METADATA"
    needs = 'Requires-Dist: feathers\nRequires-Dist: seed ; extra == "cage"\nRequires-Dist: nowhere\n'
    metadata.write_text(metadata.read_text(encoding="utf-8") + needs, encoding="utf-8")
    found = diagnostics.packages()
    names = ["feathers", "paint", "phi3-parrot", "quill", "seed", "some-ink"]
    assert {name: found.get(name) for name in names} == {
        "feathers": "2.0",
        "paint": None,  # an extra of others
        "phi3-parrot": "1.0",
        "quill": "2.0",
        "seed": "2.0",  # an extra of ours
        "some-ink": "2.0",
    }
    assert "nowhere" not in found
    assert next(iter(found)).startswith("phi3-")
