"""Records of a campaign: the commit record, which alone states that a cell is done, why one is not, and what a run took.

Also what a process states of itself in them: its name, its libraries, and what runs its networks.
"""

import os
import platform
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Self

from rtsx import __version__
from rtsx.campaign.cells import Address
from rtsx.errors import CampaignError
from rtsx.names import version_of
from rtsx.pages import render_text
from rtsx.parsing import Moment, StoredRecord
from rtsx.redaction import redacted
from rtsx.storage.retry import FailureKind, classify_error


@dataclass(frozen=True, order=True)
class InputVersion:
    """One image that a cell was made of, so that a later run sees whether it is another one now."""

    source: str
    """Name of the source in the recipe."""
    image: str
    """Id of the image."""
    stamp: str
    """Digest of what says that its content changed: a checksum, an ETag, a time of change and a size."""


@dataclass(frozen=True, kw_only=True)
class CommitRecord(StoredRecord):
    """What a cell has written, from what, by whom and at which cost."""

    what = "This is no commit mark"
    raises = CampaignError

    cell: Address
    """Row and column of the cell."""
    plan_digest: str
    """Digest of the plan that it was run by."""
    state: Literal["mapped", "empty"]
    """Mapped, or without any image or valid pixel, so that nothing was written."""
    objects: Mapping[str, str]
    """SHA-256 of every object by its key, relative to the output. Shards of nothing but nodata are not stored."""
    inputs: tuple[InputVersion, ...]
    """Images that were there, sorted."""
    bundles: tuple[str, ...]
    """Digests of the bundles."""
    versions: Mapping[str, str]
    """Versions of the libraries that made the bytes."""
    n_valid: int
    """Pixels that could be classified."""
    n_outlines: int
    """Outlines of this cell, before they are merged with those of its neighbours."""
    seconds: float
    """Time that the cell took, s."""
    peak_memory_bytes: int
    """Greatest resident memory of the process while it ran."""
    started: Moment
    """Begin, UTC, ISO 8601."""
    finished: Moment
    """End, likewise."""
    run: str
    """Id of the run."""
    worker: str
    """Address or name of the worker."""
    gaps: tuple[str, ...] = ()
    """Images that could not be read and were left out, as ``source/id``, where the recipe asks for gaps instead of errors."""
    hardware: str = ""
    """What ran the networks: "CPU", or a card by its name; where there was nothing to run, what would have. Empty in marks of earlier versions."""

    def __post_init__(self) -> None:
        """Refuse keys that lie outside of the output, of which somebody else's record may tell."""
        odd = [key for key in self.objects if {"", ".", ".."} & set(key.split("/"))]
        if odd:
            raise ValueError(f"{odd[0]!r} is no key in this output")


@dataclass(frozen=True, kw_only=True)
class Failure(StoredRecord):
    """One failure of one cell."""

    what = "This is no record of a failure"
    raises = CampaignError

    cell: Address
    """Row and column of the cell."""
    kind: FailureKind
    """What is to be done about it."""
    error: str
    """Name of the exception."""
    message: str
    traceback: str
    """Where it came from, as text; empty where the worker was lost."""
    attempts: int
    """Times that the cell was tried in this run."""
    when: str
    """UTC, ISO 8601."""
    run: str
    """Id of the run."""
    worker: str
    """Address or name of the worker; empty where it was lost."""


TIME_OVER = "its time was over"
"""Why a run stopped that had to end by a time."""


@dataclass(frozen=True, kw_only=True)
class RunCounts:
    """What a run states while it goes on, and what is kept of it."""

    run: str
    """Id of the run."""
    cells: int
    """Cells that it was given."""
    done: int
    """Cells that it finished."""
    skipped: int
    """Cells that were finished before a task of this run came to them, by another run or by a task that was lost."""
    stopped: str | None
    """Why it stopped before its last cell; None where it did not."""
    retried: int
    """Tasks that failed and were tried again."""
    started: Moment
    """Begin, UTC, ISO 8601."""
    seconds: float
    """Time from begin to end, s."""
    worker_seconds: float
    """Time that workers were there, summed over them, s: what machines are paid by."""
    workers: int
    """Workers that were there last."""
    hardware: Mapping[str, float] = field(default_factory=dict)
    """Of these seconds, those on each kind of hardware, named as in commit records; what is missing is not known."""


@dataclass(frozen=True, kw_only=True)
class RunSummary(RunCounts):
    """Every cell of a run, counted once."""

    set_aside: tuple[Failure, ...]
    """Cells that were given up, with their last failure."""
    left: int
    """Cells that have not ended: still to come, or not come to because the run stopped."""
    finished: str
    """End, UTC, ISO 8601; or when this was said."""
    in_flight: int
    """Cells that a task was under way for when this was said; none at the end of a run. They are among those left."""
    before: int = 0
    """Cells of the campaign that were done before the run and are none of its own."""

    @property
    def complete(self) -> bool:
        """Whether every cell is done."""
        return self.done + self.skipped == self.cells

    def __str__(self) -> str:
        """Lines for people."""
        return render_text("run.txt", {"of": self})


ProgressCallback = Callable[[RunSummary], None]
"""Called about every second with how a run stands, and at its end, in the thread that drives it."""


@dataclass(frozen=True, kw_only=True)
class RunRecord(StoredRecord, RunCounts):
    """One run, as it stood when the record was last written."""

    what = "This is no record of a run"
    raises = CampaignError

    plan_digest: str
    """Digest of the plan that it ran by."""
    host: str
    """Machine that drove it."""
    versions: Mapping[str, str]
    """Versions of the libraries, as `versions_here` gives them."""
    written: Moment
    """When the record was last written, UTC, ISO 8601. A run that was killed does not write its end."""
    ended: bool
    """Whether the run came to its end, be it the last cell, a stop or an error."""
    set_aside: int
    """Cells that it gave up."""

    @classmethod
    def of(cls, summary: RunSummary, *, plan_digest: str, host: str, versions: Mapping[str, str], ended: bool) -> Self:
        """Make the record of a run from its summary."""
        known = {name: value for name, value in vars(summary).items() if name in cls.__dataclass_fields__}
        return cls(
            **known | {"set_aside": len(summary.set_aside)},
            plan_digest=plan_digest,
            host=host,
            versions=dict(versions),
            written=summary.finished,
            ended=ended,
        )


def hardware_of(runs: Iterable[RunRecord]) -> tuple[str, ...]:
    """Return names of what runs that have finished cells computed with, sorted."""
    return tuple(sorted({name for run in runs if run.done for name in run.hardware}))


def hardware_mixture(kinds: Sequence[str]) -> str:
    """Say that one map is of several kinds of hardware, and what to do."""
    return (
        f"Cells of this map are computed with {' and '.join(kinds)}, whose probabilities differ in the last digits, so that seams may "
        "show. Keep to one of them; rtsx campaign report names cells of the others, and rtsx campaign retry with --cell for each makes "
        "them anew."
    )


def worker_name() -> str:
    """Return the address of the dask worker that this thread belongs to, else host and process."""
    distributed = sys.modules.get("distributed")  # where there is a worker, somebody has imported it
    if distributed is not None:
        try:
            return str(distributed.get_worker().address)
        except ValueError:
            pass
    return f"{socket.gethostname()}-{os.getpid()}"


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


LIBRARIES = ("rtsx", "torch", "zarr", "zarrs", "dask", "distributed", "numpy")
"""Libraries whose versions are compared: they make the bytes, or carry values between processes."""


def versions_here() -> dict[str, str]:
    """Return versions of Python and of the libraries that count, in this process; ``"missing"`` where one is not installed.

    Examples
    --------
    >>> sorted(versions_here())
    ['dask', 'distributed', 'numpy', 'python', 'rtsx', 'torch', 'zarr', 'zarrs']
    """
    found = {name: version_of(name) or "missing" for name in LIBRARIES}
    # Instead of what was installed, which an editable checkout has left behind.
    return {"python": platform.python_version(), **found, "rtsx": __version__}


def hardware_name(device: str, *backends: str) -> str:
    """Return the name of what would run networks in this process, as in `Hardware`; empty where what is asked for is not here."""
    from rtsx.inference.memory import hardware_here  # loads torch

    found = hardware_here(device, backends)
    return "" if isinstance(found, str) else found.name
