"""Tiles read like the raster they were cut from."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.recipe import Resampling
from rtsx.cube.resample.readers import ArrayReader
from rtsx.cube.resample.warp import warp
from rtsx.cube.terrain_blocks import MosaicReader, group_by_grid
from rtsx.errors import CubeError
from tests.cube.file_reader import file_reader

BOX = GeoBox((200, 260), Affine(2, 0, -5000, 0, -2, 7000), "EPSG:3413")


def heights(seed: int = 0, *, holes: float = 0.1) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    pixels = rng.normal(100, 30, (1, *BOX.shape)).astype(np.float32)
    pixels[rng.random(pixels.shape) < holes] = -9999
    return pixels


def cut(pixels: NDArray[Any], rows: slice, columns: slice, *, nodata: float | None = -9999) -> ArrayReader:
    return ArrayReader(pixels[:, rows, columns], BOX[rows, columns], nodata=nodata)


CUTS = [
    (slice(0, 110), slice(0, 90)),
    (slice(90, 200), slice(0, 100)),  # overlaps the first
    (slice(0, 120), slice(90, 260)),
    (slice(120, 200), slice(100, 260)),
]


@pytest.mark.parametrize("resampling", get_args(Resampling))
def test_a_mosaic_equals_one_raster(resampling: Resampling) -> None:
    pixels = heights()
    one = ArrayReader(pixels, BOX, nodata=-9999)
    mosaic = MosaicReader([cut(pixels, *part) for part in reversed(CUTS)])
    assert mosaic.geobox == BOX
    assert (mosaic.count, mosaic.dtype, mosaic.nodata) == (1, np.dtype(np.float32), -9999)
    rng = np.random.default_rng(1)
    for _ in range(20):
        top, left = rng.integers(0, 150), rng.integers(0, 200)
        window = slice(top, top + rng.integers(1, 50)), slice(left, left + rng.integers(1, 60))
        np.testing.assert_array_equal(mosaic.read(*window), one.read(*window))
    target = GeoBox((90, 120), Affine(3, 0, -4980, 0, -3, 6960), "EPSG:3413")
    ours, expected = (warp(reader, target, resampling=resampling, anchor=(0, 0)) for reader in (mosaic, one))
    np.testing.assert_array_equal(ours.pixels, expected.pixels)
    np.testing.assert_array_equal(ours.valid, expected.valid)


def test_the_first_valid_pixel_counts_and_gaps_are_nodata() -> None:
    first, second = np.full((1, 200, 260), 1, np.float32), np.full((1, 200, 260), 2, np.float32)
    first[:, 50:60, 50:60] = -9999
    first[:, 60:70, 50:60] = np.nan
    mosaic = MosaicReader([cut(first, slice(0, 100), slice(0, 100)), cut(second, slice(40, 140), slice(40, 140))])
    assert mosaic.geobox.shape == (140, 140)
    read = mosaic.read(slice(0, 140), slice(0, 140))[0]
    assert (read[50:70, 50:60] == 2).all()
    assert (read[:50, :100] == 1).all()
    assert (read[100:, 100:] == 2).all()
    assert (read[:40, 100:] == -9999).all()
    assert pickle.loads(pickle.dumps(mosaic)).geobox == mosaic.geobox


def test_floats_without_nodata_are_missing_as_nan() -> None:
    pixels = heights(holes=0)
    corners = [(slice(0, 10), slice(0, 10)), (slice(20, 30), slice(20, 30))]
    mosaic = MosaicReader([cut(pixels, *part, nodata=None) for part in corners])
    assert np.isnan(mosaic.nodata)  # type: ignore[arg-type]
    assert np.isnan(mosaic.read(slice(0, 30), slice(0, 30))).sum() == 900 - 200


def test_integers_without_nodata_have_to_leave_no_gap() -> None:
    pixels = heights(holes=0).astype(np.uint8)
    whole = MosaicReader([cut(pixels, *part, nodata=None) for part in CUTS])
    np.testing.assert_array_equal(whole.read(slice(0, 200), slice(0, 260)), pixels)
    with pytest.raises(CubeError, match=r"3 tiles of uint8 without nodata leave ground .*Name a nodata value"):
        MosaicReader([cut(pixels, *part, nodata=None) for part in CUTS[:3]])


@pytest.mark.parametrize(
    ("tile", "told"),
    [
        (
            GeoBox((10, 10), Affine(2, 0, -4999, 0, -2, 7000), "EPSG:3413"),
            r"share one lattice to 0.01 px; one is 0.5 px off",
        ),
        (GeoBox((10, 10), Affine(2.01, 0, -5000, 0, -2.01, 7000), "EPSG:3413"), r"one is 0.05 px off"),
    ],
)
def test_other_lattices_are_refused(tile: GeoBox, told: str) -> None:
    pixels = heights()
    with pytest.raises(CubeError, match=told):
        MosaicReader([cut(pixels, *CUTS[0]), ArrayReader(pixels[:, :10, :10], tile, nodata=-9999)])


def test_a_lattice_a_hair_off_is_the_same() -> None:
    pixels = heights()
    near = GeoBox((10, 10), Affine(2, 0, -4999.99, 0, -2, 6999.99), "EPSG:3413")
    mosaic = MosaicReader([cut(pixels, *CUTS[0]), ArrayReader(pixels[:, :10, :10], near, nodata=-9999)])
    assert mosaic.geobox.shape == (110, 90)


class Remembering(ArrayReader):
    """An array that has overviews to offer, and remembers how large the windows were that it was asked for."""

    asked: ClassVar[list[int]] = []

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        pixels = super().read(rows, columns)
        self.asked.append(pixels.nbytes)
        return pixels

    def overview_for(self, factor: float) -> Self:
        raise AssertionError(f"an overview of {factor} was asked for")


@pytest.mark.slow
@pytest.mark.parametrize("tiles", [CUTS, CUTS[:1]])
@pytest.mark.parametrize("resampling", get_args(Resampling))
def test_coarse_targets_read_all_pixels_a_bounded_window_at_a_time(
    monkeypatch: pytest.MonkeyPatch, resampling: Resampling, tiles: list[tuple[slice, slice]]
) -> None:
    pixels = heights()
    (mosaic,) = group_by_grid(Remembering(pixels[:, *part], BOX[part], nodata=-9999) for part in tiles)
    target = GeoBox((25, 32), Affine(16, 0, -5008, 0, -16, 7008), "EPSG:3413")
    whole = warp(mosaic, target, resampling=resampling, anchor=(0, 0))
    monkeypatch.setattr("rtsx.cube.resample.warp._WINDOW_BYTES", 2**12)
    Remembering.asked.clear()
    cut = warp(mosaic, target, resampling=resampling, anchor=(0, 0))
    assert len(Remembering.asked) > 4
    assert max(Remembering.asked) <= 2**12
    np.testing.assert_array_equal(cut.pixels, whole.pixels)
    np.testing.assert_array_equal(cut.valid, whole.valid)


def test_errors_come_through(write_tif: Callable[..., Path]) -> None:
    path = write_tif("dem.tif", heights(), crs="EPSG:3413", transform=BOX.affine, nodata=-9999)
    mosaic = MosaicReader([file_reader(str(path)), cut(heights(), *CUTS[0])])
    path.unlink()
    with pytest.raises(CubeError, match=r"dem.tif cannot be read in rows 3-9, columns 4-11"):
        mosaic.read(slice(3, 9), slice(4, 11))


UPRIGHT = Affine(2, 0, 500_000, 0, -2, 7_700_000)


def tile(affine: Affine, value: int = 1) -> ArrayReader:
    return ArrayReader(np.full((1, 10, 10), value, np.int16), GeoBox((10, 10), affine, "EPSG:32608"), nodata=0)


@pytest.mark.parametrize("turn", [0.0, 90.0, 180.0, 37.0])
def test_tiles_turned_alike_are_one_raster_where_they_are_whole_pixels_apart(turn: float) -> None:
    lattice = UPRIGHT @ Affine.rotation(turn)
    tiles = [tile(lattice @ Affine.translation(*by)) for by in ((0, 0), (10, 0), (30, -7), (3.5, 0))]
    beside, apart = group_by_grid(tiles)
    assert beside.readers == tuple(tiles[:3])
    assert beside.geobox.shape == (17, 40)
    assert apart.readers == (tiles[3],)
    assert (beside.read(slice(7, 17), slice(0, 20)) == 1).all()


def test_tiles_turned_otherwise_are_kept_apart() -> None:
    tiles = [tile(UPRIGHT @ Affine.rotation(turn)) for turn in (0, 90, 180, 270, 37)]
    assert [one.readers for one in group_by_grid(tiles)] == [(one,) for one in tiles]


def test_a_mirrored_tile_is_not_taken_for_one_of_the_lattice() -> None:
    # Along its diagonal it lies in place.
    mirrored = Affine(0, 2, UPRIGHT.c, -2, 0, UPRIGHT.f)
    assert len(group_by_grid([tile(UPRIGHT), tile(mirrored)])) == 2
    with pytest.raises(CubeError, match=r"share one lattice to 0.01 px; one is 10 px off"):
        MosaicReader([tile(UPRIGHT), tile(mirrored)])
