"""Files that are there whole or not at all, whenever the process ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["PART", "write_whole", "writing_whole"]

PART = ".part"
"""Suffix of a file that is being written."""


@contextmanager
def writing_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, beside its place; it is moved there once it is on the disk, and replaces what was there."""
    part = path.with_name(path.name + PART)
    with part.open("wb") as file:
        yield file
        file.flush()
        # Before the name, because a machine that loses power may otherwise keep the name and not the content.
        os.fsync(file.fileno())
    part.replace(path)


def write_whole(path: Path, data: bytes) -> None:
    """Write a whole file at once."""
    with writing_whole(path) as file:
        file.write(data)
