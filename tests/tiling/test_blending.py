"""Reflection by index equals NumPy's own padding."""

import numpy as np
import pytest

from rtsx.tiling import reflect_pad


@pytest.mark.parametrize("length", [2, 3, 7])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (2, 5), (20, 31)])
def test_equals_numpy(length: int, before: int, after: int) -> None:
    expected = np.pad(np.arange(length), (before, after), mode="reflect")
    np.testing.assert_array_equal(reflect_pad(-before, length + after, length=length), expected)


def test_a_single_pixel_is_repeated() -> None:
    np.testing.assert_array_equal(reflect_pad(-2, 3, length=1), np.zeros(5))
