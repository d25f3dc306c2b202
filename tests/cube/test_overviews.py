"""Halving, against a loop over pixels."""

import json
import math

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from rtsx.cube.write import (
    Reduction,
    halve,
    halved_geobox,
    level_count,
    multiscale_attrs,
    reduction_of,
    spatial_attrs,
)


def naive(block: np.ndarray, reduction: Reduction, nodata: float | None) -> np.ndarray:
    height, width = block.shape
    out = np.empty((-(-height // 2), -(-width // 2)), block.dtype)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            four = block[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel().tolist()
            if reduction == "nearest":
                out[y, x] = four[0]
                continue
            good = [v for v in four if not (isinstance(v, float) and not math.isfinite(v)) and v != nodata]
            if not good:
                out[y, x] = nodata if nodata is not None else (np.nan if block.dtype.kind == "f" else 0)
            elif reduction == "max":
                out[y, x] = max(good)
            else:
                mean = sum(good) / len(good)
                out[y, x] = mean if block.dtype.kind == "f" else round(mean)
    return out


@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    dtype=st.sampled_from(["uint8", "int8", "uint16", "int16", "float32"]),
    reduction=st.sampled_from(["average", "max", "nearest"]),
    nodata=st.sampled_from([None, 0.0, 100.0]),
)
def test_halving_equals_the_loop(
    seed: int, shape: tuple[int, int], dtype: str, reduction: Reduction, nodata: float | None
) -> None:
    rng = np.random.default_rng(seed)
    block = rng.integers(0 if dtype.startswith("u") else -120, 121, shape).astype(dtype)
    block[rng.random(shape) < 0.4] = nodata or 0
    if dtype == "float32":
        block[rng.random(shape) < 0.2] = np.nan
    np.testing.assert_allclose(
        halve(block, reduction=reduction, nodata=nodata), naive(block, reduction, nodata), rtol=1e-6
    )


def test_a_mask_keeps_any_true_pixel() -> None:
    mask = np.zeros((4, 4), bool)
    mask[3, 3] = True
    halved = halve(mask, reduction="max", nodata=None)
    assert halved.dtype == bool
    assert halved.tolist() == [[False, False], [False, True]]


def test_leading_axes_stay() -> None:
    block = np.arange(2 * 3 * 4 * 6, dtype=np.float32).reshape(2, 3, 4, 6)
    halved = halve(block, reduction="average", nodata=None)
    assert halved.shape == (2, 3, 2, 3)
    np.testing.assert_allclose(halved[1, 2], halve(block[1, 2], reduction="average", nodata=None))


def test_the_corner_stays_where_it_is() -> None:
    geobox = halved_geobox(GeoBox((5, 8), Affine(3, 0, 600, 0, -4, 30), "EPSG:3413"))
    assert geobox.shape.yx == (3, 4)
    assert tuple(geobox.affine)[:6] == (6, 0, 600, 0, -8, 30)


def test_levels_end_where_one_fits_a_screen() -> None:
    for size in (1, 1024, 1025, 2048, 2049, 100_000):
        count = level_count((size, 10))
        assert -(-size // 2**count) <= 1024
        assert count == 0 or -(-size // 2 ** (count - 1)) > 1024


@pytest.mark.parametrize(
    ("name", "dtype", "attrs", "expected"),
    [
        ("probability", "uint8", {}, "average"),
        ("binary", "uint8", {}, "max"),
        ("valid", "bool", {}, "max"),
        ("scl", "uint8", {}, "nearest"),
        ("land_cover", "uint8", {"flag_values": [1, 2]}, "nearest"),
    ],
)
def test_each_variable_has_its_rule(name: str, dtype: str, attrs: dict[str, object], expected: str) -> None:
    assert reduction_of(xr.DataArray(np.zeros((2, 2), dtype), name=name, attrs=attrs)) == expected


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
