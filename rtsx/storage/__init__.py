"""Where data lie: names that mean the same from every folder, and outputs that are there whole or not at all."""

from rtsx.storage.atomic import (
    MEDIUM_ERRORS,
    OUTPUT_SUFFIXES,
    refuse_other_format,
    remove,
    settle,
    stage,
    staged,
    write_object,
    write_whole,
)
from rtsx.storage.paths import absolute, is_url, local_path

__all__ = [
    "MEDIUM_ERRORS",
    "OUTPUT_SUFFIXES",
    "absolute",
    "is_url",
    "local_path",
    "refuse_other_format",
    "remove",
    "settle",
    "stage",
    "staged",
    "write_object",
    "write_whole",
]
