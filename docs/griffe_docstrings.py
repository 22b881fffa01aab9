"""An extension of griffe, which reads the docstrings for the site: it turns the Sphinx markup in them into Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?([\w.]+)`")
_LITERAL_BLOCK = re.compile(r"^::$", re.MULTILINE)


class SphinxMarkup(griffe.Extension):
    """``:func:`load``` becomes `load`, and an attribute made by ``attrs.field`` shows its default only."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of every object that was read."""
        if obj.docstring is not None:
            obj.docstring.value = _LITERAL_BLOCK.sub("", _ROLE.sub(r"`\1`", obj.docstring.value))

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Show what a field is when it is left out, and nothing of its validators."""
        value = attr.value
        if isinstance(value, griffe.ExprCall) and str(value.function) in {"field", "attrs.field"}:
            given = {each.name: each.value for each in value.arguments if isinstance(each, griffe.ExprKeyword)}
            attr.value = given.get("default")
