"""What an augmentation is: parameters that were checked, and a change of tiles."""

import math
from collections.abc import Sequence
from typing import ClassVar, Protocol

from rtsx.errors import TrainingError
from rtsx.training.augment.chance import Chance
from rtsx.training.batch import Batch

__all__ = ["Augmentation", "StubAugmentation", "check_flag", "check_number", "check_pair"]


class Augmentation(Protocol):
    """One augmentation with its parameters: a frozen dataclass whose fields are the parameters.

    Construction raises `TrainingError` for values that are not possible. Threads: any; it holds nothing but its parameters.
    """

    turns: ClassVar[bool]
    """Whether directions in the picture change, so that layers with a direction have to follow."""

    def check_layers(self, layers: Sequence[str]) -> None:
        """Raise `TrainingError` where the stored layers (their names) do not allow it."""
        ...

    def apply(self, batch: Batch, *, chance: Chance) -> Batch:
        """A batch in which every tile was changed; layers, packings and shape stay.

        What stands under an invalid pixel changes nothing that can be seen, and `IGNORED` is the truth of whatever was
        not in the picture before.
        """
        ...


class StubAugmentation:
    """Changes nothing; for tests of whatever applies augmentations."""

    turns: ClassVar[bool] = False

    def check_layers(self, layers: Sequence[str]) -> None:
        """Every layer will do."""

    def apply(self, batch: Batch, *, chance: Chance) -> Batch:
        """The batch itself."""
        return batch


def _conforms(stub: StubAugmentation) -> Augmentation:
    return stub  # a typed line that fails the type check when the stub stops being an Augmentation


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
