"""The reference forward pass in NumPy and float32, used for evaluation and calibration.

One implementation for all Phi-3 models, following transformers' ``modeling_phi3.py``. Weights are converted and
queries are processed in blocks, so that memory stays at a few tens of megabytes besides the activations.
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
"""Returns the values to use instead of a weight, e.g. its rounded ones, ``[outputs, inputs]``."""
Observer = Callable[[Weight, Floats], None]
"""Called with the weight of each linear layer and its inputs, ``[tokens, inputs]``."""

_SCORES_AT_ONCE = 1 << 23
_WORK = 500_000_000_000
_FEWEST_TOKENS = 96


def affordable_tokens(checkpoint: Checkpoint) -> int:
    """Return how many tokens a forward pass can process in about ten seconds on two cores, at least 96.

    It limits the built-in calibration text and the quality check that runs by default.
    """
    return max(_FEWEST_TOKENS, _WORK // checkpoint.parameters)


def hidden_states(
    checkpoint: Checkpoint,
    sequences: Sequence[Sequence[int]],
    *,
    observe: Observer | None = None,
    replace: Replacement | None = None,
    progress: Progress | None = None,
) -> Floats:
    """Return the inputs of the output layer, after the final norm, ``[tokens, hidden]``.

    Args:
        checkpoint: the original weights.
        sequences: token ids. Sequences do not attend to each other; their results are concatenated in order.
        observe: called with the inputs of each linear layer, the output layer included.
        replace: returns the values to use instead of each weight of a linear layer.
        progress: called before each layer.

    Raises:
        ModelError: a token id is outside the vocabulary, or a weight has values that are not finite.
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
    """Return the logits at every position of one sequence, ``[tokens, vocabulary]``.

    Args:
        checkpoint: the original weights.
        ids: token ids.
        replace: returns the values to use instead of each weight of a linear layer.
        progress: called before each layer.

    Raises:
        ModelError: a token id is outside the vocabulary, or a weight has values that are not finite.
    """
    states = hidden_states(checkpoint, [ids], replace=replace, progress=progress)
    return _Linear(None, replace)(checkpoint.head, states)


def rms_norm(states: Floats, weight: Weight, epsilon: float) -> Floats:
    """Return RMSNorm (Zhang and Sennrich, 2019) of ``states``, ``[tokens, hidden]``."""
    mean = np.einsum("ti,ti->t", states, states) / np.float32(states.shape[1])
    normed: Floats = states * (1 / np.sqrt(mean + np.float32(epsilon)))[:, None]
    normed *= weight.float32()
    return normed


class _Linear:
    """Applies linear layers, calling ``observe`` and ``replace`` for each."""

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
    # Query heads that share a key head are adjacent: [key heads, query heads per key head, tokens, head size].
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
    """Apply the rotary embedding: rotate dimensions ``i`` and ``i + size / 2`` of each head as a pair."""
    cosine, sine = tables
    half = cosine.shape[1]
    rotated: Floats = np.array(heads)
    rotated[..., :half] = heads[..., :half] * cosine - heads[..., half : 2 * half] * sine
    rotated[..., half : 2 * half] = heads[..., half : 2 * half] * cosine + heads[..., :half] * sine
    return rotated


def _mask(start: int, stop: int, first: int, window: int | None) -> Floats:
    """Return the attention mask of queries (rows, from ``start``) over keys (columns, from ``first``): 0 or -inf."""
    behind = np.arange(start, stop)[:, None] - np.arange(first, stop)[None, :]
    seen = behind >= 0
    if window is not None:
        seen &= behind < window
    mask: Floats = np.where(seen, np.float32(0), np.float32(-np.inf))
    return mask


def softmax(scores: npt.NDArray[np.float32]) -> None:
    """Compute the softmax over the last axis in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)


def _feed_forward(run: _Linear, layer: Layer, inputs: Floats) -> Floats:
    """SwiGLU (Shazeer, 2020): ``down(up * gate * sigmoid(gate))``."""
    both = run(layer.gate_up, inputs)
    gate, inner = np.split(both, 2, axis=1)
    with np.errstate(over="ignore"):  # exp(-gate) may overflow to infinity; the quotient is then 0, as it should be
        inner *= gate / (1 + np.exp(-gate))
    return run(layer.down, inner)
