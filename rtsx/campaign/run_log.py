"""What became of the cells of one run, and the record of what it took, kept beside the output."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger
from rtsx.campaign.records import Failure
from rtsx.errors import CampaignError
from rtsx.parsing import Moment, StoredRecord
from rtsx.storage.object_store import ObjectStore

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
        if not self.cells and self.stopped is None:
            return "every cell was done before: there was nothing to run"
        counts = f"{self.done} of {self.cells} cells done in {self.seconds:.0f} s, {self.skipped} by other runs"
        lines = [f"{counts}, {len(self.set_aside)} set aside, {self.left} left; {self.retried} tasks were tried again"]
        if self.before:
            done, cells = (self.before + number for number in (self.done + self.skipped, self.cells))
            lines.append(f"with the {self.before} that were done before: {done} of {cells}")
        if self.stopped is not None:
            lines.append(f"stopped: {self.stopped}")
        lines += [f"set aside: cell {gone.cell}: {gone.error}: {gone.message}" for gone in self.set_aside[:10]]
        if len(self.set_aside) > 10:
            lines.append(f"... and {len(self.set_aside) - 10} more")
        return "\n".join(lines)


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


def write_run(objects: ObjectStore, layout: YearLayout, record: RunRecord) -> None:
    """Write the record of a run, or write it anew."""
    objects.put(layout.run_record(record.run), record.to_json().encode())


def read_runs(objects: ObjectStore, layout: YearLayout, *, damaged: list[str] | None = None) -> tuple[RunRecord, ...]:
    """Records of all runs of a year, the oldest first.

    Parameters
    ----------
    objects, layout
        Where they lie.
    damaged
        Receives what is wrong with records that are none; None makes that an error.

    Raises
    ------
    CampaignError
        One of the records is none.
    """
    keys = (stored.key for stored in objects.list(layout.runs))
    records = CampaignLedger(objects, layout).records(RunRecord, keys, damaged=damaged)
    return tuple(sorted(records, key=lambda record: (record.started, record.run)))


def hardware_of(runs: Iterable[RunRecord]) -> tuple[str, ...]:
    """Names of what runs that have finished cells computed with, sorted."""
    return tuple(sorted({name for run in runs if run.done for name in run.hardware}))


def hardware_mixture(kinds: Sequence[str]) -> str:
    """Say that one map is of several kinds of hardware, and what to do."""
    return (
        f"Cells of this map are computed with {' and '.join(kinds)}, whose probabilities differ in the last digits, so that seams may "
        "show. Keep to one of them; rtsx campaign report names cells of the others, and rtsx campaign retry with --cell for each makes "
        "them anew."
    )
