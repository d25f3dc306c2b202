"""Circles on pixels, against distances."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rtsx.cube.erosion import half_widths


@given(
    st.sampled_from([0.0, 1.0, 6.0, 50.0, 100.0, 99.999]),
    st.sampled_from([1.0, 2.0, 3.0, 10.0, 27.3, 300.0]),
    st.sampled_from([1.0, 2.0, 0.1, 12.5, 300.0]),
)
def test_a_pixel_belongs_where_its_centre_is_near_enough(radius: float, height: float, width: float) -> None:
    circle = half_widths(radius, heights_m=np.array([height]), widths_m=np.array([width]))[0]
    reach = len(circle) // 2
    down, across = np.mgrid[-reach - 1 : reach + 2, 0 : int(radius / width) + 2]
    belongs = np.hypot(down * height, across * width) <= radius * (1 + 1e-12)
    np.testing.assert_array_equal(np.concatenate([[-1], circle, [-1]]), belongs.sum(axis=1) - 1)


def test_each_row_has_a_circle_of_its_own() -> None:
    circles = half_widths(100, heights_m=np.array([50.0, 30.0]), widths_m=np.array([20.0, 10.0]))
    assert circles.tolist() == [[-1, 0, 4, 5, 4, 0, -1], [4, 8, 9, 10, 9, 8, 4]]
