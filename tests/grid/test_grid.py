"""The grid's addresses, geoboxes and errors."""

import pickle

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from shapely import LineString, Point, box

from rtsx.errors import GridError
from rtsx.grid import Grid, grid_offset

INDEX = st.integers(-300, 300)


@given(INDEX, INDEX)
def test_neighbouring_cells_share_a_border(iy: int, ix: int) -> None:
    grid = Grid.arctic()
    here, right, below = grid[iy, ix], grid[iy, ix + 1], grid[iy + 1, ix]
    assert here.bounds[2] == right.bounds[0]
    assert here.bounds[1] == below.bounds[3]
    assert here.geobox.shape == (grid.cell_size, grid.cell_size)
    assert tuple(here.geobox.boundingbox) == here.bounds


@given(INDEX, INDEX)
def test_a_cell_comes_back_from_its_name_and_from_its_middle(iy: int, ix: int) -> None:
    cell = Grid.arctic(resolution=2.5)[iy, ix]
    assert cell.grid.cell(cell.id) == cell
    assert cell.grid.cell_at(cell.polygon.centroid.x, cell.polygon.centroid.y) == cell


def test_a_grid_and_its_cells_are_values() -> None:
    grid = Grid.arctic()
    assert grid == Grid("epsg:3413", 3)
    assert hash(grid) == hash(Grid("EPSG:3413", 3.0))
    cell = grid[4, -7]
    assert pickle.loads(pickle.dumps(cell)) == cell
    assert len({cell, grid[4, -7], grid[4, 7]}) == 2
    assert "r004c-007" in repr(cell)
    assert "EPSG:3413" in repr(grid)


def test_default_cells_are_whole_shards() -> None:
    assert all(Grid.arctic().cell_size % shard == 0 for shard in (512, 1024, 2048, 4096))


def test_halo_widens_every_side() -> None:
    cell = Grid.arctic()[1, 2]
    haloed = cell.haloed(64)
    assert haloed.shape == (12288 + 128, 12288 + 128)
    assert haloed.affine.c == cell.bounds[0] - 64 * 3
    assert haloed.affine.f == cell.bounds[3] + 64 * 3
    with pytest.raises(GridError, match="0 or more pixels; got -1"):
        cell.haloed(-1)


def test_cells_of_a_region_cover_it_and_none_is_idle() -> None:
    grid = Grid("EPSG:32608", 10.0, cell_size=500, origin=(300001.0, 7900002.0))
    region = shapely.MultiPolygon([box(310000, 7880000, 331000, 7884000), box(400000, 7700000, 400100, 7700100)])
    cells = list(grid.cells(region, crs="EPSG:32608"))
    assert len(set(cells)) == len(cells)
    assert cells == sorted(cells, key=lambda cell: (cell.iy, cell.ix))
    union = shapely.union_all([cell.polygon for cell in cells])
    assert region.within(union)
    assert all(cell.polygon.intersection(region).area > 0 for cell in cells)


def test_a_region_that_is_a_cell_is_that_cell_alone() -> None:
    cell = Grid.arctic()[-3, 5]
    assert list(cell.grid.cells(cell.polygon, crs="EPSG:3413")) == [cell]


def test_points_and_lines_count_where_they_touch() -> None:
    grid = Grid("EPSG:3413", 10, cell_size=100)
    assert len(list(grid.cells(Point(0, 0), crs="EPSG:3413"))) == 4
    assert len(list(grid.cells(LineString([(1, 1), (1999, 1)]), crs="EPSG:3413"))) == 2


def test_cells_across_the_antimeridian_and_around_the_pole() -> None:
    grid = Grid.arctic(resolution=100, cell_size=1000)
    across = shapely.MultiPolygon([box(179, 68, 180, 69), box(-180, 68, -179, 69)])
    cells = list(grid.cells(across))
    assert 0 < len(cells) < 10
    cap = list(grid.cells(box(-180, 88.5, 180, 90)))
    assert {(-1, -1), (-1, 0), (0, -1), (0, 0)} <= {(cell.iy, cell.ix) for cell in cap}


def test_from_geobox_keeps_the_lattice_of_the_raster() -> None:
    geobox = GeoBox((300, 200), Affine(3, 0, 711576, 0, -3, 94749), "EPSG:32649")
    grid = Grid.from_geobox(geobox, cell_size=100)
    assert grid.window((0, 300), (0, 200)) == geobox
    with pytest.raises(GridError, match="square pixels"):
        Grid.from_geobox(GeoBox((3, 3), Affine(3, 0, 0, 0, -4, 0), "EPSG:32649"))
    with pytest.raises(GridError, match="has none"):
        Grid.from_geobox(GeoBox((3, 3), Affine(3, 0, 0, 0, -3, 0), None))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crs": "EPSG:999999", "resolution": 3}, "PROJ knows.*EPSG:999999"),
        ({"crs": "EPSG:4978", "resolution": 3}, "projected or geographic"),
        ({"crs": "EPSG:3413", "resolution": 0}, "above 0 in CRS units; got 0"),
        ({"crs": "EPSG:3413", "resolution": float("nan")}, "above 0 in CRS units; got nan"),
        ({"crs": "EPSG:3413", "resolution": 3, "cell_size": 12.5}, "whole number of pixels.*12.5"),
        ({"crs": "EPSG:3413", "resolution": 3, "origin": (0.0, float("inf"))}, "two finite numbers"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(GridError, match=message):
        Grid(**arguments)  # type: ignore[arg-type]


def test_addresses_and_regions_that_cannot_be_are_refused() -> None:
    grid = Grid.arctic()
    with pytest.raises(GridError, match=r"grid\[iy, ix\]"):
        grid[1.5, 2]  # type: ignore[index]
    with pytest.raises(GridError, match=r"grid\[iy, ix\]"):
        grid[3]  # type: ignore[index]
    with pytest.raises(TypeError, match="no end"):
        list(grid)
    with pytest.raises(GridError, match="named like"):
        grid.cell("r1c2")
    with pytest.raises(GridError, match="not empty"):
        list(grid.cells(Point()))
    with pytest.raises(GridError, match="cannot be expressed"):
        list(grid.cells(Point(9e9, 9e9), crs="EPSG:32608"))
    assert grid[np.int64(3), np.int32(4)] == grid[3, 4]


@pytest.mark.parametrize(
    ("wkt", "message"),
    [
        ("POLYGON ((0 70, 1 71, 0 70, 0 70))", "polygon without area"),
        ("POLYGON ((0 70, 0 70, 0 70, 0 70))", "polygon without area"),
        ("POLYGON ((-180 -90, 180 -90, 180 90, -180 90, -180 -90))", "cannot hold the region"),
        ("POLYGON ((10 -80, 11 -80, 11 -79, 10 -79, 10 -80))", r"cannot hold the region .*stretches ground 126 times"),
    ],
)
def test_ground_that_a_grid_cannot_hold_is_refused(wkt: str, message: str) -> None:
    with pytest.raises(GridError, match=message):
        list(Grid.arctic().cells(shapely.from_wkt(wkt)))


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
