"""Objects on their way to new processes: through a file, by cloudpickle."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle

__all__ = ["carried", "unpacked"]


@contextmanager
def carried(value: object) -> Iterator[str]:
    """Path of a file that holds a value for as long as the block runs.

    A file, instead of an argument of the process: multiprocessing writes arguments into a pipe and waits for ever where
    the new process ends before it has read them, because its main module cannot be imported, say.

    Examples
    --------
    >>> with carried({"seed": 1}) as parcel:
    ...     unpacked(parcel)
    {'seed': 1}
    """
    with tempfile.TemporaryDirectory(prefix="rtsx-") as folder:
        path = Path(folder) / "parcel"
        path.write_bytes(cloudpickle.dumps(value))
        yield str(path)


def unpacked(parcel: str) -> Any:
    """The value in a file of `carried`."""
    return cloudpickle.loads(Path(parcel).read_bytes())
