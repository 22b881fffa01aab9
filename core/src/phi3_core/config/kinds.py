"""What the value of a setting may be, as text of an environment variable and as a value of a TOML file."""

from __future__ import annotations

import math

from phi3_core.textfiles import lone_surrogate

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import Any

_YES, _NO = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


class Kind:
    """Text, and the base class of other kinds."""

    words = "text"
    """What a value may be, to follow "not"."""
    example = "TEXT"
    """A value, for hints."""
    choices: tuple[str, ...] = ()
    """The only values, if they are words."""

    def of_text(self, text: str) -> Any:
        """Return the value that a text stands for.

        Raises:
            ValueError: it stands for none.
        """
        return self.of_file(text)

    def of_file(self, given: Any) -> Any:
        """Return the value that a value of a TOML file stands for. Raises as :meth:`of_text`."""
        if not isinstance(given, str) or not given.strip() or lone_surrogate(given) is not None:
            raise ValueError
        return given


class Choice(Kind):
    """One of several words."""

    def __init__(self, *choices: str) -> None:
        self.choices = choices
        self.words = f"{', '.join(choices[:-1])} or {choices[-1]}"
        self.example = choices[0]

    def of_file(self, given: Any) -> Any:
        if given not in self.choices:
            raise ValueError
        return given


class Number(Kind):
    """A number within bounds.

    Args:
        least: the least value.
        most: the largest value, if any.
        over: whether values are over ``least``, and not equal to it.
        whole: whether values are integers.
        words: what a value may be.
    """

    def __init__(
        self, words: str, *, least: float, most: float = math.inf, over: bool = False, whole: bool = False
    ) -> None:
        self.words, self._least, self._most, self._over, self._whole = words, least, most, over, whole
        self.example = "1"

    def of_text(self, text: str) -> Any:
        return self.of_file(int(text) if self._whole else float(text))

    def of_file(self, given: Any) -> Any:
        if isinstance(given, bool) or not isinstance(given, int if self._whole else (int, float)):
            raise ValueError  # noqa: TRY004 - one exception for all that cannot be a value
        value = given if self._whole else float(given)
        if not math.isfinite(value) or not self._least <= value <= self._most or (self._over and value == self._least):
            raise ValueError
        return value


class Flag(Kind):
    """True or false."""

    words, example = "true or false", "true"

    def of_text(self, text: str) -> Any:
        word = text.strip().casefold()
        if word not in _YES | _NO:
            raise ValueError
        return word in _YES

    def of_file(self, given: Any) -> Any:
        if not isinstance(given, bool):
            raise ValueError  # noqa: TRY004 - one exception for all that cannot be a value
        return given


class Anything(Flag):
    """A switch for authors of backends, which has always been on unless it was empty or 0."""

    def of_text(self, text: str) -> Any:
        return text != "0"


class Path(Kind):
    """A folder or file."""

    words, example = "a path", "FOLDER"

    def of_file(self, given: Any) -> Any:
        value = super().of_file(given)
        if "\0" in value:
            raise ValueError
        return value


class Model(Path):
    """What ``--model`` takes. It is a path if it begins like one, as ``./`` does."""

    words, example = "the name of a model, a hub repository or a path", "sample"


class Texts(Kind):
    """A list of texts; one alone stands for a list of one."""

    words, example = "a list of texts", "TEXT"

    def of_file(self, given: Any) -> Any:
        texts = given if isinstance(given, list) else [given]
        for text in texts:
            # White space may end an answer.
            if not isinstance(text, str) or not text or lone_surrogate(text) is not None:
                raise ValueError
        return tuple(texts)


class EngineOption(Kind):
    """The value of an engine's option, which is passed on as text; it may be empty."""

    words, example = 'text or a number (write "YES" or "true", as the engine spells it)', "VALUE"

    def of_file(self, given: Any) -> Any:
        if isinstance(given, bool) or not isinstance(given, (str, int, float)):
            raise ValueError  # noqa: TRY004 - one exception for all that cannot be a value
        text = str(given)
        if lone_surrogate(text) is not None:
            raise ValueError
        return text


TEXT, FLAG, PATH, MODEL, TEXTS, ENGINE_OPTION = Kind(), Flag(), Path(), Model(), Texts(), EngineOption()
SECONDS = Number("a number of seconds", least=0, over=True)
