"""Predictions and truths made of numbers, without any network."""

import numpy as np
import rioxarray  # noqa: F401  registers the accessor .rio
import xarray as xr

from rtsx.evaluation import EvaluationScene
from rtsx.labels import StubLabelRaster

THRESHOLD = 0.5


def make_prediction(level, *, valid=None, dtype="uint8", classes=None, crs="EPSG:3413", corner=(600_000.0, -900_000.0)):
    """A prediction of levels 0-100 ([class,] y, x) on pixels of 3 m."""
    level = np.asarray(level)
    valid = np.ones(level.shape[-2:], bool) if valid is None else np.asarray(valid, bool)
    dims = ("class", "y", "x")[-level.ndim :]
    if dtype == "uint8":
        probability = (dims, np.where(valid, level, 255).astype("uint8"), {"scale_factor": 0.01, "_FillValue": 255})
    else:
        probability = (dims, np.where(valid, level / 100, np.nan).astype(dtype))
    binary = np.where(valid, level >= 100 * THRESHOLD, 255).astype("uint8")
    height, width = level.shape[-2:]
    pred = xr.Dataset(
        {"probability": probability, "binary": (dims, binary, {"_FillValue": 255}), "valid": (("y", "x"), valid)},
        coords={
            "y": corner[1] - 3 * (np.arange(height) + 0.5),
            "x": corner[0] + 3 * (np.arange(width) + 0.5),
        },
        attrs={"threshold": THRESHOLD},
    )
    if classes is not None:
        pred = pred.assign_attrs(bundle_classes=list(classes))
        if "class" in dims:
            pred = pred.assign_coords({"class": list(classes)})
    return pred.rio.write_crs(crs) if crs else pred


def random_case(seed, *, size=(40, 50), classes=1, dtype="uint8"):
    """Levels, truth coded 0, 1..classes and 255, and validity, in lumps that objects can be made of."""
    random = np.random.default_rng(seed)
    coarse = random.random((classes, size[0] // 5, size[1] // 5))
    true = np.kron(coarse.argmax(axis=0) + 1, np.ones((5, 5), int))[: size[0], : size[1]]
    true = true * (np.kron(coarse.max(axis=0), np.ones((5, 5)))[: size[0], : size[1]] > 0.6)
    level = np.stack(
        [np.clip(random.normal(np.where(true == k + 1, 65, 30), 18), 0, 100).astype(int) for k in range(classes)]
    )
    truth = np.where(random.random(size) < 0.06, 255, true).astype(np.uint8)
    valid = random.random(size) < 0.93
    return (level[0] if classes == 1 else level), truth, valid


def make_scene(seed, *, name=None, region="", dtype="uint8"):
    level, truth, valid = random_case(seed)
    pred = make_prediction(level, valid=valid, dtype=dtype)
    return EvaluationScene(name=name or f"scene {seed}", region=region, prediction=pred, truth=StubLabelRaster(truth))
