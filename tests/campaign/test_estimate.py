"""What a campaign will take."""

from dataclasses import replace
from pathlib import Path

import pytest

from rtsx.campaign.estimate import CampaignEstimate, seconds_per_tile
from rtsx.campaign.planning import plan_campaign
from rtsx.campaign.recipe import PredictionSpec, Prices
from rtsx.errors import BundleError
from tests.campaign.plans import FIRST, beside, make_bundle, make_recipe

PRICES = Prices(device_hour=3.0, gigabyte_month=0.02, gigabyte_read=0.09, currency="CAD")
FIXED = PredictionSpec(tile=48, overlap=16)


def test_an_estimate_counts_what_the_plan_says(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, cells=[FIRST, beside(1, 1)], prices=PRICES, prediction=FIXED)
    plan = plan_campaign(recipe)
    estimate = CampaignEstimate.of(plan, recipe, 0.5)
    assert (estimate.cells, estimate.pixels, estimate.megapixels) == (2, 2 * 64**2, 2 * 64**2 / 1e6)
    # Two steps of 32 px make up a cell, and their seams lie on its border.
    assert estimate.tiles == 2 * 2**2
    assert estimate.over_compute == pytest.approx((48 / 32) ** 2)
    # Two layers of two bytes and the validity; 8 px of halo on the two sides of each cell that have a neighbour.
    assert estimate.read_bytes == 2 * 72**2 * 5
    assert estimate.write_bytes == 2 * 64**2 * 3
    assert estimate.device_hours == pytest.approx(8 * 0.5 / 3600)
    assert estimate.device_cost == pytest.approx(3.0 * 8 * 0.5 / 3600)
    assert estimate.read_cost == pytest.approx(0.09 * estimate.read_bytes / 1e9)
    assert estimate.storage_cost == pytest.approx(0.02 * estimate.write_bytes / 1e9)
    assert estimate.memory_bytes > 2**27


def test_it_is_printed_before_anything_is_spent(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, cells=[FIRST, beside(1, 1)], prices=PRICES, prediction=FIXED)
    text = str(CampaignEstimate.of(plan_campaign(recipe), recipe, 3600.0))
    assert text.splitlines()[:3] == [
        "small 2024: 2 cells of 64 px, 0.0082 megapixels",
        "  8 tiles (4.0 a cell) of 48 px, overlap 16, trim 8, crop",
        "  over-compute 2.25, borders of cells included",
    ]
    assert "  8.00 device-hours for the networks at most, 3.6e+03 s a tile; reading apart" in text
    assert "  costs in CAD at most: devices 24.00, reading 0.00, storage a month 0.00" in text


def test_what_nobody_knows_is_left_out(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    estimate = CampaignEstimate.of(plan_campaign(recipe), recipe)
    assert (estimate.device_hours, estimate.device_cost, estimate.storage_cost) == (None, None, None)
    assert "costs" not in str(estimate)
    assert "device-hours" not in str(estimate)


def test_more_is_written_with_cogs_and_classes(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, cogs=True)
    assert CampaignEstimate.of(plan_campaign(recipe), recipe).write_bytes == 64**2 * 5


def test_larger_cells_are_named_where_they_would_save(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, bundles=(make_bundle(24),))
    estimate = CampaignEstimate.of(plan_campaign(recipe), recipe)
    assert estimate.over_compute == pytest.approx((112 / 64) ** 2, rel=0.3)
    assert list(estimate.over_compute_of_larger) == [128, 256]
    assert estimate.over_compute_of_larger[256] == pytest.approx((304 / 256) ** 2)
    assert "    cells of 256 px would bring 1.41" in str(estimate)
    every = [beside(y, x) for y in range(2) for x in range(2)]
    whole = make_recipe(tmp_path, cells=every, bundles=(make_bundle(None),))
    looking = CampaignEstimate.of(plan_campaign(whole), whole)
    assert "32 px, overlap 16, trim 2, linear" in str(looking)
    assert looking.over_compute > 4
    assert looking.over_compute_of_larger[256] < looking.over_compute


def test_a_tile_is_timed_by_running_it(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    plan = plan_campaign(recipe)
    assert seconds_per_tile(recipe.bundles, plan, device="cpu", least_s=0.0) > 0
    assert seconds_per_tile(recipe.bundles, plan, device="cpu", batch_size=3, least_s=0.0) > 0
    scaled = replace(recipe, prediction=PredictionSpec(scales=(1.0, 0.5)))
    assert seconds_per_tile(recipe.bundles, plan_campaign(scaled), device="cpu", least_s=0.0) > 0
    unknown = replace(plan, runtime={"backend": "jax", "precision": "auto"})
    with pytest.raises(BundleError, match="jax"):
        seconds_per_tile(recipe.bundles, unknown, device="cpu", least_s=0.0)
