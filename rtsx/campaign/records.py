"""The commit record of a cell, which alone states that it is done, and why a cell is not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rtsx.campaign.cells import Address
from rtsx.errors import CampaignError
from rtsx.parsing import Moment, StoredRecord
from rtsx.storage.retry import FailureKind


@dataclass(frozen=True, order=True)
class InputVersion:
    """One image that a cell was made of, so that a later run sees whether it is another one now."""

    source: str
    """Name of the source in the recipe."""
    image: str
    """Id of the image."""
    stamp: str
    """Digest of what says that its content changed: a checksum, an ETag, a time of change and a size."""


@dataclass(frozen=True, kw_only=True)
class CommitRecord(StoredRecord):
    """What a cell has written, from what, by whom and at which cost."""

    what = "This is no commit mark"
    raises = CampaignError

    cell: Address
    """Row and column of the cell."""
    plan_digest: str
    """Digest of the plan that it was run by."""
    state: Literal["mapped", "empty"]
    """Mapped, or without any image or valid pixel, so that nothing was written."""
    objects: Mapping[str, str]
    """SHA-256 of every object by its key, relative to the output. Shards of nothing but nodata are not stored."""
    inputs: tuple[InputVersion, ...]
    """Images that were there, sorted."""
    bundles: tuple[str, ...]
    """Digests of the bundles."""
    versions: Mapping[str, str]
    """Versions of the libraries that made the bytes."""
    n_valid: int
    """Pixels that could be classified."""
    n_outlines: int
    """Outlines of this cell, before they are merged with those of its neighbours."""
    seconds: float
    """Time that the cell took, s."""
    peak_memory_bytes: int
    """Greatest resident memory of the process while it ran."""
    started: Moment
    """Begin, UTC, ISO 8601."""
    finished: Moment
    """End, likewise."""
    run: str
    """Id of the run."""
    worker: str
    """Address or name of the worker."""
    gaps: tuple[str, ...] = ()
    """Images that could not be read and were left out, as ``source/id``, where the recipe asks for gaps instead of errors."""
    hardware: str = ""
    """What ran the networks: "CPU", or a card by its name; where there was nothing to run, what would have. Empty in marks of earlier versions."""

    def __post_init__(self) -> None:
        """Refuse keys that lie outside of the output, of which somebody else's record may tell."""
        odd = [key for key in self.objects if {"", ".", ".."} & set(key.split("/"))]
        if odd:
            raise ValueError(f"{odd[0]!r} is no key in this output")


@dataclass(frozen=True, kw_only=True)
class Failure(StoredRecord):
    """One failure of one cell."""

    what = "This is no record of a failure"
    raises = CampaignError

    cell: Address
    """Row and column of the cell."""
    kind: FailureKind
    """What is to be done about it."""
    error: str
    """Name of the exception."""
    message: str
    traceback: str
    """Where it came from, as text; empty where the worker was lost."""
    attempts: int
    """Times that the cell was tried in this run."""
    when: str
    """UTC, ISO 8601."""
    run: str
    """Id of the run."""
    worker: str
    """Address or name of the worker; empty where it was lost."""
