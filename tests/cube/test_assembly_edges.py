"""Cubes at their edges: of cells, of the world, of what sources have."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import shapely
from odc.geo.geobox import GeoBox

import rtsx
from rtsx.cube.derived import derived_named
from rtsx.cube.images import GivenImages, Image
from rtsx.cube.mask_rules import mask_rule
from rtsx.errors import CubeError
from rtsx.grid import lonlat_polygon
from tests.cube.scenes import COLUMNS, CUBE, GRID, ROWS, Ground, at, elevation, optical, recipe, trend


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def outlined(image: Image) -> Image:
    """An image with the footprint of its raster, by which sources choose."""
    box = next(iter(image.bands.values())).geobox
    return replace(image, footprint=lonlat_polygon(box.extent.geom, str(box.crs)))


@pytest.mark.parametrize("terrain_grid", ["source", "cube"])
def test_terrain_at_the_edge_of_a_cell_sees_the_tile_beyond(ground: Ground, terrain_grid: str) -> None:
    # The border of the tiles lies three pixels beyond the right edge of the cell: only its halo meets the eastern tile.
    middle = GRID.window(ROWS, (COLUMNS[0], -210_000 - 3))
    tiles = [outlined(ground.heights("west", shift=(-1500, 0))), outlined(ground.heights("east", shift=(1500, 0)))]
    given = recipe(elevation(tiles, terrain_grid=terrain_grid))
    whole, cell = rtsx.open_cube(given, CUBE), rtsx.open_cube(given, middle)
    assert cell.attrs["images_arcticdem"] == "east,west"
    for name in ("relative_elevation", "slope"):
        np.testing.assert_array_equal(whole[name].values[:, : middle.shape[1]], cell[name].values, err_msg=name)


def test_a_layer_that_is_several_bands_is_refused(ground: Ground) -> None:
    scene = ground.scene("a")
    both = replace(scene.bands["red"], bands=(1, 2))
    with pytest.raises(CubeError, match=r"layer 'red' is one band, but image 'a' answers with the 2 bands \[1, 2\]"):
        rtsx.open_cube(recipe(optical([replace(scene, bands={**scene.bands, "red": both})])), CUBE)


def test_a_rule_for_other_quality_data_is_refused(ground: Ground) -> None:
    source = optical([ground.scene("a")])
    assert source.quality is not None
    wrong = replace(source, quality=replace(source.quality, rule=mask_rule("sentinel2-scl", data=None)))
    with pytest.raises(CubeError, match=r"rule 'sentinel2-scl' reads 1 bands of 'udm2', but image 'a' has the 8 bands"):
        rtsx.open_cube(recipe(wrong), CUBE)


def test_images_of_several_nodata_values_are_refused(ground: Ground) -> None:
    one, other = ground.scene("a"), ground.scene("b")
    changed = {name: replace(bands, nodata=7.0) for name, bands in other.bands.items()}
    with pytest.raises(CubeError, match=r"one nodata, but they have 0 \(as a\), 7.0 \(as b\)"):
        rtsx.open_cube(recipe(optical([one, replace(other, bands=changed)])), CUBE)


def test_a_source_that_is_not_required_may_have_nothing(ground: Ground) -> None:
    nothing = replace(trend([]), is_required=False)
    cube = rtsx.open_cube(recipe(optical([ground.scene("a")]), nothing), CUBE).compute()
    assert np.isnan(cube["tc_greenness"]).all()
    assert (cube["quality_tcvis"] == 0).all()
    assert cube["valid"].values.mean() > 0.5
    there = rtsx.open_cube(
        recipe(optical([ground.scene("a")]), replace(trend([ground.trends("t")]), is_required=False)), CUBE
    )
    assert (there["quality_tcvis"].values == 2).mean() > 0.5


def test_without_a_required_source_any_will_do(ground: Ground) -> None:
    scenes = optical([ground.scene("a", size=40)], is_required=False)
    cube = rtsx.open_cube(recipe(scenes, replace(trend([ground.trends("t")]), is_required=False)), CUBE).compute()
    either = (cube["quality_planetscope"] == 2) | (cube["quality_tcvis"] == 2)
    np.testing.assert_array_equal(cube["valid"].values, either.values)


def test_sources_that_no_asked_layer_needs_are_not_asked(ground: Ground) -> None:
    given = recipe(optical([ground.scene("a")]), trend([]), derived=(derived_named("ndvi"),))
    with pytest.raises(CubeError, match="'tcvis' has no image"):
        rtsx.open_cube(given, CUBE)
    cube = rtsx.open_cube(given, CUBE, layers=["ndvi"])
    assert list(cube.data_vars) == ["ndvi", "quality_planetscope", "valid"]


def test_an_index_of_static_bands_stays_static_beside_time_steps(ground: Ground) -> None:
    timed = optical([ground.scene("a", time=at("2024-07-01"))], group="item")
    static = replace(trend([ground.trends("t")]), name="static")
    renamed = [replace(layer, wanted=replace(layer.wanted, name=name, asset=None)) for layer, name in
               zip(timed.layers, ("green", "swir"), strict=True)]  # fmt: skip
    scene = ground.scene("b", time=at("2024-07-02"))
    images = [
        replace(scene, bands={"green": scene.bands["red"], "swir": scene.bands["nir"], "udm2": scene.bands["udm2"]})
    ]
    moved = replace(timed, name="timed", layers=tuple(renamed), images=GivenImages(images))
    bands = {"red": "tc_brightness", "nir": "tc_greenness"}
    trends = ground.trends("u")
    static = replace(
        static,
        images=GivenImages([replace(trends, bands={name: trends.bands[old] for name, old in bands.items()})]),
        layers=tuple(
            replace(layer, wanted=replace(layer.wanted, name=name))
            for layer, name in zip(static.layers, bands, strict=True)
        ),
    )
    cube = rtsx.open_cube(recipe(moved, static, derived=(derived_named("ndvi"),)), CUBE)
    assert cube["ndvi"].dims == ("y", "x")
    assert cube["green"].dims == ("time", "y", "x")


def test_names_of_a_cubes_own_variables_are_refused(ground: Ground) -> None:
    source = trend([ground.trends("t")])
    for names, message in (
        (("valid", "x"), r"No layer can be called 'valid', 'x'.*`another_name: \{band: name\}`"),
        (("item_ids", "quality_x"), r"cannot be called \['item_ids', 'quality_x'\].*`another_name: \{band: name\}`"),
        (("red", " Red"), r"Layers \['red', ' Red'\] have one name"),
    ):
        layers = tuple(
            replace(layer, wanted=replace(layer.wanted, name=name))
            for layer, name in zip(source.layers, names, strict=True)
        )
        with pytest.raises(CubeError, match=message):
            recipe(replace(source, layers=layers))


def test_a_time_without_a_zone_is_refused(ground: Ground) -> None:
    with pytest.raises(CubeError, match=r"The time of image 'a' has to say its zone; got 2024-07-01T12:00:00"):
        replace(ground.scene("a"), time=datetime(2024, 7, 1, 12))


def test_a_cube_in_degrees_runs_across_the_antimeridian(ground: Ground) -> None:
    grid = rtsx.Grid("EPSG:4326", 0.001, origin=(0.0, 0.0))
    region = shapely.MultiPolygon([shapely.box(179.95, 66, 180, 66.05), shapely.box(-180, 66, -179.95, 66.05)])
    images = []
    for name, west in (("east", 179.9), ("west", -180.0)):
        pixels = np.full((1, 200, 100), 5 if name == "east" else 9, np.uint8)
        box = GeoBox(
            (200, 100), rtsx.Grid("EPSG:4326", 0.001, origin=(west, 66.1)).window((0, 2), (0, 2)).affine, "EPSG:4326"
        )
        bands = ground.raster(name, pixels, crs="EPSG:4326", pixel=0.001, nodata=0)
        import rasterio

        with rasterio.open(bands.href, "r+") as file:
            file.transform = box.affine
        images.append(
            Image(
                id=name, bands={"tc_brightness": replace(bands, geobox=box), "tc_greenness": replace(bands, geobox=box)}
            )
        )
    cube = rtsx.open_cube(replace(recipe(trend([outlined(one) for one in images])), grid=grid, region=region)).compute()
    assert cube.sizes["x"] == 100
    assert cube["valid"].all()
    assert (cube["tc_brightness"].isel(x=slice(0, 50)) == 5).all()
    assert (cube["tc_brightness"].isel(x=slice(50, 100)) == 9).all()
    with pytest.raises(CubeError, match="erode by metres"):
        replace(recipe(optical([ground.scene("a")], erode_m=20.0)), grid=grid)
