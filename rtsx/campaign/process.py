"""What a worker process says of itself: its name, and the memory it has taken."""

import os
import resource
import socket
import sys

import psutil

__all__ = ["PeakMemory", "worker_name"]


def worker_name() -> str:
    """Address of the dask worker that this thread belongs to, else host and process."""
    distributed = sys.modules.get("distributed")  # where there is a worker, somebody has imported it
    if distributed is not None:
        try:
            return str(distributed.get_worker().address)
        except ValueError:
            pass
    return f"{socket.gethostname()}-{os.getpid()}"


class PeakMemory:
    """Greatest resident memory of this process since a moment.

    The system keeps the greatest ever, which is exact where it has risen since; else the greatest of some samples.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._greatest_ever()
        self._sampled = 0
        self.sample()

    def sample(self) -> None:
        """Look now."""
        self._sampled = max(self._sampled, int(self._process.memory_info().rss))

    @property
    def n_bytes(self) -> int:
        """The greatest so far, bytes."""
        now = self._greatest_ever()
        return now if now > self._before else self._sampled

    @staticmethod
    def _greatest_ever() -> int:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
