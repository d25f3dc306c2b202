"""What a worker process states of itself, and exceptions as failures that travel."""

import os
import resource
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Literal

import psutil

from rtsx.campaign.cells import Address
from rtsx.campaign.lease import LeaseTaken
from rtsx.campaign.records import Failure
from rtsx.campaign.task_queue import CellResult
from rtsx.redaction import redacted
from rtsx.storage.retry import classify_error


def worker_name() -> str:
    """Address of the dask worker that this thread belongs to, else host and process."""
    distributed = sys.modules.get("distributed")  # where there is a worker, somebody has imported it
    if distributed is not None:
        try:
            return str(distributed.get_worker().address)
        except ValueError:
            pass
    return f"{socket.gethostname()}-{os.getpid()}"


class PeakMemory:
    """Greatest resident memory of this process since a moment.

    The system keeps the greatest ever, which is exact where it has risen since; else the greatest of some samples.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._greatest_ever()
        self._sampled = 0
        self.sample()

    def sample(self) -> None:
        """Look now."""
        self._sampled = max(self._sampled, int(self._process.memory_info().rss))

    @property
    def n_bytes(self) -> int:
        """The greatest so far, bytes."""
        now = self._greatest_ever()
        return now if now > self._before else self._sampled

    @staticmethod
    def _greatest_ever() -> int:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


_TRACEBACK = 20_000
"""Characters of a traceback that are kept, the last ones, because outcomes travel."""


def record_failure(error: Exception, *, cell: Address, attempt: int, run: str) -> Failure:
    """Record an error in a task of a cell, with its traceback.

    Parameters
    ----------
    error
        What was raised.
    cell
        Whose task.
    attempt
        The how-manieth time in this run.
    run
        Id of the run.

    Examples
    --------
    >>> failure = record_failure(ConnectionResetError("gone"), cell=(0, 1), attempt=2, run="a")
    >>> failure.kind, failure.error, failure.message, failure.attempts
    ('passing', 'ConnectionResetError', 'gone', 2)
    """
    return Failure(
        cell=cell,
        kind=classify_error(error),
        error=type(error).__name__,
        message=redacted(str(error)),
        traceback=redacted("".join(traceback.format_exception(error)))[-_TRACEBACK:],
        attempts=attempt,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        run=run,
        worker=worker_name(),
    )


def cell_result(
    work: Callable[[Address, str], Literal["done", "skipped"]],
    cell: Address,
    *,
    attempt: int,
    run: str,
    hardware: str = "",
) -> CellResult:
    """Run the work on a cell; whatever it raises becomes part of the result, as everywhere in a campaign."""
    began = perf_counter()
    try:
        result = CellResult(cell=cell, state=work(cell, run))
    except LeaseTaken as leased:
        result = CellResult(cell=cell, state="leased", free_after_s=leased.free_after_s)
    except Exception as error:
        failure = record_failure(error, cell=cell, attempt=attempt, run=run)
        result = CellResult(cell=cell, state="failed", failure=failure)
    return replace(result, seconds=perf_counter() - began, hardware=hardware)
