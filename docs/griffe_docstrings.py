"""An extension of griffe, which reads the docstrings for the site: it turns the Sphinx markup in them into Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?([\w.]+)`")
_LITERAL_BLOCK = re.compile(r"^::$", re.MULTILINE)
_RULE = r"^(=+) +=+$\n"
_TABLE = re.compile(rf"{_RULE}(?P<heading>.+\n){_RULE}(?P<rows>(?:.*\n)+?)^=+ +=+$", re.MULTILINE)


def _markdown_table(found: re.Match[str]) -> str:
    """A table with two columns, where a row without a first cell continues the one before."""
    width = len(found[1])
    rows: list[list[str]] = []
    for line in (found["heading"].rstrip("\n"), *found["rows"].splitlines()):
        first, second = line[:width].strip(), line[width:].strip()
        if first:
            rows.append([first, second])
        else:
            rows[-1][1] += f" {second}"
    rows.insert(1, ["---", "---"])
    return "\n".join(f"| {first} | {second} |" for first, second in rows)


class SphinxMarkup(griffe.Extension):
    """``:func:`load``` becomes `load`, and an attribute made by ``attrs.field`` shows its default only."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of every object that was read."""
        if obj.docstring is not None:
            text = _TABLE.sub(_markdown_table, obj.docstring.value)
            obj.docstring.value = _LITERAL_BLOCK.sub("", _ROLE.sub(r"`\1`", text))

    def on_module_members(self, *, mod: griffe.Module, **_: Any) -> None:
        """Know what a front exports whose ``__all__`` is computed: what it imports from the package beside it."""
        value = mod["__all__"].value if "__all__" in mod.members else None
        if value is not None and not isinstance(value, griffe.ExprList):
            package = mod.path.partition(".")[0]
            aliases = (member for member in mod.members.values() if isinstance(member, griffe.Alias))
            mod.exports = [alias.name for alias in aliases if alias.target_path.startswith(f"{package}.")]

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Show what a field is when it is left out, and nothing of its validators."""
        value = attr.value
        if isinstance(value, griffe.ExprCall) and str(value.function) in {"field", "attrs.field"}:
            given = {each.name: each.value for each in value.arguments if isinstance(each, griffe.ExprKeyword)}
            attr.value = given.get("default")
