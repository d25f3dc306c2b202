"""Folds as dask tasks, on this machine or on the workers of a cluster."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from uuid import uuid4

from dask.base import compute
from dask.delayed import Delayed

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["run_jobs"]


def run_jobs(jobs: Sequence[Callable[[], str]], *, client: "Client | None") -> list[str]:
    """What each job returns; on the workers of a client, else on the scheduler in force.

    Graphs by hand, instead of `dask.delayed`, because that looks into the scenes of a job and would compute them.
    """
    # Names of their own, because a job is remembered on disk, and not by its key on a scheduler that may have failed it.
    keys = [f"fold-{number}-{uuid4().hex}" for number in range(len(jobs))]
    pending = [Delayed(key, {key: (job,)}) for key, job in zip(keys, jobs, strict=True)]
    if client is None:
        return list(compute(*pending))
    return list(client.gather(client.compute(pending)))
