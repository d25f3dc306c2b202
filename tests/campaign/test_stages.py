"""Stages of a year are counted in cells, from listings and small records, and agree with each other."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rtsx.campaign import Campaign
from rtsx.campaign.drift import Acceptance, write_check
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, write_prices
from rtsx.campaign.map import create_map
from rtsx.campaign.plan import CampaignPlan, write_plan
from rtsx.campaign.recipe import Prices
from rtsx.campaign.stages import YearStages, note_damage, note_stage, stage_table, year_stages
from rtsx.campaign.status import campaign_status
from rtsx.errors import CampaignError
from rtsx.storage.object_store import LocalObjects, MemoryObjects, ObjectStore
from tests.campaign.records import a_check, a_failure, a_mark, a_plan

PLAN = a_plan(rows=2, columns=4)


def finished(objects: ObjectStore, plan: CampaignPlan, cells: int) -> CampaignLedger:
    ledger = CampaignLedger(objects, YearLayout(plan.year))
    for cell in [*plan.cells][:cells]:
        ledger.commit(a_mark(cell))
    return ledger


def test_nothing_has_begun() -> None:
    found = year_stages(MemoryObjects(), PLAN)
    assert (found.planned, found.done, found.failed, found.left) == (8, 0, 0, 8)
    assert (found.fetched, found.checked, found.verified, found.collected, found.delivered) == (None,) * 5
    assert stage_table([found])[1] == ("2024", "8", "-", "-", "0", "0", "-", "-", "-", "-")


def test_a_cell_that_is_made_anew_has_left_the_later_stages(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path)
    ledger = finished(objects, PLAN, 5)
    ledger.quarantine(a_failure((1, 3)))
    ledger.commit(a_mark((7, 7)))  # of no plan
    marked = {cell: when for cell, when in ledger.moments().items() if cell in PLAN.cells}
    note_stage(objects, PLAN, "verified", marked=marked, without=[(0, 3)])
    note_stage(objects, PLAN, "collected", marked=marked)
    found = year_stages(objects, PLAN)
    assert (found.done, found.failed, found.left, found.verified, found.collected) == (5, 1, 2, 4, 5)
    later = {**marked, (0, 0): max(marked.values()).replace(year=2999), (1, 1): max(marked.values()).replace(year=2999)}
    again = year_stages(objects, PLAN, marked=later, failed=[(1, 3)])
    assert (again.done, again.verified, again.collected) == (6, 3, 4)
    gone = {cell: when for cell, when in marked.items() if cell != (0, 1)}
    assert year_stages(objects, PLAN, marked=gone, failed=()).collected == 4
    note_damage(objects, PLAN, [(0, 2)])
    assert year_stages(objects, PLAN).verified == 3
    assert campaign_status(objects, PLAN, prices=Prices()).stages == year_stages(objects, PLAN)
    other = replace(PLAN, cogs=True)
    assert year_stages(objects, other).collected is None


def test_fetched_cells_are_counted_where_they_were_fetched_to(tmp_path: Path) -> None:
    objects, store = MemoryObjects(), LocalObjects(tmp_path)
    note_stage(objects, PLAN, "fetched", marked={}, where=str(tmp_path))
    assert year_stages(objects, PLAN).fetched == 0
    layout = YearLayout.of_fetched(PLAN.year, PLAN.digest)
    for cell in [*PLAN.cells][:3]:
        store.put(layout.mark(cell), b"{}")
    assert year_stages(objects, PLAN).fetched == 3


def test_a_drift_check_says_what_it_found() -> None:
    objects = MemoryObjects()
    check = a_check(PLAN, factor=1)
    write_check(objects, PLAN, check)
    assert stage_table([year_stages(objects, PLAN)])[1][3] == "2 alike"
    tripped = a_check(PLAN, factor=10)
    write_check(objects, PLAN, tripped)
    assert year_stages(objects, PLAN).drift == "tripped"
    write_check(objects, PLAN, replace(tripped, acceptances=(Acceptance(name="Ada", reason="new", when=check.when),)))
    assert year_stages(objects, PLAN).drift == "accepted"


def test_a_damaged_record_is_told() -> None:
    objects = MemoryObjects()
    objects.put(YearLayout(2024).stage("verified"), b"{")
    with pytest.raises(CampaignError, match=r"years/2024/stages/verified.json"):
        year_stages(objects, PLAN)
    (told,) = campaign_status(objects, PLAN, prices=Prices()).damaged
    assert "years/2024/stages/verified.json" in told


def test_an_output_that_cannot_be_written_keeps_no_record(without_rights: Path) -> None:
    objects = LocalObjects(str(without_rights))
    note_stage(objects, PLAN, "collected", marked={})
    assert year_stages(objects, PLAN).collected is None


def test_all_years_stand_in_one_table(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path)
    for year, cells in ((2023, 8), (2024, 3)):
        plan = replace(PLAN, year=year)
        write_plan(objects, plan)
        create_map(str(tmp_path), plan, bundle_id="demo", storage_options={})
        write_prices(objects, Prices(), year=year)
        finished(objects, plan, cells)
    campaign = Campaign.open(tmp_path)
    campaign.verify()
    found = campaign.stages()
    assert [(one.year, one.done, one.verified) for one in found] == [(2023, 8, None), (2024, 3, 3)]
    assert campaign.stages([2023]) == found[:1]
    assert stage_table(found, reviewed={2023: "12 of 340"})[1][8] == "12 of 340"
    assert isinstance(found[0], YearStages)


def test_looking_loads_no_library_that_maps() -> None:
    heavy = ("torch", "dask", "xarray", "zarr", "geopandas", "pandas", "rasterio", "distributed", "odc", "scipy")
    code = f"import rtsx.campaign.campaign, rtsx.campaign.stages, rtsx.campaign.status, sys; print([n for n in {heavy!r} if n in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"
    )
