"""A Zarr store that is asked again, and one that is read by the library zarrs."""

import os
import pickle
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.core.sync import sync
from zarr.storage import MemoryStore, WrapperStore

from rtsx.errors import CubeError
from rtsx.storage.zarr import RetryingStore, fast_codecs, open_group, require_chunks, store_of
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


def _write(store: RetryingStore) -> None:
    value = default_buffer_prototype().buffer.from_bytes(b"x")
    sync(store.set("a", value))


def test_a_write_is_tried_again() -> None:
    below = Failing(MemoryStore())
    below.times = 3
    _write(RetryingStore(below, pauses_s=_QUICK))
    assert below.calls == 4


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


@pytest.fixture
def layers(tmp_path: Path) -> str:
    """A store with an array in shards and one without."""
    group = zarr.open_group(tmp_path / "layers.zarr", mode="w")
    values = np.arange(32 * 64, dtype=np.uint16).reshape(32, 64)
    for name, wide in (("sharded", {"chunks": (16, 16), "shards": (32, 32)}), ("plain", {"chunks": (16, 16)})):
        group.create_array(name, data=values, **wide)
    return str(tmp_path / "layers.zarr")


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of zarrs from now on."""
    zarrs = pytest.importorskip("zarrs", reason="needs the fast extra")
    asked: list[str] = []
    for verb in ("read", "write"):
        real = getattr(zarrs.ZarrsCodecPipeline, verb)

        async def counted(self: Any, *given: Any, verb: str = verb, real: Any = real) -> None:
            asked.append(verb)
            await real(self, *given)

        monkeypatch.setattr(zarrs.ZarrsCodecPipeline, verb, counted)
    return asked


def _opened(path: str) -> dict[str, Any]:
    group = open_group(path, {})
    with fast_codecs(group.store):
        return {name: group[name] for name in ("sharded", "plain")}


def test_zarrs_reads_what_zarr_reads_and_is_set_for_nobody_else(layers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _counted(monkeypatch)
    before = zarr.config.get("codec_pipeline")
    arrays = _opened(layers)
    assert zarr.config.get("codec_pipeline") == before
    for name, array in arrays.items():
        whole = zarr.open_group(layers, mode="r")[name][:]
        assert not asked
        for place in (np.s_[:, :], np.s_[3:30, 14:33], np.s_[5], np.s_[::3, 2:40:7], np.s_[..., 60:]):
            np.testing.assert_array_equal(array[place], whole[place])
            np.testing.assert_array_equal(pickle.loads(pickle.dumps(array))[place], whole[place])
        assert len(asked) >= 8
        asked.clear()


def test_threads_that_open_at_once_all_read_through_zarrs(layers: str) -> None:
    pytest.importorskip("zarrs", reason="needs the fast extra")
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: _opened(layers)["plain"], range(60)))
    assert {type(array._async_array.codec_pipeline).__name__ for array in opened} == {"_ZarrsReads"}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_reads_without_the_threads_of_its_parent(layers: str) -> None:
    pytest.importorskip("zarrs", reason="needs the fast extra")
    array = _opened(layers)["plain"]
    expected = int(array[:].sum())
    child = os.fork()
    if not child:
        signal.alarm(20)  # ends it if it waits for ever
        opened = int(_opened(layers)["sharded"][:].sum())
        os._exit(0 if opened == expected == int(array[:].sum()) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_codec_that_zarrs_computes_otherwise_is_left_to_zarr(tmp_path: Path) -> None:
    pytest.importorskip("zarrs", reason="needs the fast extra")
    values = np.random.default_rng(0).normal(100, 1, (32, 32)).astype(np.float32)
    scaled = numcodecs.FixedScaleOffset(offset=0.3, scale=7, dtype="f4", astype="f4")
    group = zarr.open_group(tmp_path / "scaled.zarr", mode="w", zarr_format=2)
    group.create_array("plain", data=values, chunks=(16, 16), filters=[scaled])
    group.create_array("sharded", data=values, chunks=(16, 16))
    array = _opened(str(tmp_path / "scaled.zarr"))["plain"]
    np.testing.assert_array_equal(array[:], zarr.open_group(tmp_path / "scaled.zarr", mode="r")["plain"][:])  # type: ignore[index]


def test_zarrs_never_writes(layers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _counted(monkeypatch)
    store = open_group(layers, {}).store.with_read_only(False)
    with fast_codecs(store):  # as if somebody wrote by mistake what was opened to be read
        array = zarr.open_array(store, path="sharded", mode="r+")
        array[:, :7] = 3
        made = zarr.create_array(store, name="made", shape=(32, 32), chunks=(16, 16), dtype="uint8")
        made[:] = 2
        plain = zarr.open_group(layers, mode="r+")["plain"]  # somebody else's, at the same moment
        plain[:] = 1
    assert (array[:, :7] == 3).all()
    assert (made[:] == 2).all()
    assert "write" not in asked
    assert "read" in asked


def test_zarrs_reads_no_chunk_that_is_not_there(layers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _counted(monkeypatch)
    group = open_group(layers, {})
    with fast_codecs(group.store):
        arrays = {name: group[name] for name in ("sharded", "plain")}
    for name, key in (("sharded", "sharded/c/0/1"), ("plain", "plain/c/1/2")):
        (Path(layers) / key).unlink()
        assert (arrays[name][16:, 32:48] == 0).all()
        require_chunks(group, name)
        assert arrays[name][:16, :16].any()
        with pytest.raises(CubeError, match=f"has no chunk {key}"):
            arrays[name][:]
    assert asked


def test_a_damaged_chunk_is_said_in_the_words_of_zarr(layers: str) -> None:
    for file in ("sharded/c/0/0", "plain/c/0/0"):
        path = Path(layers) / file
        path.write_bytes(path.read_bytes()[:-9])
    for name, fast in _opened(layers).items():
        said = []
        for array in (zarr.open_group(layers, mode="r")[name], fast):
            with pytest.raises(Exception) as error:  # noqa: PT011  # of whatever kind zarr has for it
                array[:]
            said.append((type(error.value), str(error.value)))
        assert said[0] == said[1]


def test_a_choice_of_codecs_that_somebody_made_stays(layers: str) -> None:
    pytest.importorskip("zarrs", reason="needs the fast extra")
    with (
        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}),
        fast_codecs(open_group(layers, {}).store),
    ):
        assert zarr.config.get("codec_pipeline.path") == "zarrs.ZarrsCodecPipeline"


def test_without_zarrs_nothing_is_said(layers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _opened(layers)
    travelling = pickle.dumps(whole["sharded"])
    monkeypatch.setitem(sys.modules, "zarrs", None)
    for array in (_opened(layers)["sharded"], pickle.loads(travelling)):
        assert type(array._async_array.codec_pipeline) is BatchedCodecPipeline
        np.testing.assert_array_equal(array[:], whole["sharded"][:])


@pytest.mark.parametrize(
    "installed", [{"__version__": "0.1.5", "ZarrsCodecPipeline": object}, {"__version__": "0.3.0"}, {}]
)
def test_a_zarrs_of_another_version_is_named_and_left_out(
    layers: str, monkeypatch: pytest.MonkeyPatch, installed: dict[str, object]
) -> None:
    other = ModuleType("zarrs")
    vars(other).update(installed)
    monkeypatch.setitem(sys.modules, "zarrs", other)
    with pytest.warns(RuntimeWarning, match=r"pip install 'rtsx\[fast\]'"):
        arrays = _opened(layers)
    assert arrays["plain"][:].any()
