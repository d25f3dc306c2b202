"""YAML of unknown origin: whatever is wrong with a text is one kind of error, and no text is larger than it looks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

__all__ = ["LimitedLoader", "error_place"]

_DEEPEST = 100
"""Collections within each other, at most; Python's own stack ends at about a thousand calls."""
_MOST_VALUES = 1_000_000
"""Values of a document with its aliases written out, at most. Nine anchors in 300 bytes can stand for billions."""
_DEFECTS = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError, RecursionError)
"""What PyYAML raises beside its own errors, of texts such as ``2024-13-45``, ``!!int abc`` and ``!!bool maybe``."""


class LimitedLoader(yaml.SafeLoader):
    """PyYAML's safe loader, with limits; all that it raises is a `yaml.YAMLError` that knows its place."""

    def __init__(self, stream: str | bytes) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}

    def get_single_node(self) -> yaml.Node | None:
        """The document, composed within the limits."""
        with self._placed(None):
            node: yaml.Node | None = super().get_single_node()
        return node

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one node, and count what it stands for."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self._depth == _DEEPEST:
            raise ComposerError(None, None, f"lists and mappings lie more than {_DEEPEST} deep in each other", mark)
        is_alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None or (is_alias and id(node) in self._sizes):
            return node
        if is_alias:
            raise ComposerError(None, None, "a value refers to itself; write it out", mark)
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        inner = [one for pair in parts for one in pair] if isinstance(node, yaml.MappingNode) else parts
        self._sizes[id(node)] = size = 1 + sum(self._sizes[id(one)] for one in inner)
        if size > _MOST_VALUES:
            raise ComposerError(None, None, f"with its aliases this is more than {_MOST_VALUES:,} values", mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node."""
        with self._placed(node):
            value = super().construct_object(node, deep=deep)
            if isinstance(value, int) and value.bit_length() > 64:
                raise ValueError
            return value

    def construct_document(self, node: yaml.Node) -> Any:
        """The values of a document."""
        with self._placed(node):
            return super().construct_document(node)

    @contextmanager
    def _placed(self, node: yaml.Node | None) -> Iterator[None]:
        """Turn what PyYAML did not foresee into its own error, with the place."""
        try:
            yield
        except _DEFECTS as error:
            if node is None:
                raise ComposerError(None, None, f"cannot be read: {error}", self.get_mark()) from error
            told = f"{str(node.value)[:60]!r} is no {node.tag.rpartition(':')[2]}; put text in quotes"
            raise ConstructorError(None, None, told, node.start_mark) from error


def error_place(error: yaml.YAMLError, text: str) -> tuple[int, int] | None:
    """Line and column, from 1, of what is wrong in a text; None where PyYAML does not say."""
    if isinstance(error, ReaderError):
        before = text[: error.position]
        return before.count("\n") + 1, len(before) - before.rfind("\n")
    mark = getattr(error, "problem_mark", None)
    return None if mark is None else (mark.line + 1, mark.column + 1)
