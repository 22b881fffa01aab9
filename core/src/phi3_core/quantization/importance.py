"""What matters to a linear layer: how large its inputs are, how they move together, and how they can be balanced.

``moments`` says how much each input's weights matter by themselves. Two refinements use the same calibration:

*Feedback.* Inputs move together along a few directions. If ``h`` are the moments, their normalized covariance is
modelled as ``diag(d) + V V'`` with few columns in ``V``. What rounding has changed along these directions so far is
undone by shifting the weights that are still to be rounded, as OBQ and GPTQ do with the full covariance (Frantar et
al., 2022), at a few dozen operations a weight. Calibration texts are short, so ``V V'`` is taken with a tenth of its
size and ``d`` is not let under three tenths: on another text the full covariance does harm.

*Balance.* Multiplying an input's weights by a factor and dividing the input by it changes nothing but the rounding:
weights of important inputs become large in their group and are rounded finer (AWQ, Lin et al., 2023). The division
costs nothing where a norm feeds the layer, for it goes into the norm's weights. AWQ searches the best power of the
inputs' magnitude for each layer; a fixed one did as well on other texts (``docs/decisions/0008``), and costs nothing.
"""

from __future__ import annotations

import numpy as np
from attrs import evolve, field, frozen

from phi3_core.checkpoint.safetensors import Floats

DIRECTIONS = 32
_FEW = 16 * DIRECTIONS
"""From fewer tokens than this, directions are those of the text rather than of the model, and do not help."""
_POWER = np.float32(0.3)
_TRUST = np.float32(0.1)
_FLOOR = np.float32(0.3)
_PASSES = 2


@frozen(kw_only=True, eq=False)
class Importance:
    """Of the inputs of one linear layer."""

    moments: Floats = field(repr=False)
    """``E[x^2]``, ``[inputs]``."""
    directions: Floats | None = field(default=None, repr=False)
    """``V``, ``[inputs, directions]``, in units of each input's root mean square."""
    balance: Floats | None = field(default=None, repr=False)
    """Factors on each input's weights, ``[inputs]``; whoever uses the rounded weights divides the inputs by them."""

    def balanced(self, balance: Floats | None = None) -> Importance:
        """With a balance: the one given, or a power of the inputs' root mean squares, 1 in the geometric mean."""
        if balance is None:
            balance = Importance(moments=self.moments).weights ** (_POWER / 2)
            balance /= np.exp(np.log(balance).mean())
        return evolve(self, balance=balance)

    @property
    def weights(self) -> Floats:
        """How much the squared error of each (balanced) weight counts, on average 1 before balancing."""
        # Inputs that were never active still count a little: other text may use them.
        mean = np.float32(self.moments.mean())
        weights: Floats = self.moments / mean if mean > 0 else np.ones_like(self.moments)
        weights += np.float32(1e-3)
        if self.balance is not None:
            weights /= np.square(self.balance)
        return weights


def observe(inputs: Floats) -> Importance:
    """From a layer's inputs, ``[tokens, inputs]``; the directions by subspace iteration (Halko et al., 2011)."""
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
    # As precise as they are kept, so that a calibration that was found again gives the same weights.
    return Importance(moments=moments, directions=directions.astype(np.float16).astype(np.float32))


@frozen(kw_only=True, eq=False)
class Step:
    """A run of inputs that is rounded together."""

    inputs: slice
    pull: Floats
    """``[directions, inputs]``: the shift of weights that best undoes a change along the directions."""
    push: Floats
    """``[inputs, directions]``: the change along the directions that an error of the weights makes."""


@frozen(kw_only=True, eq=False)
class Feedback:
    """Steps from the first input to the last, and what each weight's own error counts."""

    steps: tuple[Step, ...]
    weights: Floats


def plan_feedback(importance: Importance, size: int) -> Feedback:
    """Steps of ``size`` inputs.

    With ``s`` the change along the directions so far, the shift ``e`` of the remaining weights ``R`` that minimizes
    ``e' D e + |s + V' e|^2`` is ``-D^-1 V (1 + V' D^-1 V)^-1 s``, the products taken over ``R``.
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
