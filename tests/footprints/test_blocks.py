""""""

import numpy as np
import pytest
import scipy.ndimage
import shapely

from rtsx.errors import FootprintError
from rtsx.footprints.blocks import (
    ExtractionBlock,
    ExtractionPlan,
    ExtractionRule,
    polygonize,
    polygonize_block,
    touches_nodata,
)

RULE = ExtractionRule(threshold=None, levels=100, edge_distance=1, min_pixels=1)
SHAPE = (20, 20)


def outline(mask, *, y=(0, 20), x=(0, 20), rule=RULE, level=70):
    block = ExtractionBlock(y=y, x=x, shape=SHAPE)
    rows, columns = block.window
    probability = np.full(SHAPE, level, "uint8")[rows, columns]
    invalid = np.zeros(SHAPE, bool)[block.halo(rule.edge_distance)]
    return polygonize_block((probability, mask[rows, columns], invalid, None), block=block, rule=rule)


def two_squares():
    mask = np.zeros(SHAPE, bool)
    mask[4:6, 4:6] = mask[6:8, 6:8] = True
    return mask


def test_pixels_that_meet_in_a_corner_are_one_object():
    found = outline(two_squares())
    assert [shape.wkt.count("((") for shape in found.closed.geometry] == [2]
    assert found.closed.geometry[0].is_valid
    assert len(found.open) == 0


def test_what_reaches_a_seam_stays_open_and_is_named_on_the_border():
    found = outline(two_squares(), y=(0, 7))
    assert len(found.closed) == 0
    assert len(found.open) == 1
    top, bottom, left, right = found.borders
    assert not np.concatenate((top, left, right)).any()
    assert np.flatnonzero(bottom == 1).tolist() == [6, 7]


def test_the_border_of_the_raster_is_no_seam():
    mask = np.zeros(SHAPE, bool)
    mask[0, 3] = mask[19, 19] = True
    found = outline(mask)
    assert len(found.closed) == 2
    assert found.closed.touches_edge.all()
    assert found.closed.first.tolist() == [3, 399]


def test_small_objects_are_dropped_only_where_they_are_complete():
    rule = ExtractionRule(threshold=None, levels=100, edge_distance=1, min_pixels=9)
    assert len(outline(two_squares(), rule=rule).closed) == 0
    assert len(outline(two_squares(), y=(0, 7), rule=rule).open) == 1


def test_near_counts_kings_moves_and_the_outside():
    invalid = np.zeros((12, 12), bool)
    invalid[6, 6] = True
    near = touches_nodata(invalid, block=ExtractionBlock(y=(0, 12), x=(0, 12), shape=(12, 12)), reach=2)
    expected = np.ones((12, 12), bool)
    expected[2:10, 2:10] = False
    expected[4:9, 4:9] = True
    assert (near == expected).all()


def test_a_reach_of_nothing_finds_invalid_pixels_alone():
    invalid = np.eye(5, dtype=bool)
    assert (touches_nodata(invalid, block=ExtractionBlock(y=(0, 5), x=(0, 5), shape=(5, 5)), reach=0) == invalid).all()


@pytest.mark.parametrize(("threshold", "found"), [(0.29, True), (0.3, False), (0.295, False)])
def test_a_threshold_between_levels_takes_the_next_one(threshold, found):
    rule = ExtractionRule(threshold=threshold, levels=100, edge_distance=1, min_pixels=1)
    mask = two_squares()
    block = ExtractionBlock(y=(0, 20), x=(0, 20), shape=SHAPE)
    probability = np.where(mask, 29, 0).astype("uint8")
    outlines = polygonize_block((probability, None, np.zeros(SHAPE, bool), None), block=block, rule=rule)
    assert len(outlines.closed) == found


def test_a_probability_above_one_is_refused():
    with pytest.raises(FootprintError, match=r"runs from 0 to 100, but .* rows 0-19, columns 0-19 has 130.*`valid`"):
        outline(two_squares(), level=130)


def test_blocks_cover_each_pixel_once():
    plan = ExtractionPlan(rows=(2, 1, 4), columns=(3, 3))
    pixels = [
        (y, x)
        for block in plan.blocks
        for y in range(*block.window[0].indices(100))
        for x in range(*block.window[1].indices(100))
    ]
    assert sorted(pixels) == [(y, x) for y in range(7) for x in range(6)]


def test_regular_blocks_end_with_the_raster():
    assert ExtractionPlan.regular((5, 4), size=4) == ExtractionPlan(rows=(4, 1), columns=(4,))


@pytest.mark.parametrize(
    ("y", "x", "seams"),
    [((0, 2), (0, 2), (False, True, False, True)), ((2, 5), (2, 5), (True, False, True, False))],
)
def test_a_seam_is_where_another_block_lies(y, x, seams):
    assert ExtractionBlock(y=y, x=x, shape=(5, 5)).seams == seams


def test_the_halo_is_cut_to_the_raster_and_says_by_how_much():
    block = ExtractionBlock(y=(2, 5), x=(0, 2), shape=(9, 3))
    assert block.halo(3) == (slice(0, 8), slice(0, 3))
    assert block.beyond(3) == ((1, 0), (3, 2))


def test_parts_of_a_window_add_up_to_it():
    plan = ExtractionPlan(rows=(1, 1, 1, 4), columns=(2, 5))
    window = (slice(1, 5), slice(1, 4))
    rows = plan.parts(window)
    assert [row[0][0][0] for row in rows] == [1, 2, 3]
    assert sum(row[0][1][0].stop - row[0][1][0].start for row in rows) == 4
    assert [part[1][1] for part in rows[0]] == [slice(1, 2), slice(0, 2)]


def test_outlines_are_valid_and_cover_their_pixels():
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = rng.random((9, 9)) < rng.choice([0.3, 0.5, 0.7])
        labels, count = scipy.ndimage.label(mask, np.ones((3, 3)), output=np.int32)
        outlines = polygonize(labels, count, origin=(0, 0))
        assert shapely.is_valid(outlines).all()
        assert shapely.area(outlines).tolist() == np.bincount(labels.ravel())[1:].tolist()


def test_a_hole_stays_a_hole_and_the_origin_is_added():
    labels = np.ones((3, 3), np.int32)
    labels[1, 1] = 0
    (outline,) = polygonize(labels, 1, origin=(100, 7))
    assert outline.bounds == (7, 100, 10, 103)
    assert [ring.bounds for ring in outline.interiors] == [(8, 101, 9, 102)]


def test_no_objects_no_outlines():
    assert polygonize(np.zeros((3, 3), np.int32), 0, origin=(0, 0)).tolist() == []
