from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phi3_core.errors import ModelError
from phi3_core.text.decoder import _BYTE_LEVEL, Decoder, Pieces
from phi3_core.text.tokenizer import Tokenizer
from tokenizers import AddedToken, decoders, models
from tokenizers import Tokenizer as Plain


@pytest.fixture(scope="module", params=["phi3_folder", "chatml_folder"])
def pair(request):
    """Our tokenizer, and the library's."""
    folder = request.getfixturevalue(request.param)
    return Tokenizer.from_folder(folder), Plain.from_file(str(folder / "tokenizer.json"))


def stream(tokenizer, ids):
    decoder = Decoder(tokenizer)
    return [*map(decoder.push, ids), decoder.finish()]


def byte_ids(plain, data):
    """The ids that stand for single bytes."""
    names = [f"<0x{byte:02X}>" for byte in data]
    if plain.token_to_id(names[0]) is None:
        names = [next(name for name, byte in _BYTE_LEVEL.items() if byte == wanted) for wanted in data]
    return [plain.token_to_id(name) for name in names]


@given(text=st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs"])))
def test_there_and_back(pair, text):
    tokenizer, plain = pair
    ids = tokenizer.encode(text)
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids) == plain.decode(ids) == text


@given(data=st.data())
def test_any_ids(pair, data):
    tokenizer, plain = pair
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary_size + 5)))
    pieces = stream(tokenizer, ids)
    text = "".join(pieces)
    assert text == tokenizer.decode(ids)
    reference = plain.decode(ids)
    if isinstance(plain.decoder, decoders.ByteLevel):
        # What is incomplete is dropped. CPython waits for the third byte of a surrogate, which is none in UTF-8.
        assert text + "\ufffd" * (len(reference) - len(text)) == reference
        assert len(reference) - len(text) <= 2
    elif "\ufffd" not in reference:
        assert text == reference


@pytest.mark.parametrize("cut", range(1, 6))
def test_ids_that_go_on_with_text_are_decoded_as_in_the_middle(pair, cut):
    tokenizer, _ = pair
    ids = tokenizer.encode("Hello world, the capital of France is Paris.")
    decoder = Decoder(tokenizer, continues=True)
    rest = "".join(map(decoder.push, ids[cut:]))
    assert tokenizer.decode(ids[:cut]) + rest == tokenizer.decode(ids)


def test_half_of_a_surrogate_at_the_end_is_dropped(pair):
    tokenizer, plain = pair
    assert "".join(stream(tokenizer, byte_ids(plain, b"a\xed\xa1"))) == "a"
    assert "".join(stream(tokenizer, byte_ids(plain, b"a\xed\xa1b"))) == "a\ufffd\ufffdb"


def test_character_is_never_shown_in_parts(pair):
    tokenizer, plain = pair
    assert stream(tokenizer, byte_ids(plain, "😀é".encode())) == ["", "", "", "😀", "", "é", ""]


def test_incomplete_character_at_the_end_is_dropped(pair):
    tokenizer, plain = pair
    ids = byte_ids(plain, b"a" + "😀".encode()[:3])
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids) == "a"


def test_bytes_that_are_no_text(pair):
    tokenizer, plain = pair
    ids = byte_ids(plain, b"\xff\xe4\xbd\xa0\xe4\xbd" + b"b")
    assert stream(tokenizer, ids) == ["\ufffd", "", "", "你", "", "", "\ufffdb", ""]


def test_real_replacement_character_is_not_held_back(pair):
    tokenizer, _ = pair
    ids = tokenizer.encode("a\ufffd")
    pieces = stream(tokenizer, ids)
    assert "".join(pieces) == "a\ufffd"
    assert pieces[-1] == ""
    assert pieces[-2] == "\ufffd"


def test_leading_space_is_dropped_once(phi3_folder):
    tokenizer = Tokenizer.from_folder(phi3_folder)
    space, paris, end = map(tokenizer._guard._plain.token_to_id, ("▁", "▁Paris", "<|end|>"))
    assert stream(tokenizer, [paris, paris]) == ["Paris", " Paris", ""]
    assert stream(tokenizer, [end, space, paris]) == ["", "", " Paris", ""]
    assert stream(tokenizer, byte_ids(tokenizer._guard._plain, b" a")) == ["", "a", ""]


def test_special_tokens_are_not_shown(pair):
    tokenizer, plain = pair
    first, *rest = byte_ids(plain, "é".encode())
    assert "".join(stream(tokenizer, [first, *tokenizer.stop_ids, 10**6, *rest])) == "é"


def test_finish_begins_anew(pair):
    tokenizer, plain = pair
    decoder = Decoder(tokenizer)
    decoder.push(byte_ids(plain, "é".encode())[0])
    assert decoder.finish() == ""
    assert "".join(map(decoder.push, tokenizer.encode("Paris"))) == "Paris"


def test_long_runs_of_bytes_cost_no_more(pair):
    tokenizer, plain = pair
    ids = byte_ids(plain, b"\xff\xf0\x9f\x98") * 25_000
    decoder = Decoder(tokenizer)
    shown = 0
    for token in ids:
        shown += len(decoder.push(token))
        assert len(decoder._utf8.getstate()[0]) <= 3  # what a step may look back at
    assert shown == 49_999


def test_replacement_character_as_a_token(phi3_folder):
    plain = Plain.from_file(str(phi3_folder / "tokenizer.json"))
    plain.add_tokens([AddedToken("x\ufffd", normalized=False)])
    assert Pieces(plain).inside(plain.token_to_id("x\ufffd")) == "x\ufffd".encode()


@pytest.mark.parametrize("decoder", [decoders.BPEDecoder(), decoders.WordPiece()])
def test_decoder_that_looks_around_is_refused(chatml_folder, decoder):
    plain = Plain.from_file(str(chatml_folder / "tokenizer.json"))
    plain.decoder = decoder
    with pytest.raises(ModelError, match=type(decoder).__name__):
        Pieces(plain)


def test_tokenizer_that_cannot_spell_is_refused():
    plain = Plain(models.BPE({"?": 0}, []))
    with pytest.raises(ModelError, match="no decoder"):
        Pieces(plain)
    plain.decoder = decoders.ByteLevel()
    with pytest.raises(ModelError, match="no letters"):
        Pieces(plain)
