"""Grid, region and period of a config: files, boxes, the Arctic, tiles of ArcticDEM."""

import math
import re
import warnings
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
import shapely
from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pyproj import CRS as PROJ_CRS
from shapely.geometry.base import BaseGeometry

from rtsx.config.yaml import ConfigModel, FilePath, Names
from rtsx.cube.images import Period
from rtsx.errors import ConfigError, InputNotFoundError
from rtsx.geometry.antimeridian import split_at_antimeridian
from rtsx.geometry.crs import length_text, lonlat_transformer
from rtsx.grid import Grid, lonlat_region
from rtsx.storage import file_name
from rtsx.storage.diagnosis import RASTER_SUFFIXES

if TYPE_CHECKING:
    import geopandas as gpd


_COARSEST_DEGREES = 1.0
"""Degrees from which on pixels are taken for metres."""
_FINEST_M = 0.001
"""Metres below which pixels are taken for degrees: a pixel of 100 m has as many."""
_DEGREE_M = 111_195.0
"""Length of a degree of latitude, m."""


class CampaignOutput(ConfigModel):
    """Where the config of a campaign has it written, for whoever looks at what is there; the rest is for those who run it."""

    model_config = ConfigDict(extra="ignore")

    output: FilePath
    """Folder or URL that receives everything."""
    year: int | None = None
    """Year of the map."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """Storage options of the file system behind a URL, such as `endpoint_url` or `anon`."""


def _code(crs: object) -> object:
    return f"EPSG:{crs}" if isinstance(crs, int) and not isinstance(crs, bool) else crs


class GridConfig(ConfigModel):
    """The pixel grid of the cube."""

    crs: Annotated[str, BeforeValidator(_code, json_schema_input_type=str | int)] = "EPSG:3413"
    """CRS that PROJ knows, or an EPSG code; the default is polar stereographic, as ArcticDEM."""
    resolution: float = Field(default=3.0, gt=0)
    """Side of a pixel in CRS units."""
    cell_size: int = Field(default=12288, gt=0)
    """Side of a cell, px."""
    origin: tuple[float, float] = (0.0, 0.0)
    """Corner (x, y) of the pixel grid, in CRS units."""

    @model_validator(mode="after")
    def _exists(self) -> Self:
        crs = PROJ_CRS(self.grid().crs)
        unit = crs.axis_info[0].unit_conversion_factor
        stated = (
            f"resolution is in units of the CRS, and pixels in {self.crs} are {length_text(self.resolution, self.crs)}"
        )
        if crs.is_geographic and math.degrees(self.resolution * unit) >= _COARSEST_DEGREES:
            raise ValueError(
                f"{stated}, {math.degrees(self.resolution * unit) * _DEGREE_M / 1e3:.0f} km. If they are metres, say a projected CRS such as "
                f"EPSG:3413, or {self.resolution / _DEGREE_M:.2g} degrees"
            )
        if crs.is_projected and self.resolution * unit < _FINEST_M:
            raise ValueError(
                f"{stated}, finer than any image. If they are degrees, say a CRS in degrees such as EPSG:4326"
            )
        return self

    def grid(self) -> Grid:
        """The grid."""
        return Grid(**dict(self))


class _PlaceConfig(ConfigModel):
    """Ways to give ground that a cube, a campaign and an order have in common."""

    bbox: tuple[float, float, float, float] | None = None
    """West, south, east, north in degrees; west may be larger than east, across the antimeridian."""
    file: FilePath | None = None
    """Vector file that geopandas reads, in any CRS: the union of its features. Or a raster: its extent."""
    layer: str | None = None
    """Layer of a file that has several."""
    wkt: str | None = None
    """Outline in longitude and latitude as well-known text."""

    @field_validator("bbox")
    @classmethod
    def _in_one_turn(cls, bbox: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
        """Take longitudes from 0 to 360 for those from -180 to 180."""
        if bbox is None:
            return None
        west, south, east, north = bbox
        if not west < east <= west + 360 or max(-west, east) > 360 or max(-west, east) <= 180:
            return bbox
        if east == west + 360:
            return (-180.0, south, 180.0, north)
        # Of the antimeridian, a box to the east of it begins at -180, and one to the west of it ends at 180.
        return ((west + 180) % 360 - 180, south, 180 - (180 - east) % 360, north)

    @model_validator(mode="after")
    def _one(self) -> Self:
        *ways, last = (name for name in type(self).model_fields if name != "layer")
        given = [name for name in (*ways, last) if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"ground is given by one of {', '.join(ways)} and {last}; got {' and '.join(given) or 'none'}"
            )
        if self.layer is not None and self.file is None:
            raise ValueError("layer is one of a file, and this ground is given by none")
        if self.bbox is not None:
            west, south, east, north = self.bbox
            if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90) or west == east:
                raise ValueError(
                    f"bbox is [west, south, east, north] in degrees, south below north; got {list(self.bbox)}"
                )
        if self.wkt is not None and shapely.from_wkt(self.wkt, on_invalid="ignore") is None:
            raise ValueError(f"wkt is well-known text such as POLYGON ((...)); got {self.wkt[:60]!r}")
        return self

    def geometry(self) -> BaseGeometry | None:
        """Ground in longitude and latitude; None where it is given in none of these ways.

        Raises
        ------
        ConfigError
            The file cannot be read, or holds nothing.
        """
        if self.bbox is not None:
            west, south, east, north = self.bbox
            if west < east:
                return shapely.box(west, south, east, north)
            return shapely.MultiPolygon([shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)])
        if self.wkt is not None:
            return shapely.from_wkt(self.wkt)
        return None if self.file is None else _read(self.file, self.layer)


class RegionConfig(_PlaceConfig):
    """Ground of the cube, given in one way."""

    cell: str | None = None
    """Name of a cell of the grid, such as ``r412c088``."""

    @classmethod
    def from_geometry(cls, region: BaseGeometry) -> Self:
        """The config of ground in longitude and latitude: a box where it is one."""
        if region.equals_exact(box := shapely.box(*region.bounds), 0) and region == box:
            return cls(bbox=region.bounds)
        return cls(wkt=shapely.to_wkt(region, rounding_precision=-1))


_WKT = re.compile(r"\s*(MULTI)?POLYGON\s*(Z?M?\s*\(|EMPTY\s*$)", re.I)
_FOUR_NUMBERS = re.compile(r"\s*(-?\d+(\.\d+)?[,; ]+){3}-?\d+(\.\d+)?\s*")


def _spelt_text(given: str) -> dict[str, str]:
    """Return a path or well-known text as the model has them; refuse a box that is no list."""
    if _FOUR_NUMBERS.fullmatch(given):
        raise ValueError(
            f"a box is a list, [{', '.join(re.split('[,; ]+', given.strip()))}], without quotes; got {given!r}"
        )
    return {"wkt" if _WKT.match(given) else "file": given}


def _ground(given: object) -> object:
    """Take a box or a path alone for ground that is given so."""
    if isinstance(given, list | tuple):
        return {"bbox": given}
    return _spelt_text(given) if isinstance(given, str) else given


Region = Annotated[
    RegionConfig,
    BeforeValidator(_ground, json_schema_input_type=RegionConfig | tuple[float, float, float, float] | str),
]
"""Ground of a cube or an order; a box or the path of a vector file alone will do."""


def _day(given: object) -> object:
    if isinstance(given, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}([T ].*)?", given):
        return given[:10]
    if isinstance(given, datetime):
        return (given if given.tzinfo is None else given.astimezone(UTC)).date()
    if given is None or isinstance(given, date):
        return given
    raise ValueError(f"a day is written 2024-07-01; got {given!r}")


Day = Annotated[date, BeforeValidator(_day, json_schema_input_type=date)]
"""A day; of a moment, its day in UTC."""


def _years(given: object) -> object:
    """Take a year alone, also as text of a variable, for the first and the last."""
    text = str(given).removesuffix(".0").strip()
    return (int(text), int(text)) if isinstance(given, int | float | str) and text.isdecimal() else given


class PeriodConfig(ConfigModel):
    """Days that count: from `start` to `end`, or whole `years`; of them, the `months` named."""

    start: Day | None = None
    """First day."""
    end: Day | None = None
    """Last day, included."""
    years: Annotated[
        tuple[int, int] | None,
        BeforeValidator(_years, json_schema_input_type=tuple[int, int] | int | None),
    ] = None
    """A year, or the first and the last."""
    months: tuple[int, ...] = ()
    """Months of every year, 1-12; all if left out."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        is_half = (self.start is None) != (self.end is None)
        if is_half or (self.years is None) == (self.start is None):
            raise ValueError("a period has start and end, or years; give the two days, or a year such as years: 2024")
        self.period()
        return self

    def period(self) -> Period:
        """The period."""
        if self.years is not None:
            return Period(date(self.years[0], 1, 1), date(self.years[1], 12, 31), self.months)
        assert self.start is not None  # checked above
        assert self.end is not None
        return Period(self.start, self.end, self.months)


_LONGEST_EDGE_M = 1000.0
"""Edges of projected ground are densified to this before they are turned into degrees: then they are true to a metre."""


def _lonlat(table: "gpd.GeoDataFrame") -> BaseGeometry:
    """The union of a table's features in degrees, from -180 to 180.

    Projected polygons are united before and not after, because one across the antimeridian or around a pole, vertex by vertex
    in degrees, is another polygon, of the rest of the parallel.
    """
    if table.crs is None:
        raise ValueError("it does not say in which CRS its coordinates are")
    lonlat_transformer(table.crs)  # refuses what is not on Earth
    ground = shapely.make_valid(shapely.union_all(shapely.make_valid(shapely.force_2d(table.geometry.dropna().array))))
    if not table.crs.is_projected or not ground.area:
        return _in_one_turn(table.set_geometry([ground] * len(table)).iloc[:1].to_crs("EPSG:4326").union_all())
    polygons = [part for part in shapely.get_parts(ground) if part.area > 0]
    metres = table.crs.axis_info[0].unit_conversion_factor
    return lonlat_region(shapely.union_all(polygons), table.crs.to_wkt(), longest=_LONGEST_EDGE_M / metres)


def _in_one_turn(ground: BaseGeometry) -> BaseGeometry:
    """Return ground in degrees with longitudes from -180 to 180."""
    if ground.is_empty:
        return ground
    west, south, east, north = ground.bounds
    if max(-south, north) > 90 + 1e-6 or max(-west, east) > 540:
        raise ValueError(
            f"its coordinates are no longitudes and latitudes (x from {west:.6g} to {east:.6g}, y from {south:.6g} to {north:.6g}), as "
            "they are where a file in metres says no CRS, as GeoJSON, or has latitude first"
        )
    parts = [part for part in shapely.get_parts(ground) if part.area > 0]
    if not parts:
        return ground
    edges = max(np.abs(np.diff(shapely.get_coordinates(ring)[:, 0])).max() for ring in shapely.get_rings(parts))
    if 180 < edges < 360:
        warnings.warn(
            f"The region has an edge of {edges:.6g} degrees of longitude, and is taken to lie around the world as it was drawn. Where it is "
            "meant to cross the antimeridian, cut it there, into a part up to 180 and one from -180 on.",
            RuntimeWarning,
            stacklevel=2,
        )
    if west >= -180 and east <= 180:
        return ground
    return shapely.union_all(np.concatenate([split_at_antimeridian(part, west=-180.0, inset=0.0) for part in parts]))


def _read(file: str, layer: str | None) -> BaseGeometry:
    # Here, because most regions are boxes or names, and the libraries that read files take longer than all else.
    import geopandas as gpd

    from rtsx.cube.rasterio import read_header
    from rtsx.labels.io import read_table

    try:
        if Path(file_name(file)).suffix.lower() in RASTER_SUFFIXES:
            box = read_header(file).geobox
            table = gpd.GeoDataFrame(geometry=[shapely.box(*box.boundingbox)], crs=str(box.crs))
        else:
            table = read_table(file, layer=layer, what="regions")
        region = shapely.force_2d(_lonlat(table))
    except (InputNotFoundError, ValueError) as error:  # also for a table without a CRS
        reason = str(error).rstrip(".")
        raise ConfigError(
            f"The region in {file} cannot be read: {reason}. Give a vector file or a raster that has a CRS."
        ) from error
    if region.is_empty:
        raise ConfigError(f"The region in {file} is empty. Give a vector file with at least one feature.")
    return region


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


ARCTIC = 60.0
"""Latitude from which on `arctic` counts, degrees. ArcticDEM covers all land north of it; of what it covers further south, in Alaska,
Greenland and Kamchatka, a vector file has to say which parts are meant."""


class AreaConfig(_PlaceConfig):
    """Ground, given in one way.

    Examples
    --------
    >>> AreaConfig(arcticdem=("42_18",)).geometry().geom_type
    'Polygon'
    """

    north_of: float | None = Field(default=None, gt=-90, lt=90)
    """All ground and sea north of a parallel, degrees; `arctic` is north of 60."""
    arcticdem: Names | None = None
    """Tiles of the ArcticDEM mosaic: 42_18 is 100 km wide, 42_18_2_1 a quarter of it."""

    @field_validator("arcticdem")
    @classmethod
    def _known_tiles(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names == ():
            raise ValueError("arcticdem lists at least one tile, such as 42_18; got none")
        for name in names or ():
            arcticdem_tile(name)
        return names

    def geometry(self) -> BaseGeometry:
        """Ground in longitude and latitude; reads the file, and raises `ConfigError` where it cannot be read, or holds nothing."""
        if self.north_of is not None:
            return shapely.box(-180, self.north_of, 180, 90)
        ground = super().geometry() if self.arcticdem is None else arcticdem_ground(self.arcticdem)
        assert ground is not None  # given in one way, as is checked above
        return ground


def _spelt(given: object) -> object:
    """``arctic``, a path, four numbers, or names of tiles as the model has them."""
    if given == "arctic":
        return {"north_of": ARCTIC}
    if isinstance(given, str):
        return _spelt_text(given)
    if isinstance(given, list | tuple):
        return {"arcticdem" if all(isinstance(one, str) for one in given) else "bbox": given}
    if isinstance(given, Mapping | AreaConfig):
        return given
    raise ValueError(
        f"expected arctic, a vector file, [west, south, east, north] or names of ArcticDEM tiles; got {given!r}"
    )


Area = Annotated[
    AreaConfig,
    BeforeValidator(_spelt, json_schema_input_type=AreaConfig | tuple[float, float, float, float] | list[str] | str),
]
"""Ground; `arctic`, the path of a vector file, a box or a list of tiles alone will do."""
