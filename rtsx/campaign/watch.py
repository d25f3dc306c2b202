"""Alerts of a campaign, each once: a drift check that has tripped, cells set aside, runs that stopped, silence, and the end with what it has cost."""

import http.client
import json
import re
import shlex
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from rtsx.campaign.drift import DriftCheck, read_check
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.lease import Lease
from rtsx.campaign.ledger import CampaignLedger
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.recipe import Prices
from rtsx.campaign.records import TIME_OVER, RunRecord
from rtsx.campaign.status import CampaignStatus, status_of
from rtsx.errors import CampaignError
from rtsx.grid.grid import cell_id
from rtsx.parsing import parsed_json
from rtsx.storage.object_store import ObjectStore

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
    if status.is_complete and (key := f"done {status.finished}") not in sent:
        yield Alert((key,), f"{name}: every cell is done\n{status}")


def watch_campaign(
    objects: ObjectStore, plan: CampaignPlan, *, prices: Prices, notify: Callable[[str], None], quiet: timedelta
) -> CampaignStatus:
    """Look once, and send what is new; see `Campaign.watch`."""
    layout = YearLayout(plan.year)
    ledger = CampaignLedger(objects, layout)
    damaged: list[str] = []
    leases = ledger.leases(damaged=damaged).values()
    runs = ledger.runs(damaged=damaged)
    now = datetime.now(UTC)
    status = status_of(
        plan,
        marked=ledger.moments(),
        leases=tuple(leases),
        failures=ledger.failures(damaged=damaged),
        runs=runs,
        prices=prices,
        now=now,
    )
    sent = _read_sent(objects, layout)
    drift = None
    with suppress(CampaignError):  # a damaged one, which whoever runs is told of
        drift = read_check(objects, plan)
    for alert in due_alerts(status, leases=leases, runs=runs, drift=drift, sent=set(sent), quiet=quiet, now=now):
        notify(alert.text)
        # After it, and one by one: who is killed between the two sends one alert twice, and none never.
        sent += alert.keys
        objects.put(layout.notified, json.dumps({"sent": sent}).encode())
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
    """Host of an address; empty where it has none."""
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
        answer = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CampaignError(f"The command that is notified cannot be run: {error}") from error
    if answer.returncode:
        raise CampaignError(f"{command[0]} did not take the message: {answer.stderr.strip() or answer.returncode}")


def _read_sent(objects: ObjectStore, layout: YearLayout) -> list[str]:
    content = objects.get(layout.notified)
    if content is None:
        return []
    return parsed_json(content, dict[str, list[str]], what=layout.notified, error=CampaignError).get("sent", [])
