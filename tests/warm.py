"""Processes that start in a moment: forked from one that has loaded the libraries, because a test that kills twenty would load them
for most of its time."""

import gc
import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

import dask
import pytest
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


@contextmanager
def pools() -> Iterator[None]:
    """Let processes start so that are otherwise spawned: of pools, and of dask."""
    plain = multiprocessing.get_context
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            multiprocessing, "get_context", lambda method=None: _CONTEXT if method == "spawn" else plain(method)
        )
        yield


def share(log: Path) -> None:
    """Start the server now, for all processes that are forked from this one: otherwise each starts its own."""
    streams = [os.dup(1), os.dup(2)]
    _say([str(log), str(log)])
    forkserver.ensure_running()
    for stream, kept in enumerate(streams, start=1):
        os.dup2(kept, stream)
        os.close(kept)
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined]  # it is looked for among their children


def run(script: str, arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run a script in a process of its own, as `python -c` would, and return what it said."""
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder, name) for name in ("out", "err")]
        process = _CONTEXT.Process(target=_execute, args=(script, list(arguments), [str(path) for path in said]))
        process.start()
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(arguments, process.exitcode, *(path.read_text() for path in said))


def start(
    entry: str, arguments: Sequence[str], *, log: Path, environment: Mapping[str, str], daemon: bool = True
) -> BaseProcess:
    """Start a program of this environment in a process of its own, which leads a group.

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
    daemon
        Whether it ends with this process, and may not start others.
    """
    process = _CONTEXT.Process(target=_run, args=(entry, list(arguments), str(log), dict(environment)), daemon=daemon)
    process.start()
    return process


def _run(entry: str, arguments: list[str], log: str, environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.update(environment)
    dask.config.refresh()
    _say([log, log])
    sys.argv = arguments
    module, function = entry.split(":")
    getattr(importlib.import_module(module), function)()


def _execute(script: str, arguments: list[str], said: list[str]) -> None:
    _say(said)
    sys.argv = ["-c", *arguments]
    exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})


def _say(paths: list[str]) -> None:
    gc.freeze()  # what was imported stays, and need not be looked at again
    for stream, path in enumerate(paths, start=1):
        said = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(said, stream)
        os.close(said)
