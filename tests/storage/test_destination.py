"""Object stores: complete or told to be incomplete."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr

from rtsx.cube import open_source, write_cube
from rtsx.errors import CubeError, OutputExistsError, OutputNotWritableError
from rtsx.storage.zarr import atomic_store

Make = Callable[..., xr.Dataset]


@pytest.fixture
def memory() -> Iterator[Any]:
    """The in-memory file system of fsspec, empty before and after."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture(scope="module")
def s3(s3_server: str) -> dict[str, Any]:
    """Storage options of a local S3 server with one bucket, `maps`."""
    options = {
        "key": "a",
        "secret": "b",
        "endpoint_url": s3_server,
        "client_kwargs": {"region_name": "eu-central-1"},
    }
    fsspec.filesystem("s3", **options).mkdir("maps")
    return options


def test_a_cube_goes_to_memory_and_back(memory: Any, random_cube: Make) -> None:
    cube = random_cube((300, 130), chunk=70, times=2, classes=2)
    write_cube(cube, "memory://maps/2024.zarr")
    xr.testing.assert_identical(open_source("memory://maps/2024.zarr").load(), cube.load())


def test_a_cube_goes_to_s3_and_back(s3: dict[str, Any], random_cube: Make) -> None:
    first, second = (random_cube((130, 171), seed=seed, chunk=128) for seed in (1, 2))
    url = "s3://maps/deep/2024.zarr"
    write_cube(first, url, storage_options=s3)
    xr.testing.assert_identical(open_source(url, storage_options=s3).load(), first.load())
    with pytest.raises(OutputExistsError, match="exists"):
        write_cube(second, url, storage_options=s3)
    write_cube(second, url, storage_options=s3, overwrite=True)
    xr.testing.assert_identical(open_source(url, storage_options=s3).load(), second.load())
    assert fsspec.filesystem("s3", **s3).ls("maps/deep", refresh=True, detail=False) == ["maps/deep/2024.zarr"]


def test_a_bucket_that_is_not_there_is_told(s3: dict[str, Any], random_cube: Make) -> None:
    with pytest.raises(OutputNotWritableError, match="no such bucket"):
        write_cube(random_cube(), "s3://nowhere/2024.zarr", storage_options=s3)


def test_a_failure_leaves_no_object(memory: Any) -> None:
    def write_half() -> None:
        with atomic_store("memory://maps/a.zarr", overwrite=False, options={}) as store:
            zarr.create_array(store, name="red", shape=(2,), dtype="uint8")[:] = 1
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert not memory.exists("/maps/a.zarr")


def test_what_a_killed_run_left_is_refused(memory: Any) -> None:
    staging = atomic_store("memory://maps/a.zarr", overwrite=False, options={})
    staging.__enter__()  # and the process is gone
    with pytest.raises(CubeError, match=r"never finished.*overwrite=True"):
        open_source("memory://maps/a.zarr")
    with pytest.raises(OutputExistsError), atomic_store("memory://maps/a.zarr", overwrite=False, options={}):
        pass


def test_the_old_objects_stay_until_the_new_ones_are_complete(memory: Any, random_cube: Make) -> None:
    old = random_cube(seed=1)
    write_cube(old, "memory://maps/a.zarr")
    with pytest.raises(RuntimeError), atomic_store("memory://maps/a.zarr", overwrite=True, options={}):
        raise RuntimeError
    xr.testing.assert_identical(open_source("memory://maps/a.zarr").load(), old.load())
    stored = open_source("memory://maps/a.zarr")
    write_cube(stored.assign(red=stored["red"] + np.uint16(1)), "memory://maps/a.zarr", overwrite=True)
    assert (open_source("memory://maps/a.zarr")["red"].values == old["red"].values + 1).all()
    assert memory.ls("/maps", detail=False) == ["/maps/a.zarr"]


def test_an_unknown_protocol_is_told(random_cube: Make) -> None:
    with pytest.raises(CubeError, match="cannot be reached"):
        write_cube(random_cube(), "gopher://maps/a.zarr")


def test_a_local_store_that_was_never_finished_is_refused(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "a.zarr"), attributes={"rtsx:complete": False}, zarr_format=3)
    with pytest.raises(CubeError, match="never finished"):
        open_source(tmp_path / "a.zarr")


def test_late_writers_find_the_store_closed(tmp_path: Path) -> None:
    kept: list[zarr.Array[Any]] = []

    def write_half() -> None:
        with atomic_store(str(tmp_path / "a.zarr"), overwrite=False, options={}) as store:
            kept.append(zarr.create_array(store, name="red", shape=(2,), dtype="uint8"))
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        write_half()
    with pytest.raises(PermissionError, match="given up"):
        kept[0][:] = 1
    assert not any(tmp_path.iterdir())


def test_a_prefix_that_is_no_store_is_never_overwritten(memory: Any, random_cube: Make) -> None:
    memory.pipe_file("/thesis/chapter.txt", b"years of work")
    with pytest.raises(OutputExistsError, match="no Zarr store, so it is not overwritten"):
        write_cube(random_cube(), "memory://thesis", overwrite=True)
    assert memory.cat_file("/thesis/chapter.txt") == b"years of work"


def test_what_appears_during_the_run_is_kept(tmp_path: Path) -> None:
    def write_store() -> None:
        with atomic_store(str(tmp_path / "a.zarr"), overwrite=False, options={}):
            zarr.create_group(str(tmp_path / "a.zarr"), attributes={"by": "another"}, zarr_format=3)

    with pytest.raises(OutputExistsError, match="appeared while it was being made"):
        write_store()
    assert zarr.open_group(str(tmp_path / "a.zarr"), mode="r").attrs["by"] == "another"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr"]


@pytest.mark.parametrize("place", ["local", "memory"])
def test_a_full_disk_is_told(memory: Any, tmp_path: Path, place: str) -> None:
    target = "memory://maps/a.zarr" if place == "memory" else str(tmp_path / "a.zarr")
    full = OSError(28, "No space left on device")
    with (
        pytest.raises(OutputNotWritableError, match=r"a.zarr was not written: .*No space left.*Free space") as caught,
        atomic_store(target, overwrite=False, options={}),
    ):
        raise full
    assert caught.value.__cause__ is full
    assert not any(tmp_path.iterdir())
    assert not memory.exists("/maps/a.zarr")


def test_a_store_from_which_somebody_removes_is_not_taken_for_complete(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_store(str(tmp_path / "map.zarr"), overwrite=False, options={}) as store:
            draft = next((tmp_path / ".map.zarr.partial").glob("*/draft.zarr"))
            shutil.rmtree(draft)
            zarr.create_group(store, zarr_format=3)  # as whatever writes next does

    with pytest.raises(OutputNotWritableError, match=r"files in it were removed meanwhile.* Run again"):
        write()
    assert not (tmp_path / "map.zarr").exists()
