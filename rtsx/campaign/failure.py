"""Why a cell is not done."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

from rtsx.campaign.cell_table import Address
from rtsx.errors import CampaignError
from rtsx.parsing import parsed_json

__all__ = ["Failure", "FailureKind"]

FailureKind = Literal["passing", "lasting", "halting"]
"""Passing: may be gone next time (network, lost worker, memory), so it is tried again. Lasting: this cell will never do (bad
data), so it is set aside at once. Halting: no cell can do (full disk, no right to write, wrong versions), so the run stops."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One failure of one cell."""

    cell: Address
    """Row and column of the cell."""
    kind: FailureKind
    """What is to be done about it."""
    error: str
    """Name of the exception."""
    message: str
    """What it said."""
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

    def to_json(self) -> str:
        """One line of text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Failure":
        """The failure of such a line.

        Raises
        ------
        CampaignError
            It is not one.
        """
        return parsed_json(text, cls, what="This is no record of a failure", error=CampaignError)
