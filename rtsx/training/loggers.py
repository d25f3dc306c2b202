"""Logs that other programs show: named, and handed each row of our own."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rtsx.errors import MissingExtraError, TrainingError
from rtsx.suggest import suggest
from rtsx.training.run_log import LogRow


def values_of(row: LogRow) -> dict[str, float]:
    """The numbers of a row that exist, by name."""
    names = ("loss", "learning_rate", "threshold", "iou", "precision", "recall", "f1", "average_precision")
    found = {name: getattr(row, name) for name in names}
    return {name: float(value) for name, value in found.items() if value is not None}


class TensorBoardLogger:
    """Writes scalars into a folder that ``tensorboard --logdir`` shows."""

    def __init__(self, folder: Path) -> None:
        self._writer: Any = self.library()(str(folder))

    @staticmethod
    def library() -> Any:
        """What writes; raises `MissingExtraError` where it is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError(
                "TensorBoard is not installed: pip install tensorboard, or leave the logger out."
            ) from error
        return SummaryWriter

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
        library = self.library()
        folder.mkdir(parents=True, exist_ok=True)
        self._run = library.init(
            project="rtsx", name=id, id=digest[:16], resume="allow", dir=str(folder), config=dict(record)
        )

    @staticmethod
    def library() -> Any:
        """What sends; raises `MissingExtraError` where it is not installed."""
        try:
            return importlib.import_module("wandb")
        except ImportError as error:
            raise MissingExtraError(
                "Weights & Biases is not installed: pip install wandb, or leave the logger out."
            ) from error

    def log(self, row: LogRow) -> None:
        """Send the numbers of an epoch."""
        self._run.log(values_of(row), step=row.epoch)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


LoggerName = Literal["tensorboard", "wandb"]

RowLogger = TensorBoardLogger | WandbLogger
"""Takes rows: one call an epoch, from one thread."""
_LOGGERS: Mapping[str, type[RowLogger]] = {
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
}


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
        if name not in _LOGGERS:
            raise TrainingError(f"There is no logger {name!r}.{suggest(name, _LOGGERS)}")
        _LOGGERS[name].library()


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
