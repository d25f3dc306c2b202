"""Whether client, scheduler and workers are of one kind: versions of the libraries that make the bytes, and memory."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["require_environment", "versions_here"]

LIBRARIES = ("rtsx", "torch", "zarr", "dask", "distributed", "numpy")
"""Libraries whose versions are compared: they make the bytes, or carry values between processes."""


def versions_here() -> dict[str, str]:
    """Versions of Python and of the libraries that count, in this process; ``"missing"`` where one is not installed.

    Examples
    --------
    >>> sorted(versions_here())
    ['dask', 'distributed', 'numpy', 'python', 'rtsx', 'torch', 'zarr']
    """
    return {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    if name == "rtsx":
        from rtsx import __version__  # instead of what was installed, which an editable checkout has left behind

        return __version__
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
