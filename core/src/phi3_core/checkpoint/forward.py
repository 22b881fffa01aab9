"""The forward pass in plain numpy and float32: what everything else is compared with, and calibrated by.

One implementation for the whole family, written for clarity and bounded memory: weights are converted a block
at a time, attention takes a block of queries at a time, so that besides the activations only some tens of
megabytes are alive. It follows transformers' ``modeling_phi3.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from phi3_core.errors import ModelError
from phi3_core.values import Progress

from .architecture import Architecture
from .checkpoint import Checkpoint, Layer
from .matmul import product, single_threaded_blas
from .safetensors import Floats, Weight

Replacement = Callable[[Weight], Floats]
"""Stands in for a weight, e.g. with its rounded values: ``[outputs, inputs]``."""
Observer = Callable[[Weight, Floats], None]
"""Called with each linear layer and its inputs, ``[tokens, inputs]``."""

_SCORES_AT_ONCE = 1 << 23
_WORK = 500_000_000_000
_FEWEST_TOKENS = 96


def affordable_tokens(checkpoint: Checkpoint) -> int:
    """How long a text may be that nobody asked to have read: it takes some ten seconds on two cores."""
    return max(_FEWEST_TOKENS, _WORK // checkpoint.parameters)


def hidden_states(
    checkpoint: Checkpoint,
    sequences: Sequence[Sequence[int]],
    *,
    observe: Observer | None = None,
    replace: Replacement | None = None,
    progress: Progress | None = None,
) -> Floats:
    """What the output layer sees: the last layer's states behind the final norm, ``[tokens, hidden]``.

    Sequences are independent of each other; they go through each layer together, one behind the other.
    """
    shape = checkpoint.architecture
    ids = [token for sequence in sequences for token in sequence]
    vocabulary = checkpoint.embedding.shape[0]
    if ids and max(ids) >= vocabulary:
        raise ModelError(
            f"the tokenizer has a token {max(ids)}, and {checkpoint.path} a vocabulary of {vocabulary}",
            hint="take tokenizer and weights of one model",
        )
    states: Floats = np.concatenate([checkpoint.embedding.float32(slice(token, token + 1)) for token in ids])
    spans = list(_spans(sequences))
    run = _Linear(observe, replace)
    with single_threaded_blas():
        for index, layer in enumerate(checkpoint.layers):
            if progress:
                progress("reading the text layer by layer", index, shape.layers)
            qkv = run(layer.qkv, rms_norm(states, layer.input_norm, shape.epsilon))
            seen = np.concatenate([_attend(shape, qkv[span]) for span in spans])
            states += run(layer.output, seen)
            states += _feed_forward(run, layer, rms_norm(states, layer.post_norm, shape.epsilon))
        states = rms_norm(states, checkpoint.norm, shape.epsilon)
        if observe:
            observe(checkpoint.head, states)
    return states


def logits(
    checkpoint: Checkpoint,
    ids: Sequence[int],
    *,
    replace: Replacement | None = None,
    progress: Progress | None = None,
) -> Floats:
    """The logits after every position, ``[tokens, vocabulary]``."""
    states = hidden_states(checkpoint, [ids], replace=replace, progress=progress)
    return _Linear(None, replace)(checkpoint.head, states)


def rms_norm(states: Floats, weight: Weight, epsilon: float) -> Floats:
    """Root mean square layer normalization (Zhang and Sennrich, 2019)."""
    mean = np.einsum("ti,ti->t", states, states) / np.float32(states.shape[1])
    normed: Floats = states * (1 / np.sqrt(mean + np.float32(epsilon)))[:, None]
    normed *= weight.float32()
    return normed


class _Linear:
    """Applies a weight, and lets an observer see the inputs."""

    def __init__(self, observe: Observer | None, replace: Replacement | None) -> None:
        self.observe = observe
        self.replace = replace

    def __call__(self, weight: Weight, inputs: Floats) -> Floats:
        if self.observe:
            self.observe(weight, inputs)
        if self.replace:
            replaced: Floats = inputs @ self.replace(weight).T
            return replaced
        return product(weight, inputs)


def _spans(sequences: Sequence[Sequence[int]]) -> Iterator[slice]:
    start = 0
    for sequence in sequences:
        yield slice(start, start + len(sequence))
        start += len(sequence)


def _attend(shape: Architecture, qkv: Floats) -> Floats:
    """Causal attention of one sequence: ``[tokens, q_width + 2 * kv_width]`` to ``[tokens, q_width]``."""
    tokens = len(qkv)
    tables = shape.rotary.tables(tokens)
    queries, keys, values = np.split(qkv, [shape.q_width, shape.q_width + shape.kv_width], axis=1)
    # Query heads that share a key head lie side by side: [key heads, query heads each, tokens, head size].
    heads = queries.reshape(tokens, shape.key_value_heads, -1, shape.head_size).transpose(1, 2, 0, 3)
    keys = keys.reshape(tokens, shape.key_value_heads, shape.head_size).transpose(1, 0, 2)
    values = values.reshape(tokens, shape.key_value_heads, shape.head_size).transpose(1, 0, 2)
    heads, keys = _rotate(heads, tables), _rotate(keys, tables)
    outputs = np.empty((tokens, shape.key_value_heads, heads.shape[1], shape.head_size), np.float32)
    step = max(1, _SCORES_AT_ONCE // (tokens * shape.heads))
    for start in range(0, tokens, step):
        stop = min(start + step, tokens)
        first = 0 if shape.window is None else max(0, start + 1 - shape.window)
        scores = heads[:, :, start:stop] @ keys[:, None, first:stop].swapaxes(-1, -2)
        scores *= np.float32(1 / math.sqrt(shape.head_size))
        scores += _mask(start, stop, first, shape.window)
        softmax(scores)
        outputs[start:stop] = (scores @ values[:, None, first:stop]).transpose(2, 0, 1, 3)
    return outputs.reshape(tokens, shape.q_width)


def _rotate(heads: Floats, tables: tuple[Floats, Floats]) -> Floats:
    """Turn the first dimensions of each head, the i-th together with the one half the rotary size further on."""
    cosine, sine = tables
    half = cosine.shape[1]
    turned: Floats = np.array(heads)
    turned[..., :half] = heads[..., :half] * cosine - heads[..., half : 2 * half] * sine
    turned[..., half : 2 * half] = heads[..., half : 2 * half] * cosine + heads[..., :half] * sine
    return turned


def _mask(start: int, stop: int, first: int, window: int | None) -> Floats:
    """Zero where a query (row, from ``start``) sees a key (column, from ``first``), else minus infinity."""
    behind = np.arange(start, stop)[:, None] - np.arange(first, stop)[None, :]
    seen = behind >= 0
    if window is not None:
        seen &= behind < window
    mask: Floats = np.where(seen, np.float32(0), np.float32(-np.inf))
    return mask


def softmax(scores: npt.NDArray[np.float32]) -> None:
    """Over the last axis, in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)


def _feed_forward(run: _Linear, layer: Layer, inputs: Floats) -> Floats:
    """SwiGLU (Shazeer, 2020): ``down(up * gate * sigmoid(gate))``."""
    both = run(layer.gate_up, inputs)
    gate, inner = np.split(both, 2, axis=1)
    with np.errstate(over="ignore"):  # exp(-gate) may overflow to infinity, and the quotient is then rightly 0
        inner *= gate / (1 + np.exp(-gate))
    return run(layer.down, inner)
