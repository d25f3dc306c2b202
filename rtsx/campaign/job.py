"""What one task of a campaign does: the plug between the driver, which knows schedulers, and the cell, which knows pixels."""

from dataclasses import dataclass
from typing import Literal, Protocol

from rtsx.campaign.cell_table import Address
from rtsx.campaign.failure import Failure

__all__ = ["Job", "NoJob", "Outcome"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one cell in one task; small, because it travels."""

    cell: Address
    """Row and column of the cell."""
    state: Literal["done", "skipped", "leased", "failed"]
    """Done by this task; done before (its mark was there); another run is at it; failed."""
    seconds: float = 0.0
    """Time that it took, s."""
    failure: Failure | None = None
    """Why, where it failed."""
    free_after_s: float = 0.0
    """Seconds after which a lease of another run can be looked at again."""


class Job(Protocol):
    """Runs one cell, on a worker.

    A value that pickles; one is sent to each worker, and several threads may call it at a time. It raises nothing but what
    ends the process: failures are outcomes.
    """

    def __call__(self, cell: Address, attempt: int, run: str) -> Outcome:
        """Run a cell.

        Parameters
        ----------
        cell
            Which.
        attempt
            The how-manieth time in this run, from 1.
        run
            Id of the run.
        """


@dataclass(frozen=True)
class NoJob:
    """A job that does nothing, for tests of the driver and for measuring what it costs."""

    seconds: float = 0.0
    """How long it does nothing, s."""

    def __call__(self, cell: Address, attempt: int, run: str) -> Outcome:
        """Say that it is done."""
        if self.seconds:
            from time import sleep

            sleep(self.seconds)
        return Outcome(cell=cell, state="done", seconds=self.seconds)


_conforms: type[Job] = NoJob
