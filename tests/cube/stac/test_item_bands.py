"""Bands as every version of STAC writes them."""

import math
from typing import Any

import pytest

from rtsx.cube.stac.item import bands_of, has_classes, refuse_unread_nodata, unit_of
from rtsx.errors import CubeError


def bands(asset: dict[str, Any], **properties: Any) -> list[tuple[Any, ...]]:
    item = {"id": "a", "assets": {"it": asset}, "properties": {k.replace("__", ":"): v for k, v in properties.items()}}
    return [(b.number, b.name, b.common_name, b.dtype, b.nodata, b.scale, b.offset) for b in bands_of(item, "it")]


def test_stac_1_0_pairs_names_with_storage() -> None:
    asset = {
        "eo:bands": [{"name": "B2", "common_name": "blue"}, {"name": "B3"}],
        "raster:bands": [{"data_type": "uint16", "nodata": 0, "scale": 1e-4, "offset": -0.1}, {"data_type": "int8"}],
    }
    assert bands(asset) == [
        (1, "B2", "blue", "uint16", 0.0, 1e-4, -0.1),
        (2, "B3", None, "int8", None, None, None),
    ]


def test_one_statement_of_storage_counts_for_all_bands() -> None:
    asset = {"eo:bands": [{"name": "a"}, {"name": "b"}], "raster:bands": [{"data_type": "uint8"}]}
    assert [band[3] for band in bands(asset)] == ["uint8", "uint8"]


def test_stac_1_1_takes_from_the_asset_what_a_band_does_not_say() -> None:
    asset = {
        "data_type": "uint16",
        "nodata": 0,
        "raster:scale": 1e-4,
        "bands": [{"name": "B04", "eo:common_name": "red", "raster:offset": -0.1}, {"name": "B99", "nodata": "nan"}],
    }
    first, second = bands(asset)
    assert first == (1, "B04", "red", "uint16", 0.0, 1e-4, -0.1)
    assert second[:4] == (2, "B99", None, "uint16")
    assert math.isnan(second[4])


def test_stac_1_1_takes_from_the_properties_what_counts_for_all_assets() -> None:
    stated = {"data_type": "uint16", "nodata": 0, "raster__scale": 1e-4, "raster__offset": -0.1}
    assert bands({"bands": [{"name": "B04"}]}, **stated) == [(1, "B04", None, "uint16", 0.0, 1e-4, -0.1)]
    assert bands({"nodata": 7, "bands": [{"name": "B04", "raster:scale": 2}]}, **stated)[0][4:] == (7.0, 2.0, -0.1)


@pytest.mark.parametrize("name", ["nodata", "raster:nodata", "file:nodata"])
@pytest.mark.parametrize("value", [0, "0", [0], [0, 0], "nan", "-Infinity", "none", [0, 255], True, []])
@pytest.mark.parametrize("place", ["asset", "bands", "raster:bands", "properties"])
def test_a_nodata_is_read_or_refused(name: str, value: Any, place: str) -> None:
    stated = {name: value}
    asset = stated if place == "asset" else {place: [stated]} if place.endswith("bands") else {}
    asset = {"bands": [{}]} | asset if "raster:bands" not in asset else asset
    item = {"id": "a", "assets": {"it": asset}, "properties": stated if place == "properties" else {}}
    found = bands_of(item, "it")[0].nodata
    if value in ("none", [0, 255], True, []) and value != [0]:
        with pytest.raises(CubeError, match=r"Asset 'it' of item a states nodata .*; expected a number"):
            refuse_unread_nodata(item, "it")
    else:
        refuse_unread_nodata(item, "it")
        assert repr(found) == repr({"nan": math.nan, "-Infinity": -math.inf}.get(str(value), 0.0))


def test_old_items_point_into_their_properties_by_number_and_by_name() -> None:
    known = [{"name": "SR_B1", "common_name": "coastal"}, {"name": "SR_B2", "common_name": "blue"}]
    assert bands({"eo:bands": [1]}, eo__bands=known)[0][1:3] == ("SR_B2", "blue")
    assert bands({"eo:bands": ["SR_B1"]}, eo__bands=known)[0][1:3] == ("SR_B1", "coastal")
    assert bands({"eo:bands": [7]}, eo__bands=known)[0][1:3] == (None, None)


def test_no_bands_and_unknown_dtypes() -> None:
    assert bands({}) == []
    assert [band[3] for band in bands({"raster:bands": [{"data_type": "other"}, {"data_type": "cint16"}, {}]})] == [
        None
    ] * 3


def test_classes_and_units_are_those_of_the_band_or_of_its_asset() -> None:
    listed = [{"unit": "ft"}, {"classification:bitfields": [{"offset": 0, "length": 1}]}]
    item = {"id": "a", "assets": {"two": {"raster:bands": listed}, "one": {"unit": "m", "bands": [{}]}}}
    assert [has_classes(item, "two", {number}) for number in (1, 2)] == [False, True]
    fill, water, ice = {"value": 255, "nodata": True}, {"value": 1}, {"value": 2}
    for classes, want in (([fill, water], False), ([fill, water, ice], True)):
        one = {"id": "a", "assets": {"one": {"bands": [{"classification:classes": classes}]}}}
        assert has_classes(one, "one", {1}) == want
    assert [unit_of(item, *band) for band in (("two", 1), ("two", 2), ("one", 1))] == ["ft", "", "m"]
