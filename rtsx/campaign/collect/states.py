"""What collecting has to know of every finished cell, in a few hundred bytes each."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from rtsx.campaign.cell_table import Address
from rtsx.campaign.layout import MAP, YearLayout
from rtsx.campaign.mark import CommitMark

__all__ = ["CellState", "CellStates", "cell_states", "digest_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellState:
    """A finished cell."""

    is_empty: bool
    """Whether there was no image of it, or no valid pixel, so that nothing was written."""
    outlines: str
    """SHA-256 of its outlines; empty where it has none."""
    map: str
    """Digest of all that it wrote into the map; empty where it wrote nothing there."""
    cogs: tuple[str, ...]
    """Variables that it wrote as GeoTIFFs, sorted."""
    n_valid: int
    """Pixels that could be judged."""
    n_outlines: int
    """Outlines before they are merged with those of neighbours."""
    finished: str
    """When, UTC, ISO 8601."""
    mark: str
    """Digest of the whole mark."""


CellStates = dict[Address, CellState]
"""Finished cells by address."""


def cell_states(marks: Iterable[CommitMark], layout: YearLayout) -> CellStates:
    """States of all cells that have a mark; the marks themselves are let go one by one."""
    return {mark.cell: _state(mark, layout) for mark in marks}


def digest_of(content: object) -> str:
    """SHA-256 of JSON values; equal ones have equal digests."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _state(mark: CommitMark, layout: YearLayout) -> CellState:
    mapped = {key: digest for key, digest in mark.objects.items() if key.startswith(f"{MAP}/")}
    cogs = (key for key in mark.objects if key.startswith(f"{layout.cogs}/"))
    return CellState(
        is_empty=mark.state == "empty",
        outlines=mark.objects.get(layout.outline(mark.cell), ""),
        map=digest_of(mapped) if mapped else "",
        # The name of a cell has no underscore, so all behind the first is the variable's.
        cogs=tuple(sorted(key.rsplit("/", 1)[1].split("_", 1)[1].removesuffix(".tif") for key in cogs)),
        n_valid=mark.n_valid,
        n_outlines=mark.n_outlines,
        finished=mark.finished,
        mark=sha256(mark.to_json().encode()).hexdigest(),
    )
