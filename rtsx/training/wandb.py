"""Rows of the log for Weights & Biases."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtsx.errors import MissingExtraError
from rtsx.training.log import LogRow
from rtsx.training.row_logger import RowLogger, values_of

__all__ = ["WandbLogger"]


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


def _conforms(logger: WandbLogger) -> RowLogger:
    return logger  # a typed line that fails the type check when the class stops being a RowLogger
