"""The warp against exact positions and a plain gather, and against itself in pieces."""

from itertools import pairwise, permutations
from typing import Any, get_args

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from benchmarks.exact import exact_positions, exact_warp
from rtsx.cube.recipe import Resampling
from rtsx.cube.resample.readers import ArrayReader
from rtsx.cube.resample.warp import warp

CRSS = ("EPSG:3413", "EPSG:4326", "EPSG:32608", "EPSG:32652")
PLACES = {"EPSG:32608": (-135.4, 69.1), "EPSG:32652": (129.3, 72.2)}
BETWEEN = (177.0, 80.0)
"""Longitude and latitude that both zones can express, 48 degrees from the middle of either."""
DEGREE_M = 111_000.0


def place_of(crs: str, other: str) -> tuple[float, float]:
    zones = [name for name in (crs, other) if name in PLACES]
    return BETWEEN if len(zones) == 2 else PLACES[zones[0]] if zones else (-135.4, 69.1)


def raster(crs: str, resolution_m: float, *, at: tuple[float, float], shape: tuple[int, int]) -> GeoBox:
    """A north-up raster on whole pixels of a lattice at (0, 0), around a place."""
    size = resolution_m / DEGREE_M if crs == "EPSG:4326" else resolution_m
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(*at)
    left, top = round(x / size) - shape[1] // 2, round(y / size) + shape[0] // 2
    return GeoBox(shape, Affine(size, 0, left * size, 0, -size, top * size), crs)


def random_pixels(seed: int, dtype: Any, shape: tuple[int, int]) -> NDArray[Any]:
    """Two bands of noise between 1 and 100, a tenth nodata (0) in clumps and alone."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1, 101, (2, *shape)).astype(dtype)
    pixels[rng.random(pixels.shape) < 0.05] = 0
    pixels[:, 20:30, 40:60] = 0
    return pixels


@pytest.mark.slow
# Every two CRSs up and down, with one resampling after the other, so that each meets every CRS.
@pytest.mark.parametrize(
    ("source_crs", "target_crs", "fine", "coarse", "resampling"),
    [
        (*crss, *sizes, ("nearest", "bilinear", "cubic")[(number + turn) % 3])
        for number, crss in enumerate(permutations(CRSS, 2))
        for turn, sizes in enumerate([(10.0, 30.0), (30.0, 10.0)])
    ],
)
def test_exact_positions_and_a_plain_gather(
    source_crs: str, target_crs: str, fine: float, coarse: float, resampling: Resampling
) -> None:
    at = place_of(source_crs, target_crs)
    source = raster(source_crs, fine, at=at, shape=(230, 210))
    target = raster(target_crs, coarse, at=at, shape=(150, 170))
    pixels = random_pixels(1, np.float64, source.shape.yx)
    reader = ArrayReader(pixels, source, nodata=0)
    warped = warp(reader, target, resampling=resampling, anchor=(0.0, 0.0))
    rows, columns = exact_positions(source, target)
    value, valid = exact_warp(pixels, (rows, columns), resampling=resampling, nodata=0)
    assert 0.05 < valid.mean() < 1
    # Positions are good to 1e-4 px: closer to the border of a pixel either neighbour may be the one that holds it.
    clear = np.minimum(*(np.abs(axis - np.round(axis)) for axis in (rows, columns))) > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(warped.valid[:, clear], valid[:, clear])
    both = warped.valid & valid & clear
    assert np.abs(warped.pixels - value)[both].max() < 0.01
    assert (warped.pixels[~warped.valid] == 0).all()


CASES = {
    "rotated by 90 degrees": ("EPSG:32608", "EPSG:3413", 3.0, 3.0),
    "from degrees": ("EPSG:4326", "EPSG:3413", 30.0, 3.0),
    "to degrees, coarser": ("EPSG:3413", "EPSG:4326", 3.0, 17.0),
    "same CRS": ("EPSG:3413", "EPSG:3413", 10.0, 3.0),
    "pixel-equal": ("EPSG:3413", "EPSG:3413", 3.0, 3.0),
    "far from its zone": ("EPSG:32608", "EPSG:32652", 10.0, 10.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@given(
    seed=st.integers(0, 10**6),
    resampling=st.sampled_from(get_args(Resampling)),
    dtype=st.sampled_from([np.uint16, np.float32]),
    cuts=st.tuples(*(st.lists(st.integers(1, 199), max_size=4) for _ in range(2))),
)
@settings(max_examples=7)
def test_any_chunking_gives_the_same_bits(
    case: str, seed: int, resampling: Resampling, dtype: Any, cuts: tuple[list[int], list[int]]
) -> None:
    source_crs, target_crs, fine, coarse = CASES[case]
    at = place_of(source_crs, target_crs)
    source = raster(source_crs, fine, at=at, shape=(230, 210))
    target = raster(target_crs, coarse, at=at, shape=(200, 200))
    reader = ArrayReader(random_pixels(seed, dtype, source.shape.yx), source, nodata=0)
    whole = warp(reader, target, resampling=resampling, anchor=(0.0, 0.0))
    assert whole.valid.any()
    rows, columns = ([0, *sorted(set(axis)), 200] for axis in cuts)
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            part = warp(reader, target[top:bottom, left:right], resampling=resampling, anchor=(0.0, 0.0))
            np.testing.assert_array_equal(part.pixels, whole.pixels[:, top:bottom, left:right])
            np.testing.assert_array_equal(part.valid, whole.valid[:, top:bottom, left:right])


@pytest.mark.slow
@pytest.mark.parametrize("size", [2_000.0, 40_000.0], ids=["fine", "coarse"])
@given(
    seed=st.integers(0, 10**6),
    resampling=st.sampled_from(get_args(Resampling)),
    first=st.sampled_from([-180.0, 0.0, 33.3]),
    place=st.sampled_from([(180.0, 70.0), (0.0, 66.0), (33.3, 89.0), (0.0, 90.0)]),
    cut=st.tuples(st.integers(1, 99), st.integers(1, 99)),
)
@settings(max_examples=9)
def test_any_chunking_around_the_earth(
    size: float,
    seed: int,
    resampling: Resampling,
    first: float,
    place: tuple[float, float],
    cut: tuple[int, int],
) -> None:
    world = GeoBox((150, 1800), Affine(0.2, 0, first, 0, -0.2, 90), "EPSG:4326")
    reader = ArrayReader(random_pixels(seed, np.float32, world.shape.yx), world, nodata=0)
    target = raster("EPSG:3413", size, at=place, shape=(100, 100))
    whole = warp(reader, target, resampling=resampling, anchor=(0.0, 0.0))
    for rows in (slice(0, cut[0]), slice(cut[0], 100)):
        for columns in (slice(0, cut[1]), slice(cut[1], 100)):
            part = warp(reader, target[rows, columns], resampling=resampling, anchor=(0.0, 0.0))
            np.testing.assert_array_equal(part.pixels, whole.pixels[:, rows, columns])
            np.testing.assert_array_equal(part.valid, whole.valid[:, rows, columns])


@given(seed=st.integers(0, 10**6), resampling=st.sampled_from(get_args(Resampling)))
@settings(max_examples=7)
def test_values_under_the_mask_never_matter(seed: int, resampling: Resampling) -> None:
    source = raster("EPSG:32608", 10.0, at=(-135.4, 69.1), shape=(120, 110))
    target = raster("EPSG:3413", 7.0, at=(-135.4, 69.1), shape=(100, 100))
    rng = np.random.default_rng(seed)
    hidden = rng.random((1, *source.shape.yx)) < 0.2
    pixels = np.where(hidden, -9999, rng.normal(300, 50, hidden.shape)).astype(np.float32)
    expected = warp(ArrayReader(pixels, source, nodata=-9999), target, resampling=resampling, anchor=(0.0, 0.0))
    for other in (np.nan, np.inf):
        changed = ArrayReader(np.where(hidden, np.float32(other), pixels), source, nodata=-9999)
        warped = warp(changed, target, resampling=resampling, anchor=(0.0, 0.0))
        np.testing.assert_array_equal(warped.pixels, expected.pixels)
        np.testing.assert_array_equal(warped.valid, expected.valid)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2.0, 3.3, 5.0])
def test_average_is_the_mean_of_exact_samples(scale: float) -> None:
    at = (-135.4, 69.1)
    source = raster("EPSG:32608", 10.0, at=at, shape=(300, 310))
    target = raster("EPSG:3413", 10.0 * scale, at=at, shape=(50, 55))
    rng = np.random.default_rng(3)
    pixels = rng.normal(300, 50, (1, *source.shape.yx))
    pixels[rng.random(pixels.shape) < 0.1] = -9999
    warped = warp(ArrayReader(pixels, source, nodata=-9999), target, resampling="average", anchor=(0.0, 0.0))
    many = 16
    totals, counts = np.zeros(target.shape.yx), np.zeros(target.shape.yx)
    for i in range(many):
        for j in range(many):
            positions = exact_positions(source, target, shift=((i + 0.5) / many, (j + 0.5) / many))
            value, valid = exact_warp(pixels, positions, resampling="nearest", nodata=-9999)
            totals, counts = totals + value[0], counts + valid[0]
    _, valid = exact_warp(pixels, exact_positions(source, target), resampling="nearest", nodata=-9999)
    np.testing.assert_array_equal(warped.valid, valid)
    off = (warped.pixels[0] - totals / np.maximum(counts, 1))[valid[0]]
    # The area mean of noise of 50; a sample counts for a quarter of a source pixel at most.
    assert np.sqrt((off**2).mean()) < 0.15 * 50
    assert abs(off.mean()) < 0.3
