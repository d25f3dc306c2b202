"""How far a campaign is, asked of its output from any machine by listings and few records; and alerts, each sent once."""

import http.client
import json
import re
import shlex
import subprocess
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from rtsx.campaign.cells import Address
from rtsx.campaign.costs import Costs
from rtsx.campaign.drift import DriftCheck, read_check
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, Lease
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.recipe import Prices
from rtsx.campaign.records import TIME_OVER, Failure, RunRecord, hardware_mixture, hardware_of
from rtsx.campaign.stages import YearStages, year_stages
from rtsx.errors import CampaignError
from rtsx.grid.grid import cell_id
from rtsx.pages import figure, html_table, render_text
from rtsx.parsing import parsed_json
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
    is_manned: bool = False
    """Whether a run that has not ended has written its record within two minutes, so that hours and costs are not all there."""
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

    @property
    def is_over(self) -> bool:
        """Whether no cell is left or running and every run has ended, though cells may have been set aside."""
        return not (self.left or self.running or self.is_manned)

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
        facts = {
            "of": self,
            "mixture": hardware_mixture(self.hardware) if len(self.hardware) > 1 else "",
            "cell_id": cell_id,
            "duration": _duration,
            "figure": figure,
        }
        return render_text("status.txt", facts)


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
    damaged: list[str] = []
    marked, failures, leases, runs = _records(objects, plan, damaged)
    now, stages = datetime.now(UTC), None
    status = status_of(plan, marked=marked, leases=leases, failures=failures, runs=runs, prices=prices, now=now)
    try:
        stages = year_stages(objects, plan, marked=marked, failed=failures)
    except CampaignError as error:
        damaged.append(str(error))
    return replace(status, stages=stages, damaged=tuple(sorted(damaged)))


def _records(
    objects: ObjectStore, plan: CampaignPlan, damaged: list[str]
) -> tuple[dict[Address, datetime], dict[Address, Failure], tuple[Lease, ...], tuple[RunRecord, ...]]:
    """Return when each cell was marked, failures, the newest leases, and runs; `damaged` receives what is wrong with those that are none."""
    ledger = CampaignLedger(objects, YearLayout(plan.year))
    marked, failures = ledger.moments(), ledger.failures(damaged=damaged)
    return marked, failures, tuple(ledger.leases(damaged=damaged).values()), ledger.runs(damaged=damaged)


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
    there = [run for run in runs if not run.ended and now - datetime.fromisoformat(run.written) < _THERE]
    present = [datetime.fromisoformat(run.started) for run in there] or begins[-1:] or [now]
    rate = _rate(done.values(), since=min(present), now=now) if running else None
    last_done = max(done.values(), default=None)
    last_run = max((run for run in runs if run.done), key=lambda run: datetime.fromisoformat(run.written), default=None)
    finished = last_done if len(done) == len(plan.cells) else None
    if finished is not None and last_run is not None and last_run.ended:
        # Because marks of a copy are as old as the copy.
        finished = min(finished, datetime.fromisoformat(last_run.written))
    return CampaignStatus(
        name=plan.name,
        year=plan.year,
        cells=len(plan.cells),
        done=len(done),
        running=running,
        failed=failed,
        started=begins[0].isoformat(timespec="seconds") if begins else "",
        finished="" if finished is None else finished.isoformat(timespec="seconds"),
        last_done=last_done,
        rate_per_hour=rate,
        time_to_go_s=left / rate * 3600 if rate else None,
        costs=Costs.paid(runs, prices),
        hardware=hardware_of(runs),
        is_manned=bool(there),
    )


def _rate(moments: Iterable[datetime], *, since: datetime, now: datetime) -> float | None:
    """Compute cells an hour over the last hour, or since the run began where that is less; None before the first."""
    begin = max(since, now - _RECENT)
    hours = (now - begin) / timedelta(hours=1)
    recent = sum(begin < moment <= now for moment in moments)
    return recent / hours if recent and hours > 0 else None


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


_MOST_NAMED = 5
"""Cells that one message names."""
_ANSWER_S = 30.0
"""Seconds in which who is notified has to answer."""


@dataclass(frozen=True)
class Alert:
    """One message."""

    keys: tuple[str, ...]
    """What it is about; an alert about nothing else is not sent again."""
    text: str
    """For people; its first line says the most."""


def due_alerts(
    status: CampaignStatus,
    *,
    leases: Collection[Lease],
    runs: Collection[RunRecord],
    drift: DriftCheck | None,
    sent: Set[str],
    quiet: timedelta,
    now: datetime,
) -> Iterator[Alert]:
    """Yield the alerts that have not been sent yet.

    Parameters
    ----------
    status
        How the campaign stands.
    leases, runs
        Of all its cells and runs, in any state.
    drift
        The drift check; None where nobody checked.
    sent
        Keys of those that were.
    quiet
        A campaign with cells left is quiet where for so long no cell was done, no run wrote its record and no lease was renewed.
    now
        The time, aware.
    """
    name = f"{status.name} {status.year}"
    if drift is not None and not drift.may_run and (key := f"drift {drift.when}") not in sent:
        found = [f"  {one}" for one in drift.findings[:_MOST_NAMED]]
        text = f"{name}: the drift check has tripped, so the year is not run before the source is cured or somebody accepts it"
        yield Alert((key,), "\n".join([text, *found]))
    aside = {f"set aside {cell_id(*cell)} {one.when}": one for cell, one in sorted(status.failed.items())}
    fresh = {key: one for key, one in aside.items() if key not in sent}
    if fresh:
        named = [f"  {cell_id(*one.cell)} {one.error}: {one.message}" for one in list(fresh.values())[:_MOST_NAMED]]
        more = [f"  ... and {len(fresh) - _MOST_NAMED:,} more"] if len(fresh) > _MOST_NAMED else []
        text = f"{name}: {len(fresh):,} cells were set aside, {len(aside):,} in all"
        yield Alert(tuple(fresh), "\n".join([text, *named, *more]))
    stopped: dict[str, list[RunRecord]] = {}
    for run in runs:
        # The end of its time is how a worker of a batch system ends every day.
        if (
            run.ended
            and run.stopped not in (None, TIME_OVER)
            and not status.is_complete
            and f"stopped {run.run}" not in sent
        ):
            stopped.setdefault(str(run.stopped), []).append(run)
    for reason, those in stopped.items():
        what = f"a run on {those[0].host}" if len(those) == 1 else f"{len(those):,} runs"
        yield Alert(tuple(f"stopped {run.run}" for run in those), f"{name}: {what} stopped, because {reason}\n{status}")
    signs = [datetime.fromisoformat(run.written) for run in runs] + [lease.expires for lease in leases]
    signs += [status.last_done] if status.last_done is not None else []
    if signs and status.left + len(status.running) and now - max(signs) > quiet:
        key = f"quiet {max(signs).isoformat()}"
        if key not in sent:
            yield Alert((key,), f"{name}: nothing has happened since {max(signs):%Y-%m-%d %H:%M} UTC\n{status}")
    if status.is_over:
        if status.is_complete:
            # By the last run that did something, not by times of marks, which a copy tells otherwise.
            begun, last = max(((run.started, run.run) for run in runs if run.done), default=("", ""))
            key = f"done {last}"
            # Earlier versions kept the time of the last mark; also UTC, so that text compares as times do.
            if any(re.match(r"done \d{4}-", one) and one >= f"done {begun}" for one in sent):
                return
            text = f"{name}: every cell is done"
        else:
            key = f"ended {status.done} {max(one.when for one in status.failed.values())}"
            text = f"{name}: it has ended with {len(aside):,} cells set aside"
        if key not in sent:
            yield Alert((key,), f"{text}\n{status}")


def watch_campaign(
    objects: ObjectStore, plan: CampaignPlan, *, prices: Prices, notify: Callable[[str], None], quiet: timedelta
) -> CampaignStatus:
    """Look once, and send what is new; see `Campaign.watch`."""
    marked, failures, leases, runs = _records(objects, plan, [])
    now, drift = datetime.now(UTC), None
    status = status_of(plan, marked=marked, leases=leases, failures=failures, runs=runs, prices=prices, now=now)
    key = YearLayout(plan.year).notified
    content = objects.get(key)
    sent = parsed_json(b"{}" if content is None else content, dict[str, list[str]], what=key, error=CampaignError).get(
        "sent", []
    )
    with suppress(CampaignError):  # a damaged one, which whoever runs is told of
        drift = read_check(objects, plan)
    for alert in due_alerts(status, leases=leases, runs=runs, drift=drift, sent=set(sent), quiet=quiet, now=now):
        notify(alert.text)
        # After it, and one by one: who is killed between the two sends one alert twice, and none never.
        sent += alert.keys
        try:
            objects.put(key, json.dumps({"sent": sent}).encode())
        except OSError as error:
            text = f"The next look sends this alert again, because it cannot be noted: {error}"
            warnings.warn(text, RuntimeWarning, stacklevel=4)  # beyond `Campaign.watch`, and its check of types
    return status


def notifier(target: str) -> Callable[[str], None]:
    """Return what hands a message to a web address, as JSON with the key ``text``, or to a command, on its standard input.

    Raises
    ------
    CampaignError
        The target is empty; and, when it is called, the address or command does not take the message.

    Examples
    --------
    >>> notifier("cat -")("arctic 2024: every cell is done")
    """
    if not target.strip():
        raise CampaignError("--notify is a command or a web address; got nothing.")
    if target.startswith(("http://", "https://")):
        if re.search(r"\s", target) or not _host(target):
            raise CampaignError(f"--notify is a command or a web address; got {target!r}.")
        return lambda text: _post(target, text)
    try:
        command = shlex.split(target)
    except ValueError as error:
        raise CampaignError(f"--notify is a command as a shell reads it ({error}); got {target!r}.") from error
    return lambda text: _run(command, text)


def _host(url: str) -> str:
    """Return the host of an address; empty where it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _post(url: str, text: str) -> None:
    request = urllib.request.Request(
        url, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_S):
            pass
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise CampaignError(f"The address that is notified does not take the message: {error}") from None


def _run(command: list[str], text: str) -> None:
    try:
        process = subprocess.run(
            command, input=text, capture_output=True, encoding="utf-8", errors="replace", timeout=_ANSWER_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CampaignError(f"The command that is notified cannot be run: {error}") from error
    if process.returncode:
        raise CampaignError(f"{command[0]} did not take the message: {process.stderr.strip() or process.returncode}")
