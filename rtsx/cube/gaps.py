"""Images that were left out because they could not be read: told as warnings, and noted for who keeps the books."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from rtsx.errors import CubeError, MissingGroundWarning
from rtsx.redaction import redacted

__all__ = ["Gap", "note_gaps", "noted_gaps", "report_gap"]


@dataclass(frozen=True, order=True)
class Gap:
    """One image that was left out."""

    source: str
    """Name of its source."""
    image: str
    """Its id."""


# Variables of the context, instead of recorded warnings, because recording those is not safe among threads.
_NOTED: ContextVar[list[Gap] | None] = ContextVar("noted gaps", default=None)
_IS_GAP: ContextVar[Callable[[CubeError], bool] | None] = ContextVar("errors that are gaps", default=None)


def report_gap(gap: Gap, *, reason: str, error: CubeError) -> None:
    """Warn of an image that is left out, and note it where this thread keeps a list.

    Raises
    ------
    CubeError
        The error is none that this thread takes for a gap.
    """
    is_gap = _IS_GAP.get()
    if is_gap is not None and not is_gap(error):
        raise CubeError(reason) from error
    noted = _NOTED.get()
    if noted is not None:
        noted.append(gap)
    warnings.warn(f"{redacted(reason)} It is left out.", MissingGroundWarning, stacklevel=3)


def note_gaps(gaps: list[Gap], is_gap: Callable[[CubeError], bool]) -> None:
    """Add all gaps that this thread reports from now on to a list; for threads of a pool, which never leave a block.

    Parameters
    ----------
    gaps
        The list.
    is_gap
        Which errors are gaps; all others stay errors, such as those of a server that is away for a moment.
    """
    _NOTED.set(gaps)
    _IS_GAP.set(is_gap)


@contextmanager
def noted_gaps() -> Iterator[list[Gap]]:
    """List that all gaps reported by this thread within the block are added to.

    Examples
    --------
    >>> with warnings.catch_warnings(), noted_gaps() as gaps:
    ...     warnings.simplefilter("ignore")
    ...     report_gap(Gap("planetscope", "scene"), reason="It is damaged.", error=CubeError("damaged"))
    >>> gaps
    [Gap(source='planetscope', image='scene')]
    """
    gaps: list[Gap] = []
    token = _NOTED.set(gaps)
    try:
        yield gaps
    finally:
        _NOTED.reset(token)
