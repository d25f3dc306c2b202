"""Grids as items state them."""

from typing import Any

import pytest
from pyproj import CRS

from rtsx.cube.stac.item import stated_geobox

TRANSFORM = [10, 0, 300000, 0, -10, 7400040]
BBOX = [300000, 7399040, 302000, 7400040]


def grid(asset: dict[str, Any], **properties: Any) -> Any:
    named = {f"proj:{name}": value for name, value in properties.items()}
    item = {"id": "a", "properties": named, "assets": {"it": {f"proj:{name}": value for name, value in asset.items()}}}
    return stated_geobox(item, "it")


@pytest.mark.parametrize(
    "crs",
    [
        {"code": "EPSG:32601"},
        {"epsg": 32601},
        {"wkt2": CRS.from_epsg(32601).to_wkt()},
        {"projjson": CRS.from_epsg(32601).to_json_dict()},
        {"epsg": None, "code": "EPSG:32601"},
        {"code": "EPSG:nonsense", "epsg": 32601},
    ],
)
def test_a_crs_in_each_way(crs: dict[str, Any]) -> None:
    box = grid({"transform": TRANSFORM, "shape": [100, 200]}, **crs)
    assert box.crs.to_epsg() == 32601
    assert (tuple(box.shape), tuple(box.affine)[:6]) == ((100, 200), tuple(TRANSFORM))


def test_any_two_of_transform_shape_and_bbox_are_enough() -> None:
    expected = grid({"transform": TRANSFORM, "shape": [100, 200]}, epsg=32601)
    assert grid({"shape": [100, 200], "bbox": BBOX}, epsg=32601) == expected
    assert grid({"transform": [*TRANSFORM, 0, 0, 1], "bbox": BBOX}, epsg=32601) == expected
    assert grid({"transform": TRANSFORM, "shape": [100.0, 200.0], "bbox": BBOX}, epsg=32601) == expected
    assert grid({}, epsg=32601, shape=[100, 200], bbox=BBOX) == expected


@pytest.mark.parametrize(
    "asset",
    [
        {},
        {"transform": TRANSFORM},
        {"shape": [100, 200]},
        {"transform": TRANSFORM, "shape": [100, 201], "bbox": BBOX},  # they contradict each other
        {"transform": TRANSFORM, "shape": [0, 200]},
        {"transform": [300000, 10, 0, 7400040, 0, -10], "shape": [100, 200]},  # GDAL's order
        {"transform": [0, 0, 0, 0, 0, 0], "shape": [100, 200]},
        {"transform": [1, 2, 3], "shape": [100, 200]},
    ],
)
def test_what_cannot_be_trusted_is_left_to_the_file(asset: dict[str, Any]) -> None:
    assert grid(asset, epsg=32601) is None


def test_half_a_pixel_of_rounding_is_forgiven() -> None:
    near = [BBOX[0] + 4, *BBOX[1:]]
    assert grid({"transform": TRANSFORM, "shape": [100, 200], "bbox": near}, epsg=32601) is not None


def test_an_assets_shape_is_never_joined_with_the_items_transform() -> None:
    assert grid({"shape": [50, 100]}, epsg=32601, transform=TRANSFORM, shape=[100, 200]) is None
    assert grid({"epsg": 32602, "shape": [100, 200], "bbox": BBOX}, epsg=32601).crs.to_epsg() == 32602


def test_without_a_crs_there_is_no_grid() -> None:
    assert grid({"transform": TRANSFORM, "shape": [100, 200]}) is None


def test_rotated_grids_stay_rotated() -> None:
    box = grid({"transform": [8, 6, 0, 6, -8, 0], "shape": [10, 10]}, epsg=32601)
    assert tuple(box.affine)[:6] == (8, 6, 0, 6, -8, 0)
