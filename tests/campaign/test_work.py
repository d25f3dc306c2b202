"""Workers without a scheduler: any number share the cells, however they end."""

import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from rtsx import Campaign, load_campaign
from rtsx.campaign import work
from rtsx.campaign import worker as worker_module
from rtsx.campaign.cell_task import CellJob
from rtsx.campaign.cells import Address, CellTable
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, acquire, held
from rtsx.campaign.recipe import RetrySpec
from rtsx.campaign.records import TIME_OVER
from rtsx.campaign.task_queue import CellResult, cell_result
from rtsx.campaign.worker import CellWorker, FreeCells, _signals_as_raised, _TimeOver
from rtsx.errors import CampaignError, ClusterError
from rtsx.storage.object_store import MemoryObjects
from tests.campaign import stage
from tests.campaign.actors import Crew
from tests.campaign.conftest import S3
from tests.campaign.small_campaign import CELLS, make_recipe, objects_below, thread_client, write_country

YEAR = YearLayout(2024)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write_country(tmp_path_factory.mktemp("country"))


@pytest.fixture(scope="module")
def run(files: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run on a cluster writes."""
    out = tmp_path_factory.mktemp("run") / "out"
    with thread_client() as client:
        campaign = Campaign.create(make_recipe(files, str(out)))
        assert campaign.run(client).complete
    (record,) = CampaignLedger(campaign.objects, YEAR).runs()
    assert record.hardware == {"CPU": pytest.approx(record.worker_seconds)}
    return objects_below(out)


def test_several_at_once_write_what_a_run_writes_and_no_cell_twice(
    files: tuple[Path, ...], tmp_path: Path, run: dict[str, bytes]
) -> None:
    campaigns = [Campaign.create(make_recipe(files, str(tmp_path / "out"))) for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:
        summaries = list(threads.map(lambda one: one.work(), campaigns))
    assert objects_below(tmp_path / "out") == run
    assert sum(one.done for one in summaries) == len(CELLS)
    assert all(one.complete and one.left == 0 for one in summaries)
    records = CampaignLedger(campaigns[0].objects, YEAR).runs()
    assert [record.ended for record in records] == [True] * 3
    assert all(record.hardware == {"CPU": record.worker_seconds} for record in records)
    assert campaigns[0].status().is_complete
    assert not list(campaigns[0].objects.list(YEAR.leases))


@pytest.mark.slow
def test_workers_that_are_killed_on_s3_write_what_a_run_writes(s3: S3, tmp_path: Path) -> None:
    bundle = stage.write_bundle(tmp_path / "bundle")
    files = [str(path) for path in stage.write_country(tmp_path, across=3)[1:]]
    configs = [
        stage.write_campaign(tmp_path / name, files=files, output=output, options=options, bundle=bundle, across=3)
        for name, output, options in (("run.yaml", str(tmp_path / "run"), {}), ("work.yaml", s3.url, s3.options))
    ]
    with thread_client() as client:
        assert Campaign.create(load_campaign(configs[0])).run(client).complete
    crew = Crew(configs[1], ends=[["SIGKILL"], ["SIGTERM"]], folder=tmp_path, seed=None)
    statuses = crew.run(limit_s=240)
    wanted = [("SIGKILL", -signal.SIGKILL), ("none", 0), ("SIGTERM", 128 + signal.SIGTERM), ("none", 0)]
    assert statuses == wanted, crew.said()
    marked: list[str] = []
    for what, cell in crew.diary:
        assert cell not in marked  # neither begun nor marked again
        marked += [cell] if what == "marked" else []
    assert len(marked) == 9
    assert len(crew.diary) - len(marked) > len(marked)  # those that were cut off were begun again
    assert stage.objects_of(s3.url, s3.options) == stage.objects_of(str(tmp_path / "run"), {})


class Task:
    """Takes a cell as a campaign does; what happens in it is up to the test."""

    def __init__(self, ledger: CampaignLedger, within: Callable[[Address], object] = lambda cell: None) -> None:
        self.ledger = ledger
        self.within = within
        self.outcomes: Counter[tuple[Address, str]] = Counter()

    def __call__(self, cell: Address, attempt: int, run: str) -> CellResult:
        outcome = cell_result(self._run, cell, attempt=attempt, run=run)
        self.outcomes[cell, outcome.state] += 1
        return outcome

    def _run(self, cell: Address, run: str) -> Literal["done", "skipped"]:
        mark = YEAR.mark(cell)
        with held(self.ledger.objects, YEAR, cell, run=run, lease_s=20.0):
            if self.ledger.objects.get(mark) is not None:
                return "skipped"
            self.within(cell)
            self.ledger.objects.create(mark, b"")
        return "done"


@pytest.fixture
def ledger() -> CampaignLedger:
    return CampaignLedger(MemoryObjects(), YEAR)


def table(count: int) -> CellTable:
    return CellTable(np.stack(np.divmod(np.arange(count), 10), axis=1).astype(np.int32))


def worker_of(task: Task, count: int, *, attempts: int = 4) -> CellWorker:
    retry = RetrySpec(attempts=attempts, backoff_s=0.0)
    return CellWorker(task, FreeCells(table(count), task.ledger, lease_s=0.2), ledger=task.ledger, retry=retry)


def finish(worker: CellWorker, until: datetime | None = None) -> CellWorker:
    for _ in worker.work(until):
        pass
    worker.cells.look()
    return worker


def test_many_workers_do_every_cell_once(ledger: CampaignLedger) -> None:
    task = Task(ledger)
    with ThreadPoolExecutor(16) as threads:
        summaries = [one.summary() for one in threads.map(lambda _: finish(worker_of(task, 200)), range(16))]
    assert {cell: task.outcomes[cell, "done"] for cell in table(200)} == dict.fromkeys(table(200), 1)
    assert sum(one.done for one in summaries) == 200
    assert all(one.complete for one in summaries)


def test_what_fails_is_tried_again_and_set_aside_and_told_truly(ledger: CampaignLedger) -> None:
    def fail(cell: Address) -> None:
        if cell == (0, 3):
            raise ConnectionResetError("gone")
        if cell == (0, 5):
            raise ValueError("bad data")

    worker = finish(worker_of(task := Task(ledger, fail), 10, attempts=3))
    assert (task.outcomes[(0, 3), "failed"], task.outcomes[(0, 5), "failed"]) == (3, 1)
    assert {failure.cell for failure in ledger.failures().values()} == {(0, 3), (0, 5)}
    summary = worker.summary(ledger.failures())
    assert (summary.done, len(summary.set_aside), summary.left, summary.complete) == (8, 2, 0, False)
    assert finish(worker_of(Task(ledger), 10)).summary().done == 0  # nobody else tries them
    ledger.reset()
    assert finish(worker_of(Task(ledger), 10)).summary().complete


def test_cells_of_another_are_waited_for_and_taken_over_where_it_is_lost(ledger: CampaignLedger) -> None:
    acquire(ledger.objects, YEAR, (0, 4), run="living", lease_s=20.0)
    acquire(ledger.objects, YEAR, (0, 7), run="dead", lease_s=0.2)
    worker = worker_of(Task(ledger), 10)
    waiting = worker.work(None)
    seen = [next(waiting).done for _ in range(12)]
    while worker.summary().done < 9:  # until the lease of the dead one ends
        next(waiting)
    ledger.objects.create(YEAR.mark((0, 4)), b"")
    list(waiting)
    assert max(seen) < 10
    assert (worker.summary().done, worker.summary().skipped) == (9, 1)


def test_a_look_reads_no_lease_that_was_just_renewed() -> None:
    class Reads(MemoryObjects):
        read = 0

        def get(self, key: str) -> bytes | None:
            self.read += 1
            return super().get(key)

    objects = Reads()
    for place in range(9):
        acquire(objects, YEAR, (0, place), run="living", lease_s=20.0)
    assert list(FreeCells(table(10), CampaignLedger(objects, YEAR), lease_s=20.0)) == [(0, 9)]
    assert objects.read == 0


def test_it_ends_in_time(ledger: CampaignLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    task = Task(ledger)
    late = finish(worker_of(task, 10), until=now)  # as another start would be
    assert (late.summary().stopped, late.summary().left, not task.outcomes) == (worker_module._TOO_SHORT, 10, True)
    worker = worker_of(task, 10)
    steps = worker.work(now + timedelta(minutes=30))
    next(steps)
    next(steps)
    worker._slowest_s = 3600.0  # as one cell took
    assert not [*steps]
    assert (worker.summary().stopped, len(task.outcomes)) == (TIME_OVER, 1)


def test_its_time_ends_within_a_cell_which_is_given_back(ledger: CampaignLedger) -> None:
    # By hand, because on a busy machine the clock may strike before the cell is leased.
    strike = Task(ledger, lambda cell: signal.raise_signal(signal.SIGALRM))
    with pytest.raises(worker_module._TimeOver), worker_module._cut_off_at(datetime.now(UTC) + timedelta(hours=1)):
        finish(worker_of(strike, 10))
    assert not ledger.leases()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_worker_whose_time_is_too_short_for_a_cell_does_not_ask_to_be_started_again(ledger: CampaignLedger) -> None:
    reached = threading.Event()
    worker = worker_of(Task(ledger, lambda cell: reached.wait(60)), 10)
    with pytest.raises(worker_module._TimeOver), worker_module._cut_off_at(datetime.now(UTC) + timedelta(seconds=0.3)):
        finish(worker)
    worker.cut_off()
    assert "before its first cell was done" in str(worker.summary().stopped)
    late = worker_of(Task(ledger), 10)
    late.cut_off()
    assert late.summary().stopped == worker.summary().stopped
    acquire(ledger.objects, YEAR, (0, 0), run="other", lease_s=600.0)
    waiting = worker_of(Task(ledger), 1)
    steps = waiting.work(None)
    next(steps)
    next(steps)
    waiting.cut_off()
    assert waiting.summary().stopped == TIME_OVER


def test_cells_set_aside_by_all_workers_stop_each(ledger: CampaignLedger) -> None:
    def fail(cell: Address) -> None:
        raise ValueError("bad data")

    task = Task(ledger, fail)
    workers = [
        CellWorker(task, FreeCells(table(50), ledger, lease_s=0.2), ledger=ledger, retry=RetrySpec(most_failures=5))
        for _ in range(2)
    ]
    for one in workers:
        finish(one)
    assert len(ledger.failures()) in (5, 6)  # the second looks after its first
    assert all("which is the most that a run bears" in str(one.summary().stopped) for one in workers)


def test_the_record_of_a_worker_is_written_during_a_cell(
    files: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "RECORD_S", 0.01)
    monkeypatch.setattr(worker_module, "RECORD_S", 0.01)
    campaign = Campaign.create(make_recipe(files, str(tmp_path / "out")))
    written = []

    def look(*_: object) -> CellResult:
        while (
            len({record.written for record in CampaignLedger(campaign.objects, YEAR).runs()}) < 1
            or len(set(written)) < 2
        ):
            written.extend(record.written for record in CampaignLedger(campaign.objects, YEAR).runs())
        raise KeyboardInterrupt

    monkeypatch.setattr(CellJob, "__call__", look)
    with pytest.raises(KeyboardInterrupt):
        campaign.work()
    (record,) = CampaignLedger(campaign.objects, YEAR).runs()
    assert (record.ended, record.stopped) == (True, "it was interrupted")


def test_a_cell_that_takes_its_workers_with_it_is_set_aside(files: tuple[Path, ...], tmp_path: Path) -> None:
    campaign = Campaign.create(make_recipe(files, str(tmp_path / "out")))
    for run in range(2):  # as many as it has attempts
        acquire(campaign.objects, YEAR, CELLS[1], run=str(run), lease_s=1e-6)
    summary = campaign.work()
    assert (summary.done, [failure.cell for failure in summary.set_aside]) == (5, [CELLS[1]])
    assert "2 workers that have vanished" in summary.set_aside[0].message
    assert not campaign.ledger.leases()
    campaign.retry()
    assert campaign.work().complete


def test_a_campaign_that_is_stopped_or_cannot_be_worked_says_so(
    files: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(files, str(tmp_path / "out"))
    campaign = Campaign.create(recipe)
    late = campaign.work(until=datetime.now(UTC))
    assert (late.stopped, late.left, campaign.status().done) == (worker_module._TOO_SHORT, len(CELLS), 0)
    with pytest.raises(CampaignError, match="with its zone"):
        campaign.work(until=datetime.now())
    with pytest.raises(CampaignError, match="opened from its output alone"):
        Campaign.open(recipe.output).work()
    small = replace(campaign, recipe=replace(recipe, prediction=replace(recipe.prediction, memory_bytes=1000)))
    with pytest.raises(ClusterError, match=r"A worker of this campaign needs .* its memory is said to be 0.98 kiB"):
        small.work()
    monkeypatch.setattr(work, "available_bytes", lambda: 2**27)
    with pytest.raises(ClusterError, match=r"2 workers of this campaign need .* this machine has 128.00 MiB"):
        work.require_worker_memory(campaign.plan, recipe, workers=2)
    monkeypatch.undo()
    (record,) = CampaignLedger(campaign.objects, YEAR).runs()
    card = replace(record, run="card", ended=True, done=1, hardware={"NVIDIA T4": 60.0})
    CampaignLedger(campaign.objects, YEAR).note_run(card)
    with pytest.warns(RuntimeWarning, match="computed with CPU and NVIDIA T4, whose probabilities differ"):
        campaign.work(until=datetime.now(UTC))
    with thread_client() as client, pytest.warns(RuntimeWarning, match="computed with CPU and NVIDIA T4"):
        assert campaign.run(client).complete
    assert len([line for line in str(campaign.status()).splitlines() if "CPU and NVIDIA T4" in line]) == 1
    other = replace(record, run="other", ended=False, versions={**record.versions, "numpy": "1.0"})
    CampaignLedger(campaign.objects, YEAR).note_run(other)
    with pytest.raises(ClusterError, match=r"has numpy .* instead of 1\.0"):
        campaign.work()


@pytest.mark.parametrize("raised", [KeyboardInterrupt, _TimeOver])
def test_a_signal_that_strikes_in_a_lock_is_that_signal(raised: type[BaseException]) -> None:
    lock = threading.Lock()

    def wait() -> None:
        with lock:
            lock.release()  # as in a wait, which a signal ends before it holds the lock again
            raise raised

    with pytest.raises(raised), _signals_as_raised():
        wait()
    with pytest.raises(RuntimeError, match="another"), _signals_as_raised():
        raise RuntimeError("another")
