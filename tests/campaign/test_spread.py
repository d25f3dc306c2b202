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
from rtsx.campaign.cell_task import cell_job
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.map import map_year
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.planning import TaskMemory, plan_campaign
from rtsx.campaign.products.rasters import MatrixTiling
from rtsx.cube import write
from rtsx.cube.write import halve
from rtsx.errors import CampaignError
from rtsx.grid.grid import cell_id
from rtsx.inference.predict import variable_attrs
from rtsx.viewer.render import draw_window, styles_of
from tests.campaign.small_campaign import (
    CELL,
    CELLS,
    make_bundle,
    make_recipe,
    region_of,
    thread_client,
    write_country,
    write_part,
)


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


def test_years_of_a_map_have_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_SMALLEST_TOP_LEVEL", 32)
    years: dict[int, Campaign] = {}
    for year in (2025, 2024):  # not in their order
        write_part(image := tmp_path / f"{year}.tif", columns=(0, 2 * CELL), seed=year)
        recipe = make_recipe(
            (image,),
            str(tmp_path / "out"),
            year=year,
            region=region_of(CELLS[:2]),
            bundles=(make_bundle(3), make_bundle(4)),
        )
        recipe = replace(recipe, prediction=replace(recipe.prediction, spread=True))
        years[year] = campaign = Campaign.create(recipe)
        job = cell_job(recipe, campaign.plan)
        assert all(job(cell, 1, "run").state == "done" for cell in campaign.plan.cells)
        campaign.collect(stac=False)
    whole = rtsx.open_cube(tmp_path / "out" / "map.zarr")
    coarse = zarr.open_array(tmp_path / "out" / "map.zarr" / "2x" / "spread", mode="r")
    seen = []
    for place, (year, campaign) in enumerate(sorted(years.items())):
        assert campaign.recipe is not None
        tiling = campaign.plan.prediction.tiling
        wanted = rtsx.predict_cube(
            campaign.cube(), campaign.recipe.bundles, tile=tiling.tile, overlap=tiling.overlap, blend=tiling.blend,
            device="cpu", backend="eager", keep_members=True,
        )["spread"].compute(scheduler="synchronous")  # fmt: skip
        per_cent = np.where(wanted.isnull(), 255, np.rint(100 * wanted.fillna(0))).astype(np.uint8)
        stored = whole["spread"].sel(time=str(year)).squeeze("time")
        assert np.array_equal(stored.values, per_cent)
        step = map_year(zarr.open_group(tmp_path / "out" / "map.zarr", mode="r"), year)
        assert np.array_equal(coarse[step], halve(per_cent, reduction="average", nodata=255))
        campaign.deliver(to := tmp_path / str(year), outlines=False)
        for cell in campaign.plan.cells:
            with rasterio.open(to / "spread" / f"{cell_id(*cell)}.tif") as file:
                assert np.array_equal(file.read(1), per_cent[campaign.plan.region(cell)])
        box = tuple(campaign.plan.geobox.boundingbox)
        picture = draw_window(whole, box, size=(64, 128), style=styles_of(whole)["spread"], select={"time": place})
        alone = draw_window(stored.to_dataset(), box, size=(64, 128), style=styles_of(stored.to_dataset())["spread"])
        assert picture.style.limits == ((0.0, 0.25),)
        assert np.array_equal(picture.rgba[per_cent != 255], alone.rgba[per_cent != 255])
        seen.append(per_cent)
    assert (seen[0] != seen[1]).any()


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
