"""`fly`: the cells of a run on a dask cluster, a bounded number at a time, whatever their number."""

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from distributed import Client

from rtsx.campaign.cell_table import Address
from rtsx.campaign.distributed_tasks import CellTasks, Crew, Lost, NotBegun
from rtsx.campaign.failure import Failure
from rtsx.campaign.flight import Flight
from rtsx.campaign.flight_summary import FlightSummary
from rtsx.campaign.job import Job, Outcome
from rtsx.campaign.retry_spec import RetrySpec
from rtsx.errors import ClusterError

__all__ = ["fly"]

_TICK_S = 1.0
"""Seconds between two looks at the cluster, and between two reports."""
_LEAST_WINDOW = 256
"""Tasks in flight on a small cluster. A scheduler keeps those that no worker has room for, so they cost workers nothing; with
fewer, workers of very short tasks wait for the next batch, and an adaptive cluster sees too little work to grow for."""
_WORKERS_PER_LANE = 16
"""Workers for each task that may fly alone, so that two such tasks seldom meet on one worker."""


def fly(
    client: Client,
    job: Job,
    cells: Collection[Address],
    *,
    run: str,
    retry: RetrySpec,
    on_outcome: Callable[[Outcome], None] | None = None,
    on_set_aside: Callable[[Failure], None] | None = None,
    on_tick: Callable[[FlightSummary], None] | None = None,
    in_flight: int | None = None,
    workers_within_s: float = 3600.0,
) -> FlightSummary:
    """Run a job for every cell.

    Each cell is one task that depends on no other. Tasks are run by the workers that offer the resource ``GPU``, one for each
    GPU, or by all threads where no worker does. What can pass is tried again after a pause; a cell that was lost with its
    worker is tried again alone in its process, so that it takes no other with it. The run stops on a failure that every cell
    would share, and when too many cells were set aside: then tasks that run are waited for, and no other is begun.

    Parameters
    ----------
    client
        Of any cluster, also one that has no worker yet.
    job
        What is run; it is sent once, and opened once in each process.
    cells
        What it is run for, in this order.
    run
        Id of the run.
    retry
        Attempts, pauses, and when to give up.
    on_outcome
        Called with what became of each task, in this thread.
    on_set_aside
        Called with the last failure of each cell that is set aside, likewise.
    on_tick
        Called about every second with how the run stands, and last of all when it ends, be it by an error or Ctrl-C.
    in_flight
        Tasks in flight at a time, at most; None for some for each worker, as workers come and go.
    workers_within_s
        Seconds to wait while the cluster has no worker at all.

    Returns
    -------
    FlightSummary
        Every cell, counted once.

    Raises
    ------
    ClusterError
        The scheduler was lost, its workers cannot read the job, or none came in time. What is done stays done.
    """
    flight = Flight(cells, retry=retry)
    log = _Log(run=run, flight=flight, started=datetime.now(UTC), began=time.monotonic())
    tasks = CellTasks(client, job, run=run)
    driver = _Driver(tasks, flight, log, in_flight=in_flight, workers_within_s=workers_within_s)
    try:
        while not flight.ended:
            if driver.look() and on_tick is not None:
                on_tick(log.summary())
            driver.launch()
            for back in tasks.landed(driver.patience_s()):
                failure = driver.take_in(back)
                if on_outcome is not None and not isinstance(back, NotBegun):
                    on_outcome(back if isinstance(back, Outcome) else _failed(back.failure))
                if on_set_aside is not None and failure is not None:
                    on_set_aside(failure)
    except KeyboardInterrupt:
        flight.stop("it was interrupted")  # for the record of the run, which says why it has cells left
        raise
    finally:
        with suppress(ClusterError):  # it is the reason why this ends, or no reason to hide another
            tasks.end()
        if on_tick is not None:
            on_tick(log.summary())
    return log.summary()


@dataclass(kw_only=True)
class _Log:
    """What a run took so far."""

    run: str
    flight: Flight
    started: datetime
    began: float
    crew: Crew = field(default_factory=lambda: Crew(workers=0, slots=0, gpus=False))
    worker_seconds: float = 0.0

    def summary(self) -> FlightSummary:
        """How the run stands."""
        flight = self.flight
        return FlightSummary(
            run=self.run,
            cells=flight.total,
            done=flight.done,
            skipped=flight.skipped,
            set_aside=tuple(flight.set_aside),
            left=flight.left,
            stopped=flight.stopped,
            retried=flight.retried,
            started=self.started.isoformat(),
            finished=datetime.now(UTC).isoformat(),
            seconds=time.monotonic() - self.began,
            worker_seconds=self.worker_seconds,
            workers=self.crew.workers,
            in_flight=flight.in_flight,
        )


class _Driver:
    """Keeps the cluster in work: looks at it now and then, launches what it has room for, and takes in what comes back."""

    def __init__(
        self, tasks: CellTasks, flight: Flight, log: _Log, *, in_flight: int | None, workers_within_s: float
    ) -> None:
        self._tasks = tasks
        self._flight = flight
        self._log = log
        self._most = in_flight
        self._workers_within_s = workers_within_s
        self._looked = -_TICK_S
        self._manned = time.monotonic()
        self._recalled = False

    def look(self) -> bool:
        """See which workers there are, if it is time to; returns whether it was."""
        now = time.monotonic()
        since = now - self._looked
        # Less often on a large cluster, because a thousand workers have megabytes to say about themselves.
        if since < _TICK_S * max(1.0, self._log.crew.workers / 100):
            return False
        self._tasks.require_scheduler()
        before, crew = self._log.crew, self._tasks.crew()
        self._log.worker_seconds += before.workers * (since if before.workers else 0.0)
        self._log.crew = crew
        self._looked = now
        if crew.workers:
            self._manned = now
        elif refusals := self._tasks.refusals():
            raise ClusterError(
                f"The cluster has no worker, because those that came were sent away, the last since {refusals[-1]}. Give "
                "workers the environment of this machine and memory enough, and run the campaign again."
            )
        elif now - self._manned > self._workers_within_s:
            raise ClusterError(
                f"The cluster has had no worker for {self._workers_within_s:.0f} s. See in its logs why none starts, and run "
                "the campaign again: it goes on with the cells that have no mark."
            )
        if before.gpus and crew.workers and not crew.gpus:
            for cell in self._tasks.recall():  # they ask for a GPU that no worker has any more, and would wait for ever
                self._flight.returned(cell)
        return True

    def launch(self) -> None:
        """Start as many tasks as there is room for; once the run has stopped, take back those that have not begun."""
        flight, crew = self._flight, self._log.crew
        if flight.stopped is not None:
            if not self._recalled:
                self._recalled = True
                for cell in self._tasks.recall(keep=self._tasks.running()):
                    flight.returned(cell)
            return
        if self._tasks.equipping():
            return
        window = self._most or (max(4, 2 * crew.slots) if crew.gpus else max(_LEAST_WINDOW, 4 * crew.slots))
        room = window - flight.in_flight
        # In batches where that leaves no worker idle, because a batch costs a scheduler little more than a task.
        if room < min(window // 4, window - 2 * crew.slots) and flight.in_flight:
            return
        starts = flight.take(room, time.monotonic(), lanes=1 + crew.workers // _WORKERS_PER_LANE)
        if starts:
            self._tasks.start(starts, gpus=crew.gpus)

    def patience_s(self) -> float:
        """Seconds to wait for what comes back before something else is to be done."""
        due = self._flight.due()
        return _TICK_S if due is None else min(_TICK_S, max(0.0, due - time.monotonic()))

    def take_in(self, back: Outcome | Lost | NotBegun) -> Failure | None:
        """Take in a task that came back; returns the failure where its cell is set aside by it."""
        if isinstance(back, NotBegun):
            self._flight.returned(back.cell)
            return None
        if isinstance(back, Lost):
            return self._flight.lost(back.failure, time.monotonic(), times=back.times)
        return self._flight.landed(back, time.monotonic())


def _failed(failure: Failure) -> Outcome:
    return Outcome(cell=failure.cell, state="failed", failure=failure)
