"""How far a campaign is, asked of its output from any machine: listings, and the few records of what runs and what failed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from rtsx.campaign.cells import Address
from rtsx.campaign.costs import Costs
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.lease import Lease
from rtsx.campaign.ledger import CampaignLedger
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.recipe import Prices
from rtsx.campaign.records import Failure, RunRecord, hardware_mixture, hardware_of
from rtsx.campaign.stages import YearStages, year_stages
from rtsx.errors import CampaignError
from rtsx.grid.grid import cell_id
from rtsx.pages import figure, html_table
from rtsx.storage.object_store import ObjectStore

_RECENT = timedelta(hours=1)
"""Over which the present rate is taken."""
_THERE = timedelta(minutes=2)
"""Age of a run's record, which it writes every half minute, up to which the run is taken to go on."""


@dataclass(frozen=True, kw_only=True)
class CampaignStatus:
    """How far one year of a campaign is."""

    name: str
    """Name of the campaign."""
    year: int
    """Year of the map."""
    cells: int
    """Cells of the plan."""
    done: int
    """Cells with a commit mark."""
    running: tuple[Address, ...]
    """Cells that some run holds a lease of, and that are not done."""
    failed: Mapping[Address, Failure] = field(repr=False)
    """Cells that were set aside, and why."""
    started: str
    """Begin of the first run, UTC, ISO 8601; empty before it."""
    finished: str
    """When the last mark was written, likewise; empty until all are there."""
    last_done: datetime | None
    """When the newest mark was written, aware; None before the first."""
    rate_per_hour: float | None
    """Cells an hour, over the last hour of work; None while nothing runs."""
    time_to_go_s: float | None
    """Seconds until the cells that are left are done at that rate; None without one."""
    costs: Costs
    """Hours of all workers together, over all runs, and what they cost."""
    hardware: tuple[str, ...]
    """What its cells were computed with, as far as runs have said."""
    stages: YearStages | None = None
    """Cells by stage, from the same listing; None where only records of a run were given."""
    damaged: tuple[str, ...] = ()
    """What is wrong with records that cannot be read, and that count for nothing."""

    @property
    def device_hours(self) -> float:
        """Hours of all workers together, over all runs."""
        return self.costs.hours

    @property
    def left(self) -> int:
        """Cells that neither are done nor run nor were set aside."""
        return self.cells - self.done - len(self.running) - len(self.failed)

    @property
    def is_complete(self) -> bool:
        """Whether every cell is done."""
        return self.done == self.cells

    def _repr_html_(self) -> str:
        rows = [
            ("done", f"{self.done:,} of {self.cells:,} cells"),
            ("running", f"{len(self.running):,}"),
            ("failed", f"{len(self.failed):,}"),
            ("left", f"{self.left:,}"),
            ("to go", "unknown" if self.time_to_go_s is None else _duration(self.time_to_go_s)),
            ("device-hours", f"{self.device_hours:,.2f}"),
        ]
        return html_table(f"Campaign {self.name} {self.year}", rows)

    def __str__(self) -> str:
        share = self.done / self.cells if self.cells else 1.0
        lines = [
            f"{self.name} {self.year}: {self.done:,} of {self.cells:,} cells done ({share:.1%})",
            f"  running {len(self.running):,}, failed {len(self.failed):,}, left {self.left:,}",
        ]
        if self.started:
            lines.append(f"  started {self.started}" + (f", finished {self.finished}" if self.finished else ""))
        if self.rate_per_hour is not None:
            to_go = "" if self.time_to_go_s is None else f", {_duration(self.time_to_go_s)} to go"
            lines.append(f"  {self.rate_per_hour:,.1f} cells an hour{to_go}")
        if self.device_hours:
            cost, each = self.costs, self.costs.each(self.done)
            told = [f"{cost.hours:,.2f} device-hours", *([] if cost.total is None else [str(cost)])]
            told += [] if each is None else [f"{figure(each, 3)} {cost.currency} a cell that is done"]
            lines.append(f"  {', '.join(told)}")
        if len(self.hardware) > 1:
            lines.append(f"  {hardware_mixture(self.hardware)}")
        lines += [
            f"  {cell_id(*cell)} {failure.error}: {failure.message}" for cell, failure in sorted(self.failed.items())
        ]
        lines += [f"  damaged: {one}" for one in self.damaged]
        return "\n".join(lines)


def campaign_status(objects: ObjectStore, plan: CampaignPlan, *, prices: Prices) -> CampaignStatus:
    """Report how far a campaign is now. Reads no commit record: their names and times say enough.

    Parameters
    ----------
    objects
        The output.
    plan
        Of the year.
    prices
        What device-hours are computed with.
    """
    layout = YearLayout(plan.year)
    ledger = CampaignLedger(objects, layout)
    damaged: list[str] = []
    marked, failures = ledger.moments(), ledger.failures(damaged=damaged)
    status = status_of(
        plan,
        marked=marked,
        leases=tuple(ledger.leases(damaged=damaged).values()),
        failures=failures,
        runs=ledger.runs(damaged=damaged),
        prices=prices,
        now=datetime.now(UTC),
    )
    stages = None
    try:
        stages = year_stages(objects, plan, marked=marked, failed=failures)
    except CampaignError as error:
        damaged.append(str(error))
    return replace(status, stages=stages, damaged=tuple(sorted(damaged)))


def status_of(
    plan: CampaignPlan,
    *,
    marked: Mapping[Address, datetime],
    leases: Sequence[Lease],
    failures: Mapping[Address, Failure],
    runs: Sequence[RunRecord],
    prices: Prices,
    now: datetime,
) -> CampaignStatus:
    """Summarise these records.

    Parameters
    ----------
    plan
        Of the year.
    marked
        When each cell was marked, aware.
    leases
        The newest of every cell that has one; those that have expired count for nothing.
    failures
        Cells that were set aside.
    runs
        Every run, ended or not.
    prices
        What device-hours are computed with.
    now
        The time, aware.
    """
    places = plan.cells.places
    done = {cell: moment for cell, moment in marked.items() if cell in places}
    failed = {cell: failure for cell, failure in failures.items() if cell in places and cell not in done}
    held = {lease.cell for lease in leases if lease.expires > now}
    running = tuple(sorted(cell for cell in held if cell in places and cell not in done and cell not in failed))
    left = len(plan.cells) - len(done) - len(failed)
    begins = sorted(datetime.fromisoformat(run.started) for run in runs)
    # Of many workers, each of which is a run, the first of those that are there.
    there = (run for run in runs if not run.ended and now - datetime.fromisoformat(run.written) < _THERE)
    present = [datetime.fromisoformat(run.started) for run in there] or begins[-1:] or [now]
    rate = _rate(done.values(), since=min(present), now=now) if running else None
    return CampaignStatus(
        name=plan.name,
        year=plan.year,
        cells=len(plan.cells),
        done=len(done),
        running=running,
        failed=failed,
        started=begins[0].isoformat(timespec="seconds") if begins else "",
        finished=max(done.values()).isoformat(timespec="seconds") if len(done) == len(plan.cells) else "",
        last_done=max(done.values(), default=None),
        rate_per_hour=rate,
        time_to_go_s=left / rate * 3600 if rate else None,
        costs=Costs.paid(runs, prices),
        hardware=hardware_of(runs),
    )


def _rate(moments: Iterable[datetime], *, since: datetime, now: datetime) -> float | None:
    """Compute cells an hour over the last hour, or since the run began where that is less; None before the first."""
    begin = max(since, now - _RECENT)
    hours = (now - begin) / timedelta(hours=1)
    recent = sum(begin < moment <= now for moment in moments)
    return recent / hours if recent and hours > 0 else None


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
