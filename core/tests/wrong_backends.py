"""Faults of a backend, each with the tests of the contract that name it.

The changes are put below the source of the good backend, in which ``original`` is the good one's hook.
"""

from __future__ import annotations

import textwrap

from attrs import frozen


@frozen
class Fault:
    """What is changed in the good backend, and the tests that fail."""

    tests: str
    """Their names, separated by spaces."""
    changes: str
    settings: str = ""
    """Further lines of the class of tests."""


def detecting(body: str) -> str:
    return _hook("detect", "machine", body)


def quantizing(body: str) -> str:
    return _hook("quantize", "source, recipe, output, progress", body)


def loading(body: str) -> str:
    return _hook("load", "artifact, options", body)


def generating(body: str) -> str:
    return _hook("generate", "engine, request", body)


def _hook(name: str, arguments: str, body: str) -> str:
    text = textwrap.dedent(body).strip().replace("original(", f"ORIGINAL[{name!r}](")
    return f"@hookimpl\ndef {name}({arguments}):\n" + textwrap.indent(text, "    ") + "\n"


def engine(body: str) -> str:
    """Changes of the engine, whose class ``Good`` is."""
    return "Good = Engine\nclass Engine(Good):\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n"


def sampling(**changes: str) -> str:
    """A backend that samples with other settings than those of the request, ``given``."""
    given = ", ".join(f"{name}={value}" for name, value in changes.items())
    return generating(f"""
        from attrs import evolve
        given = request.sampling
        yield from original(engine, evolve(request, sampling=evolve(given, {given})))
    """)


IMPORT = {
    "imports-at-its-top": Fault("test_importing_the_plugin_loads_no_native_library", "import numpy"),
    "has-no-detect": Fault("test_the_hooks_are_those_of_the_contract", "del detect"),
    "misspells-a-hook": Fault(
        "test_the_hooks_are_those_of_the_contract", "@hookimpl\ndef quantise(source, output):\n    pass\n"
    ),
    "raises": Fault("test_detect_offers_or_refuses", detecting("raise OSError('no driver')")),
    "says-nothing": Fault("test_detect_offers_or_refuses", detecting("return []")),
    "raises-elsewhere": Fault(
        "test_detect_refuses_instead_of_raising",
        detecting("assert machine.os != 'haiku', 'no such system'\nreturn original(machine)"),
    ),
    "detects-slowly": Fault(
        "test_detect_is_fast", detecting("import time\ntime.sleep(1.7)\nreturn original(machine)")
    ),  # with PHI3_DETECT_LIMIT=3
    "detects-by-chance": Fault(
        "test_detect_is_repeatable",
        detecting("import os\nreturn [*original(machine), Refusal(reason=f'no GPU: {os.urandom(4).hex()}')]"),
    ),
    "counts-megabytes": Fault(
        "test_memory_is_in_bytes",
        detecting("""
            from attrs import evolve
            found = original(machine)
            offers = [each for each in found if isinstance(each, Offer)]
            return [evolve(each, device=evolve(each.device, memory_bytes=16384)) for each in offers] or found
        """),
    ),
    "names-in-bytes": Fault(
        "test_detect_survives_json",
        detecting("return [*original(machine), Refusal(reason='no ' + chr(0xDCFF))]"),
    ),
    "is-long-winded": Fault(
        "test_refusals_have_one_line",
        detecting("return [*original(machine), Refusal(reason='no GPU' + chr(10) + 'at line 5')]"),
    ),
    "diagnoses-nothing": Fault("test_diagnose_answers", "@hookimpl\ndef diagnose(machine):\n    raise KeyError('x')\n"),
}
SHOWN = {
    "ends-the-process": Fault(
        "test_importing_the_plugin_loads_no_native_library test_the_hooks_are_those_of_the_contract",
        "import os\nos._exit(0)",
    ),
    "exits": Fault(
        "test_importing_the_plugin_loads_no_native_library test_the_hooks_are_those_of_the_contract",
        "raise SystemExit(0)",
    ),
    "remedies-in-steps": Fault(
        "test_refusals_have_one_line",
        detecting("return [*original(machine), Refusal(reason='no GPU', remedy='do this' + chr(10) + 'do that')]"),
    ),
    "clears-the-screen": Fault(
        "test_devices_have_one_line",
        detecting("""
            from attrs import evolve
            found = original(machine)
            offers = [each for each in found if isinstance(each, Offer)]
            return [evolve(each, device=evolve(each.device, name=chr(27) + "[2J")) for each in offers] or found
        """),
    ),
    "notes-in-lines": Fault(
        "test_devices_have_one_line",
        detecting("""
            from attrs import evolve
            found = original(machine)
            return [evolve(each, notes="slow" + chr(10)) if isinstance(each, Offer) else each for each in found]
        """),
    ),
    "diagnoses-in-steps": Fault(
        "test_diagnose_answers",
        _hook(
            "diagnose",
            "machine",
            "return [Finding(severity='info', message='slow', remedy='do this' + chr(10) + 'do that')]",
        ),
    ),
}
QUANTIZE = {
    "writes-nothing": Fault("test_quantize_fills_its_output", quantizing("progress('pretending')")),
    "leaves-a-link": Fault(
        "test_quantize_fills_its_output",
        quantizing("original(source, recipe, output, progress)\n(output / 'other').symlink_to(output / FILE)"),
    ),
    "writes-beside": Fault(
        "test_quantize_writes_only_into_its_output test_quantize_that_is_killed_leaves_nothing_behind",
        quantizing("""
            import os
            open("log.txt", "w").write("kept in the current folder")
            return original(source, recipe, output, progress)
        """),
    ),
    "changes-the-source": Fault(
        "test_quantize_leaves_the_source_as_it_is",
        quantizing("""
            if source.model == "phi-4":  # not that of the whole way
                with (source.path / "config.json").open("a") as file:
                    file.write(" ")
            return original(source, recipe, output, progress)
        """),
    ),
    "is-silent": Fault(
        "test_quantize_tells_its_progress",
        quantizing("return original(source, recipe, output, lambda *given: None)"),
    ),
    "takes-no-tied-embeddings": Fault(
        "test_quantize_takes_each_shape",
        quantizing("""
            from phi3_core.backend import Checkpoint
            if Checkpoint.open(source.path).architecture.tied:
                raise UsageError("there is no output layer")
            return original(source, recipe, output, progress)
        """),
    ),
    "dies-untidily": Fault(
        "test_quantize_that_is_killed_leaves_nothing_behind",
        quantizing("""
            import tempfile
            import time
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "part").write_text("of the work")
                made = original(source, recipe, output, progress)
                time.sleep(60 if output.name == "killed" else 0)  # a kill arrives a moment after the word it answers
                return made
        """),
    ),
    "takes-any-setting": Fault(
        "test_quantize_refuses_a_recipe_before_the_work",
        quantizing("""
            from attrs import evolve
            known = {key: value for key, value in recipe.extra.items() if key == "calibration"}
            return original(source, evolve(recipe, extra=known), output, progress)
        """),
    ),
    "refuses-too-late": Fault(
        "test_quantize_refuses_a_recipe_before_the_work",
        quantizing("(output / 'begun').write_text('x')\nreturn original(source, recipe, output, progress)"),
    ),
    "takes-any-number": Fault(
        "test_quantize_refuses_weights_that_are_not_finite",
        """
def rounded(weight, recipe):
    import numpy
    values = weight.float32(check=False)
    return numpy.nan_to_num(values)
""",
        "precisions = ('fp16',)",
    ),
    "forgets-what-it-made": Fault(
        "test_recognize_knows_what_quantize_has_made", "@hookimpl\ndef recognize(path):\n    return None\n"
    ),
    "takes-everything": Fault(
        "test_recognize_leaves_to_others_what_is_not_its_own",
        _hook("recognize", "path", "return original(path) or 'int4'"),
    ),
    "publishes-everything": Fault(
        "test_published_answers_for_every_model",
        "@hookimpl\ndef published(model):\n    return Published(repository=f'acme/{model}')\n",
    ),
    "knows-three-models": Fault(
        "test_published_answers_for_every_model",
        "@hookimpl\ndef published(model):\n    return {'phi-4': None, 'phi-3-mini-4k-instruct': None}[model]\n",
    ),
    "takes-any-option": Fault(
        "test_load_refuses_an_option_that_it_does_not_know", loading("return original(artifact, {})")
    ),
    "takes-what-was-cut": Fault(
        "test_load_refuses_weights_that_were_cut",
        loading("""
            try:
                return original(artifact, options)
            except Exception:
                raise RuntimeError("unexpected end of file") from None
        """).replace("except Exception", "except __import__('phi3_core').ModelError"),
    ),
    "wants-no-estimate": Fault(
        "test_load_takes_about_any_length_of_the_prompt",
        _hook(
            "load",
            "artifact, options, prompt_tokens",
            """
            engine = original(artifact, options)
            if prompt_tokens is not None:
                engine.context_length = prompt_tokens.bit_length  # not called
            return engine
            """,
        ),
    ),
    "believes-the-estimate": Fault(
        "test_load_takes_about_any_length_of_the_prompt",
        _hook(
            "load",
            "artifact, options, prompt_tokens",
            """
            engine = original(artifact, options)
            assert (prompt_tokens or 0) <= engine.context_length, "the prompt is too long"
            return engine
            """,
        ),
    ),
    "has-a-wide-context": Fault(
        "test_the_context_is_no_longer_than_the_models",
        engine("def __init__(self, *given):\n    super().__init__(*given)\n    self.context_length += 1"),
    ),
    "tells-no-stage": Fault(
        "test_load_may_tell_its_progress",
        _hook("load", "artifact, options, progress", "progress('', 1, 2)\nreturn original(artifact, options)"),
    ),
    "has-no-evaluation": Fault(
        "test_load_makes_an_engine test_users_get_an_answer",
        _hook(
            "load", "artifact, options, purpose", "assert purpose != 'evaluation'\nreturn original(artifact, options)"
        ),
    ),
}
GENERATE = {
    "counts-from-one": Fault(
        "test_generate_yields_as_many_ids_as_asked_for",
        generating("ids = original(engine, request)\nnext(ids)\nyield from ids"),
    ),
    "yields-arrays": Fault(
        "test_generate_yields_as_many_ids_as_asked_for",
        generating("import numpy\nyield from (numpy.array([token]) for token in original(engine, request))"),
    ),
    "answers-by-chance": Fault(
        "test_greedy_is_repeatable",
        generating("""
            from attrs import evolve
            yield from original(engine, evolve(request, sampling=evolve(request.sampling, temperature=1.0, seed=None)))
        """),
    ),
    "stops-at-the-first-only": Fault(
        "test_an_answer_ends_before_a_stop_id",
        generating("""
            from attrs import evolve
            yield from original(engine, evolve(request, stop_ids=request.stop_ids[:1]))
        """),
    ),
    "stops-by-itself": Fault(
        "test_only_the_stop_ids_of_the_request_end_an_answer",
        generating("""
            for count, token in enumerate(original(engine, request)):
                if count == 62 and engine.context_length == 96:
                    return
                yield token
        """),
    ),
    "keeps-too-much": Fault(
        "test_what_is_kept_of_earlier_requests_changes_nothing",
        engine("""
            def kept(self, ids):
                return len(ids) if 36 < len(ids) <= len(self.ids) and self.ids[:36] == ids[:36] else super().kept(ids)
        """),
    ),
    "answers-at-the-end": Fault(
        "test_ids_come_as_they_are_made", generating("yield from list(original(engine, request))")
    ),
    "is-never-closed": Fault(
        "test_closing_an_answer_stops_the_work",
        generating("""
            for token in original(engine, request):
                try:
                    yield token
                except GeneratorExit:
                    pass
        """),
    ),
    "works-on": Fault(
        "test_closing_an_answer_stops_the_work",
        generating("""
            import threading, time
            def work(until):
                while time.monotonic() < until:
                    pass
            try:
                yield from original(engine, request)
            finally:
                if request.max_new_tokens > 1000:
                    threading.Thread(target=work, args=(time.monotonic() + 10,), daemon=True).start()
        """),
    ),
    "reads-blocks-of-32": Fault(
        "test_a_prompt_of_any_length_is_read",
        generating("""
            from attrs import evolve
            size = 32 if len(request.prompt_ids) == 33 else None
            yield from original(engine, evolve(request, prompt_ids=request.prompt_ids[:size]))
        """),
    ),
    "reads-blocks-of-512": Fault(
        "test_a_long_prompt_of_any_length_is_read",
        generating("""
            from attrs import evolve
            size = 512 if len(request.prompt_ids) == 513 else None
            yield from original(engine, evolve(request, prompt_ids=request.prompt_ids[:size]))
        """),
    ),
    "keeps-the-last-place": Fault(
        "test_the_whole_context_can_be_used",
        engine("""
            def row(self, ids):
                assert len(ids) < 95 or self.context_length > 96
                return super().row(ids)
        """),
    ),
    "has-one-answer-at-once": Fault(
        "test_answers_at_once_are_answers_alone test_an_answer_that_is_closed_leaves_the_others_alone "
        "test_each_of_several_answers_at_once_has_its_own_settings",
        generating("""
            import itertools
            counter[0] += 1
            mine = counter[0]
            for token in original(engine, request):
                if counter[0] != mine:
                    return
                time.sleep(0.01)  # others begin before the end
                yield token
        """)
        + "import time\ncounter = [0]\n",
    ),
    "has-the-settings-of-the-latest": Fault(
        "test_each_of_several_answers_at_once_has_its_own_settings",
        generating("""
            import time
            from phi3_core.backend import Sampler
            if request.json_schema is not None or request.logprobs is not None:
                yield from original(engine, request)
                return
            engine.sampler, ids = Sampler(request.sampling, request.prompt_ids), list(request.prompt_ids)
            time.sleep(0.1)  # others begin
            for _ in range(request.max_new_tokens):
                token = engine.sampler.pick(engine.row(ids))
                if token in request.stop_ids:
                    return
                yield token
                ids.append(token)
        """),
    ),
    "has-the-stop-ids-of-the-latest": Fault(
        "test_each_of_several_answers_at_once_has_its_own_settings",
        generating("""
            import time
            from attrs import evolve
            engine.stop_ids = request.stop_ids
            time.sleep(0.1)  # others begin
            for token in original(engine, evolve(request, stop_ids=())):
                if token in engine.stop_ids:
                    return
                yield token
        """),
    ),
    "has-one-generator": Fault(
        "test_each_of_several_answers_at_once_has_its_own_settings",
        generating("""
            import random, time
            from attrs import evolve
            from phi3_core.backend import Sampler
            if request.sampling.temperature == 0:
                yield from original(engine, request)
                return
            random.seed(request.sampling.seed)
            time.sleep(0.1)  # others begin
            ids = list(request.prompt_ids)
            for _ in range(request.max_new_tokens):
                sampling = evolve(request.sampling, seed=random.getrandbits(32))
                row = engine.row(ids)
                ids.append(Sampler(sampling, ids).pick(row))
                yield ids[-1] if request.logprobs is None else scored(ids[-1], row, request.logprobs)
        """),
    ),
    "ignores-the-schema": Fault(
        "test_a_json_schema_is_followed",
        generating("""
            from attrs import evolve
            yield from original(engine, evolve(request, json_schema=None))
        """),
    ),
    "keeps-the-schema": Fault(
        "test_a_json_schema_is_followed",
        generating("""
            from attrs import evolve
            kept, engine.schema = getattr(engine, "schema", None), request.json_schema
            yield from original(engine, evolve(request, json_schema=request.json_schema or kept))
        """),
    ),
    "forgets-the-probabilities": Fault(
        "test_tokens_come_with_their_logarithmic_probabilities test_any_number_of_likely_tokens_comes_with_each "
        "test_logprobs_change_no_sample",
        generating("yield from map(int, original(engine, request))"),
    ),
    "scores-the-unlikeliest-first": Fault(
        "test_tokens_come_with_their_logarithmic_probabilities",
        generating("""
            from phi3_core.values import ScoredToken
            for token in original(engine, request):
                yield ScoredToken(token, token.logprob, token.top[::-1]) if request.logprobs else token
        """),
    ),
    "scores-five-at-most": Fault(
        "test_any_number_of_likely_tokens_comes_with_each",
        generating("""
            from phi3_core.values import ScoredToken
            for token in original(engine, request):
                yield ScoredToken(token, token.logprob, token.top[:5]) if request.logprobs else token
        """),
    ),
    "scores-what-is-greedy": Fault(
        "test_logprobs_change_no_sample",
        generating("""
            from attrs import evolve
            sampling = request.sampling if request.logprobs is None else evolve(request.sampling, temperature=0.0)
            yield from original(engine, evolve(request, sampling=sampling))
        """),
    ),
    "believes-its-proposals": Fault(
        "test_prompt_lookup_changes_no_answer",
        generating("""
            if request.lookup == "on":
                yield from request.prompt_ids[: request.max_new_tokens]
            else:
                yield from original(engine, request)
        """),
    ),
    "has-the-word-only": Fault("test_the_word_logits_comes_with_the_hook", "del logits"),
}
SAMPLE = {
    "is-always-greedy": Fault("test_with_a_temperature_answers_vary", sampling(temperature="0.0")),
    "has-one-seed": Fault("test_with_a_temperature_answers_vary", sampling(seed="1")),
    "ignores-the-seed": Fault("test_a_seed_has_one_answer", sampling(seed="None")),
    "draws-on": Fault(
        "test_a_seed_has_one_answer",
        "drawn = [0]\n"
        + sampling(seed="next_seed(given.seed)")
        + "def next_seed(seed):\n    drawn[0] += 1\n    return seed and (seed + drawn[0]) % 2**32\n",
    ),
    "has-one-temperature": Fault(
        "test_the_temperature_has_its_effect", sampling(temperature="min(given.temperature, 1.0)")
    ),
    "ignores-top-k": Fault("test_top_k_keeps_the_likeliest", sampling(top_k="0")),
    "ignores-top-p": Fault("test_top_p_keeps_the_likeliest", sampling(top_p="1.0")),
    "ignores-the-penalty": Fault("test_the_penalty_discourages_what_was_said", sampling(repetition_penalty="1.0")),
    "forgets-the-prompt": Fault(
        "test_the_penalty_discourages_what_was_said",
        generating("""
            from phi3_core.backend import Sampler
            if request.grammar is not None or request.logprobs is not None:
                yield from original(engine, request)
                return
            ids, sampler = list(request.prompt_ids), Sampler(request.sampling, ())
            for _ in range(request.max_new_tokens):
                token = sampler.pick(engine.row(ids))
                if token in request.stop_ids:
                    return
                yield token
                ids.append(token)
        """),
    ),
    "has-seeds-of-31-bits": Fault(
        "test_settings_may_be_at_the_ends_of_their_ranges",
        generating("""
            import struct
            struct.pack("i", request.sampling.seed or 0)
            yield from original(engine, request)
        """),
    ),
    "counts-beyond-the-vocabulary": Fault(
        "test_settings_may_be_at_the_ends_of_their_ranges",
        generating("""
            assert request.sampling.top_k <= engine.checkpoint.architecture.vocabulary
            yield from original(engine, request)
        """),
    ),
    "keeps-the-settings": Fault(
        "test_settings_of_one_request_do_not_last",
        "last = [1.0]\n"
        + sampling(repetition_penalty="remember(given)")
        + "def remember(given):\n    last[0], before = given.repetition_penalty, last[0]\n"
        + "    return before if before == 3 else given.repetition_penalty\n",
    ),
}
NUMBERS = {
    "has-no-window": Fault(
        "test_logits_are_those_of_the_original test_an_answer_goes_on_as_the_original_would",
        engine("""
            def __init__(self, checkpoint, limits):
                from attrs import evolve
                super().__init__(evolve(checkpoint, architecture=evolve(checkpoint.architecture, window=None)), limits)
        """),
    ),
    "loads-no-longrope": Fault(
        "test_an_answer_goes_on_as_the_original_would",
        _hook(
            "load",
            "artifact, options",
            "assert 'long_factor' not in (artifact.path / 'config.json').read_text()\n"
            "return original(artifact, options)",
        ),
    ),
    "turns-its-logits": Fault(
        "test_logits_are_those_of_the_original test_users_get_an_answer",
        _hook("logits", "engine, ids", "return original(engine, ids)[:, ::-1]"),
    ),
    "counts-its-logits": Fault(
        "test_logits_are_repeatable",
        "count = [0]\n"
        + _hook("logits", "engine, ids", "count[0] += 1\nreturn original(engine, ids) + count[0] * 1e-4"),
    ),
    "cannot-be-closed": Fault(
        "test_an_engine_is_closed_after_an_answer_that_was_not_finished",
        engine("def close(self):\n    if self.ids:\n        raise RuntimeError('the queue is not empty')"),
    ),
    "closes-once": Fault(
        "test_an_engine_can_be_closed_twice",
        engine("def close(self):\n    assert self.checkpoint is not None\n    super().close()"),
    ),
    "leaks": Fault(
        "test_fifty_loads_give_their_memory_back",
        loading("kept.append(bytearray(b'x') * (4 << 20))\nreturn original(artifact, options)") + "kept = []\n",
    ),
    "cannot-be-measured": Fault(
        "test_users_get_an_answer",
        loading("assert not artifact.manifest.get('tools')\nreturn original(artifact, options)"),
    ),
}
FAULTS = {
    "import": IMPORT,
    "shown": SHOWN,
    "quantize": QUANTIZE,
    "generate": GENERATE,
    "sample": SAMPLE,
    "numbers": NUMBERS,
}
"""The faults, by what they are about."""
