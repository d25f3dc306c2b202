"""Each thing is told once, and silence only where there is no sign of life at all."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from rtsx.campaign.campaign import Campaign
from rtsx.campaign.drift import Acceptance
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger
from rtsx.campaign.plan import write_plan
from rtsx.campaign.recipe import Prices
from rtsx.campaign.records import TIME_OVER
from rtsx.campaign.status import due_alerts, notifier, status_of
from rtsx.errors import CampaignError
from rtsx.storage.object_store import LocalObjects, open_object_store
from tests.campaign.records import NOW, a_check, a_failure, a_lease, a_mark, a_plan, a_run

PLAN = a_plan(rows=2, columns=2)
QUIET = timedelta(minutes=30)


def told(**facts: Any) -> list[str]:
    """First lines of what is due."""
    known = {
        "marked": {},
        "leases": (),
        "failures": {},
        "runs": (),
        "drift": None,
        "sent": frozenset(),
        "now": NOW,
    } | facts
    status = status_of(
        PLAN, prices=Prices(), **{name: known[name] for name in ("marked", "leases", "failures", "runs", "now")}
    )
    due = due_alerts(
        status,
        leases=known["leases"],
        runs=known["runs"],
        drift=known["drift"],
        sent=known["sent"],
        quiet=QUIET,
        now=known["now"],
    )
    return [alert.text.splitlines()[0] for alert in due]


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


@pytest.mark.parametrize("mark", [10, 50])
@pytest.mark.parametrize("written", [10, 50])
@pytest.mark.parametrize("lease", [-600, -3000, 60])
def test_it_is_quiet_only_without_any_sign(mark: float, written: float, lease: float) -> None:
    found = told(
        marked={(0, 0): ago(mark)},
        runs=(a_run(started=ago(90).isoformat(), written=ago(written).isoformat(), ended=False),),
        leases=(a_lease((0, 1), ends_in_s=lease),),
    )
    is_quiet = mark == 50 and written == 50 and lease == -3000
    assert found == (["arctic 2024: nothing has happened since 2024-07-01 11:10 UTC"] if is_quiet else [])


def test_nothing_is_told_of_what_has_not_begun() -> None:
    assert told() == []


def test_a_drift_check_that_has_tripped_is_told_until_it_is_accepted() -> None:
    check = a_check(PLAN, factor=10)
    (text,) = told(drift=check)
    assert text.startswith("arctic 2024: the drift check has tripped")
    accepted = replace(check, acceptances=(Acceptance(name="Ada", reason="new", when=check.when),))
    assert told(drift=accepted) == told(drift=a_check(PLAN, factor=1)) == []
    assert told(drift=check, sent=frozenset([f"drift {check.when}"])) == []


def test_stops_and_failures_are_told_by_name() -> None:
    failures = {(0, 1): a_failure((0, 1))}
    stopped = a_run(written=NOW.isoformat(), stopped="the disk is full", ended=True)
    found = told(failures=failures, runs=(stopped,))
    assert found[0] == "arctic 2024: 1 cells were set aside, 1 in all"
    assert found[1].endswith("stopped, because the disk is full")
    keys = [f"set aside r000c001 {failures[0, 1].when}", f"stopped {stopped.run}"]
    assert told(failures=failures, runs=(stopped,), sent=frozenset(keys)) == []


def test_runs_that_stop_for_one_reason_are_one_alert_and_the_end_of_their_time_is_none() -> None:
    def ended(reason: str) -> tuple[Any, ...]:
        return tuple(a_run(run=f"r{i}", written=NOW.isoformat(), stopped=reason, ended=True) for i in range(40))

    assert told(runs=ended(TIME_OVER)) == []
    assert told(runs=ended("the disk is full")) == ["arctic 2024: 40 runs stopped, because the disk is full"]


@pytest.fixture
def campaign(tmp_path: Any) -> Campaign:
    objects = open_object_store(str(tmp_path), {})
    write_plan(objects, PLAN)
    layout = YearLayout(PLAN.year)
    for cell in PLAN.cells:
        CampaignLedger(objects, layout).commit(a_mark(cell))
    now = datetime.now(UTC).isoformat()
    CampaignLedger(objects, layout).note_run(a_run(started=now, written=now, ended=True))
    return Campaign(plan=PLAN, output=str(tmp_path), prices=Prices(device_hour=3.0, currency="USD"))


def test_the_end_is_told_once_with_its_cost_whoever_looks(campaign: Campaign) -> None:
    heard: list[str] = []

    def deaf(text: str) -> None:
        raise CampaignError("nobody is there")

    with pytest.raises(CampaignError, match="nobody"):
        campaign.watch(deaf)
    for _ in range(3):
        assert Campaign(plan=PLAN, output=campaign.output, prices=campaign.prices).watch(heard.append).is_complete
    (text,) = heard
    assert text.startswith("arctic 2024: every cell is done\n")
    assert "USD" in text


def test_an_end_that_an_earlier_version_has_told_is_not_told_again_before_cells_are_made_anew() -> None:
    marked = dict.fromkeys(PLAN.cells, ago(5))
    runs = (a_run(ended=True), a_run(run="run-2", started=ago(1).isoformat(), ended=True, done=0))
    sent = {f"done {ago(5).isoformat(timespec='seconds')}"}
    assert told(marked=marked, runs=runs, sent=sent) == []
    anew = a_run(run="run-3", started=ago(2).isoformat(), ended=True)
    assert told(marked=marked, runs=(*runs, anew), sent=sent) == ["arctic 2024: every cell is done"]


def test_an_output_that_cannot_be_written_says_that_its_alerts_come_again(
    campaign: Campaign, without_rights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    monkeypatch.setattr(LocalObjects, "put", LocalObjects(str(without_rights)).put)
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match=r"sends this alert again.*cannot be written") as warned:
            campaign.watch(heard.append)
        assert [one.filename for one in warned] == [__file__]
    assert len(heard) == 2


def test_the_end_is_told_with_cells_set_aside_once_every_run_has_ended() -> None:
    marked = {(0, 0): ago(9), (0, 1): ago(8), (1, 0): ago(7)}
    failures = {(1, 1): a_failure((1, 1))}
    (aside,) = told(marked=marked, failures=failures, runs=(a_run(),))
    assert aside.endswith("were set aside, 1 in all")
    sent = {f"set aside r001c001 {failures[1, 1].when}"}
    for run in (a_run(ended=True), a_run(written=ago(3).isoformat())):
        assert told(marked=marked, failures=failures, runs=(run,), sent=sent) == [
            "arctic 2024: it has ended with 1 cells set aside"
        ]
    assert told(marked=marked, failures=failures, sent={*sent, f"ended 3 {failures[1, 1].when}"}) == []
    every = marked | {(1, 1): ago(1)}
    assert told(marked=every, runs=(a_run(),)) == []  # its hours are not all there
    assert told(marked=every, runs=(a_run(ended=True),)) == ["arctic 2024: every cell is done"]


def test_the_end_of_a_copy_is_that_of_the_campaign() -> None:
    runs = (a_run(ended=True), a_run(run="run-2", ended=True, done=0))
    for minutes in (5, 500):  # marks of a copy are as old as the copy
        assert told(marked=dict.fromkeys(PLAN.cells, ago(minutes)), runs=runs, sent={"done run-1"}) == []


def test_looks_that_overlap_send_once(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    is_over = threading.Event()
    monkeypatch.setattr("rtsx.storage.lock._pause", lambda seconds: is_over.set())

    def other() -> None:
        campaign.watch(heard.append)
        is_over.set()

    second = threading.Thread(target=other)

    def slow(text: str) -> None:
        second.start()
        is_over.wait()
        heard.append(text)

    campaign.watch(slow)
    second.join()
    assert len(heard) == 1


@contextmanager
def hook(status: int) -> Iterator[tuple[str, list[Any]]]:
    """Address that takes messages, and what has come."""
    came: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", came
        server.shutdown()


def test_messages_go_to_an_address_or_a_command(tmp_path: Any) -> None:
    with hook(200) as (url, came):
        notifier(url)("a\nb")
    assert came == [{"text": "a\nb"}]
    with hook(500) as (url, _), pytest.raises(CampaignError, match="does not take the message: HTTP Error 500"):
        notifier(url)("a")
    notifier(f"tee {tmp_path / 'heard'}")("a\nb")
    assert (tmp_path / "heard").read_text() == "a\nb"
    notifier(r"printf '\xff'")("a")  # an answer that is no text
    for wrong in ("https://hooks.example.org/a b", "http://[::1", 'mail -s "x', "https://"):
        with pytest.raises(CampaignError, match="--notify is a command"):
            notifier(wrong)
    for wrong in ("false", "no-such-program", " "):
        with pytest.raises(CampaignError):
            notifier(wrong)("a")
