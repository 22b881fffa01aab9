"""Text as other programs write it: byte-order marks, UTF-16, code pages and line ends."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path

import pytest
from phi3_core.errors import UsageError
from phi3_core.textfiles import MOST_BYTES, decode, read

TEXT = "What is the capital of France?\nUnd von Österreich?\n"


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"], ids=["unix", "windows", "old-mac"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),  # what > writes in PowerShell 5.1
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
        (b"", "utf-16-le"),
        (b"", "utf-16-be"),
    ],
)
def test_a_text_is_the_same_in_every_encoding_that_can_be_told(mark, encoding, ends):
    assert decode(mark + TEXT.replace("\n", ends).encode(encoding), "it") == TEXT


@pytest.mark.parametrize("data", [b"a\0b", b"one\0two\0", b"\0", b"a\0b\0c"])
def test_zero_bytes_are_called_that(data):
    with pytest.raises(UsageError, match="it is not text: it has zero bytes"):
        decode(data, "it")


def test_another_encoding_is_decoded_if_it_is_known_and_refused_if_not():
    data = "Größe".encode("cp1252")
    assert decode(data, "it", fallback="cp1252") == "Größe"
    with pytest.raises(UsageError, match="it is not UTF-8: .*save it as UTF-8"):
        decode(data, "it")


@pytest.mark.parametrize(
    "data",
    [b"\x7fELF\x02\x01\x01\0\0\0", b"PK\x03\x04\0\0\xff\xff", codecs.BOM_UTF16_LE + b"a"],
    ids=["program", "archive", "half-a-character"],
)
@pytest.mark.parametrize("fallback", [None, "cp437"])
def test_what_is_no_text_is_refused_in_one_line(data, fallback):
    with pytest.raises(UsageError, match="it is not"):
        decode(data, "it", fallback=fallback)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"the text .*nothing\.txt cannot be read: no such file"):
        read(tmp_path / "nothing.txt", "the text")
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path, "the text")


def test_texts_that_no_model_reads_are_not_read_to_their_end(tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(UsageError, match="the text .*log has more than 33.6 MB") as caught:
        read(path, "the text")
    assert caught.value.hint


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file without an end")
def test_a_file_without_an_end_is_refused():
    with pytest.raises(UsageError, match="more than"):
        read(Path("/dev/zero"), "the text")
