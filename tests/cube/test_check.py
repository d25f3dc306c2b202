"""Statistics of layers: equal to NumPy's on the whole, however the cube is cut."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from rtsx.cube.check import block_statistics, cube_statistics, merged
from rtsx.cube.encoding import packing


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [None, 37, 100, 1000])
def test_they_are_those_of_the_whole(random_cube: Callable[..., xr.Dataset], chunk: int | None) -> None:
    cube = random_cube(chunk=chunk)
    found = cube_statistics(cube)
    for name in ("probability", "dem", "red"):
        packed = packing(cube[name])
        values = cube[name].values.astype(np.float64)
        values = values[values != packed["nodata"]] * packed["scale_factor"] + packed["add_offset"]
        layer = found[name]
        assert layer.count == values.size
        assert layer.coverage == values.size / cube[name].size
        assert (layer.minimum, layer.maximum) == (values.min(), values.max())
        assert layer.mean == pytest.approx(values.mean(), rel=1e-12)
        assert layer.std == pytest.approx(values.std(), rel=1e-9)
    assert found["valid"].mean == pytest.approx(float(cube["valid"].mean()))


def test_large_values_with_a_small_spread_lose_nothing() -> None:
    values = np.float64(1e9) + np.random.default_rng(0).random(10_000)
    parts = [block_statistics(part, scale=1.0, offset=0.0, nodata=None) for part in np.array_split(values, 7)]
    assert merged(parts).std == pytest.approx(values.std(), rel=1e-6)


def test_nothing_has_no_mean() -> None:
    empty = block_statistics(np.full((3, 4), np.nan), scale=1.0, offset=0.0, nodata=None)
    some = block_statistics(np.array([1.0, 3.0]), scale=1.0, offset=0.0, nodata=None)
    assert empty.coverage == 0
    assert np.isnan(empty.mean)
    assert np.isnan(empty.std)
    for order in ((empty, some), (some, empty)):
        assert (merged(order).count, merged(order).mean, merged(order).std) == (2, 2.0, 1.0)
    assert merged([empty, empty]).pixels == 24
    assert merged([]).coverage == 0
