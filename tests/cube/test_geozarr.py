"""GeoZarr attributes."""

import json

from affine import Affine
from odc.geo.geobox import GeoBox

from rtsx.cube.pyramid import multiscale_attrs, spatial_attrs

POLAR = GeoBox((2000, 1000), Affine(3, 0, 600, 0, -3, 30), "EPSG:3413")


def test_a_crs_without_a_code_is_written_as_text() -> None:
    lambert = "+proj=laea +lat_0=88 +lon_0=10 +datum=WGS84 +units=m"
    attrs = spatial_attrs(GeoBox((2, 2), Affine(3, 0, 0, 0, -3, 0), lambert))
    assert attrs["proj:wkt2"].startswith("PROJCRS")
    assert "proj:code" not in attrs


def test_each_level_says_where_it_lies_and_what_it_was_made_from() -> None:
    half = GeoBox((1000, 500), Affine(6, 0, 600, 0, -6, 30), "EPSG:3413")
    attrs = json.loads(json.dumps(multiscale_attrs([(".", POLAR), ("2x", half)])))
    assert attrs["multiscales"]["layout"][1] == {
        "asset": "2x",
        "derived_from": ".",
        "transform": {"scale": [2.0, 2.0], "translation": [0.0, 0.0]},
        "spatial:shape": [1000, 500],
        "spatial:transform": [6.0, 0.0, 600.0, 0.0, -6.0, 30.0],
    }
    assert len({convention["uuid"] for convention in attrs["zarr_conventions"]}) == 3
