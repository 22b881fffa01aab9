"""Phi-3 models for LLM, the command line and library of https://llm.datasette.io."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import llm
from pydantic import Field

if TYPE_CHECKING:
    import phi3_core

__version__ = "0.1.0"


@llm.hookimpl
def register_models(register: Callable[[llm.Model], None]) -> None:
    """Register the models of phi3-core's catalogue, and those in its store."""
    from phi3_core.models.catalogue import CATALOGUE
    from phi3_core.store.store import Store

    for name in dict.fromkeys((*CATALOGUE, *(entry.model for entry in Store().entries()))):
        register(Phi3(name))


class Phi3(llm.Model):
    """A model, which is loaded for its first answer and kept for the next ones."""

    can_stream = True

    class Options(llm.Options):
        """What an answer may be asked for, as by the flags of ``phi3 run``."""

        device: str = Field("auto", description="auto, a backend, a kind, or backend:device")
        max_new_tokens: int | None = Field(None, ge=1, description="maximum number of tokens of the answer")
        temperature: float | None = Field(None, ge=0, description="0 is greedy and repeatable")
        top_k: int | None = Field(None, ge=0, description="keep the k likeliest tokens; 0 keeps all")
        top_p: float | None = Field(None, gt=0, le=1, description="keep tokens that reach this probability together")
        repetition_penalty: float | None = Field(None, gt=0, description="over 1 discourages repetition")
        seed: int | None = Field(None, ge=0, description="makes sampling repeatable")

    def __init__(self, name: str) -> None:
        self.model_id = f"phi3/{name}"
        self._name = name
        self._loaded: tuple[str, phi3_core.Model] | None = None

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.Response, conversation: llm.Conversation | None
    ) -> Iterator[str]:
        """Yield the chunks of the answer."""
        import phi3_core

        options = prompt.options.model_dump(exclude_none=True)
        try:
            model = self._model(options.pop("device"))
            with model.stream_chat(messages(prompt, conversation), **options) as answer:
                if stream:
                    yield from answer
                else:
                    yield "".join(answer)
        except phi3_core.Phi3Error as error:
            raise llm.ModelError(str(error)) from error
        reply = answer.reply
        response.set_usage(input=reply.prompt_tokens, output=reply.completion_tokens)
        figures = ("device", "precision", "finish_reason", "time_to_first_token_s", "decode_tokens_per_s")
        response.response_json = {name: getattr(reply, name) for name in figures}

    def _model(self, device: str) -> phi3_core.Model:
        import phi3_core

        if self._loaded is not None and self._loaded[0] != device:
            self._loaded[1].close()
            self._loaded = None
        if self._loaded is None:
            self._loaded = device, phi3_core.load(self._name, device=device)
        return self._loaded[1]


def messages(prompt: llm.Prompt, conversation: llm.Conversation | None) -> list[dict[str, str]]:
    """Return a conversation and its next prompt as messages; the latest system prompt counts."""
    said: list[dict[str, str]] = []
    system = prompt.system
    for earlier in conversation.responses if conversation else ():
        system = system or earlier.prompt.system
        answer = cast("llm.Response", earlier).text()
        said += [{"role": "user", "content": earlier.prompt.prompt}, {"role": "assistant", "content": answer}]
    first: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    return [*first, *said, {"role": "user", "content": prompt.prompt}]
