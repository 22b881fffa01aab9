"""The plugin in LLM itself, with the sample model on OpenVINO."""

from __future__ import annotations

import json
import os

# The package with the sample model's weights is a plugin of LLM too, which needs llama-cpp-python.
os.environ["LLM_LOAD_PLUGINS"] = "llm-phi3"

import llm
import llm.cli
import pytest
from click.testing import CliRunner
from llm_phi3 import Phi3, messages

QUESTION = "What is the capital of France?"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """A store that all tests share, in the cache of this run."""
    cache = os.environ.get("PHI3_TEST_CACHE") or str(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3_HOME", os.path.join(cache, "llm-home"))  # noqa: PTH118 - a variable's value
        patch.setenv("PHI3_CONFIG", "none")
        yield


@pytest.fixture(scope="module")
def model(home):
    found = llm.get_model("phi3/sample")
    yield found
    assert isinstance(found, Phi3)
    found._loaded[1].close()


def test_the_catalogue_is_registered():
    names = {each.model_id for each in llm.get_models()}
    assert {"phi3/sample", "phi3/phi-3-mini-4k-instruct", "phi3/phi-4-mini-instruct"} <= names


def test_it_answers_in_chunks_and_tells_what_it_took(model):
    response = model.prompt(QUESTION, device="openvino:CPU", max_new_tokens=20)
    chunks = list(response)
    assert len(chunks) > 3
    assert "Paris" in "".join(chunks)
    usage = response.usage()
    assert usage.input > 30
    assert 4 < usage.output <= 20
    assert response.response_json["device"] == "openvino:CPU"


def test_a_conversation_is_read_as_one(model):
    conversation = model.conversation()
    conversation.prompt("My name is Ada.", system="Be brief.", device="openvino:CPU", max_new_tokens=12).text()
    second = conversation.prompt("What is my name?", device="openvino:CPU", max_new_tokens=20)
    second.text()
    alone = model.prompt("What is my name?", device="openvino:CPU", max_new_tokens=1)
    alone.text()
    assert second.usage().input > alone.usage().input
    said = messages(second.prompt, conversation)
    assert [each["role"] for each in said][:3] == ["system", "user", "assistant"]
    assert (said[0]["content"], said[1]["content"]) == ("Be brief.", "My name is Ada.")


def test_the_command_line_answers_and_logs(tmp_path):
    runner = CliRunner()
    flags = ("-m", "phi3/sample", "-o", "device", "openvino:CPU", "-o", "max_new_tokens", "8", "--no-stream")
    done = runner.invoke(llm.cli.cli, [QUESTION, *flags])
    assert (done.exit_code, "Paris" in done.output) == (0, True)
    (row,) = json.loads(runner.invoke(llm.cli.cli, ["logs", "--json"]).output)
    assert row["model"] == "phi3/sample"
    assert row["response_json"]["precision"] == "int4"


def test_what_cannot_be_is_one_line():
    done = CliRunner().invoke(llm.cli.cli, [QUESTION, "-m", "phi3/sample", "-o", "device", "acme"])
    assert done.exit_code == 1
    assert "acme" in done.output.splitlines()[-1]
    assert "Traceback" not in done.output
