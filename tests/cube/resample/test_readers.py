"""Raster files as readers: overviews, and files that are not what was said of them."""

import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling as GdalResampling

from rtsx.cube import geobox_of, write_cube
from rtsx.cube.images import BandSource
from rtsx.cube.resample import readers
from rtsx.cube.resample.readers import ArrayReader, FileReader, ZarrReader, open_reader
from rtsx.cube.resample.warp import warp
from rtsx.errors import CubeError
from rtsx.storage.codecs import QuickCodecs
from tests.cube.file_reader import file_reader

WriteTif = Callable[..., Path]
PIXELS = np.random.default_rng(1).integers(1, 60000, (3, 301, 203)).astype(np.uint16)
TRANSFORM = Affine(3.0, 0.0, 711576.0, 0.0, -3.0, 94749.0)


def test_bands_in_the_order_asked_for(write_tif: WriteTif) -> None:
    reader = file_reader(str(write_tif("a.tif", PIXELS, nodata=0)), (3, 1))
    assert (reader.count, reader.dtype, reader.nodata) == (2, np.dtype(np.uint16), 0)
    np.testing.assert_array_equal(reader.read(slice(5, 20), slice(7, 9)), PIXELS[[2, 0], 5:20, 7:9])
    assert pickle.loads(pickle.dumps(reader)) == reader


def test_nothing_is_opened_before_the_first_read() -> None:
    box = GeoBox((10, 10), TRANSFORM, "EPSG:32649")
    reader = FileReader(path="/nowhere/b.tif", bands=(1,), geobox=box, dtype=np.dtype("uint8"), nodata=None)
    with pytest.raises(CubeError, match=r"/nowhere/b.tif cannot be read in rows 0-4, columns 2-6 \(tried 3 times\)"):
        reader.read(slice(0, 4), slice(2, 6))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dtype": np.dtype("float32")}, r"dtype: expected float32, found uint16"),
        (
            {"geobox": GeoBox((301, 204), TRANSFORM, "EPSG:32649")},
            r"shape \(y, x\): expected \(301, 204\), found \(301, 203\)",
        ),
        ({"geobox": GeoBox((301, 203), TRANSFORM, "EPSG:32650")}, r"CRS: expected EPSG:32650, found EPSG:32649"),
        (
            {"geobox": GeoBox((301, 203), Affine(3, 0, 711576.1, 0, -3, 94749), "EPSG:32649")},
            r"transform: expected \(3.*711576.1.*found \(3.*711576.0",
        ),
        ({"bands": (1, 4)}, r"has 3 bands; band 4 was expected"),
    ],
)
def test_a_file_that_is_not_the_one_described(write_tif: WriteTif, change: dict[str, object], told: str) -> None:
    reader = replace(file_reader(str(write_tif("a.tif", PIXELS))), asset="ortho", **change)
    with pytest.raises(CubeError, match=rf"a.tif \(asset 'ortho'\).*{told}"):
        reader.read(slice(0, 4), slice(0, 4))


def test_nodata_that_only_the_file_knows_of(write_tif: WriteTif) -> None:
    reader = replace(file_reader(str(write_tif("a.tif", PIXELS, nodata=0))), nodata=None)
    with pytest.raises(
        CubeError,
        match=r"a.tif declares nodata 0; the item that describes it states dtype uint16 and no nodata.*Write nodata:",
    ):
        reader.read(slice(0, 4), slice(0, 4))
    # What the caller said goes before what the file declares; and for quality data every value counts.
    for told in ({"nodata": 7, "settled": frozenset({"nodata"})}, {"any_value": True}):
        assert replace(reader, **told).read(slice(0, 4), slice(0, 4)).shape == (3, 4, 4)


def test_nodata_that_hides_nothing(write_tif: WriteTif) -> None:
    nans = replace(file_reader(str(write_tif("a.tif", PIXELS.astype(np.float32), nodata=np.nan))), nodata=None)
    assert nans.read(slice(0, 4), slice(0, 4)).shape == (3, 4, 4)


def test_a_crs_by_another_name_is_the_same(write_tif: WriteTif) -> None:
    reader = file_reader(str(write_tif("a.tif", PIXELS)))
    esri = GeoBox((301, 203), TRANSFORM, reader.geobox.crs.to_wkt(version="WKT1_ESRI"))
    assert replace(reader, geobox=esri).read(slice(0, 4), slice(0, 4)).shape == (3, 4, 4)


def with_overviews(path: Path, factors: list[int]) -> str:
    with rasterio.open(path, "r+") as file:
        file.build_overviews(factors, GdalResampling.average)
    return str(path)


def test_the_coarsest_overview_that_is_fine_enough(write_tif: WriteTif) -> None:
    reader = file_reader(with_overviews(write_tif("a.tif", PIXELS), [2, 4, 8]))
    assert reader.overview_for(1.9) is reader
    assert [reader.overview_for(factor).overview for factor in (2.1, 3.9, 4.1, 8.2, 1000)] == [0, 0, 1, 2, 2]
    # Nothing above the largest pixel of an overview, whatever its factor is called: 301 / 38 is 7.92, 203 / 26 is 7.81.
    assert reader.overview_for(7.95).overview == 2
    for factor in (2.1, 4.1, 8.2):
        coarse = reader.overview_for(factor)
        box, whole = coarse.geobox, reader.geobox
        np.testing.assert_allclose(tuple(box.boundingbox), tuple(whole.boundingbox), rtol=0, atol=1e-6)
        assert coarse.read(slice(0, box.shape[0]), slice(0, box.shape[1])).shape == (3, *box.shape)
        assert pickle.loads(pickle.dumps(coarse)) == coarse


@pytest.mark.parametrize("shape", [(512, 768), (509, 771)])
@pytest.mark.parametrize("resampling", ["bilinear", "cubic", "average"])
def test_overviews_do_not_shift(write_tif: WriteTif, shape: tuple[int, int], resampling: str) -> None:
    # A plane is the same at every level, but for half a pixel that somebody forgot.
    rows, columns = np.arange(shape[0]) + 0.5, np.arange(shape[1]) + 0.5
    plane = (40 * columns[None, :] - 25 * rows[:, None] + 20_000)[None].astype(np.float32)
    path = with_overviews(write_tif("plane.tif", plane), [2, 4, 8])
    reader = file_reader(path)
    size = 25.0
    target = GeoBox((40, 50), Affine(size, 0, TRANSFORM.c + 150, 0, -size, TRANSFORM.f - 150), "EPSG:32649")
    warped = warp(reader, target, resampling=resampling, anchor=(TRANSFORM.c, TRANSFORM.f))  # type: ignore[arg-type]
    x, y = (150 + (np.arange(50) + 0.5) * size) / 3, (150 + (np.arange(40) + 0.5) * size) / 3
    expected = 40 * x[None, :] - 25 * y[:, None] + 20_000
    assert reader.overview_for(size / 3).overview == 2
    off = warped.pixels[0] - expected
    assert warped.valid.all()
    # A tenth of a source pixel is 4 units; samples of `average` are a quarter of an overview's pixel apart.
    assert abs(off.mean()) < (1.0 if resampling != "average" else 4.0)
    assert np.abs(off).max() < (4.0 if resampling != "average" else 40 * 8 * 0.6)


@pytest.mark.parametrize("turn", [90.0, 37.0])
def test_overviews_of_a_raster_that_lies_on_its_side(write_tif: WriteTif, turn: float) -> None:
    sideways = TRANSFORM @ Affine.rotation(turn)
    reader = file_reader(with_overviews(write_tif("a.tif", PIXELS, transform=sideways), [2, 4, 8]))
    assert [reader.overview_for(factor).overview for factor in (1.9, 2.1, 3.9, 4.1, 8.2)] == [None, 0, 0, 1, 2]
    whole, coarse = reader.geobox, reader.overview_for(4.1).geobox
    for part in (0, 1):  # both reach to the same corners
        ends = [tuple(box.affine * (box.shape.x * part, box.shape.y)) for box in (whole, coarse)]
        np.testing.assert_allclose(ends[1], ends[0], rtol=0, atol=1e-6)


def test_files_without_overviews_stay_as_they_are(write_tif: WriteTif) -> None:
    reader = file_reader(str(write_tif("a.tif", PIXELS)))
    assert reader.overview_for(50.0) is reader


def test_bands_of_two_kinds_are_not_read_together(tmp_path: Path) -> None:
    box = GeoBox((301, 203), TRANSFORM, "EPSG:32649")
    vrt = tmp_path / "two.vrt"
    for name, dtype in (("a", np.uint8), ("b", np.float32)):
        with rasterio.open(
            tmp_path / f"{name}.tif",
            "w",
            driver="GTiff",
            count=1,
            height=301,
            width=203,
            dtype=dtype,
            crs=str(box.crs),
            transform=TRANSFORM,
        ) as file:
            file.write(np.ones((1, 301, 203), dtype))
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{number}"><SimpleSource><SourceFilename relativeToVRT="1">{name}.tif'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for number, (name, kind) in enumerate((("a", "Byte"), ("b", "Float32")), 1)
    )
    geotransform = ", ".join(str(value) for value in TRANSFORM.to_gdal())
    vrt.write_text(
        f'<VRTDataset rasterXSize="203" rasterYSize="301"><SRS>EPSG:32649</SRS><GeoTransform>{geotransform}</GeoTransform>'
        f"{bands}</VRTDataset>"
    )
    assert file_reader(str(vrt), (2,)).read(slice(0, 2), slice(0, 2)).dtype == np.float32


RandomCube = Callable[..., xr.Dataset]


def reader_of(path: Path, cube: xr.Dataset, *names: str, nodata: float | None = None) -> ZarrReader:
    return ZarrReader(
        path=str(path), arrays=names, geobox=geobox_of(cube), dtype=cube[names[0]].dtype, nodata=nodata, asset="cube"
    )


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_arrays_are_bands(tmp_path: Path, zarr_format: int) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 900, (2, 130, 150)).astype(np.uint16)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)  # type: ignore[arg-type]
    for name, band, lead in (("red", pixels[0], ()), ("nir", pixels[1], (1,))):
        array = group.create_array(name, shape=(*lead, 130, 150), chunks=(*lead, 64, 64), dtype=band.dtype)
        array[...] = band.reshape(*lead, 130, 150)
    box = GeoBox.from_bbox((0, 0, 1500, 1300), "EPSG:32608", resolution=10)
    reader = ZarrReader(
        path=str(tmp_path / "a.zarr"), arrays=("nir", "red"), geobox=box, dtype=np.dtype(np.uint16), nodata=0
    )
    np.testing.assert_array_equal(reader.read(slice(60, 130), slice(3, 70)), pixels[::-1, 60:130, 3:70])
    assert pickle.loads(pickle.dumps(reader)) == reader
    target = GeoBox.from_bbox((0, 0, 1400, 1190), "EPSG:32608", resolution=7)
    given = {"resampling": "cubic", "anchor": (0.0, 0.0)}
    ours = warp(reader, target, **given)  # type: ignore[arg-type]
    expected = warp(ArrayReader(pixels[::-1], box, nodata=0), target, **given)  # type: ignore[arg-type]
    np.testing.assert_array_equal(ours.pixels, expected.pixels)


@pytest.mark.parametrize(("lead", "fill"), [((), False), ((1,), False), ((), True)])
def test_valid_is_read_as_the_layers_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lead: tuple[int, ...], fill: bool
) -> None:
    """Through the same codecs, with a time of its own, and never from chunks that are not there but would count."""
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    valid = np.random.default_rng(2).random((40, 50)) < 0.7
    for name, pixels, empty in (("red", np.full((40, 50), 7, np.uint8), 0), ("valid", valid, fill)):
        array = group.create_array(
            name, shape=(*lead, 40, 50), chunks=(*lead, 20, 50), dtype=pixels.dtype, fill_value=empty
        )
        array[...] = pixels.reshape(*lead, 40, 50)
    box = GeoBox.from_bbox((0, 0, 500, 400), "EPSG:32608", resolution=10)
    reader = ZarrReader(
        path=str(tmp_path / "a.zarr"), arrays=("red",), geobox=box, dtype=np.dtype(np.uint8), nodata=None
    )
    opened: list[zarr.Array] = []
    read = ZarrReader._read

    def noted(self: ZarrReader, array: zarr.Array, *given: Any, **how: Any) -> None:
        opened.append(array)
        read(self, array, *given, **how)

    monkeypatch.setattr(ZarrReader, "_read", noted)
    found = reader.read(slice(3, 40), slice(0, 50))
    np.testing.assert_array_equal(np.ma.getmaskarray(found)[0], ~valid[3:])
    assert [array.basename for array in opened] == ["red", "valid"]
    assert {type(array.async_array.codec_pipeline) for array in opened} == {QuickCodecs}
    shutil.rmtree(tmp_path / "a.zarr" / "valid" / "c")
    if fill:
        with pytest.raises(CubeError, match="has no chunk valid"):
            reader.read(slice(3, 40), slice(0, 50))
    else:
        assert np.ma.getmaskarray(reader.read(slice(3, 40), slice(0, 50))).all()


def test_a_store_is_opened_once_until_it_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In other chunks, by another codec and with a `valid`, of which no number tells."""
    opened: list[str] = []
    real = readers.open_group
    monkeypatch.setattr(readers, "open_group", lambda path, options: opened.append(path) or real(path, options))
    box = GeoBox.from_bbox((0, 0, 500, 400), "EPSG:32608", resolution=10)
    reader = ZarrReader(
        path=str(tmp_path / "a.zarr"), arrays=("red",), geobox=box, dtype=np.dtype(np.uint8), nodata=None
    )
    for chunks, top, has_valid in (((20, 20), 100, False), ((8, 50), 200, False), ((8, 50), 50, True)):
        group = zarr.open_group(tmp_path / "a.zarr", mode="w")
        pixels = np.random.default_rng(top).integers(1, top, (40, 50)).astype(np.uint8)
        codec = {} if top == 100 else {"compressors": None}
        group.create_array("red", data=pixels, chunks=chunks, **codec)
        if has_valid:
            group.create_array("valid", data=pixels > 25, chunks=chunks)
        for path in (tmp_path / "a.zarr").rglob("zarr.json"):
            os.utime(path, (0, 0))  # as an archive that is unpacked over it
        for rows in (slice(3, 40), slice(0, 9)):
            found = reader.read(rows, slice(1, 50))
            np.testing.assert_array_equal(np.ma.getdata(found)[0], pixels[rows, 1:])
            np.testing.assert_array_equal(np.ma.getmaskarray(found)[0], has_valid & (pixels[rows, 1:] <= 25))
    assert len(opened) == 3


@pytest.mark.parametrize("turned", ["y", "x", "axes"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_pixels_that_the_transform_would_turn_are_refused(tmp_path: Path, turned: str, zarr_format: Any) -> None:
    box = GeoBox.from_bbox((0, 0, 300, 300), "EPSG:32608", resolution=10)
    coords = {"y": np.arange(295, 0, -10), "x": np.arange(5, 300, 10)}
    cube = xr.Dataset({"red": (("y", "x"), np.arange(900, dtype="uint16").reshape(30, 30))}, coords)
    reader = reader_of(tmp_path / "a.zarr", cube.odc.assign_crs(box.crs), "red", nodata=0)
    turn = {"axes": lambda: cube.transpose("x", "y")}.get(turned, lambda: cube.isel({turned: slice(None, None, -1)}))
    for made, refused in ((turn(), True), (cube, False), (cube.drop_vars(("y", "x")), False)):
        made.to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, consolidated=False, mode="w")
        if refused:
            with pytest.raises(
                CubeError, match=rf"red of .*a.zarr.* is not what its catalog says it is: .*{turned}.*: expected"
            ):
                reader.read(slice(0, 9), slice(0, 9))
        else:
            np.testing.assert_array_equal(reader.read(slice(0, 9), slice(0, 9))[0], cube["red"].values[:9, :9])


def test_stores_of_our_own(tmp_path: Path, random_cube: RandomCube) -> None:
    cube = random_cube()
    path = tmp_path / "cube.zarr"
    write_cube(cube, path)
    reader = reader_of(path, cube, "red", nodata=0)
    assert (reader.count, reader.overview_for(8)) == (1, reader)
    np.testing.assert_array_equal(reader.read(slice(9, 200), slice(100, 301))[0], cube["red"].values[9:200, 100:301])


def test_errors_name_store_and_array(tmp_path: Path, random_cube: RandomCube) -> None:
    cube = random_cube()
    path = tmp_path / "cube.zarr"
    write_cube(cube, path)
    window = slice(0, 4), slice(0, 4)
    with pytest.raises(CubeError, match=r"cube.zarr \(asset 'cube'\) has no array 'green'; there are \["):
        replace(reader_of(path, cube, "red"), arrays=("green",)).read(*window)
    with pytest.raises(CubeError, match=r"dem of .*cube.zarr .*dtype: expected uint16, found float32"):
        reader_of(path, cube, "red", "dem").read(*window)
    smaller = replace(reader_of(path, cube, "red"), geobox=geobox_of(cube)[:10, :10])
    with pytest.raises(CubeError, match=r"shape \(y, x\): expected \(10, 10\), found \(230, 301\)"):
        smaller.read(*window)
    with pytest.raises(CubeError, match=r"gone.zarr cannot be opened: there is no such file"):
        reader_of(tmp_path / "gone.zarr", cube, "red").read(*window)


def test_damage_names_the_window(tmp_path: Path, random_cube: RandomCube) -> None:
    cube = random_cube()
    path = tmp_path / "cube.zarr"
    write_cube(cube, path, overviews=False)
    for chunk in (path / "red" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"\x00" * 40)
    with pytest.raises(CubeError, match=r"cube.zarr.*: red cannot be read in rows 3-9, columns 2-6: .*damaged"):
        reader_of(path, cube, "red").read(slice(3, 9), slice(2, 6))


BANDS = BandSource(
    href="/nowhere/scene.tif",
    bands=(2, 1),
    geobox=GeoBox((40, 50), Affine(3.0, 0.0, 711576.0, 0.0, -3.0, 94749.0), "EPSG:32649"),
    dtype="uint16",
    nodata=0,
    asset="ortho",
)


def test_files_and_groups() -> None:
    reader = open_reader(BANDS)
    assert isinstance(reader, FileReader)
    assert (reader.bands, reader.asset, reader.nodata) == ((2, 1), "ortho", 0)
    group = open_reader(replace(BANDS, opener="zarr", bands=("red",)))
    assert isinstance(group, ZarrReader)
    assert group.arrays == ("red",)


def test_what_is_described_is_what_is_read(write_tif: Callable[..., Path]) -> None:
    pixels = np.random.default_rng(1).integers(0, 900, (2, 40, 50)).astype(np.uint16)
    bands = replace(BANDS, href=str(write_tif("scene.tif", pixels)))
    np.testing.assert_array_equal(open_reader(bands).read(slice(0, 40), slice(0, 50)), pixels[::-1])
    with pytest.raises(CubeError, match=r"scene.tif \(asset 'ortho'\) is not what its catalog says it is: dtype"):
        open_reader(replace(bands, dtype="uint8")).read(slice(0, 4), slice(0, 4))


def test_every_value_of_quality_data_counts(write_tif: Callable[..., Path]) -> None:
    pixels = np.random.default_rng(1).integers(0, 3, (2, 40, 50)).astype(np.uint16)
    bands = replace(BANDS, href=str(write_tif("scl.tif", pixels, nodata=0)))
    for described in (bands, replace(bands, nodata=None)):
        reader = open_reader(described, any_value=True)
        assert reader.nodata is None
        np.testing.assert_array_equal(reader.read(slice(0, 40), slice(0, 50)), pixels[::-1])
    assert open_reader(replace(bands, opener="zarr", bands=("scl",)), any_value=True).nodata is None
    with pytest.raises(CubeError, match=r"scl.tif \(asset 'ortho'\) declares nodata 0"):
        open_reader(replace(bands, nodata=None)).read(slice(0, 4), slice(0, 4))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bands": ()}, "numbers from 1, at least one"),
        ({"bands": ("red",)}, r"numbers from 1, at least one; got \('red',\)"),
        ({"bands": (1,), "opener": "zarr"}, r"names of arrays, at least one; got \(1,\)"),
    ],
)
def test_bands_are_named_as_their_file_names_them(change: dict[str, Any], told: str) -> None:
    with pytest.raises(CubeError, match=told):
        open_reader(replace(BANDS, **change))
