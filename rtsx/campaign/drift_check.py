"""The drift check: statistics of a sample of a year's images, measured and compared before anything is spent."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
from dask.base import compute
from numpy.typing import NDArray
from pandas.util import hash_array

from rtsx.campaign.cell_input import cubes_of, is_gap
from rtsx.campaign.cells import Address, CellTable
from rtsx.campaign.drift import (
    DriftCheck,
    compare,
    compare_nothing,
    compare_ranges,
    compare_valid,
    read_check,
    write_check,
)
from rtsx.campaign.ledger import planned_years
from rtsx.campaign.plan import CampaignPlan, read_plan
from rtsx.cube import CubeRecipe
from rtsx.cube.chunk_loader import collect_missing
from rtsx.cube.encoding import is_representable, packing
from rtsx.cube.load import load_recipe
from rtsx.errors import CampaignError, CubeError, NoImageError
from rtsx.grid.grid import cell_id, parse_cell_id
from rtsx.model.metadata import DISTRIBUTIONS, LayerDistribution
from rtsx.parsing import parsed_json
from rtsx.storage.object_store import ObjectStore

if TYPE_CHECKING:
    from rtsx.campaign.campaign import Campaign
    from rtsx.model import ModelBundle

_SIDE = 256
"""Side of what is read of each cell, px."""
_MOST = 64 * _SIDE**2
"""About as many values of a layer are kept, however many cells are looked at."""
_LEAST = 1000
"""Values that are compared at least."""
_READERS = 4
"""Chunks that are read at a time."""


def check_drift(
    campaign: "Campaign", *, cells: int, against: int | None, progress: Callable[[int, int], None] | None
) -> DriftCheck:
    """Sample the images of a year, compare them, and keep the result with its page in the output; see `Campaign.check`."""
    objects, plan, recipe = campaign.objects, campaign.plan, campaign.required_recipe("A check")
    if cells < 1:
        raise CampaignError(f"A drift check looks at 1 cell or more; got {cells}.")
    before = None
    with suppress(CampaignError):  # what is damaged is written anew
        before = read_check(objects, plan)
    notes: list[str] = []
    other = _reference_year(objects, plan, against=against, notes=notes)
    chosen = sampled_cells(plan.cells, cells, also=() if other is None else map(parse_cell_id, other[1].cells))
    cube_of = cubes_of(recipe, plan, objects, digest=plan.digest)
    invalid, measured = _measured(plan, cube_of, chosen, progress=progress)
    compared = compare_nothing(invalid)
    if other is not None:
        year, found = other
        compared += compare(measured, found.layers, against=str(year), with_invalid=True, decides=True)
        compared.append(compare_valid(invalid, found.invalid, against=str(year)))
        notes += [f"{layer}: the check of {year} has no such layer" for layer in measured if layer not in found.layers]
    for bundle in recipe.bundles:
        name = bundle.id or bundle.digest[:12]
        learnt = learnt_distributions(bundle)
        if not learnt:
            notes.append(
                f"model {name} does not say how what it has learnt from is distributed, as those do that rtsx trains now: of it, only "
                "the scaling of its input is compared"
            )
        compared += compare(measured, learnt, against=name, with_invalid=False, decides=other is None)
        scaled = [layer for layer in bundle.inputs if layer.name not in learnt]
        compared += compare_ranges(measured, scaled, against=name, decides=other is None)
    names = tuple(cell_id(*cell) for cell, _ in chosen)
    same = None if other is None else len(set(names) & set(other[1].cells)) / len(names)
    check = DriftCheck(
        plan_digest=plan.digest,
        when=datetime.now(UTC).isoformat(),
        cells=names,
        invalid=invalid,
        layers=measured,
        comparisons=tuple(compared),
        same_cells=same,
        notes=tuple(notes),
    )
    if before is not None and (before.layers, before.comparisons) == (check.layers, check.comparisons):
        check = replace(check, acceptances=before.acceptances)  # what was accepted is what was found again
    write_check(objects, plan, check)
    return check


def sampled_cells(
    cells: CellTable, most: int, *, also: Iterable[Address] = ()
) -> tuple[tuple[Address, tuple[float, float]], ...]:
    """Choose cells at random, and a place (y, x; 0-1) in each: by a hash of the cell, so that plans that share ground share a sample.

    Parameters
    ----------
    cells
        Of the plan.
    most
        How many; a greater sample holds the smaller ones.
    also
        Further ones, where the plan has them.

    Examples
    --------
    >>> table = CellTable(np.array([[0, 0], [0, 1], [0, 2], [0, 3]], np.int32))
    >>> few, all_ = sampled_cells(table, 2), sampled_cells(table, 9)
    >>> len(all_), set(few) < set(all_), sampled_cells(table, 4, also=[(7, 7)]) == all_
    (4, True, True)
    """
    keys = _keys(cells.addresses)
    ranks = hash_array(keys)
    further = np.isin(keys, _keys(np.array([*also], np.int64).reshape(-1, 2)))
    chosen = np.union1d(np.argsort(ranks)[:most], np.flatnonzero(further))
    places = np.stack([hash_array(ranks[chosen] ^ np.uint64(axis)) for axis in (1, 2)], 1) / 2.0**64
    return tuple(
        ((iy, ix), (y, x)) for (iy, ix), (y, x) in zip(cells.addresses[chosen].tolist(), places.tolist(), strict=True)
    )


def _keys(addresses: NDArray[np.integer]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(addresses, np.int32).view(np.uint64)[:, 0]


def _reference_year(
    objects: ObjectStore, plan: CampaignPlan, *, against: int | None, notes: list[str]
) -> tuple[int, DriftCheck] | None:
    """Return the year to compare with: the one that was asked for, else the nearest before, else the nearest after, that may run."""
    planned = [year for year in planned_years(objects) if year != plan.year]
    if against is not None and against not in planned:
        others = ", ".join(map(str, planned)) or "none"
        raise CampaignError(f"{against} is no other year of this campaign; planned others: {others}.")
    before_first = sorted(planned, key=lambda year: (year > plan.year, abs(year - plan.year)))
    for year in before_first if against is None else [against]:
        stored = read_plan(objects, year)
        try:
            check = None if stored is None else read_check(objects, stored)
        except CampaignError as error:
            check = None
            notes.append(f"{year} is not compared with, because its check cannot be read: {error}")
        if check is not None and check.may_run:
            return year, check
    if against is not None:
        raise CampaignError(
            f"{against} was not checked, its check cannot be read, or it has tripped and nobody accepted it. Run rtsx campaign check "
            f"with --year {against} first."
        )
    return None


def learnt_distributions(bundle: "ModelBundle") -> dict[str, LayerDistribution]:
    """Return distributions of what a model has learnt from, as its training kept them; nothing where it did not.

    What its input is scaled by is none of them: ranges and chosen numbers look like means and deviations.
    """
    what = f"{DISTRIBUTIONS} in the provenance of model {bundle.id}"
    kept = json.dumps((bundle.provenance or {}).get(DISTRIBUTIONS, {}))
    return parsed_json(kept, dict[str, LayerDistribution], what=what, error=CampaignError)


def _measured(
    plan: CampaignPlan,
    cube_of: Callable[[Address], CubeRecipe],
    chosen: Sequence[tuple[Address, tuple[float, float]]],
    *,
    progress: Callable[[int, int], None] | None,
) -> tuple[float, dict[str, LayerDistribution]]:
    """Return the share of pixels that cannot be trusted, and the distribution of each layer; reads a window of each cell."""
    names = plan.prediction.layers
    side = min(_SIDE, plan.grid.cell_size)
    every = -(-len(chosen) * side**2 // _MOST)
    values: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    held = dict.fromkeys(names, 0)
    trusted = 0
    # As cells are read: an image that can never be read is a gap where its source says so.
    with ThreadPoolExecutor(_READERS, "rtsx-source", initializer=collect_missing, initargs=([], is_gap)) as readers:
        for number, (cell, place) in enumerate(chosen, 1):
            first = (
                index * plan.grid.cell_size + int(share * (plan.grid.cell_size - side + 1))
                for index, share in zip(cell, place, strict=True)
            )
            rows, columns = ((start, start + side) for start in first)
            with _looked_at(cell):
                cube = cube_of(cell)
                opened = load_recipe(cube, plan.grid.window(rows, columns), anchor=cube.grid.origin)
                lazy = {name: opened[name].data for name in (*names, "valid")}
                (pixels,) = compute(lazy, scheduler="threads", pool=readers)
                packings = {name: packing(opened[name]) for name in names}
                mask = np.asarray(pixels["valid"], bool)
                there = {name: is_representable(np.asarray(pixels[name]), packings[name]["nodata"]) for name in names}
                trusted += int(np.logical_and.reduce([mask, *there.values()]).sum())
                for name in names:
                    stored = np.asarray(pixels[name])[mask & there[name]][::every]
                    physical = stored * np.float64(packings[name]["scale_factor"]) + packings[name]["add_offset"]
                    values[name].append(physical.astype(np.float32))
                    held[name] += int(there[name].sum())
            if progress is not None:
                progress(number, len(chosen))
    n_pixels = len(chosen) * side**2
    found = {}
    for name in names:
        kept = np.concatenate([np.empty(0, np.float32), *values[name]])
        found[name] = LayerDistribution.of(kept if kept.size >= _LEAST else kept[:0], pixels=n_pixels, count=held[name])
    return 1 - trusted / n_pixels, found


@contextmanager
def _looked_at(cell: Address) -> Iterator[None]:
    """Name the cell in errors of the block; ground that no image shows is none."""
    try:
        with suppress(NoImageError):
            yield
    except CubeError as error:
        raise CubeError(f"Cell {cell_id(*cell)} cannot be looked at: {error}") from error
