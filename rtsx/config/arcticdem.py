"""Tiles of the ArcticDEM mosaic by name: the published cut of the Arctic, in which many regions are given."""

import re
from collections.abc import Iterable

import shapely
from shapely.geometry.base import BaseGeometry

from rtsx.errors import ConfigError
from rtsx.grid import lonlat_region

__all__ = ["arcticdem_ground", "arcticdem_tile"]

CRS = "EPSG:3413"
"""CRS of the tiles."""
_TILE = re.compile(r"(?P<row>\d{2})_(?P<column>\d{2})(?:_(?P<half_row>[12])_(?P<half_column>[12]))?")
_CORNER_M = -4_100_000.0
"""South-western corner (x and y) of tile 00_00, m."""
_SIDE_M = 100_000.0
"""Side of a tile of the 10 m and 32 m mosaics, m; those of 2 m are quarters."""
_ROWS, _COLUMNS = (7, 81), (1, 74)
"""First and last row and column of the index of version 4.1."""
_INSET_M = 10.0
"""What the tiles' common border is drawn in by: in degrees it is true to a metre, and a cell that begins where a tile ends must
not be met by that metre."""


def arcticdem_tile(name: str) -> tuple[float, float, float, float]:
    """Box of a tile without the overlap with its neighbours: west, south, east, north in EPSG:3413, m.

    Parameters
    ----------
    name
        Row from the south and column from the west, such as ``42_18`` (100 km), or a quarter of it as the 2 m mosaic
        has them, such as ``42_18_2_1`` (50 km; upper row, left column).

    Raises
    ------
    ConfigError
        It is no such name, or lies outside the published index.

    Examples
    --------
    >>> arcticdem_tile("18_23")
    (-1800000.0, -2300000.0, -1700000.0, -2200000.0)
    >>> arcticdem_tile("18_23_2_1")
    (-1800000.0, -2250000.0, -1750000.0, -2200000.0)
    """
    match = _TILE.fullmatch(name)
    if match is None:
        raise ConfigError(
            f"an ArcticDEM tile is named by row and column, such as 42_18, or 42_18_2_1 for a quarter; got {name!r}"
        )
    row, column = int(match["row"]), int(match["column"])
    if not (_ROWS[0] <= row <= _ROWS[1] and _COLUMNS[0] <= column <= _COLUMNS[1]):
        raise ConfigError(
            f"ArcticDEM has rows {_ROWS[0]:02d} to {_ROWS[1]} and columns {_COLUMNS[0]:02d} to {_COLUMNS[1]}; got {name!r}"
        )
    west, south, side = _CORNER_M + column * _SIDE_M, _CORNER_M + row * _SIDE_M, _SIDE_M
    if match["half_row"] is not None:
        side = _SIDE_M / 2
        west, south = west + (int(match["half_column"]) - 1) * side, south + (int(match["half_row"]) - 1) * side
    return west, south, west + side, south + side


def arcticdem_ground(names: Iterable[str]) -> BaseGeometry:
    """Ground of some tiles, in longitude and latitude.

    Raises
    ------
    ConfigError
        See `arcticdem_tile`.
    """
    united = shapely.union_all([shapely.box(*arcticdem_tile(name)) for name in names])
    return lonlat_region(united.buffer(-_INSET_M, join_style="mitre"), CRS, longest=1000.0)
