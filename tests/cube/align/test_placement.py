"""Exact positions, equal grids and scales."""

import numpy as np
import pytest
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from rtsx.cube.resample.transform import Placement, lattice_index
from rtsx.errors import CubeError

TARGET = GeoBox((10, 10), Affine(3, 0, 30, 0, -3, -60), "EPSG:3413")


def place(source: GeoBox, target: GeoBox = TARGET, anchor: tuple[float, float] = (0.0, 0.0)) -> Placement:
    return Placement.of(source, target, anchor=anchor)


def test_the_first_pixel_is_counted_from_the_anchor() -> None:
    assert lattice_index(TARGET, (0.0, 0.0)) == (20, 10)
    assert lattice_index(TARGET, (60.0, -90.0)) == (-10, -10)
    noisy = GeoBox((1, 1), Affine(0.1, 0, 0.1 * 12345, 0, -0.1, -0.1 * 54321), "EPSG:4326")
    assert lattice_index(noisy, (0.0, 0.0)) == (54321, 12345)
    with pytest.raises(CubeError, match="whole pixels of the lattice"):
        lattice_index(TARGET, (1.0, 0.0))
    with pytest.raises(CubeError, match="whole pixels of the lattice"):
        lattice_index(TARGET, (float("nan"), 0.0))


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
    found = Placement.of(east, lattice, anchor=(0.0, 80.0))
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
