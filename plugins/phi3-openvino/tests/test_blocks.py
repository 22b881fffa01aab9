"""Which blocks of the KV cache are given out, shared, kept and used again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from phi3_openvino.blocks import Blocks, digest

TEXTS = [(bytes([number]), True) for number in range(6)]


def test_blocks_of_a_text_are_shared_until_they_are_needed_for_another():
    blocks = Blocks(range(1, 4))
    first, second = blocks.take(), blocks.take()
    blocks.keep(first, TEXTS[0])
    blocks.keep(second, TEXTS[1])
    blocks.release([first, second])
    assert blocks.find(TEXTS[0]) == first
    assert {blocks.take(), blocks.take()} == {second, 3}
    assert blocks.find(TEXTS[1]) is None
    assert blocks.find((TEXTS[0][0], False)) is None


def test_the_end_of_a_text_is_given_up_before_its_begin():
    blocks = Blocks(range(2))
    taken = [blocks.take(), blocks.take()]
    for block, text in zip(taken, TEXTS[:2], strict=True):
        blocks.keep(block, text)
    blocks.release(taken)
    assert blocks.take() == taken[1]
    assert blocks.find(TEXTS[0]) == taken[0]


def test_a_digest_is_of_all_tokens_in_their_order():
    assert digest(digest(b"", [1]), [2]) != digest(digest(b"", [2]), [1])
    assert digest(b"", [1, 2]) == digest(b"", iter([1, 2]))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4), st.booleans()), max_size=60))
def test_no_block_has_two_texts_and_none_is_lost(requests):
    """Each request has the text of a number, of so many blocks, and stays or leaves at once."""
    count = 8
    blocks = Blocks(range(count))
    staying: list[list[int]] = []
    content: dict[int, tuple[bytes, bool]] = {}
    for number, length, stays in requests:
        while sum(map(len, staying)) + length > count:
            blocks.release(staying.pop(0))
        mine: list[int] = []
        for at in range(length):
            text = (bytes([number, at]), True)
            if (block := blocks.find(text)) is None:
                block = blocks.take()
                assert all(block not in other for other in (*staying, mine))
                content[block] = text
                blocks.keep(block, text)
            assert content[block] == text
            mine.append(block)
        staying.append(mine)
        if not stays:
            blocks.release(staying.pop())
        assert blocks.used == len({block for other in staying for block in other})
    for mine in staying:
        blocks.release(mine)
    assert blocks.used == 0
    assert len({blocks.take() for _ in range(count)}) == count
