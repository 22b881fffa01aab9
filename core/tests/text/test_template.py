from __future__ import annotations

import subprocess
import sys

import pytest
from phi3_core.errors import ModelError, UsageError
from phi3_core.text.template import PHI3_TEMPLATE, ChatTemplate

HELLO = [{"role": "user", "content": "Hello"}]


def render(source, messages=HELLO, **options):
    return ChatTemplate(source).render(messages, **options)


def test_phi3_template():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": " Hello!\n"},
    ]
    text = "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n Hello!\n<|end|>\n"
    assert render(PHI3_TEMPLATE, messages, add_generation_prompt=False) == text
    assert render(PHI3_TEMPLATE, messages) == text + "<|assistant|>\n"


def test_phi3_template_has_no_tools():
    with pytest.raises(UsageError, match="no place for the role tool"):
        render(PHI3_TEMPLATE, [{"role": "tool", "content": "42"}])


def test_blocks_take_their_lines_with_them():
    assert render("a\n  {% if true %}\nb\n  {% endif %}\nc\n") == "a\nb\nc"


def test_loop_controls():
    assert render("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "012"


def test_json_is_not_escaped_for_html():
    assert render("{{ messages[0] | tojson }}", [{"role": "user", "content": "é<&'\""}]) == (
        '{"role": "user", "content": "é<&\'\\""}'
    )
    assert render("{{ {'b': 1, 'a': [2]} | tojson(indent=1) }}") == '{\n "b": 1,\n "a": [\n  2\n ]\n}'


def test_date():
    assert render("{{ strftime_now('%Y') }}").startswith("2")


def test_generation_blocks_are_printed():
    assert render("a{% generation %}{{ messages[0].content }}{% endgeneration %}b") == "aHellob"


def test_variables():
    template = ChatTemplate("{{ bos_token }}{{ eos_token }}{{ tools is none }}", {"bos_token": "<s>"})
    assert template.render(HELLO) == "<s>True"


def test_refusal():
    with pytest.raises(UsageError, match="roles must alternate") as caught:
        render("{{ raise_exception('Conversation\n roles must alternate.') }}")
    assert caught.value.message.endswith(": Conversation roles must alternate")
    assert caught.value.hint


@pytest.mark.parametrize(
    "source",
    [
        "{% if %}",
        "{{ messages[0].content.nothing.more }}",
        "{{ messages[0].content + 1 }}",
        "{{ messages | no_such_filter }}",
        "{{ 1 / 0 }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% include 'x' %}",
        "{% for i in range(1000000) %}{% endfor %}",
        "{{ " + "(" * 2000 + "1" + ")" * 2000 + " }}",
    ],
)
def test_broken_template(source):
    with pytest.raises(ModelError, match="chat template is broken") as caught:
        render(source)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_messages_stay_as_they_are():
    messages = [{"role": "user", "content": "a"}]
    with pytest.raises(ModelError):
        render("{{ messages[0].update({'content': 'b'}) }}", messages)
    assert messages == [{"role": "user", "content": "a"}]


def test_jinja_is_imported_late():
    program = "import sys, phi3_core.text.tokenizer; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("source", ["{{ '\\ud800' }}", "{{ '%c' % 56320 }}"])
def test_template_that_writes_half_of_a_character(source):
    with pytest.raises(ModelError, match=r"it writes \\ud[8c]00, half of a character"):
        ChatTemplate(source).render([{"role": "user", "content": "Hello"}])
