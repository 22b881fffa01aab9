"""What a backend returns about engines, ids and logits, checked before it is sent to the host.

Each check returns the value in the form that core uses, or raises :class:`ContractError` with what is wrong with it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from phi3_core.errors import BackendError, OverrunError
from phi3_core.values import ScoredToken
from phi3_core.wording import shortened

if TYPE_CHECKING:
    import numpy as np

    from phi3_core.values import Engine

LARGEST_ID = 2**31 - 1
"""The largest token id if the size of the vocabulary is unknown."""

_BLOCK = 1 << 22
"""Logits to check at once."""
_ZERO = 1e-4
"""The largest logarithm of a probability, by rounding."""
_SUM_OF_PROBABILITIES = 0.01
"""How far the sum of rounded probabilities is from 1 at most."""


class ContractError(Exception):
    """What a hook did, to be put behind its name."""

    kind: type[BackendError] = BackendError
    """The error that it becomes."""


class ContractOverrunError(ContractError):
    """An iterator of ``generate`` went on after the end of the answer, which is complete."""

    kind = OverrunError


def token_id(item: object, vocabulary: int | None) -> int:
    """Return what ``generate`` yielded as a token id.

    Args:
        item: any integer, also one of numpy.
        vocabulary: the number of ids; None if unknown.

    Raises:
        ContractError: it is no integer, or no id of the vocabulary.
    """
    token = _integer(item)
    largest = LARGEST_ID if vocabulary is None else vocabulary - 1
    if token is None:
        raise ContractError(f"yielded {shortened(item)}, a {type(item).__name__}, and not the integer of a token")
    if not 0 <= token <= largest:
        raise ContractError(f"yielded the id {shortened(token)}, which is not in the vocabulary of 0 to {largest}")
    return token


def scored_token(item: object, count: int, vocabulary: int | None) -> ScoredToken:
    """Return what ``generate`` yielded for a request with ``logprobs``.

    Args:
        item: what was yielded, whose id was checked already.
        count: how many likely tokens were asked for.
        vocabulary: the number of ids; None if unknown.

    Raises:
        ContractError: it has no logarithmic probabilities, or wrong ones.
    """
    if not isinstance(item, ScoredToken):
        raise ContractError(f"yielded {shortened(item)} without the logarithmic probabilities that were asked for")
    if len(item.top) != (count if vocabulary is None else min(count, vocabulary)):
        raise ContractError(f"yielded {len(item.top)} likely tokens for {int(item)}, and not {count}")
    top = [(token_id(token, vocabulary), float(logprob)) for token, logprob in item.top]
    for logprob in (item.logprob, *(logprob for _, logprob in top)):
        if not logprob <= _ZERO:  # also what is no number
            raise ContractError(f"yielded {logprob} as the logarithm of a probability")
    return ScoredToken(item, float(item.logprob), top)


def engine_facts(engine: Engine) -> dict[str, Any]:
    """Return what an engine says of itself.

    Raises:
        ContractError: an attribute has a wrong value.
    """
    facts: dict[str, Any] = {}
    for name in ("context_length", "max_concurrency"):
        given = getattr(engine, name)
        number = _integer(given)
        if number is None or number < 1:
            raise ContractError(f"returned an engine whose {name} is {shortened(given)}, and not a number of 1 or more")
        facts[name] = number
    words = engine.capabilities
    if not isinstance(words, AbstractSet) or not all(isinstance(word, str) for word in words):
        raise ContractError(
            f"returned an engine whose capabilities are {shortened(words)}, and not a frozenset of words"
        )
    return {**facts, "capabilities": words}


def _integer(given: object) -> int | None:
    """Return an integer of any type as ``int``; None for anything else, also for a truth value."""
    if isinstance(given, bool) or type(given).__name__ == "bool_":  # numpy 1's, which passes as an integer
        return None
    try:
        return operator.index(given)  # type: ignore[arg-type]
    except TypeError:
        return None


def logits_array(found: Any, rows: int, columns: int | None) -> np.ndarray:
    """Return what ``logits`` returned as an array, without copying it.

    Args:
        found: an array, or what numpy can read as one, such as a tensor of torch.
        rows: the number of ids that it was asked for.
        columns: the size of the vocabulary; None if unknown.

    Raises:
        ContractError: it is no array of logits.
    """
    array = _array(found)
    shape = list(array.shape)
    wanted = f"[{rows}, {'vocabulary' if columns is None else columns}]"
    if array.ndim != 2 or len(array) != rows or columns not in {None, shape[1]}:
        raise ContractError(f"returned an array of {shape}, and not of {wanted}: a row per id, a column per token")
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise ContractError(f"returned an array of {array.dtype.name}, and not of floating-point numbers")
    step = max(1, _BLOCK // max(1, shape[1]))
    blocks = ((start, array[start : start + step].astype("<f4", copy=False)) for start in range(0, rows, step))
    _check_values(blocks)
    return array


def _array(found: Any) -> np.ndarray:
    import numpy as np  # start-up: needed only for logits

    if not hasattr(found, "__array__"):
        raise ContractError(f"returned a {type(found).__name__}, and no array")
    try:
        return np.asarray(found)
    except Exception as error:  # each library raises errors of its own
        why = " ".join(str(error).split())[:200]
        raise ContractError(f"returned a {type(found).__name__} that numpy cannot read: {why}") from error


def _check_values(blocks: Iterable[tuple[int, np.ndarray]]) -> None:
    """Check that logits are finite, and that not all rows are probabilities."""
    import numpy as np  # start-up: as above

    probabilities = True
    for start, block in blocks:
        finite = np.isfinite(block)
        if not finite.all():
            row, column = (int(place) for place in np.argwhere(~finite)[0])
            raise ContractError(
                f"returned {float(block[row, column])} for the token {column} after position {start + row}; "
                f"{int((~finite).sum())} of {block.size} logits are not finite"
            )
        probabilities = probabilities and bool(
            (block >= 0).all() and (np.abs(block.sum(axis=1, dtype=np.float64) - 1) < _SUM_OF_PROBABILITIES).all()
        )
    if probabilities:
        raise ContractError("returned probabilities, and not logits: every row sums to 1")
