"""Rounding, clipping, and the value that means missing."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsx.cube.encoding import OutputDtype, is_representable, output_nodata

DTYPES = [np.dtype(kind) for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "i8", "u8", "f4", "f8")]


@given(
    dtype=st.sampled_from(DTYPES),
    nodata=st.one_of(st.none(), st.integers(-300, 70000), st.just(float("nan"))),
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20),
)
def test_valid_values_never_become_nodata_and_stay_near(
    dtype: np.dtype[Any], nodata: float | None, values: list[float]
) -> None:
    storing = OutputDtype(dtype, nodata)
    # A multiple of ninths, so that none is nodata itself, as a stored value could not be.
    given_values = np.round(np.array(values)) + 1 / 9
    out = storing.stored(given_values, valid=np.ones(len(values), bool))
    assert out.dtype == dtype
    assert is_representable(out, nodata).all()
    low, high = storing.limits
    assert (np.abs(out.astype(float) - np.clip(given_values, low, high)) <= 1.2).all()


@pytest.mark.parametrize(
    ("dtype", "nodata", "fill", "above", "below"),
    [
        ("u1", 0, 0, 1, 1),
        ("u1", 255, 255, 254, 254),
        ("i2", -9999, -9999, -9998, -10000),
        (
            "f4",
            -9999,
            -9999,
            np.nextafter(np.float32(-9999), np.float32(0)),
            np.nextafter(np.float32(-9999), np.float32(-1e5)),
        ),
    ],
)
def test_the_neighbours_of_nodata(dtype: str, nodata: float, fill: float, above: float, below: float) -> None:
    storing = OutputDtype(np.dtype(dtype), nodata)
    assert (storing.has_fill, storing.fill, storing.above, storing.below) == (True, fill, above, below)


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("u1", -9999), ("u1", 256), ("u2", 0.5), ("u1", math.nan), ("i4", math.inf), ("f8", None)]
)
def test_values_that_no_pixel_can_have_are_no_nodata(dtype: str, nodata: float | None) -> None:
    storing = OutputDtype(np.dtype(dtype), nodata)
    assert output_nodata(nodata, np.dtype(dtype)) is None
    assert not storing.has_fill
    assert math.isnan(storing.fill) if dtype == "f8" else storing.fill == 0


def test_infinity_can_be_nodata() -> None:
    assert output_nodata(-math.inf, np.dtype("f4")) == -math.inf
    assert OutputDtype(np.dtype("f4"), -math.inf).fill == -math.inf


def test_invalid_pixels_hold_the_fill() -> None:
    values = np.array([np.nan, 3.0, 1e9])
    out = OutputDtype(np.dtype("u2"), 7).stored(values, valid=np.array([False, True, True]))
    assert out.tolist() == [7, 3, 65535]
    assert OutputDtype(np.dtype("i8"), None).stored(np.array([1e19]), valid=np.array([True]))[0] > 9e18
