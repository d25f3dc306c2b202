"""From a recipe to a plan."""

import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely
from shapely import box

from rtsx import ModelBundle
from rtsx.campaign import planning
from rtsx.campaign.plan import read_plan
from rtsx.campaign.planning import TaskMemory, create_plan, plan_campaign
from rtsx.campaign.preflight import opened_sample
from rtsx.campaign.recipe import OutlineSpec, PredictionSpec
from rtsx.cube import CubeRecipe, GivenImages
from rtsx.errors import BundleError, CampaignError, InputNotFoundError, MemoryPlanError, PixelSizeWarning
from rtsx.grid import Grid, grid_offset
from rtsx.inference.device import Hardware
from rtsx.inference.plan import PredictionPlan
from rtsx.model import OutlineChoice
from rtsx.storage.object_store import open_object_store
from rtsx.synthetic import demo_bundle_path
from rtsx.tiling import TilePlan
from tests.campaign.plans import FIRST, GRID, beside, ground, make_bundle, make_recipe, make_source
from tests.campaign.random_campaign import whole
from tests.meanwhile import Meanwhile


def test_a_plan_has_the_cells_of_the_region_and_all_that_bytes_depend_on(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, cells=[FIRST, beside(1, 1)])
    plan = plan_campaign(recipe)
    assert set(plan.cells) == {FIRST, beside(1, 1)}
    assert (plan.rows, plan.columns, plan.shape) == ((310, 312), (-210, -208), (128, 128))
    assert plan.prediction.layers == ("red", "nir")
    assert plan.prediction.members == (recipe.bundles[0].digest,)
    assert plan.prediction.tiling.blend == "crop"
    assert plan.prediction.tiling.shape == plan.shape
    assert plan.runtime == {"backend": "eager", "precision": "auto"}
    assert plan.layers["grid"]["cell_size"] == 64
    assert plan_campaign(recipe) == plan
    assert plan_campaign(recipe).digest == plan.digest
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_tiles_are_anchored_where_predict_cube_finds_them(tmp_path: Path) -> None:
    plan = plan_campaign(make_recipe(tmp_path))
    assert grid_offset(plan.geobox, plan.lattice_origin) == plan.prediction.tiling.offset
    assert plan.prediction.tiling.trim >= 8
    assert 64 % plan.prediction.tiling.step == 0


@pytest.mark.parametrize("reach", [8, None])
def test_predict_cube_with_the_numbers_of_a_plan_has_its_tiles(reach: int | None, tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, cells=[FIRST, beside(1, 1)], bundles=(make_bundle(reach),))
    plan = plan_campaign(recipe)
    assert PredictionPlan.from_json(whole(recipe, plan).attrs["plan"]) == plan.prediction


def test_regions_of_layers_and_their_chunks_are_no_part_of_a_plan(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    other = replace(recipe, cube=replace(recipe.cube, chunk=77, region=ground(FIRST)))
    assert plan_campaign(other).digest == plan_campaign(recipe).digest


def test_a_tile_that_memory_decides_is_kept_on_other_machines(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, prediction=PredictionSpec(memory_bytes=2**40))
    first = plan_campaign(recipe)
    monkey = replace(recipe, prediction=PredictionSpec(memory_bytes=1))
    with pytest.raises(MemoryPlanError, match=r"but a worker has 0\.0 GiB"):
        plan_campaign(monkey)
    assert plan_campaign(monkey, like=first).prediction == first.prediction
    other = replace(monkey, bundles=(make_bundle(12),), prediction=recipe.prediction)
    assert plan_campaign(other, like=first).prediction.tiling.overlap == 24


def test_of_machines_that_plan_at_once_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiling = TaskMemory.tiling

    def as_memory_holds(self: TaskMemory, *given: Any, settled: int | None, **named: Any) -> TilePlan:
        return tiling(self, *given, settled=settled or tiles.pop(), **named)

    monkeypatch.setattr(TaskMemory, "tiling", as_memory_holds)
    monkeypatch.setattr(planning, "check_object_store", lambda *_, **__: None)  # whose writes are many
    recipe = make_recipe(tmp_path, output="memory://planned")
    tiles = [80, 48]
    meanwhile = Meanwhile(1, lambda: create_plan(recipe, config=""))
    with meanwhile.happening():
        plan = create_plan(recipe, config="")
    assert meanwhile.has_happened
    assert create_plan(recipe, config="") == plan


def test_many_cells_take_little_memory(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    # A source that the cube can do without, because nobody has images of all this ground.
    source = make_source(tmp_path / "scene.tif", is_required=False)
    grid = Grid("EPSG:3413", 10.0, cell_size=3072)
    recipe = replace(recipe, region=box(-180, 66.5, 180, 90), cube=CubeRecipe(grid=grid, sources=(source,)), shard=512)
    tracemalloc.start()
    plan = plan_campaign(recipe)
    assert len(plan.digest) == 64
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(plan.cells) > 20_000
    assert peak < 2000 * len(plan.cells)  # 2 GB for a million


@pytest.mark.slow
def test_the_default_plan_of_the_demo_computes_little_twice(tmp_path: Path) -> None:
    bundle = ModelBundle.open(demo_bundle_path())
    names = ("blue", "green", "red", "nir")
    file = make_recipe(tmp_path).cube.sources[0].images
    layers = tuple(
        replace(layer, wanted=replace(layer.wanted, name=name, bands=(1,)))
        for layer, name in zip(make_source(tmp_path / "scene.tif").layers * 2, names, strict=True)
    )
    grid = Grid("EPSG:3413", 3.0)
    side = grid.cell_size * grid.resolution
    left, _, _, top = GRID[FIRST].bounds
    cell = grid.cell_at(left, top)
    assert side > 0
    recipe = make_recipe(
        tmp_path,
        region=ground((cell.iy, cell.ix), (cell.iy, cell.ix + 1), (cell.iy + 1, cell.ix), grid=grid),
        cube=CubeRecipe(grid=grid, sources=(make_source(tmp_path / "scene.tif", images=file, layers=layers),)),
        bundles=(bundle,),
        shard=4096,
        chunk=512,
        prediction=PredictionSpec(memory_bytes=8 * 2**30),
    )
    plan = plan_campaign(recipe)
    assert plan.work.over_compute <= 1.45
    assert plan.work.over_compute == pytest.approx((plan.prediction.tiling.tile / plan.prediction.tiling.step) ** 2)


def refused(folder: Path, **changes: Any) -> None:
    plan_campaign(make_recipe(folder, **changes))


def test_what_no_cell_could_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match=r"A campaign needs one backend, .* got 'auto'. Take 'eager'"):
        refused(tmp_path, prediction=PredictionSpec(backend="auto"))
    with pytest.raises(BundleError, match="backend has to be 'auto' or one of"):
        refused(tmp_path, prediction=PredictionSpec(backend="jax"))
    with pytest.raises(CampaignError, match="Memory of a worker is a number of bytes above 0; got 0"):
        refused(tmp_path, prediction=PredictionSpec(memory_bytes=0))
    with pytest.raises(BundleError, match=r"missing \['dem'\]"):
        refused(tmp_path, bundles=(make_bundle(layers=("red", "dem")),))


def test_sources_with_time_steps_are_refused(tmp_path: Path) -> None:
    make_recipe(tmp_path)
    timed = CubeRecipe(grid=GRID, sources=(make_source(tmp_path / "scene.tif", group="day"),))
    with pytest.raises(CampaignError, match=r"sources \['scenes'\] have time steps of their own. Take group='all'"):
        refused(tmp_path, cube=timed)


def test_a_region_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match=r"None of the campaign's 2 cells.*Source 'scenes' has no image"):
        refused(tmp_path, cells=[beside(9, 9), beside(9, 10)])
    nothing = CubeRecipe(grid=GRID, sources=(make_source(tmp_path, images=GivenImages(())),))
    with pytest.raises(CampaignError, match="narrow the region to the ground of the images"):
        refused(tmp_path, cube=nothing)


def test_other_pixels_than_a_bundle_has_learnt_are_told(tmp_path: Path) -> None:
    with pytest.warns(PixelSizeWarning, match=r"has learnt pixels of 3 m, and the cube has \S+ m on the ground"):
        refused(tmp_path, bundles=(replace(make_bundle(), pixel_m=3.0),))


def tiling_of(tile: int, *, side: int = 4096) -> TilePlan:
    return TilePlan(shape=(3 * side, 3 * side), tile=tile, overlap=64, trim=32, stride=4, blend="crop")


def memory_of(**changes: object) -> TaskMemory:
    values = {"bundles": (make_bundle(),), "stored_bytes": 9, "side": 4096, "is_outlined": True, "batch_size": None}
    return TaskMemory(**(values | changes))


def test_what_a_task_holds_is_in_it(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    plan = plan_campaign(recipe)
    memory = TaskMemory.of(recipe, opened_sample(recipe.cube, plan.cells), layers=plan.prediction.layers)
    assert (memory.stored_bytes, memory.side, memory.is_outlined) == (5, 64, True)
    reckoned = memory.estimate(plan.prediction.tiling)
    assert reckoned.window_bytes > 64**2 * memory.stored_bytes
    assert reckoned.output_bytes > 64**2 * 3
    assert reckoned.total_bytes < 2**28


def test_more_of_anything_takes_more() -> None:
    least = memory_of().estimate(tiling_of(512)).total_bytes
    assert memory_of().estimate(tiling_of(3072)).total_bytes > least
    assert memory_of(stored_bytes=18).estimate(tiling_of(512)).total_bytes > least
    assert memory_of(batch_size=8).estimate(tiling_of(512)).total_bytes > least
    assert memory_of(side=8192).estimate(tiling_of(512, side=8192)).total_bytes > least
    assert memory_of(is_outlined=False).estimate(tiling_of(512)).total_bytes < least
    other = replace(make_bundle(), fill=1.0)  # wants its own channels
    assert memory_of(bundles=(make_bundle(), other)).estimate(tiling_of(512)).total_bytes > least


def test_a_card_that_is_too_small_is_refused() -> None:
    small = memory_of(hardware=Hardware("NVIDIA Nano", 3 * 2**28))
    small.require(tiling_of(512), available=2**50)
    with pytest.raises(MemoryPlanError, match=r"one tile of 3072 px needs .* of NVIDIA Nano"):
        small.require(tiling_of(3072), available=2**50)


def test_bands_that_fill_a_batch_are_in_it() -> None:
    few, many = (memory_of(hardware=Hardware("GPU"), batch_size=size, side=1024) for size in (1, 64))
    tiling = tiling_of(1024, side=1024)
    assert many.estimate(tiling).window_bytes > few.estimate(tiling).window_bytes


def test_a_worker_that_is_too_small_is_told_by_how_much() -> None:
    with pytest.raises(MemoryPlanError, match=r"but a worker has 0\.1 GiB. Take a smaller tile"):
        memory_of().estimate(tiling_of(3072)).require(2**27)


def test_what_the_bundle_chose_and_the_years_before_had_is_in_the_plan(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    plain = plan_campaign(recipe)
    assert plain.outlines is not None
    assert plain.outlines == OutlineSpec(min_area_m2=288.0, area_thresholds=(0.45, 0.65, 0.8))
    chosen = replace(recipe.bundles[0], outlines=OutlineChoice(threshold=0.3, min_area_m2=900.0))
    plan = plan_campaign(replace(recipe, bundles=(chosen,)))
    assert plan.outlines == replace(plain.outlines, threshold=0.3, min_area_m2=900.0)
    assert plan.prediction.attrs["outline_threshold"] == 0.3
    told = replace(recipe, bundles=(chosen,), outlines=OutlineSpec(threshold=0.6, min_area_m2=100.0))
    assert plan_campaign(told).outlines == replace(plain.outlines, threshold=0.6, min_area_m2=100.0)
    # A plan of before there were areas by probability keeps its digest, and years that follow keep its columns.
    before = replace(plain, outlines=OutlineSpec(min_area_m2=288.0))
    assert set(before.to_document()["outlines"]) == {"min_area_m2", "threshold", "edge_distance"}
    assert plan_campaign(recipe, like=before) == before


def test_water_is_checked_before_anything_is_planned_and_can_change(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    lakes = tmp_path / "lakes.parquet"
    wet = replace(recipe, outlines=OutlineSpec(water=str(lakes)))
    lake = geopandas.GeoSeries([shapely.box(0, 60, 1, 61)])
    with pytest.raises(
        InputNotFoundError, match=r"Polygons of water are read from a file, but .*lakes\.parquet is none"
    ):
        create_plan(wet, config="")
    for rows, message in (
        (lake.centroid.set_crs(4326), "is a file of polygons, but .* has Point"),
        (lake, "have a CRS, but .* says none"),
    ):
        rows.to_frame("geometry").to_parquet(lakes)
        with pytest.raises(CampaignError, match=message):
            create_plan(wet, config="")
    objects = open_object_store(recipe.output, {})
    assert read_plan(objects, recipe.year) is None
    plain = create_plan(recipe, config="")
    assert "water" not in plain.to_document()["outlines"]
    lake.set_crs(4326).to_frame("geometry").to_parquet(lakes)
    plan = create_plan(wet, config="")
    assert plan.outlines == replace(plain.outlines, water=str(lakes))
    assert plan.digest == plain.digest
    assert read_plan(objects, recipe.year) == plan
    lakes.unlink()
    assert create_plan(wet, config="") == plan  # a worker without the file
    assert create_plan(recipe, config="") == read_plan(objects, recipe.year) == plain
    with pytest.raises(CampaignError, match="max_water is the part"):
        OutlineSpec(max_water=0.3)
