"""What real tasks have written, collected."""

import geopandas
import pytest

from rtsx.campaign import Campaign
from rtsx.campaign.cell_task import cell_job
from rtsx.campaign.recipe import OutlineSpec
from rtsx.footprints import extract_footprints
from tests.campaign.small_campaign import make_recipe, write_country


@pytest.mark.slow
@pytest.mark.parametrize("edge_distance", [0, 3])
def test_cells_of_a_campaign_are_collected(tmp_path, edge_distance):
    spec = OutlineSpec(min_area_m2=300.0, edge_distance=edge_distance, nodata_fraction=True)
    recipe = make_recipe(write_country(tmp_path), str(tmp_path / "out"), outlines=spec, cogs=True)
    campaign = Campaign.create(recipe)
    job = cell_job(recipe, campaign.plan)
    for cell in campaign.plan.cells:
        outcome = job(cell, 1, "run")
        assert outcome.state == "done", outcome.failure
    collected = campaign.collect()
    found = geopandas.read_parquet(tmp_path / "out" / collected.footprints)
    expected = extract_footprints(campaign.map(), min_area_m2=300.0, edge_distance=edge_distance, nodata_fraction=True)
    assert len(expected) > 5
    columns = ["footprint_id", "n_pixels", "area_m2", "prob_median", "touches_edge", "date", "bundle_digest"]
    columns += ["area_m2_t45", "area_m2_t65", "area_m2_t80", "nodata_fraction"]
    mine, theirs = (one.sort_values("footprint_id")[columns].to_dict("records") for one in (found, expected))
    assert mine == theirs
    assert collected.n_items == len(campaign.plan.cells)
