"""Terrain and eroded quality do not depend on how a raster is cut: bit for bit, on random ground with holes."""

from itertools import pairwise

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.erosion import erode_quality, erosion_halo
from rtsx.cube.resample.readers import ArrayReader
from rtsx.cube.terrain import TERRAIN, TerrainGrid, TerrainReader, terrain_block, terrain_halo

SHAPE = (70, 83)
GRIDS = {
    "polar": GeoBox(SHAPE, Affine(10, 0, -2_100_003, 0, -10, -400_001), "EPSG:3413"),
    "utm, oblong": GeoBox(SHAPE, Affine(12.5, 0, 500_000.3, 0, -31, 7_700_003), "EPSG:32608"),
    "degrees": GeoBox(SHAPE, Affine(1 / 3600, 0, -149.29, 0, -1 / 3600, 78.92), "EPSG:4326"),
}


def ground_with_holes(seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    dem = np.cumsum(rng.normal(0, 1, SHAPE), axis=0) + np.cumsum(rng.normal(0, 1, SHAPE), axis=1) + 300
    dem[rng.random(SHAPE) < rng.choice([0, 0.02, 0.3])] = np.nan
    top, left = rng.integers(0, 50, 2)
    dem[top : top + 15, left : left + 12] = np.nan
    return dem.astype(np.float32)


@st.composite
def cuts(draw: st.DrawFn, size: int) -> list[int]:
    inner = draw(st.lists(st.integers(1, size - 1), max_size=3, unique=True))
    return [0, *sorted(inner), size]


@pytest.mark.slow
@pytest.mark.parametrize("name", GRIDS)
@settings(max_examples=12)
@given(data=st.data())
def test_terrain_on_its_own_grid_is_the_same_however_it_is_cut(name: str, data: st.DataObject) -> None:
    dem = ground_with_holes(data.draw(st.integers(0, 2**32 - 1)))
    reader = TerrainReader(ArrayReader(dem[None], GRIDS[name], nodata=-9999), list(TERRAIN))
    whole = reader.read(slice(0, SHAPE[0]), slice(0, SHAPE[1]))
    rows, columns = data.draw(cuts(SHAPE[0])), data.draw(cuts(SHAPE[1]))
    parts = [
        [reader.read(slice(top, bottom), slice(left, right)) for left, right in pairwise(columns)]
        for top, bottom in pairwise(rows)
    ]
    np.testing.assert_array_equal(np.block(parts), whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRIDS)
@settings(max_examples=12)
@given(data=st.data())
def test_terrain_of_a_block_with_its_halo_is_that_of_the_whole(name: str, data: st.DataObject) -> None:
    dem = ground_with_holes(data.draw(st.integers(0, 2**32 - 1)))
    geobox = GRIDS[name]
    whole = terrain_block(dem, np.isfinite(dem), ground=TerrainGrid.from_geobox(geobox), layers=list(TERRAIN), halo=0)
    halo = terrain_halo(TERRAIN, TerrainGrid.from_geobox(geobox)) + data.draw(st.integers(0, 2))
    rows, columns = (
        slice(start, data.draw(st.integers(start + 1, size)))
        for size in SHAPE
        for start in [data.draw(st.integers(0, size - 1))]
    )
    # Beyond the raster there is nothing, as a warp would say.
    wide = np.pad(dem, halo, constant_values=np.nan)
    block = wide[rows.start : rows.stop + 2 * halo, columns.start : columns.stop + 2 * halo]
    # A geobox of its own, as a task makes it from the grid, with whatever its corner was rounded to.
    moved = geobox.affine @ Affine.translation(columns.start - halo, rows.start - halo)
    ground = TerrainGrid.from_geobox(GeoBox(block.shape, moved, geobox.crs))
    middle = terrain_block(block, np.isfinite(block), ground=ground, layers=list(TERRAIN), halo=halo)
    np.testing.assert_array_equal(middle, whole[:, rows, columns])


@settings(max_examples=40)
@given(data=st.data())
def test_eroded_quality_is_the_same_however_it_is_cut(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    quality = rng.choice(np.array([0, 1, 2], np.uint8), SHAPE, p=[0.01, 0.2, 0.79])
    distance, resolution = data.draw(st.sampled_from([(0.0, 3.0), (20.0, 3.0), (50.0, (10.0, 4.0)), (33.3, 2.7)]))
    whole = erode_quality(quality, distance_m=distance, resolution_m=resolution)
    halo = erosion_halo(distance_m=distance, resolution_m=resolution)
    rows, columns = data.draw(cuts(SHAPE[0])), data.draw(cuts(SHAPE[1]))
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            y, x = max(top - halo, 0), max(left - halo, 0)
            block = quality[y : bottom + halo, x : right + halo]
            eroded = erode_quality(block, distance_m=distance, resolution_m=resolution)
            np.testing.assert_array_equal(
                eroded[top - y : bottom - y, left - x : right - x], whole[top:bottom, left:right]
            )
