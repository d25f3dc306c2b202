"""Coordinate reference systems between which nothing leads."""

import geopandas
import numpy as np
import pytest
import shapely
import xarray as xr
from pyproj import CRS

from rtsx.config.place import RegionConfig
from rtsx.cube import geobox_of
from rtsx.errors import ConfigError, CubeError, GridError
from rtsx.geometry.crs import cached_transformer
from rtsx.grid import Grid

MARS = "+proj=eqc +R=3396190 +units=m +type=crs"
MOON = "+proj=longlat +R=1737400 +type=crs"
SITE = 'LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'


@pytest.mark.parametrize("crs", [MARS, MOON, SITE])
def test_what_is_not_of_the_earth_is_refused_in_words(crs: str, tmp_path: object) -> None:
    for pair in ((crs, "EPSG:4326"), ("EPSG:3413", crs)):
        with pytest.raises(GridError, match=r"Nothing leads from the CRS .* Give everything in .* CRS of the Earth"):
            cached_transformer(*pair)
    with pytest.raises(GridError, match=r"Nothing leads from|projected or geographic"):
        Grid(crs, 1.0)
    axis = np.arange(4) + 0.5
    cube = xr.Dataset({"red": (("y", "x"), np.ones((4, 4)))}, {"y": -axis, "x": axis})
    with pytest.raises(CubeError, match=r"nowhere on Earth|projected or geographic"):
        geobox_of(cube.odc.assign_crs(crs))
    file = f"{tmp_path}/region.gpkg"
    geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=CRS(crs)).to_file(file)
    with pytest.raises(ConfigError, match=r"region.gpkg cannot be read: Nothing leads from"):
        RegionConfig(file=file).geometry()
