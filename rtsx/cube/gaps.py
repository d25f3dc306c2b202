"""Images that were left out because they could not be read: told as warnings, and noted for who keeps the books."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from rtsx.errors import MissingGroundWarning

__all__ = ["Gap", "note_gaps", "noted_gaps", "report_gap"]


@dataclass(frozen=True, order=True)
class Gap:
    """One image that was left out."""

    source: str
    """Name of its source."""
    image: str
    """Its id."""


# A variable of the context, instead of recorded warnings, because recording those is not safe among threads.
_NOTED: ContextVar[list[Gap] | None] = ContextVar("noted gaps", default=None)


def report_gap(gap: Gap, *, reason: str) -> None:
    """Warn of an image that is left out, and note it where this thread keeps a list."""
    noted = _NOTED.get()
    if noted is not None:
        noted.append(gap)
    warnings.warn(f"{reason} It is left out.", MissingGroundWarning, stacklevel=3)


def note_gaps(gaps: list[Gap]) -> None:
    """Add all gaps that this thread reports from now on to a list; for threads of a pool, which never leave a block."""
    _NOTED.set(gaps)


@contextmanager
def noted_gaps() -> Iterator[list[Gap]]:
    """List that all gaps reported by this thread within the block are added to.

    Examples
    --------
    >>> with warnings.catch_warnings(), noted_gaps() as gaps:
    ...     warnings.simplefilter("ignore")
    ...     report_gap(Gap("planetscope", "scene"), reason="It is damaged.")
    >>> gaps
    [Gap(source='planetscope', image='scene')]
    """
    gaps: list[Gap] = []
    token = _NOTED.set(gaps)
    try:
        yield gaps
    finally:
        _NOTED.reset(token)
