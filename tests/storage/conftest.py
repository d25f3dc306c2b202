"""Fixtures of the rooms that store what is tested here."""

from tests.campaign.conftest import (
    azure,
    azure_server,
    cloud,
    google,
    google_server,
    guarded,
    s3,
    s3_server,
    small_disk,
    without_rights,
)
from tests.cube.conftest import random_cube, write_tif

__all__ = [
    "azure",
    "azure_server",
    "cloud",
    "google",
    "google_server",
    "guarded",
    "random_cube",
    "s3",
    "s3_server",
    "small_disk",
    "without_rights",
    "write_tif",
]
