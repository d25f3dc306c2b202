"""The stages of each year of a campaign, counted in cells: fetched, checked, run, verified, collected, delivered; and verifying it.

What reads or packs all cells leaves a record of when it did: a cell that was made anew since is not among its own any more. Counts come
from listings and these records, so that they are fast, and agree with each other.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

from rtsx.campaign.cells import Address
from rtsx.campaign.drift import read_check
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, map_in_threads
from rtsx.campaign.plan import CampaignPlan
from rtsx.errors import CampaignError, RtsxError
from rtsx.grid.grid import cell_id, parse_cell_id
from rtsx.pages import render_text
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
    _write(objects, plan, record, stage=stage)


def note_damage(objects: ObjectStore, plan: CampaignPlan, cells: Sequence[Address]) -> None:
    """Take cells that were found damaged from those that were verified."""
    record = _read(objects, plan, "verified")
    if record is not None and cells:
        bad = {*record.without, *(cell_id(*cell) for cell in cells)}
        _write(objects, plan, replace(record, without=tuple(sorted(bad))), stage="verified")


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
        return None if record is None else min(record.cells, len(_cells_of(record, done)))

    check = read_check(objects, plan)
    return YearStages(
        year=plan.year,
        planned=len(plan.cells),
        fetched=_fetched(objects, plan),
        checked=None if check is None else len(check.cells),
        drift="" if check is None else check.state,
        done=len(done),
        failed=len(aside),
        verified=through("verified"),
        collected=through("collected"),
        delivered=through("delivered"),
    )


def copy_stages(
    plan: CampaignPlan,
    records: Mapping[Stage, StageRecord],
    *,
    source: ObjectStore,
    target: ObjectStore,
    without: Iterable[Address],
) -> None:
    """Record in a copy which stages its cells have come through, by the times of its own marks.

    A record of the copy that covers as many cells stays; that of `collected` goes with the products, which are the campaign's.

    Parameters
    ----------
    plan
        Of the year.
    records
        What `stage_records` has read of the campaign before it was copied.
    source, target
        The campaign, and the copy that has its cells.
    without
        Cells that the copy has made by itself.
    """
    here, there = (CampaignLedger(objects, YearLayout(plan.year)).moments() for objects in (source, target))
    own, before = {*without}, stage_records(target, plan)
    for stage, record in records.items():
        gone = own | there.keys() - _cells_of(record, here)
        if stage == "fetched":
            note_stage(target, plan, stage, marked={}, where=record.where)
            continue
        kept = set[Address]() if stage == "collected" or stage not in before else _cells_of(before[stage], there)
        if not kept or len(kept) < len(there.keys() - gone):
            note_stage(target, plan, stage, marked=there, without=gone)


def stage_records(objects: ObjectStore, plan: CampaignPlan) -> dict[Stage, StageRecord]:
    """Read the records of all stages that were begun; damaged ones, of which `year_stages` tells, are left out."""
    found: dict[Stage, StageRecord] = {}
    for stage in get_args(Stage):
        with suppress(CampaignError):
            record = _read(objects, plan, stage)
            found |= {} if record is None else {stage: record}
    return found


def _cells_of(record: StageRecord, marked: Mapping[Address, datetime]) -> set[Address]:
    """Return the cells that a stage was done for, and that were not made anew since."""
    gone = {parse_cell_id(cell) for cell in record.without}
    return {cell for cell, when in marked.items() if record.until is not None and when <= record.until} - gone


def stage_table(years: Iterable[YearStages], *, reviewed: Mapping[int, str] | None = None) -> list[tuple[str, ...]]:
    """Return rows for people, the first one with the names of the stages; a dash where nobody has begun.

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
        columns = ["-" if count is None else f"{count:,}" for count in counts]
        columns[1] = f"{columns[1]} {one.drift}".rstrip()
        columns.insert(6, (reviewed or {}).get(one.year, "-"))
        rows.append((str(one.year), f"{one.planned:,}", *columns))
    return rows


def _write(objects: ObjectStore, plan: CampaignPlan, record: StageRecord, *, stage: Stage) -> None:
    with suppress(OSError):  # a read-only disk, missing rights, or a service that does not answer
        objects.put(YearLayout(plan.year).stage(stage), record.to_json().encode())


def _read(objects: ObjectStore, plan: CampaignPlan, stage: Stage) -> StageRecord | None:
    key = YearLayout(plan.year).stage(stage)
    content = objects.get(key)
    record = None if content is None else parsed_json(content, StageRecord, what=key, error=CampaignError)
    return record if record is not None and record.plan_digest == plan.digest else None


def _fetched(objects: ObjectStore, plan: CampaignPlan) -> int | None:
    """Return cells in the store that was fetched last; None where there is none, or it is not reached from here."""
    record = _read(objects, plan, "fetched")
    if record is None or not (is_url(record.where) or Path(record.where).is_dir()):
        return None
    layout = YearLayout.of_fetched(plan.year, plan.digest)
    try:
        return len(CampaignLedger(open_object_store(record.where, {}), layout).done() & plan.cells.places.keys())
    except (RtsxError, OSError):
        return None


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
    coordinates: Mapping[str, str] = field(default_factory=dict)
    """What is wrong with coordinates of the map, by the key of their array."""

    @property
    def cells(self) -> tuple[Address, ...]:
        """Cells that have to be run again, sorted."""
        return tuple(sorted({*self.missing, *self.damaged, *self.unreadable}))

    @property
    def is_sound(self) -> bool:
        """Whether everything is as it was written."""
        return not self.cells and not self.coordinates

    def __str__(self) -> str:
        """Say it in a line, and name some of the cells."""

        def faults(cell: Address) -> list[str]:
            missing, damaged = self.missing.get(cell, ()), self.damaged.get(cell, ())
            found = [*(f"missing {key}" for key in missing), *(f"damaged {key}" for key in damaged)]
            return [*found, self.unreadable[cell]] if cell in self.unreadable else found

        facts = {"of": self, "shown": _SHOWN, "faults": faults, "cell_id": cell_id}
        return render_text("verification.txt", facts)


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
    missing, damaged = defaultdict[Address, list[str]](list), defaultdict[Address, list[str]](list)
    unreadable: dict[Address, str] = {}

    def looked_at(cell: Address) -> tuple[int, int] | None:
        """Return objects of a cell, and their bytes; None without a mark."""
        try:
            mark = ledger.mark(cell)
        except CampaignError as error:
            unreadable[cell] = str(error)
            return 0, 0
        if mark is None:
            return None
        n_bytes = 0
        for key, digest in sorted(mark.objects.items()):
            content = objects.get(key)
            if content is None:
                missing[cell].append(key)
            elif sha256(content).hexdigest() != digest:
                damaged[cell].append(key)
            n_bytes += len(content or b"")
        return len(mark.objects), n_bytes

    n_cells = n_objects = n_bytes = 0
    for read in map_in_threads(looked_at, ledger.done() if cells is None else cells, threads=_THREADS):
        if read is not None:
            n_cells, n_objects, n_bytes = n_cells + 1, n_objects + read[0], n_bytes + read[1]
    return Verification(
        n_cells=n_cells,
        n_objects=n_objects,
        n_bytes=n_bytes,
        missing={cell: tuple(keys) for cell, keys in missing.items()},
        damaged={cell: tuple(keys) for cell, keys in damaged.items()},
        unreadable=unreadable,
    )
