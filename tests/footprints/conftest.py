"""Predictions with known objects, as `predict_cube` returns them, made without any other room."""

from collections.abc import Callable

import numpy as np
import pytest
import rioxarray  # noqa: F401  registers the accessor .rio
import xarray as xr


def make_prediction(level, *, valid=None, crs="EPSG:3413", corner=(-1_999_998.0, 3000.0), step=(3.0, -3.0)):
    """Return a prediction of uint8 levels 0-100 with the first pixel's outer corner at `corner` (x, y)."""
    level = np.asarray(level, "uint8")
    valid = np.ones(level.shape, bool) if valid is None else valid
    dims = ("time", "class", "y", "x")[-level.ndim :] if level.ndim != 3 else ("time", "y", "x")
    height, width = level.shape[-2:]
    pred = xr.Dataset(
        {
            "probability": (
                dims,
                np.where(valid, level, 255).astype("uint8"),
                {"scale_factor": 0.01, "_FillValue": 255},
            ),
            "binary": (dims, np.where(valid, level >= 50, 255).astype("uint8"), {"_FillValue": 255}),
            "valid": (dims, valid) if valid.shape == level.shape else (("y", "x"), valid),
        },
        coords={
            "y": corner[1] + step[1] * (np.arange(height) + 0.5),
            "x": corner[0] + step[0] * (np.arange(width) + 0.5),
        },
        attrs={"bundle_id": "demo", "bundle_digest": "0" * 64, "bundle_classes": ["slump"], "threshold": 0.5},
    )
    return pred.rio.write_crs(crs)


@pytest.fixture
def predict() -> Callable[..., xr.Dataset]:
    """A function from levels to a prediction."""
    return make_prediction


@pytest.fixture
def level():
    """60 x 80 levels with a block of 80, one of 60 with a hole, and one of 90 at the left border."""
    level = np.full((60, 80), 10)
    level[20:28, 30:40] = 80
    level[30:40, 60:66] = 60
    level[33:35, 62:64] = 10
    level[40:50, :4] = 90
    return level


@pytest.fixture
def pred(level):
    """The prediction of `level` at 3 m in EPSG:3413, everything valid."""
    return make_prediction(level)
