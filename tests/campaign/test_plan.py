"""The plan of a campaign as a value."""

import json
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsx.campaign.cells import CellTable
from rtsx.campaign.layout import CAMPAIGN, YearLayout
from rtsx.campaign.plan import CampaignPlan, read_plan, require_same, require_same_map, write_plan
from rtsx.campaign.recipe import OutlineSpec
from rtsx.errors import CampaignError
from rtsx.grid import Grid, grid_offset
from rtsx.inference.plan import PredictionPlan
from rtsx.storage.object_store import MemoryObjects
from rtsx.tiling import TilePlan
from tests.campaign.plans import make_plan

# All that UTF-8 has, by category, because a codec is tried out on every character that there is.
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def plans(draw: st.DrawFn) -> CampaignPlan:
    side = 16 * draw(st.integers(1, 8))
    origin = draw(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)))
    grid = Grid("EPSG:3413", draw(st.floats(0.5, 100)), cell_size=side, origin=origin)
    rows, columns = (
        (first, first + draw(st.integers(1, 5)))
        for first in draw(st.tuples(st.integers(-500, 500), st.integers(-9, 9)))
    )
    every = [(y, x) for y in range(*rows) for x in range(*columns)]
    cells = draw(st.lists(st.sampled_from(every), unique=True, min_size=1))
    tiling = TilePlan(
        shape=((rows[1] - rows[0]) * side, (columns[1] - columns[0]) * side),
        offset=(rows[0] * side, columns[0] * side),
        tile=32,
        overlap=16,
        trim=draw(st.integers(0, 8)),
        stride=4,
    )
    prediction = PredictionPlan(
        tiling=tiling,
        layers=tuple(draw(st.lists(words, min_size=1, max_size=3, unique=True))),
        classes=tuple(draw(st.lists(words, min_size=1, max_size=3, unique=True))),
        threshold=draw(st.floats(0, 1)),
        exclusive=draw(st.booleans()),
        members=tuple(draw(st.lists(words, min_size=1, max_size=2))),
        augment=("identity",),
        scales=(1.0,),
        merge="mean",
        keep_members=False,
        dtype="uint8",
    )
    return CampaignPlan(
        name=draw(words),
        year=draw(st.integers(1900, 2200)),
        grid=grid,
        rows=rows,
        columns=columns,
        cells=CellTable(np.array(cells, np.int32)),
        prediction=prediction,
        layers=draw(st.dictionaries(words, values, max_size=4)),
        outlines=draw(
            st.none()
            | st.builds(
                OutlineSpec,
                min_area_m2=st.floats(0, 1e6),
                threshold=st.none() | st.floats(0, 1, exclude_min=True),
                edge_distance=st.integers(0, 50),
                area_thresholds=st.none() | st.sets(st.sampled_from([0.3, 0.45, 0.8])).map(sorted).map(tuple),
            )
        ),
        cogs=draw(st.booleans()),
        shard=16,
        chunk=draw(st.sampled_from([4, 8, 16])),
        runtime=draw(st.dictionaries(words, words, max_size=2)),
    )


@given(plans())
def test_law_7_a_plan_of_a_campaign_comes_back_equal(plan: CampaignPlan) -> None:
    again = CampaignPlan.from_document(json.loads(json.dumps(plan.to_document())), plan.cells)
    assert again == plan
    assert again.digest == plan.digest
    assert pickle.loads(pickle.dumps(plan)) == plan


@given(plans())
def test_regions_of_cells_are_their_pixels(plan: CampaignPlan) -> None:
    side = plan.grid.cell_size
    for cell in plan.cells:
        y, x = plan.region(cell)
        assert (y.stop - y.start, x.stop - x.start) == (side, side)
        here, there = plan.grid[cell].geobox, plan.geobox[y, x]
        assert tuple(here.affine) == pytest.approx(tuple(there.affine), abs=1e-6)
    assert grid_offset(plan.geobox, plan.lattice_origin) == plan.prediction.tiling.offset
    assert plan.geobox.shape.yx == plan.shape


@pytest.mark.parametrize(
    "changes",
    [
        {"year": 2023},
        {"cogs": True},
        {"shard": 64},
        {"chunk": 8},
        {"outlines": None},
        {"outlines": OutlineSpec(threshold=0.3)},
        {"layers": {"sources": []}},
        {"runtime": {"backend": "onnx", "precision": "auto"}},
        {"cells": CellTable(np.array([[310, -210]], np.int32))},
        {"grid": Grid("EPSG:3413", 10.0, cell_size=64, origin=(10.0, 0.0))},
        {"rows": (309, 312)},
    ],
)
def test_the_digest_knows_all_that_changes_bytes(changes: dict[str, Any]) -> None:
    assert make_plan(**changes).digest != make_plan().digest


def test_cells_outside_the_map_are_refused() -> None:
    with pytest.raises(CampaignError, match=r"Cells lie outside the rows \(311, 312\) and columns \(-210, -208\)"):
        make_plan(rows=(311, 312))
    with pytest.raises(CampaignError, match=r"Cell \(312, -210\) lies outside the rows"):
        make_plan().region((312, -210))


def document(**changes: Any) -> dict[str, Any]:
    values = json.loads(json.dumps(make_plan().to_document())) | changes
    return {name: value for name, value in values.items() if value != "leave out"}


@pytest.mark.parametrize(
    "changes",
    [
        {name: "leave out"}
        for name in ("name", "year", "grid", "rows", "columns", "cells", "prediction", "layers", "outlines", "runtime")
    ]
    + [
        {"grid": "EPSG:3413"},
        {"grid": {"crs": "EPSG:3413"}},
        {"grid": {"crs": "nonsense", "resolution": 3.0, "cell_size": 64, "origin": [0, 0]}},
        {"rows": 3},
        {"rows": ["a", "b"]},
        {"prediction": {}},
        {"prediction": None},
        {"layers": None},
        {"layers": 7},
        {"outlines": {"area": 3}},
        {"runtime": None},
    ],
)
def test_what_is_no_plan_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CampaignError, match=r"This is no plan of a campaign"):
        CampaignPlan.from_document(document(**changes), make_plan().cells)


def test_other_cells_than_it_was_planned_with_are_refused() -> None:
    fewer = CellTable(make_plan().cells.addresses[:2])
    with pytest.raises(CampaignError, match="The list of cells beside the plan is another than it was planned with"):
        CampaignPlan.from_document(document(), fewer)


LAYOUT = YearLayout(2024)


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


def written(objects: MemoryObjects) -> dict[str, bytes]:
    found = {stored.key: objects.get(stored.key) for stored in [*objects.list("years")]}
    return {key: content for key, content in found.items() if content is not None}


def test_a_plan_comes_back_equal(objects: MemoryObjects) -> None:
    plan = make_plan()
    assert read_plan(objects, 2024) is None
    write_plan(objects, plan, config="name: small\n")
    stored = read_plan(objects, 2024)
    assert stored == plan
    assert stored is not None
    assert stored.digest == plan.digest
    assert list(stored.cells) == list(plan.cells)
    assert objects.get(LAYOUT.config) == b"name: small\n"
    assert read_plan(objects, 2023) is None


def test_an_equal_plan_is_written_once(objects: MemoryObjects) -> None:
    write_plan(objects, make_plan())
    before = written(objects)
    write_plan(objects, make_plan(name="other name"), config="other text")
    assert written(objects) == before


class Stopping(MemoryObjects):
    """A store whose n-th write is its last."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.left = writes

    def put(self, key: str, content: bytes) -> None:
        """Write, while there are writes left."""
        self._count()
        super().put(key, content)

    def create(self, key: str, content: bytes) -> bool:
        """Likewise."""
        self._count()
        return super().create(key, content)

    def _count(self) -> None:
        if not self.left:
            raise OSError("stopped")
        self.left -= 1


def test_planning_that_was_stopped_is_no_plan_and_goes_on() -> None:
    for writes in range(10):
        objects = Stopping(writes)
        try:
            write_plan(objects, make_plan())
        except OSError:
            assert read_plan(objects, 2024) is None
            objects.left = 10
            write_plan(objects, make_plan())
            assert read_plan(objects, 2024) == make_plan()
        else:
            assert writes > 3
            return
    pytest.fail("never done")


class Racing(MemoryObjects):
    """A store in which somebody else writes a plan just before ours."""

    def __init__(self, rival: bytes) -> None:
        super().__init__()
        self.rival = rival

    def create(self, key: str, content: bytes) -> bool:
        """Create, too late where it is the plan."""
        if key == LAYOUT.plan:
            super().create(key, self.rival)
        return super().create(key, content)


def test_of_two_that_plan_at_once_both_have_the_same_plan_or_one_is_told() -> None:
    write_plan(Racing(json.dumps(make_plan().to_document()).encode()), make_plan())
    other = json.dumps(make_plan(cogs=True).to_document()).encode()
    with pytest.raises(CampaignError, match="cogs is true there and false here"):
        write_plan(Racing(other), make_plan())


def test_a_plan_that_was_damaged_is_refused(objects: MemoryObjects) -> None:
    write_plan(objects, make_plan())
    whole = {key: objects.get(key) or b"" for key in (LAYOUT.plan, LAYOUT.cells)}

    def damaged(key: str, content: bytes | None, message: str) -> None:
        if content is None:
            objects.delete(key)
        else:
            objects.put(key, content)
        with pytest.raises(CampaignError, match=message):
            read_plan(objects, 2024)
        objects.put(key, whole[key])

    damaged(
        LAYOUT.cells,
        None,
        "is there, but not the cells beside it, years/2024/cells.npy. Remove years.2024.plan.json and plan",
    )
    damaged(LAYOUT.cells, whole[LAYOUT.cells][:50], "holds no cells of a campaign: ")
    damaged(LAYOUT.cells, b"", "holds no cells of a campaign: ")
    damaged(LAYOUT.cells, whole[LAYOUT.cells][:-1] + b"\x01", "another than it was planned with|lie outside the rows")
    damaged(LAYOUT.plan, whole[LAYOUT.plan][:100], "plan.json is no JSON")
    damaged(LAYOUT.plan, b"[]", "plan.json: input should be an object")
    damaged(LAYOUT.plan, b"{}", "plan.json cannot be read: This is no plan of a campaign")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": Grid("EPSG:3413", 5.0, cell_size=64)}, r"the grid is Grid\('EPSG:3413', 10, .* there and Grid\('EPSG:3413', 5"),
        ({"rows": (309, 312)}, r"the extent is rows \(310, 312\) and columns .* there, rows \(309, 312\)"),
        ({"members": ("fedcba9876543210",)}, r"the bundles changed: their digests are \['0123456789ab'\] there and \['fedcba987654'\]"),
        ({"layers": {"sources": [{"name": "scenes", "layers": ["red"]}], "derived": []}}, r"the layers changed: layers.sources\[scenes\].layers"),
        ({"cells": [(310, -210), (310, -209)]}, "1 cells are missing, such as r311c-209"),
        ({"cells": [(310, -210), (310, -209), (311, -209), (311, -210)]}, "1 cells are new, such as r311c-210"),
        ({"threshold": 0.4}, "prediction.threshold is 0.5 there and 0.4 here"),
        ({"scales": (1.0, 0.5)}, r"prediction.scales is \[1.0\] there and \[1.0, 0.5\] here"),
        ({"keep_members": True}, "prediction.spread is false there and true here"),
        ({"shard": 64}, "shard is 32 there and 64 here"),
        ({"outlines": None}, "outlines is {'min_area_m2': 288.0, .*} there and null here"),
        ({"outlines": OutlineSpec(min_area_m2=1.0)}, "outlines.min_area_m2 is 288.0 there and 1.0 here"),
        ({"runtime": {"backend": "onnx", "precision": "auto"}}, "runtime.backend is eager there and onnx here"),
        ({"year": 2025}, "the year is 2024 there and 2025 here"),
    ],
)  # fmt: skip
def test_what_changed_since_the_plan_is_told(changes: dict[str, Any], message: str) -> None:
    stored, values = make_plan(), dict(changes)
    if "cells" in values:
        values["cells"] = CellTable(np.array(values["cells"], np.int32))
    of_prediction = {
        name: values.pop(name) for name in ("members", "threshold", "scales", "keep_members") if name in values
    }
    plan = replace(stored, **values, prediction=replace(stored.prediction, **of_prediction))
    with pytest.raises(CampaignError, match=f"The output holds a plan of 2024, .*{message}.*Restore what was, or take"):
        require_same(stored, plan)
    require_same(plan, plan)


def test_name_and_order_of_cells_change_no_byte() -> None:
    plan = make_plan()
    turned = make_plan(name="other", cells=CellTable(plan.cells.addresses[::-1]))
    assert turned != plan
    assert turned.digest == plan.digest
    require_same(plan, turned)


def test_all_years_share_one_map(objects: MemoryObjects) -> None:
    write_plan(objects, make_plan())
    later = make_plan(year=2025, cells=CellTable(np.array([[311, -210]], np.int32)), outlines=None)
    write_plan(objects, later)
    assert read_plan(objects, 2025) == later
    for changes, message in (
        ({"columns": (-210, -207)}, r"columns\[1\] is -208 there and -207 here"),
        ({"chunk": 32}, "chunk is 16 there and 32 here"),
        ({"grid": Grid("EPSG:3413", 10.0, cell_size=64, origin=(5.0, 0.0))}, "grid.origin"),
    ):
        with pytest.raises(CampaignError, match=f"share one array, and 2026 does not fit those before it: {message}"):
            require_same_map(objects, make_plan(year=2026, **changes))
    objects.put(CAMPAIGN, b"{}")
    with pytest.raises(CampaignError, match=r"is no campaign's: it lacks chunk, classes"):
        write_plan(objects, make_plan(year=2026))


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": 0.0}, {"threshold": 1.5}, {"threshold": float("nan")}, {"min_area_m2": -1.0}, {"edge_distance": -1}],
)
def test_outlines_that_no_plan_could_hold_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(CampaignError, match="Outlines take a threshold above 0 and up to 1"):
        OutlineSpec(**wrong)
