"""Which rasters are read as one."""

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from rtsx.cube.resample.mosaic import MosaicReader, mosaics
from rtsx.cube.resample.readers import ArrayReader
from rtsx.errors import CubeError

UPRIGHT = Affine(2, 0, 500_000, 0, -2, 7_700_000)


def tile(affine: Affine, value: int = 1) -> ArrayReader:
    return ArrayReader(np.full((1, 10, 10), value, np.int16), GeoBox((10, 10), affine, "EPSG:32608"), nodata=0)


@pytest.mark.parametrize("turn", [0.0, 90.0, 180.0, 37.0])
def test_tiles_turned_alike_are_one_raster_where_they_are_whole_pixels_apart(turn: float) -> None:
    lattice = UPRIGHT @ Affine.rotation(turn)
    tiles = [tile(lattice @ Affine.translation(*by)) for by in ((0, 0), (10, 0), (30, -7), (3.5, 0))]
    beside, apart = mosaics(tiles)
    assert beside.readers == tuple(tiles[:3])
    assert beside.geobox.shape == (17, 40)
    assert apart.readers == (tiles[3],)
    assert (beside.read(slice(7, 17), slice(0, 20)) == 1).all()


def test_tiles_turned_otherwise_are_kept_apart() -> None:
    tiles = [tile(UPRIGHT @ Affine.rotation(turn)) for turn in (0, 90, 180, 270, 37)]
    assert [one.readers for one in mosaics(tiles)] == [(one,) for one in tiles]


def test_a_mirrored_tile_is_not_taken_for_one_of_the_lattice() -> None:
    # Along its diagonal it lies in place.
    mirrored = Affine(0, 2, UPRIGHT.c, -2, 0, UPRIGHT.f)
    assert len(mosaics([tile(UPRIGHT), tile(mirrored)])) == 2
    with pytest.raises(CubeError, match=r"share one lattice to 0.01 px; one is 10 px off"):
        MosaicReader([tile(UPRIGHT), tile(mirrored)])
