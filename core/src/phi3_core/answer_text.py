"""From the token ids of an answer to the chunks of its text, and to the reply at their end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from typing import TYPE_CHECKING

from .pending import BLOCKING, Pending
from .pipeline import generate
from .replies import Attempt, Reply
from .text.decoder import Decoder
from .text.logprobs import TokenTexts, logprobs_of

if TYPE_CHECKING:
    from .answers import Answer
    from .session import EngineSession
    from .text.stops import StopStrings
    from .text.tokenizer import Tokenizer
    from .values import GenerationRequest


def answer_text(
    session: EngineSession,
    tokenizer: Tokenizer,
    request: GenerationRequest,
    stops: StopStrings,
    *,
    answer: Answer,
    started: float,
    continues: bool,
) -> Generator[str | Pending | Reply, None, None]:
    """Yield the chunks of an answer's text, then the reply. While there is no text, yield what the answer waits for.

    Args:
        session: generates the ids.
        tokenizer: turns them into text.
        request: prompt ids, sampling settings and stop conditions.
        stops: the strings that end the answer.
        answer: records the engine and the failed attempts.
        started: when the answer was asked for, by :func:`time.perf_counter`.
        continues: whether the answer goes on with a text, and not with a template's line.

    Raises:
        Phi3Error: see :meth:`EngineSession.generate`.
    """
    decoder = Decoder(tokenizer, continues=continues)
    tokens = None if request.logprobs is None else TokenTexts(tokenizer, continues=continues)
    text: list[str] = []
    count, first, last, stopped = 0, 0.0, 0.0, False
    with contextlib.closing(generate(session, request, answer)) as ids:
        for item in ids:
            if not isinstance(item, int):
                yield item
                continue
            last = time.perf_counter()
            first = first or last
            count += 1
            completed = decoder.push(item)
            if tokens is not None:
                tokens.push(item, completed)
            chunk, stopped = stops.push(completed)
            if chunk:
                text.append(chunk if tokens is None else tokens.show(chunk))
                yield text[-1]
            if stopped:
                yield BLOCKING  # the engine is told to stop
                break
    if not stopped:
        rest, stopped = stops.push(decoder.finish())
        rest += stops.finish()
        stopped = stops.found
        if tokens is not None:
            rest = tokens.show(rest, all_of_it=not stopped)
        if rest or logprobs_of([rest]):
            text.append(rest)
            yield rest
    device = str(answer.engine.device) if answer.engine else "none"
    yield Reply(
        text="".join(text),
        model=session.name,
        device=device,
        precision=answer.engine.precision if answer.engine else "none",
        prompt_tokens=len(request.prompt_ids),
        completion_tokens=count,
        finish_reason="stop" if stopped or count < request.max_new_tokens else "length",
        time_to_first_token_s=first - started if count else None,
        decode_tokens_per_s=(count - 1) / (last - first) if count > 1 else None,
        attempts=(*answer.attempts, Attempt(device=device, outcome="answered")),
        logprobs=None if tokens is None else logprobs_of(text),
    )
