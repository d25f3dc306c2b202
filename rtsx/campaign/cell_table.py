"""The cells of a campaign, in the order in which they are run: as many as a region has, in a few bytes each."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rtsx.errors import CampaignError

__all__ = ["Address", "CellTable"]

Address = tuple[int, int]
"""Row and column (iy, ix) of a cell in the grid."""


@dataclass(frozen=True, eq=False)
class CellTable:
    """Addresses of cells, each once.

    Examples
    --------
    >>> table = CellTable(np.array([[4, -1], [4, 0]], np.int32))
    >>> len(table), list(table), (4, 0) in table, table == CellTable(table.addresses.copy())
    (2, [(4, -1), (4, 0)], True, True)
    """

    addresses: NDArray[np.int32]
    """Row and column (cell, 2), in the order of running: neighbours follow each other, so that caches of sources help."""

    def __post_init__(self) -> None:
        """Refuse what is no list of different cells, and close it against change."""
        if not np.issubdtype(np.asarray(self.addresses).dtype, np.integer):
            raise CampaignError(
                f"Rows and columns of cells are whole numbers; got {np.asarray(self.addresses).dtype.name}."
            )
        array = np.array(self.addresses, np.int32, order="C")  # a copy, because what is closed may be somebody else's
        if array.ndim != 2 or array.shape[1] != 2:
            raise CampaignError(f"Cells are an array (cell, 2) of rows and columns; got shape {array.shape}.")
        if len(np.unique(self._keys(array))) != len(array):
            raise CampaignError("Every cell of a campaign comes once; some come twice.")
        array.setflags(write=False)
        object.__setattr__(self, "addresses", array)

    def __len__(self) -> int:
        return len(self.addresses)

    def __iter__(self) -> Iterator[Address]:
        for start in range(0, len(self), 4096):  # a part at a time, because a million tuples are a hundred megabytes
            yield from map(tuple, self.addresses[start : start + 4096].tolist())

    def __contains__(self, address: object) -> bool:
        return address in self.places

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CellTable) and np.array_equal(self.addresses, other.addresses)

    def __hash__(self) -> int:
        return hash(self.addresses.tobytes())

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the addresses alone, because `places` of a million cells would go to every worker with them."""
        return CellTable, (self.addresses,)

    @cached_property
    def places(self) -> dict[Address, int]:
        """Position of each cell in the order."""
        return {address: place for place, address in enumerate(self)}

    @staticmethod
    def _keys(array: NDArray[np.int32]) -> NDArray[np.int64]:
        return (array[:, 0].astype(np.int64) << 32) + array[:, 1]
