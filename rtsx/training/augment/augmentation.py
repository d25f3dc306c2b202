"""The protocol of an augmentation: checked parameters, random numbers by key, and a change of tiles."""

import math
from collections.abc import Sequence
from typing import Protocol

import torch

from rtsx.errors import TrainingError
from rtsx.training.dataset import TileBatch
from rtsx.training.sampler import seed_of


class KeyedRandom:
    """Numbers that depend on a key alone; drawn on the CPU, whatever device the batch is on.

    Examples
    --------
    >>> first, second = (KeyedRandom(3, 1).uniform((2,), low=0, high=1) for _ in range(2))
    >>> torch.equal(first, second)
    True
    """

    def __init__(self, *key: int | str) -> None:
        self._generator = torch.Generator().manual_seed(seed_of(*key))

    def chosen(self, count: int, *, probability: float) -> torch.Tensor:
        """Which of so many things happen, bool (count,)."""
        return torch.rand(count, generator=self._generator) < probability

    def uniform(self, shape: tuple[int, ...], *, low: float, high: float) -> torch.Tensor:
        """Float32 numbers from `low` to `high`, all equally likely."""
        return low + (high - low) * torch.rand(shape, generator=self._generator)

    def integers(self, count: int, *, low: int, high: int) -> torch.Tensor:
        """Whole numbers from `low` to `high`, both included, int64 (count,)."""
        return torch.randint(low, high + 1, (count,), generator=self._generator)

    def order(self, count: int, *, of: int) -> torch.Tensor:
        """For each of `count` things a permutation of the numbers below `of`, int64 (count, of)."""
        return torch.rand((count, of), generator=self._generator).argsort(1)


class Augmentation(Protocol):
    """One augmentation with its parameters: a frozen dataclass whose fields are the parameters.

    Construction raises `TrainingError` for values that are not possible. Threads: any; it holds nothing but its parameters.
    """

    def check_layers(self, layers: Sequence[str]) -> None:
        """Raise `TrainingError` where the stored layers (their names) do not allow it."""
        ...

    def apply(self, batch: TileBatch, *, chance: KeyedRandom) -> TileBatch:
        """A batch in which every tile was changed; layers, packings and shape stay.

        What stands under an invalid pixel changes nothing that can be seen, and `IGNORED` is the truth of whatever was
        not in the picture before.
        """
        ...


def check_number(name: str, value: object, *, low: float, high: float) -> None:
    """Refuse what is no number from `low` to `high`.

    Raises
    ------
    TrainingError
        It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TrainingError(f"{name} has to be a number; got {value!r}.")
    if not low <= value <= high:
        raise TrainingError(f"{name} has to be from {low:g} to {high:g}; got {value}.")


def check_pair(name: str, value: object, *, low: float, high: float) -> tuple[float, float]:
    """Two numbers from `low` to `high`, the first not above the second, also where a list came.

    Raises
    ------
    TrainingError
        It is not.
    """
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise TrainingError(f"{name} has to be two numbers [low, high]; got {value!r}.")
    for each in value:
        check_number(name, each, low=low, high=high)
    if value[0] > value[1]:
        raise TrainingError(f"{name} has to be [low, high] with low not above high; got {list(value)}.")
    return float(value[0]), float(value[1])


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither true nor false.

    Raises
    ------
    TrainingError
        It is not.
    """
    if not isinstance(value, bool):
        raise TrainingError(f"{name} has to be true or false; got {value!r}.")
