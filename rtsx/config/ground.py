"""Ground of a campaign: a file, a box, the Arctic, or tiles of ArcticDEM."""

from collections.abc import Mapping
from typing import Annotated, Self

import shapely
from pydantic import BeforeValidator, Field, model_validator
from shapely.geometry.base import BaseGeometry

from rtsx.config.arcticdem import arcticdem_ground, arcticdem_tile
from rtsx.config.place import RegionConfig
from rtsx.config.strict import FilePath, Names, Strict

__all__ = ["Ground", "GroundConfig"]

ARCTIC = 60.0
"""Latitude from which on `arctic` counts, degrees. ArcticDEM covers all land north of it; of what it covers further south, in Alaska,
Greenland and Kamchatka, a vector file has to say which parts are meant."""


class GroundConfig(Strict):
    """Ground, given in one way.

    Examples
    --------
    >>> GroundConfig(arcticdem=("42_18",)).geometry().geom_type
    'Polygon'
    """

    bbox: tuple[float, float, float, float] | None = None
    """West, south, east, north in degrees; west may be larger than east, across the antimeridian."""
    file: FilePath | None = None
    """Vector file that geopandas reads, in any CRS; the union of its features."""
    layer: str | None = None
    """Layer of a file that has several."""
    wkt: str | None = None
    """Outline in longitude and latitude as well-known text."""
    north_of: float | None = Field(default=None, gt=-90, lt=90)
    """All ground and sea north of a parallel, degrees; `arctic` is north of 60."""
    arcticdem: Names | None = None
    """Tiles of the ArcticDEM mosaic: 42_18 is 100 km wide, 42_18_2_1 a quarter of it."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in type(self).model_fields if name != "layer" and getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"ground is given by one of bbox, file, wkt, north_of and arcticdem; got {' and '.join(given) or 'none'}"
            )
        if self.layer is not None and self.file is None:
            raise ValueError("layer is one of a file, and this ground is given by none")
        if self.arcticdem is not None:
            if not self.arcticdem:
                raise ValueError("arcticdem lists at least one tile, such as 42_18; got none")
            for name in self.arcticdem:
                arcticdem_tile(name)
        elif self.north_of is None:
            self._place()
        return self

    def geometry(self) -> BaseGeometry:
        """Ground in longitude and latitude; reads the file.

        Raises
        ------
        ConfigError
            The file cannot be read, or holds nothing.
        """
        if self.north_of is not None:
            return shapely.box(-180, self.north_of, 180, 90)
        if self.arcticdem is not None:
            return arcticdem_ground(self.arcticdem)
        ground = self._place().geometry()
        assert ground is not None  # no cell can be named here
        return ground

    def _place(self) -> RegionConfig:
        return RegionConfig(bbox=self.bbox, file=self.file, layer=self.layer, wkt=self.wkt)


def _spelt(given: object) -> object:
    """``arctic``, a path, four numbers, or names of tiles as the model has them."""
    if given == "arctic":
        return {"north_of": ARCTIC}
    if isinstance(given, str):
        return {"file": given}
    if isinstance(given, list | tuple):
        return {"arcticdem" if all(isinstance(one, str) for one in given) else "bbox": given}
    if isinstance(given, Mapping | GroundConfig):
        return given
    raise ValueError(
        f"expected arctic, a vector file, [west, south, east, north] or names of ArcticDEM tiles; got {given!r}"
    )


Ground = Annotated[
    GroundConfig,
    BeforeValidator(_spelt, json_schema_input_type=GroundConfig | tuple[float, float, float, float] | list[str] | str),
]
"""Ground; `arctic`, the path of a vector file, a box or a list of tiles alone will do."""
