import pickle

import numpy as np
import pytest
import xarray as xr

from rtsx.errors import LabelError
from rtsx.labels import raster_truth

COVER = xr.DataArray(np.array([[1, 2, 3, 3], [0, 3, 9, 3]], np.int16), dims=("y", "x"))
WHOLE = (slice(0, 2), slice(0, 4))


def test_codes_become_classes():
    truth = raster_truth(COVER, classes={"low": [3], "wet": [1, 9]}, ignored=[0])
    assert truth.read(WHOLE).tolist() == [[2, 0, 1, 1], [255, 1, 2, 1]]
    assert truth.shape == (2, 4)
    assert truth.classes == ("low", "wet")


def test_what_the_raster_calls_missing_is_ignored_unless_it_is_a_class():
    told = COVER.assign_attrs(_FillValue=9)
    assert raster_truth(told, classes={"low": [3]}).read(WHOLE)[1, 2] == 255
    assert raster_truth(told, classes={"low": [9]}).read(WHOLE)[1, 2] == 1


def test_ignored_pixels_are_no_border():
    row = xr.DataArray(np.array([[0, 0, 9, 1, 1, 0, 0]], np.uint8), dims=("y", "x"))
    truth = raster_truth(row, classes={"a": [1]}, ignored=[9], ignore=1)
    assert truth.read((slice(0, 1), slice(0, 7))).tolist() == [[0, 0, 255, 1, 255, 255, 0]]


def test_nothing_is_read_before_a_window_is(monkeypatch):
    dask = pytest.importorskip("dask")

    def refuse(*args, **kwargs):
        raise AssertionError("computed")

    with dask.config.set(scheduler=refuse):
        truth = raster_truth(COVER.chunk(x=2), classes={"low": [3]}, ignore=2)
        with pytest.raises(AssertionError, match="computed"):
            truth.read(WHOLE)


def test_is_a_value():
    truth = raster_truth(COVER, classes={"low": [3]})
    again = pickle.loads(pickle.dumps(truth))
    assert again.digest == truth.digest == raster_truth(COVER.chunk(y=1), classes={"low": [3]}).digest
    assert raster_truth(COVER, classes={"low": [2]}).digest != truth.digest
    assert raster_truth(COVER, classes={"low": [3]}, ignore=1).digest != truth.digest
    assert raster_truth(COVER + 1, classes={"low": [3]}).digest != truth.digest


def test_masks_of_booleans():
    assert raster_truth(COVER == 3, classes={"low": [1]}).read(WHOLE).sum() == 4


@pytest.mark.parametrize(
    ("raster", "options", "message"),
    [
        (COVER.expand_dims("band"), {}, r"dimensions \(y, x\)"),
        (COVER.astype(float), {}, "holds float64.*raster.astype"),
        (COVER, {"classes": {"a": []}}, "Each class has codes"),
        (COVER, {"classes": {"a": [1], "b": [1]}}, "Give each code to one"),
        (COVER, {"classes": {"a": [1]}, "ignored": [1]}, "Give each code to one"),
        (COVER, {"classes": {}}, "1 to 254 classes"),
        (COVER, {"ignore": -2}, "at least 0; got -2"),
    ],
)
def test_refuses(raster, options, message):
    with pytest.raises(LabelError, match=message):
        raster_truth(raster, **{"classes": {"low": [3]}} | options)
