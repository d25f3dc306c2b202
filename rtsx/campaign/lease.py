"""Leases: who is at work on a cell, so that two runs of one campaign do not do it twice.

Nothing is right because of a lease: two that hold one write the same bytes, and one mark wins. So a clock that is wrong or
a process that slept past its time costs work, and nothing else.
"""

import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from rtsx.campaign.cells import Address
from rtsx.campaign.layout import YearLayout
from rtsx.errors import CampaignError
from rtsx.grid.grid import cell_id
from rtsx.parsing import AwareDatetime, StoredRecord
from rtsx.storage.object_store import ObjectStore, create_generation

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
    over = threading.Event()

    def keep_renewing() -> None:
        mine: Lease | None = lease
        while mine is not None and not over.wait(lease_s / 3):
            # Whatever fails, because a lease that is not renewed only ends, and the next third may do better.
            with suppress(Exception):
                mine = renew(objects, layout, mine, lease_s=lease_s, clock=clock)

    thread = threading.Thread(target=keep_renewing, name=f"rtsx-lease-{cell_id(*cell)}", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        over.set()
        thread.join(_PATIENCE_S)
        with suppress(Exception):  # likewise: it ends by itself
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
        return Lease(
            cell=cell,
            generation=generation,
            run=run,
            holder=holder,
            taken=now,
            expires=now + timedelta(seconds=lease_s),
        )

    def is_taken(content: bytes) -> bool:
        other = _lease_or_none(content)
        return other is not None and other.run != run and other.expires > clock()

    made, theirs = create_generation(
        objects, lambda generation: layout.lease(cell, generation), document=mine, is_taken=is_taken
    )
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
    content = objects.get(layout.lease(lease.cell, lease.generation))
    stored = None if content is None else _lease_or_none(content)
    return stored is not None and stored.holder == lease.holder


def _lease_or_none(content: bytes) -> Lease | None:
    """Remove what is no lease: it holds nothing, and could never be given back."""
    try:
        return Lease.from_json(content)
    except CampaignError:
        return None
