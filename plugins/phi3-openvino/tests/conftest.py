"""The sample model on OpenVINO, obtained once for all tests."""

from __future__ import annotations

import phi3_core as phi3
import pytest
from phi3_core.paths import read_json
from phi3_core.values import Artifact
from tokenizers import Tokenizer

QUESTIONS = (
    "What is the capital of France?",
    "Tell me a story about a lighthouse.",
    "Write a Python function that reverses a string.",
    "Explain how rain forms.",
    "List three fruits.",
    "Who wrote Hamlet, and when?",
    "Give me a recipe for pancakes.",
    "What is the difference between a lake and a sea?",
)


@pytest.fixture(scope="session")
def backend_name():
    """Whose artifacts the sample's store keeps."""
    return "openvino"


@pytest.fixture(scope="module")
def model(sample_home):
    """The sample model, loaded for a conversation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3_HOME", str(sample_home))
        with phi3.load("sample", device="openvino:CPU") as loaded:
            yield loaded


@pytest.fixture(scope="module")
def folder(sample_home):
    """The artifact, which is made if no other module's model was loaded before."""
    found = sample_home / "artifacts" / "sample" / "openvino-int4"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3_HOME", str(sample_home))
        if not found.is_dir():  # it comes to its place when it is complete
            phi3.load("sample", device="openvino:CPU").close()
        yield found


@pytest.fixture(scope="module")
def artifact(folder):
    return Artifact(path=folder, backend="openvino", precision="int4", manifest=read_json(folder / "phi3.json"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    """Returns the ids of the model's prompt for a question."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    return lambda question: list(tokenizer.encode(text.format(question)).ids)


@pytest.fixture(scope="module")
def prompts(tokenizer):
    return [tokenizer(question) for question in QUESTIONS]
