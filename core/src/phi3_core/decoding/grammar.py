"""JSON schemas as grammars of token ids, with LLGuidance: which tokens an answer may go on with.

LLGuidance (https://github.com/guidance-ai/llguidance) parses what was said so far, and walks the tokens in a tree to
find those that may follow. It needs the extra ``phi3-core[guidance]``. Tokens' texts are made of the tokenizer once.
"""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3_core.errors import UsageError

if TYPE_CHECKING:
    import llguidance
    import numpy as np
    import numpy.typing as npt

_WHITE_SPACE = r" |\n( {0,32}|\t{0,8})"
"""What may stand between the parts of a JSON text: a space, or a new line with its indentation. Without a bound, small
models write white space until their limit."""
_LEXER_STATES = 20_000
"""States of the automata of a schema's texts, of one or two kilobytes each."""
_LONGEST_REASON = 200


def is_available() -> bool:
    """Return whether LLGuidance is installed."""
    return importlib.util.find_spec("llguidance") is not None


class Vocabulary:
    """The tokens of a model, as LLGuidance needs them: made when they are first needed, and kept.

    Args:
        folder: the folder of the model's tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        self.drops_space = False
        """Whether a space at the beginning of an answer is not shown, as of SentencePiece's tokenizers. Known with
        :meth:`tokens`."""
        self._folder = folder
        self._making = threading.Lock()
        self._made: llguidance.LLTokenizer | None = None

    def tokens(self) -> llguidance.LLTokenizer:
        """Return the tokens.

        Raises:
            ModelError: a file of the tokenizer is missing or damaged.
            UsageError: LLGuidance is not installed, or does not know such a tokenizer.
        """
        with self._making:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> llguidance.LLTokenizer:
        from phi3_core.text.tokenizer import Tokenizer  # start-up: most answers follow no schema

        try:
            import llguidance  # start-up: as above
        except ImportError as error:
            raise UsageError("LLGuidance is not installed", hint='pip install "phi3-core[guidance]"') from error
        tokenizer = Tokenizer.from_folder(self._folder)
        count = max(tokenizer.id_count or 0, tokenizer.vocabulary_size)
        first = tokenizer.encode("[")[0]
        self.drops_space = tokenizer.pieces.at_start(first) != tokenizer.pieces.inside(first)
        try:
            return llguidance.LLTokenizer(
                tokenizer.definition,
                n_vocab=count,
                eos_token=list(tokenizer.stop_ids),
                slices=llguidance.LLTokenizer.json_slices(),
            )
        except ValueError as error:
            raise UsageError(f"schemas cannot be followed with this tokenizer: {_line(error)}") from error


class SchemaGrammar:
    """A JSON schema that answers follow. Threads may share it.

    Args:
        vocabulary: the model's tokens.
        schema: the schema, as text.
    """

    def __init__(self, vocabulary: Vocabulary, schema: str) -> None:
        self._vocabulary = vocabulary
        self._schema = schema
        self._compiling = threading.Lock()
        self._compiled: llguidance.LLMatcher | None = None

    def compile(self) -> None:
        """Compile the schema, unless it has been. That takes some time, during which other threads run.

        Raises:
            UsageError: it is no JSON schema, or has what LLGuidance does not support.
        """
        with self._compiling:
            if self._compiled is None:
                tokens = self._vocabulary.tokens()
                self._compiled = _compile(self._schema, tokens, after_space=self._vocabulary.drops_space)

    def begin(self, written: Sequence[int] = ()) -> Grammar:
        """Return the grammar of one answer. Raises as :meth:`compile`.

        Args:
            written: the tokens that the answer begins with already.
        """
        self.compile()
        assert self._compiled is not None
        grammar = Grammar(self._compiled.deep_copy(), self._vocabulary.tokens().vocab_size)
        for token in written:
            grammar.advance(token)
        return grammar


class Grammar:
    """What one answer has said of a grammar, and what may follow."""

    def __init__(self, matcher: llguidance.LLMatcher, count: int) -> None:
        self._matcher = matcher
        self._count = count

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return self._matcher.is_stopped()

    def allows(self, tokens: Sequence[int]) -> int:
        """Return how many of the tokens may follow, one after the other."""
        return self._matcher.validate_tokens(list(tokens))

    def mask(self, size: int, stop_ids: Collection[int]) -> npt.NDArray[np.bool_]:
        """Return which tokens may follow: ``[size]``. Stop ids may where the text can end.

        Raises:
            UsageError: the schema is too complex to go on with.
        """
        import numpy as np  # start-up: workers import this module before they know that they need it

        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        mask = np.zeros(size, np.bool_)
        known = np.unpackbits(bits, bitorder="little")[: min(size, self._count)]
        mask[: len(known)] = known
        # LLGuidance knows the tokenizer's stop ids; the request's are what counts.
        mask[[token for token in stop_ids if token < size]] = self._matcher.is_accepting()
        return mask

    def can_end(self) -> bool:
        """Return whether the text is whole."""
        return self._matcher.is_accepting()

    def advance(self, token: int) -> None:
        """Go on with a token.

        Raises:
            UsageError: it may not follow, or the schema is too complex to go on with.
        """
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _too_complex(self._matcher.get_error())


def _compile(schema: str, tokens: llguidance.LLTokenizer, *, after_space: bool) -> llguidance.LLMatcher:
    """Compile a schema.

    Args:
        schema: the schema, as text.
        tokens: the model's tokens.
        after_space: whether a space may stand before the text.
    """
    from llguidance import LLMatcher, LLParserLimits  # start-up: most answers follow no schema

    text = json.dumps({**_read(schema), "x-guidance": {"whitespace_pattern": _WHITE_SPACE, "lenient": False}})
    start = '" "? json' if after_space else "json"
    rules = LLMatcher.grammar_from_lark(f"start: {start}\njson: %json {text}")
    limits = LLParserLimits(max_lexer_states=_LEXER_STATES, verbose_errors=False)
    matcher = LLMatcher(tokens, rules, log_level=0, limits=limits)
    if matcher.is_error():
        raise UsageError(f"the JSON schema cannot be followed: {_line(matcher.get_error())}")
    return matcher


def _read(schema: str) -> dict[str, Any]:
    try:
        given = json.loads(schema)
        json.dumps(given, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise _no_schema(error) from error
    if given is True:
        return {}
    if not isinstance(given, dict):
        raise _no_schema("it is no JSON object")
    if "x-guidance" in given:  # options of LLGuidance
        raise UsageError("the JSON schema cannot be followed: it has x-guidance", hint="leave it out")
    return given


def _no_schema(why: object) -> UsageError:
    return UsageError(f"the JSON schema is not one: {_line(why)}", hint="see https://json-schema.org")


def _too_complex(said: str) -> UsageError:
    return UsageError(f"the JSON schema cannot be followed any further: {_line(said)}", hint="make it simpler")


def _line(said: object) -> str:
    """Return an error's text as one line."""
    return " ".join(str(said).split())[:_LONGEST_REASON]
