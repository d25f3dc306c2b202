"""A plan without any source or network behind it, and records of what became of its cells."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from rtsx.campaign.cells import Address, CellTable
from rtsx.campaign.drift import DriftCheck, compare
from rtsx.campaign.ledger import Lease
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.recipe import OutlineSpec
from rtsx.campaign.records import CommitRecord, Failure, RunRecord
from rtsx.grid import Grid
from rtsx.inference.plan import PredictionPlan
from rtsx.model.metadata import LayerDistribution
from rtsx.tiling import TilePlan

NOW = datetime(2024, 7, 1, 12, tzinfo=UTC)


def a_plan(*, rows: int, columns: int, cells: list[Address] | None = None, name: str = "arctic") -> CampaignPlan:
    """A plan over all cells of a window that begins at (0, 0), or over some of them."""
    side = 64
    every = cells or [(row, column) for row in range(rows) for column in range(columns)]
    tiling = TilePlan(
        shape=(rows * side, columns * side),
        offset=(0, 0),
        tile=48,
        overlap=16,
        trim=8,
        blend="crop",
        stride=2,
    )
    prediction = PredictionPlan(
        tiling=tiling,
        layers=("red",),
        classes=("slump",),
        threshold=0.5,
        exclusive=False,
        members=("f" * 64,),
        augment=("identity",),
        scales=(1.0,),
        merge="mean",
        keep_members=False,
        dtype="uint8",
    )
    return CampaignPlan(
        name=name,
        year=2024,
        grid=Grid("EPSG:3413", 10.0, cell_size=side),
        rows=(0, rows),
        columns=(0, columns),
        cells=CellTable(np.array(every, np.int32)),
        prediction=prediction,
        layers={},
        outlines=OutlineSpec(),
        cogs=False,
        shard=32,
        chunk=16,
        runtime={"backend": "eager", "precision": "float32"},
    )


def a_mark(cell: Address, **changes: Any) -> CommitRecord:
    """The mark of a cell that took a minute, and ended now."""
    facts: dict[str, Any] = {
        "cell": cell,
        "plan_digest": "d" * 64,
        "state": "mapped",
        "objects": {},
        "inputs": (),
        "bundles": ("f" * 64,),
        "versions": {"rtsx": "0.1.0"},
        "n_valid": 4000,
        "n_outlines": 3,
        "seconds": 60.0,
        "peak_memory_bytes": 10**9,
        "started": (NOW - timedelta(minutes=1)).isoformat(),
        "finished": NOW.isoformat(),
        "run": "run-1",
        "worker": "tcp://node-1:4000",
    }
    return CommitRecord(**(facts | changes))


def a_failure(cell: Address, **changes: Any) -> Failure:
    """The failure of a cell with damaged data."""
    facts: dict[str, Any] = {
        "cell": cell,
        "kind": "lasting",
        "error": "CubeError",
        "message": "scene.tif cannot be read",
        "traceback": "Traceback (most recent call last): ...",
        "attempts": 1,
        "when": NOW.isoformat(),
        "run": "run-1",
        "worker": "tcp://node-1:4000",
    }
    return Failure(**(facts | changes))


def a_lease(cell: Address, *, ends_in_s: float) -> Lease:
    """A lease that ends so many seconds from now, or ended before."""
    ends = timedelta(seconds=ends_in_s)
    return Lease(cell=cell, generation=1, run="run-1", holder="node-1", taken=NOW, expires=NOW + ends)


def a_run(**changes: Any) -> RunRecord:
    """The record of a run that began an hour ago, with two workers."""
    facts: dict[str, Any] = {
        "run": "run-1",
        "plan_digest": "d" * 64,
        "host": "desk",
        "versions": {"rtsx": "0.1.0"},
        "started": (NOW - timedelta(hours=1)).isoformat(),
        "written": NOW.isoformat(),
        "ended": False,
        "stopped": None,
        "cells": 8,
        "done": 4,
        "skipped": 0,
        "set_aside": 1,
        "retried": 2,
        "workers": 2,
        "seconds": 3600.0,
        "worker_seconds": 7200.0,
    }
    return RunRecord(**(facts | changes))


def a_check(plan: CampaignPlan, *, factor: float) -> DriftCheck:
    """A drift check of two cells, whose red is so many times that of another year."""
    red = [{"red": LayerDistribution.of(np.arange(2000.0) * one, pixels=2000)} for one in (1, factor)]
    return DriftCheck(
        plan_digest=plan.digest,
        when=NOW.isoformat(),
        cells=("r000c000", "r000c001"),
        invalid=0.0,
        layers=red[1],
        comparisons=tuple(compare(red[1], red[0], against="2023", with_invalid=True, decides=True)),
        same_cells=1.0,
    )
