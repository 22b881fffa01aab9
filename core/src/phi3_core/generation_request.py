"""What an engine is asked to generate, and the ids that it answers with if it is asked for probabilities.

Public as part of :mod:`phi3_core.values`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
from attrs import field, frozen

from .fields import COUNT, OPTIONAL_COUNT, OPTIONAL_STRING, ids, must_be, one_of

if TYPE_CHECKING:
    from typing_extensions import Self

LOOKUPS = ("auto", "on", "off")
"""Whether prompt lookup proposes tokens: ``auto`` where the engine has it."""
MOST_LOGPROBS = 20
"""The largest number of likely tokens that can be asked for with each token."""


@frozen(kw_only=True)
class Sampling:
    """How the next token is chosen. A temperature of 0 is greedy and repeatable."""

    temperature: float = field(default=0.0, converter=float)
    """The logits are divided by it; 0 always takes the likeliest token."""
    top_k: int = field(default=0, validator=COUNT)
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = field(default=1.0, converter=float)
    """Keep the likeliest tokens that together reach this probability (nucleus sampling); 1 keeps all."""
    repetition_penalty: float = field(default=1.0, converter=float)
    """Penalize tokens that have occurred, as in CTRL (Keskar et al., 2019): over 1 discourages them, 1 has no effect.

    Positive logits are divided by it, negative ones multiplied."""
    seed: int | None = field(default=None, validator=OPTIONAL_COUNT)
    """Makes sampling repeatable; 0 to 2**32 - 1, None for a random seed."""

    @temperature.validator
    def _check_temperature(self, _: attrs.Attribute[Any], given: float) -> None:
        if not (math.isfinite(given) and given >= 0):
            raise ValueError(f"temperature must be 0 (greedy) or more, not {given}")

    @top_p.validator
    def _check_top_p(self, _: attrs.Attribute[Any], given: float) -> None:
        if not 0 < given <= 1:
            raise ValueError(f"top-p must be over 0 and at most 1, not {given}")

    @repetition_penalty.validator
    def _check_repetition_penalty(self, _: attrs.Attribute[Any], given: float) -> None:
        if not (math.isfinite(given) and given > 0):
            raise ValueError(f"repetition penalty must be over 0, not {given}")

    @seed.validator
    def _check_seed(self, _: attrs.Attribute[Any], given: int | None) -> None:
        if given is not None and given >= 2**32:
            raise ValueError(f"seed must fit 32 bits, not {given}")


def _sampling(given: Any) -> Any:
    """Convert a mapping made by :func:`to_plain` to sampling settings."""
    return Sampling(**given) if isinstance(given, Mapping) else given


@frozen(kw_only=True)
class GenerationRequest:
    """A prompt in token ids, sampling settings, and stop conditions."""

    prompt_ids: tuple[int, ...] = field(converter=ids, validator=must_be("one token id or more", tuple, bool))
    """Token ids of the prompt, chat template included."""
    max_new_tokens: int = field(validator=must_be("an integer from 1", int, lambda given: given >= 1))
    """Maximum number of ids to generate. Together with the prompt they fit the engine's context."""
    sampling: Sampling = field(factory=Sampling, converter=_sampling, validator=must_be("a Sampling", Sampling))
    """How the next token is chosen."""
    stop_ids: tuple[int, ...] = field(default=(), converter=ids)
    """Ids that end the answer and are not part of it."""
    json_schema: str | None = field(default=None, validator=OPTIONAL_STRING)
    """A JSON schema, as text, that the answer follows; only for engines with the capability ``json_schema``."""
    lookup: str = field(default="auto", validator=one_of(*LOOKUPS))
    """One of :data:`LOOKUPS`: prompt lookup where the engine has it, required, or not used."""
    logprobs: int | None = field(
        default=None,
        validator=must_be(
            f"an integer from 0 to {MOST_LOGPROBS}, or None",
            (int, type(None)),
            lambda given: given is None or 0 <= given <= MOST_LOGPROBS,
        ),
    )
    """With how many likely tokens each id comes, as a :class:`ScoredToken`; None for plain ids.

    Only for engines with the capability ``logprobs``."""
    answered: int = field(default=0, validator=COUNT)
    """How many ids at the end of the prompt begin the answer: an engine that failed has made them."""
    grammar: Any = field(default=None, eq=False, repr=False)
    """What ``Answer`` follows for ``json_schema``. Core sets it, in the worker process."""


class ScoredToken(int):
    """A token id with logarithmic probabilities, which ``generate`` yields if the request has ``logprobs``."""

    logprob: float
    """The natural logarithm of its probability, from 0 down."""
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens and theirs, likeliest first, as many as the request asks for."""

    def __new__(cls, token: int, logprob: float, top: Iterable[tuple[int, float]] = ()) -> Self:
        """Return the id ``token`` with its attributes."""
        made = super().__new__(cls, token)
        made.logprob, made.top = logprob, tuple(top)
        return made
