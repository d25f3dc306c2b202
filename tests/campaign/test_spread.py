"""How far the members of an ensemble disagree, from the plan of a campaign to the tiles of its delivery."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr

import rtsx
from rtsx.campaign import Campaign
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.planning import TaskMemory, plan_campaign
from rtsx.campaign.products.rasters import MatrixTiling
from rtsx.cube import write
from rtsx.cube.write import halve
from rtsx.errors import CampaignError
from rtsx.inference.predict import variable_attrs
from tests.campaign.small_campaign import CELLS, make_bundle, make_recipe, thread_client, write_country


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A campaign of two networks that keeps their spread."""
    folder = tmp_path_factory.mktemp("spread")
    recipe = make_recipe(write_country(folder), str(folder / "out"), bundles=(make_bundle(3), make_bundle(4)))
    campaign = Campaign.create(replace(recipe, cogs=True, prediction=replace(recipe.prediction, spread=True)))
    with thread_client() as client, pytest.MonkeyPatch.context() as patched:
        patched.setattr(write, "_SMALLEST_TOP_LEVEL", 64)
        assert campaign.run(client).complete
        campaign.collect(tracks=False, stac=False)
    return campaign


def test_the_map_has_the_spread_of_one_prediction_of_the_whole(done: Campaign) -> None:
    tiling = done.plan.prediction.tiling
    assert done.recipe is not None
    wanted = rtsx.predict_cube(
        done.cube(), done.recipe.bundles, tile=tiling.tile, overlap=tiling.overlap, blend=tiling.blend, device="cpu",
        backend="eager", keep_members=True,
    ).compute(scheduler="synchronous")  # fmt: skip
    stored = done.map().isel(time=0).compute(scheduler="synchronous")
    for name in ("probability", "binary", "valid"):
        np.testing.assert_array_equal(stored[name].values, wanted[name].values, err_msg=name)
    spread = wanted["spread"].values
    assert len(np.unique(np.rint(100 * spread[np.isfinite(spread)]))) > 5
    per_cent = np.where(np.isnan(spread), 255, np.rint(100 * np.nan_to_num(spread))).astype(np.uint8)
    np.testing.assert_array_equal(stored["spread"].values, per_cent)
    assert stored["spread"].attrs.items() >= {"scale_factor": 0.01, "_FillValue": 255}.items()
    assert done.verify().is_sound
    for cell in CELLS:
        path = Path(done.output) / YearLayout(2024).cog(cell, "spread")
        if path.exists():  # not of a cell without a valid pixel
            with rasterio.open(path) as file:
                assert np.array_equal(file.read(1), per_cent[done.plan.region(cell)])
    assert list((Path(done.output) / YearLayout(2024).cogs).glob("*_spread.tif"))
    coarse = np.asarray(zarr.open_array(f"{done.output}/map.zarr/2x/spread", mode="r")[0])
    np.testing.assert_array_equal(coarse, halve(per_cent, reduction="average", nodata=255))


def test_a_delivery_has_it(done: Campaign, tmp_path: Path) -> None:
    made = done.deliver(tmp_path / "to", outlines=False)
    to = tmp_path / "to"
    paths = sorted((to / "spread").rglob("*.tif"))
    assert len(paths) == made.n_rasters == len(list((to / "probability").rglob("*.tif")))
    stored = done.map().isel(time=0)["spread"].compute(scheduler="synchronous")
    for path in paths:
        with rasterio.open(path) as file, rasterio.open(to / "probability" / path.relative_to(to / "spread")) as beside:
            pixels = file.read(1)
            assert (file.scales, file.nodata, file.crs, file.transform) == ((0.01,), 255, beside.crs, beside.transform)
            assert np.array_equal(pixels == 255, beside.read(1) == 255)
            x, y = file.xy(np.arange(file.height), np.arange(file.width))
            assert np.array_equal(pixels, stored.sel(x=np.array(x), y=np.array(y), method="nearest").values)
    with rasterio.open(to / "spread.vrt") as whole:
        assert whole.scales == (0.01,)
    assert {"spread.qml", "spread.sld"} <= {path.name for path in to.iterdir()}
    collection = json.loads((to / "collection.json").read_text())
    assert collection["item_assets"]["spread"]["bands"][0]["raster:scale"] == 0.01
    assert "probabilities of 2 networks" in (to / "CAVEATS.md").read_text()
    readme = (to / "README.md").read_text()
    assert "`spread/`" in readme
    assert "all files in probability/, binary/ and spread/, as a table" in readme
    sums = (to / "SHA256SUMS").read_text()
    assert all(str(path.relative_to(to)) in sums for path in paths)
    assert done.deliver(to, outlines=False).rewritten == ()
    tiling = MatrixTiling.of(done.plan, "UPSArcticWGS84Quad", zoom=None, tile_zoom=None)
    assert tiling.document["resampling"]["spread"] == tiling.resampling("probability")


def test_spread_of_one_network_or_of_the_greatest_is_refused(done: Campaign, tmp_path: Path) -> None:
    recipe = done.recipe
    assert recipe is not None
    for changes, told in (
        ({"bundles": recipe.bundles[:1]}, "there is one model"),
        ({"bundles": recipe.bundles[:1] * 2}, "there is one model"),
        ({"prediction": replace(recipe.prediction, blend="max")}, "Take another blend"),
    ):
        with pytest.raises(CampaignError, match=told):
            plan_campaign(replace(recipe, output=str(tmp_path), **changes))


def test_a_map_takes_no_year_that_keeps_it_not(done: Campaign) -> None:
    recipe = done.recipe
    assert recipe is not None
    other = replace(recipe, year=2025, prediction=replace(recipe.prediction, spread=False))
    with pytest.raises(CampaignError, match=r"another map: prediction\.spread is true there and false here"):
        Campaign.create(other)


def test_members_that_are_kept_take_memory(done: Campaign) -> None:
    plan: CampaignPlan = done.plan
    assert done.recipe is not None
    memory = TaskMemory(bundles=tuple(done.recipe.bundles), stored_bytes=5, side=96, is_outlined=True, batch_size=1)
    kept = replace(memory, spread=True)
    tiling = plan.prediction.tiling
    assert kept.estimate(tiling).output_bytes > memory.estimate(tiling).output_bytes
    assert variable_attrs("spread", "float32")["units"] == "1"
    assert len(CELLS) == len(plan.cells)
