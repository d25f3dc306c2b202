"""What works on cells without a scheduler: takes them by lease until none is left, and keeps the record of its run."""

import platform
import random
import signal
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from rtsx.campaign.cells import Address, CellTable
from rtsx.campaign.ledger import CampaignLedger
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.recipe import RetrySpec
from rtsx.campaign.records import TIME_OVER, Failure, ProgressCallback, RunRecord, RunSummary, versions_here
from rtsx.campaign.task_queue import CellResult, CellTask, TaskQueue
from rtsx.errors import CampaignError, RtsxError
from rtsx.storage.diagnosis import causes
from rtsx.threads import repeated

RECORD_S = 30.0
"""Seconds between two records of a run: what a client that is killed leaves unsaid about its costs."""


_TOO_SHORT = "its time was over before its first cell was done; give it more, or take smaller cells"
"""Why one stopped that would not get further the next time."""
_LOOK_S = (0.5, 15.0)
"""Seconds between two listings of the store while others hold all cells that are left: at first, and in the end."""
_TICK_S = 0.2
"""Seconds between two looks at the clock meanwhile."""


class _TimeOver(BaseException):
    """The time of a worker ended within a cell; no error, so that nothing on its way takes it for one."""


class FreeCells:
    """Cells that are neither done nor set aside nor held, in the order in which one worker should take them.

    Along the Hilbert curve from a place of its own, so that a cell finds in caches what the one before has read. Where a worker
    meets cells of another, it goes on anywhere among those that are free. Iteration ends while there are none; it may go on
    later with those whose worker was lost.

    Parameters
    ----------
    cells
        Those of the plan, in their order.
    ledger
        Tells what has become of them.
    lease_s
        How long leases last, s.

    Examples
    --------
    >>> from rtsx.campaign.layout import YearLayout
    >>> from rtsx.storage.object_store import MemoryObjects
    >>> table = CellTable(np.array([[0, 0], [0, 1], [1, 1]], np.int32))
    >>> sorted(FreeCells(table, CampaignLedger(MemoryObjects(), YearLayout(2024)), lease_s=120.0))
    [(0, 0), (0, 1), (1, 1)]
    """

    def __init__(self, cells: CellTable, ledger: CampaignLedger, *, lease_s: float) -> None:
        self._cells = cells
        self._ledger = ledger
        self._lease_s = lease_s
        self._place = 0
        self._is_old = True
        self._patience_s, self._patient_until = _LOOK_S[0], 0.0
        self._given = np.zeros(len(cells), bool)
        self.look()
        self._begin = ~self._done
        self._aside_before = self._aside

    def __len__(self) -> int:
        """Cells that were not done at the beginning."""
        return int(self._begin.sum())

    def __iter__(self) -> Iterator[Address]:
        return self

    def __next__(self) -> Address:
        if self._is_old or self._place == len(self._free) or not self._free[self._place]:
            if not self._free.any() and time.monotonic() < self._patient_until:
                raise StopIteration
            self.look()
            free = np.flatnonzero(self._free)
            if not free.size:
                self._patient_until = time.monotonic() + self._patience_s
                self._patience_s = min(2 * self._patience_s, _LOOK_S[1])
                raise StopIteration
            self._patience_s = _LOOK_S[0]
            self._place = random.choice(free)
            self._is_old = False
        place = self._place
        self._place += 1
        self._given[place] = True
        self._free[place] = False
        row, column = self._cells.addresses[place]
        return int(row), int(column)

    @property
    def n_done(self) -> int:
        """Cells of the beginning that were done at the last look, by whomever."""
        return int((self._begin & self._done).sum())

    @property
    def n_set_aside(self) -> int:
        """Cells that were set aside since the beginning, by whomever."""
        return int((self._aside & ~self._aside_before).sum())

    @property
    def is_over(self) -> bool:
        """Whether none is left but those that this worker was given; what others hold might come free."""
        return not (self._open & ~self._given).any()

    def taken(self, cell: Address, *, is_done: bool) -> None:
        """Note that a cell is another worker's, so that what is known of the store is old; it may come again if it is not done."""
        self._is_old = True
        self._given[self._cells.places[cell]] = is_done

    def look(self) -> None:
        """List the store."""
        held = self._ledger.held_cells(lease_s=self._lease_s)
        self._done = self._mask(self._ledger.done())
        self._aside = self._mask(self._ledger.set_aside_cells()) & ~self._done
        self._open = ~(self._done | self._aside)
        self._free = self._open & ~self._mask(held) & ~self._given

    def _mask(self, cells: Iterable[Address]) -> NDArray[np.bool_]:
        places = self._cells.places
        mask = np.zeros(len(self._cells), bool)
        mask[[places[cell] for cell in cells if cell in places]] = True
        return mask


class CellWorker:
    """Runs cells in this process, one at a time.

    Parameters
    ----------
    job
        What is run for each.
    cells
        Those to be run.
    ledger
        Keeps what is set aside.
    retry
        Attempts, pauses, and when to give up.
    hardware
        What runs networks in this process, for the record of what it costs; empty where that is not known.
    """

    def __init__(
        self, job: CellTask, cells: FreeCells, *, ledger: CampaignLedger, retry: RetrySpec, hardware: str = ""
    ) -> None:
        self.cells = cells
        self._job = job
        self._ledger = ledger
        self.queue = TaskQueue(cells, retry=retry)
        self._run = new_run()
        self._started = datetime.now(UTC)
        self._others = 0
        self._slowest_s = 0.0
        self._cell_began = self._started
        self._is_new = True
        self._retry = retry
        self._hardware = hardware

    def work(self, until: datetime | None) -> Iterator[RunSummary]:
        """Run until no cell is left or no time for another; yields how it stands before each, and while it waits for others."""
        queue = self.queue
        while not (queue.stopped or (self.cells.is_over and queue.next_retry() is None)):
            yield self.summary()
            if until is not None and datetime.now(UTC) + timedelta(seconds=self._slowest_s) > until:
                queue.stop(_TOO_SHORT if self._is_new else TIME_OVER)
            self._is_new = False
            if self.cells.n_set_aside >= self._retry.most_failures:
                queue.stop(
                    f"{self.cells.n_set_aside} cells were set aside since it began, which is the most that a run bears"
                )
            for start in queue.take(1, time.monotonic()):
                self._cell_began = datetime.now(UTC)
                self._take_in(self._job(start.cell, start.attempt, self._run))
                break
            else:
                time.sleep(_TICK_S)

    def cut_off(self) -> None:
        """Note that its time ended within a cell, or while it waited; one that cannot begin or finish its first cell would never."""
        now = datetime.now(UTC)
        is_hopeless = (
            self.queue.in_flight and not self.queue.done and now - self._cell_began > self._cell_began - self._started
        )
        self.queue.stop(_TOO_SHORT if is_hopeless or self._is_new else TIME_OVER)

    def summary(self, failures: Mapping[Address, Failure] | None = None) -> RunSummary:
        """Summarise what this worker did; with the failures of the whole campaign, what it leaves behind is counted truly."""
        queue, now = self.queue, datetime.now(UTC)
        self._others = max(self._others, self.cells.n_done - queue.done)
        set_aside = tuple(queue.set_aside if failures is None else failures.values())
        seconds = (now - self._started).total_seconds()
        return RunSummary(
            run=self._run,
            cells=len(self.cells),
            done=queue.done,
            skipped=self._others,
            set_aside=set_aside,
            left=len(self.cells) - queue.done - self._others - len(set_aside),
            stopped=queue.stopped,
            retried=queue.retried,
            started=self._started.isoformat(),
            finished=now.isoformat(),
            seconds=seconds,
            worker_seconds=seconds,
            workers=1,
            hardware={self._hardware: seconds} if self._hardware else {},
            in_flight=queue.in_flight,
        )

    def _take_in(self, outcome: CellResult) -> None:
        if outcome.state in ("skipped", "leased"):
            self.cells.taken(outcome.cell, is_done=outcome.state == "skipped")
            # Not as leased, for which the queue would wait until the lease ends: others give theirs back sooner.
            outcome = replace(outcome, state="skipped")
        elif outcome.state == "done":
            self._slowest_s = max(self._slowest_s, outcome.seconds)
        failure = self.queue.completed(outcome, time.monotonic())
        if failure is not None:
            self._ledger.quarantine(failure)
            self.cells.look()


def require_zone(until: datetime | None) -> None:
    """Refuse a time without its zone."""
    if until is not None and until.tzinfo is None:
        raise CampaignError(f"until is a time with its zone, such as UTC, which tells when to end; got {until}.")


def run_cells(
    job: CellTask,
    plan: CampaignPlan,
    ledger: CampaignLedger,
    *,
    retry: RetrySpec,
    until: datetime | None,
    progress: ProgressCallback | None,
    hardware: str = "",
) -> RunSummary:
    """Do a job for cells in this process until none is left, with a record of the run."""
    worker = CellWorker(
        job, FreeCells(plan.cells, ledger, lease_s=retry.lease_s), ledger=ledger, retry=retry, hardware=hardware
    )
    log = RunLog(ledger, plan)
    log.note(worker.summary())
    # In another thread, because a cell may take longer than a record may be old.
    recorded = repeated(lambda: log.note(worker.summary()), every_s=RECORD_S, name="rtsx-run-record")
    try:
        with _signals_as_raised(), recorded, _cut_off_at(until):
            for summary in worker.work(until):
                if progress is not None:
                    progress(summary)
    except _TimeOver:
        worker.cut_off()
    except KeyboardInterrupt:
        worker.queue.stop("it was interrupted")  # for the record of the run, which says why it has cells left
        raise
    finally:
        log.note(worker.summary(), ended=True)
    worker.cells.look()
    done = ledger.done()
    failures = {
        cell: one for cell, one in ledger.failures(damaged=[]).items() if cell in plan.cells and cell not in done
    }
    summary = replace(worker.summary(failures), before=len(plan.cells) - len(worker.cells))
    if progress is not None:
        progress(summary)
    return summary


@contextmanager
def _signals_as_raised() -> Iterator[None]:
    """Raise what a signal raised where a lock that it struck in has made a RuntimeError of it, for being released twice."""
    try:
        yield
    except RuntimeError as error:
        struck = next((one for one in causes(error) if isinstance(one, KeyboardInterrupt | _TimeOver)), None)
        if struck is None:
            raise
        raise struck from None


@contextmanager
def _cut_off_at(until: datetime | None) -> Iterator[None]:
    """Raise `_TimeOver` in the block at that time, in the midst of a cell; in another thread than the main one nothing is."""
    if until is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _TimeOver

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, (until - datetime.now(UTC)).total_seconds()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class RunLog:
    """The record of one run, written now and then."""

    def __init__(self, ledger: CampaignLedger, plan: CampaignPlan) -> None:
        self._ledger = ledger
        self._digest = plan.digest
        self._last: RunSummary | None = None
        self._written = -RECORD_S

    def note(self, summary: RunSummary, *, ended: bool = False) -> None:
        """Take in how the run stands, or that it has ended."""
        self._last = summary
        if not ended and time.monotonic() - self._written < RECORD_S:
            return
        self._written = time.monotonic()
        record = RunRecord.of(
            summary, plan_digest=self._digest, host=platform.node(), versions=versions_here(), ended=ended
        )
        # A record that cannot be written ends no run, and hides no error that has: it says costs, and no result rests on it.
        with suppress(RtsxError, OSError):
            self._ledger.note_run(record)

    def end(self) -> None:
        """Say that it has ended as it stood last."""
        if self._last is not None:
            self.note(self._last, ended=True)


def new_run() -> str:
    """Return the id of a run: its begin and something that no other has.

    Examples
    --------
    >>> len(new_run())
    24
    """
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
