"""The warp on rasters whose right answer is known without another warp."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from benchmarks.exact import exact_positions, exact_warp
from rtsx.cube.recipe import Resampling
from rtsx.cube.resample import warp as module
from rtsx.cube.resample.readers import ArrayReader
from rtsx.cube.resample.warp import warp
from rtsx.errors import CubeError

ORIGIN = (0.0, 0.0)
RESAMPLINGS = get_args(Resampling)


class Watched(ArrayReader):
    """Keeps the windows that were read."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.windows: list[tuple[slice, slice]] = []

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        assert 0 <= rows.start < rows.stop <= self.geobox.shape[0]
        assert 0 <= columns.start < columns.stop <= self.geobox.shape[1]
        self.windows.append((rows, columns))
        return super().read(rows, columns)


def box(shape: tuple[int, int], size: float, *, left: float, top: float, crs: str = "EPSG:3413") -> GeoBox:
    return GeoBox(shape, Affine(size, 0, left, 0, -size, top), crs)


@pytest.mark.parametrize("resampling", ["bilinear", "cubic", "average"])
@pytest.mark.parametrize("size", [4.0, 10.0, 25.0])
def test_a_gradient_does_not_move(resampling: Resampling, size: float) -> None:
    # A plane in map coordinates: whatever is half a pixel off shows as half a pixel's gradient.
    source = box((200, 200), 10.0, left=1_000_000, top=-1_000_000)
    centre = np.arange(200) + 0.5
    plane = (3.0 * centre[None, :] - 7.0 * centre[:, None])[None]
    count = int(1600 // size)
    target = box((count, count), size, left=1_000_000 + 8 * 25.0, top=-1_000_000 - 8 * 25.0)
    warped = warp(
        ArrayReader(plane, source, nodata=None), target, resampling=resampling, anchor=(1_000_000, -1_000_000)
    )
    at = (np.arange(count) + 0.5) * size / 10 + 20
    expected = 3.0 * at[None, :] - 7.0 * at[:, None]
    # The mean of pixels follows a plane where they fill the target's pixel, in steps of two samples to a source pixel.
    slack = 1e-6 if resampling != "average" else 10 * (0.5 if size < 10 else 0.3125)
    assert warped.valid.all()
    assert np.abs(warped.pixels[0] - expected).max() < slack
    if resampling == "average":
        assert abs((warped.pixels[0] - expected).mean()) < 1e-6


@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_a_planted_corner_stays_in_its_corner(resampling: Resampling) -> None:
    source = box((4, 4), 30.0, left=300, top=600)
    pixels = np.zeros((1, 4, 4), np.uint8)
    pixels[0, 0, 0] = 200
    pixels[0, 3, 3] = 100
    target = box((40, 40), 3.0, left=300, top=600)
    warped = warp(ArrayReader(pixels, source, nodata=None), target, resampling=resampling, anchor=ORIGIN)
    assert warped.valid.all()
    assert (warped.pixels[0, :5, :5] == 200).all()
    assert (warped.pixels[0, -5:, -5:] == 100).all()
    assert (warped.pixels[0, :15, -15:] == 0).all()
    if resampling in ("nearest", "average"):
        assert (warped.pixels[0] == np.kron(pixels[0], np.ones((10, 10), np.uint8))).all()


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_average_of_whole_pixels_is_their_mean(factor: int) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.normal(size=(2, 24, 36))
    source = box((24, 36), 5.0, left=100, top=50)
    target = box((24 // factor, 36 // factor), 5.0 * factor, left=100, top=50)
    warped = warp(ArrayReader(pixels, source, nodata=None), target, resampling="average", anchor=(100, 50))
    mean = pixels.reshape(2, 24 // factor, factor, 36 // factor, factor).mean(axis=(2, 4))
    np.testing.assert_allclose(warped.pixels, mean, atol=1e-12)


@pytest.mark.parametrize("factor", [2, 4])
def test_nearest_on_a_border_always_takes_the_same_side(factor: int) -> None:
    # A middle of a pixel twice as large lies on a border; coordinates that no binary fraction expresses make noise.
    size = 0.1 + 0.2
    source = box((64, 64), size, left=100 * size, top=77 * size)
    pixels = np.arange(64 * 64, dtype=np.int32).reshape(1, 64, 64)
    target = box((64 // factor, 64 // factor), factor * size, left=100 * size, top=77 * size)
    warped = warp(
        ArrayReader(pixels, source, nodata=None), target, resampling="nearest", anchor=(100 * size, 77 * size)
    )
    np.testing.assert_array_equal(warped.pixels, pixels[:, factor // 2 :: factor, factor // 2 :: factor])


@pytest.mark.parametrize("resampling", RESAMPLINGS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.bool_])
def test_pixel_equal_grids_give_the_stored_pixels(resampling: Resampling, dtype: Any) -> None:
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 2**53 + 1 if dtype == np.int64 else 2, (3, 50, 60)).astype(dtype)
    pixels[:, 10:20, 10:20] = 0
    source = box((50, 60), 3.0, left=-600, top=900)
    reader = Watched(pixels, source, nodata=0)
    target = box((30, 45), 3.0, left=-600 - 5 * 3, top=900 + 7 * 3)
    warped = warp(reader, target, resampling=resampling, anchor=ORIGIN)
    expected = np.zeros((3, 30, 45), dtype)
    expected[:, 7:, 5:] = pixels[:, :23, :40]
    assert warped.pixels.dtype == dtype
    np.testing.assert_array_equal(warped.pixels, expected)
    np.testing.assert_array_equal(warped.valid, expected != 0 if dtype != np.bool_ else _inside((3, 30, 45), 7, 5))
    assert reader.windows == [(slice(0, 23), slice(0, 40))]


def _inside(shape: tuple[int, ...], top: int, left: int) -> NDArray[np.bool_]:
    inside = np.zeros(shape, bool)
    inside[:, top:, left:] = True
    return inside


@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_a_pixel_is_valid_where_the_one_that_holds_its_middle_is(resampling: Resampling) -> None:
    source = box((3, 3), 10.0, left=0, top=30)
    pixels = np.array([[[1, 1, 1], [1, -1, 1], [1, 1, 4]], [[1, 1, 1], [1, 1, 1], [1, 1, -1]]], np.float32)
    target = box((14, 14), 2.5, left=-2.5, top=32.5)
    warped = warp(ArrayReader(pixels, source, nodata=-1), target, resampling=resampling, anchor=(-2.5, 32.5))
    held = np.zeros((2, 14, 14), bool)
    held[:, 1:13, 1:13] = np.repeat(np.repeat(pixels != -1, 4, 1), 4, 2)
    np.testing.assert_array_equal(warped.valid, held)
    assert (warped.pixels[~held] == -1).all()
    # What is missing weighs nothing: around the hole everything stays 1.
    assert (warped.pixels[0, 1:9, 1:9][held[0, 1:9, 1:9]] == 1).all()
    assert (warped.pixels[1][held[1]] == 1).all()


@pytest.mark.parametrize("resampling", RESAMPLINGS)
@pytest.mark.parametrize(("nodata", "fill"), [(None, 0), (7, 7), (300, 0), (float("nan"), 0)])
def test_invalid_integers_hold_nodata_or_zero(resampling: Resampling, nodata: float | None, fill: int) -> None:
    source = box((5, 5), 10.0, left=0, top=50)
    reader = ArrayReader(np.full((1, 5, 5), 9, np.uint8), source, nodata=nodata)
    warped = warp(reader, box((9, 9), 9.0, left=-9, top=54), resampling=resampling, anchor=ORIGIN)
    assert warped.valid.any()
    assert not warped.valid.all()
    assert (warped.pixels[~warped.valid] == fill).all()
    assert (warped.pixels[warped.valid] == 9).all()


@pytest.mark.parametrize("resampling", ["bilinear", "cubic", "average"])
@pytest.mark.parametrize(
    ("dtype", "nodata", "low", "high"),
    [
        (np.int16, 0, -3, 3),
        (np.uint8, 255, 250, 254),
        (np.uint8, 0, 1, 2),
        (np.uint16, 5, 4, 6),
        (np.int16, -32768, -32767, 0),
    ],
)
def test_rounding_never_meets_nodata(resampling: Resampling, dtype: Any, nodata: float, low: int, high: int) -> None:
    rng = np.random.default_rng(4)
    pixels = rng.integers(low, high + 1, (1, 60, 60)).astype(dtype)
    pixels[pixels == nodata] = high
    source = box((60, 60), 10.0, left=0, top=600)
    target = box(
        (50, 50), 11.3 if resampling != "average" else 23.0, left=0, top=565 if resampling != "average" else 575
    )
    target = GeoBox(target.shape, Affine(target.affine.a, 0, 0, 0, target.affine.e, 600), "EPSG:3413")
    warped = warp(ArrayReader(pixels, source, nodata=nodata), target, resampling=resampling, anchor=(0, 600))
    assert warped.valid.sum() > 500
    assert (warped.pixels[warped.valid] != nodata).all()
    floats = ArrayReader(pixels.astype(float), source, nodata=nodata)
    plain = warp(floats, target, resampling=resampling, anchor=(0, 600))
    apart = np.abs(warped.pixels - np.clip(plain.pixels, np.iinfo(dtype).min, np.iinfo(dtype).max))[warped.valid]
    assert apart.max() <= 1.0
    rounded = np.clip(np.rint(plain.pixels[warped.valid]), np.iinfo(dtype).min, np.iinfo(dtype).max)
    assert apart[rounded != nodata].max() <= 0.5


def test_a_mean_of_nodata_itself_moves_up() -> None:
    source = box((1, 2), 10.0, left=0, top=10)
    reader = ArrayReader(np.array([[[-4, 4]]], np.int16), source, nodata=0)
    shifted = GeoBox((1, 1), Affine(10, 0, 5, 0, -10, 10), "EPSG:3413")
    warped = warp(reader, shifted, resampling="bilinear", anchor=(5, 10))
    assert warped.pixels.tolist() == [[[1]]]
    assert warped.valid.all()


def test_integers_are_rounded_and_clipped() -> None:
    source = box((1, 4), 10.0, left=0, top=10)
    reader = ArrayReader(np.array([[[0, 255, 255, 0]]], np.uint8), source, nodata=None)
    target = GeoBox((1, 8), Affine(5, 0, 0, 0, -5, 7.5), "EPSG:3413")
    taken = warp(reader, target, resampling="bilinear", anchor=(0, 7.5)).pixels
    assert taken.tolist() == [[[0, 64, 191, 255, 255, 191, 64, 0]]]
    wide = ArrayReader(np.array([[[-7.4, 300.0, 12.6, np.nan]]]), source, nodata=None)
    same = warp(wide, source, resampling="bilinear", anchor=(0, 10), dtype=np.dtype(np.uint8))
    assert same.pixels.tolist() == [[[0, 255, 13, 0]]]
    assert same.valid.tolist() == [[[True, True, True, False]]]


def test_cubic_overshoots_as_keys_says_and_falls_back_at_the_edge() -> None:
    source = box((8, 8), 10.0, left=0, top=80)
    step = np.zeros((1, 8, 8))
    step[..., 4:] = 16
    target = GeoBox((1, 4), Affine(10, 0, 25, 0, -10, 45), "EPSG:3413")
    warped = warp(ArrayReader(step, source, nodata=None), target, resampling="cubic", anchor=(25, 45))
    np.testing.assert_allclose(warped.pixels[0, 0], [-1, 8, 17, 16])
    step[0, 0, 0] = np.nan  # within the sixteen of the first two only
    far = GeoBox((1, 2), Affine(10, 0, 5, 0, -10, 75), "EPSG:3413")
    warped = warp(ArrayReader(step, source, nodata=None), far, resampling="cubic", anchor=(5, 75))
    assert warped.pixels.tolist() == [[[0, 0]]]


@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_nothing_is_read_where_the_raster_is_not(resampling: Resampling) -> None:
    source = box((50, 50), 10.0, left=500_000, top=7_700_000, crs="EPSG:32608")
    reader = Watched(np.ones((2, 50, 50), np.uint16), source, nodata=0)
    warped = warp(reader, box((300, 300), 10.0, left=0, top=0), resampling=resampling, anchor=ORIGIN)
    assert reader.windows == []
    assert warped.pixels.shape == (2, 300, 300)
    assert not warped.valid.any()


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
def test_only_the_window_is_read(resampling: Resampling) -> None:
    source = box((2000, 2000), 10.0, left=500_000, top=7_700_000, crs="EPSG:32608")
    reader = Watched(np.ones((1, 2000, 2000), np.uint8), source, nodata=0)
    x, y = Transformer.from_crs("EPSG:32608", "EPSG:3413", always_xy=True).transform(510_000, 7_690_000)
    target = box((20, 30), 10.0, left=round(x / 10) * 10, top=round(y / 10) * 10)
    assert warp(reader, target, resampling=resampling, anchor=ORIGIN).valid.all()
    ((rows, columns),) = reader.windows
    assert 1000 - 50 < rows.start < rows.stop < 1000 + 50
    assert 1000 - 50 < columns.start < columns.stop < 1000 + 50


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
def test_rotated_and_mirrored_sources(resampling: Resampling) -> None:
    rng = np.random.default_rng(5)
    pixels = rng.integers(1, 200, (1, 90, 100)).astype(np.float64)
    for transform in (
        Affine.translation(1000, 2000) @ Affine.rotation(30) @ Affine.scale(10, -10),
        Affine(10, 0, 700, 0, 10, 1500),  # the first row is the southern one
    ):
        source = GeoBox((90, 100), transform, "EPSG:3413")
        target = box((150, 150), 9.0, left=630, top=2700)
        reader = ArrayReader(pixels, source, nodata=None)
        warped = warp(reader, target, resampling=resampling, anchor=ORIGIN)
        positions = exact_positions(source, target)
        value, valid = exact_warp(pixels, positions, resampling=resampling, nodata=None)
        clear = np.minimum(*(np.abs(axis - np.round(axis)) for axis in positions)) > 1e-4
        np.testing.assert_array_equal(warped.valid[0][clear], valid[0][clear])
        assert np.abs(warped.pixels - value)[0][clear & valid[0]].max() < 1e-3


def around_the_earth(step: float, *, first: float, dtype: Any = np.float64) -> ArrayReader:
    """Longitudes by latitudes, 60-90 degrees north, all the way around."""
    columns, rows = round(360 / step), round(30 / step)
    lon = first + (np.arange(columns) + 0.5) * step
    lat = 90 - (np.arange(rows) + 0.5) * step
    # Smooth across the seam, and different everywhere.
    pixels = 100 + 20 * np.sin(np.radians(3 * lon))[None, :] + lat[:, None]
    return Watched(
        pixels[None].astype(dtype),
        GeoBox((rows, columns), Affine(step, 0, first, 0, -step, 90), "EPSG:4326"),
        nodata=None,
    )


@pytest.mark.parametrize("first", [-180.0, 0.0, -31.0])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize("place", [(180.0, 70.0), (0.0, 75.0), (-31.0, 65.0), (20.0, 90.0)])
def test_sources_that_go_around_the_earth_have_no_seam(
    first: float, resampling: Resampling, place: tuple[float, float]
) -> None:
    reader = around_the_earth(0.25, first=first)
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3413", always_xy=True).transform(*place)
    size = 5000.0
    target = box((90, 80), size, left=(round(x / size) - 40) * size, top=(round(y / size) + 45) * size)
    warped = warp(reader, target, resampling=resampling, anchor=ORIGIN)
    positions = exact_positions(reader.geobox, target, turn=reader.geobox.shape[1])
    value, valid = exact_warp(reader.pixels, positions, resampling=resampling, nodata=None, wrap=True)
    clear = np.minimum(*(np.abs(axis - np.round(axis)) for axis in positions)) > 1e-4
    assert clear.mean() > 0.97
    assert warped.valid.all()
    assert valid.all()
    assert np.abs(warped.pixels - value)[0][clear].max() < 1e-3
    for rows, columns in ((slice(0, 37), slice(11, 80)), (slice(37, 90), slice(0, 41))):
        part = warp(reader, target[rows, columns], resampling=resampling, anchor=ORIGIN)
        np.testing.assert_array_equal(part.pixels, warped.pixels[:, rows, columns])


def test_average_across_the_seam_and_at_the_pole() -> None:
    reader = around_the_earth(0.25, first=-180.0)
    for place in ((180.0, 70.0), (20.0, 90.0)):
        x, y = Transformer.from_crs("EPSG:4326", "EPSG:3413", always_xy=True).transform(*place)
        target = box((30, 30), 30_000.0, left=(round(x / 3e4) - 15) * 3e4, top=(round(y / 3e4) + 15) * 3e4)
        warped = warp(reader, target, resampling="average", anchor=ORIGIN)
        positions = exact_positions(reader.geobox, target, turn=1440)
        value, _ = exact_warp(reader.pixels, positions, resampling="bilinear", nodata=None, wrap=True)
        assert warped.valid.all()
        near_pole = np.hypot(*np.meshgrid(np.arange(30) - 14.5, np.arange(30) - 14.5)) < 3
        far = ~near_pole if place[1] == 90 else np.ones((30, 30), bool)
        assert np.abs(warped.pixels - value)[0][far].max() < 1.5
        part = warp(reader, target[7:19, 3:30], resampling="average", anchor=ORIGIN)
        np.testing.assert_array_equal(part.pixels, warped.pixels[:, 7:19, 3:30])


def test_a_source_beyond_180_degrees_meets_both_sides() -> None:
    source = GeoBox((40, 80), Affine(0.25, 0, 170, 0, -0.25, 75), "EPSG:4326")
    rng = np.random.default_rng(6)
    pixels = rng.normal(size=(1, 40, 80))
    reader = Watched(pixels, source, nodata=None)
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3413", always_xy=True).transform(180, 70)
    target = box((60, 60), 5000.0, left=(round(x / 5e3) - 30) * 5e3, top=(round(y / 5e3) + 30) * 5e3)
    warped = warp(reader, target, resampling="bilinear", anchor=ORIGIN)
    rows, columns = exact_positions(source, target)
    value, valid = exact_warp(pixels, (rows, columns % 1440), resampling="bilinear", nodata=None)
    np.testing.assert_array_equal(warped.valid, valid)
    assert valid.mean() > 0.9
    assert np.abs(warped.pixels - value)[valid].max() < 1e-3
    assert len(reader.windows) == 1


def test_memory_stays_bounded_around_the_pole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WINDOW_BYTES", 200_000)
    reader = around_the_earth(0.02, first=-180.0, dtype=np.uint8)
    target = box((256, 256), 500.0, left=-64_000, top=64_000)
    warped = warp(reader, target, resampling="bilinear", anchor=ORIGIN)
    assert warped.valid.all()
    largest = max((r.stop - r.start) * (c.stop - c.start) for r, c in reader.windows)
    assert largest < 500_000 < 60 * 18_000
    monkeypatch.setattr(module, "_WINDOW_BYTES", 10**9)
    whole = warp(reader, target, resampling="bilinear", anchor=ORIGIN)
    np.testing.assert_array_equal(warped.pixels, whole.pixels)


def test_large_blocks_of_exact_positions_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = around_the_earth(0.25, first=-180.0)
    target = box((200, 200), 500.0, left=-50_000, top=50_000)
    whole = warp(reader, target, resampling="cubic", anchor=ORIGIN)
    monkeypatch.setattr(module, "_EXACT_PIXELS", 64 * 64)
    cut = warp(reader, target, resampling="cubic", anchor=ORIGIN)
    np.testing.assert_array_equal(cut.pixels, whole.pixels)


class Levelled(ArrayReader):
    """An array with one level of twice the size, recognisable by its values."""

    def overview_for(self, factor: float) -> ArrayReader:
        if factor < 2:
            return self
        height, width = self.geobox.shape
        a = self.geobox.affine
        half = GeoBox((height // 2, width // 2), Affine(2 * a.a, 0, a.c, 0, 2 * a.e, a.f), self.geobox.crs)
        return ArrayReader(np.full((1, height // 2, width // 2), 2.0), half, nodata=None)


@pytest.mark.parametrize(("size", "level"), [(10.0, 1), (19.0, 1), (20.0, 2), (21.0, 2), (40.0, 2)])
@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_overviews_are_for_coarse_targets_and_never_for_nearest(
    size: float, level: int, resampling: Resampling
) -> None:
    source = box((100, 100), 10.0, left=500_000, top=7_700_000, crs="EPSG:32608")
    x, y = Transformer.from_crs("EPSG:32608", "EPSG:3413", always_xy=True).transform(500_500, 7_699_500)
    target = box((6, 6), size, left=round(x / size) * size, top=round(y / size) * size)
    reader = Levelled(np.full((1, 100, 100), 1.0), source, nodata=None)
    warped = warp(reader, target, resampling=resampling, anchor=ORIGIN)
    np.testing.assert_allclose(warped.pixels, 1 if resampling == "nearest" else level, rtol=1e-12)


def test_the_target_has_to_lie_on_the_lattice() -> None:
    reader = ArrayReader(np.ones((1, 5, 5)), box((5, 5), 10.0, left=0, top=50), nodata=None)
    with pytest.raises(CubeError, match=r"whole pixels of the lattice, to 0.01 px; .* row -16.6667, column 0.0000"):
        warp(reader, box((2, 2), 3.0, left=0, top=50), resampling="nearest", anchor=ORIGIN)
    with pytest.raises(CubeError, match="north-up grid that has a CRS"):
        warp(reader, GeoBox((2, 2), Affine(3, 0, 0, 0, 3, 0), "EPSG:3413"), resampling="nearest", anchor=ORIGIN)
    with pytest.raises(CubeError, match="north-up grid that has a CRS"):
        warp(reader, GeoBox((2, 2), Affine(3, 0, 0, 0, -3, 0), None), resampling="nearest", anchor=ORIGIN)
    bare = ArrayReader(np.ones((1, 5, 5)), GeoBox((5, 5), Affine(3, 0, 0, 0, -3, 0), None), nodata=None)
    with pytest.raises(CubeError, match="can be aligned when its CRS and transform are known"):
        warp(bare, box((2, 2), 3.0, left=0, top=60), resampling="nearest", anchor=ORIGIN)
    with pytest.raises(CubeError, match=r"integers or floats; got dtype complex64"):
        warp(
            ArrayReader(np.ones((1, 5, 5), np.complex64), reader.geobox, nodata=None),
            box((2, 2), 10.0, left=0, top=50),
            resampling="nearest",
            anchor=ORIGIN,
        )


def test_threads_warp_at_once_and_agree() -> None:
    source = box((300, 300), 10.0, left=500_000, top=7_700_000, crs="EPSG:32608")
    reader = ArrayReader(np.random.default_rng(7).integers(0, 900, (2, 300, 300)).astype(np.uint16), source, nodata=0)
    x, y = Transformer.from_crs("EPSG:32608", "EPSG:3413", always_xy=True).transform(501_500, 7_698_500)
    target = box((128, 128), 10.0, left=round(x / 10) * 10 - 640, top=round(y / 10) * 10 + 640)
    alone = warp(reader, target, resampling="bilinear", anchor=ORIGIN)
    with ThreadPoolExecutor(8) as pool:
        others = list(pool.map(lambda _: warp(reader, target, resampling="bilinear", anchor=ORIGIN), range(16)))
    for other in others:
        np.testing.assert_array_equal(other.pixels, alone.pixels)


def test_it_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(warp)) is warp


@pytest.mark.parametrize("dtype", [np.float16, np.dtype(">u2")])
def test_rare_dtypes(dtype: Any) -> None:
    source = box((20, 20), 10.0, left=0, top=200)
    reader = ArrayReader(np.full((1, 20, 20), 7, dtype), source, nodata=0)
    for resampling in RESAMPLINGS:
        warped = warp(reader, box((10, 10), 13.0, left=26, top=13 * 14), resampling=resampling, anchor=ORIGIN)
        assert (warped.pixels == 7).all()
        assert warped.valid.all()
