"""Conditions on quality data as frozen values: what an expression becomes, and what a task evaluates."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtsx.errors import CubeError

__all__ = ["COMPARISONS", "AllOf", "AnyOf", "Compared", "Condition", "Holds", "Not", "Number", "OneOf", "Term", "Value"]

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Value(Protocol):
    """A number at each pixel."""

    def of(self, data: NDArray[Any]) -> Any:
        """Array (y, x), or one number for all pixels, of quality data (band, y, x)."""


class Condition(Protocol):
    """Something that is true or false at each pixel."""

    def of(self, data: NDArray[Any]) -> NDArray[np.bool_]:
        """(y, x) bool of quality data (band, y, x)."""


@dataclass(frozen=True)
class Number:
    """The same number everywhere."""

    number: int | float
    """Any."""

    def of(self, data: NDArray[Any]) -> int | float:
        """The number."""
        return self.number


@dataclass(frozen=True)
class Term:
    """What a name of an expression stands for: a band, some of its bits, or one of its classes.

    Examples
    --------
    >>> qa = np.array([[[0b1000, 0b0110]]], np.uint16)
    >>> Term(0, first_bit=1, bits=2).of(qa).tolist(), Term(0, equals=8).of(qa).tolist()
    ([[0, 3]], [[True, False]])
    """

    band: int
    """Index of the band, from 0."""
    first_bit: int = 0
    """Lowest bit that counts."""
    bits: int | None = None
    """Number of bits that count; None for the whole number."""
    equals: int | None = None
    """Class that it is asked for; None for the number itself."""

    def of(self, data: NDArray[Any]) -> NDArray[Any]:
        """Number at each pixel, or whether it is the class."""
        band: NDArray[Any] = data[self.band]
        if self.bits is not None:
            if not np.issubdtype(band.dtype, np.integer):
                raise CubeError(
                    f"Bits are read from whole numbers; this quality data is {band.dtype}. Compare it instead."
                )
            if self.first_bit + self.bits > 8 * band.dtype.itemsize:
                raise CubeError(
                    f"Quality data of {band.dtype} has bits 0 to {8 * band.dtype.itemsize - 1}; a rule reads bit "
                    f"{self.first_bit + self.bits - 1}. Check that the rule is made for this data."
                )
            # Through the next unsigned type, because NumPy's shift keeps the sign.
            band = (band.view(f"u{band.dtype.itemsize}") >> self.first_bit) & ((1 << self.bits) - 1)
        return band if self.equals is None else band == self.equals


@dataclass(frozen=True)
class Holds:
    """True where a number is not 0."""

    value: Value
    """Which."""

    def of(self, data: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether it is not 0."""
        held: NDArray[np.bool_] = np.asarray(self.value.of(data)) != 0
        return held


@dataclass(frozen=True)
class Compared:
    """True where two numbers stand in a relation."""

    left: Value
    """One."""
    sign: str
    """Key of `COMPARISONS`."""
    right: Value
    """The other."""

    def of(self, data: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether the relation holds."""
        return np.asarray(COMPARISONS[self.sign](self.left.of(data), self.right.of(data)), bool)


@dataclass(frozen=True)
class OneOf:
    """True where a number is one of several."""

    value: Value
    """Which."""
    numbers: tuple[int | float, ...]
    """Those it may be."""

    def of(self, data: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether it is one of them."""
        value = np.asarray(self.value.of(data))
        found = np.zeros(value.shape, bool)
        for number in self.numbers:  # instead of np.isin, which casts a number beyond the dtype to one within
            found |= value == number
        return found


@dataclass(frozen=True)
class Not:
    """True where a condition is false."""

    condition: Condition
    """Which."""

    def of(self, data: NDArray[Any]) -> NDArray[np.bool_]:
        """The opposite."""
        return ~self.condition.of(data)


@dataclass(frozen=True)
class AllOf:
    """True where all conditions are."""

    conditions: tuple[Condition, ...]
    """One or more."""

    def of(self, data: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether all hold."""
        return reduce(np.logical_and, (condition.of(data) for condition in self.conditions))


@dataclass(frozen=True)
class AnyOf:
    """True where at least one condition is."""

    conditions: tuple[Condition, ...]
    """One or more."""

    def of(self, data: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether one holds."""
        return reduce(np.logical_or, (condition.of(data) for condition in self.conditions))
