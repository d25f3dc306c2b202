"""A recipe as a cube, against each image warped at once."""

from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox

import rtsx
from rtsx.cube.composite import Observation, best_quality, first_valid, mean_composite
from rtsx.cube.derived import get_derived
from rtsx.cube.encoding import packing
from rtsx.cube.erosion import erode_quality
from rtsx.cube.graph import chunk_lengths
from rtsx.cube.images import GivenImages, Image, Period
from rtsx.cube.load import load_recipe, region_geobox, search_area
from rtsx.cube.mask_rules import mask_rule
from rtsx.cube.recipe import CubeRecipe, DerivedLayer, SourceRecipe, TerrainLayer
from rtsx.cube.resample.readers import open_reader
from rtsx.cube.resample.warp import warp
from rtsx.errors import CubeError, MissingCoverageWarning, NoImageError
from rtsx.grid import lonlat_polygon
from tests.cube.scenes import COLUMNS, CUBE, GRID, ROWS, Ground, at, elevation, optical, recipe, trend


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def whole_piece(image, *, resampling: str = "bilinear", erode_m: float = 0.0) -> Observation:
    """One image on all pixels of the cube at once, and 20 pixels around."""
    wide = GRID.window((40_000 - 60, 40_000 + 75), (-210_000 - 80, -210_000 + 70))
    layers, valid = [], np.ones(wide.shape, bool)
    for name in ("red", "nir"):
        warped = warp(open_reader(image.bands[name]), wide, resampling=resampling, anchor=GRID.origin)
        layers.append(warped.pixels[0])
        valid &= warped.valid[0]
    udm2 = warp(open_reader(image.bands["udm2"]), wide, resampling="nearest", anchor=GRID.origin)
    level = mask_rule("tss-v1", data=None).quality(udm2.pixels)
    quality = np.where(valid & udm2.valid.all(axis=0), level, 0).astype(np.uint8)
    if erode_m:
        quality = erode_quality(quality, distance_m=erode_m, resolution_m=10)
    inner = slice(20, -20), slice(20, -20)
    return Observation(tuple(layer[inner] for layer in layers), quality[inner])


def nothing() -> Observation:
    zeros = np.zeros(CUBE.shape, np.uint16)
    return Observation((zeros, zeros), zeros.astype(np.uint8))


def assert_piece(cube: xr.Dataset, piece: Observation) -> None:
    cube = cube.compute()  # at once, because layers of one image are warped together
    for name, wanted in zip(("red", "nir"), piece.layers, strict=True):
        np.testing.assert_array_equal(cube[name].values, wanted)
    np.testing.assert_array_equal(cube["quality_planetscope"].values, piece.quality)
    np.testing.assert_array_equal(cube["valid"].values, piece.quality == 2)


@pytest.mark.slow
@pytest.mark.parametrize("erode_m", [0.0, 35.0])
@pytest.mark.parametrize("composite", ["first", "best", "mean"])
def test_a_composite_of_scenes_in_two_zones(ground: Ground, composite: str, erode_m: float) -> None:
    images = [
        ground.scene("a", shift=(-300, 200), cloud=2, time=at("2024-07-01")),
        ground.scene("b", shift=(250, 0), cloud=1, crs="EPSG:32608", time=at("2024-07-02")),
        ground.scene("c", cloud=3, time=at("2024-07-03")),
    ]
    cube = rtsx.open_cube(recipe(optical(images, composite=composite, erode_m=erode_m), chunk=60), CUBE).compute()
    pieces = {image.id: whole_piece(image, erode_m=erode_m) for image in images}
    ordered = [pieces[name] for name in ("bac" if composite != "best" else "cba")]
    if composite == "first":
        assert_piece(cube, first_valid(ordered, empty=nothing(), least=2))
    elif composite == "best":
        assert_piece(cube, best_quality(ordered, empty=nothing()))
    else:
        assert_piece(cube, mean_composite(ordered, empty=nothing(), least=2))
    assert cube.attrs["images_planetscope"] == "a,b,c"
    assert (cube.attrs["time_coverage_start"], cube.attrs["time_coverage_end"]) == ("2024-07-01", "2024-07-03")
    assert 0.05 < float(cube["valid"].mean()) < 0.999


def test_the_packing_of_every_layer_is_said(ground: Ground) -> None:
    cube = rtsx.open_cube(recipe(optical([ground.scene("a")]), trend([ground.trends("t")])), CUBE)
    assert packing(cube["red"]) == {"scale_factor": 1e-4, "add_offset": 0.0, "nodata": 0.0, "is_declared": True}
    assert packing(cube["tc_greenness"])["nodata"] is None
    assert (cube["red"].dtype, cube["tc_greenness"].dtype, cube["valid"].dtype) == (np.uint16, np.uint8, bool)
    assert cube["red"].attrs["units"] == "reflectance"
    assert cube.odc.geobox == CUBE


def test_scenes_with_another_offset_are_brought_to_the_lowest(ground: Ground) -> None:
    old, new = ground.scene("old", cloud=5), ground.scene("new", cloud=1, shift=(400, 0), offset=-0.1)
    cube = rtsx.open_cube(recipe(optical([old, new])), CUBE)
    assert packing(cube["red"])["add_offset"] == -0.1
    first_new, then_old = whole_piece(new), whole_piece(old)
    from_old = (first_new.quality < 2) & (then_old.quality == 2)
    assert from_old.sum() > 100
    np.testing.assert_array_equal(cube["red"].values[from_old], then_old.layers[0][from_old] + 1000)
    from_new = first_new.quality == 2
    np.testing.assert_array_equal(cube["red"].values[from_new], first_new.layers[0][from_new])


@pytest.mark.slow
def test_per_scene_cubes_have_times_and_item_ids(ground: Ground) -> None:
    images = [ground.scene("b", time=at("2024-07-02")), ground.scene("a", time=at("2023-07-01"), crs="EPSG:32608")]
    cube = rtsx.open_cube(
        recipe(optical(images, group="item"), trend([ground.trends("t")]), derived=(get_derived("ndvi"),)), CUBE
    )
    assert cube["red"].dims == ("time", "y", "x")
    assert cube["tc_greenness"].dims == ("y", "x")
    assert cube["item_ids"].values.tolist() == ["a", "b"]
    assert cube["time"].values.astype("datetime64[D]").astype(str).tolist() == ["2023-07-01", "2024-07-02"]
    for step, image in enumerate(images[::-1]):
        assert_piece(cube.isel(time=step), first_valid([whole_piece(image)], empty=nothing(), least=2))
    assert cube["ndvi"].dims == ("time", "y", "x")
    assert cube["red"].chunksizes["time"] == (1, 1)


def test_terrain_is_the_same_on_one_tile_or_two(ground: Ground, tmp_path: Path) -> None:
    whole = ground.heights("whole", size=400)
    band = whole.bands["dem"]
    import rasterio

    halves = []
    with rasterio.open(band.href) as file:
        pixels = file.read()
        for name, columns in (("west", slice(0, 190)), ("east", slice(190, 400))):
            part = pixels[:, :, columns]
            affine = band.geobox.affine * type(band.geobox.affine).translation(columns.start, 0)
            path = tmp_path / f"{name}.tif"
            with rasterio.open(
                path, "w", driver="GTiff", count=1, height=400, width=part.shape[2], dtype="float32", crs="EPSG:3413",
                transform=affine, nodata=-9999,
            ) as out:  # fmt: skip
                out.write(part)
            box = type(band.geobox)((400, part.shape[2]), affine, "EPSG:3413")
            halves.append(replace(whole, id=name, bands={"dem": replace(band, href=str(path), geobox=box)}))
    for grid in ("source", "cube"):
        names = ("relative_elevation", "slope", "aspect", "hillshade", "curvature")
        one = rtsx.open_cube(
            recipe(elevation([whole], terrain_grid=grid, terrain=names, keep_dem=True)), CUBE
        ).compute()
        two = rtsx.open_cube(recipe(elevation(halves, terrain_grid=grid, terrain=names, keep_dem=True)), CUBE).compute()
        for name in ("dem", *names):
            np.testing.assert_array_equal(one[name].values, two[name].values)
        assert np.isfinite(one["slope"].values).mean() > 0.9
        assert one["slope"].dtype == np.float32
        assert np.nanmin(one["slope"]) >= 0  # where a cubic warp of steep ground beside flat would overshoot
        assert 0 <= np.nanmin(one["hillshade"]) <= np.nanmax(one["hillshade"]) <= 1


def test_a_pixel_is_valid_where_every_required_source_is(ground: Ground) -> None:
    scenes, heights = [ground.scene("a")], [ground.heights("d", shift=(500, 0), size=60)]
    both = rtsx.open_cube(recipe(optical(scenes), elevation(heights), chunk=60), CUBE).compute()
    alone = rtsx.open_cube(recipe(optical(scenes), elevation(heights, is_required=False), chunk=60), CUBE).compute()
    seen = np.isfinite(both["slope"].values) & np.isfinite(both["relative_elevation"].values)
    np.testing.assert_array_equal(both["valid"].values, alone["valid"].values & seen)
    assert 0 < both["valid"].values.sum() < alone["valid"].values.sum()


def test_layers_are_given_in_the_order_asked_for(ground: Ground) -> None:
    given = recipe(optical([ground.scene("a")]), trend([ground.trends("t")]), derived=(get_derived("ndvi"),))
    assert list(rtsx.open_cube(given, CUBE).data_vars)[:5] == ["red", "nir", "tc_brightness", "tc_greenness", "ndvi"]
    cube = rtsx.open_cube(given, CUBE, layers=["ndvi", "tc_greenness", "red"])
    assert list(cube.data_vars) == ["ndvi", "tc_greenness", "red", "quality_planetscope", "valid"]


def test_a_cell_and_a_region_give_the_same_pixels(ground: Ground) -> None:
    grid = rtsx.Grid.arctic(resolution=10, cell_size=200)
    given = replace(recipe(optical([ground.scene("a", size=400)])), grid=grid)
    cell = grid.cell_at(CUBE.affine.c + 300, CUBE.affine.f - 300)
    whole = rtsx.open_cube(given, cell)
    region = search_area(CUBE, margin_m=0).buffer(-0.001)
    part = rtsx.open_cube(replace(given, region=region))
    y, x = (np.intersect1d(whole[axis].values, part[axis].values) for axis in ("y", "x"))
    assert min(len(y), len(x)) > 20
    np.testing.assert_array_equal(whole["red"].sel(y=y, x=x).values, part["red"].sel(y=y, x=x).values)


def test_a_truncated_scene_is_named_or_left_out_on_request(ground: Ground) -> None:
    good, bad = ground.scene("good", cloud=5), ground.scene("bad", cloud=1)
    path = Path(bad.bands["red"].href)
    path.write_bytes(path.read_bytes()[:3000])
    cube = rtsx.open_cube(recipe(optical([good, bad])), CUBE)
    with pytest.raises(CubeError, match=r"Source 'planetscope', image 'bad': .*bad_sr\.tif.*unreadable='gap'"):
        cube["red"].compute()
    filled = rtsx.open_cube(recipe(optical([good, bad], unreadable="gap")), CUBE)
    with pytest.warns(MissingCoverageWarning, match=r"image 'bad'.*left out"):
        red = filled["red"].compute()
    np.testing.assert_array_equal(red.values, first_valid([whole_piece(good)], empty=nothing(), least=2).layers[0])


def test_nothing_found_and_mixed_dtypes_are_told_before_anything_is_read(ground: Ground) -> None:
    with pytest.raises(NoImageError, match=r"Source 'planetscope' has no image of this ground"):
        rtsx.open_cube(recipe(optical([])), CUBE)
    may = Period(date(2024, 5, 1), date(2024, 5, 31), months=(5,))
    with pytest.raises(
        NoImageError, match=r"2024-05-31 in the months 5\. Check region, dates \(`period: any` takes all\)"
    ):
        rtsx.open_cube(recipe(replace(optical([ground.scene("a", time=at("2024-07-01"))]), period=may)), CUBE)
    one, other = ground.scene("a"), ground.scene("b")
    floats = {name: replace(bands, dtype="float32") for name, bands in other.bands.items()}
    with pytest.raises(CubeError, match=r"one dtype, but they have uint16 \(as a\), float32 \(as b\)"):
        rtsx.open_cube(recipe(optical([one, replace(other, bands=floats)])), CUBE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": ("udm2.tif", "tss-v1")}, "A recipe says itself"),
        ({"layers": ["swir"]}, r"Layers \['swir'\] are not in this cube"),
        ({"cell": GRID.window((0, 5), (0, 5)).zoom_out(2)}, "has to lie on the pixels of"),
        ({"cell": rtsx.Grid.arctic(resolution=3)[1, 1]}, r"Take the cell from the recipe's grid"),
        ({}, "names no region"),
    ],
)
def test_what_a_recipe_cannot_take_is_refused(ground: Ground, arguments: dict, message: str) -> None:
    with pytest.raises(CubeError, match=message):
        rtsx.open_cube(recipe(optical([ground.scene("a")])), **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("group", ["all", "item"])
def test_stackstac_agrees_to_the_pixel_on_a_shared_grid(ground: Ground, group: str) -> None:
    images = [ground.scene("a", time=at("2024-07-02"), cloud=2), ground.scene("b", time=at("2023-07-01"), cloud=1)]
    box = images[0].bands["red"].geobox
    grid = rtsx.Grid.from_geobox(box)
    ours, theirs = (
        rtsx.open_cube(
            replace(recipe(optical(images, group=group, reader=name), chunk=60), grid=grid),
            grid.window((0, 150), (20, 130)),
        ).compute()
        for name in ("rtsx", "stackstac")
    )
    assert ours["valid"].values.mean() > 0.3
    for name in ours.data_vars:
        np.testing.assert_array_equal(ours[name].values, theirs[name].values, err_msg=str(name))


@pytest.mark.parametrize("reader", ["rtsx", "stackstac"])
@pytest.mark.parametrize("begun", [(59, 1), (-7, 120)])
def test_chunks_may_begin_before_the_raster(ground: Ground, reader: str, begun: tuple[int, int]) -> None:
    images = [ground.scene("a", cloud=2), ground.scene("b", cloud=1)]
    grid = rtsx.Grid.from_geobox(images[0].bands["red"].geobox)
    given = replace(recipe(optical(images, reader=reader), chunk=60), grid=grid)
    whole, window = (
        load_recipe(given, grid.window((0, 150), (20, 130)), anchor=grid.origin, begun=before)
        for before in ((0, 0), begun)
    )
    assert window["red"].chunks == (chunk_lengths(150, 60, begun=begun[0]), chunk_lengths(110, 60, begun=begun[1]))
    xr.testing.assert_identical(window.compute(), whole.compute())
    assert len(window["red"].data.dask) < 3 * len(whole["red"].data.dask)


def test_stackstac_says_what_it_cannot(ground: Ground) -> None:
    with pytest.raises(CubeError, match=r"eroding needs the halo that only the reader 'rtsx' gives; got 'stackstac'"):
        optical([ground.scene("a")], reader="stackstac", erode_m=20.0)


def outlined(image: Image) -> Image:
    """An image with the footprint of its raster, by which sources choose."""
    box = next(iter(image.bands.values())).geobox
    return replace(image, footprint=lonlat_polygon(box.extent.geom, str(box.crs)))


@pytest.mark.parametrize("terrain_grid", ["source", "cube"])
def test_terrain_at_the_edge_of_a_cell_sees_the_tile_beyond(ground: Ground, terrain_grid: str) -> None:
    # The border of the tiles lies three pixels beyond the right edge of the cell: only its halo meets the eastern tile.
    middle = GRID.window(ROWS, (COLUMNS[0], -210_000 - 3))
    tiles = [outlined(ground.heights("west", shift=(-1500, 0))), outlined(ground.heights("east", shift=(1500, 0)))]
    tiles = [
        replace(tile, time=at("2014-03-27")) for tile in tiles
    ]  # of strips, which say nothing of when the layers are of
    given = recipe(elevation(tiles, terrain_grid=terrain_grid))
    whole, cell = rtsx.open_cube(given, CUBE).compute(), rtsx.open_cube(given, middle).compute()
    assert cell.attrs["images_arcticdem"] == "east,west"
    assert "time_coverage_start" not in cell.attrs
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
    given = recipe(optical([ground.scene("a")]), trend([]), derived=(get_derived("ndvi"),))
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
    cube = rtsx.open_cube(recipe(moved, static, derived=(get_derived("ndvi"),)), CUBE)
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


def test_the_types_of_a_recipes_fields_are_known_when_it_runs() -> None:
    assert get_type_hints(CubeRecipe)["derived"] == tuple[DerivedLayer, ...]
    assert get_type_hints(SourceRecipe)["terrain"] == tuple[TerrainLayer, ...]


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


def test_a_region_around_the_earth_is_refused_before_its_chunks_are_planned(ground: Ground) -> None:
    given = recipe(optical([ground.scene("a", time=at("2023-07-10"))]))
    swapped = shapely.union(shapely.box(-180, 69.4, -135.0, 69.41), shapely.box(-134.9, 69.4, 180, 69.41))
    with pytest.raises(CubeError, match=r"pixels, which are [\d,]+ chunks, .* 1,000,000 at most.*WEST is the larger"):
        rtsx.open_cube(replace(given, region=swapped, grid=replace(given.grid, resolution=0.5), chunk=256))


@pytest.mark.parametrize(
    ("resampling", "composite", "message"),
    [
        ("bilinear", "first", "`resampling: nearest`"),
        ("nearest", "median", "`composite: first`"),
        ("nearest", "first", ""),
    ],
)
def test_numbers_of_classes_are_not_mixed(ground: Ground, resampling: str, composite: str, message: str) -> None:
    images = [ground.scene(name, time=at(f"2024-07-0{day}")) for day, name in enumerate("ab", start=1)]
    classes = [
        replace(image, bands={name: replace(bands, has_classes=name == "red") for name, bands in image.bands.items()})
        for image in images
    ]
    source = optical(classes, composite=composite)
    layers = tuple(replace(layer, resampling=resampling) for layer in source.layers)
    made = recipe(replace(source, layers=layers), chunk=60)
    if not message:
        assert rtsx.open_cube(made, CUBE)["red"].dtype == np.uint16
        return
    with pytest.raises(
        CubeError, match=f"layer 'red' of image '[ab]' stand for classes.*Write {message}.*`dtype: float32`"
    ):
        rtsx.open_cube(made, CUBE)
    for measured in (
        tuple(replace(layer, dtype="float32") for layer in layers),
        tuple(replace(layer, wanted=replace(layer.wanted, scale_factor=0.01)) for layer in layers),
    ):
        assert "red" in rtsx.open_cube(recipe(replace(source, layers=measured), chunk=60), CUBE)


def test_terrain_of_elevation_in_feet_is_refused_unless_scaled(ground: Ground) -> None:
    image = ground.heights("dem")
    feet = replace(image, bands={"dem": replace(image.bands["dem"], units="ft")})
    with pytest.raises(CubeError, match=r"'dem' of image 'dem' is stated to be in ft. Write `scale_factor: 0.3048`"):
        rtsx.open_cube(recipe(elevation([feet])), CUBE)
    for scaled in ({"scale_factor": 0.5, "settled": frozenset({"scale_factor"})}, {"scale_factor": 0.3048}):
        bands = {"dem": replace(feet.bands["dem"], **scaled)}
        assert "slope" in rtsx.open_cube(recipe(elevation([replace(image, bands=bands)])), CUBE)


def test_a_region_that_is_one_point_is_refused() -> None:
    with pytest.raises(CubeError, match="in this order, with an area"):
        region_geobox(GRID, shapely.Point(-139, 69.5))
