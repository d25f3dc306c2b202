"""What is refused before the first cell: sources without images, stores that cannot be trusted, disks and workers without room."""

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain, islice

import xarray as xr

from rtsx.campaign.cell_input import CellNotFetchedError
from rtsx.campaign.cells import Address, CellTable
from rtsx.campaign.ledger import Clock, utc_now
from rtsx.cube import CubeRecipe, open_source
from rtsx.errors import CampaignError, NoImageError, OutputNotWritableError, RtsxError
from rtsx.storage import cloud_of, is_url, local_path
from rtsx.storage.object_store import ObjectStore
from rtsx.storage.retry import NO_BUCKET, classify_error, is_denied, service_code

PROBES = "probes"
"""Where probes are written, below the output; empty afterwards."""
_WRITERS = 16
"""Writers at a time of one object; a store that checks and then writes lets several through."""
_ROUNDS = 2
"""Objects that they compete for."""
_GRAIN_S = 1.0
"""What S3 cuts its times to."""
_TOO_SKEWED = "RequestTimeTooSkewed"
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def check_object_store(objects: ObjectStore, *, lease_s: float, clock: Clock = utc_now) -> None:
    """Write, read, create, list and remove some small objects, and compare clocks.

    Parameters
    ----------
    objects
        The objects of the output.
    lease_s
        How long leases last, s; a quarter of it is how far this machine's clock may be from the store's.
    clock
        Tells this machine's time, UTC.

    Raises
    ------
    OutputNotWritableError
        The store cannot be written: rights, credentials, a bucket that is not there, no space.
    CampaignError
        It cannot be reached, does not keep conditional writes, forgets what was written, or has another time.
    """
    stem = f"{PROBES}/{uuid.uuid4().hex}"
    with _store_failures(str(objects)):
        objects.put(f"{stem}-write", b"")
        try:
            _probe_writing(objects, f"{stem}-write", lease_s=lease_s, clock=clock)
            _probe_creating(objects, stem)
        finally:
            with suppress(Exception):  # what is left are some bytes; the first error is the one to tell
                for key in (f"{stem}-write", *(f"{stem}-create-{number}" for number in range(_ROUNDS))):
                    objects.delete(key)


def _probe_writing(objects: ObjectStore, key: str, *, lease_s: float, clock: Clock) -> None:
    """Probe an object that is there: replaced, listed, removed, and when."""
    content = uuid.uuid4().bytes
    before = clock()
    objects.put(key, content)
    after = clock()
    if objects.get(key) != content:
        raise CampaignError(
            f"{objects} gives back other bytes than were just written. A campaign needs a store that everybody sees alike; "
            "use another one, or switch off the cache before it."
        )
    listed = {found.key: found for found in objects.list(PROBES)}
    if key not in listed:
        raise CampaignError(
            f"{objects} does not list what was just written, so no mark could be found. Use another store."
        )
    early = (before - listed[key].changed).total_seconds() - _GRAIN_S
    late = (listed[key].changed - after).total_seconds()
    skew = max(early, late)
    if skew > lease_s / 4:
        raise CampaignError(
            f"The clock of this machine is {skew:.0f} s {'ahead of' if early > late else 'behind'} that of {objects}; leases "
            f"of {lease_s:g} s bear {lease_s / 4:g} s. Set the clock (chrony, ntpd), or make lease_s longer."
        )
    for old in listed.values():  # of processes that were killed
        if (listed[key].changed - old.changed).total_seconds() > lease_s:
            objects.delete(old.key)
    objects.delete(key)
    if objects.get(key) is not None:
        raise CampaignError(f"{objects} still gives an object that was removed. Use another store.")


def _probe_creating(objects: ObjectStore, stem: str) -> None:
    """Several writers create one object at a time: one wins, its bytes are there, and nobody wins afterwards."""
    with ThreadPoolExecutor(_WRITERS, "rtsx-probe") as threads:
        for number in range(_ROUNDS):
            key = f"{stem}-create-{number}"
            words = [f"{writer} {uuid.uuid4().hex}".encode() for writer in range(_WRITERS)]
            won = list(threads.map(lambda word, key=key: objects.create(key, word), words))
            winners = [word for word, is_first in zip(words, won, strict=True) if is_first]
            if len(winners) != 1 or objects.get(key) != winners[0] or objects.create(key, b"late"):
                raise CampaignError(
                    f"{objects} does not keep conditional writes: {len(winners)} of {_WRITERS} writers that created one "
                    "object at the same time were told that they were first. Commit marks need a store that refuses all but "
                    "one (If-None-Match on S3, hard links on a disk): AWS S3, MinIO, Ceph, SeaweedFS, Google Cloud Storage, Azure Blob "
                    "Storage, or a local disk."
                )


@contextmanager
def _store_failures(name: str) -> Iterator[None]:
    """Say what an error of a store means before the first cell."""
    try:
        yield
    except OutputNotWritableError as error:
        if error.__cause__ is None or isinstance(error.__cause__, FileNotFoundError):
            raise
        raise _meaning(name, error.__cause__) from error.__cause__
    except RtsxError:
        raise
    except Exception as error:
        raise _meaning(name, error) from error


def _meaning(name: str, error: BaseException) -> RtsxError:
    code = service_code(error)
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if type(error) is OSError and error.__cause__ is not None:  # which the store has made of the service's own
        said = str(error)
    if code == _TOO_SKEWED:
        return CampaignError(f"{name} refuses the clock of this machine ({said}). Set the clock (chrony, ntpd).")
    if code in NO_BUCKET:
        return OutputNotWritableError(f"{name}: there is no such bucket ({said}). Create it, or correct the output.")
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"):
        return OutputNotWritableError(
            f"{name} does not know these credentials ({code}: {error}). Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
            "AWS_SESSION_TOKEN, or the profile."
        )
    cloud = cloud_of(name)
    if cloud is not None and "Credential" in said.partition(":")[0]:
        return OutputNotWritableError(
            f"{name} needs credentials, and there are none ({said}). Set {cloud.credentials}."
        )
    if cloud is not None and cloud.name != "s3" and is_denied(error):
        return OutputNotWritableError(
            f"{name} does not take these credentials ({said}). Set {cloud.credentials}; or ask for the right to write there."
        )
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT) or code in ("QuotaExceeded", "XMinioStorageFull"):
        return OutputNotWritableError(f"{name} is full ({said}). Free space, or choose another output.")
    if number in _NO_LINKS and getattr(error, "filename2", None) is not None:
        return CampaignError(
            f"{name} knows no hard links ({said}), so no commit mark could be written by exactly one. Use a disk, NFS, "
            "Lustre or an object store."
        )
    if classify_error(error) == "passing":
        return CampaignError(f"{name} cannot be reached ({said}). Check the address, the network and the service.")
    return OutputNotWritableError(f"{name} cannot be written ({said}). Check the path and the rights to write there.")


MOST = 64
"""Cells that are looked at before a region counts as one without images."""


def sampled(cells: CellTable, *, most: int = MOST) -> Iterator[Address]:
    """Yield some cells, spread over all of them, each once; far ones first, because neighbours tell the same.

    Examples
    --------
    >>> import numpy as np
    >>> list(sampled(CellTable(np.array([[0, 0], [0, 1], [0, 2], [0, 3]], np.int32)), most=3))
    [(0, 2), (0, 1), (0, 3)]
    """
    count = len(cells)
    seen: set[int] = set()
    parts = 2
    while len(seen) < min(most, count):
        for number in range(1, parts, 2):
            place = count * number // parts
            if place not in seen and len(seen) < most:
                seen.add(place)
                iy, ix = cells.addresses[place].tolist()
                yield iy, ix
        parts *= 2


def opened_sample(
    recipe: CubeRecipe | Callable[[Address], CubeRecipe],
    cells: CellTable,
    *,
    likely: Iterable[Address] = (),
    most: int = MOST,
) -> xr.Dataset:
    """Return the lazy cube of the first of some sampled cells whose sources all have images; reads no pixel.

    Parameters
    ----------
    recipe
        Layers, and the grid of the cells; or what gives it for a cell.
    cells
        Cells of the campaign.
    likely
        Cells that are known to have some image, asked for only where none of the others has all.
    most
        Cells that are tried, of either.

    Raises
    ------
    CampaignError
        A required source has no image of any of them.
    CubeError
        A source cannot be asked, or its images do not fit together.
    """
    missing: NoImageError | CellNotFetchedError | None = None
    for iy, ix in chain(sampled(cells, most=most), islice(likely, most)):
        try:
            cube = recipe((iy, ix)) if callable(recipe) else recipe
            return open_source(cube, cube.grid[iy, ix])
        except (NoImageError, CellNotFetchedError) as error:
            missing = error
    tried = f"the campaign's {len(cells)} cells"
    if len(cells) > most:
        tried = f"{most} of {tried}, spread over all of them,"
    raise CampaignError(
        f"None of {tried} has images of every required source. The last answer was: {missing} Look at the year and the dates, or narrow the region to the ground of the images."
    ) from missing


_GB = 1e9


def require_space(output: str, n_bytes: int) -> None:
    """Refuse a disk that has no room; of an object store nobody knows.

    Parameters
    ----------
    output
        Folder, which need not be there yet, or URL.
    n_bytes
        Bytes that are needed in any case.

    Raises
    ------
    OutputNotWritableError
        The disk has less, or the folder cannot be written.
    """
    if is_url(output):
        return
    folder = local_path(output)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise OutputNotWritableError(
            f"{output} cannot be written: {there} is no folder that you may write to. Choose another output."
        )
    free = shutil.disk_usage(there).free
    if free < n_bytes:
        raise OutputNotWritableError(
            f"{output} needs {n_bytes / _GB:,.1f} GB, and its disk has {free / _GB:,.1f} GB left. Free space, or choose "
            "another output."
        )
