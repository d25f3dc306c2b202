"""Locks between processes, on a disk or an object store: whoever looks at something and then changes it is alone meanwhile."""

import fcntl
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtsx.errors import OutputExistsError, OutputNotWritableError
from rtsx.storage.diagnosis import write_failures
from rtsx.storage.object_store import create_generation, open_object_store
from rtsx.storage.paths import is_url, local_path
from rtsx.threads import repeated

_LOCK_S = 120
"""Seconds after its last sign of life at which a process that holds a lock on an object store counts as dead; twice what the clocks of two
machines of a campaign may differ by."""
_LOOK_S = 0.5
"""Seconds between two looks at a lock that another holds."""
_SILENT_S = 5.0
"""Seconds of waiting that nobody is told of."""


@contextmanager
def turn(
    target: str, options: Mapping[str, Any], *, what: str, pause: Callable[[float], None] | None = None
) -> Iterator[None]:
    """Hold the lock of something during the block; waits for whoever has it. Who may not write there holds none.

    Parameters
    ----------
    target
        Path or URL; nothing need be there. The lock is as that of `exclusive_lock`.
    options
        Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.
    what
        What the other does, for the warning.
    pause
        Waits so many seconds; None to sleep.

    Warns
    -----
    RuntimeWarning
        It takes more than some seconds.
    """
    with ExitStack() as stack:
        begun: float | None = time.monotonic()
        while True:
            try:
                stack.enter_context(exclusive_lock(target, options))
                break
            except OutputExistsError:
                if begun is not None and time.monotonic() - begun > _SILENT_S:
                    begun = None  # told once
                    dead = f" One that was killed counts no more after {_LOCK_S} s." if is_url(target) else ""
                    warnings.warn(
                        f"Another process {what}; this one waits until it is done.{dead}", RuntimeWarning, stacklevel=3
                    )
                (pause or _pause)(_LOOK_S)
            except OutputNotWritableError:  # so nothing can be changed there
                break
        yield


_pause = time.sleep


def is_lock(key: str) -> bool:
    """Test whether an object is a lock, which nobody who copies or lists wants.

    Examples
    --------
    >>> is_lock("years/2024/review/.review.lock"), is_lock("plan.lock/000001"), is_lock("years/2024/plan.json")
    (True, True, False)
    """
    return _LOCK_KEY.search(key) is not None


_LOCK_KEY = re.compile(r"(?:^|/)(?:\.[^/]+\.lock|[^/]+\.lock/\d{6})$")


@contextmanager
def exclusive_lock(target: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Keep others from making or replacing the same thing: look at it, and change it, only within.

    A local one has a lock beside it that ends with its process; one behind a URL has objects beside it that are renewed,
    and count for nothing once they were not for a while.

    Raises
    ------
    OutputExistsError
        Somebody else is at it.
    """
    if is_url(target):
        with _alone_remote(target, options):
            yield
        return
    folder = local_path(target)
    lock = folder.with_name(f".{folder.name}.lock")
    made = [parent for parent in folder.parents if not parent.exists()]
    handle = _locked(lock, folder, target=target)
    try:
        yield
    finally:
        if handle is not None:
            with suppress(OSError):
                lock.unlink()  # before it is let go, so that whoever waits for the name gets a new one
            os.close(handle)
        for parent in made:
            with suppress(OSError):  # not empty, as it should be
                parent.rmdir()


def _locked(lock: Path, folder: Path, *, target: str) -> int | None:
    """Return the handle of a locked file; None where there can be no lock."""
    while True:
        # That of another user may be held and not written; where nothing can be begun or removed, the store itself will do, if it is there.
        ways = ((lock, os.O_CREAT | os.O_RDWR), (lock, os.O_RDONLY), (folder, os.O_RDONLY))
        with suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)
        for name, flags in ways:
            with suppress(OSError):
                handle = os.open(name, flags, 0o644)
                break
        else:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise OutputExistsError(f"{target} is being built by another process. Wait for it, or stop it.") from error
        except OSError:
            return handle  # a file system that knows no locks
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), name.stat()):
                return handle
        os.close(handle)  # removed by whoever held it, between opening and locking


@dataclass(frozen=True)
class _SignOfLife:
    """What whoever holds a lock on an object store writes down from time to time: the time."""

    generation: int

    def to_json(self) -> str:
        return str(time.time())


@contextmanager
def _alone_remote(target: str, options: Mapping[str, Any]) -> Iterator[None]:
    objects, key = open_object_store(f"{target.rstrip('/')}.lock", options), "{:06d}".format

    def is_alive(said: bytes) -> bool:
        return time.time() - float(said) < _LOCK_S

    with write_failures(target):
        sign, other = create_generation(objects, key, document=_SignOfLife, is_taken=is_alive)
    if other is not None:
        raise OutputExistsError(
            f"{target} is being built by another process, which said so {time.time() - float(other):.0f} s ago. Wait for it, "
            f"or stop it; one that was killed counts no more after {_LOCK_S} s."
        )

    def renew() -> None:
        objects.put(key(sign.generation), sign.to_json().encode())

    try:
        with repeated(renew, every_s=_LOCK_S / 4, name="rtsx-lock", patience_s=_LOCK_S / 4):
            yield
    finally:
        for number in range(1, sign.generation + 1):
            with suppress(Exception):  # it ends by itself
                objects.delete(key(number))
