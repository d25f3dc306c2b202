"""The lattice: when cells are interpolated, when they are exact, and how far a block reaches."""

from typing import Any

import numpy as np
import pytest
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from rtsx.cube.resample.transform import CELL, GridTransform, TransformGrid, pixel_index, transform_grid
from rtsx.errors import CubeError

FAR = 10**9


def coordinates(source: GeoBox, *, size: float, rows: slice, columns: slice, **options: Any) -> TransformGrid:
    target = GeoBox((1, 1), Affine(size, 0, 0, 0, -size, 0), "EPSG:3413")
    placement = GridTransform.of(source, target, anchor=(0.0, 0.0))
    found = transform_grid(placement, rows, columns, **{"corners": False, "limit": FAR} | options)
    assert found is not None
    return found


def lattice_of(lon: float, lat: float, *, size: float, count: int) -> tuple[slice, slice]:
    """Rows and columns of the EPSG:3413 lattice around a place."""
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3413", always_xy=True).transform(lon, lat)
    row, column = round(-y / size), round(x / size)
    return slice(row - count // 2, row + count // 2), slice(column - count // 2, column + count // 2)


@pytest.mark.parametrize("size", [3.0, 10.0, 30.0])
def test_zones_and_degrees_are_interpolated(size: float) -> None:
    for crs, transform in (
        ("EPSG:32608", Affine(3, 0, 400_000, 0, -3, 7_700_000)),
        ("EPSG:4326", Affine(0.00027, 0, -136, 0, -0.00027, 70)),
    ):
        rows, columns = lattice_of(-135.4, 69.1, size=size, count=300)
        found = coordinates(GeoBox((9000, 9000), transform, crs), size=size, rows=rows, columns=columns)
        assert not found.is_exact.any()
        assert found.exact_rows.shape == (0, 0)


def test_jumps_and_the_pole_are_exact() -> None:
    world = GeoBox((1800, 21600), Affine(1 / 60, 0, -180, 0, -1 / 60, 90), "EPSG:4326")
    rows, columns = lattice_of(180, 70, size=300.0, count=640)
    found = coordinates(world, size=300.0, rows=rows, columns=columns)
    assert 0 < found.is_exact.mean() < 0.3  # the cells along one line
    rows, columns = lattice_of(0, 90, size=300.0, count=640)
    found = coordinates(world, size=300.0, rows=rows, columns=columns)
    middle = found.is_exact.shape[0] // 2
    assert found.is_exact[middle - 1 : middle + 1, middle - 1 : middle + 1].all()


def test_cells_are_told_apart_by_global_indices_alone() -> None:
    world = GeoBox((1800, 21600), Affine(1 / 60, 0, -180, 0, -1 / 60, 90), "EPSG:4326")
    rows, columns = lattice_of(180, 85, size=300.0, count=512)
    whole = coordinates(world, size=300.0, rows=rows, columns=columns)
    part = coordinates(
        world,
        size=300.0,
        rows=slice(rows.start + 100, rows.start + 333),
        columns=slice(columns.start + 7, columns.start + 300),
    )
    y, x = (first - other for first, other in zip(part.first_cell, whole.first_cell, strict=True))
    height, width = part.is_exact.shape
    np.testing.assert_array_equal(part.is_exact, whole.is_exact[y : y + height, x : x + width])
    np.testing.assert_array_equal(
        part.node_columns, whole.node_columns[2 * y : 2 * (y + height) + 1, 2 * x : 2 * (x + width) + 1]
    )


def test_negative_indices_are_rounded_down() -> None:
    source = GeoBox((100, 100), Affine(3, 0, -150, 0, -3, 150), "EPSG:3413")
    found = coordinates(source, size=3.0, rows=slice(-1, 1), columns=slice(-CELL - 1, -CELL))
    assert found.first_cell == (-1, -2)
    assert found.is_exact.shape == (2, 1)
    np.testing.assert_allclose(found.node_rows[:, 0], 50.5 + np.array([-64, -32, 0, 32, 64]))


def test_the_reach_holds_every_position_and_not_much_more() -> None:
    rng = np.random.default_rng(1)
    source = GeoBox((9000, 9000), Affine(10, 0, 400_000, 0, -10, 7_700_000), "EPSG:32608")
    around = lattice_of(-135.4, 69.1, size=10.0, count=600)
    for _ in range(20):
        top, left = (span.start + int(rng.integers(0, 500)) for span in around)
        rows, columns = (slice(start, start + int(rng.integers(1, 200))) for start in (top, left))
        found = coordinates(source, size=10.0, rows=rows, columns=columns)
        reach = found.reach()
        assert reach is not None
        grid = np.meshgrid(np.arange(rows.start, rows.stop), np.arange(columns.start, columns.stop), indexing="ij")
        exact = found.placement.positions(grid[0] * 1.0, grid[1] * 1.0)
        for (low, high), axis in zip((reach.rows, reach.columns), exact, strict=True):
            assert low <= axis.min() <= low + 3
            assert high - 3 <= axis.max() <= high


def test_blocks_with_exact_cells_have_a_limit() -> None:
    world = GeoBox((1800, 21600), Affine(1 / 60, 0, -180, 0, -1 / 60, 90), "EPSG:4326")
    rows, columns = lattice_of(0, 90, size=300.0, count=128)
    target = GeoBox((1, 1), Affine(300, 0, 0, 0, -300, 0), "EPSG:3413")
    placement = GridTransform.of(world, target, anchor=(0.0, 0.0))
    assert transform_grid(placement, rows, columns, corners=False, limit=128 * 128 - 1) is None
    assert transform_grid(placement, rows, columns, corners=False, limit=128 * 128) is not None


def test_steps_are_source_pixels_along_a_target_pixel() -> None:
    source = GeoBox((900, 900), Affine(3, 0, -1350, 0, -6, 2700), "EPSG:3413")
    found = coordinates(source, size=12.0, rows=slice(-70, 70), columns=slice(-70, 70))
    np.testing.assert_allclose(found.steps(), np.broadcast_to([2.0, 4.0], (4, 4, 2)))


TARGET = GeoBox((10, 10), Affine(3, 0, 30, 0, -3, -60), "EPSG:3413")


def place(source: GeoBox, target: GeoBox = TARGET, anchor: tuple[float, float] = (0.0, 0.0)) -> GridTransform:
    return GridTransform.of(source, target, anchor=anchor)


def test_the_first_pixel_is_counted_from_the_anchor() -> None:
    assert pixel_index(TARGET, (0.0, 0.0)) == (20, 10)
    assert pixel_index(TARGET, (60.0, -90.0)) == (-10, -10)
    noisy = GeoBox((1, 1), Affine(0.1, 0, 0.1 * 12345, 0, -0.1, -0.1 * 54321), "EPSG:4326")
    assert pixel_index(noisy, (0.0, 0.0)) == (54321, 12345)
    with pytest.raises(CubeError, match="whole pixels of the lattice"):
        pixel_index(TARGET, (1.0, 0.0))
    with pytest.raises(CubeError, match="whole pixels of the lattice"):
        pixel_index(TARGET, (float("nan"), 0.0))


@pytest.mark.parametrize(
    ("source", "offset"),
    [
        (GeoBox((50, 40), Affine(3, 0, -9, 0, -3, -60), "EPSG:3413"), (-20, 3)),
        (GeoBox((50, 40), Affine(3, 0, -9.0001, 0, -3, -60), "EPSG:3413"), (-20, 3)),
        (GeoBox((50, 40), Affine(3, 0, -9.3, 0, -3, -60), "EPSG:3413"), None),
        (GeoBox((50, 40), Affine(3.001, 0, -9, 0, -3.001, -60), "EPSG:3413"), None),
        (GeoBox((50, 40), Affine(3, 0, -9, 0, 3, -60), "EPSG:3413"), None),
        (GeoBox((50, 40), Affine(3, 0.1, -9, 0, -3, -60), "EPSG:3413"), None),
        (GeoBox((50, 40), Affine(3, 0, -9, 0, -3, -60), "EPSG:32608"), None),
        (GeoBox((50, 40), Affine(3, 0, -9, 0, -3, -60), CRS("EPSG:3413").to_wkt(version="WKT1_ESRI")), (-20, 3)),
    ],
)
def test_pixel_equal_grids(source: GeoBox, offset: tuple[int, int] | None) -> None:
    assert place(source).offset() == offset


def test_once_around_the_earth() -> None:
    world = GeoBox((10, 1440), Affine(0.25, 0, -180, 0, -0.25, 80), "EPSG:4326")
    assert (place(world).turn, place(world).period) == (1440, 1440)
    half = GeoBox((10, 720), Affine(0.25, 0, -180, 0, -0.25, 80), "EPSG:4326")
    assert (place(half).turn, place(half).period) == (1440, 0)
    uneven = GeoBox((10, 1340), Affine(0.269, 0, -180, 0, -0.269, 80), "EPSG:4326")
    assert place(uneven).period == 0  # it ends within a pixel
    assert place(TARGET).turn == 0
    gon = GeoBox((10, 400), Affine(1, 0, 0, 0, -1, 80), "EPSG:4901")  # ATF Paris, in grads
    assert gon.crs is not None
    assert place(gon).turn == pytest.approx(400)


def test_longitudes_are_those_nearest_to_the_raster() -> None:
    east = GeoBox((10, 40), Affine(0.25, 0, 175, 0, -0.25, 80), "EPSG:4326")
    lattice = GeoBox((1, 1), Affine(0.25, 0, 0, 0, -0.25, 0), "EPSG:4326")
    found = GridTransform.of(east, lattice, anchor=(0.0, 80.0))
    _, columns = found.positions(np.zeros(4), np.array([-180, 179, -179.75, 10]) / 0.25 - 0.5)
    np.testing.assert_allclose(columns, [20, 16, 21, -660])
    _, columns = found.positions(np.zeros(1), np.array([-10.0]) / 0.25 - 0.5)  # the far side of the earth: left of it
    assert columns[0] == pytest.approx(700)


@pytest.mark.parametrize(("size", "scale"), [(3.0, 0.3), (10.0, 1.0), (40.0, 4.0)])
def test_scale_is_taken_where_it_is_least(size: float, scale: float) -> None:
    target = GeoBox((1, 1), Affine(size, 0, 0, 0, -size, 0), "EPSG:3413")
    square = GeoBox((100, 100), Affine(10, 0, 0, 0, -10, 0), "EPSG:3413")
    assert place(square, target).scale() == pytest.approx(scale)
    oblong = GeoBox((100, 100), Affine(5, 0, 0, 0, -10, 0), "EPSG:3413")
    assert place(oblong, target).scale() == pytest.approx(scale)
    turned = GeoBox((500, 500), Affine(10, 0, 500_000, 0, -10, 7_700_000), "EPSG:32608")
    assert place(turned, target).scale() == pytest.approx(scale, rel=0.03)
    narrow = GeoBox((100, 100), Affine(10 / 111_000, 0, -135, 0, -10 / 111_000, 75), "EPSG:4326")
    assert place(narrow, target).scale() == pytest.approx(scale, rel=0.03)


def test_scale_around_the_earth() -> None:
    target = GeoBox((1, 1), Affine(25_000, 0, 0, 0, -25_000, 0), "EPSG:3413")
    world = GeoBox((120, 1440), Affine(0.25, 0, -180, 0, -0.25, 90), "EPSG:4326")
    assert 0.8 < place(world, target).scale() < 1.0
