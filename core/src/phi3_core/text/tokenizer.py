"""The tokenizer of a model, read from its folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import tokenizers

from phi3_core.errors import ModelError, UsageError
from phi3_core.textfiles import lone_surrogate

from . import toolmarks
from .decoder import Pieces, decode
from .guard import Guard
from .places import Places
from .settings import TextSettings, read_tokenizer
from .template import ChatTemplate

ROLES = ("system", "user", "assistant", "tool")


class Tokenizer:
    """Encodes conversations and text to token ids, and decodes ids to text.

    Control tokens come from the chat template only: the string of one in a message is encoded as ordinary text.

    Args:
        plain: the tokenizer of the tokenizers library.
        template: the chat template, or what is missing: ``no chat template``.
        stop_ids: ids that end an answer.
        named: strings of tokens that the model's settings name as special.
        rows: number of rows of the model's embedding; None if unknown.
        subject: what the tokenizer belongs to, for error messages.
    """

    def __init__(
        self,
        plain: tokenizers.Tokenizer,
        template: ChatTemplate | str,
        stop_ids: Iterable[int],
        *,
        named: Collection[str] = (),
        rows: int | None = None,
        subject: str = "the model",
    ) -> None:
        # A tokenizer saved after training may have truncation and padding enabled.
        plain.no_truncation()
        plain.no_padding()
        self.stop_ids: tuple[int, ...] = tuple(sorted(set(stop_ids)))
        self.vocabulary_size: int = plain.get_vocab_size(with_added_tokens=True)
        added = {token.content for token in plain.get_added_tokens_decoder().values()}
        self.takes_tools: bool = isinstance(template, ChatTemplate) and toolmarks.has_tokens(added, template.source)
        """Whether the model was trained to read ``tools`` and ``tool_calls`` of messages, and messages of tools."""
        self.pieces = Pieces(plain, shown=toolmarks.CALLS if self.takes_tools else ())
        self._plain = plain
        self._template = template
        self._places = Places(template) if isinstance(template, ChatTemplate) else None
        self._guard = Guard(plain, self.stop_ids, named)
        self._rows = rows
        self._subject = subject

    @classmethod
    def from_folder(cls, path: Path, *, subject: str | None = None) -> Tokenizer:
        """Read a tokenizer from ``tokenizer.json`` and, if they exist, the configuration files and chat template.

        Args:
            path: the folder.
            subject: what the folder belongs to, for error messages; the folder itself by default.

        Raises:
            ModelError: ``tokenizer.json`` is missing, or a file is damaged.
        """
        subject = subject or str(path)
        plain = read_tokenizer(path / "tokenizer.json", subject)
        settings = TextSettings.read(path)
        settings.add_tokens(plain)
        added = {token.content: number for number, token in plain.get_added_tokens_decoder().items()}
        special, further = settings.special_tokens(), settings.additional_special_tokens()
        source, missing = settings.template(added)
        variables = {"additional_special_tokens": further, **special}
        return cls(
            plain,
            missing if source is None else ChatTemplate(source, variables),
            settings.stop_ids(plain, added),
            named={*special.values(), *further} - {special.get("unk_token")},
            rows=settings.embedding_rows,
            subject=subject,
        )

    @property
    def id_count(self) -> int | None:
        """The number of token ids, those without a name included: of rows of the model's embedding; None if unknown."""
        return self._rows

    @property
    def definition(self) -> str:
        """The tokenizer as the JSON of the tokenizers library, with all added tokens."""
        text: str = self._plain.to_str()
        return text

    def name(self, token: int) -> str:
        """Return the name of an id in the vocabulary; empty if it has none."""
        return self._plain.id_to_token(token) or ""

    def check_chat(self) -> None:
        """Encode a short conversation; this also compiles the chat template. Raises as :meth:`encode_chat`."""
        self.encode_chat([{"role": "user", "content": ""}])

    def encode_chat(
        self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True, most: int | None = None
    ) -> list[int]:
        """Return the ids of a conversation.

        A log message says so if the chat template has no place for a system message: its text is put before the next
        user message.

        Args:
            messages: mappings with ``role`` and ``content``, oldest first. If :attr:`takes_tools`, a system message
                may have ``tools`` and an assistant's ``tool_calls``, both JSON as text.
            add_generation_prompt: whether to append the beginning of the assistant's answer.
            most: number of tokens that are of use; None for any number.

        Raises:
            UsageError: a message is invalid, or the chat template rejects the conversation or drops a message.
            ModelError: there is no chat template, or it is broken, or the model's weights lack one of the tokens.
            TooManyTokensError: there are far more tokens than ``most``. They were not all counted.
        """
        roles, contents = _check(messages)
        template, places = self._template, self._places
        if places is None or isinstance(template, str):
            raise ModelError(
                f"{self._subject} has {template}",
                hint="use a model that was tuned for chat, or put its template into chat_template.jinja",
            )
        marked = toolmarks.marked_texts(messages, has_form=self.takes_tools)
        for place, text, _ in marked:
            _check_unicode(text, f"message {place + 1}")
        roles = [toolmarks.template_role(role, has_form=self.takes_tools) for role in roles]
        arrangement = places.arrange(roles, add_generation_prompt=add_generation_prompt)
        if folded := [place for place, _, _ in marked if place in arrangement.folded]:
            raise UsageError(
                f"the model's chat template has no place for message {folded[0] + 1}, which has tools",
                hint="put the tools into the first system message",
            )
        roles, contents = arrangement.apply(contents)
        count, position = len(contents), arrangement.position

        def render(texts: Sequence[str]) -> str:
            whole = list(texts[:count])
            for (place, _, (start, end)), text in zip(marked, texts[count:], strict=True):
                whole[position(place)] += start + text + end
            return places.render(roles, whole, add_generation_prompt=add_generation_prompt)

        # Where core may write these tokens, no text becomes one of them, in conversations without tools either.
        written = arrangement.written + "".join(toolmarks.TOKENS if self.takes_tools else ())
        texts = [*contents, *(text for _, text, _ in marked)]
        return self._known(self._guard.encode(texts, render, also_in=template.source, written=written, most=most))

    def encode(self, text: str, *, most: int | None = None) -> list[int]:
        """Return the ids of ``text``, without control tokens.

        Args:
            text: any text.
            most: number of tokens that are of use; None for any number.

        Raises:
            UsageError: the text is not valid Unicode.
            ModelError: the model's weights lack one of the tokens.
            TooManyTokensError: there are far more tokens than ``most``. They were not all counted.
        """
        _check_unicode(text, "the text")
        return self._known(self._guard.encode([text], "".join, most=most))

    def _known(self, ids: list[int]) -> list[int]:
        """Return ``ids``, all of which the embedding has a row for.

        Raises:
            ModelError: it lacks one.
        """
        if self._rows is not None and ids and (largest := max(ids)) >= self._rows:
            raise ModelError(
                f"the tokenizer of {self._subject} has the token {self._plain.id_to_token(largest)!r} with the id "
                f"{largest}, and the model's vocabulary has {self._rows} tokens",
                hint="the embedding was not resized for added tokens: use a model that was saved after resizing it",
            )
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ``ids``, without special tokens and an incomplete character at the end."""
        return decode(self, ids)


def _check(messages: Sequence[Mapping[str, str]]) -> tuple[list[str], list[str]]:
    """Return the roles and the contents of ``messages``."""
    if isinstance(messages, (str, Mapping)) or not messages:
        raise UsageError("there are no messages", hint="give a list with at least one message")
    for place, message in enumerate(messages, 1):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in ROLES:
            raise UsageError(f"message {place} has the role {role!r}", hint=f"roles are {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str):
            raise UsageError(f"the content of message {place} is not a string", hint="only text is understood")
        _check_unicode(message["content"], f"message {place}")
    return [message["role"] for message in messages], [message["content"] for message in messages]


def _check_unicode(text: str, name: str) -> None:
    if (half := lone_surrogate(text)) is not None:
        raise UsageError(f"{name} is not valid Unicode: it has {half}", hint="it was probably not read as UTF-8")
