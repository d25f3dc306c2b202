"""The GeoTIFFs that leave the house."""

import gc
from collections.abc import Callable
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.errors import RasterioIOError

from rtsx.cube import BandRequest, FileImages, export_cog, geobox_of, open_source
from rtsx.cube.cog import _Raster
from rtsx.cube.rasters import open_rasters
from rtsx.cube.resample.readers import open_reader
from rtsx.cube.resample.warp import warp
from rtsx.errors import CubeError, OutputExistsError, OutputNotWritableError
from rtsx.grid import lonlat_polygon
from tests.faults import largest_file

Make = Callable[..., xr.Dataset]


def test_probability_and_binary_become_cogs(random_cube: Make, tmp_path: Path) -> None:
    cube = random_cube((1100, 700), chunk=300)
    paths = export_cog(cube, tmp_path / "out", prefix="y2024_")
    assert [path.name for path in paths] == ["y2024_probability.tif", "y2024_binary.tif"]
    for path in paths:
        name = path.stem.removeprefix("y2024_")
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(1), cube[name].values)
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert file.compression.value == "DEFLATE"
            assert file.block_shapes == [(512, 512)]
            assert file.overviews(1) == [2, 4]
            assert file.nodata == 255
            assert file.descriptions == (name,)
            assert file.scales == ((0.01,) if name == "probability" else (1.0,))
            assert file.crs.to_epsg() == 32649
            assert file.transform == cube.rio.transform()
            assert file.tags()["bundle_id"] == "demo"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["y2024_binary.tif", "y2024_probability.tif"]


@pytest.mark.parametrize("chunk", [None, 130])
def test_times_and_classes_become_named_bands(random_cube: Make, tmp_path: Path, chunk: int | None) -> None:
    cube = random_cube(times=2, classes=2, chunk=chunk)
    (path,) = export_cog(cube, tmp_path, variables=["probability"])
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), cube["probability"].values.reshape(4, 230, 301))
        assert file.descriptions == (
            "probability 2023-07-01 clear",
            "probability 2023-07-01 cloud",
            "probability 2024-08-02 clear",
            "probability 2024-08-02 cloud",
        )


def test_any_variable_can_go_and_comes_back_as_a_layer(random_cube: Make, tmp_path: Path) -> None:
    cube = random_cube()
    export_cog(cube, tmp_path, variables=["dem", "valid", "red"])
    again = open_source([tmp_path / "dem.tif", tmp_path / "red.tif"])
    xr.testing.assert_equal(again["dem"].load(), cube["dem"].load())
    assert again["red"].attrs["scale_factor"] == 1e-4
    assert again["dem"].attrs["_FillValue"] == -9999


def test_both_files_come_from_one_computation(random_cube: Make, tmp_path: Path) -> None:
    cube = random_cube((300, 300), chunk=100)
    calls: list[tuple[int, ...]] = []

    def predict(block: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
        calls.append(block_id)
        return block

    made = da.map_blocks(predict, cube["probability"].data, dtype=np.uint8, meta=np.empty((0, 0), np.uint8))
    export_cog(cube.assign(probability=(("y", "x"), made), binary=(("y", "x"), (made > 50).astype(np.uint8))), tmp_path)
    assert len(calls) == 9


def test_what_is_there_is_refused_and_a_failure_leaves_nothing(random_cube: Make, tmp_path: Path) -> None:
    cube = random_cube()
    export_cog(cube, tmp_path, variables=["binary"])
    before = (tmp_path / "binary.tif").read_bytes()
    with pytest.raises(OutputExistsError, match=r"binary.tif exists"):
        export_cog(cube, tmp_path)

    def fail(block: np.ndarray) -> np.ndarray:
        raise RuntimeError("worker died")

    broken = cube["probability"].data.map_blocks(fail, dtype=np.uint8, meta=np.empty((0, 0), np.uint8))
    with pytest.raises(RuntimeError, match="worker died"):
        export_cog(cube.assign(probability=(("y", "x"), broken)), tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["binary.tif"]
    assert (tmp_path / "binary.tif").read_bytes() == before


def test_a_variable_that_is_not_there_is_told(random_cube: Make, tmp_path: Path) -> None:
    with pytest.raises(CubeError, match=r"\['slope'\] are not among \["):
        export_cog(random_cube(), tmp_path, variables=["slope"])
    with pytest.raises(CubeError, match="neither is among"):
        export_cog(random_cube()[["dem"]], tmp_path)


def test_what_gdal_cannot_write_is_told(random_cube: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise RasterioIOError("write error")

    monkeypatch.setattr("rasterio.shutil.copy", full_disk)
    with pytest.raises(OutputNotWritableError, match=r"GeoTIFF of binary was not written: write error.*Free space"):
        export_cog(random_cube(), tmp_path, variables=["binary"])
    assert not any(tmp_path.iterdir())


def test_a_block_that_comes_after_the_file_was_given_up_is_not_written(random_cube: Make, tmp_path: Path) -> None:
    raster = _Raster(random_cube((96, 80)), "binary", tmp_path / "binary.tif")
    raster.abandon()
    raster[slice(0, 1), slice(0, 96), slice(0, 80)] = np.ones((1, 96, 80), np.uint8)
    assert raster._file.closed


@pytest.mark.slow
def test_a_full_disk_is_one_error_and_no_line_of_gdal(
    random_cube: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cube = random_cube((96, 80))
    with largest_file(2000), pytest.raises(OutputNotWritableError, match=r"was not written: .*Free space"):
        export_cog(cube, tmp_path / "cogs", variables=list(cube.data_vars)[:2])
    gc.collect()
    assert capfd.readouterr().err == ""
    assert not list(tmp_path.rglob("*.tif"))


def test_floats_without_a_missing_value_say_nan_and_half_ones_are_widened(tmp_path: Path) -> None:
    pixels = np.array([[1.5, np.nan], [2, 3]], np.float16)
    cube = xr.Dataset({"red": (("y", "x"), pixels)}, coords={"y": [95.0, 85.0], "x": [5.0, 15.0]}).rio.write_crs(
        "EPSG:3413"
    )
    (path,) = export_cog(cube, tmp_path, variables=["red"])
    with rasterio.open(path) as file:
        assert file.dtypes == ("float32",)
        assert np.isnan(file.nodata)
        np.testing.assert_array_equal(file.read(1), pixels)
    with pytest.raises(CubeError, match=r"neither is among \['red'\]"):
        export_cog(cube, tmp_path / "none")


@pytest.mark.parametrize("chunk", [None, 200])
def test_integers_without_nodata_have_the_mask_of_the_cube(
    random_cube: Make, tmp_path: Path, chunk: int | None
) -> None:
    cube = random_cube((1100, 700), chunk=chunk)
    valid = cube["valid"] & (cube["x"] > cube["x"][80])
    classes = cube["red"].drop_attrs().where(valid, 0).astype(np.uint8)
    cube = cube.assign(valid=valid, classes=classes)
    (path, plain) = export_cog(cube, tmp_path, variables=["classes", "red"])
    with rasterio.open(plain) as file:
        assert file.mask_flag_enums == ([rasterio.enums.MaskFlags.nodata],)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["classes.tif", "red.tif"]
    again = open_source(path)
    np.testing.assert_array_equal(again["valid"], valid)
    np.testing.assert_array_equal(again["classes"], classes)
    coarse = open_rasters(path, None, layers=None, sensor=None, chunk=None, overview=0)
    assert not coarse["valid"][:, :40].any()
    assert coarse["valid"][:, 42:].mean() > 0.9
    # Overviews are means of what counts: with the zeros below the mask they would be a fifth lower.
    assert float(coarse["classes"].where(coarse["valid"])[:, 42:].mean()) == pytest.approx(
        float(classes.where(valid)[:, 84:].mean()), rel=0.02
    )
    box = geobox_of(cube)
    (image,) = FileImages(assets={"data": (str(path),)}).find(
        lonlat_polygon(box.extent.geom, str(box.crs)), None, [BandRequest(name="classes")]
    )
    warped = warp(open_reader(image.bands["classes"]), box, resampling="nearest", anchor=(0, 0))
    np.testing.assert_array_equal(warped.valid[0], valid)


def test_a_mask_for_each_time_is_refused_where_no_value_is_missing(random_cube: Make, tmp_path: Path) -> None:
    cube = random_cube((40, 30), times=2)
    cube["valid"] = (cube["probability"] < 90) & cube["valid"]
    counts = cube["probability"].drop_attrs()
    cube = cube.assign(counts=counts, height=cube["red"].drop_attrs())
    with pytest.raises(
        CubeError, match=r"'counts' of uint8 has no value for missing pixels.*`valid` differs between its 2 times"
    ):
        export_cog(cube, tmp_path / "out", variables=["counts"])
    assert not (tmp_path / "out").exists()
    (path, static) = export_cog(cube.isel(time=[1]), tmp_path, variables=["counts", "height"])
    with rasterio.open(path) as file, rasterio.open(static) as other:
        np.testing.assert_array_equal(file.dataset_mask() > 0, cube["valid"][1])
        assert other.dataset_mask().all()  # it has no time, and gets no mask of others
    export_cog(cube, tmp_path / "out", variables=["probability"])  # whose 255 says what is missing
    alike = cube.assign(valid=xr.ones_like(cube["valid"]) & cube["valid"][0], quality_p=counts * 0 + 1)
    (path, quality) = export_cog(alike, tmp_path / "alike", variables=["counts", "quality_p"])
    with rasterio.open(path) as file, rasterio.open(quality) as other:
        np.testing.assert_array_equal(file.dataset_mask() > 0, cube["valid"][0])
        assert other.dataset_mask().all()  # low quality is what it tells of
