"""The search for the scale of each group of weights.

A group is a run of weights of one output that share a scale ``s`` (and, asymmetric, a zero point ``z``): weight
``w`` becomes the integer ``q`` and is read as ``s * (q - z)``. What matters is not the error of the weights but
that of the layer's output. With inputs ``x`` it is ``sum (w - s (q - z)) x``, and if inputs are uncorrelated its
expected square is ``sum h (w - s (q - z))^2`` with ``h = E[x^2]``.

For given integers ``d = q - z`` the best scale is the regression ``s = sum(h d w) / sum(h d^2)``, and it lowers the
squared error by ``sum(h d w)^2 / sum(h d^2)``. So the search tries some scales, rounds, and keeps the integers
whose regression explains most; the scale that is stored is the regression's, and integers are rounded to it once
more after it has itself been rounded to half precision.
"""

from __future__ import annotations

import math
import threading

import numpy as np
import numpy.typing as npt
from attrs import field, frozen, validators

from .mapped import Floats

Integers = npt.NDArray[np.int8] | npt.NDArray[np.uint8]

_FACTORS = {4: (0.66, 0.78, 0.9, 1.02), 8: (1.0,)}
"""Scales tried, as factors of the one at which the largest weight just fits."""
_TINY = np.float32(1e-30)
_OWN = threading.local()


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
        if scheme.symmetric:
            peaks = _peaks(values)
            self.unit = peaks / np.float32(low) if scheme.bits == 4 else np.abs(peaks) / np.float32(high)
            self.zeros: Floats = np.zeros_like(self.unit)
        else:
            least, most = np.minimum(values.min(axis=2), 0), np.maximum(values.max(axis=2), 0)
            self.unit = (most - least) / np.float32(high)
            self.zeros = np.rint(-least * _inverse(self.unit))
        self.values, self.weighted, self.rounded, self.squares = _own_arrays(values.shape)
        np.multiply(values, _inverse(self.unit)[..., None], out=self.values)
        np.multiply(self.values, weights, out=self.weighted)
        self.best = np.full_like(self.unit, -1)
        self.scales = np.ones_like(self.unit)

    def search(self) -> None:
        for factor in _FACTORS[self.scheme.bits]:
            self._try(np.float32(1 / factor), self.zeros)
        self._try(_inverse(self.scales)[..., None], self.zeros)
        if not self.scheme.symmetric:
            for shift in (-1, 1):
                shifted = np.clip(self.zeros + np.float32(shift), *self.scheme.limits)
                self._try(_inverse(self.scales)[..., None], shifted)

    def _try(self, inverse: Floats | np.float32, zeros: Floats) -> None:
        """Round to some scales, and take over what explains more than the best so far."""
        self._round(inverse, zeros)
        along = np.einsum("rgi,rgi->rg", self.rounded, self.weighted)
        np.multiply(self.rounded, self.rounded, out=self.squares)
        across = np.einsum("rgi,gi->rg", self.squares, self.weights)
        regression = along / np.maximum(across, _TINY)
        explained = along * regression
        better = explained > self.best
        self.best = np.where(better, explained, self.best)
        self.scales = np.where(better, regression, self.scales)
        if zeros is not self.zeros:
            self.zeros = np.where(better, zeros, self.zeros)

    def _round(self, inverse: Floats | np.float32, zeros: Floats) -> None:
        """To integers less their zero point, in ``self.rounded``."""
        low, high = self.scheme.limits
        np.multiply(self.values, inverse, out=self.rounded)
        np.rint(self.rounded, out=self.rounded)
        if self.scheme.symmetric:
            np.clip(self.rounded, low, high, out=self.rounded)
        else:
            np.clip(self.rounded, (low - zeros)[..., None], (high - zeros)[..., None], out=self.rounded)

    def store(self) -> npt.NDArray[np.float16]:
        """Fix the scales as they will be stored, ``[rows, groups]``."""
        stored: npt.NDArray[np.float16] = (self.scales * self.unit).astype(np.float16)
        self.scales = stored.astype(np.float32) * _inverse(self.unit)
        return stored

    def finish(self, integers: Integers) -> float:
        """Write the integers for the stored scales, and return the weighted squared error."""
        self._round(_inverse(self.scales)[..., None], self.zeros)
        np.add(self.rounded, self.zeros[..., None], out=self.squares)
        integers[...] = self.squares
        self.rounded *= self.scales[..., None]
        self.rounded -= self.values
        np.multiply(self.rounded, self.rounded, out=self.squares)
        errors = np.einsum("rgi,gi->rg", self.squares, self.weights) * np.square(self.unit)
        return float(errors.sum(dtype=np.float64))

    def finish_run(self, values: Floats, integers: Integers) -> Floats:
        """Write the integers of other weights, ``[rows, run]``, for the only group's scales; return what they mean."""
        low, high = self.scheme.limits
        scales = self.scales * self.unit
        rounded: Floats = values * _inverse(scales)
        np.rint(rounded, out=rounded)
        if self.scheme.symmetric:
            np.clip(rounded, low, high, out=rounded)
            integers[...] = rounded
        else:
            np.clip(rounded, low - self.zeros, high - self.zeros, out=rounded)
            integers[...] = rounded + self.zeros
        rounded *= scales
        return rounded


def _own_arrays(shape: tuple[int, ...]) -> list[Floats]:
    """Four arrays that are the calling thread's own. New ones each time cost as much as half of the arithmetic."""
    size = math.prod(shape)
    kept: Floats | None = getattr(_OWN, "arrays", None)
    if kept is None or kept.shape[1] < size:
        kept = _OWN.arrays = np.empty((4, size), np.float32)
    return [row[:size].reshape(shape) for row in kept]


def _peaks(values: Floats) -> Floats:
    """The weight of largest magnitude of each group, with its sign."""
    most, least = values.max(axis=2), values.min(axis=2)
    peaks: Floats = np.where(most > -least, most, least)
    return peaks


def _inverse(scales: Floats) -> Floats:
    """1 / s, and 0 for groups that are all zero."""
    return np.divide(1, scales, out=np.zeros_like(scales), where=np.abs(scales) > _TINY)
