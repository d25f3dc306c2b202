"""Files that are there whole or not at all, whenever the process ends."""

import os
from pathlib import Path

__all__ = ["PART", "write_whole"]

PART = ".part"
"""Suffix of a file that is being written."""


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its place, and move it there once it is on the disk; what was there is replaced."""
    part = path.with_name(path.name + PART)
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        # Before the name, because a machine that loses power may otherwise keep the name and not the content.
        os.fsync(file.fileno())
    part.replace(path)
