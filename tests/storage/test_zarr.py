"""A Zarr store that is asked again."""

import pickle
from collections.abc import AsyncIterator
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore, WrapperStore

from rtsx.storage.zarr import RetryingStore, store_of
from tests.campaign.conftest import S3
from tests.faults import FaultyProxy

_QUICK = (0.001,) * 12


class Failing(WrapperStore[MemoryStore]):
    """Fails its next writes."""

    error: Exception = ConnectionResetError()
    times = 0
    calls = 0

    async def set(self, key: str, value: Buffer) -> None:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        await super().set(key, value)


def _write(store: RetryingStore, content: bytes = b"x") -> None:
    value = default_buffer_prototype().buffer.from_bytes(content)
    sync(store.set("a", value))


def test_a_write_is_tried_again() -> None:
    below = Failing(MemoryStore())
    below.times = 3
    _write(RetryingStore(below, pauses_s=_QUICK))
    assert below.calls == 4


def test_listings_take_their_words_by_name_too() -> None:
    store = RetryingStore(MemoryStore())
    sync(store.set("a/b", default_buffer_prototype().buffer.from_bytes(b"1")))

    async def listed(names: AsyncIterator[str]) -> list[str]:
        return [name async for name in names]

    assert sync(listed(store.list_prefix(prefix="a/"))) == ["a/b"]
    assert sync(listed(store.list_dir(prefix="a"))) == ["b"]


def test_what_lasts_is_raised_at_once() -> None:
    below = Failing(MemoryStore())
    below.times, below.error = 3, OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        _write(RetryingStore(below, pauses_s=_QUICK))
    assert below.calls == 1


def test_what_never_passes_is_raised_in_the_end() -> None:
    below = Failing(MemoryStore())
    below.times = 100
    with pytest.raises(ConnectionResetError):
        _write(RetryingStore(below, pauses_s=(0.001,) * 3))
    assert below.calls == 4


def test_a_shard_over_a_slow_line_is_tried_as_often_as_else(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count(0, 40)  # s, a look after each attempt
    monkeypatch.setattr("rtsx.storage.retry.time", SimpleNamespace(monotonic=lambda: next(clock)))
    below = Failing(MemoryStore())
    below.times = 4
    _write(RetryingStore(below, pauses_s=_QUICK), bytes(5_000_000))
    assert below.calls == 5


def test_it_travels_with_its_pauses(s3: S3) -> None:
    store = RetryingStore(store_of(f"{s3.url}/map.zarr", s3.options, read_only=False), pauses_s=_QUICK)
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert copy.pauses_s == _QUICK
    assert store.with_read_only(True).read_only


def test_an_array_in_a_store_that_fails_one_request_in_five_is_whole(s3: S3) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (96, 96), np.uint8)
    url = f"{s3.url}/map.zarr"
    with FaultyProxy(s3.endpoint, rate=0.2, faults=("503", "cut", "cut after"), seed=5) as proxy:
        store = RetryingStore(store_of(url, s3.through(proxy.url), read_only=False), pauses_s=_QUICK)
        group = zarr.create_group(store)
        array = group.create_array("binary", shape=(96, 96), shards=(32, 32), chunks=(16, 16), dtype="uint8")
        array[:] = picture
        assert (zarr.open_group(store, mode="r")["binary"][:] == picture).all()  # type: ignore[index,union-attr]
        keys = sync(_listed(store))
        assert proxy.failed > 3
    plain = zarr.open_group(store_of(url, s3.options, read_only=True), mode="r")
    assert (plain["binary"][:] == picture).all()  # type: ignore[index,union-attr]
    assert len(keys) == 9


async def _listed(store: RetryingStore) -> list[str]:
    return [key async for key in store.list_prefix("binary/c")]
