"""What became of the cells of one run, at its end or on the way."""

from dataclasses import dataclass

from rtsx.campaign.failure import Failure

__all__ = ["FlightSummary"]


@dataclass(frozen=True, kw_only=True)
class FlightSummary:
    """Every cell of a run, counted once."""

    run: str
    """Id of the run."""
    cells: int
    """Cells that the run was given."""
    done: int
    """Cells that it finished."""
    skipped: int
    """Cells that were finished before a task of this run came to them, by another run or by a task that was lost."""
    set_aside: tuple[Failure, ...]
    """Cells that were given up, with their last failure."""
    left: int
    """Cells that have not ended: still to come, or not come to because the run stopped."""
    stopped: str | None
    """Why the run stopped before its last cell; None where it did not."""
    retried: int
    """Tasks that failed and were tried again."""
    started: str
    """Begin, UTC, ISO 8601."""
    finished: str
    """End, likewise; or when this was said."""
    seconds: float
    """Time from begin to end, s."""
    worker_seconds: float
    """Time that workers were there, summed over them, s: what machines are paid by."""
    workers: int
    """Workers that were there last."""
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
