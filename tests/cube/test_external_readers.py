"""stackstac against plain reads, pixel by pixel."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.env import get_gdal_config

from rtsx.cube.external_readers import band_table, read_stackstac
from rtsx.cube.images import BandSource, Image
from rtsx.cube.rasterio import read_header
from rtsx.errors import CubeError
from tests.ordering.file_server import FileServer

read = partial(read_stackstac, any_value=False)
TARGET = GeoBox((70, 90), Affine(10, 0, 500_003, 0, -10, 7_000_007), "EPSG:32608")


@pytest.fixture
def scenes(write_tif: Callable[..., Path]) -> list[Image]:
    """Four scenes of four bands on the lattice of the target, whose origin is no multiple of the resolution.

    Two overlap it in part, one covers it, one lies beside it. Some pixels are missing, some files have no nodata.
    """
    rng = np.random.default_rng(3)
    found = []
    for number, (row, column) in enumerate([(-20, -30), (30, 40), (-5, -5), (500, 500)]):
        pixels = rng.integers(1, 9000, (4, 100, 120)).astype(np.uint16)
        pixels[:, rng.random((100, 120)) < 0.2] = 0
        path = write_tif(
            f"scene{number}.tif",
            pixels,
            crs="EPSG:32608",
            transform=TARGET.affine @ Affine.translation(column, row),
            nodata=0 if number % 2 else None,
        )
        box = read_header(path).geobox
        common: dict[str, Any] = {"href": str(path), "geobox": box, "dtype": "uint16", "nodata": 0}
        bands = {"pair": BandSource(bands=(4, 2), **common), "one": BandSource(bands=(3,), **common)}
        found.append(Image(id=f"scene{number}", bands=bands))
    return found


def plain(image: Image, names: list[str]) -> NDArray[Any]:
    """Pixels on the target by copying, where the scene lies on its lattice."""
    found = []
    for name in names:
        bands = image.bands[name]
        with rasterio.open(bands.href) as file:
            pixels = file.read(list(bands.bands))
            column, row = ~TARGET.affine * (file.transform.c, file.transform.f)
        out = np.zeros((len(bands.bands), *TARGET.shape), pixels.dtype)
        row, column = round(row), round(column)
        ys = slice(max(row, 0), max(min(row + pixels.shape[1], TARGET.shape[0]), max(row, 0)))
        xs = slice(max(column, 0), max(min(column + pixels.shape[2], TARGET.shape[1]), max(column, 0)))
        if ys.start < TARGET.shape[0] and xs.start < TARGET.shape[1]:
            out[:, ys, xs] = pixels[:, ys.start - row : ys.stop - row, xs.start - column : xs.stop - column]
        found.append(out)
    return np.concatenate(found)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_on_a_shared_lattice_pixels_are_copied(scenes: list[Image], resampling: str) -> None:
    stack = read(scenes, ["pair", "one"], TARGET, resampling=resampling, chunk=(32, 48))
    assert (stack.shape, stack.dtype) == ((4, 3, 70, 90), np.uint16)
    assert stack.chunks[2:] == ((32, 32, 6), (48, 42))
    pixels = stack.compute(scheduler="threads", num_workers=2)
    expected = np.stack([plain(image, ["pair", "one"]) for image in scenes])
    assert [bool(image.any()) for image in expected] == [True, True, True, False]
    np.testing.assert_array_equal(pixels, expected)
    stack.compute(scheduler="sync")
    assert get_gdal_config("GDAL_DISABLE_READDIR_ON_OPEN", normalize=False) is None  # nothing stays with this thread


def test_nearest_on_another_grid(scenes: list[Image]) -> None:
    target = GeoBox((60, 64), Affine(7, 0, 500_200, 0, -7, 6_999_800), "EPSG:32608")
    rotated = GeoBox((60, 60), Affine(11, 0, 0, 0, -11, 0), "EPSG:3413")
    x, y = Transformer.from_crs("EPSG:32608", "EPSG:3413", always_xy=True).transform(500_400, 6_999_600)
    rotated = GeoBox((60, 60), Affine(11, 0, x - 330, 0, -11, y + 330), "EPSG:3413")
    for box in (target, rotated):
        pixels = read(scenes, ["one"], box, resampling="nearest", chunk=(60, 64)).compute(scheduler="sync")
        for image, found in zip(scenes, pixels[:, 0], strict=True):
            expected, is_clear = sampled(image.bands["one"], box)
            assert is_clear.mean() > 0.6
            np.testing.assert_array_equal(found[is_clear], expected[is_clear])


def sampled(bands: BandSource, box: GeoBox) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Source pixels under the middles of the target's, and where they are a tenth of a pixel away from the next one."""
    rows, columns = np.indices(box.shape)
    x, y = box.affine * (columns + 0.5, rows + 0.5)
    x, y = Transformer.from_crs(box.crs.proj, bands.geobox.crs.proj, always_xy=True).transform(x, y)
    u, v = ~bands.geobox.affine * (x, y)
    with rasterio.open(bands.href) as file:
        pixels = file.read(bands.bands[0])
    inside = (u >= 0) & (v >= 0) & (u < pixels.shape[1]) & (v < pixels.shape[0])
    out = np.zeros(box.shape, pixels.dtype)
    out[inside] = pixels[v[inside].astype(int), u[inside].astype(int)]
    is_clear = (np.abs(u - np.round(u)) > 0.1) & (np.abs(v - np.round(v)) > 0.1)
    return out, is_clear


def test_nothing_is_read_before_it_is_computed(scenes: list[Image], tmp_path: Path) -> None:
    with dask.config.set(scheduler=_refuse):
        stack = read(scenes, ["one"], TARGET, resampling="nearest", chunk=(32, 48))
    for file in tmp_path.glob("*.tif"):
        file.unlink()
    with pytest.raises(Exception, match=r"scene\d\.tif"):
        stack.compute(scheduler="sync")


def _refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("something was computed")


def test_images_beside_the_grid_are_nodata(scenes: list[Image]) -> None:
    stack = read(scenes[3:], ["one"], TARGET, resampling="nearest", chunk=(32, 48))
    assert stack.shape == (1, 1, 70, 90)
    assert not stack.compute(scheduler="sync").any()


def test_what_cannot_be_read_together_is_refused(scenes: list[Image]) -> None:
    first = scenes[0]
    other = BandSource(**{**vars(first.bands["one"]), "dtype": "uint8"})
    with pytest.raises(CubeError, match=r"share number, dtype and nodata; \['one'\] have"):
        band_table([first, Image(id="b", bands={"one": other})], ["one"])
    zarr = BandSource(**{**vars(first.bands["one"]), "opener": "zarr"})
    with pytest.raises(CubeError, match=r"for the reader 'rtsx' only"):
        band_table([Image(id="b", bands={"one": zarr})], ["one"])


def test_stackstac_takes_north_up_grids_only(scenes: list[Image]) -> None:
    turned = GeoBox((4, 4), TARGET.affine @ Affine.rotation(10), "EPSG:32608")
    with pytest.raises(CubeError, match=r"north-up grids with an EPSG code"):
        read(scenes, ["one"], turned, resampling="nearest", chunk=(4, 4))


@pytest.mark.parametrize("kind", ["alpha", "internal mask", "mask beside"])
def test_masks_that_stackstac_loses_are_refused(tmp_path: Path, kind: str) -> None:
    pixels = np.full((4 if kind == "alpha" else 1, 64, 64), 9, np.uint8)
    pixels[-1, :20] = 0
    profile = {"photometric": "RGB", "ALPHA": "YES"} if kind == "alpha" else {}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind == "internal mask"),
        rasterio.open(
            tmp_path / "a.tif", "w", driver="GTiff", height=64, width=64, count=len(pixels), dtype="uint8", crs="EPSG:32608",
            transform=TARGET.affine, **profile,
        ) as file,
    ):  # fmt: skip
        file.write(pixels)
        if kind != "alpha":
            file.write_mask(pixels[0] > 0)
    box = GeoBox((64, 64), TARGET.affine, "EPSG:32608")
    bands = BandSource(href=str(tmp_path / "a.tif"), bands=(1,), geobox=box, dtype="uint8", nodata=0)
    stack = read([Image(id="a", bands={"one": bands})], ["one"], TARGET, resampling="nearest", chunk=(70, 90))
    with pytest.raises(CubeError, match=r"a\.tif are marked by a mask or an alpha band.*remove `reader: stackstac`"):
        stack.compute(scheduler="sync")


def test_a_file_that_is_not_what_its_item_says_is_refused(scenes: list[Image]) -> None:
    bands = {"one": replace(scenes[1].bands["one"], nodata=7)}
    stack = read([Image(id="a", bands=bands)], ["one"], TARGET, resampling="nearest", chunk=(70, 90))
    with pytest.raises(
        CubeError, match=r"declares nodata 0; the item that describes it states dtype uint16 and nodata 7"
    ):
        stack.compute(scheduler="sync")


def test_a_mosaic_on_a_server_reads_no_file_of_this_machine(scenes: list[Image], tmp_path: Path) -> None:
    """Nor through stackstac, which opens files itself."""
    secret = scenes[1].bands["one"]
    transform = ",".join(map(str, secret.geobox.affine.to_gdal()))
    (tmp_path / "red.vrt").write_text(
        f'<VRTDataset rasterXSize="120" rasterYSize="100"><SRS>EPSG:32608</SRS><GeoTransform>{transform}</GeoTransform>'
        '<VRTRasterBand dataType="UInt16" band="1"><NoDataValue>0</NoDataValue><SimpleSource>'
        f"<SourceFilename>{secret.href}</SourceFilename><SourceBand>3</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    own = Image(id="a", bands={"one": replace(secret, href=str(tmp_path / "red.vrt"), bands=(1,))})
    assert read([own], ["one"], TARGET, resampling="nearest", chunk=(70, 90)).compute(scheduler="sync").any()
    server = FileServer(tmp_path)
    try:
        theirs = Image(id="a", bands={"one": replace(own.bands["one"], href=f"{server.url}/red.vrt")})
        stack = read([theirs], ["one"], TARGET, resampling="nearest", chunk=(70, 90))
        with pytest.raises(CubeError, match=r"red\.vrt lies on a server and is made of .*scene1\.tif, which may not"):
            stack.compute(scheduler="sync")
    finally:
        server.close()
