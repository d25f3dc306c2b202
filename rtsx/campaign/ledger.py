"""The ledger of a year: cells that are done, set aside or leased, runs, and prices; read and written by any machine.

Nothing is right because of a lease: two that hold one write the same bytes, and one mark wins. So a clock that is wrong or
a process that slept past its time costs work, and nothing else.
"""

import json
import os
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import TypeVar

from rtsx.campaign.cells import Address
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.recipe import Prices
from rtsx.campaign.records import CommitRecord, Failure, RunRecord
from rtsx.errors import CampaignError, GridError
from rtsx.grid.grid import cell_id
from rtsx.parsing import AwareDatetime, StoredRecord, parsed_json
from rtsx.storage.object_store import ObjectStore, StoredObject, create_generation
from rtsx.threads import repeated

_PATIENCE_S = 5.0
"""Seconds that the end of a cell waits for a renewal that is under way."""


class LeaseTaken(CampaignError):  # noqa: N818 - not a fault: somebody else is doing the work
    """Another run is at work on a cell."""

    def __init__(self, message: str, *, free_after_s: float) -> None:
        super().__init__(message)
        self.free_after_s = free_after_s
        """Seconds until the lease ends, unless it is renewed."""


@dataclass(frozen=True, kw_only=True)
class Lease(StoredRecord):
    """One lease of one cell.

    Examples
    --------
    >>> when = datetime(2024, 7, 1, tzinfo=UTC)
    >>> lease = Lease(cell=(0, -1), generation=1, run="a", holder="node7-41-9f", taken=when, expires=when)
    >>> Lease.from_json(lease.to_json()) == lease
    True
    """

    what = "This is no lease"
    raises = CampaignError
    cell: Address
    """Row and column of the cell."""
    generation: int
    """How many leases of this cell were there when it was taken, with this one."""
    run: str
    """Id of the run."""
    holder: str
    """Host, process and a word that no other holder has."""
    taken: AwareDatetime
    """When, UTC."""
    expires: AwareDatetime
    """When another run may take the cell, UTC."""


def utc_now() -> datetime:
    """Read the clock of this machine."""
    return datetime.now(UTC)


Clock = Callable[[], datetime]


@contextmanager
def held(
    objects: ObjectStore, layout: YearLayout, cell: Address, *, run: str, lease_s: float, clock: Clock = utc_now
) -> Iterator[Lease]:
    """Hold a cell during the block; renewed in another thread, and given back at its end, however it ends.

    Look whether the cell has a mark after taking it: who held it before may have finished it meanwhile.

    Parameters
    ----------
    objects
        The objects of the output.
    layout
        Keys of the year.
    cell
        Which.
    run
        Id of the run; a lease of the same run is taken over at once, because its worker is lost.
    lease_s
        Seconds after its last renewal at which another run may take it.
    clock
        Tells the time, UTC.

    Raises
    ------
    LeaseTaken
        Another run holds it.
    """
    lease = acquire(objects, layout, cell, run=run, lease_s=lease_s, clock=clock)
    renewed, name = partial(renew, objects, layout, lease, lease_s=lease_s, clock=clock), f"rtsx-lease-{cell_id(*cell)}"
    try:
        with repeated(renewed, every_s=lease_s / 3, name=name, patience_s=_PATIENCE_S):
            yield lease
    finally:
        with suppress(Exception):  # a lease that is not given back ends by itself
            _give_back(objects, layout, lease)


def acquire(
    objects: ObjectStore, layout: YearLayout, cell: Address, *, run: str, lease_s: float, clock: Clock = utc_now
) -> Lease:
    """Take a cell: its first lease, or the one after those that have ended or belong to the same run.

    Raises
    ------
    LeaseTaken
        Another run holds it.
    """
    holder = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"

    def mine(generation: int) -> Lease:
        now = clock()
        expires = now + timedelta(seconds=lease_s)
        return Lease(cell=cell, generation=generation, run=run, holder=holder, taken=now, expires=expires)

    def is_taken(content: bytes) -> bool:
        other = _lease_or_none(content)
        return other is not None and other.run != run and other.expires > clock()

    made, theirs = create_generation(objects, partial(layout.lease, cell), document=mine, is_taken=is_taken)
    if theirs is not None:
        other = Lease.from_json(theirs)
        raise LeaseTaken(
            f"Cell {cell_id(*cell)} is being run by {other.holder} in run {other.run} until {other.expires:%H:%M:%S} UTC. "
            "Wait for it; if that run is dead, the cell is free then.",
            free_after_s=(other.expires - clock()).total_seconds(),
        )
    return made


def renew(
    objects: ObjectStore, layout: YearLayout, lease: Lease, *, lease_s: float, clock: Clock = utc_now
) -> Lease | None:
    """Renew a lease; None where it is not this holder's any more, and nothing is written then."""
    if not _is_there(objects, layout, lease):
        return None
    later = replace(lease, expires=clock() + timedelta(seconds=lease_s))
    objects.put(layout.lease(lease.cell, lease.generation), later.to_json().encode())
    return later


def _give_back(objects: ObjectStore, layout: YearLayout, lease: Lease) -> None:
    """Remove a lease and the ended ones before it."""
    if _is_there(objects, layout, lease):
        # The oldest first, because whoever comes in between begins at the first, and shall find it free or taken.
        for generation in range(1, lease.generation + 1):
            objects.delete(layout.lease(lease.cell, generation))


def _is_there(objects: ObjectStore, layout: YearLayout, lease: Lease) -> bool:
    stored = _lease_or_none(objects.get(layout.lease(lease.cell, lease.generation)))
    return stored is not None and stored.holder == lease.holder


def _lease_or_none(content: bytes | None) -> Lease | None:
    """Remove what is no lease: it holds nothing, and could never be given back."""
    try:
        return None if content is None else Lease.from_json(content)
    except CampaignError:
        return None


_T = TypeVar("_T")
_U = TypeVar("_U")
_R = TypeVar("_R", bound=StoredRecord)


@dataclass(frozen=True)
class CampaignLedger:
    """Marks, failures and leases of one year. Holds nothing: every question asks the store.

    Examples
    --------
    >>> from rtsx.storage.object_store import MemoryObjects
    >>> ledger = CampaignLedger(MemoryObjects(), YearLayout(2024))
    >>> ledger.done(), ledger.failures(), ledger.mark((0, 0))
    (set(), {}, None)
    """

    objects: ObjectStore
    """The objects of the output."""
    layout: YearLayout
    """Keys of the year."""

    def done(self) -> set[Address]:
        """List the cells that have a commit record; reads none."""
        return {cell for cell, _ in self._listed(self.layout.marks)}

    def moments(self) -> dict[Address, datetime]:
        """List when each commit record was written, by the store's own clock; reads none."""
        return {cell: found.changed for cell, found in self._listed(self.layout.marks)}

    def mark(self, cell: Address) -> CommitRecord | None:
        """Read the commit record of a cell; None where it has none.

        Raises
        ------
        CampaignError
            What is there is no mark of this cell.
        """
        key = self.layout.mark(cell)
        mark = self._record(CommitRecord, key)
        if mark is not None and mark.cell != cell:
            raise CampaignError(
                f"{self.objects}/{key} is the mark of cell {mark.cell}, not of {cell}: somebody has moved it. Remove it, "
                "and run the campaign again."
            )
        return mark

    def marks(
        self, cells: Iterable[Address] | None = None, *, damaged: list[str] | None = None
    ) -> Iterator[CommitRecord]:
        """Return marks in no order; many are read at a time, and few held.

        Parameters
        ----------
        cells
            Whose; those without a mark are left out. None for all.
        damaged
            Receives what is wrong with those that are none; None makes that an error.

        Raises
        ------
        CampaignError
            One of them is no mark.
        """
        return _found(self.mark, self.done() if cells is None else cells, damaged=damaged)

    def commit(self, mark: CommitRecord) -> bool:
        """Say that a cell is done, after all that its mark names is written; False where it was done already."""
        return self.objects.create(self.layout.mark(mark.cell), mark.to_json().encode())

    def retire(self, cell: Address) -> None:
        """Take the mark from a cell, so that it is run again; the mark is kept among the retired ones."""
        key = self.layout.mark(cell)
        content = self.objects.get(key)
        if content is None:
            return
        # Kept first, because a process may end between the two; the name says what is in it, so twice is once.
        self.objects.put(self.layout.retirement(cell, sha256(content).hexdigest()), content)
        self.objects.delete(key)

    def quarantine(self, failure: Failure) -> None:
        """Keep a cell from being tried until it is forgiven; a later failure replaces an earlier one."""
        self.objects.put(self.layout.failure(failure.cell), failure.to_json().encode())

    def failures(self, *, damaged: list[str] | None = None) -> dict[Address, Failure]:
        """Read why cells were set aside.

        Parameters
        ----------
        damaged
            Receives what is wrong with records that are none; None makes that an error.

        Raises
        ------
        CampaignError
            One of the records is none.
        """
        keys = map(self.layout.failure, self.set_aside_cells())
        return {failure.cell: failure for failure in self.records(Failure, keys, damaged=damaged)}

    def set_aside_cells(self) -> set[Address]:
        """List the cells that were set aside; reads none."""
        return {cell for cell, _ in self._listed(self.layout.failures)}

    def reset(self, cells: Iterable[Address] | None = None) -> int:
        """Let cells be tried again; how many of them had been set aside.

        Parameters
        ----------
        cells
            Which; None for all.
        """
        there = self.set_aside_cells()
        forgiven = there if cells is None else there & set(cells)
        for _ in map_in_threads(lambda cell: self.objects.delete(self.layout.failure(cell)), forgiven):
            pass
        return len(forgiven)

    def leases(self, *, damaged: list[str] | None = None) -> dict[Address, Lease]:
        """Read the newest lease of every cell that has one; whether it has expired is for the reader's clock to say.

        Parameters
        ----------
        damaged
            As for `failures`.
        """
        keys = [found.key for found in self.objects.list(self.layout.leases)]
        found = sorted(self.records(Lease, keys, damaged=damaged), key=lambda lease: lease.generation)
        return {lease.cell: lease for lease in found}

    def held_cells(self, *, lease_s: float) -> set[Address]:
        """List the cells that somebody holds; reads only leases that nobody has renewed for half of `lease_s`, which a living holder does."""
        now, held, old = utc_now(), set[Address](), list[str]()
        for cell, found in self._listed(self.layout.leases):
            if (now - found.changed).total_seconds() < lease_s / 2:
                held.add(cell)
            else:
                old.append(found.key)
        return held | {lease.cell for lease in self.records(Lease, old, damaged=[]) if lease.expires > now}

    def runs(self, *, damaged: list[str] | None = None) -> tuple[RunRecord, ...]:
        """Read the records of all runs, the oldest first.

        Parameters
        ----------
        damaged
            As for `failures`.
        """
        keys = [found.key for found in self.objects.list(self.layout.runs)]
        return tuple(sorted(self.records(RunRecord, keys, damaged=damaged), key=lambda run: (run.started, run.run)))

    def note_run(self, record: RunRecord) -> None:
        """Write the record of a run, or write it anew."""
        self.objects.put(self.layout.run_record(record.run), record.to_json().encode())

    def records(self, kind: type[_R], keys: Iterable[str], *, damaged: list[str] | None) -> Iterator[_R]:
        """Read the records at some keys; those that are gone are left out, and `damaged` is as for `failures`."""
        return _found(lambda key: self._record(kind, key), keys, damaged=damaged)

    def _record(self, kind: type[_R], key: str) -> _R | None:
        content = self.objects.get(key)
        try:
            return None if content is None else kind.from_json(content)
        except CampaignError as error:
            raise CampaignError(
                f"{key} cannot be read: {error} Verify the campaign to see what else is damaged."
            ) from error

    def _listed(self, folder: str) -> Iterator[tuple[Address, StoredObject]]:
        """List the cells that have an object in a folder; what has another name is nobody's."""
        for found in self.objects.list(folder):
            try:
                cell = self.layout.address_of(found.key)
            except GridError:
                continue
            if found.key.endswith(".json"):
                yield cell, found


def _found(read: Callable[[_T], _U | None], wanted: Iterable[_T], *, damaged: list[str] | None) -> Iterator[_U]:
    """Read what is there; what is damaged is listed and left out, or an error without a list."""

    def spared(one: _T) -> _U | None:
        try:
            return read(one)
        except CampaignError as error:
            if damaged is None:
                raise
            damaged.append(str(error))
            return None

    return (found for found in map_in_threads(spared, wanted) if found is not None)


def map_in_threads(work: Callable[[_T], _U], wanted: Iterable[_T], *, threads: int = 16) -> Iterator[_U]:
    """Yield results in the order of what is wanted, so many worked on at a time, and few of them held.

    Batches, instead of all at once, so that a million results are never held, and after an error no long queue is worked off.
    """
    left = iter(wanted)
    with ThreadPoolExecutor(threads, "rtsx-campaign") as pool:
        while batch := list(islice(left, 32 * threads)):
            yield from pool.map(work, batch)


_FOLDER = "settings"
"""Apart from the years' own folders, because one short listing of it tells which years there are."""


def write_prices(objects: ObjectStore, prices: Prices, *, year: int) -> None:
    """Keep the prices of a year, in place of those that were there."""
    objects.put(settings_key(year), json.dumps({"prices": asdict(prices)}, sort_keys=True).encode())


def read_prices(objects: ObjectStore, *, year: int) -> Prices:
    """Return prices of a year; none where nobody has said.

    Raises
    ------
    CampaignError
        The file is not what `write_prices` writes.
    """
    content = objects.get(settings_key(year))
    if content is None:
        return Prices()
    return parsed_json(content, dict[str, Prices], what=settings_key(year), error=CampaignError).get("prices", Prices())


def planned_years(objects: ObjectStore) -> list[int]:
    """Return years that were planned, in order."""
    names = (stored.key.rsplit("/", 1)[-1].removesuffix(".json") for stored in objects.list(_FOLDER))
    return sorted(int(name) for name in names if name.isdecimal())


def settings_key(year: int) -> str:
    """Return the key of the prices of a year, which is also what lists the year."""
    return f"{_FOLDER}/{year}.json"
