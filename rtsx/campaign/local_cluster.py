"""A client of workers on this machine, or of a scheduler that runs already."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster

from rtsx.campaign.cluster_spec import ClusterSpec
from rtsx.errors import ClusterError

__all__ = ["local_client", "scheduler_client"]

CONNECT_S = 20.0
"""Seconds in which a scheduler has to answer."""
_DEAF = """
import signal

def dask_setup(worker):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
"""
"""What a worker on this machine does first: a terminal sends Ctrl-C to it too, but the client ends it, once it is no longer needed for
an end in good order."""


@contextmanager
def local_client(spec: ClusterSpec) -> Iterator[Client]:
    """A client of worker processes on this machine, which end with it.

    Raises
    ------
    ClusterError
        The processes do not start.
    """
    least, most = spec.adapt or (spec.workers or 1, spec.workers or 1)
    with dask.config.set(_settings(most)):
        try:
            cluster = LocalCluster(
                n_workers=least,
                threads_per_worker=spec.threads,
                memory_limit="auto" if spec.memory_bytes is None else spec.memory_bytes,
                processes=True,
                dashboard_address=":0",
                preload=[_DEAF],
            )
        except (OSError, RuntimeError) as error:
            raise ClusterError(f"{least} workers on this machine did not start: {error}") from error
    with cluster:
        # Also where the number is fixed, because a nanny whose worker is killed while it starts gives up, and nobody else
        # starts another.
        cluster.adapt(minimum=least, maximum=most)
        with Client(cluster) as client:
            yield client


def _settings(workers: int) -> dict[str, Any]:
    """How workers on this machine are started."""
    from rtsx.model.allocator import KEEPING  # loads torch, which a client of other machines does not need

    # The network has the cores of its worker to itself: a process runs one at a time.
    threads = max(1, CPU_COUNT // workers)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        # A lost worker is told at once, instead of after three silent attempts, because a campaign has its own attempts.
        "distributed.scheduler.allowed-failures": 0,
        # Instead of handing memory back at every pass of the network, which takes longer than the pass itself with large tiles.
        "distributed.nanny.pre-spawn-environ": {**KEEPING, **dict.fromkeys(names, threads)},
        # So a worker holds its peak, which was reckoned before it started: it must not be paused for that, and dask has nothing to
        # move to disk. What outgrows its limit is still ended.
        **{f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")},
    }


@contextmanager
def scheduler_client(spec: ClusterSpec) -> Iterator[Client]:
    """A client of a scheduler that runs already, and goes on after it.

    Raises
    ------
    ClusterError
        It does not answer.
    """
    try:
        client = Client(spec.scheduler, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"No scheduler answers at {spec.scheduler!r} within {CONNECT_S:.0f} s ({error}). Give an address such as "
            "tcp://10.0.0.1:8786, as the scheduler prints it, that this machine can reach."
        ) from error
    with client:
        yield client
