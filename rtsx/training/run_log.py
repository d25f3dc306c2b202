"""The log of a training: one row an epoch in a CSV file, its progress for whoever shows it, and logs of other programs."""

import csv
import importlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from rtsx.errors import TrainingError, require_extra
from rtsx.names import suggest
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


def values_of(row: LogRow) -> dict[str, float]:
    """Return the numbers of a row that exist, by name."""
    found = {name: value for name, value in asdict(row).items() if name not in ("epoch", "step")}
    return {name: float(value) for name, value in found.items() if value is not None}


class TensorBoardLogger:
    """Writes scalars into a folder that ``tensorboard --logdir`` shows."""

    def __init__(self, folder: Path) -> None:
        self._writer: Any = _library("tensorboard").SummaryWriter(str(folder))

    def log(self, row: LogRow) -> None:
        """Write the numbers of an epoch."""
        for name, value in values_of(row).items():
            self._writer.add_scalar(name, value, row.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class WandbLogger:
    """Sends numbers to a run of the project ``rtsx``; a training that goes on goes on in the same run."""

    def __init__(self, folder: Path, *, id: str, record: Mapping[str, object], digest: str) -> None:  # noqa: A002 - the word of the recipe
        library = _library("wandb")
        folder.mkdir(parents=True, exist_ok=True)
        self._run = library.init(
            project="rtsx", name=id, id=digest[:16], resume="allow", dir=str(folder), config=dict(record)
        )

    def log(self, row: LogRow) -> None:
        """Send the numbers of an epoch."""
        self._run.log(values_of(row), step=row.epoch)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


LoggerName = Literal["tensorboard", "wandb"]

RowLogger = TensorBoardLogger | WandbLogger
"""Takes rows: one call an epoch, from one thread."""
_LIBRARIES = {"tensorboard": ("TensorBoard", "torch.utils.tensorboard"), "wandb": ("Weights & Biases", "wandb")}
"""Title of each logger, and the module that writes for it."""


def _library(name: str) -> Any:
    title, module = _LIBRARIES[name]
    with require_extra(f"{title} is not installed: pip install {name}, or leave the logger out."):
        return importlib.import_module(module)


def check_loggers(names: Sequence[LoggerName]) -> None:
    """Refuse what could not be opened, before anything is read.

    Raises
    ------
    TrainingError
        There is no such logger.
    MissingExtraError
        Its library is not installed.
    """
    for name in names:
        if name not in _LIBRARIES:
            raise TrainingError(f"There is no logger {name!r}.{suggest(name, _LIBRARIES)}")
        _library(name)


def open_loggers(
    names: Sequence[LoggerName],
    folder: Path,
    *,
    id: str,  # noqa: A002 - the word of the recipe
    record: Mapping[str, object],
    digest: str,
) -> list[RowLogger]:
    """Open logs by name.

    Parameters
    ----------
    names
        "tensorboard" writes into the folder, "wandb" to where Weights & Biases is set up to.
    folder
        The run's.
    id, record, digest
        Name, recipe and its digest, for programs that show more than numbers.

    Raises
    ------
    TrainingError, MissingExtraError
        As `check_loggers`.
    """
    check_loggers(names)
    return [
        TensorBoardLogger(folder / "tensorboard")
        if name == "tensorboard"
        else WandbLogger(folder / "wandb", id=id, record=record, digest=digest)
        for name in names
    ]
