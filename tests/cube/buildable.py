"""A recipe of all kinds of sources that builds within a second, and how stores are compared."""

from pathlib import Path

import dask
import xarray as xr

from rtsx.cube.derived import get_derived
from rtsx.cube.georeference import geobox_of
from rtsx.cube.images import Image
from rtsx.cube.recipe import CubeRecipe
from rtsx.grid import lonlat_polygon
from tests.cube.scenes import CUBE, GRID, Ground, at, elevation, optical, recipe, trend

REGION = lonlat_polygon(CUBE[5:-5, 5:-5].extent.geom, GRID.crs)


def make_scenes(ground: Ground) -> list[Image]:
    """Three scenes in two zones, none of which shows all."""
    return [
        ground.scene("a", time=at("2023-07-10"), cloud=3.0, size=90),
        ground.scene("b", crs="EPSG:32608", shift=(300.0, -200.0), time=at("2023-08-01"), cloud=8.0, size=80),
        ground.scene("c", shift=(-250.0, 150.0), time=at("2024-07-20"), cloud=1.0, size=70, offset=-0.1),
    ]


def make_mixed(ground: Ground, scenes: list[Image]) -> CubeRecipe:
    """Optical data in two zones, terrain of two tiles, trends in degrees."""
    tiles = [ground.heights(name, shift=(x, 0.0), size=200) for name, x in (("west", -1000.0), ("east", 1000.0))]
    return recipe(
        optical(scenes, erode_m=25.0),
        elevation(tiles),
        trend([ground.trends("t")]),
        derived=(get_derived("ndvi"),),
        region=REGION,
        chunk=60,
    )


def bytes_of(store: Path) -> dict[str, bytes]:
    return {str(file.relative_to(store)): file.read_bytes() for file in sorted(store.rglob("*")) if file.is_file()}


def assert_same(built: xr.Dataset, wanted: xr.Dataset) -> None:
    assert set(built.data_vars) == set(wanted.data_vars)
    assert geobox_of(built) == geobox_of(wanted)
    with dask.config.set(scheduler="synchronous"):
        built, wanted = built.compute(), wanted.compute()  # at once, because layers of one image are warped together
    for name in wanted.data_vars:
        assert built[name].dtype == wanted[name].dtype, name
        assert built[name].values.tobytes() == wanted[name].values.tobytes(), name
