"""Peak memory of this process."""

from pathlib import Path

__all__ = ["peak_mib"]


def peak_mib() -> float:
    """Most memory that was ever resident, MiB.

    Not `getrusage`, whose peak a child inherits from the parent that started it: a small process would report that of the
    large one which prepared its input.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
