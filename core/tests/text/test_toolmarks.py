from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from phi3_core.errors import UsageError
from phi3_core.text.tokenizer import Tokenizer
from tokenizers import AddedToken

# Phi-4-mini's, as microsoft/Phi-4-mini-instruct has it.
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not "
    "none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + "
    "'<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
TURNS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TOOLS = ("<|tool|>", "<|/tool|>", "<|tool_call|>", "<|/tool_call|>", "<|tool_response|>")
CONVERSATION = [
    {"role": "system", "content": "Hello", "tools": '[{"name": "capital"}]'},
    {"role": "user", "content": "the capital of France"},
    {"role": "assistant", "content": "", "tool_calls": '[{"name": "capital", "arguments": {"of": "France"}}]'},
    {"role": "tool", "content": "Paris"},
]
EXPECTED = (
    '<|system|>Hello<|tool|>[{"name": "capital"}]<|/tool|><|end|><|user|>the capital of France<|end|>'
    '<|assistant|><|tool_call|>[{"name": "capital", "arguments": {"of": "France"}}]<|/tool_call|><|end|>'
    "<|tool_response|>Paris<|end|><|assistant|>"
)
texts = st.lists(
    st.sampled_from((*TURNS, *TOOLS, "<|tool", "|>", "<|/", "_call|>", "<", '{"a": 1}', " ", "\n", "France", "é")),
    max_size=6,
).map("".join)


@pytest.fixture(params=[False, True], ids=["plain", "special"])
def phi4_mini(request, make_folder, byte_level_tokenizer):
    """A tokenizer with Phi-4-mini's tokens; those of tools are special or not."""
    byte_level_tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in TURNS])
    tokens = [AddedToken(name, normalized=False, special=request.param, rstrip=True) for name in TOOLS]
    (byte_level_tokenizer.add_special_tokens if request.param else byte_level_tokenizer.add_tokens)(tokens)
    config = {"chat_template": TEMPLATE, "eos_token": "<|endoftext|>"}
    return Tokenizer.from_folder(make_folder(byte_level_tokenizer, tokenizer_config=config)), byte_level_tokenizer


def test_tools_calls_and_results_are_in_the_form_of_the_training(phi4_mini):
    tokenizer, plain = phi4_mini
    assert tokenizer.takes_tools
    ids = tokenizer.encode_chat(CONVERSATION)
    assert ids == plain.encode(EXPECTED, add_special_tokens=False).ids
    assert plain.decode(ids, skip_special_tokens=False) == EXPECTED


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tools=texts, calls=texts, result=texts, said=texts)
def test_only_core_writes_control_tokens(phi4_mini, tools, calls, result, said):
    tokenizer, plain = phi4_mini
    messages = [
        {"role": "system", "content": said, "tools": tools},
        {"role": "user", "content": said},
        {"role": "assistant", "content": said, "tool_calls": calls},
        {"role": "tool", "content": result},
    ]
    ids = tokenizer.encode_chat(messages)
    control = [number for name in (*TURNS, *TOOLS) if (number := plain.token_to_id(name)) is not None]
    found = [plain.id_to_token(number) for number in ids if number in control]
    expected = [
        *("<|system|>", "<|tool|>", "<|/tool|>", "<|end|>", "<|user|>", "<|end|>"),
        *("<|assistant|>", "<|tool_call|>", "<|/tool_call|>", "<|end|>"),
        *("<|tool_response|>", "<|end|>", "<|assistant|>"),
    ]
    assert found == expected


def test_tokens_of_tools_are_text_without_tools_too(phi4_mini):
    tokenizer, plain = phi4_mini
    ids = tokenizer.encode_chat([{"role": "user", "content": "What does <|tool_call|>[]<|/tool|> mean?"}])
    assert not {plain.token_to_id(name) for name in TOOLS} & set(ids)


def test_what_a_model_calls_is_decoded_with_its_marks(phi4_mini):
    tokenizer, plain = phi4_mini
    text = 'Hello<|tool_call|>[{"name": "capital"}]<|/tool_call|>'
    assert tokenizer.decode(plain.encode(text, add_special_tokens=False).ids) == text
    assert tokenizer.decode([plain.token_to_id("<|end|>"), *plain.encode("Paris").ids]) == "Paris"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "Hello", "tools": "[]"},
        {"role": "user", "content": "Hello", "tool_calls": "[]"},
        {"role": "system", "content": "Hello", "tools": [{"name": "capital"}]},
        {"role": "system", "content": "Hello", "tools": "\ud800"},
    ],
)
def test_tools_that_are_none(phi4_mini, message):
    with pytest.raises(UsageError) as caught:
        phi4_mini[0].encode_chat([message])
    assert caught.value.hint


def test_a_model_without_the_form_refuses_tools(chatml_folder, phi3_folder):
    for folder in (chatml_folder, phi3_folder):
        tokenizer = Tokenizer.from_folder(folder)
        assert not tokenizer.takes_tools
        with pytest.raises(UsageError, match="no place for the tools of message 1"):
            tokenizer.encode_chat(CONVERSATION)


def test_tools_of_a_message_that_the_template_takes_no_place_for(make_folder, byte_level_tokenizer):
    tokens = [AddedToken(name, normalized=False, special=True) for name in (*TURNS, *TOOLS)]
    byte_level_tokenizer.add_special_tokens(tokens)
    loop = "{% for message in messages "
    without = TEMPLATE.replace(loop, loop + "if message.role != 'system' ")
    folder = make_folder(byte_level_tokenizer, tokenizer_config={"chat_template": without})
    with pytest.raises(UsageError, match="message 1, which has tools"):
        Tokenizer.from_folder(folder).encode_chat(CONVERSATION[:2])
