"""The log of a training: one row an epoch in a CSV file, and its progress for whoever shows it."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from rtsx.storage import write_whole


@dataclass(frozen=True, kw_only=True)
class LogRow:
    """One epoch. No times, because a resumed training writes the same log as one that was never stopped."""

    epoch: int
    """From 1."""
    step: int
    """Steps since the training began."""
    loss: float
    """Mean over the epoch's steps."""
    learning_rate: float
    """Of the epoch's last step."""
    threshold: float | None = None
    """The one that the scores are for: a single class's best. None without validation, as all below."""
    iou: float | None = None
    """Averaged over the classes, as are the others."""
    precision: float | None = None
    """Part of the found pixels that are right."""
    recall: float | None = None
    """Part of the true pixels that are found."""
    f1: float | None = None
    """Harmonic mean of both."""
    average_precision: float | None = None
    """Area under precision by recall; None where validation has no pixel of a class."""


def write_log(path: Path, rows: Sequence[LogRow]) -> None:
    """Write all rows, replacing the file at once."""
    names = [field.name for field in fields(LogRow)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(getattr(row, name)) for name in names] for row in rows)
    write_whole(path, text.getvalue().encode())


def _cell(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(value)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A moment of a training: after a step, or after the validation that ends an epoch."""

    epoch: int
    """Number of the epoch, from 1."""
    epochs: int
    """Epochs of the whole training, should it not stop early."""
    step: int
    """Steps done in all epochs."""
    steps: int
    """Steps of the whole training, should it not stop early."""
    loss: float
    """Mean loss of the epoch so far."""
    learning_rate: float
    """Of the last step."""
    row: LogRow | None = None
    """The new row of the log, with the scores of the validation, where this moment is the end of an epoch."""


ShowProgress = Callable[[Progress], None]
"""What is called after every step and every epoch, in the process that called `train`; an exception from it stops the training,
which goes on from the last epoch when it is called again."""
