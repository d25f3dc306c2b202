"""Updates: cells whose images changed, came or went are made anew, and no other is touched."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from rtsx.campaign.campaign import Campaign
from rtsx.campaign.cells import Address
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.records import CommitRecord
from rtsx.campaign.run import CellUpdate
from tests.campaign.small_campaign import (
    CELLS,
    damage,
    make_recipe,
    objects_below,
    rewrite_east,
    thread_client,
    write_country,
)

EASTERN = {cell for cell in CELLS if cell[1] != -210}
"""Cells that look at the eastern file: its own column, and the one beside it, whose tiles reach into it."""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with thread_client() as client:
        yield client


def marks(campaign: Campaign) -> dict[Address, CommitRecord]:
    return {mark.cell: mark for mark in campaign.ledger.marks()}


def shards(campaign: Campaign) -> dict[str, bytes]:
    return {
        key: content
        for key, content in objects_below(Path(campaign.output)).items()
        if "/c/0/" in key or key.startswith(YearLayout(2024).outlines)
    }


@pytest.mark.slow
def test_only_cells_whose_source_changed_are_made_anew(tmp_path: Path, client: Client) -> None:
    files = write_country(tmp_path)
    campaign = Campaign.create(make_recipe(files, str(tmp_path / "output")))
    summary = campaign.run(client)
    assert summary.complete, str(summary)
    before, bytes_before = marks(campaign), shards(campaign)
    still = campaign.update(client)
    assert (still.checked, still.changed, still.unchecked, still.complete) == (len(CELLS), 0, (), True)
    assert marks(campaign) == before

    rewrite_east(files[1])
    updated = campaign.update(client)
    assert (updated.checked, updated.changed, updated.complete) == (len(CELLS), len(EASTERN), True)
    assert updated.run is not None
    assert updated.run.done == len(EASTERN)
    after, bytes_after = marks(campaign), shards(campaign)
    assert {cell for cell in CELLS if after[cell] != before[cell]} == EASTERN
    assert {key for key in bytes_before if bytes_after.get(key) != bytes_before[key]} >= {
        key for cell in EASTERN if cell[1] == -208 for key in before[cell].objects if "probability" in key
    }
    kept = {key for cell in set(CELLS) - EASTERN for key in before[cell].objects}
    assert {key: bytes_after[key] for key in kept} == {key: bytes_before[key] for key in kept}
    assert campaign.verify().is_sound
    retired = list(campaign.objects.list(YearLayout(2024).retired))
    assert len(retired) == len(EASTERN)

    fresh = Campaign.create(make_recipe(files, str(tmp_path / "fresh")))
    summary = fresh.run(client)
    assert summary.complete, str(summary)
    assert shards(fresh) == bytes_after  # as if it had been so from the beginning


@pytest.mark.slow
def test_images_that_come_and_go_are_changes(tmp_path: Path, client: Client) -> None:
    _, east = write_country(tmp_path)
    output = str(tmp_path / "output")
    pattern = str(tmp_path / "*.tif")
    recipe = make_recipe((Path(pattern),), output)
    campaign = Campaign.create(recipe)
    summary = campaign.run(client)
    assert summary.complete, str(summary)
    moved = east.rename(tmp_path / "east.away")
    updated = campaign.update(client)
    assert updated.changed == len(EASTERN)
    states = {cell: mark.state for cell, mark in marks(campaign).items()}
    assert {cell for cell, state in states.items() if state == "empty"} == {cell for cell in CELLS if cell[1] == -208}
    moved.rename(east)
    assert campaign.update(client).changed == len(EASTERN)
    assert {mark.state for mark in campaign.ledger.marks()} == {"mapped"}


@pytest.mark.slow
def test_what_cannot_be_looked_at_keeps_its_mark_and_a_changed_cell_that_fails_is_told(
    tmp_path: Path, client: Client
) -> None:
    files = write_country(tmp_path)
    campaign = Campaign.create(make_recipe(files, str(tmp_path / "output")))
    summary = campaign.run(client)
    assert summary.complete, str(summary)
    before = marks(campaign)
    content = files[1].read_bytes()
    files[1].write_bytes(b"no raster")
    assert campaign.recipe is not None
    job = CellUpdate(recipe=campaign.recipe, plan=campaign.plan)
    outcome = job(CELLS[0], 1, "run")
    assert outcome.state == "failed"
    assert outcome.failure is not None
    assert "east.tif" in outcome.failure.message
    assert marks(campaign) == before
    assert not campaign.status().failed
    files[1].write_bytes(content)

    rewrite_east(files[1])
    damage(files[1])
    updated = campaign.update(client)
    assert updated.changed == len(EASTERN)
    assert not updated.complete
    assert set(campaign.status().failed) <= EASTERN
    assert campaign.status().failed
    valid = campaign.map().valid.isel(time=0).compute(scheduler="synchronous")
    for cell in campaign.status().failed:  # nobody reads what is not there any more
        assert not valid[campaign.plan.region(cell)].any()
