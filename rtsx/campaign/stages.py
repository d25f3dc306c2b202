"""The stages of each year of a campaign, counted in cells: fetched, checked, run, verified, collected, delivered; and verifying it.

What reads or packs all cells leaves a record of when it did: a cell that was made anew since is not among its own any more. Counts come
from listings and these records, so that they are fast, and agree with each other.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from rtsx.campaign.cells import Address
from rtsx.campaign.drift import read_check
from rtsx.campaign.layout import FetchLayout, YearLayout
from rtsx.campaign.ledger import CampaignLedger, map_in_threads
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.records import CommitRecord
from rtsx.errors import CampaignError, OutputNotWritableError, RtsxError
from rtsx.grid.grid import cell_id, parse_cell_id
from rtsx.parsing import AwareDatetime, StoredRecord, parsed_json
from rtsx.storage import is_url
from rtsx.storage.object_store import ObjectStore, open_object_store

Stage = Literal["fetched", "verified", "collected", "delivered"]
"""Those that leave a record."""


@dataclass(frozen=True, kw_only=True)
class StageRecord(StoredRecord):
    """That a stage was done for the cells that were there."""

    what = "This is no record of a stage"
    raises = CampaignError

    plan_digest: str
    """Digest of the plan; the record counts for no other."""
    cells: int
    """How many had a commit record when it began."""
    until: AwareDatetime | None
    """When the newest of them was written, by the store's clock; None where there was none."""
    without: tuple[str, ...] = ()
    """Cells among them for which it was not done, such as those that were found damaged."""
    where: str = ""
    """Folder or URL that received it, outside of the output."""


@dataclass(frozen=True, kw_only=True)
class YearStages:
    """How many cells of a year have come through each stage; None where nobody has begun it.

    ``done + failed + left == planned``, and no later stage counts a cell that is not done.
    """

    year: int
    planned: int
    """Cells of the plan."""
    fetched: int | None
    """Cells whose pixels are in the store that was fetched last."""
    checked: int | None
    """Cells that the drift check has sampled."""
    drift: Literal["", "alike", "tripped", "accepted"]
    """What it found; empty without a check."""
    done: int
    """Cells with a commit record."""
    failed: int
    """Cells that were set aside."""
    verified: int | None
    """Cells all of whose bytes were read again, and are those that were written."""
    collected: int | None
    """Cells that the products are made of."""
    delivered: int | None
    """Cells in the package that was delivered last."""

    @property
    def left(self) -> int:
        """Cells that neither are done nor were set aside."""
        return self.planned - self.done - self.failed


def note_stage(
    objects: ObjectStore,
    plan: CampaignPlan,
    stage: Stage,
    *,
    marked: Mapping[Address, datetime],
    without: Iterable[Address] = (),
    where: str = "",
) -> None:
    """Record that a stage is done; an output that cannot be written keeps no record, and what was done counts anyway.

    Parameters
    ----------
    objects, plan
        The output, and the plan of the year.
    stage
        Which.
    marked
        When each cell was marked, asked before the stage began.
    without, where
        As `StageRecord` has them.
    """
    record = StageRecord(
        plan_digest=plan.digest,
        cells=len(marked),
        until=max(marked.values(), default=None),
        without=tuple(cell_id(*cell) for cell in sorted(without)),
        where=where,
    )
    with suppress(OutputNotWritableError):
        objects.put(YearLayout(plan.year).stage(stage), record.to_json().encode())


def note_damage(objects: ObjectStore, plan: CampaignPlan, cells: Sequence[Address]) -> None:
    """Take cells that were found damaged from those that were verified."""
    record = _read(objects, plan, "verified")
    if record is not None and cells:
        bad = {*record.without, *(cell_id(*cell) for cell in cells)}
        with suppress(OutputNotWritableError):
            objects.put(
                YearLayout(plan.year).stage("verified"), replace(record, without=tuple(sorted(bad))).to_json().encode()
            )


def year_stages(
    objects: ObjectStore,
    plan: CampaignPlan,
    *,
    marked: Mapping[Address, datetime] | None = None,
    failed: Iterable[Address] | None = None,
) -> YearStages:
    """Count the cells of each stage; reads listings, and a few small records.

    Parameters
    ----------
    objects
        The output.
    plan
        Of the year.
    marked, failed
        When each cell was marked, and which were set aside; None to list them.

    Raises
    ------
    CampaignError
        A record is damaged.
    """
    ledger = CampaignLedger(objects, YearLayout(plan.year))
    places = plan.cells.places
    done = {cell: when for cell, when in (ledger.moments() if marked is None else marked).items() if cell in places}
    aside = {cell for cell in (ledger.set_aside_cells() if failed is None else failed) if cell in places} - done.keys()

    def through(stage: Stage) -> int | None:
        record = _read(objects, plan, stage)
        if record is None or record.until is None:
            return None if record is None else 0
        gone = {parse_cell_id(cell) for cell in record.without}
        return min(record.cells, sum(when <= record.until and cell not in gone for cell, when in done.items()))

    check = read_check(objects, plan)
    state: Literal["", "alike", "tripped", "accepted"] = ""
    if check is not None:
        state = "alike" if not check.is_tripped else "accepted" if check.acceptances else "tripped"
    return YearStages(
        year=plan.year,
        planned=len(plan.cells),
        fetched=_fetched(objects, plan),
        checked=None if check is None else len(check.cells),
        drift=state,
        done=len(done),
        failed=len(aside),
        verified=through("verified"),
        collected=through("collected"),
        delivered=through("delivered"),
    )


def stage_table(years: Iterable[YearStages], *, reviewed: Mapping[int, str] | None = None) -> list[tuple[str, ...]]:
    """Rows for people, the first one with the names of the stages; a dash where nobody has begun.

    Parameters
    ----------
    years
        A row each.
    reviewed
        How far the review of a year is, where there is one.
    """
    head = "year", "planned", "fetched", "checked", "run", "failed", "verified", "collected", "reviewed", "delivered"
    rows: list[tuple[str, ...]] = [head]
    for one in years:
        counts = [one.fetched, one.checked, one.done, one.failed, one.verified, one.collected, one.delivered]
        told = ["-" if count is None else f"{count:,}" for count in counts]
        told[1] = f"{told[1]} {one.drift}".rstrip()
        told.insert(6, (reviewed or {}).get(one.year, "-"))
        rows.append((str(one.year), f"{one.planned:,}", *told))
    return rows


def _read(objects: ObjectStore, plan: CampaignPlan, stage: Stage) -> StageRecord | None:
    key = YearLayout(plan.year).stage(stage)
    content = objects.get(key)
    record = None if content is None else parsed_json(content, StageRecord, what=key, error=CampaignError)
    return record if record is not None and record.plan_digest == plan.digest else None


def _fetched(objects: ObjectStore, plan: CampaignPlan) -> int | None:
    """Cells in the store that was fetched last; None where there is none, or it is not reached from here."""
    record = _read(objects, plan, "fetched")
    if record is None:
        return None
    if not is_url(record.where) and not Path(record.where).is_dir():
        return None
    layout = FetchLayout.of_plan(plan.year, plan.digest)
    try:
        there = CampaignLedger(open_object_store(record.where, {}), layout).done()
    except (RtsxError, OSError):
        return None
    return len(there & plan.cells.places.keys())


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
