"""Coast lines for maps of a page: those of Natural Earth where they are installed, or of any vector file. Nothing is downloaded."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import geopandas
import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray

from rtsx.errors import CampaignError, LabelError
from rtsx.labels.io import read_table

_SEAM = (179.99, -89.99)
"""Longitude from which on, and latitude up to which, both ends of an edge make it one where polygons were cut, and no coast."""


@dataclass(frozen=True, eq=False)
class Coast:
    """Coast lines in longitude and latitude."""

    name: str
    """What they are, for people."""
    lonlat: NDArray[np.float64]
    """Vertices (n, 2), degrees."""
    line: NDArray[np.int64]
    """Number of the line that each belongs to."""

    @classmethod
    def installed(cls) -> Self | None:
        """Read the finest of Natural Earth that is installed; None where none is."""
        for path, name in _candidates():
            if path.is_file():
                try:
                    return cls.read(path, name=name)
                except (LabelError, CampaignError):
                    continue  # a download that was stopped is no reason to have no page
        return None

    @classmethod
    def read(cls, path: str | Path, *, name: str | None = None) -> Self:
        """Read lines, or the borders of polygons that have no neighbour, such as land.

        Parameters
        ----------
        path
            Vector file of any format and CRS.
        name
            What they are; None for the name of the file.

        Raises
        ------
        InputNotFoundError, LabelError
            The file cannot be read.
        CampaignError
            It has no CRS, or neither lines nor polygons.
        """
        table = read_table(path, what="coast lines")
        if table.crs is None:
            raise CampaignError(
                f"{path} does not say its CRS, so where its coast lines are is not known. Give a file that does."
            )
        shapes = np.asarray(table.geometry.dropna().array, object)
        dimension = shapely.get_dimensions(shapes)
        # In the file's own CRS, because polygons that hold a pole or cross 180 degrees are none in longitude and latitude.
        land = shapely.union_all(shapely.make_valid(shapes[dimension == 2]))
        lines = shapely.get_parts([*shapes[dimension == 1], shapely.boundary(land)])
        there = np.asarray(geopandas.GeoSeries(lines, crs=table.crs).to_crs(4326).array, object)
        lonlat, line = shapely.get_coordinates(there, return_index=True)
        known = np.isfinite(lonlat).all(axis=1)
        lonlat, line = lonlat[known], (line + np.cumsum(~known))[known]  # which ends a line where it leaves the earth
        if not lonlat.size:
            raise CampaignError(
                f"{path} has neither lines nor polygons, and coast lines are one of them. Give another file."
            )
        at_seam = (np.abs(lonlat[:, 0]) >= _SEAM[0]) | (lonlat[:, 1] <= _SEAM[1])
        cuts = np.append(False, at_seam[1:] & at_seam[:-1])
        return cls(name or Path(path).name, lonlat, np.asarray(line + np.cumsum(cuts), np.int64))


def _candidates() -> Iterator[tuple[Path, str]]:
    """Files of Natural Earth that may be there, the finest first: where cartopy keeps them, then countries that come with pyogrio."""
    shared = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    places = [Path(shared, "cartopy"), Path(sys.prefix, "share", "cartopy")]
    if "CARTOPY_DATA_DIR" in os.environ:
        places.insert(0, Path(os.environ["CARTOPY_DATA_DIR"]))
    for scale in ("10", "50", "110"):
        for place in places:
            folder = place / "shapefiles" / "natural_earth" / "physical"
            yield folder / f"ne_{scale}m_coastline.shp", f"Natural Earth, 1:{scale} million"
    beside = Path(pyogrio.__file__).parent / "tests" / "fixtures" / "naturalearth_lowres" / "naturalearth_lowres.shp"
    yield beside, "Natural Earth, 1:110 million"
