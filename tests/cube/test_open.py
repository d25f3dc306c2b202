"""Opening raster files and stores: lazily, as stored, and with a message where it cannot be."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapely import box

import rtsx.cube.graph
from rtsx.cube import (
    SENSORS,
    BandRequest,
    CubeRecipe,
    GivenImages,
    Layer,
    LayerRecipe,
    SourceRecipe,
    apply_mask,
    geobox_of,
    lattice_origin,
    open_source,
    packing,
    quality_level,
    write_cube,
)
from rtsx.cube.file_images import FileImages, StoreImages
from rtsx.cube.open import coarse_recipe, small_store
from rtsx.cube.zarr_cube import StoredPixels
from rtsx.errors import CubeError, LayerValuesWarning
from rtsx.grid import Grid, grid_offset

WriteTif = Callable[..., Path]
Make = Callable[..., xr.Dataset]
RNG = np.random.default_rng(7)
SCENE = RNG.integers(0, 5000, (4, 200, 170)).astype(np.uint16)
SCENE[:, 50:80, :40] = 0


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, tuple[slice, slice], tuple[int, ...]]]]:
    """Every read of pixels from now on: file name, window, bands."""
    seen: list[tuple[str, tuple[slice, slice], tuple[int, ...]]] = []
    plain = rtsx.cube.graph.read_window

    def counting(path: str, window: tuple[slice, slice], *, bands: tuple[int, ...], **how: Any) -> np.ndarray:
        seen.append((Path(path).name, window, tuple(bands)))
        return plain(path, window, bands=bands, **how)

    monkeypatch.setattr(rtsx.cube.graph, "read_window", counting)
    return seen


def refuse(graph: object, keys: object, **_: object) -> object:
    raise AssertionError("something was computed")


def test_a_scene_opens_as_stored(write_tif: WriteTif) -> None:
    cube = open_source(write_tif("scene.tif", SCENE), sensor="planetscope")
    assert list(cube) == ["blue", "green", "red", "nir"]
    np.testing.assert_array_equal(cube.to_dataarray().values, SCENE)
    assert cube["red"].dtype == np.uint16
    assert packing(cube["red"]) == {"scale_factor": 1e-4, "add_offset": 0.0, "nodata": 0.0, "is_declared": True}
    assert cube["red"].attrs["units"] == "reflectance"
    assert cube.odc.geobox == geobox_of(cube)
    assert cube.rio.crs.to_epsg() == 32649
    assert lattice_origin(cube) == (711576.0, 94749.0)
    assert lattice_origin(cube.isel(y=slice(7, 90), x=slice(3, 50))) == (711576.0, 94749.0)


def test_opening_reads_nothing_and_a_chunk_reads_itself_once(
    write_tif: WriteTif, reads: list[tuple[str, tuple[slice, slice], tuple[int, ...]]]
) -> None:
    scene, udm2 = write_tif("scene.tif", SCENE), write_tif("udm2.tif", np.ones((8, 200, 170), np.uint8))
    with dask.config.set(scheduler=refuse):
        cube = open_source(scene, sensor="planetscope", chunks=64, mask=(udm2, "tss-v1"))
    assert not reads
    part = cube.isel(y=slice(64, 128), x=slice(128, 170))
    dask.compute(part["red"], part["nir"], part["blue"])
    assert reads == [("scene.tif", (slice(64, 128), slice(128, 170)), (1, 2, 3, 4))]
    reads.clear()
    cube.compute()
    assert len(reads) == 2 * 4 * 3
    assert len(set(map(repr, reads))) == len(reads)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(chunk=st.integers(1, 250), rows=st.tuples(st.integers(0, 199), st.integers(1, 200)), layer=st.integers(0, 3))
def test_chunks_change_no_pixel(write_tif: WriteTif, chunk: int, rows: tuple[int, int], layer: int) -> None:
    cube = open_source(write_tif("scene.tif", SCENE), sensor="planetscope", chunks=max(chunk, 17))
    part = cube[SENSORS["planetscope"].names(4)[layer]].isel(y=slice(*sorted(rows)))
    np.testing.assert_array_equal(part.values, SCENE[layer, slice(*sorted(rows))])


def test_automatic_chunks_are_whole_blocks(write_tif: WriteTif) -> None:
    pixels = np.zeros((1, 1500, 1300), np.uint8)
    tiled = open_source(write_tif("tiled.tif", pixels, blockxsize=192, blockysize=256))
    assert tiled.chunksizes == {"y": (1024, 476), "x": (960, 340)}
    strips = open_source(write_tif("strips.tif", pixels, tiled=False, blockxsize=None, blockysize=10))
    assert strips.chunksizes == {"y": (1020, 480), "x": (1024, 276)}


def test_names_come_from_the_caller_the_file_or_the_number(write_tif: WriteTif) -> None:
    plain = write_tif("plain.tif", SCENE)
    assert list(open_source(plain)) == ["band_1", "band_2", "band_3", "band_4"]
    assert list(open_source(plain, layers=["blue", "green", "red", "nir"])) == ["blue", "green", "red", "nir"]
    described = write_tif("described.tif", SCENE, descriptions=("blue", "green", "red", "nir"))
    some = open_source(described, layers=["nir", "green"])
    assert list(some) == ["nir", "green"]
    np.testing.assert_array_equal(some["nir"].values, SCENE[3])
    dem = write_tif("dem.tif", SCENE[:1].astype(np.float32), nodata=-9999)
    both = open_source([described, dem])
    assert list(both) == ["blue", "green", "red", "nir", "dem"]
    assert both["dem"].attrs == {"_FillValue": -9999}
    with pytest.raises(CubeError, match=r"Layers \['dem'\] are not in .*described.tif.*'blue', 'green', 'red', 'nir'"):
        open_source(described, layers=["red", "dem"])
    with pytest.raises(CubeError, match=r"Two bands are called 'blue': band 1 of .*described.tif and band 1"):
        open_source([described, plain], sensor="planetscope")


def test_a_mapping_names_bands_and_packing(write_tif: WriteTif) -> None:
    scene, dem = write_tif("scene.tif", SCENE), write_tif("dem.tif", SCENE[:1].astype(np.float32), nodata=-9999)
    cube = open_source(
        {"red": Layer("red", scene, 3, scale_factor=1e-4, add_offset=-0.1, nodata=0, units="reflectance"), "dem": dem}
    )
    np.testing.assert_array_equal(cube["red"].values, SCENE[2])
    assert packing(cube["red"])["add_offset"] == -0.1
    assert packing(cube["dem"]) == {"scale_factor": 1.0, "add_offset": 0.0, "nodata": -9999.0, "is_declared": False}
    with pytest.raises(CubeError, match=r"has 4 bands, and a path stands for a file of one. .*band="):
        open_source({"red": scene})
    with pytest.raises(CubeError, match=r"asks for band 5 of .*scene.tif, which has 4 bands"):
        open_source({"red": Layer("red", scene, 5)})
    with pytest.raises(CubeError, match=r"Layers \['slope'\] are not among"):
        open_source({"dem": dem}, layers=["slope"])


def test_what_a_file_declares_is_kept(write_tif: WriteTif) -> None:
    import rasterio

    path = write_tif("scaled.tif", SCENE[:1])
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets, file.units = (0.5,), (10.0,), ("m",)
    assert packing(open_source(path)["scaled"])["scale_factor"] == 0.5
    assert open_source(path)["scaled"].attrs == {"scale_factor": 0.5, "add_offset": 10.0, "units": "m"}


@pytest.mark.parametrize(
    ("profile", "shape", "message"),
    [
        (
            {"crs": "EPSG:32650"},
            (4, 200, 170),
            r"the CRS differs: .*a.tif has EPSG:32649, .*b.tif has EPSG:32650.*gdalwarp",
        ),
        (
            {"transform": Affine(3, 0, 711577.5, 0, -3, 94749)},
            (4, 200, 170),
            r"the transform differs: .*711576.0.*711577.5",
        ),
        ({"transform": Affine(3.001, 0, 711576, 0, -3, 94749)}, (4, 200, 170), "the transform differs"),
        ({}, (4, 200, 171), r"the shape \(y, x\) differs: .*\(200, 170\).*\(200, 171\)"),
    ],
)
def test_layers_on_different_grids_are_refused(
    write_tif: WriteTif, profile: dict[str, Any], shape: tuple[int, ...], message: str
) -> None:
    one, other = write_tif("a.tif", SCENE), write_tif("b.tif", np.zeros(shape, np.uint16), **profile)
    with pytest.raises(CubeError, match=message):
        open_source({"a": Layer("a", one), "b": Layer("b", other)})


def test_a_cell_keeps_what_lies_in_it_on_the_grids_lattice(
    write_tif: WriteTif,
    reads: list[tuple[str, tuple[slice, slice], tuple[int, ...]]],
    tmp_path: Path,
    random_cube: Make,
) -> None:
    grid = Grid("EPSG:32649", 3.0, cell_size=100, origin=(711576.0 - 50 * 3, 94749.0 + 120 * 3))
    path = write_tif("scene.tif", SCENE)
    whole = open_source(path, sensor="planetscope")
    store = write_cube(whole, tmp_path / "scene.zarr", chunks=64)
    reads.clear()
    for source, options in ((path, {"sensor": "planetscope"}), (store, {})):
        for iy, ix, rows, columns in (
            (1, 0, (0, 80), (0, 50)),
            (2, 1, (80, 180), (50, 150)),
            (3, 2, (180, 200), (150, 170)),
        ):
            part = open_source(source, grid[iy, ix], **options)
            expected = whole.isel(y=slice(*rows), x=slice(*columns))
            xr.testing.assert_equal(part.load(), expected.load())
            assert lattice_origin(part) == grid.origin
            offset = grid_offset(geobox_of(part), grid.origin)
            assert (offset[0] // 100, offset[1] // 100) == (iy, ix)
        with pytest.raises(CubeError, match="does not meet cell r009c009"):
            open_source(source, grid[9, 9], **options)
    with pytest.raises(CubeError, match="not on the grid of the cell: upper-left corner"):
        open_source(path, Grid("EPSG:32649", 3.0, cell_size=100, origin=(711574.0, 94749.0))[0, 0])
    with pytest.raises(CubeError, match="not on the grid of the cell: pixel size"):
        open_source(path, Grid("EPSG:32649", 2.0, cell_size=100, origin=(711576.0, 94749.0))[0, 0])
    with pytest.raises(CubeError, match="not on the grid of the cell: CRS EPSG:32649, expected EPSG:3413"):
        open_source(path, Grid.arctic()[0, 0])


@pytest.mark.slow
def test_a_store_opens_with_whole_shards_as_chunks(random_cube: Make, tmp_path: Path) -> None:
    write_cube(random_cube((1500, 700), chunk=None, times=2), tmp_path / "cube.zarr", chunks=100, shards=300)
    with dask.config.set(scheduler=refuse):
        cube = open_source(tmp_path / "cube.zarr", layers=["red", "probability"])
    assert list(cube) == ["red", "probability", "valid"]
    assert cube.chunksizes == {"y": (900, 600), "x": (700,), "time": (1, 1)}
    assert open_source(tmp_path / "cube.zarr", chunks=128)["red"].chunksizes["y"][0] == 128
    with pytest.raises(CubeError, match=r"Layers \['slope'\] are not in .*cube.zarr, which has \["):
        open_source(tmp_path / "cube.zarr", layers=["slope"])


@pytest.mark.slow
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently")
def test_a_store_of_another_writer_opens(
    random_cube: Make, tmp_path: Path, zarr_format: int, consolidated: bool
) -> None:
    stored = random_cube()[["red", "dem"]]
    physical = xr.decode_cf(stored, decode_coords="all")
    path = tmp_path / "theirs.zarr"
    physical.drop_attrs(deep=False).to_zarr(path, zarr_format=zarr_format, consolidated=consolidated)  # packs again
    again = open_source(path)
    np.testing.assert_array_equal(again["red"].values, stored["red"].values)
    assert packing(again["red"])["scale_factor"] == 1e-4
    assert lattice_origin(again) == (711576.0, 94749.0)
    decoded = tmp_path / "decoded.zarr"
    physical.drop_encoding().to_zarr(decoded, zarr_format=zarr_format, consolidated=consolidated)
    floats = open_source(decoded)
    assert floats["red"].dtype.kind == "f"
    assert packing(floats["red"])["scale_factor"] == 1.0
    np.testing.assert_allclose(floats["dem"].values, physical["dem"].values)


def test_single_times_rows_and_pixels_of_a_store_are_those_that_were_written(random_cube: Make, tmp_path: Path) -> None:
    cube = random_cube().expand_dims(time=np.array(["2023-07-01", "2024-07-01"], "datetime64[ns]")).copy(deep=True)
    rtsx.write_cube(cube, tmp_path / "years.zarr")
    stored = rtsx.open_cube(tmp_path / "years.zarr")
    name = next(iter(stored.data_vars))
    for part in ({"time": 1}, {"time": 0, "y": 3}, {"time": -1, "y": 2, "x": 5}, {"y": 0}):
        assert np.array_equal(stored[name].isel(part).compute(), cube[name].isel(part))


def test_axes_of_other_names_and_directions_are_turned(random_cube: Make, tmp_path: Path) -> None:
    cube = random_cube(affine=Affine(0.001, 0, 20.0, 0, -0.001, 70.0), crs="EPSG:4326")
    south_up = cube.isel(y=slice(None, None, -1)).rename({"y": "latitude", "x": "longitude", "spatial_ref": "crs"})
    for variable in south_up.variables.values():
        variable.encoding.pop("grid_mapping", None)
    south_up.drop_attrs(deep=False).compute().to_zarr(tmp_path / "a.zarr", consolidated=False)
    again = open_source(tmp_path / "a.zarr")
    np.testing.assert_array_equal(again["red"].values, cube["red"].values)
    assert again.rio.crs.to_epsg() == 4326


def test_sources_that_cannot_be_opened_say_why(write_tif: WriteTif, tmp_path: Path, random_cube: Make) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.tif").write_text("not an image")
    (tmp_path / "notes.txt").write_text("not an image")
    zarr.create_array(str(tmp_path / "array.zarr"), shape=(2, 2), dtype="uint8")
    bare = xr.Dataset({"red": (("y", "x"), np.zeros((4, 4)))}, coords={"y": [4.0, 3, 2, 1], "x": [1.0, 2, 3, 4]})
    bare.to_zarr(tmp_path / "bare.zarr", consolidated=False)
    unplaced = write_tif("unplaced.tif", SCENE, crs=None)
    south_up = write_tif("south_up.tif", SCENE, transform=Affine(3, 0, 0, 0, 3, 0))
    for source, message in (
        (tmp_path / "folder", "folder cannot be opened: it is a folder, but no Zarr store"),
        (tmp_path / "nothing.zarr", "there is no such file or folder"),
        (tmp_path / "nothing.tif", "cannot be opened as a raster: There is no such file"),
        (tmp_path / "notes.tif", "not recognized as being in a supported file format"),
        (tmp_path / "notes.txt", "not recognized as being in a supported file format"),
        (tmp_path / "array.zarr", "is a single Zarr array"),
        (tmp_path / "bare.zarr", r"bare.zarr: A cube needs a CRS .*write_crs"),
        (unplaced, "does not say where it lies: .*gdal_translate"),
        (south_up, "is not north-up"),
        ([], "list of sources is empty"),
        ("memory://nothing/at.zarr", "there is nothing. Check the address"),
    ):
        with pytest.raises(CubeError, match=message):
            open_source(source)


def test_options_that_cannot_be_are_refused(write_tif: WriteTif, random_cube: Make, tmp_path: Path) -> None:
    scene = write_tif("scene.tif", SCENE)
    store = write_cube(random_cube(), tmp_path / "cube.zarr")
    for source, options, message in (
        (scene, {"chunks": 0}, "above 0, or 'auto'; got 0"),
        (scene, {"chunks": "large"}, "got 'large'"),
        (scene, {"layers": "red"}, r"layers=\['red'\]"),
        (scene, {"layers": ["red", "red"]}, "asked for once"),
        (scene, {"sensor": "spot7"}, "Known sensors are .*'planetscope'.*; got 'spot7'"),
        (scene, {"sensor": "tcvis"}, "A tcvis file has 3 bands; this one has 4"),
        (store, {"sensor": "planetscope"}, "sensor= is for raster files"),
        ({"a": Layer("a", scene)}, {"sensor": "planetscope"}, "leave sensor= out"),
        (scene, {"mask": (scene, "tss-v3")}, "Known mask rules are"),
        (scene, {"mask": (scene, "tss-v1")}, "reads 8 bands; .*scene.tif has 4"),
    ):
        with pytest.raises(CubeError, match=message):
            open_source(source, **options)


def test_sentinel2_offset_is_a_matter_of_the_baseline(write_tif: WriteTif) -> None:
    path = write_tif("s2.tif", np.zeros((12, 20, 20), np.uint16))
    assert packing(open_source(path, sensor="sentinel2-l2a")["swir16"])["add_offset"] == 0
    assert packing(open_source(path, sensor="sentinel2-l2a-04.00")["swir16"])["add_offset"] == -0.1


def test_a_rewritten_file_is_another_array(write_tif: WriteTif) -> None:
    one = open_source(write_tif("scene.tif", SCENE))["band_1"].data.name
    same = open_source(write_tif("other.tif", SCENE))["band_1"].data.name
    other = open_source(write_tif("scene.tif", SCENE[:, :, :90]))["band_1"].data.name
    assert len({one, same, other}) == 3


def test_storage_options_are_for_stores(write_tif: WriteTif) -> None:
    with pytest.raises(CubeError, match=r"storage_options= is for Zarr stores .*\['key'\].*Leave it out"):
        open_source(write_tif("scene.tif", SCENE), storage_options={"key": "a"})


def test_a_store_gives_its_coarsest_level_that_is_large_enough(
    random_cube: Callable[..., xr.Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtsx.cube.write._SMALLEST_TOP_LEVEL", 30)
    cube = random_cube((230, 301))
    write_cube(cube, tmp_path / "cube.zarr")
    for side, width in ((301, 301), (200, 301), (151, 151), (75, 76), (40, 76), (25, 38), (10, 19)):
        small = small_store(str(tmp_path / "cube.zarr"), side=side)
        assert small.sizes["x"] == width, side
    write_cube(cube, tmp_path / "plain.zarr", overviews=False)
    thinned = small_store(str(tmp_path / "plain.zarr"), side=100)
    np.testing.assert_array_equal(thinned["red"].values, cube["red"].values[1::3, 1::3])


def test_a_coarse_window_holds_the_fine_one_on_a_lattice_with_the_same_corner() -> None:
    grid = Grid("EPSG:3413", 3.0, origin=(7.0, 11.0))
    raster = grid.window((1001, 2113), (-5003, -4100))
    source = SourceRecipe(name="one", images=GivenImages([]), layers=(LayerRecipe(wanted=BandRequest(name="red")),))
    coarse, window = coarse_recipe(CubeRecipe(grid=grid, sources=(source,)), raster, side=100)
    assert coarse.grid.resolution == 33
    assert coarse.grid.origin == grid.origin
    assert window.boundingbox.left <= raster.boundingbox.left
    assert window.boundingbox.bottom <= raster.boundingbox.bottom
    assert window.boundingbox.right >= raster.boundingbox.right
    assert window.boundingbox.top >= raster.boundingbox.top
    assert max(window.shape) <= 103


@pytest.mark.parametrize("hollow", ["red", "x"])
def test_a_chunk_that_would_fill_the_memory_is_refused_before_it_is_read(hollow: str, tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "hollow.zarr", zarr_format=3)
    for name, shape in {"red": (64, 64), "y": (64,), "x": (64,)}.items():
        names = ("y", "x") if len(shape) == 2 else (name,)
        chunks = tuple(10**9 if name == hollow else 64 for _ in shape)
        group.create_array(name, shape=shape, chunks=chunks, dtype="float64", dimension_names=names)
    with pytest.raises(
        CubeError, match=rf"array '{hollow}' of \(64,.* is stored in chunks of \(1000000000.*smaller chunks"
    ):
        open_source(tmp_path / "hollow.zarr")


@given(st.lists(st.sampled_from([0, 1, 97]), min_size=8, max_size=8))
def test_udm2_rules_pixel_by_pixel(bands: list[int]) -> None:
    clear, snow, shadow, light, heavy, cloud, _confidence, unusable = (band != 0 for band in bands)
    udm2 = np.array(bands, np.uint8).reshape(8, 1, 1)
    good = clear and not (snow or shadow or heavy or cloud or unusable)
    assert quality_level(udm2, "tss-v1").item() == (2 if good else 0)
    expected = 0 if unusable else 1 if (snow or shadow or light or heavy or cloud) else 2
    assert quality_level(udm2, "darts-v2").item() == expected


def test_scene_classes() -> None:
    levels = quality_level(np.arange(12, dtype=np.uint8).reshape(1, 1, 12), "sentinel2-scl")[0].tolist()
    assert levels == [0, 0, 2, 1, 2, 2, 2, 2, 1, 1, 2, 1]


def udm2_scene() -> np.ndarray:
    udm2 = np.zeros((8, 230, 301), np.uint8)
    udm2[0] = 1
    udm2[5, :100] = 1
    udm2[7, :, :50] = 1
    return udm2


def test_valid_is_lazy_and_joined_with_what_is_there(write_tif: WriteTif, random_cube: Make) -> None:
    cube = random_cube()
    path = write_tif("udm2.tif", udm2_scene())
    masked = apply_mask(cube, path, rule="darts-v2")
    assert masked["valid"].chunks is not None
    good = np.zeros((230, 301), bool)
    good[100:, 50:] = True
    np.testing.assert_array_equal(masked["valid"].values, good & cube["valid"].values)
    with_low = apply_mask(cube.drop_vars("valid"), path, rule="darts-v2", keep_low=True)
    good[:, 50:] = True
    np.testing.assert_array_equal(with_low["valid"].values, good)
    assert with_low["valid"].attrs["mask_rule"] == "darts-v2"
    assert set(cube.coords) == set(masked.coords)


def test_arrays_will_do_too(random_cube: Make) -> None:
    cube = random_cube(chunk=None).drop_vars("valid")
    scl = xr.DataArray(np.full((230, 301), 4, np.uint8), dims=("y", "x"))
    scl[0, 0] = 9
    valid = apply_mask(cube, scl, rule="sentinel2-scl")["valid"].values
    assert valid.sum() == 230 * 301 - 1
    with pytest.raises(CubeError, match=r"needs quality data on the cube's pixels, \(8, 230, 301\)"):
        apply_mask(cube, scl, rule="tss-v1")
    with pytest.raises(CubeError, match="8 bands; got shape"):
        quality_level(np.zeros((1, 2, 2), np.uint8), "tss-v1")


def test_a_mask_follows_a_cut_out_and_has_to_cover_it(write_tif: WriteTif, random_cube: Make) -> None:
    cube = random_cube().drop_vars("valid")
    path = write_tif("udm2.tif", udm2_scene())
    whole = apply_mask(cube, path, rule="tss-v1")
    part = apply_mask(cube.isel(y=slice(90, 140), x=slice(30, 90)), path, rule="tss-v1")
    np.testing.assert_array_equal(part["valid"].values, whole["valid"].values[90:140, 30:90])
    small = write_tif("small.tif", udm2_scene()[:, :100])
    with pytest.raises(CubeError, match=r"has to cover the cube on the same pixels: .*small.tif.*gdalwarp -r near"):
        apply_mask(cube, small, rule="tss-v1")


def test_open_cube_takes_the_mask_along(write_tif: WriteTif) -> None:
    scene = write_tif("scene.tif", np.ones((4, 230, 301), np.uint16))
    cube = open_source(scene, sensor="planetscope", chunks=100, mask=(write_tif("udm2.tif", udm2_scene()), "tss-v1"))
    assert cube["valid"].chunks == cube["red"].chunks
    assert cube["valid"].values.sum() == 130 * 251


@pytest.mark.parametrize(
    ("key", "place"), [((slice(2, 4), slice(0, 5)), r"y 2-4, x 0-5"), ((1, slice(0, 5)), r"y 1, x 0-5"), ((3,), "y 3")]
)
def test_what_cannot_be_read_is_named_by_its_place(
    key: tuple[Any, ...], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = StoredPixels(xr.Variable(("y", "x"), np.zeros((9, 9))), "red", "/data/a.zarr")
    assert pixels[key].shape == np.zeros((9, 9))[key].shape

    def fail(_: xr.Variable) -> None:
        raise ValueError("disk on fire")

    monkeypatch.setattr(xr.Variable, "to_numpy", fail)
    with pytest.raises(CubeError, match=rf"/data/a.zarr: red cannot be read at {place}: ValueError: disk on fire"):
        pixels[key]


def test_groups_that_hold_the_rasters_of_a_store_are_named(random_cube: Make, tmp_path: Path) -> None:
    for number in range(2):
        random_cube()[["red"]].to_zarr(tmp_path / "levels.zarr", group=f"deep/{number}", consolidated=False)
    with pytest.raises(
        CubeError, match=r"has its rasters in groups. Open one of them: .*levels.zarr/deep/0 \(red\); .*/1 \(red\)"
    ):
        open_source(tmp_path / "levels.zarr")
    assert list(open_source(tmp_path / "levels.zarr/deep/1")) == ["red"]


@pytest.mark.filterwarnings("ignore:Array 'sr' of uint16 in a store")
@pytest.mark.parametrize(("bands", "names"), [([1, 2], ["band_1", "band_2"]), (["red", "nir"], ["red", "nir"])])
def test_bands_of_one_array_of_a_store_are_layers(
    bands: list[Any], names: list[str], random_cube: Make, tmp_path: Path
) -> None:
    one = random_cube()[["red"]]
    pixels = np.stack([one["red"].values, one["red"].values + 1])
    stack = xr.Dataset({"sr": (("band", "y", "x"), pixels)}, coords=one.coords).assign_coords(band=bands)
    stack.drop_attrs(deep=False).to_zarr(tmp_path / "stack.zarr", zarr_format=2, consolidated=False)
    with pytest.warns(LayerValuesWarning, match=r"'sr' of uint16 in a store does not say which pixels are missing"):
        cube = open_source(tmp_path / "stack.zarr")
    assert list(cube) == names
    np.testing.assert_array_equal(cube[names[1]].values, pixels[1])
    if names[0] == "band_1":
        named = open_source(tmp_path / "stack.zarr", layers=["swir", "nir"])
        np.testing.assert_array_equal(named["nir"].values, pixels[1])
    with pytest.raises(CubeError, match="is not an array of its own, and a store that is aligned"):
        StoreImages(path=str(tmp_path / "stack.zarr")).find(box(-180, -90, 180, 90), None, [BandRequest(name=names[0])])


def test_a_sensor_that_contradicts_the_file_is_refused_at_both_doors(write_tif: WriteTif) -> None:
    import rasterio

    harmonised, other = write_tif("harmonised.tif", SCENE, nodata=0), write_tif("other.tif", SCENE, nodata=65535)
    with rasterio.open(harmonised, "r+") as file:
        file.scales, file.offsets = (1e-4,) * 4, (-0.1,) * 4
    assert packing(open_source(harmonised, sensor="sentinel2-l2a-04.00")["red"])["add_offset"] == -0.1
    for path, message in ((harmonised, "scale 0.0001 and offset -0.1, .* has 0.0001 and 0"), (other, "nodata 65535")):
        with pytest.raises(CubeError, match=message):
            open_source(path, sensor="sentinel2-l2a")
        with pytest.raises(CubeError, match=message):
            FileImages(assets={"image": (str(path),)}, sensor="sentinel2-l2a").find(
                box(-180, -90, 180, 90), None, [BandRequest(name="red")]
            )


def test_quality_data_in_an_array_lies_as_its_coordinates_say(write_tif: WriteTif) -> None:
    cube = open_source(write_tif("scene.tif", SCENE), sensor="planetscope")
    classes = xr.DataArray(np.full((200, 170), 4, np.uint8), dims=("y", "x"), coords={"y": cube["y"], "x": cube["x"]})
    classes[:90, :30] = 9
    for turned in (classes, classes[::-1], classes[:, ::-1], classes.transpose("x", "y")):
        valid = apply_mask(cube, turned, rule="sentinel2-scl")["valid"].values
        np.testing.assert_array_equal(valid, classes.values == 4)
    with pytest.raises(CubeError, match="has to lie on the cube's pixels: along 'x'"):
        apply_mask(cube, classes.assign_coords(x=classes["x"] + 3), rule="sentinel2-scl")
    lower = classes[::-1].assign_coords(y=classes["y"].values[::-1] + 3)
    with pytest.raises(
        CubeError, match=rf"along 'y' it goes from {lower.y.values[0]:.10g} to {lower.y.values[-1]:.10g}, the"
    ):
        apply_mask(cube, lower, rule="sentinel2-scl")
    rounded = {
        name: (cube[name] + 0.3).astype(np.float32) for name in ("y", "x")
    }  # float32 steps by half a metre there
    exact = (
        cube.assign_coords({name: cube[name] + 0.3 for name in rounded})
        .drop_vars("spatial_ref")
        .rio.write_crs(cube.rio.crs)
    )
    counted = {name: np.arange(cube.sizes[name]) for name in rounded}
    for own, coords in ((exact, rounded), (cube, counted)):
        valid = apply_mask(own, classes.assign_coords(coords), rule="sentinel2-scl")["valid"]
        np.testing.assert_array_equal(valid.values, classes.values == 4)


@pytest.mark.parametrize(
    ("sensor", "described", "names"),
    [
        ("sentinel2-l2a", ("B4", "B3", "B2", "B8"), ("red", "green", "blue", "nir")),
        (
            "landsat",
            ("SR_B4", "SR_B3", "SR_B2", "SR_B5", "SR_B6", "SR_B7"),
            ("red", "green", "blue", "nir", "swir16", "swir22"),
        ),
        (
            "landsat",
            ("SR_B3", "SR_B2", "SR_B1", "SR_B4", "SR_B5", "SR_B7"),
            ("red", "green", "blue", "nir", "swir16", "swir22"),
        ),
        ("hls", ("B04", "B03", "B02", "B8A", "B11", "B12"), ("red", "green", "blue", "nir", "swir16", "swir22")),
        ("planetscope", ("a", "b", "c", "d"), ("blue", "green", "red", "nir")),
        ("sentinel2-l2a", ("B02", "B03", "B04", "B8A"), ("blue", "green", "red", "nir")),
        ("sentinel2-l2a", ("B8A", "B4", "B3", "B2"), ("nir", "red", "green", "blue")),
        ("sentinel2-l2a-04.00", ("blue", "green", "red", "nir08"), ("blue", "green", "red", "nir")),
        ("sentinel2-l2a", ("B04", "B08", "B8A", "B02"), ("red", "nir", "nir08", "blue")),
        ("sentinel2-l2a", ("B02", "B03", "B04", "B08", "B8A"), ("blue", "green", "red", "nir", "nir08")),
        ("sentinel2-l2a", ("B08",), ("nir",)),
        (
            "sentinel2-l2a",
            ("b1", "b2", "b3", "b4"),
            ("blue", "green", "red", "nir"),
        ),  # as software numbers bands of a file
        ("sentinel2-l2a", ("B4", "B8", "B11", "B12"), ("red", "nir", "swir16", "swir22")),
        ("sentinel2-l2a", ("red", "nir", "swir16", "swir22"), ("red", "nir", "swir16", "swir22")),
        ("landsat", ("SR_B3", "SR_B4"), None),  # green and red of Landsat 8, red and nir of 5
        ("sentinel2-l2a", ("red", "red"), None),
    ],
)
def test_bands_that_a_file_describes_by_number_or_name_are_in_its_order(
    write_tif: WriteTif, sensor: str, described: tuple[str, ...], names: tuple[str, ...] | None
) -> None:
    import rasterio

    path = write_tif("export.tif", SCENE[[0] * len(described)].astype(np.int16), nodata=None)
    with rasterio.open(path, "r+") as file:
        file.descriptions = described
    if names is not None:
        assert tuple(open_source(path, sensor=sensor)) == names
        return
    with pytest.raises(CubeError, match=rf"which may be \['(green|red)', 'red'\].* of {sensor}\. Name its bands"):
        open_source(path, sensor=sensor)
