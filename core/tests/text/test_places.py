"""What a chat template has no place for is said, and is not dropped."""

from __future__ import annotations

import logging

import pytest
from phi3_core.errors import ModelError, UsageError
from phi3_core.text.places import Places
from phi3_core.text.template import ChatTemplate

# As Phi-3-medium's.
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'user' %}<|user|>\n{{ m.content }}<|end|>\n<|assistant|>\n"
    "{% elif m.role == 'assistant' %}{{ m.content }}<|end|>\n{% endif %}{% endfor %}"
)
REFUSES_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "[{{ m.role }}: {{ m.content }}]{% endfor %}"
)
FIRST_SYSTEM_ONLY = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('System must be first') }}"
    "{% endif %}[{{ m.role }}: {{ m.content }}]{% endfor %}"
)
DROPS_LATER_SYSTEM = (
    "{% if messages[0].role == 'system' %}[S {{ messages[0].content }}]{% endif %}"
    "{% for m in messages %}{% if m.role != 'system' %}[{{ m.role }}: {{ m.content }}]{% endif %}{% endfor %}"
)
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}[{{ m.role }}: {{ m.content }}]{% endfor %}"
)
PARTS = (
    "{% for m in messages %}[{{ m.role }}: {% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% endif %}{% endfor %}]{% endfor %}"
)
ANY = "{% for m in messages %}[{{ m.role }}: {{ m.content }}]{% endfor %}"


def render(source, *turns):
    places = Places(ChatTemplate(source))
    arrangement = places.arrange([role for role, _ in turns], add_generation_prompt=True)
    roles, texts = arrangement.apply([text for _, text in turns])
    return places.render(roles, texts, add_generation_prompt=True)


@pytest.mark.parametrize(
    ("source", "turns", "text"),
    [
        (ANY, [("system", "S"), ("user", "a")], "[system: S][user: a]"),
        (NO_SYSTEM, [("system", "S"), ("user", "a")], "<|user|>\nS\n\na<|end|>\n<|assistant|>\n"),
        (REFUSES_SYSTEM, [("system", "S"), ("user", "a"), ("assistant", "b")], "[user: S\n\na][assistant: b]"),
        (ALTERNATES, [("system", "S"), ("user", "a"), ("assistant", "b")], "[user: S\n\na][assistant: b]"),
        (
            FIRST_SYSTEM_ONLY,
            [("system", "S"), ("user", "a"), ("assistant", "b"), ("system", "T"), ("user", "c")],
            "[system: S][user: a][assistant: b][user: T\n\nc]",
        ),
        (
            DROPS_LATER_SYSTEM,
            [("system", "S"), ("user", "a"), ("assistant", "b"), ("system", "T"), ("user", "c")],
            "[S S][user: a][assistant: b][user: T\n\nc]",
        ),
        (NO_SYSTEM, [("system", " "), ("user", "a")], "<|user|>\na<|end|>\n<|assistant|>\n"),
        (NO_SYSTEM, [("system", "S"), ("system", "T"), ("user", "a")], "<|user|>\nS\n\nT\n\na<|end|>\n<|assistant|>\n"),
        (PARTS, [("system", "S"), ("user", "a")], "[system: S][user: a]"),
        ("{{ messages[0].content }}", [("system", "S"), ("user", "a")], "S\n\na"),
    ],
)
def test_a_system_message_is_not_dropped(source, turns, text, caplog):
    assert render(source, *turns) == text
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * ("\n\n" in text or turns[0][1] == " ")


def test_it_is_said_once(caplog):
    places = Places(ChatTemplate(NO_SYSTEM))
    for turns in (["system", "user"], ["user"], ["system", "user", "assistant", "user"]):
        places.arrange(turns, add_generation_prompt=True)
    (record,) = caplog.records
    assert "no place for a system message" in record.getMessage()


@pytest.mark.parametrize(
    ("source", "roles", "words"),
    [
        (NO_SYSTEM, ["system"], "no user message follows"),
        (NO_SYSTEM, ["user", "assistant", "system"], "no user message follows"),
        (NO_SYSTEM, ["user", "tool"], "no place for message 2, whose role is 'tool'"),
        (NO_SYSTEM, ["system", "user", "tool", "user"], "no place for message 3, whose role is 'tool'"),
        ("{{ messages[-1].content }}", ["user", "assistant", "user"], "no place for message 1"),
        ("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
         ["user", "assistant", "user"], "no place for message 2, whose role is 'assistant'"),
    ],
)  # fmt: skip
def test_what_cannot_be_put_elsewhere_is_refused(source, roles, words):
    with pytest.raises(UsageError, match=words) as caught:
        Places(ChatTemplate(source)).arrange(roles, add_generation_prompt=True)
    assert caught.value.hint


def test_a_refusal_keeps_the_templates_reason():
    with pytest.raises(UsageError, match="roles must alternate"):
        render(ALTERNATES, ("user", "a"), ("user", "b"))


def test_a_template_that_drops_everything_is_broken():
    with pytest.raises(ModelError, match="drops what the user says"):
        render("<|user|>Hello", ("user", "a"))


@pytest.mark.parametrize("change", ["upper", "trim", "tojson", "reverse | list | join", "urlencode", "title"])
def test_changed_text_is_not_dropped(change):
    source = ANY.replace("m.content", "m.content | " + change)
    assert render(source, ("user", "a b"), ("assistant", "c"))


def test_what_the_template_writes_is_known():
    arrangement = Places(ChatTemplate(NO_SYSTEM)).arrange(["system", "user"], add_generation_prompt=True)
    assert "<|end|>" in arrangement.written
    assert "raise" not in arrangement.written
