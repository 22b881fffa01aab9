"""A model that a running server has loaded, as ``phi3 run`` and ``phi3 chat`` use it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from phi3_core.replies import Attempt, GenerationSettings, Message, Reply

from . import client
from .servers import RunningServer, running_servers

if TYPE_CHECKING:
    from typing_extensions import Self

_HIGHEST_TEMPERATURE = 2.0
_MOST_STOPS = 16


def find(name: str, store_name: str, device: str, precision: str | None) -> RemoteModel | None:
    """Return a model that a running server of this user has loaded; None if there is none.

    Args:
        name: the name of the model.
        store_name: the name of its weights in the store, which is that model's alone.
        device: what ``--device`` takes.
        precision: the precision that it needs to have, if any.
    """
    for server in running_servers():
        try:
            document = client.get(server, f"/v1/models/{quote(name, safe='')}")
        except client.UnreachableError:
            continue
        about = document.get("phi3") if isinstance(document, dict) else None
        if not isinstance(about, dict) or not about.get("loaded") or about.get("store_name") != store_name:
            continue
        own = str(about["device"])
        is_right = device in {"auto", own, own.partition(":")[0], about.get("kind")}
        if is_right and precision in {None, about["precision"]}:
            return RemoteModel(server, document)
    return None


def can_be_asked(settings: GenerationSettings) -> bool:
    """Return whether a request to a server can state all of the settings."""
    is_plain = settings.lookup == "auto" and settings.json_schema is None and settings.logprobs is None
    return is_plain and settings.sampling.temperature <= _HIGHEST_TEMPERATURE and len(settings.stop) <= _MOST_STOPS


class RemoteModel:
    """A model of a running server, with what the commands need of :class:`~phi3_core.model.Model`."""

    process = None
    """The id of the engine's process, which is not known here."""

    def __init__(self, server: RunningServer, document: dict[str, Any]) -> None:
        self._server = server
        about = document["phi3"]
        self.name = str(document["id"])
        self.device = str(about["device"])
        self.precision = str(about["precision"])
        self.context_length = int(about["context_length"])

    @property
    def address(self) -> str:
        """The URL of the server."""
        return self._server.address

    def answer(self, messages: Sequence[Message], settings: GenerationSettings) -> RemoteStream:
        """Return the answer to a conversation, as chunks of text."""
        return RemoteStream(self._server, self.name, self._request(messages, settings))

    def fits(self, messages: Sequence[Message], *, answer_tokens: int = 1) -> bool:
        """Return whether a conversation leaves room for an answer of so many tokens."""
        system = "\n\n".join(each["content"] for each in messages if each["role"] == "system")
        said = [dict(each) for each in messages if each["role"] != "system"]
        content = {"model": self.name, "messages": said, **({"system": system} if system else {})}
        found = client.post(self._server, "/v1/messages/count_tokens", content)
        return int(found["input_tokens"]) + answer_tokens <= self.context_length

    def _request(self, messages: Sequence[Message], settings: GenerationSettings) -> dict[str, Any]:
        sampling = settings.sampling
        content: dict[str, Any] = {
            "model": self.name,
            "messages": [dict(each) for each in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_completion_tokens": settings.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "repetition_penalty": sampling.repetition_penalty,
            "stop": list(settings.stop),
        }
        return content if sampling.seed is None else {**content, "seed": sampling.seed}

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RemoteStream:
    """The chunks of an answer's text. ``reply`` is available at its end."""

    def __init__(self, server: RunningServer, name: str, content: dict[str, Any]) -> None:
        self._server, self._name, self._content = server, name, content
        self._chunks = self._read()
        self._reply: Reply | None = None

    @property
    def reply(self) -> Reply:
        """The complete answer."""
        if self._reply is None:
            raise ValueError("the answer has not been read to its end")
        return self._reply

    def __iter__(self) -> Iterator[str]:
        return self._chunks

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the answer."""
        self._chunks.close()

    def _read(self) -> Generator[str, None, None]:
        started = time.perf_counter()
        text: list[str] = []
        first: float | None = None
        facts: dict[str, Any] = {}
        for document in client.events(self._server, "/v1/chat/completions", self._content):
            facts["usage"] = document.get("usage") or facts.get("usage")
            for choice in document["choices"]:
                chunk = choice["delta"].get("content")
                facts["reason"] = choice.get("finish_reason") or facts.get("reason")
                if chunk:
                    first = time.perf_counter() - started if first is None else first
                    text.append(chunk)
                    yield chunk
            facts["phi3"] = document.get("phi3") or facts.get("phi3")
        end, usage = facts["phi3"], facts["usage"]
        self._reply = Reply(
            text="".join(text),
            model=self._name,
            device=end["device"],
            precision=end["precision"],
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
            finish_reason=facts["reason"],
            time_to_first_token_s=first,
            decode_tokens_per_s=end["decode_tokens_per_s"],
            attempts=(Attempt(device=end["device"], outcome="answered"),),
        )
