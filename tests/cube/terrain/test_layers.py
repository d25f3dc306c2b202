"""Terrain layers: against plain loops on rough ground with holes, and on surfaces whose answers are known."""

import math
from typing import Any

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Geod, Transformer

from rtsx.cube.terrain import TERRAIN, TerrainGrid, terrain_block
from tests.cube.terrain import naive

POLAR = GeoBox((37, 41), Affine(2, 0, -2_100_006, 0, -2, -400_002), "EPSG:3413")
OBLONG = GeoBox((33, 29), Affine(7, 0, 500_000.5, 0, -19, 7_700_003), "EPSG:32608")
SOUTH_UP = GeoBox((30, 31), Affine(20, 0, 600_000, 0, 20, 6_700_000), "EPSG:32607")
DEGREES = GeoBox((30, 34), Affine(1 / 3600, 0, -149.3, 0, -1 / 3600, 71.4), "EPSG:4326")
MERCATOR = GeoBox((30, 34), Affine(30, 0, -15_000_000, 0, -30, 11_000_000), "EPSG:3857")
GRIDS = pytest.mark.parametrize("geobox", [POLAR, OBLONG, SOUTH_UP, DEGREES, MERCATOR], ids=lambda box: str(box.crs))


def rough(shape: tuple[int, int], *, seed: int = 0, holes: float = 0.15) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    dem = np.cumsum(rng.normal(0, 2, shape), axis=1) + np.cumsum(rng.normal(0, 3, shape), axis=0) + 400
    dem[rng.random(shape) < holes] = np.nan
    dem[3:9, 5:9] = np.nan
    dem[5, 6] = 410  # a pixel alone
    dem[12:15, 10:14] = 333  # a lake
    return dem.astype(np.float32)


def layer(name: str, dem: NDArray[Any], geobox: GeoBox, **sun: float) -> NDArray[np.float32]:
    ground = TerrainGrid.from_geobox(geobox, **sun)
    return terrain_block(dem, np.isfinite(dem), ground=ground, layers=[name], halo=0)[0]


def signed(ground: TerrainGrid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.copysign(ground.heights_m(), ground.pixel[0]), np.copysign(ground.widths_m(), ground.pixel[1])


@GRIDS
def test_relative_elevation_is_the_height_above_the_mean_of_the_circle(geobox: GeoBox) -> None:
    dem = rough(geobox.shape.yx)
    ground = TerrainGrid.from_geobox(geobox)
    expected = naive.relative_elevation(dem.astype(float), ground.heights_m(), ground.widths_m())
    np.testing.assert_allclose(layer("relative_elevation", dem, geobox), expected, atol=5e-5)


@GRIDS
def test_slope_aspect_and_hillshade_follow_horn(geobox: GeoBox) -> None:
    dem = rough(geobox.shape.yx, seed=1)
    ground = TerrainGrid.from_geobox(geobox)
    expected = naive.horn(dem.astype(float), *signed(ground), north=ground.true_north().astype(float), sun=(225, 25))
    np.testing.assert_allclose(layer("slope", dem, geobox), expected["slope"], atol=1e-4)
    np.testing.assert_allclose(layer("hillshade", dem, geobox), expected["hillshade"], atol=1e-6)
    turned = layer("aspect", dem, geobox) - expected["aspect"]
    np.testing.assert_allclose((turned + 180) % 360 - 180, np.where(np.isnan(expected["aspect"]), np.nan, 0), atol=1e-3)


@GRIDS
def test_curvatures_follow_zevenbergen_and_thorne(geobox: GeoBox) -> None:
    dem = rough(geobox.shape.yx, seed=2)
    ground = TerrainGrid.from_geobox(geobox)
    north_up = dem if ground.pixel[0] < 0 else dem[::-1]
    heights, widths = ground.heights_m(), ground.widths_m()
    for name, expected in naive.curvatures(north_up.astype(float), heights, widths).items():
        made = layer(name, dem, geobox)
        np.testing.assert_allclose(made if ground.pixel[0] < 0 else made[::-1], expected, rtol=1e-5, atol=1e-5)


@GRIDS
def test_every_layer_is_invalid_where_the_height_is_and_finite_where_it_can_be(geobox: GeoBox) -> None:
    dem = rough(geobox.shape.yx)
    for name in TERRAIN:
        made = layer(name, dem, geobox)
        assert made.dtype == np.float32
        assert np.isnan(made[np.isnan(dem)]).all()
        if name in ("dem", "relative_elevation"):
            assert np.isfinite(made[np.isfinite(dem)]).all()
    assert np.isnan(layer("slope", dem, geobox)[5, 6]), "nothing is known around a pixel alone"
    assert layer("slope", dem, geobox)[13, 11] == layer("aspect", dem, geobox)[13, 11] == 0


def test_what_lies_under_the_mask_never_matters() -> None:
    dem = rough(POLAR.shape.yx)
    valid = np.isfinite(dem)
    ground = TerrainGrid.from_geobox(POLAR)
    expected = terrain_block(dem, valid, ground=ground, layers=list(TERRAIN), halo=0)
    for junk in (0.0, -9999.0, 3.4e38, np.inf, np.nan):
        under = np.where(valid, dem, np.float32(junk))
        np.testing.assert_array_equal(
            terrain_block(under, valid, ground=ground, layers=list(TERRAIN), halo=0), expected
        )
    # Undeclared nodata is no height either: it does not reach the mean of its neighbours.
    lost = dem.copy()
    lost[20, 20] = 3.4e38
    circle = layer("relative_elevation", lost, POLAR)
    dem[20, 20] = np.nan
    np.testing.assert_array_equal(circle, layer("relative_elevation", dem, POLAR))


@pytest.mark.parametrize("geobox", [POLAR, OBLONG, SOUTH_UP], ids=lambda box: str(box.crs))
@pytest.mark.parametrize(("rise_x", "rise_y"), [(0.3, 0.0), (0.0, -1.2), (-0.05, 0.2), (1.0, 1.0)])
def test_a_plane_is_known_up_to_its_edge(geobox: GeoBox, rise_x: float, rise_y: float) -> None:
    columns, rows = np.meshgrid(np.arange(geobox.shape[1]), np.arange(geobox.shape[0]))
    dem = 50 + rise_x * columns * geobox.affine.a + rise_y * rows * geobox.affine.e
    steep = math.hypot(rise_x, rise_y)
    np.testing.assert_allclose(layer("slope", dem, geobox), math.degrees(math.atan(steep)), atol=2e-3)
    # Downhill on the map, and its azimuth on the ellipsoid by geodesics.
    crs = CRS(str(geobox.crs))
    to_lonlat = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    x, y = (np.array(axis) for axis in geobox.affine @ (columns.ravel() + 0.5, rows.ravel() + 0.5))
    here, there = to_lonlat.transform(x, y), to_lonlat.transform(x - rise_x / steep, y - rise_y / steep)
    azimuth = np.array(Geod(ellps="WGS84").inv(*here, *there)[0]).reshape(dem.shape) % 360
    aspect = layer("aspect", dem, geobox)
    assert np.abs((aspect - azimuth + 180) % 360 - 180).max() < 0.02
    for sun in ((225.0, 25.0), (10.0, 60.0)):
        slope, height = math.atan(steep), math.radians(sun[1])
        light = math.sin(height) * math.cos(slope) + math.cos(height) * math.sin(slope) * np.cos(
            np.radians(sun[0] - azimuth)
        )
        shaded = layer("hillshade", dem, geobox, sun_azimuth=sun[0], sun_elevation=sun[1])
        np.testing.assert_allclose(shaded, np.maximum(light, 0), atol=3e-4)
    for name in ("curvature", "profile_curvature", "plan_curvature"):
        np.testing.assert_allclose(layer(name, dem, geobox), 0, atol=1e-2)


def test_slopes_in_degrees_are_slopes_on_the_ground() -> None:
    rows, columns = np.indices(DEGREES.shape.yx)
    metres_north, metres_east = 111_571.0 / 3600, 35_615.0 / 3600  # per second of arc at 71.4° N on WGS84
    dem = 0.4 * columns * metres_east + 0.3 * -rows * metres_north
    np.testing.assert_allclose(layer("slope", dem, DEGREES), math.degrees(math.atan(0.5)), atol=0.02)
    downhill = math.degrees(math.atan2(-0.4, -0.3)) % 360
    np.testing.assert_allclose(layer("aspect", dem, DEGREES), downhill, atol=0.05)


def test_a_quadratic_surface_has_the_curvature_of_its_coefficients() -> None:
    rows, columns = np.indices(OBLONG.shape.yx)
    x, y = (columns - 14) * 7.0, (16 - rows) * 19.0
    p, q, r, g, h = 0.004, -0.001, 0.002, 0.3, -0.2
    dem = p * x**2 + q * y**2 + r * x * y + g * x + h * y
    steep = g**2 + h**2
    known = {
        "curvature": -200 * (p + q),
        "profile_curvature": -200 * (p * g * g + q * h * h + r * g * h) / steep,
        "plan_curvature": 200 * (p * h * h + q * g * g - r * g * h) / steep,
    }
    for name, expected in known.items():
        assert layer(name, dem, OBLONG)[16, 14] == pytest.approx(expected, abs=2e-5)
    assert known["curvature"] == pytest.approx(known["profile_curvature"] - known["plan_curvature"])
    hill = -0.01 * (x**2 + y**2)
    assert layer("curvature", hill, OBLONG)[16, 14] > 0


def test_level_ground_shines_by_the_height_of_the_sun() -> None:
    flat = np.full(POLAR.shape.yx, 12.5)
    assert layer("hillshade", flat, POLAR, sun_elevation=30.0) == pytest.approx(0.5)
    for name in ("relative_elevation", "slope", "aspect", "curvature", "profile_curvature", "plan_curvature"):
        assert (layer(name, flat, POLAR) == 0).all()
    np.testing.assert_array_equal(layer("dem", flat, POLAR), flat)


def test_the_ranges_hold_on_cliffs() -> None:
    dem = np.random.default_rng(5).normal(0, 3000, POLAR.shape.yx)
    slope, aspect, shade = (layer(name, dem, POLAR) for name in ("slope", "aspect", "hillshade"))
    assert slope.max() <= 90
    assert slope.min() >= 0
    assert slope.max() > 89
    assert aspect.min() >= 0
    assert aspect.max() < 360
    assert shade.min() == 0
    assert shade.max() <= 1


def test_aspect_just_west_of_north_is_not_360() -> None:
    dem = np.repeat([0.0, 500.0, 1000.0], 3).reshape(3, 3).astype(np.float32)
    dem[1, 2] = np.nextafter(np.float32(500), np.float32(501))
    box = GeoBox((3, 3), Affine(0.001, 0, 10, 0, -0.001, 70), "EPSG:4326")
    assert layer("aspect", dem, box)[1, 1] == 0
    dem[1, 2] = 501
    assert 359 < layer("aspect", dem, box)[1, 1] < 360
