"""Importance: second moments and principal directions of a linear layer's inputs, and the balance of its channels.

The second moments weigh the rounding error of each input channel. Two refinements use the same calibration:

*Feedback.* Inputs are correlated along a few directions, so the covariance of the inputs, each divided by its root
mean square, is modelled as ``diag(d) + V V'`` with few columns in ``V``. The error that rounding has made along these
directions so far is compensated in the weights that are still to be rounded, as OBQ and GPTQ do with the full
covariance (Frantar et al., 2022), at a few dozen operations per weight. Because calibration texts are short, ``V V'``
is multiplied by 0.1 and ``d`` is at least 0.3: without this, results on other texts get worse.

*Balance.* Multiplying the weights of an input channel by a factor and dividing the input by it changes only the
rounding: the weights of important channels become large in their group and are rounded more finely (AWQ, Lin et al.,
2023). The division is free where a norm precedes the layer, because it can be applied to the norm's weights. AWQ
searches a power of the input magnitude for each layer; a fixed power, which needs no search, was as good on other
texts (``docs/decisions/0008``).
"""

from __future__ import annotations

import numpy as np
from attrs import evolve, field, frozen

from phi3_core.checkpoint.safetensors import Floats

DIRECTIONS = 32
_FEW = 16 * DIRECTIONS
"""With fewer tokens than this, the directions fit the text rather than the model and do not help."""
_POWER = np.float32(0.3)
_TRUST = np.float32(0.1)
_FLOOR = np.float32(0.3)
_PASSES = 2


@frozen(kw_only=True, eq=False)
class Importance:
    """The importance of the inputs of one linear layer."""

    moments: Floats = field(repr=False)
    """Second moments ``E[x^2]``, ``[inputs]``."""
    directions: Floats | None = field(default=None, repr=False)
    """``V``, ``[inputs, directions]``, in units of each input's root mean square."""
    balance: Floats | None = field(default=None, repr=False)
    """Factors of the input channels' weights, ``[inputs]``; the layer's inputs have to be divided by them."""

    def balanced(self, balance: Floats | None = None) -> Importance:
        """Return a copy with the given balance.

        The default is a power of the inputs' root mean squares, with a geometric mean of 1.
        """
        if balance is None:
            balance = Importance(moments=self.moments).weights ** (_POWER / 2)
            balance /= np.exp(np.log(balance).mean())
        return evolve(self, balance=balance)

    @property
    def weights(self) -> Floats:
        """Factors of each (balanced) weight's squared error, ``[inputs]``; their mean is about 1 without a balance."""
        # Inputs that were never active get a small factor: other texts may use them.
        mean = np.float32(self.moments.mean())
        weights: Floats = self.moments / mean if mean > 0 else np.ones_like(self.moments)
        weights += np.float32(1e-3)
        if self.balance is not None:
            weights /= np.square(self.balance)
        return weights


def observe(inputs: Floats) -> Importance:
    """Return the importance of a layer's inputs.

    The directions are computed by subspace iteration (Halko et al., 2011); they are None if there are too few tokens.

    Args:
        inputs: ``[tokens, inputs]``.
    """
    tokens, width = inputs.shape
    moments = np.einsum("ti,ti->i", inputs, inputs) / np.float32(tokens)
    if tokens < _FEW or width <= DIRECTIONS:
        return Importance(moments=moments)
    normed = inputs / np.sqrt(moments * np.float32(tokens) + np.float32(1e-30))
    basis = np.random.default_rng(0).standard_normal((width, DIRECTIONS + 8), np.float32)
    for _ in range(_PASSES):
        basis, _ = np.linalg.qr(normed.T @ (normed @ basis))
    _, sizes, turn = np.linalg.svd(normed @ basis, full_matrices=False)
    directions = (basis @ turn[:DIRECTIONS].T) * sizes[:DIRECTIONS]
    # Rounded as in the saved file, so that a calibration from the cache gives the same weights.
    return Importance(moments=moments, directions=directions.astype(np.float16).astype(np.float32))


@frozen(kw_only=True, eq=False)
class Step:
    """Consecutive input channels that are rounded together."""

    inputs: slice
    pull: Floats
    """``[directions, inputs]``: maps the error along the directions to the shift of the weights that compensates it."""
    push: Floats
    """``[inputs, directions]``: maps rounding errors of the weights to the error along the directions."""


@frozen(kw_only=True, eq=False)
class Feedback:
    """How rounding errors are compensated in the weights of later input channels."""

    steps: tuple[Step, ...]
    """Steps from the first input channel to the last."""
    weights: Floats
    """Factors of each weight's squared error, ``[inputs]``, given that later steps compensate it."""


def plan_feedback(importance: Importance, size: int) -> Feedback:
    """Return feedback in steps of ``size`` inputs.

    With ``s`` the error along the directions so far, the shift ``e`` of the remaining weights ``R`` that minimizes
    ``e' D e + |s + V' e|^2`` is ``-D^-1 V (1 + V' D^-1 V)^-1 s``, where the products are over ``R``.

    Raises:
        ValueError: the importance has no directions.
    """
    if importance.directions is None:
        raise ValueError("feedback needs directions")
    weights = importance.weights
    roots = np.sqrt(weights)
    own = np.maximum(1 - np.square(importance.directions).sum(axis=1), _FLOOR)
    along = importance.directions * np.sqrt(_TRUST)
    scaled = along / own[:, None]
    left = np.eye(along.shape[1]) + along.T.astype(np.float64) @ scaled
    steps, counts = [], np.empty_like(own)
    for start in range(0, len(own), size):
        run = slice(start, min(start + size, len(own)))
        pull = np.linalg.inv(left) @ scaled[run].T / roots[run]
        left -= along[run].T @ scaled[run]
        counts[run] = own[run] + np.einsum("ir,rs,is->i", along[run], np.linalg.inv(left), along[run])
        steps.append(Step(inputs=run, pull=pull.astype(np.float32), push=along[run] * roots[run, None]))
    return Feedback(steps=tuple(steps), weights=(weights * counts).astype(np.float32))
