"""Figures in the store: a file for each device, model and precision, below ``figures/1`` of the store.

A file has the figures of the last ``phi3 bench --save`` and of the last answers. One that is damaged costs its own
figures only. Files of other formats are in other folders, so that versions of phi3-core leave each other's alone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from attrs import evolve, field, frozen

from phi3_core import files, paths
from phi3_core.units import LAST_MOMENT
from phi3_core.values import to_plain

from .values import Conditions, Figures, Subject, bucket, by_length

FORMAT = 1
KEPT = 8
"""Samples that are kept of answers, for each length of prompt and for the speed of decoding."""
FILES = 256
"""Files that are kept; the oldest are deleted."""
_LONGEST_WAIT_S = 2.0
_LARGEST = 1e15
"""What no measurement exceeds, nor falls below the reciprocal of: sums and ratios of such numbers are finite."""


@frozen(kw_only=True)
class Samples:
    """What answers have measured, oldest first."""

    first_token: tuple[tuple[int, float], ...] = ()
    """Prompt tokens, and seconds to the first token."""
    decode: tuple[float, ...] = ()
    """Tokens per second."""
    load_s: tuple[float, ...] = ()
    time: float = 0.0
    """When the last one was taken, in seconds since the epoch."""

    def add(self, other: Samples) -> Samples:
        """Return these samples and ``other``, which are newer; of each kind the last :data:`KEPT`."""
        groups: dict[int, list[tuple[int, float]]] = {}
        for tokens, seconds in (*self.first_token, *other.first_token):
            groups.setdefault(bucket(tokens), []).append((tokens, seconds))
        return Samples(
            first_token=tuple(each for group in groups.values() for each in group[-KEPT:]),
            decode=(*self.decode, *other.decode)[-KEPT:],
            load_s=(*self.load_s, *other.load_s)[-KEPT:],
            time=other.time or self.time,  # and not the later one: the clock may have been wrong
        )

    def figures(self, precision: str) -> Figures:
        """Return the medians."""
        return Figures(
            precision=precision,
            first_token_s=by_length(self.first_token),
            decode_tokens_per_s=median(self.decode) if self.decode else None,
            load_s=median(self.load_s) if self.load_s else None,
            measured=self.time,
            by="answers",
            runs=min(len(self.first_token), len(self.decode)),
        )


@frozen(kw_only=True)
class Record:
    """The content of a file."""

    subject: Subject
    conditions: Conditions
    bench: Figures | None = None
    answers: Samples = field(factory=Samples)

    def figures(self, now: Conditions) -> Figures:
        """Return the figures of the bench, or of the answers if there was none, and what has changed since."""
        found = self.bench or self.answers.figures(self.subject.precision)
        return evolve(found, changed=self.conditions.change(now))


def read(subject: Subject, root: Path | None = None) -> Record | None:
    """Return the record of a subject; None if there is none, or it is damaged."""
    return _parse(paths.read_json(_file(subject, root)))


def read_all(root: Path | None = None) -> Iterator[Record]:
    """Yield all records that are not damaged."""
    with contextlib.suppress(OSError):
        for file in sorted(_folder(root).glob("*.json")):
            if (found := _parse(paths.read_json(file))) is not None:
                yield found


def add_answers(subject: Subject, conditions: Conditions, samples: Samples, root: Path | None = None) -> None:
    """Add what answers have measured. Figures from other conditions are dropped.

    Raises:
        OSError: the store cannot be written.
    """

    def change(old: Record) -> Record:
        return evolve(old, answers=old.answers.add(samples))

    _update(subject, conditions, change, root)


def save_bench(subject: Subject, conditions: Conditions, figures: Figures, root: Path | None = None) -> None:
    """Replace the figures of the last bench. Raises as :func:`add_answers`."""
    _update(subject, conditions, lambda old: evolve(old, bench=figures), root)


def _update(subject: Subject, conditions: Conditions, change: Callable[[Record], Record], root: Path | None) -> None:
    import filelock  # start-up: needed only for writing

    file = _file(subject, root)
    file.parent.mkdir(parents=True, exist_ok=True)
    # One lock for all files, so that there are not as many locks as files.
    try:
        with filelock.FileLock(file.parent / ".lock", timeout=_LONGEST_WAIT_S):
            old = _parse(paths.read_json(file))
            if old is None or old.conditions.change(conditions):
                old = Record(subject=subject, conditions=conditions)
            paths.write_json(file, {"format": FORMAT, **to_plain(change(evolve(old, conditions=conditions)))})
            _prune(file.parent)
    except filelock.Timeout as error:
        raise OSError(f"another process holds {file.parent / '.lock'}") from error


def _prune(folder: Path) -> None:
    found = list(folder.glob("*.json"))
    for file in sorted(found, key=lambda each: each.stat().st_mtime)[: max(0, len(found) - FILES)]:
        files.unlink(file)


def _folder(root: Path | None) -> Path:
    return (root or paths.home()) / "figures" / str(FORMAT)


def _file(subject: Subject, root: Path | None) -> Path:
    text = json.dumps(to_plain(subject), sort_keys=True)
    return paths.keyed_file(_folder(root), text)


# --- reading what may be damaged --------------------------------------------------------------------------------------


def _parse(content: Any) -> Record | None:
    try:
        if content["format"] != FORMAT:
            return None
        bench = content.get("bench")
        return Record(
            subject=Subject(**{name: _text(value) for name, value in content["subject"].items()}),
            conditions=Conditions.of(content["conditions"]),
            bench=None if bench is None else _figures(bench),
            answers=_samples(content.get("answers") or {}),
        )
    except paths.DAMAGED:
        return None


def _figures(given: Mapping[str, Any]) -> Figures:
    memory = given.get("peak_memory_bytes")
    return Figures(
        precision=_text(given["precision"]),
        first_token_s={_count(tokens): _number(seconds) for tokens, seconds in given["first_token_s"].items()},
        decode_tokens_per_s=_optional(given.get("decode_tokens_per_s")),
        load_s=_optional(given.get("load_s")),
        peak_memory_bytes=None if memory is None else int(_number(memory)),
        joules_per_token=_optional(given.get("joules_per_token")),
        measured=_moment(given["measured"]),
        runs=_count(given.get("runs", 1)),
    )


def _samples(given: Mapping[str, Any]) -> Samples:
    return Samples(
        first_token=tuple((_count(tokens), _number(seconds)) for tokens, seconds in given.get("first_token", ())),
        decode=_numbers(given.get("decode", ())),
        load_s=_numbers(given.get("load_s", ())),
        time=_moment(given.get("time", 0.0)),
    )


def _text(given: Any) -> str:
    if not isinstance(given, str):
        raise TypeError(f"expected text, got {given!r}")
    return given


def _number(given: Any) -> float:
    found = float(given)
    if not 1 / _LARGEST <= found <= _LARGEST:
        raise ValueError(f"expected a number of a measurement, got {given!r}")
    return found


def _count(given: Any) -> int:
    return int(_number(given))


def _moment(given: Any) -> float:
    found = float(given)
    if not 0 <= found <= LAST_MOMENT:
        raise ValueError(f"expected a time, got {given!r}")
    return found


def _optional(given: Any) -> float | None:
    return None if given is None else _number(given)


def _numbers(given: Sequence[Any]) -> tuple[float, ...]:
    return tuple(map(_number, given))
