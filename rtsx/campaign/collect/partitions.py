"""Partitions: square blocks of cells, each of which is one file of every collected table."""

from collections.abc import Iterable

from rtsx.campaign.cell_table import Address
from rtsx.grid.cell import cell_id, parse_cell_id

__all__ = ["SIDE", "by_partition", "partition_name", "partition_named", "partition_of"]

SIDE = 16
"""Cells along each side of a partition: with the default grid 590 km, so that twenty million square kilometres are some sixty
files, and a cell that is run again costs the reading of 255 others."""


def partition_of(cell: Address) -> Address:
    """Row and column of the partition that a cell lies in.

    Examples
    --------
    >>> partition_of((0, 15)), partition_of((-1, 16))
    ((0, 0), (-1, 1))
    """
    return cell[0] // SIDE, cell[1] // SIDE


def partition_name(partition: Address) -> str:
    """Name of a partition, used for its files.

    Examples
    --------
    >>> partition_name((-1, 12))
    'r-001c012'
    """
    return cell_id(*partition)


def partition_named(name: str) -> Address:
    """The partition of such a name."""
    return parse_cell_id(name)


def by_partition(cells: Iterable[Address]) -> dict[Address, list[Address]]:
    """Cells of each partition; partitions and cells in reading order.

    Examples
    --------
    >>> by_partition([(0, 17), (0, 1), (0, 0)])
    {(0, 0): [(0, 0), (0, 1)], (0, 1): [(0, 17)]}
    """
    found: dict[Address, list[Address]] = {}
    for cell in sorted(cells):
        found.setdefault(partition_of(cell), []).append(cell)
    return dict(sorted(found.items()))
