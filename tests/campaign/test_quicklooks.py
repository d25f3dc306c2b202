"""Pictures of what was found: of what is done now, and of all that can be read."""

import re
from pathlib import Path

import geopandas
import pytest

from rtsx.campaign import Campaign
from rtsx.campaign.layout import MAP, YearLayout
from tests.campaign.collect.finished import LEFT, TOP, Output, make_pixels, plan_of

PLAN = plan_of(1, 3, cell=64)
CELLS = [(TOP, LEFT), (TOP, LEFT + 1), (TOP, LEFT + 2)]
LAYOUT = YearLayout(PLAN.year)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """An output of which the first cell is done and collected."""
    made = Output(PLAN, tmp_path / "out")
    made.finish(make_pixels(PLAN, seed=4, threshold=0.2), CELLS[:1])
    Campaign(plan=PLAN, output=made.path).collect(tracks=False, overviews=False, stac=False)
    return made


def told(output: Output) -> str:
    return Path(Campaign(plan=PLAN, output=output.path).report().path).read_text()


def areas(page: str) -> list[str]:
    return re.findall(r"<figcaption>([\d,]+) m²", page)


def found(folder: Path) -> list[str]:
    tables = [geopandas.read_parquet(path)["area_m2"] for path in sorted(folder.glob("*.parquet"))]
    return [f"{area:,.0f}" for area in sorted((one for table in tables for one in table), reverse=True)]


def test_outlines_that_were_collected_are_shown_until_other_cells_are_done(output: Output) -> None:
    collected = Path(output.path) / LAYOUT.products / "footprints"
    assert areas(told(output))[:3] == found(collected)[:3]
    output.finish(make_pixels(PLAN, seed=4, threshold=0.2), CELLS[1:])
    single = found(Path(output.path) / LAYOUT.outlines)[:3]
    assert single != found(collected)[:3]
    assert areas(told(output))[:3] == single
    Campaign(plan=PLAN, output=output.path).collect(tracks=False, overviews=False, stac=False)
    assert areas(told(output))[:3] == found(collected)[:3]


def test_damaged_outlines_and_shards_hide_no_others(output: Output) -> None:
    output.finish(make_pixels(PLAN, seed=4, threshold=0.2), CELLS[1:])
    (Path(output.path) / LAYOUT.outline(CELLS[0])).write_bytes(b"half a file")
    page = told(output)
    assert len(areas(page)) > 1
    assert f"{LAYOUT.outline(CELLS[0])} cannot be read as outlines" in page
    assert "Not all that was found could be read" in page
    whole = [area for area in areas(page) if area]
    for path in (Path(output.path) / MAP / "probability" / "c").rglob("*"):
        if path.is_file() and path.parent.parent.name == "0" and path.name in "45":  # of the last cell
            path.write_bytes(path.read_bytes()[:-3])
    page = told(output)
    assert 0 < len(areas(page)) < len(whole)
    assert "has no picture, because the map cannot be read there" in page
    assert "No outlines." not in page


def test_a_damaged_product_has_no_place_of_a_cell(output: Output) -> None:
    (product,) = (Path(output.path) / LAYOUT.products / "footprints").glob("*.parquet")
    product.write_bytes(b"half a file")
    rows = told(output).partition("<h2>Damaged records</h2>")[2].partition("<h2>")[0]
    assert product.name in rows
    assert "° N" not in rows


def test_a_damaged_mark_counts_as_done_everywhere(output: Output) -> None:
    output.finish(make_pixels(PLAN, seed=4, threshold=0.2), CELLS[1:2])
    (Path(output.path) / LAYOUT.mark(CELLS[0])).write_text("{}")
    page = re.sub(r"<[^>]+>|\s+", " ", told(output))
    result = re.sub(" +", " ", page)
    assert "2 of 3 cells are done" in result
    assert "and 1 are left" in result
    assert "of them with a damaged record 1" in result
    assert "mapped: 1 damaged: 1 left: 1" in result
    assert list(Campaign(plan=PLAN, output=output.path).cells()["state"]) == ["damaged", "mapped", "left"]
