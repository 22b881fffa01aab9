"""A small backend in numpy that keeps the contract. The tests install it, as it is and with faults."""

from __future__ import annotations

import threading
from pathlib import Path

from phi3_core import Device, Finding, Offer, Published, Refusal, hookimpl
from phi3_core.errors import UsageError

NAME = "good"
FILE = "model.safetensors"
MARK = "made-for"
BITS = {"int8": 8, "int4": 4}


class Engine:
    """Core's reference forward pass, and the logits of the latest sequence."""

    max_concurrency = 2
    capabilities = frozenset({"logits"})

    def __init__(self, checkpoint, limits):
        self.checkpoint, self.limits = checkpoint, limits
        self.context_length = limits.require_context_length()
        self.lock = threading.Lock()
        self.ids, self.kept = [], None

    def close(self):
        self.checkpoint = self.kept = None

    def is_kept(self, ids):
        """Whether the kept logits are those of a sequence that begins with ``ids``."""
        limit = self.limits.longrope_limit or self.context_length
        return self.ids[: len(ids)] == ids and (len(ids) > limit) == (len(self.ids) > limit)

    def rows(self, ids):
        """The logits after each of ``ids``."""
        from phi3_core.checkpoint import forward

        with self.lock:
            if not self.is_kept(ids):
                self.ids, self.kept = list(ids), forward.logits(self.checkpoint, ids)
            return self.kept[: len(ids)]


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

    ids, sampler = list(request.prompt_ids), Sampler(request.sampling, request.prompt_ids)
    for _ in range(request.max_new_tokens):
        token = sampler.pick(engine.rows(ids)[-1])
        if token in request.stop_ids:
            return
        yield token
        ids.append(token)


@hookimpl
def logits(engine, ids):
    return engine.rows(list(ids))


@hookimpl
def diagnose(machine):
    return [Finding(severity="info", message=f"numpy on {machine.os}")]


ORIGINAL = {"detect": detect, "quantize": quantize, "recognize": recognize, "load": load, "generate": generate}
ORIGINAL["logits"] = logits
