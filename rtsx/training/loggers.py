"""Logs that other programs show: named, and handed each row of our own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from rtsx.errors import TrainingError
from rtsx.training.nearest import nearest
from rtsx.training.row_logger import RowLogger
from rtsx.training.tensorboard import TensorBoardLogger
from rtsx.training.wandb import WandbLogger

__all__ = ["LoggerName", "check_loggers", "open_loggers"]

LoggerName = Literal["tensorboard", "wandb"]

_LOGGERS: Mapping[str, type[TensorBoardLogger] | type[WandbLogger]] = {
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
            raise TrainingError(f"There is no logger {name!r}.{nearest(name, _LOGGERS)}")
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
    made: list[RowLogger] = []
    for name in names:
        match name:
            case "tensorboard":
                made.append(TensorBoardLogger(folder / "tensorboard"))
            case "wandb":
                made.append(WandbLogger(folder / "wandb", id=id, record=record, digest=digest))
    return made
