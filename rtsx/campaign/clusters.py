"""The cluster of a campaign: a client of workers on this machine, of a scheduler or of a dask-gateway; and checks of its workers.

Workers that come later are checked, too: for the versions of the libraries that make the bytes, for memory, and for their hardware.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import dask
from dask.system import CPU_COUNT
from dask.utils import format_bytes
from distributed import Client, LocalCluster, Reschedule, Worker, WorkerPlugin, get_worker
from distributed.comm.addressing import parse_address
from distributed.comm.registry import get_backend

from rtsx.campaign.recipe import ClusterSpec
from rtsx.campaign.records import Failure, hardware_name, versions_here
from rtsx.errors import ClusterError, MissingExtraError
from rtsx.storage.retry import LOST_GPU

if TYPE_CHECKING:
    from dask_gateway import Gateway, GatewayCluster
    from dask_gateway.auth import GatewayAuth


def connect_cluster(spec: ClusterSpec) -> "AbstractContextManager[Client]":
    """Connect a client to the cluster; what was started for it is shut down at the end, after an error and Ctrl-C as well.

    Raises
    ------
    ClusterError
        The cluster cannot be reached or started, or does not know what is asked for.
    MissingExtraError
        dask-gateway is asked for and not installed.
    """
    return {"gateway": gateway_client, "scheduler": scheduler_client, "local": local_client}[spec.kind](spec)


CONNECT_S = 20.0
"""Seconds in which a scheduler has to respond."""
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
    """Start worker processes on this machine, which end with the client; where there are several GPUs, each worker sees one.

    Raises
    ------
    ClusterError
        The processes do not start.
    """
    gpus = _gpus()
    shared = len(gpus) > 1
    workers = spec.workers or max(1, len(gpus))
    least, most = spec.adapt or (workers, workers)
    kind: Any = _GpuCluster if shared else LocalCluster
    settings = _settings(most)
    # Until the end, because a worker that comes later is started as the settings are then.
    with _environment_restored([*settings[_FOR_WORKERS], "PYTHONHASHSEED"]), dask.config.set(settings):
        try:
            cluster = kind(
                n_workers=0 if shared else least,
                threads_per_worker=spec.threads or 1,
                memory_limit="auto" if spec.memory_bytes is None else spec.memory_bytes,
                processes=True,
                dashboard_address="127.0.0.1:0",
                preload=[_PRELOAD],
                # What counts is shown by failures; what dask says of its own comings and goings is for who looks for a defect.
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
        for name in before:
            os.environ.pop(name, None)
        os.environ.update({name: value for name, value in before.items() if value is not None})


class _GpuCluster(LocalCluster):
    """Workers that see one GPU each, because a process takes the first that it sees."""

    gpus: Sequence[str] = ()
    """As CUDA_VISIBLE_DEVICES names them; set before a worker is asked for."""

    def new_worker_spec(self) -> dict[Any, Any]:
        """Return name and spec of the next worker, which gets the GPU that the fewest have."""
        ((name, spec),) = super().new_worker_spec().items()  # type: ignore[no-untyped-call]  # distributed is not typed
        taken = Counter(one["options"]["env"]["CUDA_VISIBLE_DEVICES"] for one in self.worker_spec.values())
        gpu = min(self.gpus, key=lambda gpu: taken[gpu])
        options = spec["options"]
        own = {
            "env": {**(options.get("env") or {}), "CUDA_VISIBLE_DEVICES": gpu},
            "resources": {"GPU": options["nthreads"]},
        }
        return {name: {**spec, "options": {**options, **own}}}


def worker_environments(workers: int, *, gpus: bool) -> list[dict[str, str]]:
    """Return variables of the environment for each of several worker processes on this machine, which share its processors.

    Parameters
    ----------
    workers
        Processes.
    gpus
        Whether each has a GPU of its own.

    Raises
    ------
    ClusterError
        This machine has fewer GPUs.
    """
    shared = {name: str(value) for name, value in _settings(workers)[_FOR_WORKERS].items()}
    if not gpus:
        return [shared] * workers
    found = _gpus()
    if len(found) < workers:
        raise ClusterError(
            f"This machine has {len(found)} GPUs that torch can use; got {workers} to run on. Ask for fewer."
        )
    return [{**shared, "CUDA_VISIBLE_DEVICES": gpu} for gpu in found[:workers]]


def _gpus() -> list[str]:
    """Return GPUs of this machine that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch  # heavy, and a client of other machines does not need it

    named = (os.environ.get("CUDA_VISIBLE_DEVICES") or "").split(",")
    if named[0].startswith("MIG-"):  # slices, of which CUDA counts the first alone
        return named
    count = torch.cuda.device_count()
    return (named if named[0] else [str(number) for number in range(count)])[:count]


def _settings(workers: int) -> dict[str, Any]:
    """Return how workers on this machine are started."""
    from rtsx.model.allocator import KEEPING  # loads torch, which a client of other machines does not need

    # The network has the cores of its worker to itself: a process runs one at a time.
    threads = max(1, CPU_COUNT // workers)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        # A lost worker is reported at once, instead of after three silent attempts, because a campaign has its own attempts.
        "distributed.scheduler.allowed-failures": 0,
        # Instead of handing memory back at every pass of the network, which takes longer than the pass itself with large tiles.
        _FOR_WORKERS: {**KEEPING, **dict.fromkeys(names, threads)},
        # So a worker holds its peak, which was estimated before it started: it must not be paused for that, and dask has nothing to
        # move to disk. What outgrows its limit is still ended.
        **{f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")},
    }


@contextmanager
def scheduler_client(spec: ClusterSpec) -> Iterator[Client]:
    """Connect to a scheduler that runs already, and goes on after it.

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


@contextmanager
def gateway_client(spec: ClusterSpec) -> Iterator[Client]:
    """Start a new cluster of a gateway; the cluster ends with the client.

    Raises
    ------
    ClusterError
        The gateway does not answer, does not let us in, has no such profile or option, or starts no cluster.
    MissingExtraError
        dask-gateway is not installed.
    """
    try:
        from dask_gateway import Gateway
    except ImportError as error:
        raise MissingExtraError("A gateway needs dask-gateway: pip install 'rtsx[gateway]'.") from error

    with _gateway_failures(spec, "reached"):
        gateway = Gateway(spec.gateway, auth=_auth_of(spec))
    with _closing(gateway):
        with _gateway_failures(spec, "asked for its options"):
            options = gateway.cluster_options()
            _choose(spec, options)
        with _gateway_failures(spec, "asked for a cluster"):
            cluster = _new_cluster(gateway, options)
        with _closing(cluster.gateway), cluster:
            with _gateway_failures(spec, "asked for workers"):
                if spec.adapt is None:
                    cluster.scale(spec.workers)
                else:
                    cluster.adapt(minimum=spec.adapt[0], maximum=spec.adapt[1])
                client = cluster.get_client()
            with client:
                yield client


def _new_cluster(gateway: "Gateway", options: Any) -> "GatewayCluster":
    """Start a cluster, in two steps, so that Ctrl-C on the way leaves none behind that nobody knows of."""
    name = gateway.submit(options)
    try:
        return gateway.connect(name, shutdown_on_close=True)
    except BaseException:
        gateway.stop_cluster(name)
        raise


@contextmanager
def _closing(gateway: "Gateway") -> Iterator[None]:
    """Close the connections of a gateway at the end, for good."""
    try:
        yield
    finally:
        gateway.close()
        # Or it closes itself once more when it is collected, and fails, because its loop is gone by then.
        gateway._asynchronous = True


def _choose(spec: ClusterSpec, options: Any) -> None:
    """Set the options that are asked for."""
    asked = dict(spec.options) if spec.profile is None else {**spec.options, "profile": spec.profile}
    for name, value in asked.items():
        if name not in options:
            raise ClusterError(
                f"The gateway at {spec.gateway} has no option {name!r}; it has {', '.join(options) or 'none'}."
            )
        try:
            options[name] = value
        except (TypeError, ValueError) as error:
            raise ClusterError(f"The gateway at {spec.gateway} does not take {name}={value!r}: {error}") from error


def _auth_of(spec: ClusterSpec) -> "GatewayAuth | None":
    """Return who we are; None leaves it to dask's configuration."""
    from dask_gateway import BasicAuth, JupyterHubAuth
    from dask_gateway.auth import KerberosAuth

    kind = spec.auth or ("basic" if "DASK_GATEWAY_PASSWORD" in os.environ else None)
    if kind == "basic":
        return BasicAuth(os.environ.get("DASK_GATEWAY_USER"), os.environ.get("DASK_GATEWAY_PASSWORD"))
    if kind == "jupyterhub":
        if "JUPYTERHUB_API_TOKEN" not in os.environ:
            raise ClusterError("auth jupyterhub takes its token from JUPYTERHUB_API_TOKEN, which is not set.")
        return JupyterHubAuth()
    return KerberosAuth() if kind == "kerberos" else None


@contextmanager
def _gateway_failures(spec: ClusterSpec, what: str) -> Iterator[None]:
    """Raise the errors of a gateway in words that say what to do."""
    from aiohttp import ClientError, ClientResponseError  # which comes with dask-gateway

    try:
        yield
    except ClusterError:
        raise
    except ClientResponseError as error:
        if error.status in (401, 403):
            raise ClusterError(
                f"The gateway at {spec.gateway} does not let us in (HTTP {error.status}). Set DASK_GATEWAY_USER and "
                "DASK_GATEWAY_PASSWORD, or JUPYTERHUB_API_TOKEN with auth jupyterhub."
            ) from error
        raise ClusterError(f"The gateway at {spec.gateway} was {what} and answered HTTP {error.status}.") from error
    except (ClientError, OSError, TimeoutError) as error:
        raise ClusterError(
            f"The gateway at {spec.gateway} cannot be reached ({type(error).__name__}: {error}). Look at the URL, and whether "
            "it answers from this machine."
        ) from error
    except Exception as error:  # the gateway's own errors have no common base but this
        raise ClusterError(f"The gateway at {spec.gateway} was {what} and refused: {error}") from error


GUARD = "rtsx-environment"
"""Name of the plugin that looks at workers that come later."""
_guarded: WeakSet[Client] = WeakSet()
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
        """Return versions that are others, in words."""
        return [
            f"has {name} {versions.get(name, 'missing')} instead of {wanted}"
            for name, wanted in self.versions.items()
            if versions.get(name, "missing") != wanted
        ]


def require_environment(client: Client, needs: WorkerRequirements) -> None:
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
        raise _unreachable("The scheduler", error) from error
    for address, offer in sorted(client.run(_offer, needs, on_error="return").items()):
        if isinstance(offer, BaseException):
            raise _unreachable(f"Worker {address}", offer) from offer
        lacking[f"worker {address}"] = needs.lacking(offer)
    wrong = [f"- {who} {what}" for who, what in lacking.items() if what]
    if wrong:
        problems = "\n".join(wrong[:10]) + (f"\n... and {len(wrong) - 10} more" if len(wrong) > 10 else "")
        raise ClusterError(
            f"The cluster is not fit to run what this machine planned:\n{problems}\nGive all machines one environment, such as one "
            "container image, and workers enough memory or fewer threads, and one kind of device."
        )
    client.register_plugin(MemoryMonitorPlugin(needs, topic=refusals_topic(client)), name=GUARD)
    _guarded.add(client)


def release_environment(client: Client) -> None:
    """Let workers of any kind join again; nothing happens where they may."""
    if client in _guarded:
        _guarded.discard(client)
        # A worker that leaves at this moment, or has come without the guard, must not hide why a run ends.
        with suppress(KeyError, OSError):
            client.unregister_worker_plugin(GUARD)


def refusals_topic(client: Client) -> str:
    """Return the topic of the scheduler's events at which workers that were sent away say why."""
    return f"{GUARD}-{client.id}"


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
    if not LOST_GPU.search(failure.message):
        return
    worker = get_worker()
    if worker.nanny is not None and not _unfit:
        _unfit.append(f"has a GPU that failed: {failure.message}")
        _log.error("This worker %s. Another process takes its place.", _unfit[0])
        worker.loop.add_callback(worker.close_gracefully, restart=True, reason=_unfit[0])


def _unreachable(who: str, error: BaseException) -> ClusterError:
    return ClusterError(
        f"{who} cannot say which libraries it has ({type(error).__name__}: {error}). All machines of a campaign need rtsx in "
        "the version of the client, such as from one container image."
    )


def _offer(needs: WorkerRequirements, dask_worker: Worker) -> WorkerResources:
    slots = int(dask_worker.state.total_resources.get("GPU", 0)) or dask_worker.state.nthreads
    hardware = (hardware_name(needs.device, *needs.backends) or "CPU") if needs.hardware else ""
    return WorkerResources(versions_here(), int(dask_worker.memory_manager.memory_limit or 0), slots, hardware)
