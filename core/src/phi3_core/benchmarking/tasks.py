"""What is measured: prompts and answers of lengths that stand for kinds of work, as in MLPerf Client.

The names are those of its tasks, the lengths are round numbers near them. Prompts are passages of a built-in text.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen

_STEP = 9973
"""A prime: how far apart in the text prompts begin, so that no two begin alike and no engine reuses one for another."""


@frozen(kw_only=True)
class Task:
    """A prompt and an answer of fixed lengths, in tokens."""

    name: str
    prompt_tokens: int
    new_tokens: int
    clipped: bool = False
    """Whether it was shortened to fit a context."""

    def effort(self, at_once: int) -> float:
        """Return about how long it takes, in tokens of one answer: reading is faster, and answers share passes."""
        return at_once * self.prompt_tokens / 10 + self.new_tokens * (1 + (at_once - 1) / 4)


TASKS = (
    Task(name="content generation", prompt_tokens=128, new_tokens=256),
    Task(name="creative writing", prompt_tokens=512, new_tokens=512),
    Task(name="summarization, light", prompt_tokens=1024, new_tokens=128),
    Task(name="summarization, moderate", prompt_tokens=1536, new_tokens=256),
    Task(name="code analysis", prompt_tokens=2048, new_tokens=128),
)
QUICK = (Task(name="content generation", prompt_tokens=128, new_tokens=128),)
WARM_UP = Task(name="warm-up", prompt_tokens=32, new_tokens=8)


def clip(task: Task, context_length: int) -> Task:
    """Return the task, shortened to fit a context: first the answer, down to 16 tokens, then the prompt."""
    if task.prompt_tokens + task.new_tokens <= context_length:
        return task
    new = max(min(16, context_length // 2), min(task.new_tokens, context_length - task.prompt_tokens))
    prompt = max(1, min(task.prompt_tokens, context_length - new))
    return evolve(task, prompt_tokens=prompt, new_tokens=new, clipped=True)


class Prompts:
    """Makes prompts of any length that begin differently from each other.

    Args:
        ids: the ids of a text.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids = tuple(ids)
        self._start = 0

    def take(self, tokens: int) -> tuple[int, ...]:
        """Return a prompt of so many tokens."""
        self._start = (self._start + _STEP) % len(self._ids)
        rotated = self._ids[self._start :] + self._ids[: self._start]
        return (rotated * (tokens // len(rotated) + 1))[:tokens]
