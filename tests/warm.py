"""Processes that start in a moment: forked from one that has loaded the libraries, because a test that kills twenty would load them
for most of its time."""

import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import dask
from distributed.utils import get_mp_context

_FORKED = {"distributed.worker.multiprocessing-method": "forkserver"}
with dask.config.set(_FORKED):
    _CONTEXT = get_mp_context()  # of dask, which names what is to be loaded once; ours replaces that
_CONTEXT.set_forkserver_preload(
    [
        *(
            "pytest",
            "tests.campaign.flights",
            "dask.cli",
            "distributed.cli.dask_scheduler",
            "distributed.cli.dask_worker",
            "s3fs",
            "aiobotocore.session",
        ),
        *("rtsx.cli.campaign", "rtsx.config.campaign", "rtsx.campaign.campaign", "rtsx.campaign.run"),
        *("rtsx.campaign.cell_task", "rtsx.campaign.planning", "rtsx.cube.resample.kernels", "rtsx.model.exported"),
    ]
)


@contextmanager
def workers() -> Iterator[None]:
    """Let workers of dask start so too, but with the environment of the first of them."""
    with dask.config.set(_FORKED):
        yield


def start(entry: str, arguments: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> BaseProcess:
    """Start a program of this environment in a process of its own.

    Parameters
    ----------
    entry
        Its entry point, such as ``"rtsx.cli:main"``.
    arguments
        Its command line, the name of the program first.
    log
        File that what it says is added to.
    environment
        Further variables of its environment.
    """
    process = _CONTEXT.Process(target=_run, args=(entry, list(arguments), str(log), dict(environment)), daemon=True)
    process.start()
    return process


def _run(entry: str, arguments: list[str], log: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    said = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(said, stream)
    os.close(said)
    sys.argv = arguments
    module, function = entry.split(":")
    getattr(importlib.import_module(module), function)()
