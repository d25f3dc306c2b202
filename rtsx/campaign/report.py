"""The report of a campaign: one page for people, with its map, throughput and statistics of all cells."""

import html
import statistics
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from math import fsum
from pathlib import Path
from typing import Any, Literal

import geopandas
import numpy as np
import zarr
from numpy.typing import NDArray

from rtsx.campaign.cells import Address
from rtsx.campaign.costs import CellHours, Costs
from rtsx.campaign.drift import DriftCheck, read_check
from rtsx.campaign.layout import MAP, YearLayout
from rtsx.campaign.ledger import CampaignLedger
from rtsx.campaign.map import ANSWERS, map_store, map_year
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.recipe import Prices
from rtsx.campaign.records import CommitRecord
from rtsx.campaign.run_log import RunRecord, hardware_mixture, read_runs
from rtsx.campaign.status import CampaignStatus, campaign_status
from rtsx.errors import CampaignError
from rtsx.grid.grid import cell_id
from rtsx.pages import render_page
from rtsx.storage import refuse_other_format, staged
from rtsx.storage.object_store import ObjectStore

CellState = Literal["mapped", "empty", "running", "failed", "left"]
"""Done with a map; done, and nothing was there; leased by a run; set aside; none of these."""

COLOURS: Mapping[CellState, str] = {
    "mapped": "#2a8c55",
    "empty": "#a9c8d8",
    "running": "#e0a100",
    "failed": "#c0392b",
    "left": "#dddddd",
}
"""Fill of each state."""

_MOST_SQUARES = 2500
"""Squares of a page that every browser still moves easily."""
_MAP_WIDTH = 900
"""Width of the picture, in its own units."""


@dataclass(frozen=True)
class MapSquare:
    """One square of the picture: a cell, or a block of `side` x `side` cells."""

    place: tuple[int, int]
    """Row and column of the square, in squares."""
    first: Address
    """Cell in its upper left corner, or the cell itself."""
    side: int
    """Cells along each of its sides."""
    counts: Mapping[CellState, int]
    """Cells of the campaign in it by state."""

    @property
    def state(self) -> CellState:
        """What its colour says: the state of most of its cells, but a failure always shows."""
        if "failed" in self.counts:
            return "failed"
        return max(self.counts, key=lambda state: (self.counts[state], state))

    @property
    def title(self) -> str:
        """What a pointer over it reads."""
        if self.side == 1:
            return f"{cell_id(*self.first)}: {self.state}"
        parts = ", ".join(f"{self.counts[state]:,} {state}" for state in COLOURS if state in self.counts)
        last = self.first[0] + self.side - 1, self.first[1] + self.side - 1
        return f"{cell_id(*self.first)} to {cell_id(*last)}: {parts}"


def map_squares(states: Mapping[Address, CellState], *, most: int = _MOST_SQUARES) -> list[MapSquare]:
    """Squares that show all cells: one each, or one for a block of them where they are more than `most`.

    Examples
    --------
    >>> square, = map_squares({(4, -1): "mapped", (5, -1): "left", (5, -2): "left"}, most=1)
    >>> square.side, dict(square.counts), square.title
    (2, {'mapped': 1, 'left': 2}, 'r004c-002 to r005c-001: 1 mapped, 2 left')
    """
    if not states:
        return []
    side = _side(np.array(list(states), np.int64), most)
    blocks: dict[Address, Counter[CellState]] = {}
    for (row, column), state in states.items():
        blocks.setdefault((row // side, column // side), Counter())[state] += 1
    top, left = min(row for row, _ in blocks), min(column for _, column in blocks)
    return [
        MapSquare((row - top, column - left), (row * side, column * side), side, counts)
        for (row, column), counts in sorted(blocks.items())
    ]


def _side(cells: NDArray[np.int64], most: int) -> int:
    """Cells along a block, a power of two, so that there are few enough blocks."""
    side = 1
    while len(np.unique((cells[:, 0] // side << 32) + cells[:, 1] // side)) > most:
        side *= 2
    return side


def cell_map(states: Mapping[Address, CellState], *, reasons: Mapping[Address, str]) -> str:
    """The map as an ``<svg>`` element and its legend.

    Parameters
    ----------
    states
        State of every cell of the campaign.
    reasons
        Why cells failed; shown where a square is one cell.
    """
    squares = map_squares(states)
    if not squares:
        return "<p>No cells.</p>"
    columns = max(square.place[1] for square in squares) + 1
    rows = max(square.place[0] for square in squares) + 1
    unit = min(_MAP_WIDTH / columns, 48.0)
    drawn = [_square(square, unit, reasons.get(square.first, "") if square.side == 1 else "") for square in squares]
    side = squares[0].side
    each = "Each square is a cell." if side == 1 else f"Each square is a block of {side} x {side} cells."
    legend = "".join(
        f'<span class="key"><i style="background:{colour}"></i>{state}: {count:,}</span>'
        for state, colour in COLOURS.items()
        if (count := sum(square.counts.get(state, 0) for square in squares))
    )
    return (
        f'<p>{each} Rows of the grid run down. {legend}</p><svg class="map" role="img" aria-label="map of cells" '
        f'width="{columns * unit:.0f}" viewBox="0 0 {columns * unit:.2f} {rows * unit:.2f}">{"".join(drawn)}</svg>'
    )


def _square(square: MapSquare, unit: float, reason: str) -> str:
    row, column = square.place
    done = (square.counts.get("mapped", 0) + square.counts.get("empty", 0)) / sum(square.counts.values())
    # A block that is done in part is paler, because its colour stands for most of its cells only.
    opacity = "" if square.side == 1 or square.state != "mapped" else f' fill-opacity="{0.35 + 0.65 * done:.2f}"'
    title = html.escape(f"{square.title}: {reason}" if reason else square.title)
    return (
        f'<rect x="{column * unit:.2f}" y="{row * unit:.2f}" width="{unit * 0.94:.2f}" height="{unit * 0.94:.2f}" '
        f'fill="{COLOURS[square.state]}"{opacity}><title>{title}</title></rect>'
    )


_WIDTH, _HEIGHT = 900, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 14, 34
_BARS = 60
_STEPS_S = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Lengths of a bar, s; days beyond."""


@dataclass(frozen=True)
class Throughput:
    """Cells finished by stretches of equal length."""

    start: datetime
    """Begin of the first stretch, UTC."""
    step: timedelta
    counts: tuple[int, ...]
    """Cells finished in each."""

    @property
    def per_hour(self) -> list[float]:
        """Cells an hour in each."""
        return [count * 3600 / self.step.total_seconds() for count in self.counts]


def throughput(finished: Sequence[datetime]) -> Throughput | None:
    """Cells by the time they were finished, in at most some dozens of stretches; None without cells.

    Examples
    --------
    >>> day = datetime(2024, 7, 1, tzinfo=UTC)
    >>> found = throughput([day, day + timedelta(seconds=30), day + timedelta(seconds=119)])
    >>> found.step.total_seconds(), sum(found.counts), found.counts[0], found.per_hour[0]
    (2.0, 3, 1, 1800.0)
    """
    if not finished:
        return None
    seconds = np.sort(np.array([moment.timestamp() for moment in finished]))
    spread = float(seconds[-1] - seconds[0])
    step = next((step for step in _STEPS_S if spread / step < _BARS), 86400)
    while spread / step >= _BARS:
        step *= 2
    first = seconds[0] // step * step
    counts = np.bincount(((seconds - first) // step).astype(np.int64))
    return Throughput(datetime.fromtimestamp(float(first), UTC), timedelta(seconds=step), tuple(counts.tolist()))


def throughput_chart(found: Throughput) -> str:
    """The diagram as an ``<svg>`` element: bars over time, cells an hour upwards."""
    rates = found.per_hour
    top = max(rates)
    width = (_WIDTH - _LEFT - _RIGHT) / len(rates)
    parts = [
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_level(share):.1f}" y2="{_level(share):.1f}" class="grid"/>'
        f'<text x="{_LEFT - 6}" y="{_level(share) + 4:.1f}" class="y">{top * share:,.4g}</text>'
        for share in (0.0, 0.5, 1.0)
    ]
    for place, (rate, count) in enumerate(zip(rates, found.counts, strict=True)):
        y = _level(rate / top)
        begin = found.start + place * found.step
        title = html.escape(f"{begin:%Y-%m-%d %H:%M:%S} UTC, {found.step}: {count:,} cells")
        parts.append(
            f'<rect x="{_LEFT + place * width:.2f}" y="{y:.1f}" width="{width * 0.9:.2f}" '
            f'height="{_HEIGHT - _BOTTOM - y:.1f}" class="bar"><title>{title}</title></rect>'
        )
    end = found.start + len(rates) * found.step
    for x, moment, anchor in ((_LEFT, found.start, "start"), (_WIDTH - _RIGHT, end, "end")):
        parts.append(
            f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="{anchor}">{moment:%Y-%m-%d %H:%M:%S}</text>'
        )
    return (
        f'<p>Cells an hour over time (UTC); a bar is {html.escape(str(found.step))}.</p><svg class="chart" role="img" '
        f'aria-label="cells an hour over time" viewBox="0 0 {_WIDTH} {_HEIGHT}">{"".join(parts)}</svg>'
    )


def _level(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


_SLOWEST = 10
_MOST_NAMED = 200
"""Cells of one kind of hardware that are named."""


@dataclass(frozen=True, kw_only=True)
class CellStatistics:
    """What all marks say together."""

    states: Mapping[Address, CellState] = field(repr=False)
    """Mapped or empty, by cell."""
    throughput: Throughput | None
    """When cells were finished; None before the first."""
    valid: NDArray[np.int64] = field(repr=False)
    """Pixels of each cell that could be classified, in the order of `states`."""
    n_outlines: int
    """Outlines of all cells, those that are cut at borders counted on each side."""
    seconds: Mapping[str, Sequence[float]] = field(repr=False)
    """Time of each cell, s, by what runs networks where it was made."""
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
    gaps: Mapping[str, int]
    """Images that could not be read and were left out, with the number of cells that go without them."""
    versions: Mapping[str, tuple[str, ...]]
    """Versions of each library that cells were made with; more than one where it was updated between runs."""


def collect_records(marks: Iterable[CommitRecord]) -> CellStatistics:
    """Walk marks once.

    Parameters
    ----------
    marks
        In any order.
    """
    states: dict[Address, CellState] = {}
    valid, computed = array("q"), defaultdict[str, list[Address]](list)
    by_hardware: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
    finished: list[datetime] = []
    seconds = array("d")
    slowest: list[tuple[float, Address]] = []
    workers: dict[str, tuple[int, float]] = {}
    versions: dict[str, set[str]] = {}
    gaps: Counter[str] = Counter()
    peak = n_outlines = 0
    for mark in marks:
        states[mark.cell] = mark.state
        valid.append(mark.n_valid)
        by_hardware[mark.hardware].append(mark.seconds)
        if mark.state == "mapped":
            computed[mark.hardware].append(mark.cell)
        finished.append(datetime.fromisoformat(mark.finished).astimezone(UTC))
        seconds.append(mark.seconds)
        slowest = sorted([*slowest, (mark.seconds, mark.cell)], reverse=True)[:_SLOWEST]
        cells, busy = workers.get(mark.worker, (0, 0.0))
        workers[mark.worker] = cells + 1, busy + mark.seconds
        for name, version in mark.versions.items():
            versions.setdefault(name, set()).add(version)
        n_outlines += mark.n_outlines
        gaps.update(mark.gaps)
        peak = max(peak, mark.peak_memory_bytes)
    return CellStatistics(
        states=states,
        throughput=throughput(finished),
        valid=np.asarray(valid, np.int64),
        n_outlines=n_outlines,
        seconds=dict(sorted(by_hardware.items())),
        computed=dict(sorted(computed.items())),
        median_seconds=statistics.median(seconds) if seconds else 0.0,
        peak_memory_bytes=peak,
        slowest=tuple((cell, spent) for spent, cell in slowest),
        workers=dict(sorted(workers.items())),
        gaps=dict(sorted(gaps.items())),
        versions={name: tuple(sorted(found)) for name, found in sorted(versions.items())},
    )


def states_of(plan: CampaignPlan, status: CampaignStatus, marks: CellStatistics) -> dict[Address, CellState]:
    """State of every cell of a plan, in its order."""

    def state(cell: Address) -> CellState:
        if cell in marks.states:
            return marks.states[cell]
        if cell in running:
            return "running"
        return "failed" if cell in status.failed else "left"

    running = set(status.running)
    return {cell: state(cell) for cell in plan.cells}


def cell_table(ledger: CampaignLedger, plan: CampaignPlan, status: CampaignStatus) -> geopandas.GeoDataFrame:
    """Cells of a plan with their states, in the CRS of the map; see `Campaign.cells`."""
    marks = collect_records(mark for mark in ledger.marks(damaged=[]) if mark.cell in plan.cells)
    states = states_of(plan, status, marks)
    outlines = [plan.geobox[plan.region(cell)].extent.geom for cell in states]
    columns = {
        "cell": [cell_id(*cell) for cell in states],
        "state": list(states.values()),
        "reason": [status.failed[cell].message if cell in status.failed else "" for cell in states],
    }
    return geopandas.GeoDataFrame(columns, geometry=outlines, crs=str(plan.geobox.crs))


def write_report(
    objects: ObjectStore,
    plan: CampaignPlan,
    *,
    output: str,
    storage_options: Mapping[str, Any],
    prices: Prices,
    path: str | Path | None,
) -> str:
    """Write the page, and say where it lies; see `Campaign.report`. Reads every mark.

    Raises
    ------
    OutputNotWritableError
        The page cannot be written there.
    """
    if path is not None:
        refuse_other_format(path, what="a page", suffixes=(".html",))
    layout = YearLayout(plan.year)
    damaged: list[str] = []
    marks = collect_records(
        mark for mark in CampaignLedger(objects, layout).marks(damaged=damaged) if mark.cell in plan.cells
    )
    status = campaign_status(objects, plan, prices=prices)
    drift = None
    try:
        drift = read_check(objects, plan)
    except CampaignError as error:
        damaged.append(str(error))
    page = report_page(
        plan,
        replace(status, damaged=(*sorted(damaged), *status.damaged)),
        marks,
        runs=read_runs(objects, layout, damaged=[]),  # of which the status tells
        drift=drift,
        stored=stored_bytes(objects, plan, output=output, storage_options=storage_options),
        prices=prices,
        now=datetime.now(UTC),
    )
    if path is None:
        key = f"{layout.root}/report.html"
        objects.put(key, page.encode())
        return f"{output.rstrip('/')}/{key}"
    with staged(Path(path), overwrite=True) as stage:
        stage.write_text(page, encoding="utf-8")
    return str(path)


def stored_bytes(
    objects: ObjectStore, plan: CampaignPlan, *, output: str, storage_options: Mapping[str, Any]
) -> dict[str, int]:
    """Bytes that the year takes, by what they hold; listed, not read."""
    layout = YearLayout(plan.year)
    step = map_year(zarr.open_group(map_store(output, storage_options), mode="r", use_consolidated=False), plan.year)
    folders = {name: f"{MAP}/{name}/c/{step}" for name in ANSWERS} | {
        "outlines": layout.outlines,
        "GeoTIFFs": layout.cogs,
        "products": layout.products,
        "marks": layout.marks,
    }
    sizes = {name: sum(stored.n_bytes for stored in objects.list(folder)) for name, folder in folders.items()}
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
    now: datetime,
) -> str:
    """The page as text: pure, from facts alone.

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
    now
        When the page is made, UTC.
    """
    reasons = {cell: f"{failure.error}: {failure.message}" for cell, failure in status.failed.items()}
    failed = sorted(status.failed.items())
    facts = {
        "title": f"{plan.name} {plan.year}",
        "status": status,
        "now": f"{now:%Y-%m-%d %H:%M:%S}",
        "result": [*_result(plan, status, marks), ("Drift check", _drift(drift))],
        "cells": cell_map(states_of(plan, status, marks), reasons=reasons),
        "chart": None if marks.throughput is None else throughput_chart(marks.throughput),
        "slowest": [(cell_id(*cell), seconds) for cell, seconds in marks.slowest],
        "costs": _costs(plan, status.costs, marks, stored=stored, prices=prices),
        "hardware": [
            (name or "not known", len(cells), " ".join(cell_id(*cell) for cell in cells[:_MOST_NAMED]))
            for name, cells in marks.computed.items()
        ],
        "mixed": hardware_mixture(known) if len(known := [name for name in marks.computed if name]) > 1 else "",
        "currency": prices.currency,
        "failures": [
            (cell_id(*cell), one.error, one.message, one.attempts, one.when, one.worker) for cell, one in failed
        ],
        "traces": [f"{cell_id(*cell)}\n{one.traceback}" for cell, one in failed[:3] if one.traceback],
        "damaged": [(one,) for one in status.damaged],
        "gaps": sorted(marks.gaps.items(), key=lambda gap: (-gap[1], gap[0])),
        "runs": [_run(one) for one in runs],
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


def _result(plan: CampaignPlan, status: CampaignStatus, marks: CellStatistics) -> list[tuple[str, object]]:
    mapped = sum(state == "mapped" for state in marks.states.values())
    rows: list[tuple[str, object]] = [
        ("Cells done", status.done),
        ("of them with a map", mapped),
        ("of them without any image or valid pixel", len(marks.states) - mapped),
        ("Valid ground, km²", _valid_km2(plan, marks)),
        ("Outlines of single cells, before they are merged", marks.n_outlines),
        ("Begun", status.started[:19] or "not yet"),
        ("Finished", status.finished[:19] or "not yet"),
        ("Median time of a cell, s", marks.median_seconds),
        ("Greatest memory of a worker, MB", marks.peak_memory_bytes / 1e6),
    ]
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


def _costs(
    plan: CampaignPlan, costs: Costs, marks: CellStatistics, *, stored: Mapping[str, int], prices: Prices
) -> list[tuple[object, ...]]:
    """Rows of what was paid, what that is for a cell and for an area, and what is stored."""
    km2 = _valid_km2(plan, marks)
    least = "at least " if costs.unpriced else ""
    rows: list[tuple[object, ...]] = [
        (f"Worker-hours on {one.name}", one.hours, _money(one.cost)) for one in costs.expenses
    ]
    rows += [
        ("Worker-hours of all runs", costs.hours, _money(costs.total, least=least)),
        ("Hours of cells that are done", fsum(chain(*marks.seconds.values())) / 3600, ""),
        ("A cell that is done", f"from {len(marks.states):,}", _money(costs.each(len(marks.states)), least=least)),
    ]
    for one in costs.expenses:
        if one.hardware in marks.seconds:
            hours = CellHours.of(marks.seconds[one.hardware], paid_hours=one.hours)
            price = prices.worker_hour(one.hardware)
            spread = "" if price is None else f"{hours.low * price:,.4g} to {hours.high * price:,.4g}"
            told = f"{hours.low * 3600:,.4g} to {hours.high * 3600:,.4g} s of {hours.cells:,}"
            rows.append((f"Nine in ten cells on {one.name}", told, spread))
    each = costs.each(km2)
    rows += [
        ("10⁶ km² of valid ground", f"from {km2:,.4g} km²", _money(None if each is None else each * 1e6, least=least)),
        ("Stored", _amount(sum(stored.values())), _monthly(sum(stored.values()), prices)),
        *((f"of it {name}", _amount(size), "") for name, size in stored.items()),
    ]
    return rows


def _valid_km2(plan: CampaignPlan, marks: CellStatistics) -> float:
    """Ground that could be classified, on the ellipsoid."""
    return float((plan.areas_m2(marks.states) * marks.valid).sum() / plan.grid.cell_size**2 / 1e6)


def _amount(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.3f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:,.3f} MB"


def _money(cost: float | None, *, least: str = "") -> str:
    return "no price given" if cost is None else f"{least}{cost:,.2f}"


def _monthly(n_bytes: int, prices: Prices) -> str:
    price = prices.gigabyte_month
    return "no price given" if price is None else f"{n_bytes / 1e9 * price:,.2f} a month"


def _run(one: RunRecord) -> tuple[object, ...]:
    return (
        *(one.run, one.host, one.started, one.written if one.ended else "not ended, or killed"),
        *(one.done, one.set_aside, one.retried, one.worker_seconds / 3600, one.stopped or ""),
    )
