"""Which cell runs next, without a scheduler, a clock or a thread; the protocol of a task, and what became of one."""

import heapq
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import perf_counter, sleep
from typing import Literal, Protocol

from rtsx.campaign.cells import Address
from rtsx.campaign.ledger import LeaseTaken
from rtsx.campaign.recipe import RetrySpec
from rtsx.campaign.records import Failure, record_failure
from rtsx.redaction import redacted


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """What became of one cell in one task; small, because it travels."""

    cell: Address
    """Row and column of the cell."""
    state: Literal["done", "skipped", "leased", "failed", "not started"]
    """Done by this task; done before (its mark was there); another run is at it; failed; to be run as if nothing had been."""
    seconds: float = 0.0
    """Time that it took, s."""
    failure: Failure | None = None
    """Why, where it failed."""
    workers_lost: int = 0
    """Workers that were lost with it, where that is why."""
    free_after_s: float = 0.0
    """Seconds after which a lease of another run can be looked at again."""
    hardware: str = ""
    """What runs networks in the process that ran it; empty where that is not known."""


class Cells(Protocol):
    """Cells of a run, in the order in which they are tried."""

    def __len__(self) -> int:
        """Count them."""

    def __iter__(self) -> Iterator[Address]:
        """Go through them; an end need not be the last one."""


class CellTask(Protocol):
    """Runs one cell, on a worker.

    A value that pickles; one is sent to each worker, and several threads may call it at a time. It raises nothing but what
    ends the process: failures are outcomes.
    """

    def __call__(self, cell: Address, attempt: int, run: str) -> CellResult:
        """Run a cell.

        Parameters
        ----------
        cell
            Which.
        attempt
            The how-manieth time in this run, from 1.
        run
            Id of the run.
        """


@dataclass(frozen=True)
class NoOp:
    """A job that does nothing, for tests of the driver and for measuring what it costs."""

    seconds: float = 0.0
    """How long it does nothing, s."""

    def __call__(self, cell: Address, attempt: int, run: str) -> CellResult:
        """Say that it is done."""
        if self.seconds:
            sleep(self.seconds)
        return CellResult(cell=cell, state="done", seconds=self.seconds)


_conforms: type[CellTask] = NoOp


@dataclass(frozen=True)
class Submission:
    """One task to be started."""

    cell: Address
    """Row and column of the cell."""
    attempt: int
    """The how-manieth time, from 1."""
    alone: bool
    """Whether nothing else may run in its process, because the cell was lost with a worker and may have been the reason."""


class TaskQueue:
    """The cells of a run, each in one state at a time: to come, in flight, waiting for its next attempt, or ended.

    A cell ends once: done, skipped, set aside, or left when the run stops. The caller says what time it is, in seconds of
    any clock that goes forward. Memory grows with what is in flight, waiting or set aside, and not with the cells.

    A worker that is lost takes every cell with it that it had, although one at most is to blame. So the first loss of a cell
    costs it no attempt; from then on it is tried alone in its process, few such cells at a time, and what is lost then counts.

    Parameters
    ----------
    cells
        What is to be run, in this order.
    retry
        Attempts, pauses, and when to give up.
    seed
        Of the spread of the pauses.

    Examples
    --------
    >>> queue = TaskQueue([(0, 0), (0, 1)], retry=RetrySpec())
    >>> [start.cell for start in queue.take(8, now=0.0)]
    [(0, 0), (0, 1)]
    >>> queue.completed(CellResult(cell=(0, 0), state="done"), now=1.0)
    >>> queue.in_flight, queue.done, queue.left, queue.is_finished
    (1, 1, 1, False)
    """

    def __init__(self, cells: Cells, *, retry: RetrySpec, seed: int = 0) -> None:
        self.total = len(cells)
        self.done = 0
        self.skipped = 0
        self.retried = 0
        self.set_aside: list[Failure] = []
        self.stopped: str | None = None
        self.hardware = defaultdict[str, float](float)
        """Seconds of tasks by what runs networks in their processes."""
        self._retry = retry
        self._random = random.Random(seed)
        self._to_come = iter(cells)
        self._again: deque[Address] = deque()
        self._waiting: list[tuple[float, int, Address]] = []
        self._suspects: deque[Address] = deque()
        self._running: dict[Address, Submission] = {}
        self._used: dict[Address, int] = {}
        self._lost_once: set[Address] = set()
        self._turn = 0

    @property
    def in_flight(self) -> int:
        """Cells whose task was started and has not completed."""
        return len(self._running)

    @property
    def left(self) -> int:
        """Cells that have not ended."""
        return self.total - self.done - self.skipped - len(self.set_aside)

    @property
    def is_finished(self) -> bool:
        """True when no task is to be started or waited for."""
        return not self._running and (self.stopped is not None or self.left == 0)

    def next_retry(self) -> float | None:
        """Return when the next waiting cell may be tried again; None where none waits or the run has stopped."""
        return self._waiting[0][0] if self._waiting and self.stopped is None else None

    def take(self, room: int, now: float, *, lanes: int = 1) -> list[Submission]:
        """Take the tasks to be started now, at most `room`; at most `lanes` of all in flight are those that run alone."""
        starts: list[Submission] = []
        while len(starts) < room and self.stopped is None:
            start = self._next(now, lanes)
            if start is None:
                break
            self._running[start.cell] = start
            starts.append(start)
        return starts

    def completed(self, outcome: CellResult, now: float) -> Failure | None:
        """Record the result of a task; return the failure where its cell is set aside by it."""
        if outcome.state == "not started":
            self.returned(outcome.cell)
            return None
        if outcome.failure is not None and outcome.workers_lost:
            return self.worker_lost(outcome.failure, now, times=outcome.workers_lost)
        start = self._running.pop(outcome.cell)
        if outcome.hardware:
            self.hardware[outcome.hardware] += outcome.seconds
        if outcome.state == "leased":
            self._wait(outcome.cell, now + outcome.free_after_s)
            return None
        self._used[outcome.cell] = start.attempt
        if outcome.state == "failed":
            assert outcome.failure is not None
            return self._failed(outcome.failure, now)
        self._forget(outcome.cell)
        if outcome.state == "done":
            self.done += 1
        else:
            self.skipped += 1
        return None

    def worker_lost(self, failure: Failure, now: float, *, times: int = 1) -> Failure | None:
        """Return a record that a cell was lost, `times` times, with its worker; return as `completed` does."""
        start = self._running.pop(failure.cell)
        if not start.alone:
            self._lost_once.add(failure.cell)
            self.retried += 1
            self._ready(failure.cell)
            return None
        self._used[failure.cell] = start.attempt - 1 + times
        return self._failed(failure, now)

    def returned(self, cell: Address) -> None:
        """Record that a task never began, so that its cell is started again and no attempt is counted."""
        self._running.pop(cell)
        self._ready(cell)

    def stop(self, reason: str) -> None:
        """Start no further task. Those in flight may still complete; the first reason stays."""
        self.stopped = self.stopped or redacted(reason)

    def _next(self, now: float, lanes: int) -> Submission | None:
        """Choose the next task: suspects, then cells that ran before, then those that did not."""
        while self._waiting and self._waiting[0][0] <= now:
            self._ready(heapq.heappop(self._waiting)[2])
        if self._suspects and sum(start.alone for start in self._running.values()) < lanes:
            return self._start(self._suspects.popleft(), alone=True)
        cell = self._again.popleft() if self._again else next(self._to_come, None)
        return None if cell is None else self._start(cell, alone=False)

    def _ready(self, cell: Address) -> None:
        """Queue a cell that may run again."""
        (self._suspects if cell in self._lost_once else self._again).append(cell)

    def _start(self, cell: Address, *, alone: bool) -> Submission:
        return Submission(cell, self._used.get(cell, 0) + 1, alone)

    def _failed(self, failure: Failure, now: float) -> Failure | None:
        """Try again, set aside or stop, by the kind of the failure."""
        # Here again, because workers do not know what the config of this process has withheld.
        failure = replace(failure, message=redacted(failure.message), traceback=redacted(failure.traceback))
        if failure.kind == "halting":
            self.stop(f"cell {failure.cell} failed as every other would: {failure.error}: {failure.message}")
            return None
        used = self._used[failure.cell]
        failure = replace(failure, attempts=used)
        if failure.kind == "passing" and used < self._retry.attempts:
            self.retried += 1
            self._wait(failure.cell, now + self.pause_s(used))
            return None
        self._forget(failure.cell)
        self.set_aside.append(failure)
        if len(self.set_aside) >= self._retry.most_failures:
            self.stop(
                f"{len(self.set_aside)} cells were set aside, which is the most that a run bears; the last was cell "
                f"{failure.cell}: {failure.error}: {failure.message}"
            )
        return failure

    def pause_s(self, used: int) -> float:
        """Return seconds before the next attempt after so many; spread, so that what failed together does not come back together."""
        longest = min(self._retry.longest_backoff_s, self._retry.backoff_s * 2.0 ** min(used - 1, 60))
        return longest * (1 - 0.5 * self._random.random())

    def _wait(self, cell: Address, due: float) -> None:
        self._turn += 1
        heapq.heappush(self._waiting, (due, self._turn, cell))

    def _forget(self, cell: Address) -> None:
        """Drop what is remembered of a cell that has ended."""
        self._used.pop(cell, None)
        self._lost_once.discard(cell)


def cell_result(
    work: Callable[[Address, str], Literal["done", "skipped"]],
    cell: Address,
    *,
    attempt: int,
    run: str,
    hardware: str = "",
) -> CellResult:
    """Run the work on a cell; whatever it raises becomes part of the result, as everywhere in a campaign."""
    began = perf_counter()
    try:
        result = CellResult(cell=cell, state=work(cell, run))
    except LeaseTaken as leased:
        result = CellResult(cell=cell, state="leased", free_after_s=leased.free_after_s)
    except Exception as error:
        failure = record_failure(error, cell=cell, attempt=attempt, run=run)
        result = CellResult(cell=cell, state="failed", failure=failure)
    return replace(result, seconds=perf_counter() - began, hardware=hardware)
