"""Lattice offsets do not depend on how a raster was cut out."""

import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from rtsx.errors import GridError
from rtsx.grid import grid_offset


@given(
    res=st.sampled_from([3.0, 2.0, 10.0, 0.1, 1 / 3, 2.8571436480450573e-05]),
    phase=st.sampled_from([0.0, 0.5]),
    start=st.tuples(st.integers(-20000, 20000), st.integers(-20000, 20000)),
    step=st.tuples(st.integers(0, 20000), st.integers(0, 20000)),
    origin=st.sampled_from([(0.0, 0.0), (711576.0, 94749.0)]),
)
def test_a_cut_out_moves_by_as_many_pixels_as_it_was_cut(
    res: float, phase: float, start: tuple[int, int], step: tuple[int, int], origin: tuple[float, float]
) -> None:
    x, y = origin[0] + (start[1] + phase) * res, origin[1] - (start[0] + phase) * res
    whole = grid_offset(Affine(res, 0, x, 0, -res, y), origin)
    cut = grid_offset(Affine(res, 0, x + step[1] * res, 0, -res, y - step[0] * res), origin)
    assert whole == start
    assert (cut[0] - whole[0], cut[1] - whole[1]) == step


def test_pixels_need_not_be_square() -> None:
    geobox = GeoBox((4, 4), Affine(23.5, 0, 235.0, 0, -29.5, -59.0), "EPSG:26917")
    assert grid_offset(geobox, (0.0, 0.0)) == (2, 10)


@pytest.mark.parametrize("affine", [Affine(3, 1, 0, 0, -3, 0), Affine(3, 0, 0, 0, 3, 0), Affine(-3, 0, 0, 0, -3, 0)])
def test_rotated_and_south_up_rasters_have_no_place(affine: Affine) -> None:
    with pytest.raises(GridError, match="north-up and not rotated"):
        grid_offset(affine, (0.0, 0.0))


def test_numbers_have_to_be_finite() -> None:
    with pytest.raises(GridError, match="finite"):
        grid_offset(Affine(3, 0, 0, 0, -3, 0), (float("nan"), 0.0))
