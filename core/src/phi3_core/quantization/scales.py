"""The search for the scale of each group of weights.

A group is a run of weights of one output that share a scale ``s`` (and, asymmetric, a zero point ``z``): weight
``w`` becomes the integer ``q`` and is read as ``s * (q - z)``. What matters is not the error of the weights but
that of the layer's output. With inputs ``x`` it is ``sum (w - s (q - z)) x``, and if inputs are uncorrelated its
expected square is ``sum h (w - s (q - z))^2`` with ``h = E[x^2]``.

For given integers ``d = q - z`` the best scale is the regression ``s = sum(h d w) / sum(h d^2)``, and it lowers the
squared error by ``sum(h d w)^2 / sum(h d^2)``. So the search tries some scales, rounds, and keeps the one whose
integers' regression explains most. Integers are rounded once more to that regression, and the scale that is stored
is their own regression: neither step can make the error larger.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from attrs import field, frozen, validators

from .mapped import Floats
from .memory import own_memory

Integers = npt.NDArray[np.int8] | npt.NDArray[np.uint8]

_LONG = 256
_FACTORS = {4: (0.88, 1.0), 8: (1.0,)}
"""Scales tried, as factors of the one at which the largest weight just fits."""
_LONG_FACTORS = {4: (0.66, 0.78, 0.9, 1.02), 8: (1.0,)}
"""The same from ``_LONG`` weights a group on: their largest one stands further out."""
_TINY = np.float32(1e-30)


@frozen(kw_only=True)
class Scheme:
    """What weights are rounded to."""

    bits: int = field(validator=validators.in_((4, 8)))
    symmetric: bool = True
    """Signed integers around zero; else unsigned ones with a zero point."""
    group_size: int = field(default=-1, validator=validators.instance_of(int))
    """Inputs that share a scale; -1 is one scale for each output."""

    def groups(self, inputs: int) -> int:
        return 1 if self.group_size == -1 else inputs // self.group_size

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        levels = 1 << self.bits
        if not self.symmetric:
            return 0, levels - 1
        return (-levels // 2, levels // 2 - 1) if self.bits == 4 else (1 - levels // 2, levels // 2 - 1)


class ScaleSearch:
    """The search for some rows, ``[rows, groups, size]``, small enough to stay in the cache through all its passes.

    A thread has one search at a time: they use the same memory.
    Scales are kept in units of the one at which the group just fits, so that a try is the same factor for all groups.
    """

    def __init__(self, values: Floats, weights: Floats, scheme: Scheme) -> None:
        self.weights, self.scheme = weights, scheme
        low, high = scheme.limits
        most, least = values.max(axis=2), values.min(axis=2)
        self.zeros: Floats | None = None
        if scheme.symmetric:
            # The weight of largest magnitude, with its sign.
            peaks = np.where(most > -least, most, least)
            self.unit = peaks / np.float32(low) if scheme.bits == 4 else np.abs(peaks) / np.float32(high)
        else:
            least, most = np.minimum(least, 0), np.maximum(most, 0)
            self.unit = (most - least) / np.float32(high)
        inverse = _inverse(self.unit)
        if not scheme.symmetric:
            self.zeros = np.rint(-least * inverse)
        memory = own_memory("search", 4 * values.size).reshape(4, *values.shape)
        self.values, self.weighted, self.rounded, self.squares = memory
        np.multiply(values, inverse[..., None], out=self.values)
        np.multiply(self.values, weights, out=self.weighted)

    def search(self) -> None:
        """Find the scales, and asymmetric the zero points, whose integers explain most."""
        factors = _FACTORS if self.values.shape[2] < _LONG else _LONG_FACTORS
        tried = [self._try(np.float32(1 / factor), self.zeros) for factor in factors[self.scheme.bits]]
        _, self.scales = _best(tried)
        if self.zeros is not None:
            zeros, low, high = self.zeros, *self.scheme.limits
            shifted = [zeros, *(np.clip(zeros + np.float32(shift), low, high) for shift in (-1, 1))]
            tried = [self._try(self._inverse_scales(), each) for each in shifted]
            best, self.scales = _best(tried)
            self.zeros = np.choose(best, shifted)

    def _try(self, inverse: Floats | np.float32, zeros: Floats | None) -> tuple[Floats, Floats]:
        """Round to some scales; the sums that a regression needs, over ``h d w`` and ``h d^2``, ``[rows, groups]``."""
        self._round(inverse, zeros)
        along = _dot(self.rounded, self.weighted)
        np.multiply(self.rounded, self.rounded, out=self.squares)
        return along, _dot(self.squares, self.weights)

    def _regress(self, inverse: Floats) -> npt.NDArray[np.float16]:
        """Round to scales; the best scales for those integers as they are stored, ``[rows, groups]``."""
        along, across = self._try(inverse, self.zeros)
        stored: npt.NDArray[np.float16] = (along / np.maximum(across, _TINY) * self.unit).astype(np.float16)
        return stored

    def _inverse_scales(self) -> Floats:
        """Scales are about 1, but 0 for groups of zeros, which stay zeros whatever they are multiplied by."""
        inverse: Floats = (1 / np.maximum(self.scales, _TINY))[..., None]
        return inverse

    def _round(self, inverse: Floats | np.float32, zeros: Floats | None) -> None:
        """To integers less their zero point, in ``self.rounded``."""
        np.multiply(self.values, inverse, out=self.rounded)
        _to_integers(self.rounded, zeros, self.scheme)

    def finish(self, integers: Integers) -> npt.NDArray[np.float16]:
        """Write the integers, and return the scales that they are to be read with, ``[rows, groups]``."""
        if self.scheme.bits == 4:
            stored = self._regress(self._inverse_scales())
        else:  # so fine that the rounding of the scales to half precision counts: integers are rounded to those
            stored = self.fix()
            self._round(self._inverse_scales(), self.zeros)
        _write(self.rounded, self.zeros, integers)
        return stored

    def fix(self) -> npt.NDArray[np.float16]:
        """Fix the scales, ``[rows, groups]``, for integers that are still to be rounded."""
        stored = self._regress(self._inverse_scales())
        self.scales = stored.astype(np.float32) * _inverse(self.unit)
        return stored

    def finish_run(self, values: Floats, integers: Integers) -> Floats:
        """Write the integers of other weights, ``[rows, run]``, for the only group's scales; return what they mean."""
        scales = self.scales * self.unit
        rounded: Floats = values * _inverse(scales)
        _to_integers(rounded[:, None], self.zeros, self.scheme)
        _write(rounded[:, None], self.zeros, integers[:, None])
        rounded *= scales
        return rounded


def _to_integers(scaled: Floats, zeros: Floats | None, scheme: Scheme) -> None:
    """Round in place, ``[rows, groups, size]``, to the scheme's integers less their zero points."""
    low, high = scheme.limits
    np.rint(scaled, out=scaled)
    if zeros is None:
        np.clip(scaled, low, high, out=scaled)
    else:
        np.clip(scaled, (low - zeros)[..., None], (high - zeros)[..., None], out=scaled)


def _write(rounded: Floats, zeros: Floats | None, integers: Integers) -> None:
    np.copyto(integers, rounded if zeros is None else rounded + zeros[..., None], casting="unsafe")


def _best(tried: Sequence[tuple[Floats, Floats]]) -> tuple[npt.NDArray[np.intp], Floats]:
    """Which try explains most, and the scales that its regression gives."""
    along, across = np.stack([each for each, _ in tried]), np.stack([each for _, each in tried])
    scales: Floats = along / np.maximum(across, _TINY)
    best = np.argmax(along * scales, axis=0)
    return best, np.choose(best, scales)


def _dot(left: Floats, right: Floats) -> Floats:
    """Products summed over the last axis. NumPy 2 has a function of its own for it, half again as fast."""
    dot: Floats = np.vecdot(left, right) if hasattr(np, "vecdot") else np.einsum("...i,...i", left, right)
    return dot


def _inverse(scales: Floats) -> Floats:
    """1 / s, and 0 for groups that are all zero, or so small that half precision knows no scale for them."""
    inverse: Floats = np.divide(1, scales, out=np.zeros_like(scales), where=np.abs(scales) > _TINY)
    return inverse
