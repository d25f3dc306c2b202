"""Raster files as readers: overviews, and files that are not what was said of them."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling as GdalResampling

from rtsx.cube.resample.readers import FileReader
from rtsx.cube.resample.warp import warp
from rtsx.errors import CubeError

WriteTif = Callable[..., Path]
PIXELS = np.random.default_rng(1).integers(1, 60000, (3, 301, 203)).astype(np.uint16)
TRANSFORM = Affine(3.0, 0.0, 711576.0, 0.0, -3.0, 94749.0)


def test_bands_in_the_order_asked_for(write_tif: WriteTif) -> None:
    reader = FileReader.open(str(write_tif("a.tif", PIXELS, nodata=0)), (3, 1))
    assert (reader.count, reader.dtype, reader.nodata) == (2, np.dtype(np.uint16), 0)
    np.testing.assert_array_equal(reader.read(slice(5, 20), slice(7, 9)), PIXELS[[2, 0], 5:20, 7:9])
    assert pickle.loads(pickle.dumps(reader)) == reader
    with pytest.raises(CubeError, match=r"has bands 1 to 3; got \(4,\)"):
        FileReader.open(reader.path, (4,))


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
    reader = replace(FileReader.open(str(write_tif("a.tif", PIXELS))), asset="ortho", **change)
    with pytest.raises(CubeError, match=rf"a.tif \(asset 'ortho'\).*{told}"):
        reader.read(slice(0, 4), slice(0, 4))


def test_nodata_that_only_the_file_knows_of(write_tif: WriteTif) -> None:
    reader = replace(FileReader.open(str(write_tif("a.tif", PIXELS, nodata=0))), nodata=None)
    with pytest.raises(
        CubeError,
        match=r"a.tif declares nodata 0; the item that describes it states dtype uint16 and no nodata.*Write nodata:",
    ):
        reader.read(slice(0, 4), slice(0, 4))
    # What the caller said goes before what the file declares; and for quality data every value counts.
    for told in ({"nodata": 7, "settled": frozenset({"nodata"})}, {"any_value": True}):
        assert replace(reader, **told).read(slice(0, 4), slice(0, 4)).shape == (3, 4, 4)


def test_nodata_that_hides_nothing(write_tif: WriteTif) -> None:
    nans = replace(FileReader.open(str(write_tif("a.tif", PIXELS.astype(np.float32), nodata=np.nan))), nodata=None)
    assert nans.read(slice(0, 4), slice(0, 4)).shape == (3, 4, 4)


def test_a_crs_by_another_name_is_the_same(write_tif: WriteTif) -> None:
    reader = FileReader.open(str(write_tif("a.tif", PIXELS)))
    esri = GeoBox((301, 203), TRANSFORM, reader.geobox.crs.to_wkt(version="WKT1_ESRI"))
    assert replace(reader, geobox=esri).read(slice(0, 4), slice(0, 4)).shape == (3, 4, 4)


def with_overviews(path: Path, factors: list[int]) -> str:
    with rasterio.open(path, "r+") as file:
        file.build_overviews(factors, GdalResampling.average)
    return str(path)


def test_the_coarsest_overview_that_is_fine_enough(write_tif: WriteTif) -> None:
    reader = FileReader.open(with_overviews(write_tif("a.tif", PIXELS), [2, 4, 8]))
    assert reader.coarser(1.9) is reader
    assert [reader.coarser(factor).overview for factor in (2.1, 3.9, 4.1, 8.2, 1000)] == [0, 0, 1, 2, 2]
    # Nothing above the largest pixel of an overview, whatever its factor is called: 301 / 38 is 7.92, 203 / 26 is 7.81.
    assert reader.coarser(7.95).overview == 2
    for factor in (2.1, 4.1, 8.2):
        coarse = reader.coarser(factor)
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
    reader = FileReader.open(path)
    size = 25.0
    target = GeoBox((40, 50), Affine(size, 0, TRANSFORM.c + 150, 0, -size, TRANSFORM.f - 150), "EPSG:32649")
    warped = warp(reader, target, resampling=resampling, anchor=(TRANSFORM.c, TRANSFORM.f))  # type: ignore[arg-type]
    x, y = (150 + (np.arange(50) + 0.5) * size) / 3, (150 + (np.arange(40) + 0.5) * size) / 3
    expected = 40 * x[None, :] - 25 * y[:, None] + 20_000
    assert reader.coarser(size / 3).overview == 2
    off = warped.pixels[0] - expected
    assert warped.valid.all()
    # A tenth of a source pixel is 4 units; samples of `average` are a quarter of an overview's pixel apart.
    assert abs(off.mean()) < (1.0 if resampling != "average" else 4.0)
    assert np.abs(off).max() < (4.0 if resampling != "average" else 40 * 8 * 0.6)


@pytest.mark.parametrize("turn", [90.0, 37.0])
def test_overviews_of_a_raster_that_lies_on_its_side(write_tif: WriteTif, turn: float) -> None:
    sideways = TRANSFORM @ Affine.rotation(turn)
    reader = FileReader.open(with_overviews(write_tif("a.tif", PIXELS, transform=sideways), [2, 4, 8]))
    assert [reader.coarser(factor).overview for factor in (1.9, 2.1, 3.9, 4.1, 8.2)] == [None, 0, 0, 1, 2]
    whole, coarse = reader.geobox, reader.coarser(4.1).geobox
    for part in (0, 1):  # both reach to the same corners
        ends = [tuple(box.affine * (box.shape.x * part, box.shape.y)) for box in (whole, coarse)]
        np.testing.assert_allclose(ends[1], ends[0], rtol=0, atol=1e-6)


def test_files_without_overviews_stay_as_they_are(write_tif: WriteTif) -> None:
    reader = FileReader.open(str(write_tif("a.tif", PIXELS)))
    assert reader.coarser(50.0) is reader


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
    with pytest.raises(CubeError, match="of one dtype and nodata"):
        FileReader.open(str(vrt))
    assert FileReader.open(str(vrt), (2,)).read(slice(0, 2), slice(0, 2)).dtype == np.float32
