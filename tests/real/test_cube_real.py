"""The cube on real files: slanted scene edges, odd pixels, foreign projections, infinite nodata."""

from pathlib import Path

import dask
import numpy as np
import pytest
import rasterio
import xarray as xr

from rtsx.cube import add_ndvi, export_cog, geobox_of, lattice_origin, open_source, packing, validate_cube, write_cube
from rtsx.errors import CubeError
from rtsx.grid import Grid, grid_offset

PLANETSCOPE = "planetscope_samples/tmask_apache/20170915_020728_103d_3B_AnalyticMS.tif"
PLANETSCOPE_DEGREES = "planetscope_samples/tmask_apache/633841_1932520_2017-07-19_1004_subarea.tif"
SENTINEL2 = "rts_expert_s2l8/Bykovsky/S2_20210721T035541_20210721T035540_T52WEE.tif"
LANDSAT8 = "rts_expert_s2l8/Bykovsky/L8_LC08_198234_20210718.tif"
# The fourth band of these tiles holds near infrared, and their headers call it alpha.
pytestmark = pytest.mark.filterwarnings("ignore:Band 4 of .* is marked as alpha")

NAIP = "chesapeake_mini/tile/m_3907833_nw_17_1_naip-new.tif"
NAIP_OLD = "chesapeake_mini/tile/m_3907833_nw_17_1_naip-old.tif"
LANDSAT_BANDS = ["coastal", "blue", "green", "red", "nir", "swir16", "swir22"]


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        (PLANETSCOPE, {"sensor": "planetscope"}, (512, 512)),
        (PLANETSCOPE_DEGREES, {"sensor": "planetscope"}, (227, 266)),
        (SENTINEL2, {"sensor": "sentinel2-l2a"}, (251, 251)),
        (LANDSAT8, {"layers": LANDSAT_BANDS}, (167, 167)),
        (NAIP, {"layers": ["red", "green", "blue", "nir"]}, (260, 260)),
    ],
)
def test_a_real_scene_opens_writes_and_comes_back(
    real_data: Path, tmp_path: Path, name: str, options: dict[str, object], shape: tuple[int, int]
) -> None:
    cube = open_source(real_data / name, chunks=100, **options)
    validate_cube(cube)
    with rasterio.open(real_data / name) as file:
        np.testing.assert_array_equal(cube.drop_vars("valid", errors="ignore").to_dataarray().values, file.read())
        if "valid" in cube:  # only where a mask or an alpha band says more than nodata does
            np.testing.assert_array_equal(cube["valid"].values, file.read_masks().all(axis=0))
        assert ("valid" in cube) == (name == NAIP)
        assert geobox_of(cube).affine == file.transform
        assert cube.rio.transform() == file.transform
        assert cube.rio.crs == file.crs
    assert geobox_of(cube).shape.yx == shape
    write_cube(cube, tmp_path / "cube.zarr")
    again = open_source(tmp_path / "cube.zarr")
    xr.testing.assert_identical(again.load(), cube.load())
    assert geobox_of(again) == geobox_of(cube)
    assert lattice_origin(again) == lattice_origin(cube)


def test_the_slanted_edge_of_planetscope_is_invalid(real_data: Path) -> None:
    cube = add_ndvi(open_source(real_data / PLANETSCOPE, sensor="planetscope", chunks=200))
    valid = np.isfinite(cube["ndvi"].values)
    assert valid.mean() == pytest.approx(0.27, abs=0.01)
    assert (cube["red"].values[~valid] == 0).mean() > 0.99
    assert np.abs(cube["ndvi"].values[valid]).max() <= 1
    assert packing(cube["nir"])["nodata"] == 0


@pytest.mark.parametrize("name", [PLANETSCOPE, PLANETSCOPE_DEGREES, SENTINEL2, NAIP])
def test_any_cut_out_lies_on_the_lattice_of_the_whole(real_data: Path, name: str) -> None:
    cube = open_source(real_data / name)
    rng = np.random.default_rng(4)
    for _ in range(25):
        rows, columns = (sorted(rng.choice(cube.sizes[dim], 2, replace=False)) for dim in ("y", "x"))
        part = cube.isel(y=slice(*rows), x=slice(*columns))
        validate_cube(part)
        assert grid_offset(geobox_of(part), lattice_origin(part)) == (rows[0], columns[0])


def test_cells_of_the_scenes_own_grid_make_up_the_scene(real_data: Path) -> None:
    cube = open_source(real_data / SENTINEL2, sensor="sentinel2-l2a")
    grid = Grid.from_geobox(geobox_of(cube), cell_size=100)
    cells = [grid[iy, ix] for iy in range(3) for ix in range(3)]
    parts = [open_source(real_data / SENTINEL2, cell, sensor="sentinel2-l2a")["nir"] for cell in cells]
    assert sum(part.size for part in parts) == cube["nir"].size
    for part in parts:
        xr.testing.assert_equal(part.load(), cube["nir"].sel(y=part["y"], x=part["x"]).load())
    assert {cell.id for cell in grid.cells(cells[4].polygon, crs="EPSG:32652")} == {"r001c001"}


def test_two_scenes_on_one_grid_join_and_others_are_refused(real_data: Path) -> None:
    new, old = real_data / NAIP, real_data / NAIP_OLD
    names = [f"{band}_{age}" for age in ("new", "old") for band in ("red", "green", "blue", "nir")]
    cube = open_source([new, old], layers=names)
    assert list(cube) == [*names, "valid"]
    with rasterio.open(old) as file:
        np.testing.assert_array_equal(cube["nir_old"].values, file.read(4))
    with pytest.raises(
        CubeError, match=r"share one grid, but the CRS differs: .*naip-new.tif has EPSG:26917, .*EPSG:32652"
    ):
        open_source([new, real_data / SENTINEL2], layers=[f"band{i}" for i in range(14)])


def test_one_band_costs_one_read_of_the_file_per_chunk(real_data: Path) -> None:
    cube = open_source(real_data / SENTINEL2, sensor="sentinel2-l2a", chunks=128)
    graph = dask.optimize(cube[["red", "nir", "blue"]])[0].__dask_graph__()
    reads = [key for key in graph if str(key[0]).startswith("raster-")]
    assert len(reads) == 4


def test_a_truncated_copy_of_a_real_file_is_told(real_data: Path, tmp_path: Path) -> None:
    whole = (real_data / PLANETSCOPE).read_bytes()
    cut = tmp_path / "cut.tif"
    for share in (0.6, 0.0001):
        cut.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(CubeError, match=r"cut.tif cannot be (opened|read)"):
            open_source(cut, sensor="planetscope").compute()


def test_a_real_layer_leaves_as_a_cog(real_data: Path, tmp_path: Path) -> None:
    cube = open_source(real_data / NAIP, layers=["red", "green", "blue", "nir"], chunks=90)
    (path,) = export_cog(cube, tmp_path, variables=["nir"])
    with rasterio.open(path) as file, rasterio.open(real_data / NAIP) as source:
        np.testing.assert_array_equal(file.read(1), source.read(4))
        assert (file.transform, file.crs) == (source.transform, source.crs)
