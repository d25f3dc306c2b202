"""Whether a store can be trusted with a campaign: asked once, before the first cell, by doing what the campaign will do."""

import errno
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from rtsx.campaign.kinds import kind_of, service_code
from rtsx.campaign.objects import ObjectStore
from rtsx.errors import CampaignError, OutputNotWritableError, RtsxError

__all__ = ["probe_store"]

_FOLDER = "probes"
"""Where probes are written, below the output; empty afterwards."""
_WRITERS = 16
"""Writers at a time of one object; a store that checks and then writes lets several through."""
_ROUNDS = 2
"""Objects that they compete for."""
_GRAIN_S = 1.0
"""What S3 cuts its times to."""
_TOO_SKEWED = "RequestTimeTooSkewed"
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}

Clock = Callable[[], datetime]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def probe_store(objects: ObjectStore, *, lease_s: float, clock: Clock = _utc_now) -> None:
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
    stem = f"{_FOLDER}/{uuid.uuid4().hex}"
    with _told(str(objects)):
        objects.put(f"{stem}-write", b"")
        try:
            _probe_writing(objects, f"{stem}-write", lease_s=lease_s, clock=clock)
            _probe_creating(objects, stem)
        finally:
            with suppress(Exception):  # what is left are some bytes; the first error is the one to tell
                for key in (f"{stem}-write", *(f"{stem}-create-{number}" for number in range(_ROUNDS))):
                    objects.delete(key)


def _probe_writing(objects: ObjectStore, key: str, *, lease_s: float, clock: Clock) -> None:
    """An object that is there: replaced, listed, removed, and when."""
    content = uuid.uuid4().bytes
    before = clock()
    objects.put(key, content)
    after = clock()
    if objects.get(key) != content:
        raise CampaignError(
            f"{objects} gives back other bytes than were just written. A campaign needs a store that everybody sees alike; "
            "use another one, or switch off the cache before it."
        )
    listed = {found.key: found for found in objects.list(_FOLDER)}
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
                    "one (If-None-Match on S3, hard links on a disk): AWS S3, MinIO, Ceph, SeaweedFS, or a local disk."
                )


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Say what an error of a store means before the first cell."""
    try:
        yield
    except RtsxError:
        raise
    except Exception as error:
        raise _meaning(name, error) from error


def _meaning(name: str, error: Exception) -> RtsxError:
    code = service_code(error)
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if code == _TOO_SKEWED:
        return CampaignError(f"{name} refuses the clock of this machine ({said}). Set the clock (chrony, ntpd).")
    if code == "NoSuchBucket":
        return OutputNotWritableError(f"{name}: there is no such bucket ({said}). Create it, or correct the output.")
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"):
        return OutputNotWritableError(
            f"{name} does not know these credentials ({code}: {error}). Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
            "AWS_SESSION_TOKEN, or the profile."
        )
    if "Credentials" in type(error).__name__:
        return OutputNotWritableError(
            f"{name} needs credentials, and there are none ({said}). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a "
            "profile."
        )
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT) or code in ("QuotaExceeded", "XMinioStorageFull"):
        return OutputNotWritableError(f"{name} is full ({said}). Free space, or choose another output.")
    if number in _NO_LINKS and getattr(error, "filename2", None) is not None:
        return CampaignError(
            f"{name} knows no hard links ({said}), so no commit mark could be written by exactly one. Use a disk, NFS, "
            "Lustre or an object store."
        )
    if kind_of(error) == "passing":
        return CampaignError(f"{name} cannot be reached ({said}). Check the address, the network and the service.")
    return OutputNotWritableError(f"{name} cannot be written ({said}). Check the path and the rights to write there.")
