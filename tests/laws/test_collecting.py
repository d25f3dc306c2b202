"""What is collected of cells is what the whole map gives, however it was cut, and in whatever order cells were finished."""

import geopandas
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from rtsx.campaign.layout import YearLayout
from rtsx.campaign.products import tables
from rtsx.campaign.products.footprints import (
    FOOTPRINTS,
    LEVEL2,
    TRACKS,
    YearFootprints,
    collect_level2,
    collect_tracks,
    collected_years,
)
from rtsx.campaign.products.tables import cell_states, read_outlines
from rtsx.campaign.recipe import OutlineSpec
from rtsx.footprints import level2_footprints, track_footprints
from rtsx.storage.object_store import MemoryObjects
from tests.campaign.collect.finished import Output, make_pixels, masked, plan_of, whole_footprints


@pytest.fixture(autouse=True)
def small_partitions(monkeypatch):
    """Two by two cells, so that many borders cross a small map."""
    monkeypatch.setattr(tables, "SIDE", 2)


@st.composite
def division(draw):
    """A map, how it is cut into cells, which of them are planned, and in which order they are finished."""
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    addresses = [(j, i) for j in range(rows) for i in range(columns)]
    without = draw(st.sets(st.sampled_from(addresses), max_size=len(addresses) // 3))
    spec = OutlineSpec(min_area_m2=14400.0, edge_distance=3, area_thresholds=(0.55, 0.8), nodata_fraction=True)
    plan = plan_of(rows, columns, cell=draw(st.sampled_from([8, 16])), without=without, spec=spec)
    pixels = make_pixels(
        plan,
        seed=draw(st.integers(0, 2**32 - 1)),
        smooth=draw(st.sampled_from([1.0, 3.0])),
        threshold=draw(st.sampled_from([-0.2, 0.2])),
    )
    order = draw(st.permutations(sorted(plan.cells)))
    return plan, pixels, order, draw(st.integers(0, len(order)))


def collected(output, *, name=FOOTPRINTS):
    """All rows of a table, and its files."""
    folder = f"{output.layout.products}/{name}"
    files = {one.key: output.objects.get(one.key) for one in output.objects.list(folder)}
    tables = [read_outlines(content, name=key) for key, content in files.items()]
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True), files


def collect(output):
    states = cell_states(output.ledger.marks(), output.layout)
    footprints = YearFootprints(
        objects=output.objects, plan=output.plan, states=states, rule=None, valid=lambda y, x: output.valid[y, x]
    )
    refreshed = footprints.collect()
    collect_level2(footprints.table, refreshed, layout=output.layout, spec=footprints.spec)
    return refreshed


def assert_same(one, other, *, by=("footprint_id",)):
    one, other = (table.sort_values(list(by)).reset_index(drop=True) for table in (one, other))
    assert len(one) == len(other)
    if not len(one):
        return
    assert one.crs == other.crs
    assert shapely.equals_exact(one.geometry.array, other.geometry.array, tolerance=0).all()
    pd.testing.assert_frame_equal(
        pd.DataFrame(one.drop(columns="geometry")), pd.DataFrame(other.drop(columns="geometry")), check_exact=True
    )


@pytest.mark.slow
@settings(max_examples=4, deadline=None)
@given(division())
def test_footprints_of_cells_are_those_of_the_whole_map(case):
    plan, pixels, order, count = case
    output = Output(plan, "memory", store=MemoryObjects())
    done = order[:count]
    output.finish(pixels, done)
    refreshed = collect(output)
    if not done:
        assert refreshed.records == {}
        return
    expected = whole_footprints(masked(pixels, plan, done), plan)
    assert_same(collected(output)[0], expected)
    assert refreshed.rows == len(expected)
    level2 = level2_footprints([expected])
    assert_same(collected(output, name=LEVEL2)[0], level2.get(plan.year, expected[:0]))


@pytest.mark.slow
@settings(max_examples=3, deadline=None)
@given(division(), st.data())
def test_cell_by_cell_gives_the_bytes_of_all_at_once(case, data):
    plan, pixels, order, count = case
    output = Output(plan, "memory", store=MemoryObjects())
    others = make_pixels(plan, seed=1)
    steps = data.draw(st.lists(st.integers(0, len(order)), max_size=3).map(sorted))
    before = 0
    for step in [*steps, len(order)]:
        output.finish(others if step == count else pixels, order[before:step])
        before = step
        collect(output)
    again = data.draw(st.lists(st.sampled_from(order), unique=True, max_size=2)) if order else []
    for cell in again:  # as an update does
        output.ledger.retire(cell)
        output.objects.delete(output.layout.outline(cell))
        collect(output)
    output.finish(pixels, again, run="b")
    last = collect(output)
    assert collect(output).rewritten == ()
    _, files = collected(output) if order else (None, {})
    for record in list(output.objects.list(f"{output.layout.products}")):
        output.objects.delete(record.key)
    anew = collect(output)
    assert anew.records == last.records
    assert (collected(output)[1] if order else {}) == files


@pytest.mark.slow
@settings(max_examples=2, deadline=None)
@given(division(), st.integers(0, 2**32 - 1))
def test_tracks_of_partitions_are_those_of_the_whole(case, seed):
    plan, pixels, _order, count = case
    store = MemoryObjects()
    found = {}
    for year in (2022, 2023, 2024):
        of_year = plan_of(
            plan.rows[1] - plan.rows[0], plan.columns[1] - plan.columns[0], cell=plan.grid.cell_size, year=year
        )
        output = Output(of_year, "memory", store=store)
        ground = pixels if year == 2023 else make_pixels(of_year, seed=seed + (year == 2024), smooth=2.0, threshold=0.1)
        done = sorted(of_year.cells)[: count + 1] if year == 2023 else list(of_year.cells)
        output.finish(ground, done)
        collect(output)
        found[year] = whole_footprints(masked(ground, of_year, done), of_year)
        if year == 2022:  # one year alone has no tracks
            continue
        records = collected_years(store, found)
        refreshed = collect_tracks(store, records, layout=YearLayout(year))
        expected = track_footprints(found)
        rows = geopandas.GeoDataFrame(collected(output, name=TRACKS)[0])
        assert refreshed.rows == len(expected)
        dtypes = expected.drop(columns="geometry").dtypes.to_dict()  # a file has its own word for text
        assert_same(rows[expected.columns].astype(dtypes), expected, by=("year", "footprint_id"))
    assert collect_tracks(store, records, layout=YearLayout(year)).rewritten == ()
