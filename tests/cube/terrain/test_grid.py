"""The ground under a window: sizes, north, and the same answer however the window is cut."""

import pickle

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS, Geod, Transformer

from rtsx.cube.terrain import TerrainGrid
from rtsx.errors import CubeError

DEGREES = GeoBox((200, 90), Affine(1 / 3600, 0, -149.29, 0, -1 / 3600, 63.92), "EPSG:4326")
POLAR = GeoBox((200, 90), Affine(3, 0, -2_100_001.2, 0, -3, -400_000.7), "EPSG:3413")
UTM = GeoBox((200, 90), Affine(20, 0, 599_000, 0, -20, 6_747_000), "EPSG:32607")
GEOD = Geod(ellps="WGS84")


@pytest.mark.parametrize("geobox", [DEGREES, POLAR, UTM], ids=lambda box: str(box.crs))
def test_a_window_of_the_ground_is_the_ground_of_the_window(geobox: GeoBox) -> None:
    whole = TerrainGrid.from_geobox(geobox)
    for rows, columns in ((slice(0, 7), slice(80, 90)), (slice(31, 130), slice(5, 64)), (slice(199, 200), slice(0, 1))):
        part = TerrainGrid.from_geobox(geobox[rows, columns])
        assert part == whole.window(rows, columns)
        np.testing.assert_array_equal(part.heights_m(), whole.heights_m()[rows])
        np.testing.assert_array_equal(part.widths_m(), whole.widths_m()[rows])
        np.testing.assert_array_equal(part.true_north(), whole.true_north()[:, rows, columns])


def test_pixels_in_degrees_have_their_geodesic_size() -> None:
    ground = TerrainGrid.from_geobox(DEGREES)
    for row in (0, 77, 199):
        top = DEGREES.affine.f + row * DEGREES.affine.e
        north, south = top, top + DEGREES.affine.e
        assert ground.heights_m()[row] == pytest.approx(GEOD.inv(10, north, 10, south)[2], abs=1e-6)
        middle = (north + south) / 2
        assert ground.widths_m()[row] == pytest.approx(GEOD.inv(10, middle, 10 + 1 / 3600, middle)[2], abs=1e-6)


def test_mercator_is_measured_on_the_ground_and_others_as_the_map_says() -> None:
    mercator = TerrainGrid.from_geobox(GeoBox((4, 4), Affine(30, 0, -15e6, 0, -30, 11e6), "EPSG:3857"))
    assert mercator.widths_m() == pytest.approx(30 * np.cos(np.radians(69.86)), rel=0.01)
    np.testing.assert_array_equal(TerrainGrid.from_geobox(POLAR).widths_m(), np.full(200, 3.0))
    feet = TerrainGrid.from_geobox(GeoBox((2, 2), Affine(10, 0, 0, 0, -5, 0), "EPSG:2225"))
    assert feet.widths_m() == pytest.approx(10 * 1200 / 3937)
    assert feet.heights_m() == pytest.approx(5 * 1200 / 3937)


@pytest.mark.parametrize("corner", [(-2_100_000, -400_000), (1_234_567, 890_123), (-9_000, 6_000)])
def test_true_north_points_along_the_meridian(corner: tuple[float, float]) -> None:
    geobox = GeoBox((90, 110), Affine(3, 0, corner[0], 0, -3, corner[1]), "EPSG:3413")
    north = TerrainGrid.from_geobox(geobox).true_north()
    np.testing.assert_allclose(np.hypot(*north), 1, atol=5e-5)
    crs = CRS("EPSG:3413")
    to_lonlat = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    rows, columns = np.indices(geobox.shape.yx)
    x, y = corner[0] + (columns + 0.5) * 3, corner[1] - (rows + 0.5) * 3
    lon, lat, _ = GEOD.fwd(*to_lonlat.transform(x, y), np.zeros(x.shape), np.full(x.shape, 5.0))
    there_x, there_y = to_lonlat.transform(lon, lat, direction="INVERSE")
    expected = np.arctan2(there_x - x, there_y - y)
    turned = np.degrees(np.arctan2(north[0], north[1]) - expected)
    assert np.abs((turned + 180) % 360 - 180).max() < 1e-3


def test_north_is_up_where_the_grid_is_geographic() -> None:
    north = TerrainGrid.from_geobox(DEGREES).true_north()
    assert north.shape == (2, 200, 90)
    assert (north[0] == 0).all()
    assert (north[1] == 1).all()


def test_tiles_of_one_lattice_agree_whatever_their_writers_rounded() -> None:
    whole = TerrainGrid.from_geobox(DEGREES)
    tile = GeoBox((50, 40), Affine(1 / 3600, 0, -149.29 + 20 / 3600 + 3e-14, 0, -1 / 3600, 63.92 - 1e-13), "EPSG:4326")
    assert TerrainGrid.from_geobox(tile) == whole.window(slice(0, 50), slice(20, 60))


def test_a_row_may_lie_on_the_pole() -> None:
    ground = TerrainGrid.from_geobox(GeoBox((2, 3), Affine(0.5, 0, 0, 0, -0.5, 90.25), "EPSG:4326"))
    assert np.isfinite(ground.heights_m()).all()
    assert ground.widths_m()[0] == pytest.approx(0, abs=2e-6)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(CubeError, match=r"whose rows run along its x; got EPSG:3413.*gdalwarp"):
        TerrainGrid.from_geobox(GeoBox((2, 2), Affine(3, 1, 0, 0, -3, 0), "EPSG:3413"))
    with pytest.raises(CubeError, match="whose rows run along its x"):
        TerrainGrid.from_geobox(GeoBox((2, 2), Affine(3, 0, 0, 0, -3, 0), None))
    with pytest.raises(CubeError, match=r"elevation of 0-90 degrees; got 225\.0 and -3"):
        TerrainGrid.from_geobox(POLAR, sun_elevation=-3)


def test_it_is_a_value() -> None:
    ground = TerrainGrid.from_geobox(POLAR, sun_azimuth=170.0)
    assert pickle.loads(pickle.dumps(ground)) == ground
    assert hash(ground) != hash(TerrainGrid.from_geobox(POLAR))
