"""When a device counts as hung, by what it did before. Pure."""

from __future__ import annotations

from .values import Figures

_PREFILL, _TOKEN = 20.0, 100.0
"""How many times as long as before the first token, and each other one, may take."""
_LEAST_PREFILL_S, _LEAST_TOKEN_S = 60.0, 30.0
"""What they may take at least: the machine may be busy, or read weights from a slow disk."""


def stall_limits(
    figures: Figures, prompt_tokens: int, *, context_length: int, at_once: int
) -> tuple[float | None, float | None]:
    """Return the seconds after which the first token, and each other one, is not waited for; None if unknown.

    Args:
        figures: what the device did before.
        prompt_tokens: the length of the prompt.
        context_length: the length of the longest prompt that another answer may have.
        at_once: the number of answers that share the device.
    """
    first, longest = figures.first_token(prompt_tokens), figures.first_token(context_length)
    prefill_s = None if first is None else max(_LEAST_PREFILL_S, _PREFILL * first) * at_once
    if not figures.decode_tokens_per_s:
        return prefill_s, None
    token_s = max(_LEAST_TOKEN_S, _TOKEN / figures.decode_tokens_per_s)
    if at_once > 1:  # one answer may wait for the prompt of another one
        if longest is None:
            return prefill_s, None
        token_s = max(token_s, 2 * longest)
    return prefill_s, token_s
