"""Requests to ``/v1/completions``, as calls."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from .calls import MOST_CHOICES, ChatCall
from .requests import Neutral, Sampling, Text, invalid, refused


def _texts_only(prompt: Any) -> Any:
    if isinstance(prompt, list) and any(not isinstance(each, str) for each in prompt):
        raise refused("is not supported as token ids: a prompt is a text or a list of texts")
    return prompt


class CompletionRequest(Sampling):
    """The parameters of ``/v1/completions``."""

    prompt: Annotated[
        Text | Annotated[list[Text | int | list[int]], Field(min_length=1)],
        AfterValidator(_texts_only),
    ]
    best_of: Annotated[Any, Neutral(1)] = None
    echo: Annotated[Any, Neutral(False)] = None
    suffix: Annotated[Any, Neutral("", why="is not supported: the models only go on")] = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.prompts) * (self.n or 1) > MOST_CHOICES:
            raise invalid("n", "n times the number of prompts may be {most} at most", most=MOST_CHOICES)
        return self

    @property
    def prompts(self) -> list[str]:
        """All prompts."""
        return [self.prompt] if isinstance(self.prompt, str) else [str(each) for each in self.prompt]

    def calls(self) -> list[ChatCall]:
        """Return a call for each prompt."""
        asked = {
            **self.sampling(),
            "max_new_tokens": self.max_tokens,
            "logprobs": self.logprobs is not None,
            "top_logprobs": self.logprobs or 0,
        }
        return [ChatCall(**asked, prompt=prompt) for prompt in self.prompts]
