"""What is written comes back, is made once, and is there whole or not at all."""

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
import zarr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_zeros

from rtsx.cube import export_cog, geobox_of, open_source, write_cube
from rtsx.cube.write import StoragePlan, halve, plan_storage
from rtsx.errors import CubeError, OutputExistsError, OutputNotWritableError

Make = Callable[..., xr.Dataset]
FLOATING = Affine(2.8571436480450573e-05, 0.0, -67.68420000210446, 0.0, -2.86344946729323e-05, -14.254299999999951)


@pytest.fixture
def random_cube(random_cube: Make) -> Make:
    """Small, in four chunks."""
    return lambda shape=(130, 171), **options: random_cube(shape, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "shards"),
    [
        ({}, "auto"),
        ({"times": 2, "classes": 3}, "auto"),
        ({"times": 3, "chunk": 77}, "auto"),
        ({"chunk": None}, "auto"),
        ({"classes": 2, "shape": (700, 1300), "chunk": 256}, 512),
        (
            {"affine": Affine(23.592307692307692, 0, 671664.0, 0, -29.46153846153846, -4374596.0), "crs": "EPSG:26917"},
            "auto",
        ),
        ({"affine": FLOATING, "crs": "EPSG:4326"}, "auto"),
        ({"shape": (1, 1)}, "auto"),
    ],
)
def test_a_cube_comes_back_identical(
    random_cube: Make, tmp_path: Path, options: dict[str, object], shards: object
) -> None:
    cube = random_cube(**options)
    path = write_cube(cube, tmp_path / "cube.zarr", shards=shards, chunks=128)  # type: ignore[arg-type]
    again = open_source(path)
    xr.testing.assert_identical(again.load(), cube.load())
    assert geobox_of(again) == geobox_of(cube)
    assert again.rio.transform() == cube.rio.transform()
    assert again.rio.crs == cube.rio.crs
    assert {name: again[name].dtype for name in again.variables} == {name: cube[name].dtype for name in cube.variables}


@pytest.mark.slow
def test_a_store_of_ours_can_be_written_again(random_cube: Make, tmp_path: Path) -> None:
    cube = random_cube(times=2, classes=2)
    write_cube(cube, tmp_path / "one.zarr")
    write_cube(open_source(tmp_path / "one.zarr", chunks=64), tmp_path / "two.zarr")
    xr.testing.assert_identical(open_source(tmp_path / "two.zarr").load(), cube.load())


@pytest.mark.slow
def test_coordinates_in_many_chunks_come_back(random_cube: Make, tmp_path: Path) -> None:
    one = random_cube((20, 30))
    cube = xr.concat([one] * 6, dim=pd.date_range("2020-01-01", periods=6, freq="5D", name="time"))
    number = np.arange(6)
    cube = cube.assign_coords(
        cover=("time", number / 7),
        ids=("time", [f"2020{i:04d}" for i in number]),
        seen=("time", np.datetime64("2020-06-01T12:30", "ns") + number * np.timedelta64(90, "m")),
        lon=(("y", "x"), np.random.default_rng(1).random((20, 30))),
    ).chunk({"time": 1, "y": 10, "x": 10})
    write_cube(cube, tmp_path / "cube.zarr")
    write_cube(open_source(tmp_path / "cube.zarr"), tmp_path / "again.zarr", overviews=False)
    for name in ("cube", "again"):
        stored = open_source(tmp_path / f"{name}.zarr")
        for coordinate in ("cover", "ids", "seen", "lon"):
            np.testing.assert_array_equal(stored[coordinate].values, cube[coordinate].values)


def test_layers_beside_text_are_stored_as_planned(random_cube: Make, tmp_path: Path) -> None:
    cube = random_cube((128, 128)).assign_coords(title="a scene").chunk({"y": 32, "x": 32})
    write_cube(cube, tmp_path / "cube.zarr", overviews=False)
    stored = zarr.open_group(tmp_path / "cube.zarr", mode="r")
    for name in cube.data_vars:
        array = stored[str(name)]
        assert isinstance(array, zarr.Array)
        assert array.chunks == (32, 32)
        np.testing.assert_array_equal(array[...], cube[name])


def test_everything_is_computed_once(random_cube: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtsx.cube.write._SMALLEST_TOP_LEVEL", 256)
    cube = random_cube((525, 258), chunk=128)
    calls: list[tuple[int, ...]] = []

    def predict(block: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
        calls.append(block_id)
        return block // 2

    made = da.map_blocks(predict, cube["red"].data, dtype=np.uint16, meta=np.empty((0, 0), np.uint16))
    cube = cube.assign(
        probability=(("y", "x"), made.astype(np.uint8)),
        binary=(("y", "x"), (made > 50).astype(np.uint8)),
        valid=(("y", "x"), made > 2),
    )
    computations: list[int] = []
    plain = dask.threaded.get

    def counting(graph: object, keys: object, **options: object) -> object:
        computations.append(1)
        return plain(graph, keys, **options)

    with dask.config.set(scheduler=counting):
        write_cube(cube, tmp_path / "cube.zarr")
    assert sorted(calls) == sorted({(y, x) for y in range(5) for x in range(3)})
    assert len(computations) == 3  # full resolution, 2x, 4x


def test_shards_are_whole_and_metadata_is_in_the_root(random_cube: Make, tmp_path: Path) -> None:
    write_cube(random_cube((900, 900), chunk=300, classes=2), tmp_path / "cube.zarr", chunks=150)
    group = zarr.open_group(tmp_path / "cube.zarr", mode="r")
    array = group["probability"]
    assert isinstance(array, zarr.Array)
    assert (array.chunks, array.shards) == ((1, 150, 150), (1, 300, 300))
    assert array.fill_value == 255
    assert array.attrs["grid_mapping"] == "spatial_ref"
    assert json.loads((tmp_path / "cube.zarr" / "zarr.json").read_text())["consolidated_metadata"]["metadata"]


def test_ground_without_data_takes_no_room(random_cube: Make, tmp_path: Path) -> None:
    cube = random_cube((600, 600), chunk=200)
    cube["probability"] = xr.full_like(cube["probability"], 255)
    write_cube(cube, tmp_path / "cube.zarr")
    assert [file.name for file in (tmp_path / "cube.zarr" / "probability").rglob("*") if file.is_file()] == [
        "zarr.json"
    ]
    assert (open_source(tmp_path / "cube.zarr")["probability"] == 255).all()


@pytest.mark.slow
def test_overviews_are_halved_from_the_level_above(
    random_cube: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtsx.cube.write._SMALLEST_TOP_LEVEL", 256)
    cube = random_cube((625, 259), chunk=128, classes=2)
    write_cube(cube, tmp_path / "cube.zarr")
    expected = {
        name: (cube[name].values, cube[name].attrs.get("_FillValue"))
        for name in ("probability", "binary", "valid", "dem")
    }
    for level in ("2x", "4x"):
        stored = xr.open_zarr(tmp_path / "cube.zarr" / level, mask_and_scale=False, decode_coords="all")
        for name, (above, nodata) in expected.items():
            reduction = "max" if name in ("binary", "valid") else "average"
            halved = halve(above, reduction=reduction, nodata=nodata)
            np.testing.assert_array_equal(stored[name].values, halved)
            expected[name] = (halved, nodata)
        assert stored.odc.geobox.affine.a == 3.0 * int(level[0])
        assert (stored.odc.geobox.affine.c, stored.odc.geobox.affine.f) == (711576.0, 94749.0)
        assert stored["class"].values.tolist() == ["clear", "cloud"]
    assert not (tmp_path / "cube.zarr" / "8x").exists()


@pytest.mark.slow
@pytest.mark.parametrize("timed", [False, True])
def test_xarray_finds_crs_and_tree_without_a_word(random_cube: Make, tmp_path: Path, timed: bool) -> None:
    cube = random_cube((1500, 40), chunk=512, classes=2)
    if timed:
        cube = cube.expand_dims(time=pd.date_range("2023-07-01", periods=2)).assign_coords(item=("time", ["a", "b"]))
    path = tmp_path / "cube.zarr"
    write_cube(cube, path)
    for opened in (
        xr.open_zarr(path),
        xr.open_zarr(path / "2x"),
        xr.open_zarr(path, group="2x", consolidated=False),
        xr.open_datatree(path, engine="zarr").to_dataset(),
        xr.open_datatree(path / "2x", engine="zarr").to_dataset(),
    ):
        assert opened.rio.crs == opened["dem"].rio.crs == cube.rio.crs
        assert opened.odc.crs == cube.odc.crs
        assert "spatial_ref" not in opened.data_vars
        assert {"class", "time", "item"} & set(opened.coords) == {"class", *(("time", "item") if timed else ())}


def test_gdal_reads_shards_from_the_version_that_the_docs_name(random_cube: Make, tmp_path: Path) -> None:
    cube = random_cube((64, 40), chunk=32)
    write_cube(cube, tmp_path / "cube.zarr", chunks=16)
    name = f'ZARR:"{tmp_path}/cube.zarr":/dem'
    if tuple(map(int, rasterio.__gdal_version__.split(".")[:2])) < (3, 13):
        with pytest.raises(rasterio.errors.RasterioError), rasterio.open(name) as file:
            file.read(1)
    else:
        with rasterio.open(name) as file:
            np.testing.assert_array_equal(file.read(1), cube["dem"])


def test_overviews_can_be_left_out(random_cube: Make, tmp_path: Path) -> None:
    write_cube(random_cube((1100, 20), chunk=512), tmp_path / "cube.zarr", overviews=False)
    assert not (tmp_path / "cube.zarr" / "2x").exists()


def test_geozarr_metadata_agrees_with_the_coordinates(random_cube: Make, tmp_path: Path) -> None:
    cube = random_cube((1500, 40), chunk=512)
    write_cube(cube, tmp_path / "cube.zarr")
    attrs = dict(zarr.open_group(tmp_path / "cube.zarr", mode="r").attrs)
    assert attrs["proj:code"] == "EPSG:32649"
    assert CRS(attrs["proj:wkt2"]) == CRS("EPSG:32649")
    assert attrs["spatial:dimensions"] == ["y", "x"]
    assert "spatial:transform" not in attrs
    assert {one["name"] for one in attrs["zarr_conventions"]} == {"proj", "spatial", "multiscales"}
    first, second = attrs["multiscales"]["layout"]
    assert first["asset"] == "."
    assert first["spatial:transform"] == list(geobox_of(cube).affine)[:6]
    assert first["spatial:shape"] == [1500, 40]
    assert second["spatial:shape"] == [750, 20]
    below = dict(zarr.open_group(tmp_path / "cube.zarr", path="2x", mode="r").attrs)
    assert below["spatial:transform"] == second["spatial:transform"]
    assert (second["asset"], second["derived_from"], second["transform"]["scale"]) == ("2x", ".", [2.0, 2.0])
    assert attrs["rtsx:complete"] is True
    assert "proj:code" not in open_source(tmp_path / "cube.zarr").attrs


def test_an_existing_path_is_refused_and_replaced_only_on_request(random_cube: Make, tmp_path: Path) -> None:
    old, new = random_cube(seed=1), random_cube(seed=2)
    path = tmp_path / "cube.zarr"
    write_cube(old, path)
    with pytest.raises(OutputExistsError, match=r"exists.*overwrite=True"):
        write_cube(new, path)
    write_cube(new, path, overwrite=True)
    xr.testing.assert_identical(open_source(path).load(), new.load())
    assert names_in(tmp_path) == ["cube.zarr"]


def test_a_store_can_be_overwritten_by_what_is_read_from_it(random_cube: Make, tmp_path: Path) -> None:
    cube = random_cube()
    path = write_cube(cube, tmp_path / "cube.zarr")
    stored = open_source(path)
    write_cube(stored.assign(red=stored["red"] + np.uint16(1)), path, overwrite=True)
    assert (open_source(path)["red"].values == cube["red"].values + 1).all()


def test_a_folder_that_is_no_store_is_never_overwritten(random_cube: Make, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="no Zarr store, so it is not overwritten"):
        write_cube(random_cube(), tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def failing(cube: xr.Dataset, error: BaseException) -> xr.Dataset:
    def fail(block: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
        if block_id == (1, 1):
            raise error
        return block

    broken = da.map_blocks(fail, cube["red"].data, dtype=np.uint16, meta=np.empty((0, 0), np.uint16))
    return cube.assign(red=(("y", "x"), broken))


@pytest.mark.slow
@pytest.mark.parametrize(
    "error", [RuntimeError("worker died"), OSError(28, "No space left on device"), KeyboardInterrupt()]
)
def test_a_failure_half_way_leaves_what_was_there(random_cube: Make, tmp_path: Path, error: BaseException) -> None:
    old = random_cube(seed=1)
    write_cube(old, tmp_path / "old.zarr")
    with pytest.raises(type(error)):
        write_cube(failing(random_cube(), error), tmp_path / "old.zarr", overwrite=True)
    with pytest.raises(type(error)):
        write_cube(failing(random_cube(), error), tmp_path / "deep" / "er" / "new.zarr")
    assert names_in(tmp_path) == ["old.zarr"]
    xr.testing.assert_identical(open_source(tmp_path / "old.zarr").load(), old.load())


def test_a_place_that_cannot_be_written_is_told_before_anything_is_computed(random_cube: Make, tmp_path: Path) -> None:
    cube = failing(random_cube(), AssertionError("computed"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputNotWritableError, match=r"cannot be written.*Choose a folder"):
        write_cube(cube, tmp_path / "file" / "cube.zarr")
    with pytest.raises(OutputNotWritableError, match="cannot be written"):
        export_cog(cube, tmp_path / "file")
    with pytest.raises(OutputNotWritableError, match="cannot be written"):
        write_cube(cube, "/proc/rtsx/cube.zarr")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_told(random_cube: Make, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(OutputNotWritableError, match="Permission denied"):
        write_cube(random_cube(), tmp_path / "cube.zarr")


def test_what_says_not_where_it_lies_is_refused(tmp_path: Path) -> None:
    plain = xr.Dataset({"red": (("y", "x"), np.zeros((4, 4)))})
    with pytest.raises(CubeError, match="'y' is missing"):
        write_cube(plain, tmp_path / "cube.zarr")
    with pytest.raises(CubeError, match="needs a CRS"):
        write_cube(plain.assign_coords(y=[3.5, 2.5, 1.5, 0.5], x=[0.5, 1.5, 2.5, 3.5]), tmp_path / "cube.zarr")
    assert not names_in(tmp_path)


def test_the_grid_mapping_attribute_of_other_readers_is_no_obstacle(random_cube: Make, tmp_path: Path) -> None:
    cube = random_cube()
    for name in cube.data_vars:
        cube[name].attrs["grid_mapping"] = "spatial_ref"
    write_cube(cube, tmp_path / "cube.zarr")
    assert open_source(tmp_path / "cube.zarr").rio.crs.to_epsg() == 32649


def test_writing_shows_itself(
    random_cube: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rtsx.progress.FIRST_S", 0.0)
    write_cube(random_cube(shape=(64, 64)), tmp_path / "cube.zarr", progress=True)
    assert capsys.readouterr().err.startswith("writing")


LENGTHS = st.lists(st.integers(1, 3000), min_size=1, max_size=5)


@pytest.mark.slow
@given(rows=LENGTHS, columns=LENGTHS, chunk=st.sampled_from([128, 256, 512, 500]))
def test_a_shard_is_whole_chunks_and_rechunking_to_shards_fits(rows: list[int], columns: list[int], chunk: int) -> None:
    shape = (sum(rows), sum(columns))
    plan = plan_storage(shape, (rows, columns), chunk=chunk, shard="auto")
    assert all(shard % inner == 0 for shard, inner in zip(plan.shard, plan.chunk, strict=True))
    assert all(inner <= max(chunk, 1) for inner in plan.chunk)
    array = da.zeros(shape, chunks=(tuple(rows), tuple(columns)), dtype=np.uint8)
    assert plan.fits(array.rechunk(plan.shard).chunks)


@given(
    length=st.sampled_from([200, 256, 500, 512, 1000, 1024, 1536, 2048, 4096]),
    count=st.integers(2, 5),
    last=st.integers(1, 200),
)
def test_equal_dask_chunks_are_kept(length: int, count: int, last: int) -> None:
    lengths = [length] * count + [last]
    plan = plan_storage((sum(lengths), sum(lengths)), (lengths, lengths), chunk=512, shard="auto")
    assert plan.shard == (length, length)
    assert plan.fits((lengths, lengths))
    assert 128 <= plan.chunk[0] <= 512


def test_a_large_dask_chunk_is_several_shards() -> None:
    plan = plan_storage((24576, 24576), ((12288, 12288), (12288, 12288)), chunk=512, shard="auto")
    assert plan == StoragePlan(chunk=(512, 512), shard=(4096, 4096))
    assert plan.fits(((12288, 12288), (12288, 12288)))


def test_a_small_raster_is_one_chunk_without_shards() -> None:
    assert not plan_storage((251, 251), ((251,), (251,)), chunk=512, shard="auto").has_shards


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(CubeError, match="whole number of chunks; got shards=1000 and chunks=512"):
        plan_storage((5, 5), ((5,), (5,)), chunk=512, shard=1000)
    with pytest.raises(CubeError, match="1 pixel or more"):
        plan_storage((5, 5), ((5,), (5,)), chunk=0, shard="auto")


def test_no_array_of_the_whole_raster_is_made(tmp_path: Path) -> None:
    box = GeoBox((6144, 6144), Affine(3, 0, 0, 0, -3, 0), "EPSG:3413")
    cube = xr_zeros(box, dtype="uint8", chunks=(512, 512)).to_dataset(name="red")
    cube["valid"] = cube["red"] == 0
    tracemalloc.start()
    try:
        write_cube(cube, tmp_path / "cube.zarr", overviews=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < box.shape[0] * box.shape[1] / 2
