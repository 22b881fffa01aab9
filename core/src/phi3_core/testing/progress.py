"""What a hook tells of its progress."""

from __future__ import annotations


class Told:
    """The calls of a :class:`~phi3_core.values.Progress`, in their order: stage, done and total."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int | None, int | None]] = []

    def __call__(self, stage: str, done: int | None = None, total: int | None = None) -> None:
        self.calls.append((stage, done, total))

    def check(self, hook: str) -> None:
        """Check that each call can be shown.

        Raises:
            AssertionError: one has no stage, or more is done than there is.
        """
        for stage, done, total in self.calls:
            assert stage.strip(), f"{hook} called progress without a stage"
            assert done is None or total is None or 0 <= done <= total, (
                f"{hook} said that {done} of {total} are done in the stage {stage!r}"
            )
