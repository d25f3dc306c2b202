"""What all marks of a campaign say together, gathered one at a time, so that a million of them are never held."""

import statistics
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rtsx.campaign.cell_table import Address
from rtsx.campaign.mark import CommitMark
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.report_map import CellState
from rtsx.campaign.report_throughput import Throughput, throughput
from rtsx.campaign.status import CampaignStatus

__all__ = ["MarkFacts", "gathered_marks", "states_of"]

_SLOWEST = 10


@dataclass(frozen=True, kw_only=True)
class MarkFacts:
    """What all marks say together."""

    states: Mapping[Address, CellState] = field(repr=False)
    """Mapped or empty, by cell."""
    throughput: Throughput | None
    """When cells were finished; None before the first."""
    n_valid: int
    """Pixels that could be judged."""
    n_outlines: int
    """Outlines of all cells, those that are cut at borders counted on each side."""
    cell_seconds: float
    """Time of all cells, s."""
    median_seconds: float
    """Time of a middling cell, s; 0 without cells."""
    peak_memory_bytes: int
    """Greatest resident memory of any worker."""
    slowest: tuple[tuple[Address, float], ...]
    """Cells that took longest, with their seconds."""
    workers: Mapping[str, tuple[int, float]]
    """Cells and their seconds by worker."""
    gaps: Mapping[str, int]
    """Images that could not be read and were left out, with the number of cells that go without them."""
    versions: Mapping[str, tuple[str, ...]]
    """Versions of each library that cells were made with; more than one where it was updated between runs."""


def gathered_marks(marks: Iterable[CommitMark]) -> MarkFacts:
    """Walk marks once.

    Parameters
    ----------
    marks
        In any order.
    """
    states: dict[Address, CellState] = {}
    finished: list[datetime] = []
    seconds = array("d")
    slowest: list[tuple[float, Address]] = []
    workers: dict[str, tuple[int, float]] = {}
    versions: dict[str, set[str]] = {}
    totals: Counter[str] = Counter()
    gaps: Counter[str] = Counter()
    peak = 0
    for mark in marks:
        states[mark.cell] = mark.state
        finished.append(datetime.fromisoformat(mark.finished).astimezone(UTC))
        seconds.append(mark.seconds)
        slowest = sorted([*slowest, (mark.seconds, mark.cell)], reverse=True)[:_SLOWEST]
        cells, busy = workers.get(mark.worker, (0, 0.0))
        workers[mark.worker] = cells + 1, busy + mark.seconds
        for name, version in mark.versions.items():
            versions.setdefault(name, set()).add(version)
        totals.update(n_valid=mark.n_valid, n_outlines=mark.n_outlines)
        gaps.update(mark.gaps)
        peak = max(peak, mark.peak_memory_bytes)
    return MarkFacts(
        states=states,
        throughput=throughput(finished),
        n_valid=totals["n_valid"],
        n_outlines=totals["n_outlines"],
        cell_seconds=sum(seconds),
        median_seconds=statistics.median(seconds) if seconds else 0.0,
        peak_memory_bytes=peak,
        slowest=tuple((cell, spent) for spent, cell in slowest),
        workers=dict(sorted(workers.items())),
        gaps=dict(sorted(gaps.items())),
        versions={name: tuple(sorted(found)) for name, found in sorted(versions.items())},
    )


def states_of(plan: CampaignPlan, status: CampaignStatus, marks: MarkFacts) -> dict[Address, CellState]:
    """State of every cell of a plan, in its order."""

    def state(cell: Address) -> CellState:
        if cell in marks.states:
            return marks.states[cell]
        if cell in running:
            return "running"
        return "failed" if cell in status.failed else "left"

    running = set(status.running)
    return {cell: state(cell) for cell in plan.cells}
