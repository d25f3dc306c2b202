"""What takes the rows of the log beside the CSV file."""

from typing import Protocol

from rtsx.training.log import LogRow

__all__ = ["RowLogger", "values_of"]


class RowLogger(Protocol):
    """What takes rows: one call an epoch, from one thread."""

    def log(self, row: LogRow) -> None:
        """Take the row of an epoch."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


def values_of(row: LogRow) -> dict[str, float]:
    """The numbers of a row that exist, by name."""
    names = ("loss", "learning_rate", "threshold", "iou", "precision", "recall", "f1", "average_precision")
    found = {name: getattr(row, name) for name in names}
    return {name: float(value) for name, value in found.items() if value is not None}
