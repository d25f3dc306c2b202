"""What a store keeps of an image: never less than the cube looks at."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from rtsx.cube import open_source
from rtsx.cube.build import build_store
from rtsx.cube.file_images import FileImages
from rtsx.cube.graph import covering_window
from rtsx.cube.images import BandRequest
from rtsx.cube.native import with_native_images
from rtsx.cube.recipe import CubeRecipe, LayerRecipe, SourceRecipe
from rtsx.grid import Grid

GRID = Grid.arctic(resolution=100)
WORLD = GeoBox((1800, 3600), Affine(0.1, 0, -180, 0, -0.1, 90), "EPSG:4326")


def cube_at(longitude: float, latitude: float, *, side: int = 200) -> GeoBox:
    x, y = Transformer.from_crs("EPSG:4326", GRID.crs, always_xy=True).transform(longitude, latitude)
    row, column = round(-y / 100), round(x / 100)
    return GRID.window((row - side // 2, row + side // 2), (column - side // 2, column + side // 2))


def pixels_of(cube: GeoBox, raster: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the raster under every pixel of the cube."""
    columns, rows = np.meshgrid(np.arange(cube.shape[1]) + 0.5, np.arange(cube.shape[0]) + 0.5)
    x, y = cube.affine.c + cube.affine.a * columns, cube.affine.f + cube.affine.e * rows
    x, y = Transformer.from_crs(str(cube.crs), str(raster.crs), always_xy=True).transform(x, y)
    inverse = ~raster.affine
    return inverse.d * x + inverse.e * y + inverse.f, inverse.a * x + inverse.b * y + inverse.c


@pytest.mark.parametrize(
    ("longitude", "latitude"),
    [(-139.0, 69.6), (10.0, 80.0), (179.99, 70.0), (-180.0, 66.0), (60.0, 89.95), (0.0, 60.0)],
)
def test_a_window_of_the_world_holds_all_that_the_cube_touches(longitude: float, latitude: float) -> None:
    cube = cube_at(longitude, latitude)
    window = covering_window(WORLD, cube, margin_m=0.0)
    assert window is not None
    rows, columns = pixels_of(cube, WORLD)
    columns = columns % WORLD.shape[1]
    (top, bottom), (left, right) = window
    assert ((rows >= top) & (rows <= bottom) & (columns >= left) & (columns <= right)).all()
    if abs(longitude) < 170 and latitude < 89:
        assert (right - left) < 300  # a window, not the world
        assert (bottom - top) < 60


def test_a_margin_widens_the_window() -> None:
    raster = GeoBox((5000, 5000), Affine(10, 0, 500_000, 0, -10, 7_780_000), "EPSG:32607")
    cube = cube_at(-140.5, 69.9, side=20)
    near = covering_window(raster, cube, margin_m=0.0)
    far = covering_window(raster, cube, margin_m=1000.0)
    assert near is not None
    assert far is not None
    for (start, stop), (wide_start, wide_stop) in zip(near, far, strict=True):
        assert start - wide_start >= 100
        assert wide_stop - stop >= 100


def test_an_image_elsewhere_has_no_window() -> None:
    raster = GeoBox((500, 500), Affine(10, 0, 500_000, 0, -10, 7_780_000), "EPSG:32607")
    assert covering_window(raster, cube_at(-100.0, 75.0, side=20), margin_m=0.0) is None


@pytest.mark.parametrize("source", ["s", "build", "-s", ".s", "zarr.json", "a/b", "a:b"])
@pytest.mark.parametrize("name", ["-9999.tif", ".hidden.tif", "zarr.json.tif", "(a b).tif"])
def test_a_native_store_takes_images_and_sources_of_any_name(source: str, name: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 900, (1, 32, 32)).astype(np.uint16)
    profile = {"driver": "GTiff", "count": 1, "height": 32, "width": 32, "dtype": "uint16", "crs": "EPSG:32608"}
    with rasterio.open(tmp_path / name, "w", **profile, transform=Affine(3, 0, 500_000, 0, -3, 7_500_000)) as file:
        file.write(pixels)
    layer = LayerRecipe(wanted=BandRequest(name="red", bands=(1,)))
    images = FileImages(assets={"image": (str(tmp_path / name),)})
    grid = Grid("EPSG:32608", 3, cell_size=32, origin=(500_000, 7_500_000))
    recipe = CubeRecipe(grid=grid, sources=(SourceRecipe(name=source, images=images, layers=(layer,)),), chunk=32)
    build_store(recipe, tmp_path / "a.zarr", cell=grid[0, 0], layout="native")
    stored = open_source(with_native_images(recipe, str(tmp_path / "a.zarr")), grid[0, 0])
    np.testing.assert_array_equal(stored["red"].values, pixels[0])
