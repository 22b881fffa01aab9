"""What ``phi3 doctor`` finds out by generating."""

from __future__ import annotations

import json
import shutil

import phi3_core as phi3
import pytest
from choosy import CHOOSY
from phi3_core.doctor import diagnostics
from phi3_core.doctor.trials import Trial
from phi3_core.figures import failures
from phi3_core.paths import read_json, write_json
from phi3_core.plugin import Backend
from phi3_core.values import Device

CAGE = """
import os, time

@hookimpl
def detect(machine):
    return [
        Offer(
            device=Device(backend="cage", id=name, kind="cpu", name="A bird"),
            precisions=["fp16"],
            layout="odd" if name == "odd" else "",
        )
        for name in ("good", "odd", "dies", "hangs", "mute", "silent")
    ]

@hookimpl
def load(artifact, device):
    if device.id == "mute":
        raise OSError("no voice")
    engine = Engine()
    engine.name = device.id
    return engine

@hookimpl
def generate(engine, request):
    said = [token for token in request.prompt_ids if token not in request.stop_ids]
    if engine.name == "silent" and len(said) > 8:
        return
    yield said[0]
    if engine.name == "dies":
        print("the driver says goodbye", flush=True)
        os._exit(9)
    if engine.name == "hangs":
        time.sleep(600)
    yield from said[1 : request.max_new_tokens]
"""
# It cannot quantize, and nothing is published for it.
BARE = """
from phi3_core import hookimpl, Device, Offer

@hookimpl
def detect(machine):
    return [Offer(device=Device(backend="{name}", id="CPU", kind="cpu", name="B"), precisions=["fp16"])]

@hookimpl
def load(artifact, device):
    raise OSError

@hookimpl
def generate(engine, request):
    yield 1
"""
OF_TWO_PRECISIONS = """
@hookimpl
def detect(machine):
    device = Device(backend="parrot", id="0", kind="npu", name="A parrot")
    return [Offer(device=device, precisions=["fp16", "int8"])]
"""
SMALL = """
@hookimpl
def detect(machine):
    device = Device(backend="parrot", id="0", kind="gpu", name="A parrot", memory_bytes=10**9)
    return [Offer(device=device, precisions=["fp16"])]
"""


def starting(lines, *words):
    return [line for line in lines if line.startswith(words)]


def teach(home, artifact, token):
    """Let an artifact have known answers: always the same token."""
    (folder,) = (home / "artifacts").glob(f"*/{artifact}")
    steps = [[[token, token + 1], [0.0, 5.0]]] * 4
    known = {"ids": [9] * 20, "chains": [{"prompt": 8, "steps": steps}]}
    write_json(folder / "phi3.json", {**read_json(folder / "phi3.json"), "answers": known})


def test_each_device_works_or_is_wrong_or_dead(plugins, doctor, run_main, source, home, monkeypatch):
    monkeypatch.setenv("PHI3_TOKEN_LIMIT", "2")
    plugins.add("cage", changes=CAGE)
    device = Device(backend="cage", id="good", kind="cpu", name="A bird")
    failures.note(Backend(name="cage", target="x", distribution="phi3-cage", version="1.0"), device, "it broke")
    for name, artifact, token in (("good", "cage-fp16", 9), ("odd", "cage-odd-fp16", 33)):
        assert run_main("models", "pull", source, "-d", f"cage:{name}")[0] == 0
        teach(home, artifact, token)
    report = plugins.site / "report.txt"
    code, lines, err = doctor("--model", source, "--report", report)
    assert code == 5, err
    found = {line.split()[1].partition(":")[2]: line for line in starting(lines, "works: ", "wrong: ", "dead: ")}
    assert {name: line.partition(":")[0] for name, line in found.items()} == {
        "good": "works",
        "odd": "wrong",
        "dies": "dead",
        "hangs": "dead",
        "mute": "dead",
        "silent": "wrong",
    }
    assert "cage:good fp16, tiny: loaded in " in found["good"]
    assert "known answers agree; it said " in found["good"]
    assert "France" in found["good"]
    assert "it says" in found["odd"]
    assert "(exit code 9)" in found["dies"]
    assert "it did not answer 'generate' within 2 s" in found["hangs"]
    assert "no voice" in found["mute"]
    assert "without a token" in found["silent"]
    assert lines.count("-> update its driver, and pip install --upgrade phi3-cage") >= 3
    assert lines[-1].startswith("1 of 6 trials worked")
    # What worked is no longer put last, and what did not is.
    assert {name: failures.is_noted(f"cage:{name}") for name in found} == {name: name != "good" for name in found}
    assert "| the driver says goodbye" in report.read_text(encoding="utf-8")


def test_an_artifact_that_passed_before_is_checked_again(plugins, doctor, source, home):
    plugins.add("parrot")
    assert doctor("--model", source)[0] == 0
    teach(home, "parrot-fp16", 33)
    phi3.load(source).close()  # passes are remembered
    code, lines, _ = doctor("--model", source)
    assert code == 3
    assert starting(lines, "wrong: parrot:CPU")
    assert lines[-1].startswith("nothing works")
    with pytest.raises(phi3.WrongAnswersError):  # it is not believed any more
        phi3.load(source)


def test_each_precision_of_the_usual_model_in_the_store_is_tried(plugins, doctor, run_main, source, monkeypatch):
    plugins.add("parrot", changes=OF_TWO_PRECISIONS)
    monkeypatch.setenv("PHI3_MODEL", source)
    for precision in ("fp16", "int8"):
        assert run_main("models", "pull", source, "-p", precision)[0] == 0
    code, lines, err = doctor("--device", "parrot:0", "--offline", "--json")
    document = json.loads("\n".join(lines))
    assert code == document["exit_code"] == 0, err
    assert [(one["verdict"], one["precision"]) for one in document["trials"]] == [("works", "fp16"), ("works", "int8")]
    assert document["trials"][0]["load_s"] > 0


def test_a_device_without_weights_of_the_usual_model_gets_the_sample(
    plugins, doctor, run_main, source, monkeypatch, tmp_path
):
    plugins.add("parrot")
    plugins.add("other")
    monkeypatch.setenv("PHI3_MODEL", source)
    assert run_main("models", "pull", source, "-d", "parrot")[0] == 0
    shutil.copytree(source, tmp_path / "small")
    monkeypatch.setattr("phi3_core.doctor.trials.SAMPLE", str(tmp_path / "small"))
    code, lines, err = doctor()
    assert code == 0, err
    assert lines[-1].startswith("every device works")
    tried = sorted(line.split(": loaded")[0] for line in starting(lines, "works: "))
    assert tried == ["works: other:CPU fp16, small", "works: parrot:CPU fp16, tiny"]


def test_a_model_that_does_not_fit_is_no_fault_of_the_device_either(plugins, doctor):
    plugins.add("parrot", changes=SMALL)
    code, lines, _ = doctor("--model", "phi-3-mini-4k-instruct", "--offline")
    assert code == 4
    (line,) = starting(lines, "untried: parrot:0 fp16, phi-3-mini-4k-instruct: ")
    assert "1.0 GB" in line


def test_weights_that_cannot_be_had_are_no_fault_of_the_device(plugins, doctor, source):
    plugins.add("bare", BARE)
    code, lines, _ = doctor("--model", source)
    assert code == 4
    assert starting(lines, "untried: bare:CPU")
    assert lines[-1].startswith("nothing was tried")
    assert not failures.is_noted("bare:CPU")


def test_an_option_that_an_engine_refuses_is_the_configurations_fault(plugins, doctor, source, monkeypatch, tmp_path):
    plugins.add("parrot")
    plugins.add("choosy", changes=CHOOSY)
    file = tmp_path / "config.toml"
    file.write_text("[options.Choosy]\nSPEED = 1\n", encoding="utf-8")
    monkeypatch.setenv("PHI3_CONFIG", str(file))
    code, lines, _ = doctor("--model", source)
    assert code == 5
    (line,) = starting(lines, "refused: choosy:CPU")
    assert line.endswith("its engine refuses what is configured: choosy has no option SPEED")
    assert lines[lines.index(line) + 1] == "-> phi3 config unset options.Choosy.SPEED"
    assert not failures.is_noted("choosy:CPU")
    assert lines[-1].startswith("1 of 2 trials worked")


@pytest.mark.parametrize(("arguments", "code"), [(["--model", "nonesuch"], 4), (["--device", "nonesuch"], 3)])
def test_a_model_or_device_that_there_is_not_is_one_line(plugins, doctor, arguments, code):
    plugins.add("parrot")
    found, lines, err = doctor(*arguments)
    assert (found, lines) == (code, [])
    assert "nonesuch" in err.splitlines()[-1]


def test_ctrl_c_keeps_what_was_found(plugins, doctor, source, monkeypatch):
    plugins.add("parrot")

    def interrupted(trials):
        yield Trial(device="parrot:CPU", precision="fp16", model="tiny", verdict="works")
        raise KeyboardInterrupt

    monkeypatch.setattr(diagnostics.Trials, "run", interrupted)
    code, lines, _ = doctor("--model", source)
    assert code == 130
    assert starting(lines, "works: parrot:CPU")
    assert lines[-1].startswith("interrupted")
