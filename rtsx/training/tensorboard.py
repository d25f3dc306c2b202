"""Rows of the log for TensorBoard."""

from pathlib import Path
from typing import Any

from rtsx.errors import MissingExtraError
from rtsx.training.log import LogRow
from rtsx.training.row_logger import RowLogger, values_of

__all__ = ["TensorBoardLogger"]


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


def _conforms(logger: TensorBoardLogger) -> RowLogger:
    return logger  # a typed line that fails the type check when the class stops being a RowLogger
