"""Whatever GDAL calls missing is missing: masks, alpha bands and nodata of many kinds of files, at both doors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from shapely import box

from rtsx.cube import Layer, open_cube
from rtsx.cube.build import build_cube
from rtsx.cube.encoding import packing
from rtsx.cube.file_images import FileImages
from rtsx.cube.images import Wanted
from rtsx.cube.recipe import CubeRecipe, LayerRecipe, SourceRecipe
from rtsx.cube.resample.dtype import Resampling, is_stored
from rtsx.cube.resample.mosaic import MosaicReader
from rtsx.cube.resample.readers import FileReader
from rtsx.cube.resample.warp import warp
from rtsx.errors import CubeError
from rtsx.grid import Grid

SIZE = 64
HOLE = np.zeros((SIZE, SIZE), bool)
HOLE[:20, :30] = True
AFFINE = Affine(3, 0, 500_000, 0, -3, 7_700_000)

Make = Callable[[Path], Path]


def _write(
    path: Path, pixels: np.ndarray, *, internal: bool = True, mask: np.ndarray | None = None, **profile: Any
) -> Path:
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal),
        rasterio.open(
            path, "w", driver="GTiff", height=SIZE, width=SIZE, count=len(pixels), dtype=pixels.dtype, crs="EPSG:32608",
            transform=AFFINE, tiled=True, blockxsize=32, blockysize=32, **profile,
        ) as file,
    ):  # fmt: skip
        file.write(pixels)
        if mask is not None:
            file.write_mask(mask)
    return path


def _pixels(count: int, dtype: str, *, hole: float | None = None) -> np.ndarray:
    values = np.random.default_rng(7).integers(0, 100, (count, SIZE, SIZE)).astype(dtype)
    if hole is not None:
        values[:, HOLE] = hole
    return values


def _rgba(path: Path, dtype: str, **profile: Any) -> Path:
    pixels = _pixels(4, dtype)
    pixels[3] = np.where(HOLE, 0, 255)
    return _write(path, pixels, photometric="RGB", ALPHA="YES", **profile)


def _gray_alpha(path: Path) -> Path:
    pixels = _pixels(2, "uint8")
    pixels[1] = np.where(HOLE, 0, 7)  # half transparent is data
    return _write(path, pixels, ALPHA="YES")


def _premultiplied(path: Path) -> Path:
    pixels = _pixels(4, "uint8")
    pixels[3] = np.where(HOLE, 0, 255)
    return _write(path, pixels, photometric="RGB", ALPHA="PREMULTIPLIED")


def _vrt_mask(path: Path) -> Path:
    tif = _write(path, _pixels(1, "uint16"))
    _write(path.with_name("mask.tif"), np.where(HOLE, 0, 255).astype("uint8")[None])
    vrt = path.with_suffix(".vrt")
    source = (
        "<SimpleSource><SourceFilename relativeToVRT='1'>{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
    )
    vrt.write_text(
        f"<VRTDataset rasterXSize='{SIZE}' rasterYSize='{SIZE}'><SRS>EPSG:32608</SRS>"
        "<GeoTransform>500000,3,0,7700000,0,-3</GeoTransform>"
        f"<VRTRasterBand dataType='UInt16' band='1'>{source.format(tif.name)}</VRTRasterBand>"
        f"<MaskBand><VRTRasterBand dataType='Byte'>{source.format('mask.tif')}</VRTRasterBand></MaskBand></VRTDataset>"
    )
    return vrt


def _with_overviews(path: Path) -> Path:
    _write(path, _pixels(3, "uint8"), mask=~HOLE)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2])
    return path


KINDS: dict[str, Make] = {
    "plain": lambda path: _write(path, _pixels(3, "uint16")),
    "nodata 0": lambda path: _write(path, _pixels(3, "uint16", hole=0), nodata=0),
    "nodata 255": lambda path: _write(path, _pixels(3, "uint8", hole=255), nodata=255),
    "nodata -1": lambda path: _write(path, _pixels(2, "int16", hole=-1), nodata=-1),
    "nodata -9999": lambda path: _write(path, _pixels(1, "float32", hole=-9999), nodata=-9999),
    "nodata NaN": lambda path: _write(path, _pixels(1, "float32", hole=np.nan), nodata=np.nan),
    "nodata float64": lambda path: _write(path, _pixels(1, "float64", hole=-3.4e38), nodata=-3.4e38),
    "int8": lambda path: _write(path, _pixels(1, "int8", hole=-128), nodata=-128),
    "uint32": lambda path: _write(path, _pixels(1, "uint32", hole=4_294_967_295), nodata=4_294_967_295),
    "internal mask uint8": lambda path: _write(path, _pixels(3, "uint8"), mask=~HOLE),
    "internal mask uint16": lambda path: _write(path, _pixels(3, "uint16"), mask=~HOLE),
    "internal mask int16": lambda path: _write(path, _pixels(1, "int16"), mask=~HOLE),
    "internal mask int32": lambda path: _write(path, _pixels(1, "int32"), mask=~HOLE),
    "internal mask float32": lambda path: _write(path, _pixels(2, "float32"), mask=~HOLE),
    "internal mask over nodata": lambda path: _write(path, _pixels(3, "uint8"), mask=~HOLE, nodata=7),
    "internal mask of all": lambda path: _write(path, _pixels(3, "uint8"), mask=np.zeros_like(HOLE)),
    "external mask": lambda path: _write(path, _pixels(3, "uint8"), internal=False, mask=~HOLE),
    "external mask float32": lambda path: _write(path, _pixels(1, "float32"), internal=False, mask=~HOLE),
    "external mask over nodata": lambda path: _write(path, _pixels(2, "uint16"), internal=False, mask=~HOLE, nodata=3),
    "rgba": lambda path: _rgba(path, "uint8"),
    "rgba uint16": lambda path: _rgba(path, "uint16"),
    "rgba premultiplied": _premultiplied,
    "gray and alpha": _gray_alpha,
    "mask in a VRT": _vrt_mask,
    "mask with overviews": _with_overviews,
    "four bands of bytes": lambda path: _write(path, _pixels(4, "uint8")),
}


def _expected(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        bands = [band for band in file.indexes if file.colorinterp[band - 1].name != "alpha"]
        return (file.read_masks(bands) > 0).all(axis=0)


@pytest.mark.parametrize("kind", KINDS)
def test_validity_is_what_gdal_says(kind: str, tmp_path: Path) -> None:
    path = KINDS[kind](tmp_path / "a.tif")
    expected = _expected(path)
    cube = open_cube(str(path), chunks=32).compute()
    valid = cube["valid"].values if "valid" in cube else np.ones((SIZE, SIZE), bool)
    for name, layer in cube.data_vars.items():
        if name != "valid":
            valid = valid & is_stored(layer.values, packing(layer)["nodata"])
    np.testing.assert_array_equal(valid, expected)


def test_masks_beside_local_files_count_whatever_the_environment_says(tmp_path: Path) -> None:
    path = KINDS["external mask"](tmp_path / "a.tif")
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):  # usual where files are on servers
        cube = open_cube(str(path)).compute()
    np.testing.assert_array_equal(cube["valid"], ~HOLE)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
@pytest.mark.parametrize("kind", KINDS)
def test_warped_validity_is_what_gdal_says(kind: str, resampling: Resampling, tmp_path: Path) -> None:
    path = KINDS[kind](tmp_path / "a.tif")
    ground = box(-180, -90, 180, 90)
    with rasterio.open(path) as file:
        names = [f"b{n}" for n in file.indexes if file.colorinterp[n - 1].name != "alpha"]
    wanted = [Wanted(name=name, bands=(int(name[1:]),)) for name in names]
    (image,) = FileImages(assets={"image": (str(path),)}).find(ground, None, wanted)
    from rtsx.cube.resample.readers import open_reader

    geobox = image.bands[names[0]].geobox
    valid = np.ones((SIZE, SIZE), bool)
    shifted = type(geobox)((SIZE - 4, SIZE - 4), geobox.affine * Affine.translation(1.2, 1.2), geobox.crs)
    aligned, moved = valid, np.ones(shifted.shape, bool)
    for name in names:
        reader = open_reader(image.bands[name])
        aligned = aligned & warp(reader, geobox, resampling=resampling, anchor=(500_000, 7_700_000)).valid[0]
        anchor = (shifted.affine.c, shifted.affine.f)
        moved = moved & warp(reader, shifted, resampling=resampling, anchor=anchor).valid[0]
    expected = _expected(path)
    np.testing.assert_array_equal(aligned, expected)
    np.testing.assert_array_equal(moved, expected[1:-3, 1:-3])  # the pixel that holds the middle


def test_values_under_a_mask_never_matter(tmp_path: Path) -> None:
    pixels = _pixels(1, "uint8")
    answers = []
    for place, hidden in enumerate((0, 255)):
        pixels[:, HOLE] = hidden
        reader = FileReader.open(str(_write(tmp_path / f"{place}.tif", pixels, mask=~HOLE)))
        target = reader.geobox.zoom_out(2)
        answers.append(warp(reader, target, resampling="average", anchor=(500_000, 7_700_000)).pixels)
    np.testing.assert_array_equal(*answers)


def test_a_mosaic_takes_what_the_mask_of_its_first_tile_leaves(tmp_path: Path) -> None:
    first = FileReader.open(str(_write(tmp_path / "a.tif", np.full((1, SIZE, SIZE), 1, "uint8"), mask=~HOLE)))
    second = FileReader.open(str(_write(tmp_path / "b.tif", np.full((1, SIZE, SIZE), 2, "uint8"))))
    both = MosaicReader([first, second]).read(slice(0, SIZE), slice(0, SIZE))
    np.testing.assert_array_equal(both[0], np.where(HOLE, 2, 1))
    alone = MosaicReader([first]).read(slice(0, SIZE), slice(0, SIZE))
    np.testing.assert_array_equal(np.ma.getmaskarray(alone)[0], HOLE)


def test_an_alpha_band_is_no_layer(tmp_path: Path) -> None:
    path = str(_rgba(tmp_path / "a.tif", "uint16"))
    assert list(open_cube(path)) == ["band_1", "band_2", "band_3", "valid"]
    assert list(open_cube(path, layers=["red", "green", "blue"])) == ["red", "green", "blue", "valid"]
    assert list(open_cube(path, layers=["red", "green", "blue", "alpha"])) == ["red", "green", "blue", "alpha", "valid"]
    assert list(open_cube(path, sensor="tcvis")) == ["tc_brightness", "tc_greenness", "tc_wetness", "valid"]
    gray = str(_gray_alpha(tmp_path / "g.tif"))
    assert list(open_cube({"dem": gray, "red": Layer("red", path, band=1)}))[:2] == ["dem", "red"]


def test_data_that_is_marked_as_alpha_is_warned_of(tmp_path: Path) -> None:
    path = str(KINDS["four bands of bytes"](tmp_path / "a.tif"))
    with pytest.warns(UserWarning, match=r"Band 4 of .*a.tif, layer 'nir', is marked as alpha.*ALPHA=NO"):
        cube = open_cube(path, layers=["blue", "green", "red", "nir"])
    assert list(cube) == ["blue", "green", "red", "nir", "valid"]


def test_a_native_store_needs_a_value_for_what_a_mask_hides(tmp_path: Path) -> None:
    from rtsx.cube.resample.dtype import without_mask

    reader = FileReader.open(str(_write(tmp_path / "a.tif", _pixels(1, "uint16"), mask=~HOLE)))
    pixels = reader.read(slice(0, SIZE), slice(0, SIZE))
    stored, nodata = without_mask(pixels, 999)
    assert stored.dtype == np.uint16
    assert nodata == 999
    np.testing.assert_array_equal(stored[0] == 999, HOLE)
    for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"):
        wide, nodata = without_mask(np.ma.MaskedArray(np.array([1, 0], dtype), [False, True]), None)
        np.testing.assert_array_equal(is_stored(wide, nodata), [True, False])


@pytest.mark.parametrize("nodata", [None, 999.0])
def test_a_native_store_without_that_value_is_refused_before_it_is_begun(tmp_path: Path, nodata: float | None) -> None:
    _write(tmp_path / "a.tif", _pixels(1, "uint16"), mask=~HOLE)
    source = SourceRecipe(
        name="files",
        images=FileImages(assets={"image": (str(tmp_path / "a.tif"),)}),
        layers=(LayerRecipe(wanted=Wanted(name="red", bands=(1,), nodata=nodata)),),
    )
    grid = Grid("EPSG:32608", 3, cell_size=SIZE, origin=(AFFINE.c, AFFINE.f))
    recipe = CubeRecipe(grid=grid, sources=(source,), chunk=32)
    if nodata is None:
        with pytest.raises(
            CubeError, match=r"'files', image .*says by a mask what is missing, and uint16 without nodata"
        ):
            build_cube(recipe, tmp_path / "a.zarr", cell=grid[0, 0], layout="native")
        assert not (tmp_path / "a.zarr").exists()
    else:
        assert build_cube(recipe, tmp_path / "a.zarr", cell=grid[0, 0], layout="native").built


@pytest.mark.parametrize("field", ["nodata", "scale_factor", "add_offset"])
@pytest.mark.parametrize("item", [None, 2.0])
@pytest.mark.parametrize("file", [None, 2.0, 3.0])
@pytest.mark.parametrize("is_settled", [False, True])
def test_item_against_file(
    field: str, item: float | None, file: float | None, is_settled: bool, tmp_path: Path
) -> None:
    path = _write(tmp_path / "a.tif", _pixels(1, "uint16"), nodata=file if field == "nodata" else None)
    if file is not None and field != "nodata":
        with rasterio.open(path, "r+") as opened:
            setattr(opened, "scales" if field == "scale_factor" else "offsets", (file,))
    silent = {"nodata": None, "scale_factor": 1.0, "add_offset": 0.0}
    stated = silent | {field: silent[field] if item is None else item}
    geobox = FileReader.open(str(path)).geobox
    settled = frozenset({field} if is_settled else ())
    reader = FileReader(path=str(path), bands=(1,), geobox=geobox, dtype=np.dtype("uint16"), settled=settled, **stated)
    if file is None or file == item or is_settled:
        assert reader.read(slice(0, 1), slice(0, 1)).shape == (1, 1, 1)
    else:
        with pytest.raises(CubeError, match=rf"declares {field} {file:.0f}; the item .*Write {field}: with"):
            reader.read(slice(0, 1), slice(0, 1))
