"""An exception of a task as a failure that travels: said where it is caught, because tracebacks do not pickle."""

import traceback
from datetime import UTC, datetime

from rtsx.campaign.cell_table import Address
from rtsx.campaign.failure import Failure
from rtsx.campaign.kinds import kind_of
from rtsx.campaign.process import worker_name
from rtsx.redaction import redacted

__all__ = ["failure_of"]

_TRACEBACK = 20_000
"""Characters of a traceback that are kept, the last ones, because outcomes travel."""


def failure_of(error: Exception, *, cell: Address, attempt: int, run: str) -> Failure:
    """What an error in a task of a cell says, with its traceback.

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
    >>> failure = failure_of(ConnectionResetError("gone"), cell=(0, 1), attempt=2, run="a")
    >>> failure.kind, failure.error, failure.message, failure.attempts
    ('passing', 'ConnectionResetError', 'gone', 2)
    """
    return Failure(
        cell=cell,
        kind=kind_of(error),
        error=type(error).__name__,
        message=redacted(str(error)),
        traceback=redacted("".join(traceback.format_exception(error)))[-_TRACEBACK:],
        attempts=attempt,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        run=run,
        worker=worker_name(),
    )
