"""Faults of a backend, each with the tests of the contract that name it.

Each is put below the source of the good backend.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class Fault:
    """What is changed in the good backend, and the tests that fail."""

    changes: str
    tests: str
    """Names, separated by spaces."""
    settings: str = ""
    """Further lines of the class of tests."""


SAMPLING = """
class Sampler(__import__("phi3_core.sampling", fromlist=["Sampler"]).Sampler):
    def __init__(self, sampling, ids):
        from attrs import evolve
        super().__init__({given}, {ids})

@hookimpl
def generate(engine, request):
    ids, sampler = list(request.prompt_ids), Sampler(request.sampling, request.prompt_ids)
    for _ in range(request.max_new_tokens):
        token = sampler.pick(engine.rows(ids)[-1])
        if token in request.stop_ids:
            return
        yield token
        ids.append(token)
"""
"""Needs the numbers of the import of numpy in a hook: the class is made when the first hook needs it."""


def sampling(given: str, ids: str = "ids") -> str:
    """A backend whose sampler gets other settings."""
    return f"""
        @hookimpl
        def generate(engine, request):
            from attrs import evolve
            from phi3_core.backend import Sampler
            sampling, ids = request.sampling, request.prompt_ids
            sampler, ids, stops = Sampler({given}, {ids}), list(ids), request.stop_ids
            for _ in range(request.max_new_tokens):
                token = sampler.pick(engine.rows(ids)[-1])
                if token in stops:
                    return
                yield token
                ids.append(token)
    """


def generating(*lines: str) -> str:
    """A backend that generates with ``original``, the good one's hook."""
    return "original = generate\n@hookimpl\ndef generate(engine, request):\n" + "".join(f"    {line}\n" for line in lines)


def quantizing(*lines: str) -> str:
    """A backend that quantizes with ``original``, the good one's hook."""
    head = "original = quantize\n@hookimpl\ndef quantize(source, recipe, output, progress):\n"
    return head + "".join(f"    {line}\n" for line in lines)


MAKE = "tools = original(source, recipe, output, progress)"
DETECT = "original = detect\n@hookimpl\ndef detect(machine):\n"

FAULTS: dict[str, Fault] = {
    # --- import and detect ---
    "imports-at-its-top": Fault("import numpy", "test_importing_the_plugin_loads_no_native_library"),
    "raises-elsewhere": Fault(
        f"{DETECT}    assert machine.os != 'haiku', 'no such system'\n    return original(machine)",
        "test_detect_refuses_instead_of_raising",
    ),
    "slow-to-detect": Fault(
        f"import time\n{DETECT}    time.sleep(3)\n    return original(machine)", "test_detect_is_fast"
    ),
    "detects-by-chance": Fault(
        f"import os\n{DETECT}    return [*original(machine), Refusal(reason=f'no GPU today: {{os.urandom(4).hex()}}')]",
        "test_detect_is_repeatable",
    ),
    "counts-megabytes": Fault(
        f"from attrs import evolve\n{DETECT}    return [evolve(each, device=evolve(each.device, memory_bytes=16384))"
        " if isinstance(each, Offer) else each for each in original(machine)]",
        "test_memory_is_in_bytes",
    ),
    "names-in-bytes": Fault(
        f"{DETECT}    return [*original(machine), Refusal(reason='no ' + b'GPU \\xff'.decode('utf-8', 'surrogateescape'))]",
        "test_detect_survives_json",
    ),
    "long-winded": Fault(
        f"{DETECT}    return [*original(machine), Refusal(reason='no GPU\\nTraceback: …')]", "test_refusals_have_one_line"
    ),
    # --- quantize ---
    "writes-nothing": Fault(
        quantizing(MAKE, "keep[output] = (output / FILE).rename(output.parent.parent / f'{output.name}-kept')") + "keep = {}",
        "test_quantize_fills_its_output",
    ),
}
