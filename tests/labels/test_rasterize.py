import dask
import numpy as np
import pytest
import xarray as xr

from rtsx.errors import LabelError
from rtsx.labels import StubLabelRaster, truth_array

VALUES = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_is_lazy_and_says_where_and_what_it_is():
    cube = xr.Dataset({"red": (("time", "y", "x"), np.zeros((2, 3, 4)))}, coords={"x": [3.0, 6, 9, 12], "time": [1, 2]})

    def refuse(*args, **kwargs):
        raise AssertionError("computed")

    with dask.config.set(scheduler=refuse):
        array = truth_array(StubLabelRaster(VALUES, classes=("thaw slump",)), cube.chunk(x=3))
    assert array.chunks == ((3,), (3, 1))
    assert array.dtype == np.uint8
    assert list(array.coords) == ["x"]
    assert array.attrs["flag_meanings"] == "none thaw_slump"
    np.testing.assert_array_equal(array.values, VALUES)


def test_a_cube_in_memory_gives_one_chunk():
    cube = xr.DataArray(np.zeros((3, 4)), dims=("y", "x"))
    assert truth_array(StubLabelRaster(VALUES), cube).chunks == ((3,), (4,))


def test_refuses_another_size():
    with pytest.raises(LabelError, match=r"\(3, 4\) px does not fit a cube of \(3, 5\)"):
        truth_array(StubLabelRaster(VALUES), xr.DataArray(np.zeros((3, 5)), dims=("y", "x")))
