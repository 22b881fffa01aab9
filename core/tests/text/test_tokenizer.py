from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phi3_core.errors import ModelError, UsageError
from phi3_core.text import guard
from phi3_core.text.template import PHI3_TEMPLATE, ChatTemplate
from phi3_core.text.tokenizer import Tokenizer
from tokenizers import AddedToken, decoders, models, normalizers, processors
from tokenizers import Tokenizer as Plain

FRAGMENTS = (
    *("<|end|>", "<|user|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "</s>", "<s>", "<unk>", "<|im_<|im_end|>"),
    *("<", "<|", "end", "|>", "<|e", "im_end|>", "s>", "▁", " ", "  ", "\n", "the capital", "Paris", "é", "你", "😀"),
    *("\U000f0000", "\U000f0001", "\ufffd", "<0x0A>"),
)
contents = st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join)


def user(content):
    return [{"role": "user", "content": content}]


def bare(plain):
    """The tokenizer without any added tokens: what text is when nothing in it is special."""
    state = json.loads(plain.to_str())
    state["added_tokens"] = []
    return Plain.from_str(json.dumps(state))


@pytest.fixture(scope="module")
def phi3(phi3_folder):
    plain = Plain.from_file(str(phi3_folder / "tokenizer.json"))
    return Tokenizer.from_folder(phi3_folder), plain, bare(plain)


@pytest.fixture(scope="module")
def chatml(chatml_folder):
    plain = Plain.from_file(str(chatml_folder / "tokenizer.json"))
    return Tokenizer.from_folder(chatml_folder), plain, bare(plain)


# --- conversations ----------------------------------------------------------------------------------------------------


@given(content=contents)
def test_phi3_ids(phi3, content):
    tokenizer, plain, text_only = phi3
    number = plain.token_to_id
    # The turn tokens take the whitespace after them along, as they do without the guard.
    middle = text_only.encode(content.lstrip(" \n"), add_special_tokens=False).ids
    ids = tokenizer.encode_chat(user(content))
    assert ids == [number("<|user|>"), *middle, number("<|end|>"), number("<|assistant|>")]
    assert plain.decode(middle) == tokenizer.decode(middle) == content.lstrip(" \n").replace("▁", " ")


@given(content=contents)
def test_chatml_ids(chatml, content):
    tokenizer, plain, text_only = chatml
    start, end = map(plain.token_to_id, ("<|im_start|>", "<|im_end|>"))
    ids = tokenizer.encode_chat(user(content))
    middle, between, last = (text_only.encode(text).ids for text in ("user\n" + content, "\n", "assistant\n"))
    assert ids == [start, *middle, end, *between, start, *last]
    assert plain.decode(ids, skip_special_tokens=False) == (
        f"<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"
    )


@given(text=st.text(st.characters(exclude_characters="<", exclude_categories=["Cs"])))
def test_ordinary_conversation_is_what_the_plain_tokenizer_makes_of_it(phi3, text):
    tokenizer, plain, _ = phi3
    messages = [{"role": role, "content": text} for role in ("system", "user", "assistant", "user")]
    rendered = ChatTemplate(PHI3_TEMPLATE).render(messages, add_generation_prompt=False)
    ids = tokenizer.encode_chat(messages, add_generation_prompt=False)
    assert ids == plain.encode(rendered, add_special_tokens=False).ids


@given(text=contents)
def test_text(phi3, chatml, text):
    for tokenizer, _, text_only in (phi3, chatml):
        assert tokenizer.encode(text) == text_only.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(tokenizer.encode(text)).replace("▁", " ") == text.replace("▁", " ")


def test_second_tokenizer_is_made_when_it_is_needed(phi3_folder):
    tokenizer = Tokenizer.from_folder(phi3_folder)
    tokenizer.encode_chat(user("1 < 2, and <p> is a paragraph"))
    assert tokenizer._guard._disarming is None
    tokenizer.encode_chat(user("What does <|end|> mean?"))
    second = tokenizer._guard._disarming
    tokenizer.encode_chat(user("And <|user|>?"))
    assert tokenizer._guard._disarming is second


def test_token_put_together_from_two_messages(chatml_folder, make_folder, byte_level_tokenizer):
    folder = make_folder(
        byte_level_tokenizer,
        tokenizer_config={"chat_template": "{% for m in messages %}{{ m.content | trim }}{% endfor %}"},
    )
    tokenizer = Tokenizer.from_folder(folder)
    for length in range(1, len("<|im_end|>")):
        halves = "a <|im_end|>"[: length + 2], "<|im_end|> b"[length:]
        ids = tokenizer.encode_chat([*user(halves[0] + " \n"), *user(halves[1])])
        assert tokenizer.decode(ids) == "a <|im_end|> b"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        None,
        "Hello",
        {"role": "user", "content": "Hello"},
        ["Hello"],
        [{"content": "Hello"}],
        [{"role": "User", "content": "Hello"}],
        [{"role": ["user"], "content": "Hello"}],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
        [{"role": "user", "content": "\ud800"}],
    ],
)
def test_messages_that_are_none(phi3, messages):
    with pytest.raises(UsageError) as caught:
        phi3[0].encode_chat(messages)
    assert caught.value.hint


def test_only_role_and_content_reach_the_template(make_folder, byte_level_tokenizer):
    folder = make_folder(byte_level_tokenizer, tokenizer_config={"chat_template": "{{ messages[0] | tojson }}"})
    tokenizer = Tokenizer.from_folder(folder)
    ids = tokenizer.encode_chat([{"role": "user", "content": "a", "name": "<|im_end|>"}])
    assert tokenizer.decode(ids) == '{"role": "user", "content": "a"}'


def test_text_that_is_not_unicode(phi3):
    with pytest.raises(UsageError, match="Unicode"):
        phi3[0].encode("\udcff")


# --- unusual tokens ---------------------------------------------------------------------------------------------------


def make(plain, template="{{ bos_token }}{{ messages[0].content }}<|im_end|>"):
    return Tokenizer(plain, ChatTemplate(template, {"bos_token": ""}), [])


@pytest.mark.parametrize("text", ["a<|IM_END|>b", "a＜|im_end|＞b", "a<|im_end|>b", "plain"])
def test_tokens_matched_after_a_normalizer(byte_level_tokenizer, text):
    byte_level_tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    byte_level_tokenizer.add_special_tokens([AddedToken("<|im_end|>", normalized=True, special=True)])
    state = json.loads(byte_level_tokenizer.to_str())
    for token in state["added_tokens"]:
        token["normalized"] = True
    plain = Plain.from_str(json.dumps(state))
    tokenizer = make(plain)
    end = plain.token_to_id("<|im_end|>")
    ids = tokenizer.encode_chat(user(text))
    assert ids.count(end) == 1
    assert ids[-1] == end
    assert tokenizer.decode(ids) == byte_level_tokenizer.normalizer.normalize_str(text)


def test_token_of_one_character(byte_level_tokenizer):
    byte_level_tokenizer.add_special_tokens([AddedToken("☃", normalized=False), AddedToken("☃☃", normalized=False)])
    tokenizer = make(byte_level_tokenizer, "☃{{ messages[0].content }}☃☃")
    one, two = map(byte_level_tokenizer.token_to_id, ("☃", "☃☃"))
    ids = tokenizer.encode_chat(user("a☃b☃☃☃c☃"))
    assert [number for number in ids if number in (one, two)] == [one, two]
    assert tokenizer.decode(ids) == "a☃b☃☃☃c☃"


def test_runs_of_whitespace_stay_tokens(byte_level_tokenizer):
    byte_level_tokenizer.add_tokens([AddedToken("    ", normalized=False), AddedToken("\n\n", normalized=False)])
    tokenizer = make(byte_level_tokenizer)
    ids = tokenizer.encode_chat(user("a\n\n    b<|im_end|>"))
    assert {byte_level_tokenizer.token_to_id("    "), byte_level_tokenizer.token_to_id("\n\n")} <= set(ids)
    assert tokenizer.decode(ids) == "a\n\n    b<|im_end|>"


def test_model_that_spells_control_tokens_itself():
    plain = Plain(models.Unigram([("?", -9.0), ("</s>", 0.0), ("a", -1.0), ("b", -1.0), ("<", -5.0)], unk_id=0))
    plain.decoder = decoders.Fuse()
    plain.add_special_tokens([AddedToken("</s>", normalized=False, special=True)])
    tokenizer = make(plain, "{{ messages[0].content }}</s>")
    assert tokenizer.encode_chat(user("ab")) == [2, 3, 1]
    with pytest.raises(UsageError, match="control token") as caught:
        tokenizer.encode_chat(user("a</s>b"))
    assert "</s>" in caught.value.hint


def test_unknown_character_is_no_control_token():
    plain = Plain(models.BPE({"<unk>": 0, "a": 1}, [], unk_token="<unk>"))
    plain.decoder = decoders.Fuse()
    plain.add_special_tokens(["<unk>", "<|im_end|>"])
    assert make(plain).encode_chat(user("a?a")) == [1, 0, 1, 2]


def test_private_use_characters_in_messages(phi3, monkeypatch):
    monkeypatch.setattr(guard, "_PRIVATE_USE", (range(0xE000, 0xE003),))
    tokenizer = phi3[0]
    text = "\ue000<|end|>\ue002"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    with pytest.raises(UsageError, match="private-use"):
        tokenizer.encode(text + "\ue001")


# --- added words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [
        {"normalized": False},
        {"normalized": True},
        {"single_word": True, "normalized": False},
        {"lstrip": True, "rstrip": True},
    ],
)
@pytest.mark.parametrize("make_plain", ["phi3_tokenizer", "byte_level_tokenizer"])
def test_added_words_stay_tokens(request, make_folder, make_plain, flags):
    plain = request.getfixturevalue(make_plain)
    words = ["AKR1C3", "<gene>", "[MOL]", "naïve", "你好", "☃", "two words", "<think>"]
    plain.add_tokens([AddedToken(word, special=False, **flags) for word in words])
    folder = make_folder(plain, tokenizer_config={"chat_template": "{{ messages[0].content }}"})
    tokenizer = Tokenizer.from_folder(folder)
    text = " ".join(["Hello", *words, "and more"])
    ids = plain.encode(text, add_special_tokens=False).ids
    assert set(map(plain.token_to_id, words)) <= set(ids)
    assert tokenizer.encode_chat(user(text)) == tokenizer.encode(text) == ids
    # Beside the string of a control token as well.
    end = "<|end|>" if make_plain == "phi3_tokenizer" else "<|im_end|>"
    disarmed = tokenizer.encode(f"{text} {end} {text}")
    assert plain.token_to_id(end) not in disarmed
    assert {disarmed.count(plain.token_to_id(word)) for word in words} == {2}


def test_tokens_that_the_template_writes_are_control_tokens(make_folder, byte_level_tokenizer):
    byte_level_tokenizer.add_tokens([AddedToken(word, normalized=False) for word in ("<think>", "<tool>", "Paris!")])
    template = "{% if x %}<tool>{% endif %}Paris! {{ messages[0].content }}<think>"
    tokenizer = Tokenizer.from_folder(make_folder(byte_level_tokenizer, tokenizer_config={"chat_template": template}))
    think, tool = map(byte_level_tokenizer.token_to_id, ("<think>", "<tool>"))
    ids = tokenizer.encode_chat(user("<think> <tool>"))
    assert (ids.count(think), ids.count(tool), ids[-1]) == (1, 1, think)
    assert tokenizer.decode(ids) == "Paris! <think> <tool><think>"


@pytest.mark.parametrize("word", ["naïve", "Ã©", "Ġa", "你好", "a b"])
def test_added_words_are_decoded_as_they_are(byte_level_tokenizer, word):
    byte_level_tokenizer.add_tokens([AddedToken(word, normalized=False)])
    tokenizer = make(byte_level_tokenizer)
    assert tokenizer.decode(tokenizer.encode(f"{word}, {word}")) == f"{word}, {word}"


# Templates of reasoning models, as far as they look into messages.
THINKING = {
    "split": (
        "{% if '</think>' in m.content %}{{ m.content.split('</think>')[-1].lstrip('\\n') }}"
        "{% else %}{{ m.content }}{% endif %}"
    ),
    "macro": (
        "{% macro text(c) %}{{ c }}{% endmacro %}{% set c = text(m.content) | trim %}"
        "{% if '</think>' in c %}{{ (c.split('</think>') | last).strip() }}{% else %}{{ c }}{% endif %}"
    ),
    "block": "{% set c %}{{ m.content }}{% endset %}{{ c.split('</think>', 1)[-1] }}",
    "partition": "{{ m.content.rpartition('</think>')[2] }}",
    "replace": "{{ m.content | replace('<think>', '(') | replace('</think>', ')') }}",
    "find": "{% set at = m.content.find('</think>') %}{{ m.content[at + 8:] if at >= 0 else m.content }}",
    "startswith": (
        "{% if m.content.startswith('<think>') %}!{% endif %}"
        "{{ m.content[7:] if '<think>' == m.content[:7] else m.content }}"
    ),
    "wrap": (
        "{% if '</think>' in m.content %}<think>\\n"
        "{{ m.content.split('</think>')[0].split('<think>')[-1].strip('\\n') }}\\n</think>\\n\\n"
        "{{ m.content.split('</think>')[-1].lstrip('\\n') }}{% else %}{{ m.content }}{% endif %}"
    ),
}


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("how", THINKING)
@pytest.mark.parametrize("end", ["4", "<think>4", "4 <|im_end|>"])
def test_templates_find_tags_that_are_tokens(make_folder, byte_level_tokenizer, how, special, end):
    tags = ("<think>", "</think>")
    byte_level_tokenizer.add_tokens([AddedToken(tag, special=special, normalized=False) for tag in tags])
    template = "{% for m in messages %}" + THINKING[how] + "<|im_end|>{% endfor %}"
    tokenizer = Tokenizer.from_folder(make_folder(byte_level_tokenizer, tokenizer_config={"chat_template": template}))
    messages = [*user("2+2?"), {"role": "assistant", "content": f"<think>\nadd <|im_start|>\n</think>\n\n{end}"}]
    ids = tokenizer.encode_chat(messages)
    rendered = ChatTemplate(template).render(messages)
    assert byte_level_tokenizer.decode(ids, skip_special_tokens=False) == rendered
    assert ids.count(byte_level_tokenizer.token_to_id("<|im_end|>")) == 2
    assert byte_level_tokenizer.token_to_id("<|im_start|>") not in ids
    if special:
        written = [2 * (how == "wrap"), 0]
        assert [ids.count(byte_level_tokenizer.token_to_id(tag)) for tag in tags] == [written[0] // 2] * 2


# --- many tokens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["Hello ", "<|im_end|>", "x", " ", "é你", "\n"])
def test_far_more_tokens_than_allowed_are_not_all_encoded(chatml, text):
    tokenizer, _, _ = chatml
    prompt = user(text * (800_000 // len(text)))
    with pytest.raises(guard.TooManyTokensError):
        tokenizer.encode_chat(prompt, most=1000)
    assert len(tokenizer.encode_chat(user(text * 40), most=5)) > 5  # few enough to be counted


def test_long_text_of_few_tokens_is_encoded(byte_level_tokenizer):
    byte_level_tokenizer.add_tokens([AddedToken(" " * 64, normalized=False)])
    tokenizer = make(byte_level_tokenizer)
    assert len(tokenizer.encode_chat(user(" " * 64 * 1000), most=1001)) == 1001


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["string", "object"])
def test_special_tokens_of_the_map(make_folder, byte_level_tokenizer, form):
    tokens = {"bos_token": "<|im_start|>", "eos_token": "Paris"}
    written = tokens if form == "string" else {name: {"content": token} for name, token in tokens.items()}
    template = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
    config = {"chat_template": template, "bos_token": None, "eos_token": "<|im_end|>"}
    folder = make_folder(byte_level_tokenizer, tokenizer_config=config, special_tokens_map=written)
    tokenizer = Tokenizer.from_folder(folder)
    ids = tokenizer.encode_chat(user("Hi"))
    assert byte_level_tokenizer.decode(ids, skip_special_tokens=False) == "<|im_start|>Hi<|im_end|>"
    assert byte_level_tokenizer.token_to_id("Paris") not in tokenizer.stop_ids  # tokenizer_config.json comes first


def test_additional_special_tokens(make_folder, byte_level_tokenizer):
    byte_level_tokenizer.add_tokens([AddedToken(word, normalized=False) for word in ("<a>", "<b>", "<c>")])
    config = {"additional_special_tokens": ["<a>"], "extra_special_tokens": {"b_token": "<b>"}}
    config["chat_template"] = "{{ b_token }}{{ messages[0].content }}{{ additional_special_tokens[0] }}"
    folder = make_folder(
        byte_level_tokenizer,
        tokenizer_config=config,
        special_tokens_map={"additional_special_tokens": [{"content": "<c>"}]},
    )
    ids = Tokenizer.from_folder(folder).encode_chat(user("<a><b><c>"))
    a, b, c = map(byte_level_tokenizer.token_to_id, ("<a>", "<b>", "<c>"))
    assert [number for number in ids if number in {a, b, c}] == [b, a]


@pytest.mark.parametrize("where", ["added_tokens", "tokenizer_config"])
def test_tokens_of_other_files(make_folder, byte_level_tokenizer, where, caplog):
    size = byte_level_tokenizer.get_vocab_size()
    config: dict[str, object] = {"chat_template": "{{ messages[0].content }}<turn>"}
    given = {"<word>": size, "<turn>": size + 1, "<far>": size + 7, "<|im_end|>": 2}
    if where == "tokenizer_config":
        config["added_tokens_decoder"] = {str(number): {"content": word} for word, number in given.items()}
        folder = make_folder(byte_level_tokenizer, tokenizer_config=config)
    else:
        folder = make_folder(byte_level_tokenizer, tokenizer_config=config, added_tokens=given)
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.encode_chat(user("<word>")) == [size, size + 1]
    (record,) = caplog.records
    assert "'<far>'" in record.getMessage()


def test_chat_template_of_a_processor(make_folder, byte_level_tokenizer):
    folder = make_folder(byte_level_tokenizer, chat_template={"chat_template": "A{{ messages[0].content }}"})
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.decode(tokenizer.encode_chat(user("Hi"))) == "AHi"


def test_ids_beyond_the_embedding_are_refused(make_folder, byte_level_tokenizer):
    rows = byte_level_tokenizer.get_vocab_size()
    byte_level_tokenizer.add_tokens([AddedToken("<word>", normalized=False)])
    config = {"chat_template": "{{ messages[0].content }}"}
    folder = make_folder(byte_level_tokenizer, tokenizer_config=config, config={"vocab_size": rows})
    tokenizer = Tokenizer.from_folder(folder, subject="my model")
    assert tokenizer.encode_chat(user("Hi")) == tokenizer.encode("Hi")
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_chat(user(text))):
        with pytest.raises(ModelError, match=rf"my model has the token '<word>' with the id {rows}.* {rows} tokens"):
            encode("a <word>")


def test_ids_without_a_token_are_decoded_as_nothing(phi3, chatml):
    for tokenizer, _, _ in (phi3, chatml):
        ids = tokenizer.encode("Hello")
        assert tokenizer.decode([ids[0], tokenizer.vocabulary_size, 200_063, *ids[1:]]) == "Hello"


def test_template_without_a_default(make_folder, byte_level_tokenizer):
    config = {"chat_template": [{"name": "rag", "template": "A"}, {"name": "tool_use", "template": "B"}]}
    tokenizer = Tokenizer.from_folder(make_folder(byte_level_tokenizer, tokenizer_config=config))
    with pytest.raises(ModelError, match="only rag, tool_use"):
        tokenizer.encode_chat(user("Hello"))


def test_phi3_folder(phi3_folder):
    tokenizer = Tokenizer.from_folder(phi3_folder)
    plain = Plain.from_file(str(phi3_folder / "tokenizer.json"))
    assert tokenizer.stop_ids == tuple(map(plain.token_to_id, ("<|endoftext|>", "<|assistant|>", "<|end|>")))
    assert tokenizer.vocabulary_size == len(plain.get_vocab())


def test_settings_of_training_are_forgotten(make_folder, phi3_tokenizer):
    phi3_tokenizer.enable_truncation(3)
    phi3_tokenizer.enable_padding(length=50)
    phi3_tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", 1)])
    tokenizer = Tokenizer.from_folder(make_folder(phi3_tokenizer))
    text = "the capital of France is Paris"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(text)) == 6
    assert len(tokenizer.encode_chat(user("<s> " + text))) == 13


@pytest.mark.parametrize(
    ("files", "stops"),
    [
        ({}, ["<|endoftext|>", "<|im_end|>"]),
        ({"generation_config": {"eos_token_id": 70}, "config": {"eos_token_id": 71}}, [70]),
        ({"generation_config": {"eos_token_id": [71, 70, 2]}}, [70, 71]),
        ({"generation_config": {"eos_token_id": None}, "config": {"eos_token_id": 71}}, [71]),
        ({"generation_config": {}, "config": {"eos_token_id": [71]}}, [71]),
        ({"tokenizer_config": {"eos_token": "Paris"}}, ["Paris"]),
        ({"tokenizer_config": {"eos_token": {"content": "Paris", "special": True}}}, ["Paris"]),
        ({"tokenizer_config": {"eos_token": "missing"}}, []),
    ],
)
def test_stop_ids(make_folder, byte_level_tokenizer, files, stops):
    config = {"chat_template": "", **files.pop("tokenizer_config", {})}
    tokenizer = Tokenizer.from_folder(make_folder(byte_level_tokenizer, tokenizer_config=config, **files))
    number = byte_level_tokenizer.token_to_id
    expected = {number("<|endoftext|>"), number("<|im_end|>")}
    expected |= {stop if isinstance(stop, int) else number(stop) for stop in stops}
    assert tokenizer.stop_ids == tuple(sorted(expected))


@pytest.mark.parametrize("stops", ["x", [1, "x"], -1, True, {"a": 1}, 1.5])
def test_stop_ids_that_are_none(make_folder, phi3_tokenizer, stops):
    folder = make_folder(phi3_tokenizer, generation_config={"eos_token_id": stops})
    with pytest.raises(ModelError, match=r"generation_config\.json"):
        Tokenizer.from_folder(folder)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("A{{ messages[0].content }}{{ eos_token }}", "AHi<|im_end|>"),
        ([{"name": "tool_use", "template": "B"}, {"name": "default", "template": "C{{ messages[0].content }}"}], "CHi"),
        ({"tool_use": "B", "default": "C{{ messages[0].content }}"}, "CHi"),
    ],
)
def test_chat_template(make_folder, byte_level_tokenizer, template, text):
    config = {"chat_template": template, "eos_token": {"content": "<|im_end|>"}}
    folder = make_folder(byte_level_tokenizer, tokenizer_config=config)
    ids = Tokenizer.from_folder(folder).encode_chat(user("Hi"))
    assert byte_level_tokenizer.decode(ids, skip_special_tokens=False) == text
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}é", encoding="utf-8")
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.decode(tokenizer.encode_chat(user("Hi"))) == "Hié"


@pytest.mark.parametrize("template", [None, [], [{"name": "rag", "template": "A"}], [1], 5])
def test_no_chat_template(make_folder, byte_level_tokenizer, template):
    folder = make_folder(byte_level_tokenizer, tokenizer_config={"chat_template": template})
    tokenizer = Tokenizer.from_folder(folder, subject="my model")
    assert tokenizer.decode(tokenizer.encode("Hello")) == "Hello"  # which is all that quantizing needs
    with pytest.raises(ModelError, match="my model has no chat template") as caught:
        tokenizer.encode_chat(user("Hello"))
    assert caught.value.hint


def test_missing_folder(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere has no tokenizer\.json") as caught:
        Tokenizer.from_folder(tmp_path / "nowhere")
    assert caught.value.hint


@pytest.mark.parametrize(
    "name",
    [
        *("tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json"),
        "special_tokens_map.json",
    ],
)
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe{}", b"[" * 100_000])
def test_damaged_file(phi3_folder, tmp_path, name, content):
    folder = shutil.copytree(phi3_folder, tmp_path / "model")
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        Tokenizer.from_folder(folder)
    assert name in caught.value.message
    assert caught.value.hint


def test_tokenizer_cut_short(phi3_folder, tmp_path):
    folder = shutil.copytree(phi3_folder, tmp_path / "model")
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    for length in range(0, len(text), 997):
        (folder / "tokenizer.json").write_text(text[:length], encoding="utf-8")
        with pytest.raises(ModelError):
            Tokenizer.from_folder(folder)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_that_an_editor_on_windows_has_saved_are_read(make_folder, byte_level_tokenizer, encoding):
    folder = make_folder(byte_level_tokenizer, tokenizer_config={"eos_token": "<|im_end|>"})
    template = "{% for message in messages %}\n<é>{{ message.content }}\n{% endfor %}"
    (folder / "chat_template.jinja").write_bytes(template.replace("\n", "\r\n").encode(encoding))
    config = folder / "tokenizer_config.json"
    config.write_bytes(config.read_text(encoding="utf-8").replace("\n", "\r\n").encode(encoding))
    tokenizer = Tokenizer.from_folder(folder)
    ids = tokenizer.encode_chat([{"role": "user", "content": "Hello"}])
    assert byte_level_tokenizer.decode(ids) == "<é>Hello\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config", {"eos_token": "\ud800"}),
        ("tokenizer_config", {"bos_token": {"content": "a\udfff"}}),
        ("tokenizer_config", {"chat_template": "{{ messages[0].content }}\ud83d"}),
        ("tokenizer_config", {"added_tokens_decoder": {"900": {"content": "\udc80"}}}),
        ("special_tokens_map", {"additional_special_tokens": ["\ud800"]}),
        ("added_tokens", {"\udcff": 900}),
        ("chat_template", {"chat_template": "\ud800"}),
        ("generation_config", {"\ud800": 1}),
    ],
)
def test_half_of_a_character_in_a_file_is_damage(make_folder, byte_level_tokenizer, name, content):
    folder = make_folder(byte_level_tokenizer, **{name: content})
    with pytest.raises(ModelError, match=rf"{name}\.json is damaged: \\ud[89a-f].. is half of a character") as caught:
        Tokenizer.from_folder(folder)
    assert caught.value.hint


def test_both_halves_of_a_character_are_a_character(make_folder, byte_level_tokenizer):
    folder = make_folder(byte_level_tokenizer, tokenizer_config={"chat_template": "{{ messages[0].content }}😀"})
    assert "\\ud83d\\ude00" in (folder / "tokenizer_config.json").read_text(encoding="utf-8")
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.decode(tokenizer.encode_chat([{"role": "user", "content": "Hello"}])) == "Hello😀"


@pytest.mark.parametrize("name", ["tokenizer.model", "vocab.json", "cl100k_base.tiktoken"])
def test_a_tokenizer_in_another_form_is_named_with_how_to_convert_it(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelError, match=f"has no tokenizer.json, only {name}") as caught:
        Tokenizer.from_folder(tmp_path)
    assert f"from_pretrained('{tmp_path.as_posix()}')" in str(caught.value.hint)
