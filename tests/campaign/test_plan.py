"""The plan of a campaign as a value."""

import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsx.campaign.cells import CellTable
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.recipe import OutlineSpec
from rtsx.errors import CampaignError
from rtsx.grid import Grid, lattice_offset
from rtsx.inference.plan import PredictionPlan
from rtsx.tiling import TilePlan
from tests.campaign.plans import make_plan

words = st.text(min_size=1, max_size=8)
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
                threshold=st.none() | st.floats(0, 1),
                edge_distance=st.integers(0, 50),
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
    assert lattice_offset(plan.geobox, plan.lattice_origin) == plan.prediction.tiling.offset
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
