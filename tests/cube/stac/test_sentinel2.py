"""Sentinel-2's offset by one rule."""

from typing import Any

import pytest

from rtsx.cube.stac.assets import packing_of
from rtsx.cube.stac.bands import bands_of

STATED = {"data_type": "uint16", "nodata": 0, "scale": 1e-4, "offset": -0.1}


def packed(
    properties: dict[str, Any],
    *,
    raster: dict[str, Any] | None = None,
    key: str = "red",
    name: str = "B04",
    **item: Any,
) -> tuple[float | None, float | None]:
    asset = {"href": "x", "eo:bands": [{"name": name}]} | ({"raster:bands": [raster]} if raster else {})
    whole = {"id": "a", "properties": properties, "assets": {key: asset}} | item
    found = packing_of(whole, key, band=bands_of(whole, key)[0])
    return found.scale, None if found.offset is None else round(found.offset, 12)


@pytest.mark.parametrize(
    ("properties", "raster", "expected"),
    [
        ({"s2:processing_baseline": "02.12"}, None, (1e-4, 0.0)),
        ({"s2:processing_baseline": "03.01"}, None, (1e-4, 0.0)),
        ({"s2:processing_baseline": "04.00"}, None, (1e-4, -0.1)),
        ({"s2:processing_baseline": "05.11"}, None, (1e-4, -0.1)),
        ({"s2:processing_baseline": "05.09"}, STATED, (1e-4, -0.1)),
        ({"s2:processing_baseline": "05.09"}, STATED | {"offset": 0}, (1e-4, 0.0)),
        ({"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True}, STATED, (1e-4, 0.0)),
        ({"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False}, STATED, (1e-4, -0.1)),
        ({"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True}, None, (1e-4, 0.0)),
        ({"s2:processing_baseline": "04.00"}, {"data_type": "uint16", "scale": 1.0}, (1.0, -1000.0)),
        ({"s2:product_uri": "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157.SAFE"}, None, (1e-4, -0.1)),
        ({"s2:product_uri": "S2A_MSIL2A_20190625T234621_N0212_R073_T01WCP_20190626T022157.SAFE"}, None, (1e-4, 0.0)),
        ({"platform": "landsat-8"}, STATED, (1e-4, -0.1)),
        ({"platform": "landsat-8"}, None, (None, None)),
    ],
)
def test_the_rule(
    properties: dict[str, Any], raster: dict[str, Any] | None, expected: tuple[float | None, float | None]
) -> None:
    assert packed(properties, raster=raster) == expected


def test_only_reflectance_has_it() -> None:
    new = {"s2:processing_baseline": "05.09"}
    assert packed(new, key="SCL", name="SCL") == (None, None)
    assert packed(new, key="visual", name="B04") == (None, None)
    assert packed(new, key="B8A", name="B8A") == (1e-4, -0.1)
    assert packed(new, key="picture", name="B04", raster={"data_type": "uint8"}) == (None, None)
    assert packed(new, key="B04_10m", name="red") == (1e-4, -0.1)
