"""Truth on a raster: which class every pixel is, read window by window, however large the raster."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["IGNORED", "StubTruth", "Truth", "TruthWindow"]

IGNORED = 255
"""Value of a pixel that counts neither way: it is left out of losses and scores."""

TruthWindow = tuple[slice, slice]
"""Rows and columns of a raster, with start and stop given, within the raster."""


class Truth(Protocol):
    """The truth of one raster.

    Values are 0 where no label lies, k for the k-th of `classes`, counted from 1, and `IGNORED`. A pixel is the class of
    the last label that its centre lies in. Threads: any; a truth is frozen, can be pickled, and `read` depends on its
    window alone, so windows fit together without seams.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that labels have; 0 is none of them."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the raster, px."""
        ...

    @property
    def digest(self) -> str:
        """sha256, as hex, over everything that the values depend on."""
        ...

    def read(self, window: TruthWindow) -> NDArray[np.uint8]:
        """Values (y, x) of a window."""
        ...


class StubTruth:
    """A truth of an array in memory; for tests of whatever reads truths.

    Examples
    --------
    >>> truth = StubTruth(np.eye(3, dtype=np.uint8))
    >>> truth.read((slice(0, 2), slice(1, 3)))
    array([[0, 0],
           [1, 0]], dtype=uint8)
    """

    def __init__(self, values: NDArray[np.uint8], *, classes: tuple[str, ...] = ("target",)) -> None:
        self.classes = classes
        self._values = values

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, px."""
        height, width = self._values.shape
        return height, width

    @property
    def digest(self) -> str:
        """The values themselves, as hex."""
        return self._values.tobytes().hex()

    def read(self, window: TruthWindow) -> NDArray[np.uint8]:
        """Values (y, x) of a window."""
        return self._values[window].copy()


def _conforms(stub: StubTruth) -> Truth:
    return stub  # a typed line that fails the type check when the stub stops being a Truth
