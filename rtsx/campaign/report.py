"""The report of a campaign: one page for people, with its map, what it has found, throughput, costs and statistics of all cells."""

import re
import statistics
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from heapq import nlargest
from itertools import chain
from math import fsum
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas
import numpy as np
import zarr
from numpy.typing import NDArray

from rtsx.campaign.cells import Address
from rtsx.campaign.costs import LEAST_CELLS, CellHours, Costs, UnitCost, only_hardware
from rtsx.campaign.drift import DriftCheck, read_check
from rtsx.campaign.layout import MAP
from rtsx.campaign.ledger import CampaignLedger
from rtsx.campaign.map import VARIABLES, map_store, map_year
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.products.tables import CellStates, cell_states
from rtsx.campaign.recipe import Prices
from rtsx.campaign.records import CommitRecord, RunRecord, hardware_mixture
from rtsx.campaign.report_map import CellState, Coast, cell_map, place_names
from rtsx.campaign.report_pictures import (
    Quicklook,
    Throughput,
    duration,
    make_quicklooks,
    running_spans,
    throughput_chart,
)
from rtsx.campaign.status import CampaignStatus
from rtsx.errors import CampaignError, FootprintError, GridError, OutputExistsError, OutputNotWritableError
from rtsx.grid.grid import cell_id, parse_cell_id
from rtsx.pages import figure, is_page, render_page
from rtsx.storage import is_url, refuse_other_format, staged

if TYPE_CHECKING:
    from rtsx.campaign.campaign import Campaign

_SLOWEST = 10
_MOST_NAMED = 200
"""Cells of one kind of hardware that are named."""
_FIRST_CELLS = 3
"""Cells that are named of those without an image."""
_CELL = re.compile(r"\br-?\d{3,}c-?\d{3,}\b")
"""Name of a cell within a message."""
_PRODUCT = re.compile(r"\bproducts/\S+")
"""Key of a product within one: what is named there is a partition."""


@dataclass(frozen=True, kw_only=True)
class CellStatistics:
    """What all marks say together."""

    states: Mapping[Address, CellState] = field(repr=False)
    """Mapped or empty, by cell."""
    spans: NDArray[np.float64] = field(repr=False)
    """When each was begun and finished, `(cell, 2)`, s since 1970, in the order of `states`, as what follows."""
    valid: NDArray[np.int64] = field(repr=False)
    """Pixels of each that could be classified."""
    seconds: NDArray[np.float64] = field(repr=False)
    """Time that each took, s."""
    hardware: Sequence[str] = field(repr=False)
    """What runs networks where each was made."""
    n_outlines: int
    """Outlines of all cells, those that are cut at borders counted on each side."""
    computed: Mapping[str, Sequence[Address]] = field(repr=False)
    """Cells with a map, by what computed it."""
    median_seconds: float
    """Time of a middling cell, s; 0 without cells."""
    peak_memory_bytes: int
    """Greatest resident memory of any worker."""
    slowest: tuple[tuple[Address, float], ...]
    """Cells that took longest, with their seconds."""
    workers: Mapping[str, tuple[int, float]]
    """Cells and their seconds by worker."""
    gaps: Mapping[str, Sequence[Address]]
    """Images that could not be read and were left out, with the cells that go without them."""
    versions: Mapping[str, tuple[str, ...]]
    """Versions of each library that cells were made with; more than one where it was updated between runs."""
    damaged: Sequence[Address] = ()
    """Cells whose mark is there and cannot be read, sorted: they are done, and nothing else is known of them."""


def collect_records(marks: Iterable[CommitRecord]) -> CellStatistics:
    """Walk marks once.

    Parameters
    ----------
    marks
        In any order.
    """
    states: dict[Address, CellState] = {}
    valid, computed = array("q"), defaultdict[str, list[Address]](list)
    hardware: list[str] = []
    spans = array("d")
    seconds = array("d")
    workers: dict[str, tuple[int, float]] = {}
    versions: dict[str, set[str]] = {}
    gaps = defaultdict[str, list[Address]](list)
    peak = n_outlines = 0
    for mark in marks:
        states[mark.cell] = mark.state
        valid.append(mark.n_valid)
        hardware.append(mark.hardware)
        if mark.state == "mapped":
            computed[mark.hardware].append(mark.cell)
        spans.extend(datetime.fromisoformat(moment).timestamp() for moment in (mark.started, mark.finished))
        seconds.append(mark.seconds)
        cells, busy = workers.get(mark.worker, (0, 0.0))
        workers[mark.worker] = cells + 1, busy + mark.seconds
        for name, version in mark.versions.items():
            versions.setdefault(name, set()).add(version)
        n_outlines += mark.n_outlines
        for image in mark.gaps:
            gaps[image].append(mark.cell)
        peak = max(peak, mark.peak_memory_bytes)
    return CellStatistics(
        states=states,
        spans=np.sort(np.reshape(spans, (-1, 2)), axis=1),
        valid=np.asarray(valid, np.int64),
        seconds=np.asarray(seconds, np.float64),
        hardware=hardware,
        n_outlines=n_outlines,
        computed=dict(sorted(computed.items())),
        median_seconds=statistics.median(seconds) if seconds else 0.0,
        peak_memory_bytes=peak,
        slowest=tuple((cell, spent) for spent, cell in nlargest(_SLOWEST, zip(seconds, states, strict=True))),
        workers=dict(sorted(workers.items())),
        gaps=dict(sorted(gaps.items())),
        versions={name: tuple(sorted(found)) for name, found in sorted(versions.items())},
    )


def year_statistics(
    ledger: CampaignLedger, plan: CampaignPlan, *, damaged: list[str], states: CellStates | None = None
) -> CellStatistics:
    """Walk the marks of a plan once.

    Parameters
    ----------
    ledger
        Of the year.
    plan
        Whose cells count.
    damaged
        Receives what is wrong with marks that are none.
    states
        Receives what products are made from, where somebody needs it.
    """

    def noted() -> Iterator[CommitRecord]:
        for mark in ledger.marks(cells, damaged=damaged):
            if states is not None:
                states.update(cell_states([mark], ledger.layout))
            yield mark

    cells = [cell for cell in ledger.done() if cell in plan.cells]
    found = collect_records(noted())
    return replace(found, damaged=tuple(sorted({*cells} - {*found.states})))


@dataclass(frozen=True, kw_only=True)
class CampaignReport:
    """Where the report lies, and what a cell and an area have cost, from the records of the year."""

    path: str
    """Path or URL of the page."""
    cell: UnitCost
    """Of a finished cell."""
    area: UnitCost
    """Of 10⁶ km² of valid ground on the ellipsoid."""

    def __str__(self) -> str:
        return self.path

    def __fspath__(self) -> str:
        """The path, because it is what is opened."""
        return self.path


def states_of(plan: CampaignPlan, status: CampaignStatus, marks: CellStatistics) -> dict[Address, CellState]:
    """Return the state of every cell of a plan, in its order."""
    states: dict[Address, CellState] = dict.fromkeys(plan.cells, "left")
    states |= dict.fromkeys(status.failed, "failed")
    states |= dict.fromkeys(status.running, "running")
    states |= dict.fromkeys(marks.damaged, "damaged")
    return states | dict(marks.states)


def cell_table(ledger: CampaignLedger, plan: CampaignPlan, status: CampaignStatus) -> geopandas.GeoDataFrame:
    """Return cells of a plan with their states, in the CRS of the map; see `Campaign.cells`."""
    marks = year_statistics(ledger, plan, damaged=[])
    states = states_of(plan, status, marks)
    outlines = [plan.geobox[plan.region(cell)].extent.geom for cell in states]
    columns = {
        "cell": [cell_id(*cell) for cell in states],
        "state": list(states.values()),
        "reason": [status.failed[cell].message if cell in status.failed else "" for cell in states],
    }
    return geopandas.GeoDataFrame(columns, geometry=outlines, crs=str(plan.geobox.crs))


def write_report(campaign: "Campaign", *, path: str | Path | None, coast: str | PathLike[str] | None) -> CampaignReport:
    """Write the page; see `Campaign.report`. Reads every mark.

    Raises
    ------
    CampaignError, LabelError, InputNotFoundError
        The coast lines cannot be read.
    OutputExistsError
        Something else than such a page is there.
    OutputNotWritableError
        The page cannot be written there.
    """
    if path is not None:
        if is_url(fspath(path)):
            raise OutputNotWritableError(f"A report is written to a local file; got {path}. Copy it there afterwards.")
        refuse_other_format(path, what="a page", suffixes=(".html",))
        if Path(path).exists() and not is_page(Path(path)):
            raise OutputExistsError(
                f"{path} exists and is no page of rtsx, so it is not replaced. Give another name, or delete it."
            )
    shore = Coast.installed() if coast is None else Coast.read(fspath(coast))
    plan, objects, ledger, output = campaign.plan, campaign.objects, campaign.ledger, campaign.output
    damaged: list[str] = []
    states: CellStates = {}
    marks = year_statistics(ledger, plan, damaged=damaged, states=states)
    status = campaign.status()
    drift, looks, unread = None, list[Quicklook](), list[str]()
    try:
        drift = read_check(objects, plan)
    except CampaignError as error:
        damaged.append(str(error))
    try:
        looks = make_quicklooks(campaign, states=states, damaged=unread)
    except (CampaignError, FootprintError) as error:
        unread.append(str(error))
    page = report_page(
        plan,
        replace(status, damaged=(*sorted({*damaged, *unread}), *status.damaged)),
        marks,
        runs=ledger.runs(damaged=[]),  # of which the status tells
        drift=drift,
        stored=stored_bytes(campaign),
        prices=campaign.prices,
        coast=shore,
        looks=looks,
        are_all_shown=not unread,
        now=datetime.now(UTC),
    )
    cell, area = unit_costs(plan, status.costs, marks, prices=campaign.prices)
    if path is None:
        key = f"{ledger.layout.root}/report.html"
        objects.put(key, page.encode())
        path = f"{output.rstrip('/')}/{key}"
    else:
        with staged(Path(path), overwrite=True) as stage:
            stage.write_text(page, encoding="utf-8")
    return CampaignReport(path=str(path), cell=cell, area=area)


def stored_bytes(campaign: "Campaign") -> dict[str, int]:
    """Return bytes that the year takes, by what they hold; listed, not read."""
    layout, store = campaign.ledger.layout, map_store(campaign.output, campaign.storage_options)
    step = map_year(zarr.open_group(store, mode="r", use_consolidated=False), campaign.plan.year)
    folders = {name: f"{MAP}/{name}/c/{step}" for name in VARIABLES} | {
        "outlines": layout.outlines,
        "GeoTIFFs": layout.cogs,
        "products": layout.products,
        "marks": layout.marks,
    }
    sizes = {name: sum(stored.n_bytes for stored in campaign.objects.list(folder)) for name, folder in folders.items()}
    return {name: size for name, size in sizes.items() if size}


def report_page(
    plan: CampaignPlan,
    status: CampaignStatus,
    marks: CellStatistics,
    *,
    runs: Sequence[RunRecord],
    drift: DriftCheck | None,
    stored: Mapping[str, int],
    prices: Prices,
    coast: Coast | None,
    looks: Sequence[Quicklook],
    are_all_shown: bool = True,
    now: datetime,
) -> str:
    """Return the page as text: pure, from facts alone.

    Parameters
    ----------
    plan
        Of the year.
    status
        How far it is.
    marks
        What its marks say.
    runs
        Its runs, the oldest first.
    drift
        How its images compare with those before; None where nobody checked.
    stored
        Bytes by what they hold.
    prices
        What costs are computed with.
    coast
        Coast lines of its maps; None for none.
    looks
        Pictures of what was found.
    are_all_shown
        Whether all outlines, and the map beneath those that were chosen, could be read.
    now
        When the page is made, UTC.
    """
    reasons = {cell: f"{failure.error}: {failure.message}" for cell, failure in status.failed.items()}
    failed = sorted(status.failed.items())
    gaps = sorted(marks.gaps.items(), key=lambda gap: (-len(gap[1]), gap[0]))
    ran = Throughput.of(marks.spans[:, 1], running_spans(runs, marks.spans))
    listed = [*status.failed, *(cell for cell, _ in marks.slowest)]
    listed += [cell for _, cells in gaps for cell in cells[:_FIRST_CELLS]]
    listed += [cell for cells in marks.computed.values() for cell in cells[:_MOST_NAMED]]
    damaged = {one: _cells_named(one) for one in status.damaged}
    listed += chain.from_iterable(damaged.values())
    places = place_names(plan, dict.fromkeys(listed))

    def named(cells: Sequence[Address], most: int) -> str:
        more = len(cells) - most
        text = "; ".join(f"{cell_id(*cell)} at {places[cell]}" for cell in cells[:most])
        return text + (f"; and {more:,} more" if more > 0 else "")

    facts = {
        "title": f"{plan.name} {plan.year}",
        "status": status,
        "now": f"{now:%Y-%m-%d %H:%M:%S}",
        "result": [*_result(plan, status, marks, ran=ran), ("Drift check", _drift(drift))],
        "cells": cell_map(plan, states_of(plan, status, marks), reasons=reasons, coast=coast),
        "looks": [one.html for one in looks],
        "are_all_shown": are_all_shown,
        "chart": None if ran is None else throughput_chart(ran),
        "slowest": [(cell_id(*cell), places[cell], seconds) for cell, seconds in marks.slowest],
        "costs": _costs(plan, status.costs, marks, stored=stored, prices=prices),
        "least_cells": LEAST_CELLS,
        "hardware": [
            (name or "not known", len(cells), named(cells, _MOST_NAMED)) for name, cells in marks.computed.items()
        ],
        "mixed": hardware_mixture(known) if len(known := [name for name in marks.computed if name]) > 1 else "",
        "currency": prices.currency,
        "failures": [
            (cell_id(*cell), places[cell], one.error, one.message, one.attempts, one.when, one.worker)
            for cell, one in failed
        ],
        "traces": [f"{cell_id(*cell)} at {places[cell]}\n{one.traceback}" for cell, one in failed[:3] if one.traceback],
        "damaged": [(one, named(cells, _FIRST_CELLS)) for one, cells in damaged.items()],
        "gaps": [(image, len(cells), named(cells, _FIRST_CELLS)) for image, cells in gaps],
        "runs": [
            (
                *(one.run, one.host, one.started, one.written if one.ended else "not ended, or killed"),
                *(one.done, one.set_aside, one.retried, one.worker_seconds / 3600, one.stopped or ""),
            )
            for one in runs
        ],
        "workers": [
            (worker, cells, seconds / 3600)
            for worker, (cells, seconds) in sorted(marks.workers.items(), key=lambda one: one[1], reverse=True)
        ],
        "plan": [
            ("Digest", plan.digest),
            ("Grid", plan.grid),
            ("Bundles", ", ".join(plan.prediction.members)),
            ("Tiles", asdict(plan.prediction.tiling)),
            ("Layers", ", ".join(plan.prediction.layers)),
        ],
        "versions": [(name, ", ".join(found)) for name, found in marks.versions.items()],
    }
    return render_page("campaign.html", facts)


def _cells_named(message: str) -> list[Address]:
    found = []
    for name in dict.fromkeys(_CELL.findall(_PRODUCT.sub("", message))):
        with suppress(GridError):  # of letters and digits that are none
            found.append(parse_cell_id(name))
    return found


def _result(
    plan: CampaignPlan, status: CampaignStatus, marks: CellStatistics, *, ran: Throughput | None
) -> list[tuple[str, object]]:
    mapped = sum(state == "mapped" for state in marks.states.values())
    rows: list[tuple[str, object]] = [
        ("Cells done", status.done),
        ("of them with a map", mapped),
        ("of them without any image or valid pixel", len(marks.states) - mapped),
        *([("of them with a damaged record", len(marks.damaged))] if marks.damaged else []),
        ("Valid ground, km²", float(_valid_km2(plan, marks).sum())),
        ("Outlines of single cells, before they are merged", marks.n_outlines),
        ("Begun", status.started[:19] or "not yet"),
        ("Finished", status.finished[:19] or "not yet"),
        ("Median time of a cell, s", marks.median_seconds),
        ("Greatest memory of a worker, MB", marks.peak_memory_bytes / 1e6),
    ]
    if ran is not None:
        rows += [("Time that it ran", duration(ran.running_s)), ("Cells an hour while it ran", ran.mean_per_hour)]
    if status.rate_per_hour is not None:
        rows.append(("Cells an hour now", status.rate_per_hour))
    if status.time_to_go_s is not None:
        rows.append(("Hours to go", status.time_to_go_s / 3600))
    return rows


def _drift(check: DriftCheck | None) -> str:
    if check is None or not check.is_tripped:
        return "not made" if check is None else "nothing has tripped"
    said = "; ".join(f"accepted by {one.name}: {one.reason}" for one in check.acceptances) or "not accepted"
    return f"tripped for {', '.join(dict.fromkeys(one.layer for one in check.findings))}; {said}"


def unit_costs(plan: CampaignPlan, costs: Costs, marks: CellStatistics, *, prices: Prices) -> tuple[UnitCost, UnitCost]:
    """Return what a finished cell and 10⁶ km² of valid ground have cost."""
    only = only_hardware([*marks.hardware, *(one.hardware for one in costs.expenses)])
    price = {name: prices.worker_hour(name or only) for name in set(marks.hardware)}
    # As floats, None is NaN.
    spent = marks.seconds / 3600 * np.array([price[name] for name in marks.hardware], np.float64)
    cell, area = (
        UnitCost.of(spent, amounts, total=costs.total, currency=costs.currency, is_least=bool(costs.unpriced))
        for amounts in (np.ones(len(spent)), _valid_km2(plan, marks) / 1e6)
    )
    return cell, area


def _costs(
    plan: CampaignPlan, costs: Costs, marks: CellStatistics, *, stored: Mapping[str, int], prices: Prices
) -> list[tuple[object, ...]]:
    """Return rows of what was paid, what that is for a cell and for an area, and what is stored."""
    cell, area = unit_costs(plan, costs, marks, prices=prices)
    rows: list[tuple[object, ...]] = [
        (f"Worker-hours on {one.name}", one.hours, _money(one.cost)) for one in costs.expenses
    ]
    rows += [
        ("Worker-hours of all runs", costs.hours, _money(costs.total, least="at least " if costs.unpriced else "")),
        ("Hours of cells that are done", fsum(marks.seconds) / 3600, ""),
        ("A cell that is done", "", str(cell)),
    ]
    hardware = np.array(marks.hardware, object)
    for one in costs.expenses:
        seconds = marks.seconds[hardware == one.hardware]
        if seconds.size:
            hours = CellHours.of(seconds, paid_hours=one.hours)
            price = None if one.cost is None else one.cost / one.hours
            spread = "" if price is None else f"{figure(hours.low * price)} to {figure(hours.high * price)}"
            span = f"{figure(hours.low * 3600)} to {figure(hours.high * 3600)} s of {hours.cells:,}"
            rows.append((f"Nine in ten cells on {one.name}", span, spread))
    km2 = float(_valid_km2(plan, marks).sum())
    n_bytes, price = sum(stored.values()), prices.gigabyte_month
    monthly = "no price given" if price is None else f"{n_bytes / 1e9 * price:,.2f} a month"
    rows += [
        ("10⁶ km² of valid ground", f"from {figure(km2)} km²", str(area)),
        ("Stored", _amount(n_bytes), monthly),
        *((f"of it {name}", _amount(size), "") for name, size in stored.items()),
    ]
    return rows


def _valid_km2(plan: CampaignPlan, marks: CellStatistics) -> NDArray[np.float64]:
    """Return ground of each cell that could be classified, on the ellipsoid."""
    return np.asarray(plan.areas_m2(marks.states) * marks.valid / plan.grid.cell_size**2 / 1e6)


def _amount(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.3f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:,.3f} MB"


def _money(cost: float | None, *, least: str = "") -> str:
    return "no price given" if cost is None else f"{least}{cost:,.2f}"
