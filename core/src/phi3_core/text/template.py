"""Chat templates, which render messages in the format that the model was trained on.

A template comes with the model and is not trusted: it runs in Jinja's immutable sandbox, with the extensions of Hugging
Face's transformers. Jinja is imported when the first template is rendered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from attrs import define, field

from phi3_core.errors import ModelError, UsageError
from phi3_core.textfiles import lone_surrogate

from .disarmed import concat

if TYPE_CHECKING:
    import jinja2

PHI3_TEMPLATE = """\
{%- for message in messages -%}
    {%- if message['role'] not in ('system', 'user', 'assistant') -%}
        {{- raise_exception('it has no place for the role ' + message['role']) -}}
    {%- endif -%}
    {{- '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|assistant|>\\n' -}}
{%- endif -%}
"""
"""The template for Phi-3 models without one."""

_HINT = "the model's files are at fault: fetch the model again, or report it where it was published"


@define
class ChatTemplate:
    """A chat template."""

    source: str
    variables: Mapping[str, Any] = field(factory=dict)
    """Variables besides the messages, such as ``bos_token``."""
    _compiled: jinja2.Template | None = field(default=None, init=False, repr=False, eq=False)

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> str:
        """Return the text of a conversation for the tokenizer.

        Args:
            messages: mappings with ``role`` and ``content``, which may be a
                :class:`~phi3_core.text.disarmed.DisarmedText`.
            add_generation_prompt: whether to append the beginning of the assistant's answer.

        Raises:
            UsageError: the template rejects the messages.
            ModelError: the template is broken.
        """
        refusal, environment = _dialect()
        try:
            if self._compiled is None:
                self._compiled = environment.from_string(self.source)
            text = self._compiled.render(
                {
                    **self.variables,
                    "messages": [dict(message) for message in messages],
                    "tools": None,
                    "documents": None,
                    "add_generation_prompt": add_generation_prompt,
                }
            )
            text = str.__add__("", text)  # without the methods of disarmed text
        except refusal as error:
            raise UsageError(
                f"the model's chat template refuses these messages: {_sentence(error)}",
                hint="change the order or the roles of the messages",
            ) from error
        except Exception as error:
            # Expressions of a template can raise any exception; the sandbox does not catch them.
            raise ModelError(
                f"the model's chat template is broken: {type(error).__name__}: {_sentence(error)}", hint=_HINT
            ) from error
        if (half := lone_surrogate(text)) is not None:
            raise ModelError(f"the model's chat template is broken: it writes {half}, half of a character", hint=_HINT)
        return text


_made: tuple[type[Exception], Any] | None = None


def _dialect() -> tuple[type[Exception], Any]:
    """Return the exception class of ``raise_exception`` and the Jinja environment, both created once."""
    global _made  # noqa: PLW0603 - takes 80 ms, and most commands do not need it
    if _made is None:
        _made = _make_dialect()
    return _made


def _make_dialect() -> tuple[type[Exception], Any]:
    # start-up: a tenth of a second, while the worker loads the weights
    import jinja2
    from jinja2 import ext, nodes, parser, sandbox

    class Refusal(jinja2.TemplateError):
        pass

    class Generation(ext.Extension):
        """``{% generation %}`` marks the text to train on; here its body is rendered unchanged."""

        tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

        def parse(self, parser: parser.Parser) -> list[nodes.Node]:
            """Return the body of the block."""
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise Refusal(str(message))

    def strftime_now(layout: str) -> str:
        return datetime.now().astimezone().strftime(layout)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        # Unlike Jinja's own filter, this one does not escape for HTML.
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    class Environment(sandbox.ImmutableSandboxedEnvironment):
        concat = staticmethod(concat)  # of macros, too

    environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return Refusal, environment


def _sentence(error: Exception) -> str:
    """Return an error's message, which may come from an untrusted template, as one short line."""
    line = " ".join(str(error).split()).rstrip(".")
    return line if len(line) <= 300 else line[:299] + "…"
