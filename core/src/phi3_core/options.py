"""Options of engines (``--option KEY=VALUE``), and what may have been meant by a name that is not known."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from .errors import UsageError


def check_options(backend: str, options: Iterable[str], known: Collection[str]) -> None:
    """Check the names of engine options.

    Args:
        backend: the name of the backend, for the message.
        options: the names that were given, or a mapping with them as keys.
        known: the names that the engine takes.

    Raises:
        UsageError: an option is not known. The hint names the one that may have been meant.
    """
    for name in options:
        if name not in known:
            hint = "leave --option out"
            if known:
                meant = closest(name, known)
                hint = f"did you mean {meant}?" if meant else f"there is {', '.join(sorted(known))}"
            raise UsageError(f"{backend} has no option {name}", hint=hint)


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most like ``word``, whatever the case; None if none is like it."""
    import difflib  # start-up: needed only for mistakes

    folded = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.5)
    return folded[close[0]] if close else None
