"""Tiles of maps that are run cell by cell."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsx.campaign.cells import CellTable, campaign_tiling, cell_work, mean_over_compute, widest_read
from rtsx.campaign.recipe import PredictionSpec
from rtsx.errors import PlanError
from rtsx.inference.plan import TilingNeeds
from rtsx.tiling import TilePlan

FINITE = TilingNeeds(stride=16, tile=256, overlap=64, trim=None, reach=96)
WHOLE = TilingNeeds(stride=16, tile=256, overlap=64, trim=8, reach=None)


def table(*cells: tuple[int, int]) -> CellTable:
    return CellTable(np.array(cells, np.int32).reshape(-1, 2))


def square(count: int) -> CellTable:
    return table(*((y, x) for y in range(count) for x in range(count)))


def tiling_of(
    needs: TilingNeeds, *, side: int = 12288, first: int = 0, cells: int = 3, largest: int = 4096, **choices: object
) -> TilePlan:
    window = (first, first + cells)
    return campaign_tiling(
        rows=window,
        columns=window,
        side=side,
        needs=needs,
        spec=PredictionSpec(**choices),
        largest=largest,
        fits=lambda tiling: True,
        settled=None,
    )


@st.composite
def maps(draw: st.DrawFn) -> tuple[TilePlan, int, CellTable, tuple[int, int], tuple[int, int]]:
    stride = draw(st.sampled_from([1, 2, 4, 16]))
    side = draw(st.integers(1, 120))
    overlap = stride * draw(st.integers(0, 8))
    tile = overlap + stride * draw(st.integers(1, 20))
    blend = draw(st.sampled_from(["crop", "linear"]))
    trim = overlap // 2 if blend == "crop" else draw(st.integers(0, overlap // 2))
    windows = [
        (first, first + draw(st.integers(1, 4))) for first in (draw(st.integers(-9, 9)), draw(st.integers(-9, 9)))
    ]
    rows, columns = windows
    tiling = TilePlan(
        shape=((rows[1] - rows[0]) * side, (columns[1] - columns[0]) * side),
        offset=(rows[0] * side, columns[0] * side),
        tile=tile,
        overlap=overlap,
        trim=trim,
        stride=stride,
        blend=blend,
    )
    every = [(y, x) for y in range(*rows) for x in range(*columns)]
    chosen = draw(st.lists(st.sampled_from(every), unique=True, max_size=6))
    return tiling, side, table(*chosen), rows, columns


@given(maps())
def test_work_is_counted_as_it_is_done(
    case: tuple[TilePlan, int, CellTable, tuple[int, int], tuple[int, int]],
) -> None:
    tiling, side, cells, rows, columns = case
    tiles = read = 0
    for iy, ix in cells:
        top, left = (iy - rows[0]) * side, (ix - columns[0]) * side
        among = tiling.tiles_covering((slice(top, top + side), slice(left, left + side)))
        window = tiling.read_region(among)
        tiles += len(among)
        read += np.prod([part.stop - part.start for part in window], dtype=int)
        assert window[1].stop - window[1].start <= widest_read(tiling, side=side)
    work = cell_work(tiling, cells, rows=rows, columns=columns, side=side)
    assert (work.n_tiles, work.n_read, work.n_cells) == (tiles, read, len(cells))
    assert work.n_pixels == len(cells) * side**2


def test_tiles_of_a_finite_reach_are_cropped_where_cells_end() -> None:
    tiling = tiling_of(FINITE)
    assert (tiling.blend, tiling.overlap, tiling.trim) == ("crop", 192, 96)
    assert 12288 % tiling.step == 0
    work = cell_work(tiling, square(3), rows=(0, 3), columns=(0, 3), side=12288)
    assert work.over_compute == pytest.approx((tiling.tile / tiling.step) ** 2)
    assert work.over_compute < 1.15
    seams = {tiling.y.support(k)[0] for k in tiling.y.indices}
    assert {0, 12288, 24576} <= seams


def test_the_tiling_is_on_the_grid_wherever_the_map_begins() -> None:
    here, there = tiling_of(FINITE, first=0), tiling_of(FINITE, first=-7)
    assert here.tile == there.tile
    starts = {here.y.start(k) for k in here.y.indices}
    moved = {there.y.start(k) - 7 * 12288 for k in there.y.indices}
    assert {start for start in moved if 0 <= start < 12288 - here.tile} <= {start % 12288 for start in starts}
    assert there.offset == (-7 * 12288, -7 * 12288)


def test_a_network_that_looks_at_its_whole_tile_gets_its_own() -> None:
    tiling = tiling_of(WHOLE)
    assert (tiling.tile, tiling.overlap, tiling.trim, tiling.blend) == (256, 64, 8, "linear")
    assert tiling.offset == (0, 0)


def test_memory_bounds_the_tile() -> None:
    assert tiling_of(FINITE, largest=1000).tile <= 1000
    tiling = campaign_tiling(
        rows=(0, 1),
        columns=(0, 1),
        side=12288,
        needs=FINITE,
        spec=PredictionSpec(),
        largest=4096,
        fits=lambda tiling: tiling.tile < 900,
        settled=None,
    )
    assert tiling.tile < 900


@pytest.mark.parametrize(("stride", "reach", "side"), [(4, 8, 64), (8, 100, 12288), (32, 250, 6144), (2, 3, 100)])
def test_seams_lie_on_borders_whatever_the_reach(stride: int, reach: int, side: int) -> None:
    tiling = tiling_of(TilingNeeds(stride=stride, tile=64, overlap=16, trim=None, reach=reach), side=side)
    assert side % tiling.step == 0
    assert tiling.trim >= reach
    work = cell_work(tiling, square(3), rows=(0, 3), columns=(0, 3), side=side)
    assert work.over_compute == pytest.approx((tiling.tile / tiling.step) ** 2)


def test_a_tile_can_be_shown_at_every_scale() -> None:
    tiling = tiling_of(TilingNeeds(stride=32, tile=256, overlap=64, trim=None, reach=96), scales=(1.0, 0.5))
    assert tiling.tile % 64 == 0


def test_a_cell_that_no_step_divides_gets_the_least_that_there_is() -> None:
    def over_compute(tiling: TilePlan) -> float:
        return cell_work(tiling, square(3), rows=(0, 3), columns=(0, 3), side=1001).over_compute

    chosen = tiling_of(FINITE, side=1001, largest=1300)
    others = [tiling_of(FINITE, side=1001, tile=tile, overlap=192) for tile in range(384, 1300, 32)]
    assert over_compute(chosen) == min(map(over_compute, others))


def test_a_tile_that_was_settled_on_stays() -> None:
    for needs in (FINITE, WHOLE):
        for largest in (256, 1000, 4096):
            first = tiling_of(needs, largest=largest)
            again = campaign_tiling(
                rows=(0, 3),
                columns=(0, 3),
                side=12288,
                needs=needs,
                spec=PredictionSpec(),
                largest=3000,
                fits=lambda tiling: False,
                settled=first.tile,
            )
            assert again == first


def test_what_is_asked_for_is_taken() -> None:
    assert tiling_of(FINITE, tile=512, overlap=192).blend == "crop"
    assert tiling_of(FINITE, tile=512, overlap=64).blend == "linear"  # half of it is less than the reach
    assert tiling_of(FINITE, trim=40).blend == "linear"
    assert tiling_of(FINITE, trim=40).trim == 40
    assert tiling_of(FINITE, blend="hann").blend == "hann"
    assert (tiling_of(WHOLE, blend="crop").blend, tiling_of(WHOLE, blend="crop").trim) == ("crop", 32)
    with pytest.raises(PlanError, match="blend='crop' trims half the overlap by itself; got trim=3"):
        tiling_of(FINITE, blend="crop", trim=3)


def test_larger_cells_lose_less_at_their_borders() -> None:
    def over_compute(needs: TilingNeeds, side: int) -> float:
        return mean_over_compute(tiling_of(needs, side=side, cells=16), side=side)

    small, large = (over_compute(FINITE, side) for side in (256, 1024))
    assert small == pytest.approx((448 / 256) ** 2)
    assert large == pytest.approx((1216 / 1024) ** 2)
    assert over_compute(WHOLE, 512) > over_compute(WHOLE, 4096)


def test_no_cells_are_no_work() -> None:
    tiling = tiling_of(FINITE)
    assert cell_work(tiling, table(), rows=(0, 3), columns=(0, 3), side=12288).n_tiles == 0
