"""Which cells are run."""

import pickle
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import LineString, MultiPolygon, Point, Polygon, box
from shapely.geometry.base import BaseGeometry

from rtsx.campaign.cells import CellTable, chosen_cells, hilbert_order
from rtsx.errors import CampaignError
from rtsx.grid import Grid
from tests.campaign.plans import FIRST, GRID, beside, ground

COARSE = Grid("EPSG:3413", 100.0, cell_size=256)


def chosen(region: BaseGeometry, *, grid: Grid = COARSE, **given: BaseGeometry | None) -> set[tuple[int, int]]:
    options = {"without": None, "extent": None} | given
    return set(chosen_cells(grid, region, **options).cells)


corners = st.tuples(st.floats(-140, -130), st.floats(66, 70))
shapes = st.one_of(
    st.builds(lambda point, width: Point(point).buffer(width), corners, st.floats(0.01, 2)),
    st.builds(lambda a, b: box(*a, *b), corners, st.tuples(st.floats(-129, -120), st.floats(71, 73))),
    st.builds(lambda points: Polygon(points).buffer(0), st.lists(corners, min_size=3, max_size=6)),
    st.builds(lambda a, b: MultiPolygon([Point(a).buffer(0.5), Point(b[0], b[1] - 9).buffer(1)]), corners, corners),
    st.builds(lambda points: LineString(points), st.lists(corners, min_size=2, max_size=4, unique=True)),
).filter(lambda shape: not shape.is_empty)


@settings(max_examples=60)
@given(shapes)
def test_the_cells_are_those_of_the_grid(region: BaseGeometry) -> None:
    assert chosen(region) == {(cell.iy, cell.ix) for cell in COARSE.cells(region)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ground that is left out meets none:RuntimeWarning")
@settings(max_examples=40)
@given(shapes, shapes)
def test_what_is_left_out_leaves_cells_with_ground_of_the_region_beside_it(
    region: BaseGeometry, without: BaseGeometry
) -> None:
    whole = chosen(region)
    try:
        kept = chosen(region, without=without)
    except CampaignError:
        kept = set()
    area, gone = COARSE.projected(region), COARSE.projected(without)
    assert kept <= whole
    for cell in whole:
        share = area.intersection(COARSE[cell].polygon)
        rest = share.difference(gone.buffer(1.0)) if area.area else share.difference(gone)
        if area.area and rest.area > 1.0:
            assert cell in kept
        if gone.buffer(-1.0).covers(share):
            assert cell not in kept


def test_the_whole_arctic_is_a_disc_around_the_pole() -> None:
    grid = Grid("EPSG:3413", 100.0, cell_size=512)
    choice = chosen_cells(grid, box(-180, 66.5, 180, 90), without=None, extent=None)
    side = grid.cell_size * grid.resolution
    middles = (choice.cells.addresses + 0.5) * side
    distance = np.hypot(*middles.T)
    assert (0, 0) in choice.cells
    assert (-1, -1) in choice.cells
    assert distance.max() < 2.65e6
    # Every cell within the parallel is there: the disc has no hole at the pole, and no slit at the antimeridian.
    assert len(choice.cells) == pytest.approx(np.pi * 2.573e6**2 / side**2, rel=0.05)


def test_the_window_is_that_of_the_region_whatever_is_left_out() -> None:
    region = ground(*(beside(y, x) for y in range(3) for x in range(3)))
    left_out = ground(*(beside(0, x) for x in range(3))).buffer(0.001)
    choice = chosen_cells(GRID, region, without=left_out, extent=None)
    assert set(choice.cells) == {beside(y, x) for y in (1, 2) for x in range(3)}
    assert (choice.rows, choice.columns) == ((FIRST[0], FIRST[0] + 3), (FIRST[1], FIRST[1] + 3))


def test_ground_to_leave_out_of_another_place_is_warned_of() -> None:
    region = ground(FIRST)
    swapped = shapely.transform(region, lambda lonlat: lonlat[:, ::-1] / 2)
    with pytest.warns(RuntimeWarning, match="left out meets none of the region.* Does it have latitude first"):
        assert set(chosen_cells(GRID, region, without=swapped, extent=None).cells) == {FIRST}


def test_a_cell_of_which_only_ground_outside_the_region_would_stay_is_left_out() -> None:
    region = ground(FIRST)  # the middle of the cell
    other = region.buffer(0.0005)  # more than the middle, less than the cell
    with pytest.raises(CampaignError, match="All 1 cells of the region lie in ground that is left out"):
        chosen_cells(GRID, region, without=other, extent=None)


def test_the_extent_gives_room_and_bounds() -> None:
    extent = ground(*(beside(y, x) for y in range(4) for x in range(5)))
    choice = chosen_cells(GRID, ground(beside(1, 1)), without=None, extent=extent)
    assert list(choice.cells) == [beside(1, 1)]
    assert (choice.rows, choice.columns) == ((FIRST[0], FIRST[0] + 4), (FIRST[1], FIRST[1] + 5))
    with pytest.raises(
        CampaignError, match=r"1 of the region's 2 cells lie outside the extent, such as r309c-210: .* Widen the extent"
    ):
        chosen_cells(GRID, ground(beside(-1, 0), FIRST), without=None, extent=extent)


def test_cells_follow_each_other() -> None:
    choice = chosen_cells(COARSE, Point(-135, 69).buffer(3), without=None, extent=None)
    steps = np.abs(np.diff(choice.cells.addresses.astype(int), axis=0)).sum(axis=1)
    assert (steps == 1).mean() > 0.8


def test_cells_come_in_their_order_each_once() -> None:
    addresses = np.stack([np.arange(9000), -np.arange(9000)], axis=1)
    table = CellTable(addresses)
    assert list(table) == [(n, -n) for n in range(9000)]
    assert table.places[(4097, -4097)] == 4097
    assert (8999, -8999) in table
    assert (1, 1) not in table
    assert len(table) == 9000


def test_none_at_all_is_a_table() -> None:
    empty = CellTable(np.zeros((0, 2), np.int32))
    assert (len(empty), list(empty), (0, 0) in empty) == (0, [], False)


def test_a_table_is_closed_and_leaves_what_it_was_made_from_open() -> None:
    mine = np.array([[1, 2], [3, 4]], np.int32)
    table = CellTable(mine)
    mine[0] = 9
    assert list(table) == [(1, 2), (3, 4)]
    with pytest.raises(ValueError, match="read-only"):
        table.addresses[0] = 5


def test_a_table_travels_without_its_index() -> None:
    table = CellTable(np.stack([np.arange(5000), np.arange(5000)], axis=1))
    assert (7, 7) in table
    sent = pickle.dumps(table)
    assert len(sent) < 8 * 5000 + 1000
    again = pickle.loads(sent)
    assert again == table
    assert hash(again) == hash(table)
    assert not again.addresses.flags.writeable


@pytest.mark.parametrize(
    ("addresses", "message"),
    [
        ([[1, 2], [1, 2]], "Every cell of a campaign comes once; some come twice"),
        ([[-1, 2**31 - 1], [-1, 2**31 - 1]], "some come twice"),
        ([1, 2], r"Cells are an array \(cell, 2\) of rows and columns; got shape \(2,\)"),
        ([[1, 2, 3]], r"got shape \(1, 3\)"),
        ([[1.5, 2.0]], "Rows and columns of cells are whole numbers; got float64"),
        ([["r1", "c1"]], "whole numbers; got str"),
    ],
)
def test_what_is_no_table_is_refused(addresses: Any, message: str) -> None:
    with pytest.raises(CampaignError, match=message):
        CellTable(np.array(addresses))


def test_negative_columns_are_other_cells() -> None:
    assert len(CellTable(np.array([[0, -1], [-1, -1], [0, 1], [1, -1], [-1, 1]], np.int32))) == 5


@pytest.mark.parametrize("exponent", [0, 1, 2, 5])
def test_every_step_over_a_full_square_goes_to_a_neighbour(exponent: int) -> None:
    along = np.arange(2**exponent) - 3
    addresses = np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2).astype(np.int32)
    order = hilbert_order(np.random.default_rng(0).permutation(addresses))
    assert sorted(order.tolist()) == list(range(4**exponent))
    placed = np.random.default_rng(0).permutation(addresses)[order].astype(int)
    assert (np.abs(np.diff(placed, axis=0)).sum(axis=1) == 1).all()


def test_no_cells_have_an_order() -> None:
    assert len(hilbert_order(np.zeros((0, 2), np.int32))) == 0
    assert hilbert_order(np.array([[4, 7]], np.int32)).tolist() == [0]


def test_the_order_of_a_part_is_that_of_the_whole() -> None:
    along = np.arange(8)
    addresses = np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2).astype(np.int32)
    whole = [tuple(cell) for cell in addresses[hilbert_order(addresses)].tolist()]
    part = addresses[np.random.default_rng(1).random(64) < 0.5]
    part = np.concatenate([part, [[0, 0], [7, 7]]]).astype(np.int32)  # the same square
    kept = {tuple(cell) for cell in part.tolist()}
    found = [tuple(cell) for cell in part[hilbert_order(part)].tolist()]
    assert list(dict.fromkeys(found)) == [cell for cell in whole if cell in kept]


def test_cells_in_degrees_that_lie_beyond_a_pole_are_refused() -> None:
    region = box(-139.3, 69.5, -138.0, 69.65)
    assert len(chosen_cells(Grid("EPSG:4326", 1e-4, cell_size=12288), region, without=None, extent=None).cells) > 1
    said = r"Cells of cube.grid are 245.76 degrees high, 12288 px \(cell_size\) of 0.02 degrees \(resolution\), and r-001c-001 reaches from latitude 0 to 245.76"
    with pytest.raises(CampaignError, match=said):
        chosen_cells(Grid("EPSG:4326", 0.02, cell_size=12288), region, without=None, extent=None)
