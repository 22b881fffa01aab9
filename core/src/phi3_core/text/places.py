"""Which messages a chat template has a place for, found by rendering short words in their place.

Many templates drop in silence what they have no branch for. Phi-3-medium's has none for system messages.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from phi3_core.errors import ModelError, UsageError

from .template import ChatTemplate

logger = logging.getLogger("phi3_core")


@frozen
class Arrangement:
    """How a conversation is handed to a template."""

    roles: tuple[str, ...]
    """The roles of the conversation's messages."""
    folded: frozenset[int]
    """Places of the system messages whose text goes before the next user message."""
    written: str
    """The conversation as the template renders it, with other words in the messages; empty if it is refused."""

    def apply(self, contents: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the roles and the contents of the messages for the template."""
        if not self.folded:
            return list(self.roles), list(contents)
        roles: list[str] = []
        texts: list[str] = []
        before: list[str] = []
        for place, (role, content) in enumerate(zip(self.roles, contents, strict=True)):
            if place in self.folded:
                before += [content] if content.strip() else []
                continue
            if role == "user":
                content = "\n\n".join([*before, content])  # noqa: PLW2901 - of the message that is added
                before = []
            roles.append(role)
            texts.append(content)
        return roles, texts

    def position(self, place: int) -> int:
        """Return where the message at ``place``, which is not folded, is among those for the template."""
        return place - sum(folded < place for folded in self.folded)


class Places:
    """Arranges conversations for a template, so that it drops nothing.

    The text of a system message without a place goes before the next user message, and a log message says so once.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._takes_parts: bool | None = None
        self._last: tuple[tuple[str, ...], bool, Arrangement] | None = None
        self._told = False

    def render(self, roles: Sequence[str], contents: Sequence[str], *, add_generation_prompt: bool) -> str:
        """Render messages; their contents are lists of parts if the template only has a place for these."""
        return self._render(roles, contents, add_generation_prompt, in_parts=bool(self._takes_parts))

    def _render(
        self, roles: Sequence[str], contents: Sequence[str], add_generation_prompt: bool, *, in_parts: bool
    ) -> str:
        messages: list[Mapping[str, Any]] = [
            {"role": role, "content": [{"type": "text", "text": text}] if in_parts else text}
            for role, text in zip(roles, contents, strict=True)
        ]
        return self._template.render(messages, add_generation_prompt=add_generation_prompt)

    def arrange(self, roles: Sequence[str], *, add_generation_prompt: bool) -> Arrangement:
        """Return how a conversation is handed to the template.

        Raises:
            UsageError: the template drops a message that is not a system message, or there is no user message for
                the text of a system message.
            ModelError: the template is broken, or drops whatever the user says.
        """
        wanted = tuple(roles)
        last = self._last  # read once: other threads may replace it
        if last is None or last[:2] != (wanted, add_generation_prompt):
            if self._takes_parts is None:
                self._takes_parts = self._takes_parts_only()
            last = self._last = wanted, add_generation_prompt, self._arrange(wanted, add_generation_prompt)
        if last[2].folded and not self._told:
            self._told = True
            logger.warning(
                "the model's chat template has no place for a system message; its text goes before the user's message"
            )
        return last[2]

    def _arrange(self, roles: tuple[str, ...], add_generation_prompt: bool) -> Arrangement:
        dropped, written = self._dropped(roles, add_generation_prompt)
        if not dropped and dropped is not None:
            return Arrangement(roles, frozenset(), written)
        systems = frozenset(place for place, role in enumerate(roles) if role == "system")
        # Some templates refuse every system message, and some those that are not the first message.
        for folded in (systems & (dropped or frozenset()), systems - {0}, systems):
            if folded and (found := self._fold(roles, folded, add_generation_prompt)) is not None:
                return found
        if dropped is None:  # the conversation's own rendering raises the template's reason
            return Arrangement(roles, frozenset(), written)
        place = min(dropped - systems or dropped)
        raise UsageError(
            f"the model's chat template has no place for message {place + 1}, whose role is {roles[place]!r}",
            hint="leave the message out, or use a model that was trained with such messages",
        )

    def _fold(self, roles: tuple[str, ...], folded: frozenset[int], add_generation_prompt: bool) -> Arrangement | None:
        """Return the arrangement with some system messages folded, or None if the template does not take it."""
        if "user" not in roles[max(folded) :]:
            raise UsageError(
                "the model's chat template has no place for a system message, and no user message follows it",
                hint="put its text into the user's message",
            )
        arrangement = Arrangement(roles, folded, "")
        dropped, written = self._dropped(arrangement.apply([""] * len(roles))[0], add_generation_prompt)
        return Arrangement(roles, folded, written) if dropped is not None and not dropped else None

    def _takes_parts_only(self) -> bool:
        """Return whether the template drops contents that are strings, and takes lists of parts."""
        if not self._dropped(("user",), True, in_parts=False)[0]:
            return False
        try:
            dropped, _ = self._dropped(("user",), True, in_parts=True)
        except ModelError:
            dropped = None
        if dropped is None or dropped:
            raise ModelError(
                "the model's chat template is broken: it drops what the user says",
                hint="use a model that was tuned for chat",
            )
        return True

    def _dropped(
        self, roles: Sequence[str], add_generation_prompt: bool, *, in_parts: bool | None = None
    ) -> tuple[frozenset[int] | None, str]:
        """Return the places of the messages that the template drops, None if it refuses them, and the rendering."""
        in_parts = bool(self._takes_parts) if in_parts is None else in_parts

        def render(words: Sequence[str]) -> str:
            return self._render(roles, words, add_generation_prompt, in_parts=in_parts)

        words = [f"qj{place}jq" for place in range(len(roles))]
        try:
            written = render(words)
            found = written.casefold()
            missing = [place for place, word in enumerate(words) if word not in found]
            # The template may have changed the word beyond recognition: another one makes a difference then.
            others = {place: render([*words[:place], "xkx", *words[place + 1 :]]) for place in missing}
        except UsageError:
            return None, ""
        return frozenset(place for place, other in others.items() if other == written), written
