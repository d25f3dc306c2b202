"""The report of a campaign: one page that needs nothing else, for people."""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zarr

from rtsx.campaign.failure import Failure
from rtsx.campaign.layout import MAP, YearLayout
from rtsx.campaign.ledger import Ledger
from rtsx.campaign.map import ANSWERS, map_store, map_year
from rtsx.campaign.objects import ObjectStore
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.prices import Prices
from rtsx.campaign.report_facts import MarkFacts, gathered_marks, states_of
from rtsx.campaign.report_map import cell_map
from rtsx.campaign.report_throughput import throughput_chart
from rtsx.campaign.run_record import RunRecord, read_runs
from rtsx.campaign.status import CampaignStatus, campaign_status
from rtsx.grid.cell import cell_id
from rtsx.storage import refuse_other_format, staged

__all__ = ["report_page", "write_report"]

_MOST_ROWS = 200
"""Rows of a table; more are counted and not shown."""
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222 }
h1, h2 { font-weight: 600 } h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse } td, th { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top }
th { color: #555; font-weight: 500 } td.number { text-align: right; font-variant-numeric: tabular-nums }
svg { max-width: 100%; height: auto } svg text { font: 11px system-ui, sans-serif } svg .y { text-anchor: end }
svg .grid { stroke: #ddd } svg .bar { fill: #1b6ca8 } .bad { color: #c0392b; font-weight: 600 }
.key { margin-right: 1rem } .key i { display: inline-block; width: .8rem; height: .8rem; margin-right: .3rem }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 12px }
"""


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
    marks = gathered_marks(mark for mark in Ledger(objects, layout).marks(damaged=damaged) if mark.cell in plan.cells)
    status = campaign_status(objects, plan, prices=prices)
    page = report_page(
        plan,
        replace(status, damaged=(*sorted(damaged), *status.damaged)),
        marks,
        runs=read_runs(objects, layout, damaged=[]),  # of which the status tells
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
    marks: MarkFacts,
    *,
    runs: Sequence[RunRecord],
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
    stored
        Bytes by what they hold.
    prices
        What costs are reckoned with.
    now
        When the page is made, UTC.
    """
    title = f"{plan.name} {plan.year}"
    reasons = {cell: f"{failure.error}: {failure.message}" for cell, failure in status.failed.items()}
    parts = [
        f"<h1>{html.escape(title)}</h1><p>{_verdict(status)} As of {now:%Y-%m-%d %H:%M:%S} UTC.</p>",
        _section("Result", _table(_result(plan, status, marks))),
        _section("Cells", cell_map(states_of(plan, status, marks), reasons=reasons)),
        _section("Throughput", _throughput(marks)),
        _section("Costs", _costs(status, stored, prices)),
        _section("Failures", _failures(status.failed)),
        _section("Damaged records", _damaged(status.damaged)),
        _section("Images that were left out", _gaps(marks)),
        _section("Runs", _runs(runs)),
        _section("Workers", _workers(marks)),
        _section("Plan", _plan(plan, marks)),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _verdict(status: CampaignStatus) -> str:
    if status.is_complete:
        return f"All {status.cells:,} cells are done."
    failed = (
        f'<span class="bad">{len(status.failed):,} were set aside</span>' if status.failed else "none was set aside"
    )
    return (
        f"{status.done:,} of {status.cells:,} cells are done; {failed}, {len(status.running):,} are running and "
        f"{status.left:,} are left."
    )


def _result(plan: CampaignPlan, status: CampaignStatus, marks: MarkFacts) -> list[tuple[str, object]]:
    mapped = sum(state == "mapped" for state in marks.states.values())
    rows: list[tuple[str, object]] = [
        ("Cells done", status.done),
        ("of them with a map", mapped),
        ("of them without any image or valid pixel", len(marks.states) - mapped),
        ("Valid ground, km²", marks.n_valid * plan.grid.resolution**2 / 1e6),
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


def _throughput(marks: MarkFacts) -> str:
    if marks.throughput is None:
        return "<p>No cell is done.</p>"
    slowest = _table(((cell_id(*cell), seconds) for cell, seconds in marks.slowest), head=("Slowest cells", "Seconds"))
    return throughput_chart(marks.throughput) + slowest


def _costs(status: CampaignStatus, stored: Mapping[str, int], prices: Prices) -> str:
    total = sum(stored.values())
    rows: list[Sequence[object]] = [
        ("Device-hours of all runs", status.device_hours, _price(status.device_hours, prices.device_hour)),
        ("Stored", _amount(total), _price(total / 1e9, prices.gigabyte_month, each=" a month")),
        *((f"of it {name}", _amount(size), "") for name, size in stored.items()),
    ]
    note = (
        f"<p>Prices in {html.escape(prices.currency)}. What reading from the sources costs is reckoned by the plan; "
        "runs do not measure it.</p>"
    )
    return _table(rows, head=("", "Amount", "Price")) + note


def _amount(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.3f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:,.3f} MB"


def _price(amount: float, price: float | None, *, each: str = "") -> str:
    return "no price given" if price is None else f"{amount * price:,.2f}{each}"


def _failures(failed: Mapping[tuple[int, int], Failure]) -> str:
    if not failed:
        return "<p>None.</p>"
    shown = sorted(failed.items())[:_MOST_ROWS]
    rows = ((cell_id(*cell), one.error, one.message, one.attempts, one.when, one.worker) for cell, one in shown)
    first = [f"{cell_id(*cell)}\n{one.traceback}" for cell, one in shown[:3] if one.traceback]
    traces = "".join(f"<pre>{html.escape(trace)}</pre>" for trace in first)
    return _table(rows, head=("Cell", "Error", "Message", "Attempts", "When", "Worker")) + _more(failed, shown) + traces


def _gaps(marks: MarkFacts) -> str:
    if not marks.gaps:
        return "<p>None.</p>"
    shown = sorted(marks.gaps.items(), key=lambda gap: (-gap[1], gap[0]))[:_MOST_ROWS]
    return _table(shown, head=("Image that could not be read", "Cells without it")) + _more(marks.gaps, shown)


def _damaged(damaged: Sequence[str]) -> str:
    shown = damaged[:_MOST_ROWS]
    return (
        (_table([(one,) for one in shown], head=("What is wrong",)) + _more(damaged, shown))
        if shown
        else "<p>None.</p>"
    )


def _runs(runs: Sequence[RunRecord]) -> str:
    if not runs:
        return "<p>None.</p>"
    shown = runs[-_MOST_ROWS:]
    rows = (
        (
            *(one.run, one.host, one.started, one.written if one.ended else "not ended, or killed"),
            *(one.done, one.set_aside, one.retried, one.worker_seconds / 3600, one.stopped or ""),
        )
        for one in shown
    )
    head = (
        "Run",
        "Driven from",
        "Begun",
        "Ended",
        "Done",
        "Set aside",
        "Tried again",
        "Worker-hours",
        "Stopped because",
    )
    return _table(rows, head=head) + _more(runs, shown)


def _workers(marks: MarkFacts) -> str:
    if not marks.workers:
        return "<p>No cell is done.</p>"
    shown = sorted(marks.workers.items(), key=lambda one: one[1], reverse=True)[:_MOST_ROWS]
    rows = ((worker, cells, seconds / 3600) for worker, (cells, seconds) in shown)
    return _table(rows, head=("Worker", "Cells", "Hours of cells")) + _more(marks.workers, shown)


def _plan(plan: CampaignPlan, marks: MarkFacts) -> str:
    rows: list[tuple[str, object]] = [
        ("Digest", plan.digest),
        ("Grid", str(plan.grid)),
        ("Bundles", ", ".join(plan.prediction.members)),
        ("Tiles", f"{asdict(plan.prediction.tiling)}"),
        ("Layers", ", ".join(plan.prediction.layers)),
    ]
    versions = ((name, ", ".join(found)) for name, found in marks.versions.items())
    return _table(rows) + _table(versions, head=("Library", "Versions that cells were made with"))


def _section(title: str, body: str) -> str:
    return f"<h2>{html.escape(title)}</h2>{body}"


def _more(every: Iterable[object], shown: Sequence[object]) -> str:
    rest = len(list(every)) - len(shown)
    return f"<p>and {rest:,} more.</p>" if rest > 0 else ""


def _table(rows: Iterable[Sequence[object]], *, head: Sequence[str] = ()) -> str:
    top = f"<tr>{''.join(f'<th>{html.escape(name)}</th>' for name in head)}</tr>" if head else ""
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    return f"<table>{top}{body}</table>"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f'<td class="number">{value:,.3f}</td>'
    if isinstance(value, int):
        return f'<td class="number">{value:,}</td>'
    return f"<td>{html.escape(str(value))}</td>"
