"""The worker's side of the calls: each is a hook of the plugin, from and to JSON data."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve

from phi3_core.config import shows_output
from phi3_core.decoding.grammar import SchemaGrammar, Vocabulary
from phi3_core.disk import raise_if_full
from phi3_core.errors import BackendError
from phi3_core.plugin import Backend, PluginHooks
from phi3_core.values import (
    Artifact,
    Device,
    Engine,
    Finding,
    GenerationRequest,
    Machine,
    Offer,
    Progress,
    Recipe,
    Source,
    to_plain,
)
from phi3_core.wording import shortened

from . import checks
from .debugger import Debugger
from .generations import Generations
from .plain_error import plain_error
from .protocol import Channel


class Server:
    """Serves the host's calls: ``generate``, and the others each with a method ``do_…``, from and to JSON data."""

    def __init__(self, channel: Channel) -> None:
        self.generations = Generations()
        self._channel = channel
        self._engine: Engine | None = None
        self._vocabulary: Vocabulary | None = None
        self._most = 1
        self._close_failed = False
        self._number = 0
        self._debugger = Debugger(lambda words: channel.send({"notice": words}))

    def serve(self, message: Mapping[str, Any]) -> None:
        """Serve one call: start it if it is a generation that can run beside others, else run it to its end."""
        given = dict(message)
        verb, number = given.pop("call"), given.pop("number")
        if verb == "generate":
            self.generations.run(functools.partial(self._answer, number, self._generate, number, **given), self._most)
        else:
            self._number = number
            self._answer(number, self._call, verb, **given)

    def _call(self, verb: str, **given: object) -> object:
        if verb != "open":
            self._debugger.wait(self._hooks.backend.name, verb)
        found: object = getattr(self, f"do_{verb}")(**given)
        return found

    def _answer(self, number: int, call: Callable[..., object], *arguments: object, **given: object) -> None:
        """Run a call, and send its result or error."""
        try:
            message = {"result": to_plain(call(*arguments, **given))}
        except BaseException as error:  # includes SystemExit, which plugins may raise
            message = {"error": plain_error(error)}
            if shows_output():
                print(message["error"]["traceback"], file=sys.stderr, flush=True)
        self._channel.send({"of": number, **message})

    def _progress(self) -> Progress:
        """Return what sends the progress of the current call. What is told after its end is dropped by the host."""
        number = self._number

        def tell(stage: str, done: int | None = None, total: int | None = None) -> None:
            self._channel.send({"of": number, "progress": [str(stage), _count(done), _count(total)]})

        return tell

    def do_open(self, backend: Mapping[str, str]) -> list[str]:
        """Import the plugin, and return the names of its hooks."""
        self._debugger.wait(backend["name"], "import")
        self._hooks = PluginHooks(Backend(**backend))
        return list(self._hooks.names)

    def do_detect(self, machine: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Call ``detect``."""
        answers = self._hooks.detect(Machine(**machine))
        return [{"offer" if isinstance(answer, Offer) else "refusal": answer} for answer in answers]

    def do_diagnose(self, machine: Mapping[str, Any]) -> list[Finding]:
        """Call ``diagnose``."""
        return self._hooks.diagnose(Machine(**machine))

    def do_recognize(self, path: str) -> str | None:
        """Call ``recognize``; None if the plugin does not implement it."""
        return self._hooks.recognize(Path(path)) if "recognize" in self._hooks.names else None

    def do_published(self, model: str, device: Mapping[str, Any], precision: str) -> object:
        """Call ``published``; None if the plugin does not implement it."""
        if "published" not in self._hooks.names:
            return None
        return self._hooks.published(model, Device(**device), precision)

    def do_quantize(
        self, source: Mapping[str, Any], device: Mapping[str, Any], recipe: Mapping[str, Any], output: str
    ) -> Mapping[str, str] | None:
        """Call ``quantize``, and send its progress."""
        folder = Path(output)
        try:
            return self._hooks.quantize(Source(**source), Device(**device), Recipe(**recipe), folder, self._progress())
        except OSError as error:
            raise_if_full(error, folder)
            raise

    def do_load(  # noqa: PLR0917 - called by name
        self,
        artifact: Mapping[str, Any],
        device: Mapping[str, Any],
        options: Mapping[str, str],
        purpose: str,
        prompt_tokens: int | None = None,
        tokenizer: str | None = None,
    ) -> dict[str, Any]:
        """Call ``load``, send its progress, keep the engine, and return its properties."""
        self._vocabulary = None if tokenizer is None else Vocabulary(Path(tokenizer))
        given = (Artifact(**artifact), Device(**device), options, purpose, prompt_tokens)
        engine = self._hooks.load(*given, progress=self._progress())
        try:
            facts = checks.engine_facts(engine)
        except checks.ContractError as error:
            raise self._hooks.fault("load", str(error)) from None
        self._engine, self._most = engine, facts["max_concurrency"]
        return facts

    def _generate(self, number: int, request: Mapping[str, Any], vocabulary: int | None = None) -> None:
        """Call ``generate``, and send each id until the end or a cancel."""
        try:
            self._send_ids(number, self._with_grammar(GenerationRequest(**request)), vocabulary)
        except checks.ContractError as error:
            raise self._hooks.fault("generate", str(error), error.kind) from None
        finally:
            self.generations.end(number)

    def _with_grammar(self, asked: GenerationRequest) -> GenerationRequest:
        """Return a request with the grammar of its JSON schema, which is compiled by whoever uses it."""
        if asked.json_schema is None or self._vocabulary is None:
            return asked
        return evolve(asked, grammar=SchemaGrammar(self._vocabulary, asked.json_schema))

    def _send_ids(self, number: int, asked: GenerationRequest, vocabulary: int | None) -> None:
        if self._engine is None:
            raise BackendError("generate was called before load")
        if self.generations.is_cancelled(number):
            return
        self._debugger.wait(self._hooks.backend.name, "generate")
        stops = frozenset(asked.stop_ids)
        size = checks.LARGEST_ID if vocabulary is None else vocabulary
        ids = self._hooks.generate(self._engine, asked)
        try:
            for count, item in enumerate(ids, start=1):
                # Nearly all ids pass the first two comparisons.
                token = item if type(item) is int and 0 <= item < size else checks.token_id(item, vocabulary)
                if token in stops:
                    raise checks.ContractOverrunError(f"yielded the stop id {token} instead of ending before it")
                if count > asked.max_new_tokens:
                    raise checks.ContractOverrunError(f"yielded more than the {asked.max_new_tokens} ids asked for")
                if asked.logprobs is None:
                    self._channel.send_id(number, token)
                else:
                    scored = checks.scored_token(item, asked.logprobs, vocabulary)
                    self._channel.send_scored(number, scored)
                if self.generations.is_cancelled(number):
                    break
        finally:
            self._close_iterator(ids)

    def _close_iterator(self, ids: object) -> None:
        """Close an iterator of ``generate``. An error is only a notice: the answer has ended, or has its own error."""
        try:
            close = getattr(ids, "close", None)
            if close is not None:
                close()
        except BaseException as error:  # includes SystemExit
            if not self._close_failed:
                self._close_failed = True
                words = f"{type(error).__name__}: {shortened(str(error))}"
                notice = self._hooks.fault("generate", f"returned an iterator that cannot be closed ({words})").message
                self._channel.send({"notice": notice})

    def do_logits(self, ids: Sequence[int], vocabulary: int | None = None) -> list[int]:
        """Call ``logits``, send the array, and return its shape."""
        if self._engine is None:
            raise BackendError("logits was called before load")
        try:
            found = checks.logits_array(self._hooks.logits(self._engine, ids), len(ids), vocabulary)
        except checks.ContractError as error:
            raise self._hooks.fault("logits", str(error)) from error.__cause__
        self._channel.send_array(self._number, found)
        return list(found.shape)

    def do_close(self) -> None:
        """Close the engine, if any."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()


def _count(given: Any) -> int | float | None:
    """Return a number of any type, such as numpy's, for JSON."""
    if given is None:
        return None
    return operator.index(given) if hasattr(given, "__index__") else float(given)
