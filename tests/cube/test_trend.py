"""Trends of stacks of scenes on disk: those of the plainest way, whatever the chunks, grids and what goes wrong."""

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely import box

import rtsx
from rtsx.cube import BandRequest, CubeRecipe, LayerRecipe, Period, QualityRecipe, SourceRecipe, TrendRecipe, mask_rule
from rtsx.cube import trend as blocks
from rtsx.cube.chunk_loader import ChunkLoader
from rtsx.cube.recipe import TASSELED_CAP_BANDS, TREND_EXTRAS, TREND_LAYERS
from rtsx.cube.stac import StacItems
from rtsx.errors import CubeError, NoImageError
from tests.cube.naive_trend import CLEAR, SNOW, Stack, published, random_stack, slopes_of, trends_of, write_items

GREENLAND = (370, 168)
"""Row and column in the scene of Greenland where about half of the ground is under cloud."""
GRID = rtsx.Grid("EPSG:32607", 30, origin=(15, 15))
SHAPE = (13, 20)


def recipe_of(items: list[dict[str, Any]], *, chunk: int = 64, grid: rtsx.Grid = GRID, **trend: Any) -> CubeRecipe:
    source = SourceRecipe(
        name="trends",
        images=StacItems(items),
        layers=tuple(LayerRecipe(wanted=BandRequest(name=name), resampling="nearest") for name in TASSELED_CAP_BANDS),
        quality=QualityRecipe(
            wanted=BandRequest(name="qa_pixel", asset="qa_pixel"), rule=mask_rule("landsat-qa-pixel", data=None)
        ),
        trend=TrendRecipe(**{"window": (2000, 2019)} | trend),
    )
    return CubeRecipe(grid=grid, sources=(source,), chunk=chunk)


def opened(items: list[dict[str, Any]], ground: GeoBox, **options: Any) -> xr.Dataset:
    return rtsx.open_cube(recipe_of(items, **options), ground).compute(scheduler="synchronous")


@pytest.fixture(scope="module")
def stack() -> Stack:
    return random_stack(SHAPE, 16, seed=7)


@pytest.fixture(scope="module")
def items(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return write_items(stack, tmp_path_factory.mktemp("landsat"))


@pytest.mark.parametrize("method", ["linear", "theil-sen"])
def test_trends_are_those_of_the_plainest_way(items: list[dict[str, Any]], stack: Stack, method: str) -> None:
    layers = (*TREND_LAYERS, *TREND_EXTRAS) if method == "linear" else (*TREND_LAYERS, "tc_observations")
    cube = opened(items, stack.here, method=method, layers=layers)
    number, slopes = trends_of(stack, method=method)
    assert {cube[name].dtype for name in TREND_LAYERS} == {np.dtype(np.uint8)}
    np.testing.assert_array_equal(np.stack([cube[name] for name in TREND_LAYERS]), published(slopes))
    np.testing.assert_array_equal(cube["tc_observations"], number)
    np.testing.assert_array_equal(cube["valid"], np.isfinite(slopes[0]))
    assert not cube["valid"].all()
    plain = opened(items, stack.here, method=method, dtype="float32")
    np.testing.assert_allclose(np.stack([plain[name] for name in TREND_LAYERS]), slopes, atol=1e-6)
    assert np.isnan(plain["tc_wetness"].attrs["_FillValue"])


@pytest.mark.parametrize("method", ["linear", "theil-sen"])
def test_neither_chunks_nor_memory_change_a_bit(
    items: list[dict[str, Any]], stack: Stack, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = rtsx.Grid.arctic(resolution=20)
    x, y = Transformer.from_crs("EPSG:32607", grid.crs, always_xy=True).transform(565400, 7724700)
    row, column = round(-y / 20), round(x / 20)
    ground = grid.window((row - 12, row + 12), (column - 15, column + 16))
    options: dict[str, Any] = {"grid": grid, "method": method, "resampling": "cubic", "dtype": "float32"}
    whole = opened(items, ground, **options)
    assert 0.1 < whole["valid"].mean() < 1
    # So that half of the scenes are read twice, or half of the rows at a time.
    monkeypatch.setattr(blocks, "_KEPT_BYTES", 20_000)
    monkeypatch.setattr(blocks, "_STACK_BYTES", 64 * 16 * 14 * 4)
    xr.testing.assert_identical(opened(items, ground, chunk=17, **options), whole)


def test_each_scene_is_read_once_and_those_elsewhere_never(
    items: list[dict[str, Any]], stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    west = replace(stack, geobox=GeoBox((1, 1), Affine(30, 0, 565005 - 300000, 0, -30, 7725015), "EPSG:32607"))
    far = write_items(west, tmp_path, names=[f"LT05_far_{number}" for number in range(16)])
    cloudy = {**items[3], "id": "LC08_cloudy", "properties": {**items[3]["properties"], "eo:cloud_cover": 70.0}}
    read: list[tuple[str, int]] = []
    piece = ChunkLoader.piece

    def noted(self: ChunkLoader, image: Any, rows: tuple[int, int], columns: tuple[int, int]) -> Any:
        read.append((image.id, rows[0]))
        return piece(self, image, rows, columns)

    monkeypatch.setattr(ChunkLoader, "piece", noted)
    cube = opened([*items, *far, cloudy], stack.here)
    assert sorted(name for name, _ in read) == sorted(item["id"] for item in items)
    xr.testing.assert_equal(cube, opened(items, stack.here))


def test_scenes_of_two_zones_are_one_series(tmp_path: Path) -> None:
    # The border of zones 7 and 8 runs through the cube: pixels west of it lie on the grid of zone 7.
    still = random_stack((60, 60), 10, seed=5)
    still.dn[:] = 9000
    decades = np.array([(time.year - 2010) / 10 for time in still.times])
    still.dn[:] += np.rint(decades * 1500).astype(int)[:, None, None, None].astype(np.uint16)
    still.qa[:] = CLEAR
    everything: list[dict[str, Any]] = []
    for zone, x in ((7, 615705.0), (8, 382485.0)):
        part = Stack(
            dn=still.dn[zone - 7 :: 2],
            qa=still.qa[zone - 7 :: 2],
            times=still.times[zone - 7 :: 2],
            satellites=[5] * 5,
            geobox=GeoBox((1, 1), Affine(30, 0, x, 0, -30, 7726785), f"EPSG:326{zone:02}"),
        )
        everything += write_items(part, tmp_path / str(zone), names=[f"LT05_{zone}_{number}" for number in range(5)])
    grid = rtsx.Grid.arctic(resolution=30)
    x, y = Transformer.from_crs("EPSG:4326", grid.crs, always_xy=True).transform(-138.0, 69.6157)
    row, column = round(-y / 30), round(x / 30)
    ground = grid.window((row - 6, row + 6), (column - 6, column + 6))
    options: dict[str, Any] = {"grid": grid, "layers": ("tc_brightness", "tc_observations"), "dtype": "float32"}
    cube = opened(everything, ground, **options)
    assert cube["valid"].all()
    assert set(np.unique(cube["tc_observations"])) == {10}
    expected = trends_of(
        Stack(dn=still.dn[:, :, :1, :1], qa=still.qa[:, :1, :1], times=still.times, satellites=[5] * 10)
    )
    np.testing.assert_allclose(cube["tc_brightness"], expected[1][0].item(), atol=1e-6)
    xr.testing.assert_identical(opened(everything, ground, chunk=7, **options), cube)


def test_a_file_that_is_broken_is_an_error_or_a_gap(stack: Stack, tmp_path: Path) -> None:
    items = write_items(stack, tmp_path)
    Path(items[5]["assets"]["sr"]["href"]).write_bytes(b"no image")
    with pytest.raises(CubeError, match=f"Source 'trends', image '{items[5]['id']}'"):
        opened(items, stack.here)
    recipe = recipe_of(items)
    lenient = replace(recipe, sources=(replace(recipe.sources[0], unreadable="gap"),))
    with pytest.warns(rtsx.errors.MissingCoverageWarning):
        cube = rtsx.open_cube(lenient, stack.here).compute(scheduler="synchronous")
    others = [place for place in range(16) if place != 5]
    left = Stack(
        dn=stack.dn[others],
        qa=stack.qa[others],
        times=[stack.times[place] for place in others],
        satellites=[stack.satellites[place] for place in others],
    )
    np.testing.assert_array_equal(cube["tc_wetness"], published(trends_of(left)[1])[2])


def changed(item: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {**item, "properties": {**item["properties"], **properties}}


def test_what_is_no_stack_of_landsat_is_refused_when_it_is_opened(items: list[dict[str, Any]], stack: Stack) -> None:
    with pytest.raises(
        NoImageError, match="has no image of this ground between 2021-01-01 and 2022-12-31 in the months 7, 8"
    ):
        opened(items, stack.here, window=(2021, 2022))
    with pytest.raises(NoImageError, match="has 4 scenes, and a trend is made of 5 or more"):
        opened(items[:4], stack.here)
    other = {**changed(items[0], platform="sentinel-2a"), "id": "S2A_T08WMB"}
    with pytest.raises(CubeError, match=r"scenes of Landsat 4, 5, 7, 8, 9; got S2A_T08WMB of the platform sentinel-2a"):
        opened([other, *items[1:]], stack.here)
    bare = {**items[0], "assets": {"qa_pixel": items[0]["assets"]["qa_pixel"]}}
    with pytest.raises(CubeError, match="has no band 'blue'"):
        opened([bare, *items[1:]], stack.here)
    unnamed = [{**changed(item, platform=None), "id": f"LC09_{item['id']}"} for item in items]
    assert opened(unnamed, stack.here)["valid"].any()  # the id says it


def test_items_that_state_no_packing_have_that_of_collection_2(items: list[dict[str, Any]], stack: Stack) -> None:
    silent = []
    for item in items:
        asset = {**item["assets"]["sr"], "raster:bands": [{"data_type": "uint16"}] * 6}
        silent.append({**item, "assets": {**item["assets"], "sr": asset}})
    xr.testing.assert_equal(opened(silent, stack.here), opened(items, stack.here))


def test_a_planted_slope_comes_back(stack: Stack, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    matrix = blocks.kernels.TASSELED_CAP
    planted = np.array([0.05, -0.03, 0.02])
    decades = np.array([(time.timestamp() - 1262304000) / 86400 / 3650 for time in stack.times])
    seen = 0.2 + (np.linalg.pinv(matrix) @ planted)[:, None] * decades
    seen = seen.T[:, :, None, None] + rng.normal(0, 0.002, stack.dn.shape)
    dn = np.rint((seen + 0.2) / 2.75e-5).astype(np.uint16)
    made = replace(stack, dn=dn, satellites=[7] * 16)
    cube = opened(write_items(made, tmp_path), stack.here, dtype="float32", layers=(*TREND_LAYERS, "tc_wetness_stderr"))
    for name, slope in zip(TREND_LAYERS, planted, strict=True):
        assert float(cube[name].median()) == pytest.approx(slope, abs=0.0005)
    off = np.abs(cube["tc_wetness"] - planted[2]) / cube["tc_wetness_stderr"]
    assert 0.55 < float((off.where(cube["valid"]) < 1).sum() / cube["valid"].sum()) < 0.8


def test_recipes_that_no_trend_can_be_are_refused() -> None:
    for options, message in (
        ({"window": (2019, 2000)}, "first and its last year"),
        ({"layers": ("tc_brightnes",)}, "A trend has the layers"),
        ({"layers": ("tc_wetness_stderr",), "method": "theil-sen"}, "errors of the linear fit"),
        ({"months": (7, 13)}, "[Mm]onth"),
        ({"months": ()}, "at least one month"),
    ):
        with pytest.raises(CubeError, match=message):
            recipe_of([], **options)  # type: ignore[arg-type]
    source = recipe_of([]).sources[0]
    for changes, message in (
        ({"layers": source.layers[:5]}, "for that it reads"),
        ({"quality": None}, "all clear observations"),
        ({"composite": "median"}, "composite='first'"),
        ({"period": Period(date(2000, 1, 1), date(2001, 1, 1))}, "Leave it out"),
    ):
        with pytest.raises(CubeError, match=message):
            replace(source, **changes)  # type: ignore[arg-type]


def test_the_scene_of_greenland_joins_a_stack(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "stac_json" / "landsat_greenland"
    files = {band: next(folder.glob(f"*SR_B{number}.TIF")) for number, band in enumerate(TASSELED_CAP_BANDS, start=2)}
    with rasterio.open(files["blue"]) as file:
        affine, crs = file.transform, str(file.crs)
    top, left = GREENLAND
    window = ((top, top + 20), (left, left + 24))
    geobox = GeoBox((1, 1), affine * Affine.translation(left, top), crs)
    pixels = []
    for path in files.values():
        with rasterio.open(path) as file:
            pixels.append(file.read(1, window=window))
    with rasterio.open(next(folder.glob("*QA_PIXEL.TIF"))) as file:
        qa = file.read(1, window=window)
    made = random_stack((20, 24), 12, seed=0, geobox=geobox)
    made.qa[made.qa == SNOW] = CLEAR
    catalog = rtsx.cube.stac.StacCatalog(str(next(folder.glob("*_stac.json"))), prefer_local=True)
    items = write_items(made, tmp_path)
    source = recipe_of(items).sources[0]
    assert source.quality is not None
    # There is nothing but snow, ice and cloud.
    rule = mask_rule({"invalid": "fill", "low": "dilated_cloud or cirrus or cloud or cloud_shadow"}, data="qa_pixel")
    source = replace(source, quality=replace(source.quality, rule=rule))
    wanted = source.wanted
    real = catalog.find(box(-180, -90, 180, 90), None, wanted)
    assert len(real) == 1
    # By the reader of a chunk, because the pixels of the decimated files are no squares, as those of cubes are.
    images = [*StacItems(items).find(box(-180, -90, 180, 90), None, wanted), *real]
    corner = (geobox.affine.c, geobox.affine.f)
    packed = list(map(blocks.with_packing_of_collection2, images))
    reader = blocks.TrendChunkReader.plan(source, packed, geobox=made.here, anchor=corner)
    trends = dict(zip(reader.variables, reader(range(13), (0, 20), (0, 24)), strict=True))
    assert real[0].time is not None
    levels = rule.quality(qa[None])
    joined = Stack(
        dn=np.concatenate([made.dn, np.stack(pixels)[None]]),
        qa=np.concatenate([made.qa, np.where(levels == 2, CLEAR, 1)[None]]).astype(np.uint16),
        times=[*made.times, real[0].time],
        satellites=[*made.satellites, 8],
        geobox=geobox,
    )
    assert 0.3 < (levels == 2).mean() < 0.9
    np.testing.assert_array_equal(trends["tc_greenness"], published(trends_of(joined)[1])[1])
    assert slopes_of(joined, 10, 10)[0] >= slopes_of(made, 10, 10)[0]
