"""Who has to wait for a lock, and who has not."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from rtsx.errors import OutputExistsError
from rtsx.storage import lock
from rtsx.storage.lock import exclusive_lock, turn


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_one_waits_for_the_other_and_says_so(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = str(tmp_path / "thing") if place == "disk" else "memory://locks/thing"
    done, is_waiting = list[str](), Event()
    monkeypatch.setattr(lock, "_SILENT_S", -1.0)
    monkeypatch.setattr(lock, "_pause", lambda _: is_waiting.set())

    def other() -> None:
        with (
            pytest.warns(RuntimeWarning, match="Another process draws; this one waits") as warned,
            turn(target, {}, what="draws"),
        ):
            done.append("other")
        assert ("killed counts no more after 120 s" in str(warned[0].message)) == (place == "memory")

    with ThreadPoolExecutor(1) as pool:
        with turn(target, {}, what="draws"):
            waits = pool.submit(other)
            is_waiting.wait(30)
            done.append("first")
        waits.result()
    assert done == ["first", "other"]
    assert not any(tmp_path.iterdir())


def test_who_may_not_write_holds_none(without_rights: Path) -> None:
    with turn(str(without_rights / "a"), {}, what="draws"), turn(str(without_rights / "a"), {}, what="draws"):
        pass


def test_the_lock_of_another_user_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def as_another(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "not yours", str(path))
        return opened(path, flags, *mode)

    with exclusive_lock(str(tmp_path / "a"), {}):
        monkeypatch.setattr(os, "open", as_another)
        with pytest.raises(OutputExistsError, match="by another process"), exclusive_lock(str(tmp_path / "a"), {}):
            pass


def test_an_error_within_a_turn_is_that_error(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="mine"), turn(str(tmp_path / "a"), {}, what="draws"):
        raise FileExistsError("mine")
    with exclusive_lock(str(tmp_path / "a"), {}):
        pass
