"""Objects that are asked for again."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from rtsx.storage.object_store import MemoryObjects, RetryingObjects, S3Objects, StoredObject
from tests.campaign.conftest import S3
from tests.faults import FaultyProxy

_QUICK = (0.001,) * 12


class Failing(MemoryObjects):
    """Fails each call some times before it does it; creations also after they are done."""

    def __init__(self, error: Exception, times: int) -> None:
        super().__init__()
        self.error, self.times, self.calls = error, times, count()

    def _fail(self) -> None:
        if next(self.calls) < self.times:
            raise self.error

    def get(self, key: str) -> bytes | None:
        self._fail()
        return super().get(key)

    def create(self, key: str, content: bytes) -> bool:
        done = super().create(key, content)
        self._fail()
        return done

    def list(self, prefix: str) -> Iterator[StoredObject]:
        for number, found in enumerate(super().list(prefix)):
            if number == 2:
                self._fail()
            yield found


def test_what_passes_is_tried_again() -> None:
    store = Failing(ConnectionResetError(), 3)
    assert RetryingObjects(store, _QUICK).get("a") is None
    assert next(store.calls) == 4


def test_what_lasts_is_raised_at_once() -> None:
    store = Failing(PermissionError(), 3)
    with pytest.raises(PermissionError):
        RetryingObjects(store, _QUICK).get("a")
    assert next(store.calls) == 1


def test_what_never_passes_is_raised_in_the_end() -> None:
    store = Failing(TimeoutError("slow"), 100)
    with pytest.raises(TimeoutError, match="slow"):
        RetryingObjects(store, (0.001,) * 4).get("a")
    assert next(store.calls) == 5


def test_a_listing_that_broke_goes_on_without_repeating_itself() -> None:
    store = Failing(ConnectionResetError(), 2)
    for key in "abcde":
        store.put(f"m/{key}", b"")
    listed = [found.key for found in RetryingObjects(store, _QUICK).list("m")]
    assert listed == [f"m/{key}" for key in "abcde"]


def test_a_creation_that_failed_after_it_was_done_has_won() -> None:
    store = RetryingObjects(Failing(ConnectionResetError(), 1), _QUICK)
    assert store.create("a", b"mine")
    assert not store.create("a", b"theirs")


def test_a_store_that_fails_three_requests_in_ten_loses_nothing(s3: S3) -> None:
    with FaultyProxy(s3.endpoint, rate=0.3, faults=("503", "cut", "cut after"), seed=3) as proxy:
        store = RetryingObjects(S3Objects(s3.url, s3.through(proxy.url)), _QUICK)
        words = {f"m/{number}": f"word {number}".encode() for number in range(40)}
        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(lambda key: store.create(key, words[key]), words))
            assert not any(threads.map(lambda key: store.create(key, b"late"), words))
            assert dict(zip(words, threads.map(store.get, words), strict=True)) == words
        assert {found.key for found in store.list("m")} == set(words)
        assert proxy.failed > 20
