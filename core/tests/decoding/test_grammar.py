"""JSON schemas as grammars of tokens, on tokenizers of both kinds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from phi3_core.backend import Answer
from phi3_core.decoding.grammar import SchemaGrammar, Vocabulary
from phi3_core.errors import UsageError
from phi3_core.text.tokenizer import Tokenizer
from phi3_core.values import GenerationRequest, Sampling

jsonschema = pytest.importorskip("jsonschema", reason="needs the package jsonschema")
pytest.importorskip("llguidance", reason="needs phi3-core[guidance]")

PROMPT = (5, 6)


@pytest.fixture(scope="module", params=["phi3_folder", "chatml_folder"])
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def vocabulary(folder):
    return Vocabulary(folder)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer.from_folder(folder)


def request_for(vocabulary, schema, stop_ids=(), **more):
    text = schema if isinstance(schema, str) else json.dumps(schema)
    settings_of = {"prompt_ids": PROMPT, "max_new_tokens": 400, "stop_ids": stop_ids, **more}
    return GenerationRequest(**settings_of, json_schema=text, grammar=SchemaGrammar(vocabulary, text))


def made(tokenizer, answer, rng, *, preferred=()):
    """The text of an answer whose logits are random, apart from tokens that are preferred one after the other."""
    size = tokenizer.vocabulary_size
    ids: list[int] = []
    wanted = iter(preferred)
    while not answer.ended:
        if ids:
            answer.following(proposes=False)
        row = rng.normal(size=(1, size))
        if (token := next(wanted, None)) is not None:
            row[0, token] = 100
        ids += answer.append(row)
    return tokenizer.decode(ids)


SCALARS = st.sampled_from(
    [
        {"type": "boolean"},
        {"type": "null"},
        {"type": "integer", "minimum": -5, "maximum": 40},
        {"type": "string", "maxLength": 4},
        {"enum": ["one", 2, None]},
        {"const": "x"},
    ]
)


def objects(inner):
    names = st.lists(st.sampled_from("abc"), unique=True, max_size=3)
    return st.builds(
        lambda names, values: {
            "type": "object",
            "properties": dict(zip(names, values, strict=False)),
            "required": names[:1],
            "additionalProperties": False,
        },
        names,
        st.lists(inner, min_size=3, max_size=3),
    )


SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        objects(inner),
        st.builds(lambda items: {"type": "array", "items": items, "maxItems": 2}, inner),
        st.builds(lambda first, second: {"anyOf": [first, second]}, inner, inner),
    ),
    max_leaves=5,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=SCHEMAS, seed=st.integers(0, 2**16), temperature=st.sampled_from([0.0, 1.0]))
def test_an_answer_that_ends_by_itself_follows_its_schema(vocabulary, tokenizer, schema, seed, temperature):
    sampling = Sampling(temperature=temperature, seed=seed)
    asked = request_for(vocabulary, schema, tokenizer.stop_ids, sampling=sampling)
    answer = Answer(asked)
    text = made(tokenizer, answer, np.random.default_rng(seed))
    if len(answer.ids) < len(PROMPT) + asked.max_new_tokens:
        jsonschema.validate(json.loads(text), schema)


def test_it_says_what_it_would_have_said_if_the_schema_allows_that(vocabulary, tokenizer):
    ids = tokenizer.encode('{"a": 1}')
    answer = Answer(request_for(vocabulary, "{}", tokenizer.stop_ids))
    assert made(tokenizer, answer, np.random.default_rng(0), preferred=ids) == '{"a": 1}'
    assert answer.ids[len(PROMPT) :] == ids


def test_white_space_has_an_end(vocabulary, tokenizer):
    blank = tokenizer.encode(" ")[-1]
    answer = Answer(request_for(vocabulary, {"type": "array", "items": {"type": "null"}, "maxItems": 2}))
    text = made(tokenizer, answer, np.random.default_rng(0), preferred=[blank] * 400)
    assert json.loads(text) in ([], [None], [None, None])


def test_it_can_end_only_where_the_text_is_whole(vocabulary, tokenizer):
    stop = tokenizer.stop_ids[0]
    answer = Answer(request_for(vocabulary, {"type": "array", "items": {"type": "null"}, "minItems": 1}, (stop,)))
    text = made(tokenizer, answer, np.random.default_rng(0), preferred=[stop] * 399)
    assert json.loads(text)[0] is None


def test_without_stop_ids_it_ends_with_the_text(vocabulary, tokenizer):
    answer = Answer(request_for(vocabulary, {"const": "yes"}))
    assert made(tokenizer, answer, np.random.default_rng(0)) == '"yes"'


def test_control_tokens_are_never_said(vocabulary, tokenizer):
    special = [token for token in range(tokenizer.vocabulary_size) if not tokenizer.pieces.inside(token)]
    grammar = SchemaGrammar(vocabulary, '{"type": "string"}').begin(tokenizer.encode('"'))
    assert not grammar.mask(tokenizer.vocabulary_size, ())[special].any()


def test_rows_for_padding_are_not_chosen(vocabulary, tokenizer):
    size = tokenizer.vocabulary_size
    mask = SchemaGrammar(vocabulary, "{}").begin().mask(size + 64, ())
    assert mask[:size].any()
    assert not mask[size:].any()


def test_proposals_that_may_not_follow_are_left_out(vocabulary, tokenizer):
    text = tokenizer.encode('{"a": 1} {"b": 2} {"a": 1} {"b": 2} {"a": 1}')
    allowed = request_for(vocabulary, {"type": "object", "required": ["a"]}, prompt_ids=tuple(text))
    answer = Answer(allowed, proposals=8)
    rows = np.zeros((1, tokenizer.vocabulary_size))
    for token in tokenizer.encode('{"a": 1'):
        rows[0] = 0
        rows[0, token] = 1
        answer.append(rows)
        proposed = answer.following()[1:]
        assert answer.ids[-1] == token
        written = [*answer.ids[len(text) :], *proposed]
        SchemaGrammar(vocabulary, allowed.json_schema).begin(written)  # raises for what may not follow
        answer.following(proposes=False)


def test_an_answer_goes_on_where_another_engine_has_left_it(vocabulary, tokenizer):
    begun = tuple(tokenizer.encode('["a", "b'))
    schema = {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2}
    answer = Answer(request_for(vocabulary, schema, prompt_ids=(*PROMPT, *begun), answered=len(begun)))
    rest = made(tokenizer, answer, np.random.default_rng(1))
    jsonschema.validate(json.loads('["a", "b' + rest), schema)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("[", "is not one"),
        ("[]", "is not one"),
        ("9" * 5000, "is not one"),
        ("[" * 100_000, "is not one"),
        ('{"type": "string", "not": {"maxLength": 3}}', "not"),
        ('{"type": "string", "format": "colour"}', "colour"),
        ('{"type": "string", "pattern": "("}', "unclosed group"),
        ('{"type": "whatever"}', "whatever"),
        ('{"x-guidance": {"lenient": true}, "type": "string"}', "x-guidance"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(vocabulary, schema, said):
    with pytest.raises(UsageError, match=said) as caught:
        SchemaGrammar(vocabulary, schema).compile()
    assert len(caught.value.message) < 300


def test_what_becomes_too_complex_ends_the_answer_with_an_error(vocabulary, tokenizer, monkeypatch):
    monkeypatch.setattr("phi3_core.decoding.grammar._LEXER_STATES", 20)
    with pytest.raises(UsageError, match="cannot be followed"):
        made(
            tokenizer,
            Answer(request_for(vocabulary, {"type": "string", "pattern": "^(a|b)*a(a|b){60}$"}, tokenizer.stop_ids)),
            np.random.default_rng(0),
        )


def test_without_a_tokenizer_a_schema_is_refused():
    with pytest.raises(UsageError, match="the tokenizer is not known"):
        Answer(GenerationRequest(prompt_ids=PROMPT, max_new_tokens=3, json_schema="{}"))
