"""Mask expressions as people write them: parsed strictly, never evaluated as Python."""

import ast
from difflib import get_close_matches

from rtsx.cube.conditions import AllOf, AnyOf, Compared, Condition, Holds, Not, Number, OneOf, Term, Value
from rtsx.cube.vocabulary import Vocabulary
from rtsx.errors import CubeError

__all__ = ["parse_condition"]

_LONGEST = 1000
"""Characters; a rule of that length is a mistake, and a limit keeps the parser from recursing without end."""

_SIGNS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}

_GRAMMAR = (
    "An expression is made of names, and, or, not, parentheses, comparisons with numbers, 'in [1, 2]' and bit(3) or "
    "bit(name, 3)."
)


def parse_condition(text: str, vocabulary: Vocabulary) -> Condition:
    """The condition that an expression states.

    Parameters
    ----------
    text
        Names of the vocabulary, ``and``, ``or``, ``not``, parentheses, comparisons of names and numbers, ``in`` and
        ``not in`` with a list of numbers, ``bit(3)`` of data with one band, ``bit(name, 3)`` of any. A name or bit that
        stands alone is true where it is not 0.
    vocabulary
        Names that it may use.

    Raises
    ------
    CubeError
        Anything else is in it. The message names the place, and the names there are.

    Examples
    --------
    >>> import numpy as np
    >>> from rtsx.cube.vocabulary import vocabulary_of
    >>> condition = parse_condition("cloud_shadow or scl in [8, 9]", vocabulary_of("scl"))
    >>> condition.of(np.array([[[3, 4, 9]]], np.uint8))
    array([[ True, False,  True]])
    """
    # YAML's block strings come with line ends, which mean nothing here.
    line = " ".join(text.split("\n")).strip()
    if not line or len(line) > _LONGEST:
        raise CubeError(f"A mask expression has 1 to {_LONGEST} characters; got {len(line)}. {_GRAMMAR}")
    try:
        tree = ast.parse(line, mode="eval")
    except SyntaxError as error:
        column = error.offset or len(line) + 1  # 0 where the line ends too early
        raise CubeError(f"Mask expression {line!r}, column {column}: {error.msg}. {_GRAMMAR}") from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise CubeError(f"Mask expression {line!r} cannot be parsed: {error}. {_GRAMMAR}") from error
    return _Parser(line, vocabulary).condition(tree.body)


class _Parser:
    """Walks one expression; holds what its errors need."""

    def __init__(self, line: str, vocabulary: Vocabulary) -> None:
        self.line = line
        self.vocabulary = vocabulary

    def condition(self, node: ast.expr) -> Condition:
        """What is true or false."""
        match node:
            case ast.BoolOp(op=ast.And(), values=parts):
                return AllOf(tuple(self.condition(part) for part in parts))
            case ast.BoolOp(op=ast.Or(), values=parts):
                return AnyOf(tuple(self.condition(part) for part in parts))
            case ast.UnaryOp(op=ast.Not(), operand=part):
                return Not(self.condition(part))
            case ast.Compare():
                return self.comparison(node)
            case ast.Name() | ast.Call():
                return Holds(self.term(node))
        raise self.error(node, f"{self.source(node)} is no condition")

    def comparison(self, node: ast.Compare) -> Condition:
        """One relation, or a chain such as ``20 < confidence <= 80``."""
        sides = [node.left, *node.comparators]
        relations: list[Condition] = []
        for left, sign, right in zip(sides, node.ops, node.comparators, strict=False):
            if type(sign) in _SIGNS:
                relations.append(Compared(self.value(left), _SIGNS[type(sign)], self.value(right)))
            elif isinstance(sign, ast.In | ast.NotIn):
                found = OneOf(self.value(left), self.numbers(right))
                relations.append(found if isinstance(sign, ast.In) else Not(found))
            else:
                raise self.error(node, "'is' does not compare numbers, write ==")
        if not any(isinstance(side, ast.Name | ast.Call) for side in sides):
            raise self.error(node, f"{self.source(node)} compares no data")
        return relations[0] if len(relations) == 1 else AllOf(tuple(relations))

    def value(self, node: ast.expr) -> Value:
        """A side of a comparison."""
        return self.term(node) if isinstance(node, ast.Name | ast.Call) else Number(self.number(node))

    def term(self, node: ast.Name | ast.Call) -> Term:
        """A name or a bit."""
        if isinstance(node, ast.Name):
            if node.id not in self.vocabulary.terms:
                near = get_close_matches(node.id, self.vocabulary.terms, n=1)
                hint = f", did you mean {near[0]!r}?" if near else ""
                raise self.error(node, f"unknown name {node.id!r}{hint}")
            return self.vocabulary.terms[node.id]
        match node:
            case ast.Call(func=ast.Name(id="bit"), args=[place], keywords=[]):
                if self.vocabulary.bands > 1:
                    raise self.error(node, f"this data has {self.vocabulary.bands} bands, so write bit(name, number)")
                return Term(0, first_bit=self.bit(place), bits=1)
            case ast.Call(func=ast.Name(id="bit"), args=[ast.Name() as name, place], keywords=[]):
                band = self.term(name)
                if band != Term(band.band):
                    raise self.error(name, f"{name.id!r} is no band")
                return Term(band.band, first_bit=self.bit(place), bits=1)
        raise self.error(node, f"{self.source(node)} is none of bit(number) and bit(name, number)")

    def bit(self, node: ast.expr) -> int:
        """Number of a bit."""
        number = self.number(node)
        if not isinstance(number, int) or not 0 <= number < 64:
            raise self.error(node, f"bits are numbered from 0 to 63, got {number}")
        return number

    def numbers(self, node: ast.expr) -> tuple[int | float, ...]:
        """Right side of ``in``."""
        if not isinstance(node, ast.List | ast.Tuple | ast.Set):
            raise self.error(node, f"'in' is followed by a list of numbers, got {self.source(node)}")
        return tuple(self.number(part) for part in node.elts)

    def number(self, node: ast.expr) -> int | float:
        """A number, with or without a sign."""
        match node:
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as inner):
                return -self.number(inner)
            case ast.Constant(value=bool()):
                pass  # Python's True is a 1, but an expression that says it means something else
            case ast.Constant(value=int() | float() as number):
                return number
        raise self.error(node, f"{self.source(node)} is no number")

    def source(self, node: ast.expr) -> str:
        """The part of the line that a node comes from."""
        return repr(ast.get_source_segment(self.line, node))

    def error(self, node: ast.expr, what: str) -> CubeError:
        """An error that shows the place and the names."""
        column = len(self.line.encode()[: node.col_offset].decode()) + 1  # ast counts bytes
        return CubeError(
            f"Mask expression {self.line!r}, column {column}: {what}. Known names of {self.vocabulary.name} are "
            f"{list(self.vocabulary.terms)}. {_GRAMMAR}"
        )
