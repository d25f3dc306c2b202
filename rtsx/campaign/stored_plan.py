"""The plan beside the output: written once, read by whoever runs or looks, and compared before anything is run by another."""

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rtsx.campaign.cell_table import CellTable
from rtsx.campaign.layout import CAMPAIGN, YearLayout
from rtsx.campaign.objects import ObjectStore
from rtsx.campaign.plan import CampaignPlan
from rtsx.cube.description import difference
from rtsx.errors import CampaignError
from rtsx.grid.cell import cell_id
from rtsx.parsing import parsed_json

__all__ = ["read_plan", "require_same", "require_same_map", "write_plan"]


def write_plan(objects: ObjectStore, plan: CampaignPlan, *, config: str = "") -> None:
    """Write a plan for its year, the document itself last; nothing happens where an equal one is there.

    Parameters
    ----------
    objects
        Below the output.
    plan
        What will be run.
    config
        Text that is stored beside it, such as the resolved YAML that it comes from.

    Raises
    ------
    CampaignError
        Another plan is there for this year, or the map of the other years has another grid, extent or classes.
    """
    layout = YearLayout(plan.year)
    stored = read_plan(objects, plan.year)
    if stored is not None:
        require_same(stored, plan)
        return
    require_same_map(objects, plan)
    cells = io.BytesIO()
    np.save(cells, plan.cells.addresses, allow_pickle=False)
    objects.put(layout.cells, cells.getvalue())
    objects.put(layout.config, config.encode())
    document = json.dumps(plan.to_document(), sort_keys=True, indent=1).encode()
    if not objects.create(layout.plan, document):
        stored = read_plan(objects, plan.year)  # somebody else was faster
        assert stored is not None
        require_same(stored, plan)


def read_plan(objects: ObjectStore, year: int) -> CampaignPlan | None:
    """The plan of a year, equal to the one that was written; None where there is none.

    Raises
    ------
    CampaignError
        What is there is no plan, or its cells are gone or others.
    """
    layout = YearLayout(year)
    document = objects.get(layout.plan)
    if document is None:
        return None
    content = objects.get(layout.cells)
    if content is None:
        raise CampaignError(
            f"{layout.plan} is there, but not the cells beside it, {layout.cells}. Remove {layout.plan} and plan the year again."
        )
    try:
        addresses = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise CampaignError(
            f"{layout.cells} holds no cells of a campaign: {error}. Remove {layout.plan} and plan the year again."
        ) from error
    described = parsed_json(document, dict[str, Any], what=layout.plan, error=CampaignError)
    try:
        return CampaignPlan.from_document(described, CellTable(addresses))
    except CampaignError as error:
        raise CampaignError(f"{layout.plan} cannot be read: {error}") from error


def require_same_map(objects: ObjectStore, plan: CampaignPlan) -> None:
    """Note what all years of an output share, or refuse a plan that does not share it.

    Raises
    ------
    CampaignError
        Grid, extent, classes, shards or chunks are others than those of the years before.
    """
    mine = _shared(plan)
    content = json.dumps({"name": plan.name, **mine}, sort_keys=True).encode()
    if objects.create(CAMPAIGN, content):
        return
    theirs = parsed_json(objects.get(CAMPAIGN) or b"", dict[str, Any], what=CAMPAIGN, error=CampaignError)
    if missing := sorted(set(mine) - set(theirs)):
        raise CampaignError(
            f"{CAMPAIGN} in this output is no campaign's: it lacks {', '.join(missing)}. Take another output."
        )
    found = difference({name: theirs[name] for name in mine}, mine)
    if found is not None:
        raise CampaignError(
            f"The years of one output share one array, and {plan.year} does not fit those before it: {found}. Take the same "
            "grid, extent, classes, shard and chunk, or another output. An extent of all years' ground lets regions differ."
        )


def require_same(stored: CampaignPlan, plan: CampaignPlan) -> None:
    """Refuse a plan that would write other bytes than the one that is stored; name and order of cells may differ.

    Raises
    ------
    CampaignError
        They differ; the message says in what.
    """
    if stored.digest == plan.digest:
        return
    raise CampaignError(
        f"The output holds a plan of {stored.year}, and this one would write other bytes: "
        + "; ".join(_differences(stored, plan))
        + ". Restore what was, or take another output."
    )


def _differences(stored: CampaignPlan, plan: CampaignPlan) -> Iterator[str]:
    before, after = stored.prediction, plan.prediction
    if stored.year != plan.year:
        yield f"the year is {stored.year} there and {plan.year} here"
    if stored.grid != plan.grid:
        yield f"the grid is {stored.grid} there and {plan.grid} here"
    elif (stored.rows, stored.columns) != (plan.rows, plan.columns):
        yield (
            f"the extent is rows {stored.rows} and columns {stored.columns} of cells there, rows {plan.rows} and columns "
            f"{plan.columns} here"
        )
    if before.members != after.members:
        yield f"the bundles changed: their digests are {_short(before.members)} there and {_short(after.members)} here"
    layers = difference(dict(stored.layers), dict(plan.layers), name="layers")
    if layers is not None:
        yield f"the layers changed: {layers}"
    yield from _of_cells(stored, plan)
    there, here = (_rest(one.to_document()) for one in (stored, plan))
    for name in there:
        found = difference(there[name], here[name], name=name)
        if found is not None:
            yield found


def _of_cells(stored: CampaignPlan, plan: CampaignPlan) -> Iterator[str]:
    before, after = set(stored.cells), set(plan.cells)
    for cells, what in ((before - after, "are missing"), (after - before, "are new")):
        if cells:
            yield f"{len(cells)} cells {what}, such as {cell_id(*min(cells))}"


def _shared(plan: CampaignPlan) -> dict[str, Any]:
    document = plan.to_document()
    shared = {name: document[name] for name in ("grid", "rows", "columns", "shard", "chunk")}
    return json.loads(json.dumps(shared | {"classes": plan.prediction.classes}))  # type: ignore[no-any-return]


def _rest(document: dict[str, Any]) -> dict[str, Any]:
    """What has no words of its own: tiling, threshold, outlines, shards, runtime."""
    named = ("name", "year", "grid", "rows", "columns", "cells", "layers")
    rest = {name: value for name, value in document.items() if name not in named}
    prediction = {name: value for name, value in rest["prediction"].items() if name != "members"}
    # The tiling's place and size follow from grid and extent, which have been named.
    prediction["tiling"] = {
        name: value for name, value in prediction["tiling"].items() if name not in ("shape", "offset")
    }
    return rest | {"prediction": prediction}


def _short(digests: Sequence[str]) -> list[str]:
    return [digest[:12] for digest in digests]
