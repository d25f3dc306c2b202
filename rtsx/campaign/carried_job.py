"""A job as bytes on its way to the workers, opened once in each of their processes."""

import hashlib
import pickle
from dataclasses import dataclass, field
from threading import Lock
from typing import Self

import cloudpickle

from rtsx.campaign.distributed_guard import refuse_if_unfit
from rtsx.campaign.flight import Start
from rtsx.campaign.job import Job, Outcome
from rtsx.campaign.process_turn import ProcessTurn
from rtsx.errors import ClusterError

__all__ = ["CarriedJob"]

_TURN = ProcessTurn()
_OPENING = Lock()
_OPENED: dict[str, Job] = {}
"""The job that this process ran last, by its digest; one, because models are large."""


@dataclass(frozen=True)
class CarriedJob:
    """Bytes, instead of the job itself, because schedulers would unpickle it, and threads of a worker share one model."""

    digest: str
    """SHA-256 of the bytes."""
    content: bytes = field(repr=False)
    """The job, pickled."""

    @classmethod
    def of(cls, job: Job) -> Self:
        """The bytes of a job."""
        content = cloudpickle.dumps(job)
        return cls(hashlib.sha256(content).hexdigest(), content)

    def __call__(self, start: Start, run: str) -> Outcome:
        """Run one cell in this process.

        Raises
        ------
        ClusterError
            The job cannot be read here.
        Reschedule
            This process is one that the cluster should not have; the scheduler hands the cell to another.
        """
        refuse_if_unfit()
        job = self._opened()
        with _TURN.taken(alone=start.alone):
            return job(start.cell, start.attempt, run)

    def _opened(self) -> Job:
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
