"""A server with models that answer what a test has written down."""

from __future__ import annotations

import json
import shutil

import pytest
from scripted import Script, served
from tokenizers import AddedToken, Tokenizer

TURNS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TOOLS = ("<|tool|>", "<|/tool|>", "<|tool_call|>", "<|/tool_call|>", "<|tool_response|>")
PHI_4_MINI = (
    "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not "
    "none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + "
    "'<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)


def make_source(folder, tokenizer, **files):
    """Write original weights, as far as a parrot cares."""
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "model.safetensors").write_bytes(b"\0" * 8)
    files["config"] = {"model_type": "phi3", "vocab_size": 200064}
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def scripts(chatml_folder, phi3_folder, plugins_at, tmp_path_factory):
    """Two models: m has the tokens of Phi-4-mini and its engine follows JSON schemas, plain has neither."""
    folder = tmp_path_factory.mktemp("scripted")
    tokenizer = Tokenizer.from_file(str(chatml_folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in TURNS])
    tokenizer.add_tokens([AddedToken(name, normalized=False, rstrip=True) for name in TOOLS])
    settings = {"chat_template": PHI_4_MINI, "eos_token": "<|endoftext|>"}
    native = make_source(folder / "m", tokenizer, tokenizer_config=settings)
    phi3_tokenizer = Tokenizer.from_file(str(phi3_folder / "tokenizer.json"))
    plain = make_source(folder / "plain", phi3_tokenizer, tokenizer_config={"eos_token": "<|endoftext|>"})
    with pytest.MonkeyPatch.context() as patch:
        site = folder / "site"
        site.mkdir()
        patch.syspath_prepend(str(site))
        patch.setenv("PYTHONPATH", str(site))
        patch.setenv("PHI3_HOME", str(folder / "home"))
        patch.setenv("PHI3_CONFIG", "none")
        plugins = plugins_at(site)
        yield {
            "m": Script(plugins, "scripted", native, folder, "json_schema"),
            "plain": Script(plugins, "unguided", plain, folder),
        }
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def address(scripts):
    """The address of a server with these models."""
    with served(scripts) as found:
        yield found


@pytest.fixture
def script(scripts):
    """What the model m answers: a greeting, until told otherwise."""
    scripts["m"].begin("Hello, world!")
    return scripts["m"]


@pytest.fixture
def plain_script(scripts):
    """What the model plain answers."""
    scripts["plain"].begin("Hello, world!")
    return scripts["plain"]


@pytest.fixture
def read_events():
    """Reads server-sent events: the name and the document of each."""

    def read(lines):
        name = None
        for line in lines:
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: {"):
                yield name, json.loads(line.removeprefix("data: "))

    return read
