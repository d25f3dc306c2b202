"""Cells of a run on a dask cluster, a bounded number at a time, however many there are."""

import asyncio
import hashlib
import itertools
import pickle
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any, Self
from uuid import uuid4

import cloudpickle
import dask
from dask.utils import key_split
from distributed import Client, Future, KilledWorker

from rtsx.campaign.cells import Address
from rtsx.campaign.clusters import refusals_topic, release_environment, replace_worker_after, require_workers
from rtsx.campaign.recipe import RetrySpec
from rtsx.campaign.records import Failure, RunSummary, record_failure
from rtsx.campaign.task_queue import CellResult, CellTask, Submission, TaskQueue
from rtsx.errors import ClusterError
from rtsx.grid.grid import cell_id
from rtsx.threads import ReadWriteLock

_TURN = ReadWriteLock()
_OPENING = Lock()
_OPENED: dict[str, CellTask] = {}
"""The job that this process ran last, by its digest; one, because models are large."""


@dataclass(frozen=True)
class SerializedJob:
    """Bytes, instead of the job itself, because schedulers would unpickle it, and threads of a worker share one model."""

    digest: str
    """SHA-256 of the bytes."""
    content: bytes = field(repr=False)
    """The job, pickled."""

    @classmethod
    def of(cls, job: CellTask) -> Self:
        """Pickle a job."""
        content = cloudpickle.dumps(job)
        return cls(hashlib.sha256(content).hexdigest(), content)

    def opened(self) -> CellTask:
        """Unpickle the job, once in this process.

        Raises
        ------
        ClusterError
            It cannot be read here.
        """
        with _OPENING:
            job = _OPENED.get(self.digest)
            if job is None:
                try:
                    job = pickle.loads(self.content)
                except Exception as error:  # whatever an import or another version of a class may raise
                    raise ClusterError(
                        f"A worker cannot read what it is asked to run ({type(error).__name__}: {error}): it has other "
                        "libraries than the machine that sent it. Give workers and client one environment."
                    ) from error
                _OPENED.clear()
                _OPENED[self.digest] = job
            return job


GATHER_S = 60.0
"""Seconds that outcomes may take from the workers; then their cells are run again, and found done by their marks."""

EQUIP_S = 10.0
"""Seconds that cells wait until a worker that has just come has the job."""
TOGETHER_S = 0.01
"""Seconds that are waited for others once a task is back, because outcomes of many cells are brought at the cost of one."""


@dataclass(frozen=True)
class WorkerSet:
    """What a cluster has at the moment."""

    workers: int
    slots: int
    """Cells that they run at a time: GPUs where any worker offers some, else threads."""
    gpus: bool
    """Whether the slots are GPUs, so that workers without one are left alone."""


class CellTasks:
    """The tasks of one run that are under way; one thread uses it."""

    def __init__(self, client: Client, job: CellTask, *, run: str) -> None:
        self._client = client
        self._run = run
        self._names = f"{run}-{uuid4().hex[:8]}"  # so that no task is taken for one of an earlier call
        self._carried = SerializedJob.of(job)
        self._job: Future[Any] | None = None
        self._equipped: dict[str, tuple[Future[Any], float]] = {}
        self._in_flight: dict[Any, tuple[Future[Any], Submission]] = {}
        self._back: SimpleQueue[Future[Any] | dict[Any, CellResult | None]] = SimpleQueue()
        self._number = itertools.count()

    def crew(self) -> WorkerSet:
        """Return the workers that there are now; those that have come since the last call are sent the job."""
        # A scheduler in this process would remember the names of its last 100,000 tasks, which are 40 MB.
        key_split.cache_clear()
        with self._reached():
            workers = self._client.scheduler_info(n_workers=-1)["workers"]
            self._equip(workers)
        gpus = sum(int(worker["resources"].get("GPU", 0)) for worker in workers.values())
        return WorkerSet(len(workers), gpus or sum(worker["nthreads"] for worker in workers.values()), gpus > 0)

    def equipping(self) -> bool:
        """Test whether the job is still on its way to some worker, for no longer than is worth waiting for."""
        late = time.monotonic() - EQUIP_S
        return any(future.status == "pending" and began > late for future, began in self._equipped.values())

    def start(self, starts: Sequence[Submission], *, gpus: bool) -> None:
        """Start tasks; each holds a GPU while it runs, if asked."""
        with self._reached():
            keys = [(f"rtsx-cell-{self._names}", cell_id(*start.cell), next(self._number)) for start in starts]
            futures = self._client.map(
                _run_cell,
                list(starts),
                key=keys,
                job=self._sent(),
                run=self._run,
                pure=False,
                resources={"GPU": 1} if gpus else None,
            )
        for start, future in zip(starts, futures, strict=True):
            self._in_flight[future.key] = (future, start)
            future.add_done_callback(self._back.put)

    def completed(self, within_s: float) -> Iterator[CellResult]:
        """Yield tasks that have come back since the last call; waits for the first of them, at most so long."""
        finished = []
        for back in self._waited(within_s):
            if isinstance(back, dict):
                for key, outcome in back.items():
                    if task := self._in_flight.pop(key, None):
                        yield _not_started(task[1].cell) if outcome is None else outcome
            elif back.key in self._in_flight:
                if back.status == "finished":
                    finished.append(back)
                elif back.status in ("pending", "lost"):  # it went down with its worker, and is computed again
                    back.add_done_callback(self._back.put)
                else:
                    yield self._without_result(back)
        if finished:
            loop = self._client.loop
            assert loop is not None  # or the client would be closed
            loop.add_callback(self._fetch, finished)

    def recall(self, *, keep: Collection[Any] = ()) -> list[Address]:
        """Take back all tasks but those of these keys; returns their cells. What runs already is not cut off, but forgotten."""
        recalled = {key: task for key, task in self._in_flight.items() if key not in keep}
        for key in recalled:
            del self._in_flight[key]
        if recalled:
            with self._reached():
                self._client.cancel([future for future, _ in recalled.values()])
        return [start.cell for _, start in recalled.values()]

    def running(self) -> set[Any]:
        """List the keys of the tasks that a worker runs now."""
        with self._reached():
            keys = self._client.run(_active_keys, on_error="ignore")
        return set().union(*keys.values())

    def refusals(self) -> list[str]:
        """Return why workers were sent away, one text for each."""
        with self._reached():
            return [text for _, text in self._client.get_events(refusals_topic(self._client))]

    def require_scheduler(self) -> None:
        """Refuse to wait for a scheduler that is gone.

        Raises
        ------
        ClusterError
            It is gone.
        """
        if self._client.status != "running":
            raise self._scheduler_lost()

    def end(self) -> None:
        """Take back everything, let go of the job, and leave the cluster as it was found."""
        self.recall()
        self._forget_job()
        with self._reached():
            release_environment(self._client)

    def _sent(self) -> Future[Any]:
        """Return the job, as a task, instead of scattered data, because a task is run again where its worker is lost."""
        if self._job is None:
            key = f"rtsx-job-{self._names}-{next(self._number)}"
            # A model is large, and is sent once.
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
                self._job = self._client.submit(_same, self._carried, key=key, pure=False)
        return self._job

    def _equip(self, workers: Collection[str]) -> None:
        """Send the job to workers that have it not, because a scheduler gives tasks to those that have what they depend on."""
        for gone in self._equipped.keys() - set(workers):
            self._equipped.pop(gone)[0].release()
        for address in workers:
            if address not in self._equipped:
                key = f"rtsx-equip-{self._names}-{next(self._number)}"
                future = self._client.submit(_nothing, self._sent(), key=key, workers=[address], pure=False)
                future.add_done_callback(self._back.put)
                self._equipped[address] = (future, time.monotonic())

    def _forget_job(self) -> None:
        """Let go of the job, here and on every worker."""
        held = [future for future, _ in self._equipped.values()] + ([] if self._job is None else [self._job])
        self._equipped.clear()
        self._job = None
        for future in held:
            future.release()

    def _waited(self, within_s: float) -> list[Future[Any] | dict[Any, CellResult | None]]:
        try:
            back = [self._back.get(timeout=within_s)]
        except Empty:
            return []
        time.sleep(TOGETHER_S)
        while True:
            try:
                back.append(self._back.get_nowait())
            except Empty:
                return back

    async def _fetch(self, futures: list[Future[Any]]) -> None:
        """Bring outcomes of tasks that are done, by key; None for one whose worker has taken it along.

        In the background, because a worker that is gone is waited for as long as a connection may take.
        """
        numbered = dict(enumerate(futures))
        try:
            gathered = self._client.gather(numbered, errors="skip", asynchronous=True)
            found = await asyncio.wait_for(gathered, GATHER_S)
        except Exception:  # whatever it was, these cells are run again, and a scheduler that is gone is seen there
            found = {}
        self._back.put({future.key: found.get(number) for number, future in numbered.items()})

    def _without_result(self, future: Future[Any]) -> CellResult:
        """Classify a task that came back without a result."""
        if future.status == "cancelled":  # not by us, because what we cancel is no longer among those in flight
            raise self._scheduler_lost()
        error = future.exception()
        _, start = self._in_flight.pop(future.key)
        future.release()  # by hand, because the traceback of what may be raised here would keep it on the scheduler
        if isinstance(error, ClusterError):
            raise error
        # One that may pass, since the task could not state itself what it was.
        recorded = record_failure(error, cell=start.cell, attempt=start.attempt, run=self._run)
        failure = replace(recorded, kind="passing", traceback="", worker="")
        if isinstance(error, KilledWorker):
            if error.task != future.key:  # the worker that held the job was lost before it could hand it on
                self._forget_job()
                return _not_started(start.cell)
            lost = error.allowed_failures + 1  # because a scheduler may try again by itself before it tells
            failure = replace(failure, message=f"its worker was lost {lost} times: killed, out of memory or cut off")
            return CellResult(cell=start.cell, state="failed", failure=failure, workers_lost=lost)
        return CellResult(cell=start.cell, state="failed", failure=failure)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Tell by one error that the scheduler is gone, whatever dask says about it."""
        try:
            yield
        except Exception as error:
            cut = isinstance(error, OSError) and not isinstance(error, TimeoutError)
            if cut or self._client.status != "running":
                raise self._scheduler_lost() from error
            raise

    def _scheduler_lost(self) -> ClusterError:
        address = getattr(self._client.scheduler, "address", "of this client")
        return ClusterError(
            f"The scheduler {address} was lost, or has dropped the tasks of this run. Cells that are marked stay done: start "
            "the cluster again and run the campaign again, and it goes on with the others."
        )


def _run_cell(start: Submission, *, job: SerializedJob, run: str) -> CellResult:
    """Run one cell in this process; another worker gets it where the cluster should not have this one."""
    require_workers()
    task = job.opened()
    with _TURN.taken(alone=start.alone):
        result = task(start.cell, start.attempt, run)
    if result.failure is not None:
        replace_worker_after(result.failure)
    return result


def _not_started(cell: Address) -> CellResult:
    """Say of a task that it never ran, or that its outcome was lost after it."""
    return CellResult(cell=cell, state="not started")


def _same(job: SerializedJob) -> SerializedJob:
    return job


def _nothing(job: SerializedJob) -> None:
    pass


def _active_keys(dask_worker: Any) -> list[Any]:
    return list(dask_worker.active_keys)


_TICK_S = 1.0
"""Seconds between two looks at the cluster, and between two reports."""
_LEAST_WINDOW = 256
"""Tasks in flight on a small cluster. A scheduler keeps those that no worker has room for, so they cost workers nothing; with
fewer, workers of very short tasks wait for the next batch, and an adaptive cluster sees too little work to grow for."""
_WORKERS_PER_LANE = 16
"""Workers for each task that may run alone, so that two such tasks seldom meet on one worker."""


def run_on_cluster(
    client: Client,
    job: CellTask,
    cells: Collection[Address],
    *,
    run: str,
    retry: RetrySpec,
    on_outcome: Callable[[CellResult], None] | None = None,
    on_set_aside: Callable[[Failure], None] | None = None,
    on_tick: Callable[[RunSummary], None] | None = None,
    in_flight: int | None = None,
    workers_within_s: float = 3600.0,
) -> RunSummary:
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
    RunSummary
        Every cell, counted once.

    Raises
    ------
    ClusterError
        The scheduler was lost, its workers cannot read the job, or none came in time. What is done stays done.
    """
    queue = TaskQueue(cells, retry=retry)
    tasks = CellTasks(client, job, run=run)
    driver = _Driver(run=run, tasks=tasks, queue=queue, in_flight=in_flight, workers_within_s=workers_within_s)
    try:
        while not queue.is_finished:
            if driver.look() and on_tick is not None:
                on_tick(driver.summary())
            driver.launch()
            for back in tasks.completed(driver.patience_s()):
                failure = queue.completed(back, time.monotonic())
                if on_outcome is not None and back.state != "not started":
                    on_outcome(back)
                if on_set_aside is not None and failure is not None:
                    on_set_aside(failure)
    except KeyboardInterrupt:
        queue.stop("it was interrupted")  # for the record of the run, which says why it has cells left
        raise
    finally:
        with suppress(ClusterError):  # it is the reason why this ends, or no reason to hide another
            tasks.end()
        if on_tick is not None:
            on_tick(driver.summary())
    return driver.summary()


@dataclass(kw_only=True)
class _Driver:
    """Keeps the cluster in work: looks at it now and then, and launches what it has room for."""

    run: str
    tasks: CellTasks
    queue: TaskQueue
    in_flight: int | None
    workers_within_s: float
    crew: WorkerSet = field(default=WorkerSet(workers=0, slots=0, gpus=False))
    worker_seconds: float = 0.0
    """Until it last looked."""
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.monotonic)
    looked: float = -_TICK_S
    seen_worker: float = field(default_factory=time.monotonic)
    is_recalled: bool = False

    def summary(self) -> RunSummary:
        """Summarise what the run did and took so far."""
        queue, busy = self.queue, sum(self.queue.hardware.values()) or 1.0
        seconds = self.worker_seconds + self.crew.workers * (time.monotonic() - self.looked)
        return RunSummary(
            run=self.run,
            cells=queue.total,
            done=queue.done,
            skipped=queue.skipped,
            set_aside=tuple(queue.set_aside),
            left=queue.left,
            stopped=queue.stopped,
            retried=queue.retried,
            started=self.started.isoformat(),
            finished=datetime.now(UTC).isoformat(),
            seconds=time.monotonic() - self.began,
            worker_seconds=seconds,
            workers=self.crew.workers,
            # Of time between tasks nobody says where it passed, so it counts as that of tasks does.
            hardware={name: seconds * spent / busy for name, spent in queue.hardware.items()},
            in_flight=queue.in_flight,
        )

    def look(self) -> bool:
        """See which workers there are, if it is time to; returns whether it was."""
        now = time.monotonic()
        since = now - self.looked
        # Less often on a large cluster, because a thousand workers have megabytes to say about themselves.
        if since < _TICK_S * max(1.0, self.crew.workers / 100):
            return False
        self.tasks.require_scheduler()
        before, crew = self.crew, self.tasks.crew()
        self.worker_seconds += before.workers * since
        self.crew = crew
        self.looked = now
        if crew.workers:
            self.seen_worker = now
        elif refusals := self.tasks.refusals():
            raise ClusterError(
                f"The cluster has no worker, because those that came were sent away, the last since {refusals[-1]}. Give "
                "workers the environment of this machine and memory enough, and run the campaign again."
            )
        elif now - self.seen_worker > self.workers_within_s:
            raise ClusterError(
                f"The cluster has had no worker for {self.workers_within_s:.0f} s. See in its logs why none starts, and run "
                "the campaign again: it goes on with the cells that have no mark."
            )
        if before.gpus and crew.workers and not crew.gpus:
            for cell in self.tasks.recall():  # they ask for a GPU that no worker has any more, and would wait for ever
                self.queue.returned(cell)
        return True

    def launch(self) -> None:
        """Start as many tasks as there is room for; once the run has stopped, take back those that have not begun."""
        queue, crew = self.queue, self.crew
        if queue.stopped is not None:
            if not self.is_recalled:
                self.is_recalled = True
                for cell in self.tasks.recall(keep=self.tasks.running()):
                    queue.returned(cell)
            return
        if self.tasks.equipping():
            return
        window = self.in_flight or (max(4, 2 * crew.slots) if crew.gpus else max(_LEAST_WINDOW, 4 * crew.slots))
        room = window - queue.in_flight
        # In batches where that leaves no worker idle, because a batch costs a scheduler little more than a task.
        if room < min(window // 4, window - 2 * crew.slots) and queue.in_flight:
            return
        starts = queue.take(room, time.monotonic(), lanes=1 + crew.workers // _WORKERS_PER_LANE)
        if starts:
            self.tasks.start(starts, gpus=crew.gpus)

    def patience_s(self) -> float:
        """Return seconds to wait for what comes back before something else is to be done."""
        due = self.queue.next_retry()
        return _TICK_S if due is None else min(_TICK_S, max(0.0, due - time.monotonic()))
