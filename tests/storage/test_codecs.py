"""Codecs without the event loop: what the library zarrs reads, and shards that are encoded in one go."""

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
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.storage import MemoryStore

from rtsx.errors import CubeError
from rtsx.storage.codecs import fast_codecs
from rtsx.storage.zarr import open_group, require_chunks

_REGIONS = (
    [np.s_[:, :]],
    [np.s_[0:16, 0:8], np.s_[0:16, 8:], np.s_[16:, :]],
    [np.s_[3:20, 2:9], np.s_[:, :]],
    [np.s_[5, :], np.s_[2:7, 1:5], np.s_[..., 3]],
)


def _written(values: np.ndarray, regions: list[Any], *, all_chunks: bool, ours: bool, **how: Any) -> dict[str, bytes]:
    """Bytes by key of an array of which some regions are written."""
    store = MemoryStore()
    config = {"write_empty_chunks": all_chunks}
    array = zarr.create_array(
        store, name="a", shape=values.shape, dtype=values.dtype, fill_value=0, config=config, **how
    )
    if ours:
        with fast_codecs():
            array = zarr.open_array(store, path="a", mode="r+").with_config(config)
        assert type(array.async_array.codec_pipeline).__name__ == "QuickCodecs"
    for region in regions:
        array[region] = values[region]
    return {key: buffer.to_bytes() for key, buffer in store._store_dict.items() if not key.endswith(".json")}


@pytest.mark.parametrize(
    ("dtype", "codec"),
    [("uint8", ZstdCodec(level=1)), (">u2", None), ("float32", BloscCodec()), ("bool", BloscCodec(typesize=1))],
)
@pytest.mark.parametrize("shards", [None, (8, 8), {"shape": (16, 8), "index_location": "start"}])
@pytest.mark.parametrize("all_chunks", [False, True])
def test_what_is_encoded_in_one_go_is_what_zarr_writes(dtype: str, codec: Any, shards: Any, all_chunks: bool) -> None:
    """Byte for byte, with chunks that hold nothing, edges, regions that cut through chunks, and what was there before."""
    random = np.random.default_rng(0)
    values = (random.integers(0, 3, (27, 21)) * (random.random((27, 21)) < 0.5)).astype(dtype)
    values[:17, :9] = 0
    if dtype == "float32":
        values[0, 0], values[20, 20] = -0.0, np.nan
    how = {"chunks": (4, 4), "compressors": codec, "all_chunks": all_chunks} | ({"shards": shards} if shards else {})
    for regions in _REGIONS:
        by_zarr, by_us = (_written(values, regions, ours=ours, **how) for ours in (False, True))
        assert by_us == by_zarr


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
    with fast_codecs():
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


def test_a_part_is_read_straight_into_a_larger_array(layers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _counted(monkeypatch)
    expected = np.arange(32 * 64, dtype=np.uint16).reshape(32, 64)
    for array in _opened(layers).values():
        out = np.full((40, 70), 9, np.uint16)
        assert array.async_array.codec_pipeline.read_directly(array, (slice(3, 30), slice(14, 64)), out=out)
        np.testing.assert_array_equal(out[:27, :50], expected[3:30, 14:64])
        assert (out[27:] == 9).all()
        assert (out[:, 50:] == 9).all()
        for other in (out.astype(np.float32), out.astype(">u2"), out[:, ::2]):
            assert not array.async_array.codec_pipeline.read_directly(array, (slice(0, 9), slice(0, 9)), out=other)
    assert not asked


def test_threads_that_open_at_once_all_read_through_zarrs(layers: str) -> None:
    pytest.importorskip("zarrs", reason="needs the fast extra")
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: _opened(layers)["plain"], range(60)))
    assert {type(array._async_array.codec_pipeline).__name__ for array in opened} == {"QuickCodecs"}


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
    with fast_codecs():  # as if somebody wrote by mistake what was opened to be read
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
    with fast_codecs():
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
        fast_codecs(),
    ):
        assert zarr.config.get("codec_pipeline.path") == "zarrs.ZarrsCodecPipeline"


def test_without_zarrs_nothing_is_said(layers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _opened(layers)
    travelling = pickle.dumps(whole["sharded"])
    monkeypatch.setitem(sys.modules, "zarrs", None)
    for array in (_opened(layers)["sharded"], pickle.loads(travelling)):
        assert array._async_array.codec_pipeline.reading is None
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
