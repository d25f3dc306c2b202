"""The map of a report: every cell is in it, and everything has a place that is found on any other map."""

import re
from dataclasses import replace

import numpy as np
import pytest
import shapely

from rtsx.campaign.cells import Address, CellTable
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.report_map import CellState, Coast, MapFrame, cell_map, graticule, map_squares, place_names
from rtsx.grid import Grid
from tests.campaign.records import a_plan
from tests.campaign.test_report import Page

ARCTIC = Grid("EPSG:3413", 3.0, cell_size=12288)
DEGREES = Grid("EPSG:4326", 0.0001, cell_size=10000)
AROUND_THE_POLE = [(row, column) for row in range(-40, 40) for column in range(-40, 40)]


def planned(grid: Grid, cells: list[Address]) -> CampaignPlan:
    (top, left), (bottom, right) = (pick(cells) for pick in (lambda c: np.min(c, 0), lambda c: np.max(c, 0) + 1))
    rows, columns = (int(top), int(bottom)), (int(left), int(right))
    return replace(
        a_plan(rows=1, columns=1), grid=grid, rows=rows, columns=columns, cells=CellTable(np.array(cells, np.int32))
    )


def drawn(grid: Grid, states: dict[Address, CellState], coast: Coast | None = None) -> Page:
    return Page(cell_map(planned(grid, list(states)), states, reasons={}, coast=coast))


def paths(page: Page, kind: str) -> list[str]:
    return [attributes["d"] or "" for tag, attributes in page.elements if tag == "path" and attributes["class"] == kind]


def test_many_cells_are_drawn_as_blocks() -> None:
    states: dict[Address, CellState] = {
        (row, column): "mapped" if column < 0 else "left" for row in range(-60, 60) for column in range(-50, 50)
    }
    states[3, 3] = "failed"
    squares = map_squares(states)
    assert len(squares) <= 2500
    assert {square.side for square in squares} == {4}
    assert sum(sum(square.counts.values()) for square in squares) == len(states)
    (failed,) = (square for square in squares if square.state == "failed")
    assert failed.first == (0, 0)
    assert failed.counts == {"left": 15, "failed": 1}
    page = drawn(ARCTIC, states)
    assert page.count("rect") == len(squares) + 1  # the sea
    (place,) = place_names(planned(ARCTIC, [(0, 0)]), [(0, 0)], side=4).values()
    assert f"r000c000 to r003c003: 1 failed, 15 left, at {place}" in page.text


def test_one_map_among_empty_cells_shows_and_one_among_those_that_are_left_does_not_hide_them() -> None:
    for others, colour in (("empty", "mapped"), ("left", "left")):
        states: dict[Address, CellState] = {(row, column): others for row in range(4) for column in range(4)}
        states[1, 2] = "mapped"
        assert [square.state for square in map_squares(states, most=1)] == [colour]


@pytest.mark.parametrize(
    ("grid", "cell"), [(ARCTIC, (20, -60)), (ARCTIC, (-52, -52)), (DEGREES, (-67, 181)), (DEGREES, (-67, 10))]
)
def test_a_cell_has_the_place_of_its_middle(grid: Grid, cell: Address) -> None:
    (name,) = place_names(planned(grid, [cell]), [cell]).values()
    lat, lon = (float(number) * (-1 if side in "SW" else 1) for number, side in re.findall(r"([\d.]+)° (\w)", name))
    # Over the antimeridian the outline is in two parts, each of which its middle lies at the edge of.
    assert shapely.distance(grid[cell].lonlat, shapely.Point(lon, lat)) < 1e-3
    x, y = MapFrame(crs=grid.crs, box=grid[cell].bounds, width=1.0).lonlat(np.array(0.5), np.array(0.5)).tolist()
    assert ((x - lon + 180) % 360 - 180, y - lat) == pytest.approx((0, 0), abs=1e-3)


@pytest.mark.parametrize(
    ("grid", "cells", "expected"),
    [
        (ARCTIC, [(20, -60)], {"116° W", "69° N"}),
        (ARCTIC, AROUND_THE_POLE, {"180°", "90° E", "0° E", "85° N", "75° N"}),
        (DEGREES, [(row, column) for row in range(-70, -65) for column in range(176, 186)], {"180°", "175° W", "68° N"}),
        (Grid("EPSG:3031", 30.0, cell_size=1000), [(row, column) for row in range(-4, 4) for column in range(-4, 4)], {"180°", "89° S"}),
        (DEGREES, [(row, column) for row in range(-90, -80) for column in range(-180, 180, 2)], {"0° E", "30° W", "150° E", "85° N"}),
        (Grid("EPSG:32608", 10.0, cell_size=2000), [(-388, 20), (-380, 30)], {"136° W", "69° N"}),
    ],
)  # fmt: skip
def test_meridians_and_parallels_are_named_where_they_are(grid: Grid, cells: list[Address], expected: set[str]) -> None:
    plan = planned(grid, cells)
    page = drawn(grid, dict.fromkeys(cells, "left"))
    assert expected <= set(page.text.split("\n"))
    box = plan.geobox.boundingbox
    frame = MapFrame(crs=grid.crs, box=(box.left, box.bottom, box.right, box.top), width=500.0)
    lines, names = graticule(frame)
    for line, name in zip(lines, names, strict=True):
        # A bent line is drawn through points of it, so a point of those is where its name says.
        x, y = shapely.get_coordinates(line)[len(shapely.get_coordinates(line)) // 2]
        lon, lat = frame.lonlat(np.array(x), np.array(y))
        number = float(name.split("°")[0])
        if name[-1] in "NS":
            assert abs(lat) == pytest.approx(number, abs=1e-6)
        elif abs(lat) < 90 - 1e-6:
            assert min(abs(abs(lon) - number), abs(abs(abs(lon) - 360) - number)) < 1e-6


@pytest.mark.parametrize(
    ("grid", "cell", "is_north"),
    [
        (DEGREES, (-67, 181), True),
        (Grid("EPSG:3857", 10.0, cell_size=4096), (-245, 488), True),
        (Grid("EPSG:32608", 10.0, cell_size=2000), (-388, 20), False),
        (ARCTIC, (20, -60), False),
    ],
)
def test_up_is_north_where_meridians_are_upright(grid: Grid, cell: Address, is_north: bool) -> None:
    text = drawn(grid, {cell: "left"}).text
    assert ("Up is north." in text, "which is not north everywhere" in text) == (is_north, not is_north)


def test_there_is_no_latitude_beyond_a_pole() -> None:
    text = drawn(DEGREES, {(-96, 0): "left", (-80, 5): "left"}).text
    assert "upper left one, are at a point off the Earth; a point off the Earth; 79.000° N" in text
    assert "96.000°" not in text


def test_coast_lines_are_where_they_are_across_the_antimeridian_and_around_the_pole() -> None:
    places = np.array([[179.0, 66.5], [180.0, 66.5], [-180.0, 66.5], [-179.0, 66.5], [0.0, -80.0], [10.0, -80.0]])
    coast = Coast("a test", places, np.array([0, 0, 1, 1, 2, 2]))
    for grid, cells in (
        (DEGREES, [(row, c) for row in range(-70, -65) for c in range(176, 186)]),
        (ARCTIC, [(-55, -55), (-45, -45)]),
    ):
        page = drawn(grid, dict.fromkeys(cells, "left"), coast)
        (line, *_) = paths(page, "coast")
        points = np.array(re.findall(r"[ML]([\d.-]+) ([\d.-]+)", line), float)
        assert len(points) == 4  # and nothing of the other pole
        frame = next(attributes for tag, attributes in page.elements if tag == "svg" and attributes.get("x") == "0")
        inside = (points >= 0) & (points <= (float(frame["width"] or 0), float(frame["height"] or 0)))
        assert inside.all()
        assert np.ptp(points[1:3], axis=0).max() < 0.2  # both ends that are the same place
    assert "a test" in page.text


def test_a_map_that_is_small_is_shown_on_the_ground_around_it() -> None:
    coast = Coast.installed()
    assert coast is not None  # of countries that come with pyogrio, at least
    assert "Natural Earth, 1:" in coast.name
    small, large = (drawn(ARCTIC, dict.fromkeys(cells, "left"), coast) for cells in ([(20, -60)], AROUND_THE_POLE))
    titles = [
        [attributes.get("aria-label") for tag, attributes in page.elements if tag == "svg"] for page in (small, large)
    ]
    assert "where the map lies" in titles[0]
    assert len(paths(small, "coast")) == 2
    assert all(len(path) > 500 for path in [paths(small, "coast")[1], *paths(large, "coast")])
    without = drawn(ARCTIC, {(20, -60): "left"})
    assert "No coast lines are installed" in without.text
    assert without.count("svg") == 2  # the map alone, and what its frame cuts off


def test_tens_of_thousands_of_cells_make_a_small_page() -> None:
    grid = Grid("EPSG:3413", 3.0, cell_size=4096)
    states: dict[Address, CellState] = {
        (row, column): "left" for row in range(-150, 150) for column in range(-150, 150)
    }
    text = cell_map(planned(grid, list(states)), states, reasons={}, coast=Coast.installed())
    assert len(text) < 600_000
