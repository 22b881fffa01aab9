"""Tokens beside the text that they make."""

from __future__ import annotations

import pytest
from phi3_core.text.decoder import Decoder
from phi3_core.text.logprobs import TokenTexts
from phi3_core.text.stops import StopStrings
from phi3_core.text.tokenizer import Tokenizer
from phi3_core.values import ScoredToken

TEXT = "Hello 😀 wörld, 你好"


@pytest.fixture(params=["phi3_folder", "chatml_folder"])
def tokenizer(request):
    return Tokenizer.from_folder(request.getfixturevalue(request.param))


def read(tokenizer, ids, stop=()):
    """The chunks of an answer, as a model makes them."""
    decoder, texts, stops, stopped = Decoder(tokenizer), TokenTexts(tokenizer), StopStrings(stop), False
    chunks = []
    for token in ids:
        completed = decoder.push(token)
        texts.push(ScoredToken(token, -0.5, [(token, -0.5)]), completed)
        shown, stopped = stops.push(completed)
        chunks += [texts.show(shown)] if shown else []
        if stopped:
            return chunks
    return [*chunks, texts.show(stops.finish(), all_of_it=True)]


def test_their_bytes_are_those_of_the_text(tokenizer):
    ids = tokenizer.encode(TEXT)
    chunks = read(tokenizer, ids)
    assert "".join(chunks) == tokenizer.decode(ids)
    tokens = [token for chunk in chunks for token in chunk.logprobs]
    assert len(tokens) == len(ids)
    assert b"".join(token.bytes for token in tokens).decode() == tokenizer.decode(ids)
    assert any("\ufffd" in token.token for token in tokens)
    assert all(token.top[0].bytes == token.bytes for token in tokens)


def test_each_chunk_has_the_tokens_of_its_text(tokenizer):
    before = ""
    for chunk in read(tokenizer, tokenizer.encode(TEXT)):
        assert all(len(before) <= token.start < len(before) + len(chunk) for token in chunk.logprobs)
        assert b"".join(token.bytes for token in chunk.logprobs).decode() == chunk
        before += chunk


def test_what_a_stop_string_cuts_off_has_no_tokens(tokenizer):
    ids = tokenizer.encode("one two three four")
    chunks = read(tokenizer, ids, stop=(" three",))
    tokens = [token for chunk in chunks for token in chunk.logprobs]
    text = "".join(chunks)
    assert text == "one two"
    assert len(tokens) < len(ids)
    assert b"".join(token.bytes for token in tokens).decode().startswith(text)
    assert tokens[-1].start < len(text)


def test_half_of_a_character_at_the_end_has_its_tokens(tokenizer):
    ids = tokenizer.encode("a😀")[:-1]
    chunks = read(tokenizer, ids)
    assert "".join(chunks) == "a"
    assert len([token for chunk in chunks for token in chunk.logprobs]) == len(ids)


def test_a_control_token_has_its_name_and_no_bytes(tokenizer):
    stop = tokenizer.stop_ids[0]
    (chunk,) = read(tokenizer, [stop])
    assert chunk.logprobs[0].bytes is None
    assert chunk.logprobs[0].token == tokenizer.name(stop) != ""
