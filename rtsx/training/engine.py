"""Devices, processes and precision by Lightning.

Fabric, instead of its Trainer, because a resumed training has to equal an uninterrupted one bit by bit: the loop, the seeds and
the checkpoints are ours, and Fabric says where a step runs and how processes share it.
"""

import logging
import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from torch.multiprocessing.spawn import ProcessException

from rtsx.errors import RtsxError, TrainingError
from rtsx.training.dataset import from_shared, to_shared
from rtsx.training.run_log import Progress, ShowProgress

_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Variables by which torch's two ways of talking are given an interface; they would take that of the machine's own name."""
_PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}

_Plan = TypeVar("_Plan")
Work = Callable[[Fabric, _Plan, ShowProgress | None], None]
"""What runs in every process, with its share of the plan; a function of a module, so that other processes find it."""


def launch(
    work: Work[_Plan], plan: _Plan, *, device: torch.device, devices: int, precision: str, show: ShowProgress | None
) -> None:
    """Run some work on one device in this process, or on several in a process each.

    Several processes are started anew, so they import the main module: a script has to keep what it does behind
    ``if __name__ == "__main__"``.

    Raises
    ------
    RtsxError
        What the work raised.
    TrainingError
        A process died.
    """
    with _quiet(), _same_environment(), to_shared((work, plan)) if devices > 1 else nullcontext("") as parcel:
        fabric = Fabric(
            accelerator=device.type,
            devices=[device.index or 0] if device.type == "cuda" and devices == 1 else devices,
            strategy=_LocalDDP(f"{parcel}-meeting") if devices > 1 else "auto",
            precision=cast("Any", _PRECISIONS[precision]),
            # Said, because a guess from variables of SLURM and others would start what was not asked for.
            plugins=[LightningEnvironment()],
        )
        if devices == 1:
            fabric.launch(cast("Any", work), plan, show)
        else:
            _launch_several(fabric, parcel, show=show)


def _launch_several(fabric: Fabric, parcel: str, *, show: ShowProgress | None) -> None:
    context = torch.multiprocessing.get_context("spawn")
    shown, is_enough = context.SimpleQueue(), context.Event()
    listener = _Listener(shown, is_enough, show)
    try:
        fabric.launch(cast("Any", _in_new_process), parcel, (shown, is_enough) if show else None)
    except ProcessException as error:
        listener.close()
        listener.raise_failure()
        failure = _failure_file(parcel, error.error_index)
        if failure.is_file():
            raise pickle.loads(failure.read_bytes()) from error
        raise TrainingError(f"A process of the training ended early: {error}") from error
    finally:
        listener.close()
    listener.raise_failure()


def _in_new_process(fabric: Fabric, parcel: str, listener: tuple[Any, Any] | None) -> None:
    work, plan = from_shared(parcel)

    def show(moment: Progress) -> None:
        assert listener is not None, "or it would not be called"
        shown, is_enough = listener
        if is_enough.is_set():
            raise TrainingError("The training was stopped by whoever is shown its progress.")
        shown.put(moment)

    try:
        work(fabric, plan, show if listener is not None and fabric.is_global_zero else None)
    except RtsxError as error:
        # Through a file, because processes pass no exceptions on, but texts of theirs.
        _failure_file(parcel, fabric.global_rank).write_bytes(pickle.dumps(error))
        raise
    finally:
        torch.distributed.destroy_process_group()


def _failure_file(parcel: str, rank: int) -> Path:
    return Path(f"{parcel}-failure-{rank}")


class _Listener:
    """Shows in this process what another one reports; `is_enough` is set when that has failed."""

    def __init__(self, queue: Any, is_enough: Any, show: ShowProgress | None) -> None:
        self._queue = queue
        self._is_enough = is_enough
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._listen, args=(show,), daemon=True) if show else None
        if self._thread:
            self._thread.start()

    def _listen(self, show: ShowProgress) -> None:
        while (progress := cast("Progress | None", self._queue.get())) is not None:
            try:
                if self._failure is None:
                    show(progress)
            except BaseException as error:  # raised in the caller's thread
                self._failure = error
                self._is_enough.set()

    def close(self) -> None:
        """Wait until everything was shown; the second time nothing."""
        if self._thread:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


class _LocalDDP(DDPStrategy):
    """Processes of this machine that do not announce themselves, and whom no other machine can reach.

    Parameters
    ----------
    meeting
        Path of a file that they find each other by, instead of a port, at which torch listens for all the world.
    """

    def __init__(self, meeting: str) -> None:
        super().__init__(start_method="spawn", static_graph=True)
        self._meeting = meeting

    def setup_environment(self) -> None:
        has_gpu = self.root_device.type == "cuda"
        torch.distributed.init_process_group(
            "nccl" if has_gpu else "gloo",
            init_method=f"file://{self._meeting}",
            rank=self.local_rank,
            world_size=self.num_processes,
            device_id=self.root_device if has_gpu else None,
        )
        with _quiet():
            super().setup_environment()  # takes the group that is there


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's tips and announcements off, its warnings on."""
    # Both, because whichever was imported last speaks for the other.
    loggers = [logging.getLogger(name) for name in ("lightning.fabric", "lightning.pytorch")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def _same_environment() -> Iterator[None]:
    """Let processes talk by loopback unless the caller has said by what, and take back what Lightning sets."""
    names = ("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", *_INTERFACES)
    before = {name: os.environ[name] for name in names if name in os.environ}
    try:
        for name in _INTERFACES:
            os.environ.setdefault(name, next(one for _, one in socket.if_nameindex() if one.startswith("lo")))
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)
