"""Tasks of single cells on a dask cluster: started, taken back, and told apart by how they came back."""

import asyncio
import itertools
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Any
from uuid import uuid4

import dask
from dask.utils import key_split
from distributed import Client, Future, KilledWorker

from rtsx.campaign.carried_job import CarriedJob
from rtsx.campaign.cell_table import Address
from rtsx.campaign.environment import refusals_topic, release_environment
from rtsx.campaign.failure import Failure
from rtsx.campaign.flight import Start
from rtsx.campaign.job import Job, Outcome
from rtsx.errors import ClusterError
from rtsx.grid.cell import cell_id

__all__ = ["CellTasks", "Crew", "Lost", "NotBegun"]

GATHER_S = 60.0
"""Seconds that outcomes may take from the workers; then their cells are run again, and found done by their marks."""

EQUIP_S = 10.0
"""Seconds that cells wait until a worker that has just come has the job."""
TOGETHER_S = 0.01
"""Seconds that are waited for others once a task is back, because outcomes of many cells are brought at the cost of one."""


@dataclass(frozen=True)
class Crew:
    """What a cluster has at the moment."""

    workers: int
    """Workers."""
    slots: int
    """Cells that they run at a time: GPUs where any worker offers some, else threads."""
    gpus: bool
    """Whether the slots are GPUs, so that workers without one are left alone."""


@dataclass(frozen=True)
class Lost:
    """A task whose worker was lost."""

    failure: Failure
    """What is known of it."""
    times: int
    """Workers that were lost with it, because a scheduler may try again by itself before it tells."""


@dataclass(frozen=True)
class NotBegun:
    """A task that never ran, or whose outcome was lost after it: its cell is to be run as if nothing had been."""

    cell: Address
    """Its cell."""


class CellTasks:
    """The tasks of one run that are under way; one thread uses it."""

    def __init__(self, client: Client, job: Job, *, run: str) -> None:
        self._client = client
        self._run = run
        self._names = f"{run}-{uuid4().hex[:8]}"  # so that no task is taken for one of an earlier call
        self._carried = CarriedJob.of(job)
        self._job: Future[Any] | None = None
        self._equipped: dict[str, tuple[Future[Any], float]] = {}
        self._flying: dict[Any, tuple[Future[Any], Start]] = {}
        self._back: SimpleQueue[Future[Any] | dict[Any, Outcome | None]] = SimpleQueue()
        self._number = itertools.count()

    def crew(self) -> Crew:
        """What the cluster has now; workers that have come since the last call are sent the job."""
        # A scheduler in this process would remember the names of its last 100,000 tasks, which are 40 MB.
        key_split.cache_clear()
        with self._reached():
            workers = self._client.scheduler_info(n_workers=-1)["workers"]
            self._equip(workers)
        gpus = sum(int(worker["resources"].get("GPU", 0)) for worker in workers.values())
        return Crew(len(workers), gpus or sum(worker["nthreads"] for worker in workers.values()), gpus > 0)

    def equipping(self) -> bool:
        """Whether the job is still on its way to some worker, for no longer than is worth waiting for."""
        late = time.monotonic() - EQUIP_S
        return any(future.status == "pending" and began > late for future, began in self._equipped.values())

    def start(self, starts: Sequence[Start], *, gpus: bool) -> None:
        """Start tasks; each holds a GPU while it runs, if asked."""
        with self._reached():
            keys = [(f"rtsx-cell-{self._names}", cell_id(*start.cell), next(self._number)) for start in starts]
            futures = self._client.map(
                _call,
                list(starts),
                key=keys,
                job=self._sent(),
                run=self._run,
                pure=False,
                resources={"GPU": 1} if gpus else None,
            )
        for start, future in zip(starts, futures, strict=True):
            self._flying[future.key] = (future, start)
            future.add_done_callback(self._back.put)

    def landed(self, within_s: float) -> Iterator[Outcome | Lost | NotBegun]:
        """Tasks that have come back since the last call; waits for the first of them, at most so long."""
        finished = []
        for back in self._waited(within_s):
            if isinstance(back, dict):
                for key, outcome in back.items():
                    if flown := self._flying.pop(key, None):
                        yield NotBegun(flown[1].cell) if outcome is None else outcome
            elif back.key in self._flying:
                if back.status == "finished":
                    finished.append(back)
                elif back.status in ("pending", "lost"):  # it went down with its worker, and is computed again
                    back.add_done_callback(self._back.put)
                else:
                    yield self._fallen(back)
        if finished:
            loop = self._client.loop
            assert loop is not None  # or the client would be closed
            loop.add_callback(self._fetch, finished)

    def recall(self, *, keep: Collection[Any] = ()) -> list[Address]:
        """Take back all tasks but those of these keys; returns their cells. What runs already is not cut off, but forgotten."""
        recalled = {key: flown for key, flown in self._flying.items() if key not in keep}
        for key in recalled:
            del self._flying[key]
        if recalled:
            with self._reached():
                self._client.cancel([future for future, _ in recalled.values()])
        return [start.cell for _, start in recalled.values()]

    def running(self) -> set[Any]:
        """Keys of the tasks that a worker is at now."""
        with self._reached():
            answers = self._client.run(_active_keys, on_error="ignore")
        return set().union(*answers.values())

    def refusals(self) -> list[str]:
        """Why workers were sent away, one text for each."""
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
        """The job, as a task, instead of scattered data, because a task is run again where its worker is lost."""
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

    def _waited(self, within_s: float) -> list[Future[Any] | dict[Any, Outcome | None]]:
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

    def _fallen(self, future: Future[Any]) -> Outcome | Lost | NotBegun:
        """What a task is that came back without an outcome."""
        if future.status == "cancelled":  # not by us, because what we cancel is no longer among those that fly
            raise self._scheduler_lost()
        error = future.exception()
        _, start = self._flying.pop(future.key)
        future.release()  # by hand, because the traceback of what may be raised here would keep it on the scheduler
        if isinstance(error, ClusterError):
            raise error
        if isinstance(error, KilledWorker):
            if error.task != future.key:  # the worker that held the job was lost before it could hand it on
                self._forget_job()
                return NotBegun(start.cell)
            message = f"its worker was lost {error.allowed_failures + 1} times: killed, out of memory or cut off"
            return Lost(self._failure(start, error, message), error.allowed_failures + 1)
        failure = self._failure(start, error, str(error))
        return Outcome(cell=start.cell, state="failed", failure=failure)

    def _failure(self, start: Start, error: BaseException, message: str) -> Failure:
        """A failure that may pass, since the task could not say itself what it was."""
        return Failure(
            cell=start.cell,
            kind="passing",
            error=type(error).__name__,
            message=message,
            traceback="",
            attempts=start.attempt,
            when=datetime.now(UTC).isoformat(),
            run=self._run,
            worker="",
        )

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


def _call(start: Start, *, job: CarriedJob, run: str) -> Outcome:
    return job(start, run)


def _same(job: CarriedJob) -> CarriedJob:
    return job


def _nothing(job: CarriedJob) -> None:
    pass


def _active_keys(dask_worker: Any) -> list[Any]:
    return list(dask_worker.active_keys)
