"""Whether all that the marks of a year name is there, byte by byte."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from rtsx.campaign.cells import Address
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, map_in_threads
from rtsx.campaign.records import CommitRecord
from rtsx.errors import CampaignError
from rtsx.grid.grid import cell_id
from rtsx.storage.object_store import ObjectStore, open_object_store

_THREADS = 8
"""Cells that are read at a time; each holds one object of a few megabytes."""
_SHOWN = 10
"""Cells that a printed verification names."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found when everything was read again.

    Examples
    --------
    >>> print(Verification(n_cells=2, n_objects=9, n_bytes=40_000, missing={(0, 1): ("map.zarr/valid/c/0/0/1",)}))
    2 cells, 9 objects, 0.0 GB read: 1 cell is not what its mark says.
    r000c001: missing map.zarr/valid/c/0/0/1
    """

    n_cells: int
    """Cells with a mark that were looked at."""
    n_objects: int
    """Objects that their marks name."""
    n_bytes: int
    """Bytes that were read."""
    missing: Mapping[Address, tuple[str, ...]] = field(default_factory=dict)
    """Keys of objects that are not there, by cell."""
    damaged: Mapping[Address, tuple[str, ...]] = field(default_factory=dict)
    """Keys of objects whose bytes are not those that were written, such as changed or cut ones, by cell."""
    unreadable: Mapping[Address, str] = field(default_factory=dict)
    """What is wrong with marks that cannot be read, by cell; what they named is not known."""

    @property
    def cells(self) -> tuple[Address, ...]:
        """Cells that have to be run again, sorted."""
        return tuple(sorted({*self.missing, *self.damaged, *self.unreadable}))

    @property
    def is_sound(self) -> bool:
        """Whether everything is as it was written."""
        return not self.cells

    def __str__(self) -> str:
        """Say it in a line, and name some of the cells."""
        read = f"{self.n_cells} cells, {self.n_objects} objects, {self.n_bytes / 1e9:.1f} GB read"
        cells = self.cells
        if not self.n_cells:
            return "No cell with a mark was found, so nothing was read."
        if not cells:
            return f"{read}: all bytes are those that were written."
        are = (
            "1 cell is not what its mark says"
            if len(cells) == 1
            else f"{len(cells)} cells are not what their marks say"
        )
        lines = [f"{read}: {are}."]
        for cell in cells[:_SHOWN]:
            faults = [
                *(f"missing {key}" for key in self.missing.get(cell, ())),
                *(f"damaged {key}" for key in self.damaged.get(cell, ())),
                *([self.unreadable[cell]] if cell in self.unreadable else []),
            ]
            lines.append(f"{cell_id(*cell)}: {', '.join(faults)}")
        if len(cells) > _SHOWN:
            lines.append(f"and {len(cells) - _SHOWN} more")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class _Finding:
    """What was found of one cell."""

    cell: Address
    n_objects: int = 0
    n_bytes: int = 0
    missing: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    unreadable: str = ""


def verify_year(
    output: str,
    layout: YearLayout,
    *,
    storage_options: Mapping[str, Any] | None = None,
    cells: Iterable[Address] | None = None,
) -> Verification:
    """Read every object of every mark, and hold its SHA-256 against the mark. Changes nothing.

    Parameters
    ----------
    output
        Folder or URL of the campaign.
    layout
        Keys of the year.
    storage_options
        Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.
    cells
        Which cells; None for all with a mark.
    """
    objects = open_object_store(output, storage_options or {})
    ledger = CampaignLedger(objects, layout)
    wanted = ledger.done() if cells is None else cells
    n_cells = n_objects = n_bytes = 0
    bad: list[_Finding] = []
    for found in _findings(objects, ledger, wanted):
        n_cells, n_objects, n_bytes = n_cells + 1, n_objects + found.n_objects, n_bytes + found.n_bytes
        if found.missing or found.damaged or found.unreadable:
            bad.append(found)
    return Verification(
        n_cells=n_cells,
        n_objects=n_objects,
        n_bytes=n_bytes,
        missing={one.cell: one.missing for one in bad if one.missing},
        damaged={one.cell: one.damaged for one in bad if one.damaged},
        unreadable={one.cell: one.unreadable for one in bad if one.unreadable},
    )


def _findings(objects: ObjectStore, ledger: CampaignLedger, cells: Iterable[Address]) -> Iterator[_Finding]:
    """Findings of cells with a mark, several read at a time and few held."""

    def look(cell: Address) -> _Finding | None:
        try:
            mark = ledger.mark(cell)
        except CampaignError as error:
            return _Finding(cell=cell, unreadable=str(error))
        return None if mark is None else _look(objects, mark)

    return (found for found in map_in_threads(look, cells, threads=_THREADS) if found is not None)


def _look(objects: ObjectStore, mark: CommitRecord) -> _Finding:
    missing, damaged, n_bytes = [], [], 0
    for key, digest in sorted(mark.objects.items()):
        content = objects.get(key)
        if content is None:
            missing.append(key)
            continue
        n_bytes += len(content)
        if sha256(content).hexdigest() != digest:
            damaged.append(key)
    return _Finding(
        cell=mark.cell,
        n_objects=len(mark.objects),
        n_bytes=n_bytes,
        missing=tuple(missing),
        damaged=tuple(damaged),
    )
