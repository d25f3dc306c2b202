"""What is refused before the first cell."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rtsx.campaign.planning import plan_campaign
from rtsx.campaign.preflight import opened_sample, require_sources, require_space, sampled
from rtsx.cube import CubeRecipe, FileImages, GivenImages, LayerRecipe, SourceRecipe, Wanted
from rtsx.cube.terrain import terrain_named
from rtsx.errors import BundleError, CampaignError, CubeError, OutputNotWritableError
from tests.campaign.plans import FIRST, GRID, beside, make_bundle, make_plan, make_recipe, make_source


def test_cells_are_looked_at_far_and_wide() -> None:
    cells = make_plan().cells
    assert sorted(sampled(cells)) == sorted(cells)
    assert len(list(sampled(cells, most=2))) == 2
    assert next(iter(sampled(cells))) == (310, -209)


def test_one_cell_with_images_is_enough(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, cells=[FIRST, *(beside(y, 30) for y in range(5))])
    plan = plan_campaign(recipe)
    require_sources(recipe, plan)
    cube = opened_sample(recipe.cube, plan.cells)
    assert (cube.sizes["y"], cube.sizes["x"]) == (64, 64)
    with pytest.raises(CampaignError, match=r"None of 2 of the campaign's 6 cells, spread over all of them"):
        opened_sample(recipe.cube, plan.cells, most=2)


def test_sources_that_went_away_are_told(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    plan = plan_campaign(recipe)
    empty = replace(recipe, cube=CubeRecipe(grid=GRID, sources=(make_source(tmp_path, images=GivenImages(())),)))
    with pytest.raises(CampaignError, match="The last answer was: Source 'scenes' has no image of this ground"):
        require_sources(empty, plan)
    timed = replace(recipe, cube=CubeRecipe(grid=GRID, sources=(make_source(tmp_path / "scene.tif", group="day"),)))
    with pytest.raises(CampaignError, match="have time steps of their own"):
        require_sources(timed, plan)
    unscaled = tuple(
        replace(layer, wanted=replace(layer.wanted, scale_factor=None))
        for layer in make_source(tmp_path / "scene.tif").layers
    )
    bundle = make_bundle()
    digital = replace(
        recipe,
        cube=CubeRecipe(grid=GRID, sources=(make_source(tmp_path / "scene.tif", layers=unscaled),)),
        bundles=(replace(bundle, inputs=tuple(replace(layer, units="reflectance") for layer in bundle.inputs)),),
    )
    with pytest.raises(BundleError, match="wants layer 'red' as reflectance"):
        require_sources(digital, plan)
    (tmp_path / "scene.tif").write_bytes(b"damaged")
    with pytest.raises(CubeError, match=r"scene\.tif"):
        require_sources(recipe, plan)


def test_a_sun_that_moves_from_cell_to_cell_is_refused(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    heights = SourceRecipe(
        name="heights",
        images=FileImages(assets={"dem": (str(tmp_path / "scene.tif"),)}),
        layers=(LayerRecipe(wanted=Wanted(name="dem", bands=(1,))),),
        terrain=(terrain_named("hillshade"),),
        sun_of="scenes",
    )
    moving = replace(recipe, cube=CubeRecipe(grid=GRID, sources=(*recipe.cube.sources, heights)))
    with pytest.raises(CampaignError, match=r"\['heights'\] take the sun of hillshade .* Leave sun_of out"):
        plan_campaign(moving)
    fixed = replace(moving, cube=CubeRecipe(grid=GRID, sources=(*recipe.cube.sources, replace(heights, sun_of=None))))
    with pytest.raises(CampaignError, match="take the sun"):
        require_sources(moving, plan_campaign(fixed))


def test_a_disk_without_room_is_refused(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    output = str(tmp_path / "not" / "there" / "yet")
    require_space(output, 1000)
    require_space(f"file://{output}", 1000)
    with pytest.raises(OutputNotWritableError, match=r"yet needs .* GB, and its disk has .* GB left. Free space"):
        require_space(output, 2 * free)
    require_space("s3://bucket/maps", 2 * free)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OutputNotWritableError, match="file is no folder that you may write to"):
        require_space(str(file / "below"), 1)
