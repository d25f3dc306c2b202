import pytest

from rtsx.footprints.blocks import Block, BlockPlan


def test_blocks_cover_each_pixel_once():
    plan = BlockPlan(rows=(2, 1, 4), columns=(3, 3))
    pixels = [
        (y, x)
        for block in plan.blocks
        for y in range(*block.window[0].indices(100))
        for x in range(*block.window[1].indices(100))
    ]
    assert sorted(pixels) == [(y, x) for y in range(7) for x in range(6)]


def test_regular_blocks_end_with_the_raster():
    assert BlockPlan.regular((5, 4), size=4) == BlockPlan(rows=(4, 1), columns=(4,))


@pytest.mark.parametrize(
    ("y", "x", "seams"),
    [((0, 2), (0, 2), (False, True, False, True)), ((2, 5), (2, 5), (True, False, True, False))],
)
def test_a_seam_is_where_another_block_lies(y, x, seams):
    assert Block(y=y, x=x, shape=(5, 5)).seams == seams


def test_the_halo_is_cut_to_the_raster_and_says_by_how_much():
    block = Block(y=(2, 5), x=(0, 2), shape=(9, 3))
    assert block.halo(3) == (slice(0, 8), slice(0, 3))
    assert block.beyond(3) == ((1, 0), (3, 2))


def test_parts_of_a_window_add_up_to_it():
    plan = BlockPlan(rows=(1, 1, 1, 4), columns=(2, 5))
    window = (slice(1, 5), slice(1, 4))
    rows = plan.parts(window)
    assert [row[0][0][0] for row in rows] == [1, 2, 3]
    assert sum(row[0][1][0].stop - row[0][1][0].start for row in rows) == 4
    assert [part[1][1] for part in rows[0]] == [slice(1, 2), slice(0, 2)]
