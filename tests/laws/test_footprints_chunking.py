"""Law 5: footprints do not depend on chunking; law 4: what hides under the invalid mask never matters."""

import dask
import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  registers the accessor .rio
import scipy.ndimage
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from rtsx.footprints import extract_footprints, validate_footprints

LEVELS = np.array([0, 10, 30, 50, 51, 80, 100])
EDGE_DISTANCE = 2


@st.composite
def raster(draw):
    """A prediction with many corners, holes and invalid pixels, and a division of its axes."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.2, 0.4, 0.6, 0.8, 1.0]))
    level = np.where(rng.random((height, width)) < density, rng.choice(LEVELS[3:], (height, width)), 10)
    valid = rng.random((height, width)) >= draw(st.sampled_from([0.0, 0.1, 0.3]))
    chunks = tuple(draw(division(length)) for length in (height, width))
    return level, valid, chunks, draw(st.sampled_from(["uint8", "float32"]))


@st.composite
def division(draw, length):
    """Chunks of any lengths that add up, often all of one pixel."""
    if draw(st.booleans()):
        return (1,) * length
    cuts = sorted(draw(st.sets(st.integers(1, length - 1)))) if length > 1 else []
    return tuple(np.diff([0, *cuts, length]).tolist())


def prediction(level, valid, *, dtype, hidden=255):
    if dtype == "uint8":
        probability = xr.DataArray(
            np.where(valid, level, hidden).astype("uint8"),
            dims=("y", "x"),
            attrs={"scale_factor": 0.01, "_FillValue": 255},
        )
    else:
        probability = xr.DataArray(np.where(valid, level / 100, hidden / 100).astype("float32"), dims=("y", "x"))
    binary = xr.DataArray(np.where(valid, level >= 50, hidden <= 100).astype("uint8"), dims=("y", "x"))
    height, width = level.shape
    y, x = 3000 - 3 * (np.arange(height) + 0.5), -1_999_998 + 3 * (np.arange(width) + 0.5)
    pred = xr.Dataset({"probability": probability, "binary": binary, "valid": (("y", "x"), valid)})
    pred = pred.assign_coords(y=y, x=x).rio.write_crs("EPSG:3413")
    # One row or column has no step of its own; the grid mapping tells it.
    transform = f"{x[0] - 1.5} 3.0 0.0 {y[0] + 1.5} 0.0 -3.0"
    pred.spatial_ref.attrs["GeoTransform"] = transform
    return pred


def extract(pred, **keywords):
    # One thread, because starting two for a hundred chunks of a pixel takes most of the time.
    with dask.config.set(scheduler="synchronous"):
        return extract_footprints(pred, min_area_m2=0, edge_distance=EDGE_DISTANCE, **keywords)


def assert_equal(one, other):
    assert one.crs == other.crs
    assert shapely.equals_exact(one.geometry.array, other.geometry.array, tolerance=0).all()
    pd.testing.assert_frame_equal(one.drop(columns="geometry"), other.drop(columns="geometry"), check_exact=True)


@settings(max_examples=35, deadline=None)
@given(raster())
def test_chunks_change_nothing(case):
    level, valid, (rows, columns), dtype = case
    pred = prediction(level, valid, dtype=dtype)
    whole = extract(pred)
    assert_equal(whole, extract(pred.chunk(y=rows, x=columns)))
    validate_footprints(whole)


@settings(max_examples=20, deadline=None)
@given(raster(), st.integers(0, 100))
def test_hidden_values_change_nothing(case, hidden):
    level, valid, (rows, columns), dtype = case
    shown = extract(prediction(level, valid, dtype=dtype))
    assert_equal(shown, extract(prediction(level, valid, dtype=dtype, hidden=hidden).chunk(y=rows, x=columns)))


@settings(max_examples=30, deadline=None)
@given(raster())
def test_the_answer_is_that_of_the_naive_reference(case):
    """Pixel squares united one by one, statistics by NumPy, distance by comparing every pair of pixels."""
    level, valid, (rows, columns), dtype = case
    found = extract(prediction(level, valid, dtype=dtype).chunk(y=rows, x=columns))
    labels, count = scipy.ndimage.label(valid & (level >= 50), np.ones((3, 3)))
    assert len(found) == count
    order = [int(name[1:].partition("x")[0]) for name in found["footprint_id"]]
    assert order == sorted(order)
    padded = np.pad(~valid, EDGE_DISTANCE, constant_values=True)
    names = found["footprint_id"].tolist()
    for number in range(1, count + 1):
        y, x = np.nonzero(labels == number)
        row = found.iloc[names.index(f"y{y[0] - 1000}x{x[0] - 666_666}")]
        squares = shapely.box(-1_999_998 + 3 * x, 3000 - 3 * (y + 1), -1_999_998 + 3 * (x + 1), 3000 - 3 * y)
        assert row.geometry.equals(shapely.union_all(squares))
        rings = shapely.get_rings(shapely.get_parts(row.geometry))
        assert shapely.get_num_coordinates(row.geometry) == corners(labels == number) + len(rings)
        values = level[y, x] / 100
        assert row["n_pixels"] == len(y)
        expected = (values.min(), values.max(), values.mean(), np.median(values), values.std())
        got = row[["prob_min", "prob_max", "prob_mean", "prob_median", "prob_std"]].astype(float)
        np.testing.assert_allclose(got, expected, atol=1e-12)
        near = [
            padded[i : i + 2 * EDGE_DISTANCE + 1, j : j + 2 * EDGE_DISTANCE + 1].any()
            for i, j in zip(y, x, strict=True)
        ]
        assert row["touches_edge"] == any(near)


def corners(mask):
    """Return how often the outline of a mask turns: twice where two pixels meet in a corner."""
    padded = np.pad(mask, 1).astype(int)
    above_left, above_right, below_left, below_right = (
        padded[:-1, :-1],
        padded[:-1, 1:],
        padded[1:, :-1],
        padded[1:, 1:],
    )
    around = above_left + above_right + below_left + below_right
    meeting = (around == 2) & (above_left == below_right)
    return int((around % 2 == 1).sum() + 2 * meeting.sum())
