"""Laws of tiling: cores cover each pixel once; weights are positive and sum to one; starts keep to the lattice."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rtsx.tiling import BLENDS, TilePlan


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    stride = draw(st.sampled_from([1, 2, 8, 32]))
    tile = stride * draw(st.integers(1, 12))
    overlap = stride * draw(st.integers(0, tile // stride - 1))
    return TilePlan(
        shape=(draw(st.integers(1, 300)), draw(st.integers(1, 300))),
        offset=(draw(st.integers(-1000, 1000)), draw(st.integers(-1000, 1000))),
        tile=tile,
        overlap=overlap,
        trim=draw(st.integers(0, overlap // 2)),
        stride=stride,
        blend=draw(st.sampled_from(BLENDS)),
    )


@given(plans())
def test_law_1_cores_cover_every_pixel_once(plan: TilePlan) -> None:
    for axis in (plan.y, plan.x):
        covered = np.zeros(axis.length, int)
        for index in axis.indices:
            covered[slice(*axis.core(index))] += 1
        assert (covered == 1).all()


@given(plans())
def test_weights_are_positive_and_sum_to_one(plan: TilePlan) -> None:
    for axis in (plan.y, plan.x):
        total = np.zeros(axis.length)
        for index in axis.indices:
            weights = axis.weights(index)
            assert (weights > 0).all()
            total[slice(*axis.support(index))] += weights
        np.testing.assert_allclose(total, 1, atol=1e-6)


@given(plans())
def test_supports_keep_the_trim_and_starts_the_stride(plan: TilePlan) -> None:
    for axis in (plan.y, plan.x):
        for index in axis.indices:
            low, high = axis.support(index)
            assert axis.start(index) + axis.trim <= low < high <= axis.start(index) + axis.tile - axis.trim
            assert (axis.start(index) + axis.offset) % axis.stride == 0


@given(plans(), st.integers(0, 299), st.integers(0, 299))
def test_a_part_of_a_raster_is_tiled_like_the_whole(plan: TilePlan, y: int, x: int) -> None:
    # What makes an answer independent of cells: which tiles exist is a matter of the place, not of the extent.
    for axis, first in ((plan.y, y % plan.shape[0]), (plan.x, x % plan.shape[1])):
        part = TilePlan(
            shape=(axis.length - first, 1),
            offset=(axis.offset + first, 0),
            tile=axis.tile,
            overlap=axis.overlap,
            trim=axis.trim,
            stride=axis.stride,
            blend=axis.blend,
        ).y
        # At the far edge the whole may do without a tile that the part, which begins later, needs.
        assert all(k in axis.indices or k > axis.indices[-1] for k in part.indices)
        assert all(part.start(k) + first == axis.start(k) for k in part.indices)
