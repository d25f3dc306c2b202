"""The stages of each year of a campaign, counted in cells: fetched, checked, run, verified, collected, delivered.

What reads or packs all cells leaves a record of when it did: a cell that was made anew since is not among its own any more. Counts come
from listings and these records, so that they are fast, and agree with each other.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from rtsx.campaign.cells import Address
from rtsx.campaign.drift import read_check
from rtsx.campaign.layout import FetchLayout, YearLayout
from rtsx.campaign.ledger import CampaignLedger
from rtsx.campaign.plan import CampaignPlan
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
