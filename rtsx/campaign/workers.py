"""Checks of a cluster and of workers that come later: versions of the libraries that make the bytes, and memory."""

import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from weakref import WeakSet

from dask.utils import format_bytes
from distributed import Client, Reschedule, Worker, WorkerPlugin, get_worker

from rtsx.campaign.records import Failure, hardware_name, versions_here
from rtsx.errors import ClusterError

GUARD = "rtsx-environment"
"""Name of the plugin that looks at workers that come later."""
_guarded: "WeakSet[Client]" = WeakSet()
"""Clients whose cluster has that plugin. Remembered here, because a scheduler logs an error when asked to drop one it has not."""


@dataclass(frozen=True)
class WorkerResources:
    """What a worker has."""

    versions: Mapping[str, str]
    """Versions of its libraries."""
    memory_bytes: int
    """Memory that it may use, bytes; 0 where nothing bounds it."""
    slots: int
    """Cells that it would run at a time."""
    hardware: str = ""
    """What would run its networks, see `Hardware`; empty where nobody asks."""


@dataclass(frozen=True)
class WorkerRequirements:
    """What a worker has to have."""

    versions: Mapping[str, str]
    """Versions of its libraries."""
    memory_bytes: int
    """Memory of one cell, bytes."""
    device: str = "cpu"
    """Where the networks run, as the recipe says."""
    backends: tuple[str, ...] = ()
    """What runs them."""
    hardware: str = ""
    """What that has to be: a card by its name, or "GPU" for any. Empty where it does not matter."""

    def lacking(self, offer: WorkerResources) -> str:
        """Describe what is wrong with a worker; empty where nothing is.

        Examples
        --------
        >>> needs = WorkerRequirements({"zarr": "3.1.6"}, 4 * 2**30)
        >>> needs.lacking(WorkerResources({"zarr": "3.1.5"}, 6 * 2**30, slots=2))
        'has zarr 3.1.5 instead of 3.1.6; has 6.00 GiB for 2 cells at a time, which need 8.00 GiB'
        >>> needs.lacking(WorkerResources({"zarr": "3.1.6"}, 6 * 2**30, slots=1))
        ''
        """
        wrong = self.differing(offer.versions)
        needed = self.memory_bytes * offer.slots
        if offer.memory_bytes and needed > offer.memory_bytes:
            cells = f"{offer.slots} cell{'s' * (offer.slots > 1)} at a time, which need{'s' * (offer.slots == 1)}"
            wrong.append(f"has {format_bytes(offer.memory_bytes)} for {cells} {format_bytes(needed)}")
        if self.hardware and offer.hardware != self.hardware and (self.hardware != "GPU" or offer.hardware == "CPU"):
            wrong.append(f"would compute with {offer.hardware} instead of {self.hardware}")
        return "; ".join(wrong)

    def differing(self, versions: Mapping[str, str]) -> list[str]:
        """Versions that are others, in words."""
        return [
            f"has {name} {versions.get(name, 'missing')} instead of {wanted}"
            for name, wanted in self.versions.items()
            if versions.get(name, "missing") != wanted
        ]


def require_environment(client: "Client", needs: WorkerRequirements) -> None:
    """Refuse a cluster that would make other bytes than this process, or run out of memory.

    Workers that come later are looked at before they run a task, and sent away if they do not fit, until
    `release_environment` is called or a run ends.

    Parameters
    ----------
    client
        Of the cluster; it may have no worker yet.
    needs
        What every worker has to have: the versions that `versions_here` gives on the client, and memory for as many cells as
        it has GPUs, or threads where it has none.

    Raises
    ------
    ClusterError
        The scheduler or a worker has other versions or too little memory, or cannot say; names all that differ.
    """
    try:
        lacking = {"the scheduler": "; ".join(needs.differing(client.run_on_scheduler(versions_here)))}
    except Exception as error:  # whatever importing our package may raise over there
        raise _no_answer("The scheduler", error) from error
    for address, offer in sorted(client.run(_offer, needs, on_error="return").items()):
        if isinstance(offer, BaseException):
            raise _no_answer(f"Worker {address}", offer) from offer
        lacking[f"worker {address}"] = needs.lacking(offer)
    wrong = [f"- {who} {what}" for who, what in lacking.items() if what]
    if wrong:
        told = "\n".join(wrong[:10]) + (f"\n... and {len(wrong) - 10} more" if len(wrong) > 10 else "")
        raise ClusterError(
            f"The cluster is not fit to run what this machine planned:\n{told}\nGive all machines one environment, such as one "
            "container image, and workers enough memory or fewer threads, and one kind of device."
        )
    client.register_plugin(MemoryMonitorPlugin(needs, topic=refusals_topic(client)), name=GUARD)
    _guarded.add(client)


def release_environment(client: "Client") -> None:
    """Let workers of any kind join again; nothing happens where they may."""
    if client in _guarded:
        _guarded.discard(client)
        # A worker that leaves at this moment, or has come without the guard, must not hide why a run ends.
        with suppress(KeyError, OSError):
            client.unregister_worker_plugin(GUARD)


def refusals_topic(client: "Client") -> str:
    """Topic of the scheduler's events at which workers that were sent away say why."""
    return f"{GUARD}-{client.id}"


_log = logging.getLogger(__name__)
_BROKEN_GPU = re.compile(r"CUDA error(?!: out of memory)")
"""What torch says when a kernel, or the card, has failed: the context of the process is lost with it."""
_unfit: list[str] = []
"""What is wrong with this process, where a guard has found something."""


class MemoryMonitorPlugin(WorkerPlugin):
    """Sends away workers that do not fit, as they come."""

    def __init__(self, needs: WorkerRequirements, *, topic: str) -> None:
        self._needs = needs
        self._topic = topic

    def setup(self, worker: Worker) -> None:
        """Look at a worker that has just come."""
        _unfit.clear()
        lacking = self._needs.lacking(_offer(self._needs, worker))
        if lacking:
            _unfit.append(lacking)
            _log.error("This worker %s, so it leaves. Give it the environment of the client.", lacking)
            worker.log_event(self._topic, f"worker {worker.address} {lacking}")
            # In the background, because a worker that is still starting cannot tell its nanny that it leaves.
            worker.loop.add_callback(worker.close_gracefully, reason=lacking)

    def teardown(self, worker: Worker) -> None:
        """Forget what was found."""
        _unfit.clear()


def require_workers() -> None:
    """Hand the task that calls this to another worker, where this one was found unfit and is on its way out.

    Raises
    ------
    Reschedule
        It is; a scheduler understands that.
    """
    if _unfit:
        raise Reschedule(_unfit[0])


def replace_worker_after(failure: Failure) -> None:
    """Let the nanny of this worker start another process where CUDA failed in a way that fails everything after it.

    Nothing happens where there is no nanny. Cells that this process still takes are handed to others.
    """
    if not _BROKEN_GPU.search(failure.message):
        return
    worker = get_worker()
    if worker.nanny is not None and not _unfit:
        _unfit.append(f"has a GPU that failed: {failure.message}")
        _log.error("This worker %s. Another process takes its place.", _unfit[0])
        worker.loop.add_callback(worker.close_gracefully, restart=True, reason=_unfit[0])


def _no_answer(who: str, error: BaseException) -> ClusterError:
    return ClusterError(
        f"{who} cannot say which libraries it has ({type(error).__name__}: {error}). All machines of a campaign need rtsx in "
        "the version of the client, such as from one container image."
    )


def _offer(needs: WorkerRequirements, dask_worker: Worker) -> WorkerResources:
    slots = int(dask_worker.state.total_resources.get("GPU", 0)) or dask_worker.state.nthreads
    hardware = (hardware_name(needs.device, *needs.backends) or "CPU") if needs.hardware else ""
    return WorkerResources(versions_here(), int(dask_worker.memory_manager.memory_limit or 0), slots, hardware)
