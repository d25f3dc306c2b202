"""A client of workers on this machine, or of a scheduler that runs already."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster
from distributed.comm.addressing import parse_address
from distributed.comm.registry import get_backend

from rtsx.campaign.cluster_spec import ClusterSpec
from rtsx.errors import ClusterError

__all__ = ["local_client", "scheduler_client"]

CONNECT_S = 20.0
"""Seconds in which a scheduler has to answer."""
_log = logging.getLogger(__name__)
_PRELOAD = """
import atexit
import logging
import os
import signal

def dask_setup(worker):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    atexit.register(end)

def end():
    logging.shutdown()
    os._exit(0)
"""
"""What a worker on this machine does first. A terminal sends Ctrl-C to it too, but the client ends it, once it is no longer needed
for an end in good order. Then it is gone at once, instead of taking its libraries apart, which takes longer than its nanny waits."""

_FOR_WORKERS = "distributed.nanny.pre-spawn-environ"
"""dask's setting of variables that a worker is started with."""


@contextmanager
def local_client(spec: ClusterSpec) -> Iterator[Client]:
    """A client of worker processes on this machine, which end with it; where there are several GPUs, each worker sees one.

    Raises
    ------
    ClusterError
        The processes do not start.
    """
    least, most = spec.adapt or (spec.workers or 1, spec.workers or 1)
    gpus = _gpus()
    shared = len(gpus) > 1
    kind: Any = _GpuCluster if shared else LocalCluster
    settings = _settings(most)
    # Until the end, because a worker that comes later is started as the settings are then.
    with _environment_restored([*settings[_FOR_WORKERS], "PYTHONHASHSEED"]), dask.config.set(settings):
        try:
            cluster = kind(
                n_workers=0 if shared else least,
                threads_per_worker=spec.threads,
                memory_limit="auto" if spec.memory_bytes is None else spec.memory_bytes,
                processes=True,
                dashboard_address="127.0.0.1:0",
                preload=[_PRELOAD],
                # What counts is told by failures; what dask says of its own comings and goings is for who looks for a defect.
                silence_logs=logging.WARNING if _log.isEnabledFor(logging.DEBUG) else logging.CRITICAL,
            )
        except (OSError, RuntimeError) as error:
            raise ClusterError(f"{least} workers on this machine did not start: {error}") from error
        if isinstance(cluster, _GpuCluster):
            cluster.gpus = gpus
        with cluster:
            # Also where the number is fixed, because a nanny whose worker is killed while it starts gives up, and nobody else
            # starts another.
            cluster.adapt(minimum=least, maximum=most)
            with Client(cluster) as client:
                yield client


@contextmanager
def _environment_restored(names: Iterable[str]) -> Iterator[None]:
    """Put variables of the environment back, because distributed sets those of its workers in this process and leaves them."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _GpuCluster(LocalCluster):
    """Workers that see one GPU each, because a process takes the first that it sees."""

    gpus: Sequence[str] = ()
    """As CUDA_VISIBLE_DEVICES names them; set before a worker is asked for."""

    def new_worker_spec(self) -> dict[Any, Any]:
        """Name and spec of the next worker, which gets the GPU that the fewest have."""
        ((name, spec),) = super().new_worker_spec().items()  # type: ignore[no-untyped-call]  # distributed is not typed
        taken = Counter(one["options"]["env"]["CUDA_VISIBLE_DEVICES"] for one in self.worker_spec.values())
        gpu = min(self.gpus, key=lambda gpu: taken[gpu])
        options = spec["options"]
        own = {
            "env": {**(options.get("env") or {}), "CUDA_VISIBLE_DEVICES": gpu},
            "resources": {"GPU": options["nthreads"]},
        }
        return {name: {**spec, "options": {**options, **own}}}


def _gpus() -> list[str]:
    """GPUs of this machine that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch  # heavy, and a client of other machines does not need it

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (named.split(",") if named else [str(number) for number in range(count)])[:count]


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
        _FOR_WORKERS: {**KEEPING, **dict.fromkeys(names, threads)},
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
        get_backend(parse_address(str(spec.scheduler))[0])  # first, because a client that fails at this is never closed
        # Not everybody's default, because a client that cannot connect does not take back that all is computed through it.
        client = Client(spec.scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"No scheduler answers at {spec.scheduler!r} within {CONNECT_S:.0f} s ({error}). Give an address such as "
            "tcp://10.0.0.1:8786, as the scheduler prints it, that this machine can reach."
        ) from error
    with client:
        yield client
