"""Interpolated areas of pixels are those of their outlines on the ellipsoid, in any CRS and window."""

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS

from rtsx.errors import CubeError
from rtsx.geometry.crs import geodesic_measures, lonlat_transformer, transformed
from rtsx.geometry.pixels import PixelMesh

RASTERS = {
    "polar": GeoBox((5000, 4000), Affine(300, 0, -800_000, 0, -300, 1_000_000), "EPSG:3413"),
    "Mercator": GeoBox((3000, 3000), Affine(100, 0, -8_000_000, 0, -100, 11_000_000), "EPSG:3857"),
    "rotated": GeoBox((900, 900), Affine(20, 5, 500_000, 5, -20, 7_800_000), "EPSG:32608"),
    "degrees": GeoBox((3000, 3000), Affine(0.01, 0, 160, 0, -0.01, 82), "EPSG:4326"),
}


@pytest.mark.parametrize("name", RASTERS)
def test_sums_are_areas_of_outlines(name):
    geobox = RASTERS[name]
    window = (slice(130, 430), slice(71, 471))
    corners = shapely.segmentize(np.array([shapely.box(71, 130, 471, 430)], object), 5)
    a, b, c, d, e, f = geobox.affine[:6]
    outline = shapely.transform(corners, lambda xy: xy @ [[a, d], [b, e]] + [c, f])
    expected = geodesic_measures(transformed(outline, CRS.from_user_input(geobox.crs), CRS.from_epsg(4326)))[0][0]
    assert PixelMesh(geobox).areas_m2(window).sum() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", RASTERS)
def test_a_pixel_has_one_area_in_every_window(name):
    areas = PixelMesh(RASTERS[name]).areas_m2
    whole = areas((slice(60, 200), slice(100, 300)))
    part = areas((slice(127, 131), slice(255, 258)))
    np.testing.assert_array_equal(whole[67:71, 155:158], part)


def test_the_pole_and_one_pixel_are_nothing_special():
    around = GeoBox((100, 100), Affine(3, 0, -150, 0, -3, 150), "EPSG:3413")
    assert np.ptp(PixelMesh(around).areas_m2((slice(0, 100), slice(0, 100)))) < 1e-6
    assert PixelMesh(GeoBox((1, 1), around.affine, "EPSG:3413")).areas_m2((slice(0, 1), slice(0, 1))).shape == (1, 1)
    whole = GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326")
    assert PixelMesh(whole).areas_m2((slice(0, 180), slice(0, 360))).sum() == pytest.approx(5.10065621724e14, rel=1e-4)


def test_a_raster_off_the_earth_is_refused():
    off = GeoBox((10, 10), Affine(1e6, 0, 5e7, 0, -1e6, 5e7), "EPSG:32608")
    with pytest.raises(CubeError, match="without a place on the Earth"):
        PixelMesh(off).areas_m2((slice(0, 10), slice(0, 10)))


@pytest.mark.parametrize("name", RASTERS)
def test_places_are_those_of_the_middles(name):
    geobox = RASTERS[name]
    lon, lat = PixelMesh(geobox).lonlat((slice(100, 400), slice(50, 250)))
    rows, columns = np.mgrid[100:400, 50:250] + 0.5
    x, y = geobox.affine * (columns, rows)
    expected = lonlat_transformer(CRS.from_user_input(geobox.crs)).transform(x, y)
    east = np.abs((lon - expected[0] + 180) % 360 - 180) * np.cos(np.radians(lat))
    assert max(east.max(), np.abs(lat - expected[1]).max()) * 111_000 < 0.2
