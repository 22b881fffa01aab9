"""A small backend in numpy that keeps the contract. The tests install it, as it is and with faults."""

from __future__ import annotations

import threading
from pathlib import Path

from phi3_core import Device, Finding, Offer, Published, Refusal, hookimpl
from phi3_core.errors import UsageError
from phi3_core.values import ScoredToken

NAME = "good"
FILE = "model.safetensors"
MARK = "made-for"
BITS = {"int8": 8, "int4": 4}


class Engine:
    """The scaffold's forward pass, whose KV cache keeps the latest sequence. Logits are those of core's reference."""

    max_concurrency = 2
    capabilities = frozenset({"json_schema", "logits", "logprobs", "lookup"})

    def __init__(self, checkpoint, limits):
        self.checkpoint, self.limits = checkpoint, limits
        self.context_length = limits.require_context_length()
        self.lock = threading.Lock()
        self.ids, self.graph, self.reached = [], None, 0

    def close(self):
        self.checkpoint = self.graph = None

    def reach(self, ids):
        """The length up to which the rotary factors of ``ids`` hold."""
        short = self.limits.longrope_limit or self.context_length
        return short if len(ids) <= short else self.context_length

    def kept(self, ids):
        """How many of ``ids`` the KV cache begins with."""
        return next((place for place, (a, b) in enumerate(zip(self.ids, ids, strict=False)) if a != b), len(self.ids))

    def row(self, ids):
        """The logits after the last of ``ids``."""
        from numpy_graph import Graph  # type: ignore[import-not-found]

        with self.lock:
            if self.reach(ids) != self.reached:
                self.ids, self.reached = [], self.reach(ids)
                self.graph = Graph(self.checkpoint, self.reached)
            kept = min(self.kept(ids), len(ids) - 1)
            self.graph.rewind(kept)
            row = self.graph.advance(ids[kept:], 1)[0]
            self.ids = list(ids)
            return row


@hookimpl
def detect(machine):
    if machine.architecture not in {"x86_64", "arm64", "AMD64"}:
        return [Refusal(reason=f"there is no numpy for {machine.architecture}", remedy="use another machine")]
    device = Device(backend=NAME, id="CPU", kind="cpu", name="numpy", memory_bytes=machine.memory_bytes)
    return [Offer(device=device, precisions=["int4", "int8", "fp16"])]


def check_recipe(recipe, checkpoint):
    """Raise for what cannot be made."""
    from phi3_core.backend import check_extra

    check_extra(NAME, recipe, known=("calibration",))
    size = recipe.group_size or 32
    if any(weight.shape[1] % size for weight in checkpoint.linear):
        raise UsageError(f"groups of {size} do not divide the inputs")
    calibration = recipe.extra.get("calibration", "none")
    if calibration != "none" and not Path(calibration).is_file():
        raise UsageError(f"the calibration {calibration} cannot be read")


def rounded(weight, recipe):
    """A weight's values, in float32, as the recipe rounds them."""
    from phi3_core.backend import Scheme
    from phi3_core.testing.rounding import round_weight

    if recipe.precision == "fp16" or len(weight.shape) == 1:
        return weight.float32()
    bits = BITS[recipe.precision]
    return round_weight(weight, Scheme(bits=bits, group_size=recipe.group_size or 32)).dequantize()


@hookimpl
def quantize(source, recipe, output, progress):
    from phi3_core.backend import Checkpoint, SafetensorsWriter, TensorSpec, to_float16

    checkpoint = Checkpoint.open(source.path)
    check_recipe(recipe, checkpoint)
    layers = [(layer.input_norm, layer.post_norm, *layer.linear) for layer in checkpoint.layers]
    weights = [checkpoint.embedding, checkpoint.norm, *(weight for layer in layers for weight in layer)]
    if checkpoint.head is not checkpoint.embedding:
        weights.append(checkpoint.head)
    specs = [TensorSpec(name=weight.name, dtype="F16", shape=weight.shape) for weight in weights]
    with SafetensorsWriter(output / FILE, specs, metadata={MARK: recipe.precision}) as writer:
        for number, weight in enumerate(weights):
            progress("rounding", number, len(weights))
            writer.put(weight.name, to_float16(rounded(weight, recipe)))
    return {"numpy": "2"}


@hookimpl
def recognize(path):
    from phi3_core.backend import read_header

    file = path / FILE
    return read_header(file)[0].get("__metadata__", {}).get(MARK) if file.is_file() else None


@hookimpl
def published(model, device, precision):
    if (model, precision) == ("phi-3-mini-4k-instruct", "int4"):
        return Published(repository="somebody/phi-3-mini-4k", folder="numpy/int4")
    return None


@hookimpl
def load(artifact, options):
    from phi3_core.backend import Checkpoint, read_limits

    if options:
        raise UsageError(f"{NAME} has no options, and so none called {', '.join(options)}")
    return Engine(Checkpoint.open(artifact.path), read_limits(artifact))


@hookimpl
def generate(engine, request):
    from phi3_core.backend import Sampler

    if request.json_schema is not None:
        yield from guided(engine, request)
        return
    ids, sampler = list(request.prompt_ids), Sampler(request.sampling, request.prompt_ids)
    for _ in range(request.max_new_tokens):
        row = engine.row(ids)
        token = sampler.pick(row)
        if token in request.stop_ids:
            return
        yield token if request.logprobs is None else scored(token, row, request.logprobs)
        ids.append(token)


def scored(token, row, count):
    """A token with its logarithmic probability, and those of the ``count`` likeliest ones."""
    import numpy as np

    logprobs = row.astype(np.float64) - np.logaddexp.reduce(row.astype(np.float64))
    likeliest = np.argsort(-logprobs, kind="stable")[:count]
    return ScoredToken(token, float(logprobs[token]), [(int(each), float(logprobs[each])) for each in likeliest])


def guided(engine, request):
    """The likeliest value of an ``enum``, token by token. Other schemas are not understood."""
    import json

    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(engine.checkpoint.path / "tokenizer.json"))
    values = json.loads(request.json_schema)["enum"]
    left = [tokenizer.encode(json.dumps(value), add_special_tokens=False).ids for value in values]
    ids = list(request.prompt_ids)
    while any(left):
        row = engine.row(ids)
        token = max((value[0] for value in left), key=row.item)
        yield token
        ids.append(token)
        left = [value[1:] for value in left if value[0] == token]


@hookimpl
def logits(engine, ids):
    from phi3_core.checkpoint import forward

    return forward.logits(engine.checkpoint, ids)


@hookimpl
def diagnose(machine):
    return [Finding(severity="info", message=f"numpy on {machine.os}")]


ORIGINAL = {"detect": detect, "quantize": quantize, "recognize": recognize, "load": load, "generate": generate}
ORIGINAL["logits"] = logits
