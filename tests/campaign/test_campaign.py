"""A campaign as users have it: created, run, stopped, run again, and the same bytes as one prediction of the whole."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from distributed import Client
from rasterio.features import rasterize
from shapely import box

import rtsx
from rtsx.campaign.campaign import Campaign
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import planned_years
from rtsx.campaign.products.coarse import colour_table
from rtsx.campaign.products.tables import cell_states
from rtsx.campaign.recipe import CampaignRecipe, Prices
from rtsx.campaign.records import RunSummary
from rtsx.campaign.report_pictures import make_quicklooks
from rtsx.errors import CampaignError, OutputNotWritableError
from tests.campaign.conftest import S3
from tests.campaign.small_campaign import (
    CELLS,
    damage,
    make_bundle,
    make_recipe,
    objects_below,
    region_of,
    thread_client,
    write_country,
)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with thread_client() as client:
        yield client


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_country(tmp_path_factory.mktemp("country"))


@pytest.fixture(scope="module")
def done(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory, client: Client) -> Campaign:
    """A campaign that ran through; tests only look at it."""
    campaign = Campaign.create(make_recipe(files, str(tmp_path_factory.mktemp("done"))), config="name: small\n")
    told: list[RunSummary] = []
    summary = campaign.run(client, progress=told.append)
    assert summary.complete
    assert told[-1].done == summary.done == len(CELLS)
    assert all(one.cells == len(CELLS) for one in told)
    return campaign


@pytest.fixture
def recipe(files: tuple[Path, Path], tmp_path: Path) -> CampaignRecipe:
    return make_recipe(files, str(tmp_path / "output"))


@pytest.mark.slow
def test_its_bytes_are_those_of_one_prediction_of_the_whole(done: Campaign) -> None:
    tiling = done.plan.prediction.tiling
    assert done.recipe is not None
    wanted = rtsx.predict_cube(
        done.cube(),
        done.recipe.bundles,
        tile=tiling.tile,
        overlap=tiling.overlap,
        blend=tiling.blend,
        device="cpu",
        backend="eager",
    ).compute(scheduler="synchronous")
    stored = done.map().isel(time=0).compute(scheduler="synchronous")
    assert 0.1 < wanted.valid.mean() < 0.9
    assert len(np.unique(wanted.probability)) > 20
    for name in ("probability", "binary", "valid"):
        np.testing.assert_array_equal(stored[name].values, wanted[name].values, err_msg=name)
    assert (stored.y.values == wanted.y.values).all()
    assert (stored.x.values == wanted.x.values).all()


def test_a_run_tells_what_it_did_and_leaves_a_record(done: Campaign) -> None:
    status = done.status()
    assert (status.done, status.left, status.running, dict(status.failed)) == (len(CELLS), 0, (), {})
    assert status.is_complete
    assert status.started <= status.finished
    marks = {mark.cell: mark for mark in done.ledger.marks()}
    assert set(marks) == set(CELLS)
    assert {mark.plan_digest for mark in marks.values()} == {done.plan.digest}
    assert done.verify().is_sound


def test_its_products_and_its_report_are_made_from_the_output_alone(done: Campaign, tmp_path: Path) -> None:
    opened = Campaign.open(done.output)
    opened.collect(tracks=False, overviews=False, stac=False)
    footprints = sorted((Path(done.output) / YearLayout(2024).products).rglob("*.parquet"))
    assert footprints
    assert sum(len(geopandas.read_parquet(file)) for file in footprints) > 0
    inside = opened.report().path
    assert inside == f"{done.output}/years/2024/report.html"
    outside = opened.report(tmp_path / "report.html")
    assert "All 6 cells are done." in Path(inside).read_text()
    assert "All 6 cells are done." in Path(outside).read_text()


def test_the_report_shows_what_was_found_by_the_pixels_of_its_own_map(done: Campaign, tmp_path: Path) -> None:
    marks = [*done.ledger.marks()]
    states, damaged = cell_states(marks, YearLayout(2024)), list[str]()
    looks = make_quicklooks(done, states=states, damaged=damaged)
    assert damaged == []
    outlines = done.outlines()
    assert len(looks) == 6
    assert f"{outlines['area_m2'].max():,.0f} m²" in looks[0].title
    probability = done.map()["probability"].isel(time=0).values
    table = np.array(list(colour_table().values()))
    for look in looks:
        with rasterio.MemoryFile(look.picture) as memory, memory.open() as file:
            shown = np.moveaxis(file.read(), 0, -1)
        windows = np.lib.stride_tricks.sliding_window_view(probability, (look.side, look.side))
        (found,) = [window for row in windows for window in row if (table[window] == shown).all()]
        # Its outline is drawn over the pixels that it was made of.
        inside = rasterize([look.outline], out_shape=found.shape) == 1
        assert inside.any()
        assert (found[inside] >= 50).all()
        assert "data:image/png;base64," in look.html

    page = Path(done.report(tmp_path / "page.html").path).read_text()
    assert page.count('class="look"') == 6
    shard = next(name for mark in marks for name in mark.objects if "/probability/" in name)
    shutil.copytree(done.output, tmp_path / "copy")
    for path in (tmp_path / "copy" / shard).parent.parent.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-3])
    told = Path(Campaign.open(tmp_path / "copy").report(tmp_path / "damaged.html").path).read_text()
    assert "has no picture, because the map cannot be read there" in told
    assert 'class="look"' not in told


def test_a_campaign_is_seen_with_its_cells_and_outlines(done: Campaign) -> None:
    cells = done.cells()
    assert dict(cells["state"].value_counts()) == {"mapped": len(CELLS)} or set(cells["state"]) <= {"mapped", "empty"}
    assert cells.total_bounds == pytest.approx(done.plan.geobox.boundingbox)
    assert len(done.outlines()) > 0
    shown = rtsx.view(campaign=done.output)
    assert [one.title for one in shown.outlines] == ["cells", "footprints"]
    assert len(shown.outlines[1].table) == len(done.outlines())
    (_, picture), *_ = shown.draw(shown.start, size=(100, 100))
    assert picture.rgba[..., 3].any()
    for one in (done, done.plan, done.plan.prediction, done.status()):
        assert "<table>" in one._repr_html_()


def test_a_finished_campaign_runs_nothing_again(done: Campaign, client: Client) -> None:
    before = objects_below(Path(done.output)), {mark.cell: mark for mark in done.ledger.marks()}
    again = done.run(client)
    assert (again.cells, again.done, again.complete) == (0, 0, True)
    assert (objects_below(Path(done.output)), {mark.cell: mark for mark in done.ledger.marks()}) == before


def test_an_output_is_looked_at_without_sources_and_bundles(done: Campaign, client: Client) -> None:
    opened = Campaign.open(done.output)
    assert opened.plan == done.plan
    assert opened.plan.digest == done.plan.digest
    assert str(opened.status()) == str(done.status())
    assert opened.verify().is_sound
    assert opened.map().sizes == done.map().sizes
    for action in (lambda: opened.run(client), lambda: opened.update(client), opened.estimate, opened.cube):
        with pytest.raises(CampaignError, match="opened from its output alone"):
            action()


@pytest.mark.slow
def test_stopped_and_run_again_it_is_as_if_never_stopped(
    recipe: CampaignRecipe, client: Client, done: Campaign
) -> None:
    campaign = Campaign.create(recipe)

    def stop(summary: RunSummary) -> None:
        if campaign.ledger.done():
            raise KeyboardInterrupt

    with thread_client(threads=1) as slow, pytest.raises(KeyboardInterrupt):
        campaign.run(slow, progress=stop)
    first = {mark.cell: mark for mark in campaign.ledger.marks()}
    assert first
    assert Campaign.create(recipe).run(client).complete  # another process would begin like this
    last = {mark.cell: mark for mark in campaign.ledger.marks()}
    assert {cell: last[cell] for cell in first} == first  # none ran twice
    assert _products(campaign) == _products(done)


@pytest.mark.slow
def test_failures_are_set_aside_told_and_tried_again(recipe: CampaignRecipe, client: Client, tmp_path: Path) -> None:
    west, east = write_country(tmp_path)
    campaign = Campaign.create(make_recipe((west, east), recipe.output))
    content = east.read_bytes()
    damage(east)
    first = campaign.run(client)
    assert not first.complete
    assert first.done > 0
    status = campaign.status()
    assert status.failed
    assert {failure.cell for failure in first.set_aside} == set(status.failed)
    assert all("east.tif" in failure.message for failure in status.failed.values())
    second = campaign.run(client)  # nothing is tried again unless asked for
    assert (second.done, set(second.set_aside), second.complete) == (0, set(first.set_aside), False)
    east.write_bytes(content)
    assert campaign.retry() == len(status.failed)
    assert campaign.run(client).complete
    assert campaign.status().is_complete


@pytest.mark.slow
def test_cells_that_are_named_are_made_anew(recipe: CampaignRecipe, client: Client) -> None:
    campaign = Campaign.create(recipe)
    campaign.run(client)
    wanted = _products(campaign)
    damaged = Path(campaign.output) / "map.zarr/probability/c/0/0/0"
    damaged.write_bytes(b"other")
    found = campaign.verify()
    assert found.cells == (CELLS[0],)
    assert campaign.retry(found.cells) == 1
    assert campaign.status().left == 1
    again = campaign.run(client)
    assert (again.done, again.before, again.complete) == (1, 5, True)
    assert "with the 5 that were done before: 6 of 6" in str(again)
    assert campaign.verify().is_sound
    assert _products(campaign) == wanted
    with pytest.raises(CampaignError, match=r"r\d+c-?\d+: none of this campaign's"):
        campaign.retry([(0, 0)])


def test_it_is_created_once(recipe: CampaignRecipe, tmp_path: Path) -> None:
    first = Campaign.create(replace(recipe, prices=Prices(device_hour=2.0)), config="a: 1\n")
    assert (tmp_path / "output" / YearLayout(2024).config).read_text() == "a: 1\n"
    again = Campaign.create(recipe)
    assert again.plan == first.plan
    assert Campaign.open(recipe.output).prices == recipe.prices  # the latest
    for changes, said in (
        ({"bundles": (make_bundle(seed=9),)}, "the bundles changed"),
        ({"region": region_of(CELLS[:4])}, "2 cells are missing, such as r311c-209"),
        ({"outlines": None}, "outlines"),
    ):
        with pytest.raises(CampaignError, match=said):
            Campaign.create(replace(recipe, **changes))


@pytest.mark.slow
def test_another_year_shares_the_map(recipe: CampaignRecipe, client: Client) -> None:
    Campaign.create(recipe).run(client)
    later = Campaign.create(replace(recipe, year=2025))
    assert later.status().left == len(CELLS)
    assert planned_years(later.objects) == [2024, 2025]
    assert Campaign.open(recipe.output).plan.year == 2025
    assert Campaign.open(recipe.output, year=2024).status().is_complete
    assert list(later.map().time.dt.year.values) == [2024, 2025]
    assert not later.map().valid.isel(time=1).any().compute(scheduler="synchronous")
    with pytest.raises(CampaignError, match="no plan of 2030; planned years: 2024, 2025"):
        Campaign.open(recipe.output, year=2030)


def test_what_cannot_work_is_refused_before_anything_is_written(recipe: CampaignRecipe, tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="holds no campaign"):
        Campaign.open(tmp_path)
    with pytest.raises(CampaignError):
        Campaign.create(replace(recipe, region=box(10, 80, 10.01, 80.01)))  # outside every file
    assert not (tmp_path / "output" / YearLayout(2024).plan).exists()
    assert not (tmp_path / "output" / "map.zarr").exists()
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises((CampaignError, OutputNotWritableError)):
        Campaign.create(replace(recipe, output=str(in_the_way)))


@pytest.mark.slow
def test_cells_of_a_plan_that_is_gone_are_not_taken_for_ones_of_another(recipe: CampaignRecipe, client: Client) -> None:
    campaign = Campaign.create(recipe)
    campaign.run(client)
    (Path(recipe.output) / YearLayout(2024).plan).unlink()
    with pytest.raises(CampaignError, match="holds no plan of 2024 any more"):
        campaign.run(client)
    with pytest.raises(CampaignError, match="made by a plan that is not there any more"):
        Campaign.create(replace(recipe, bundles=(make_bundle(seed=9),)))
    assert Campaign.create(recipe).status().is_complete  # the same plan again is welcome


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_more_room_lets_it_go_on(
    recipe: CampaignRecipe, client: Client, done: Campaign, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(256 * 1024)
    campaign = Campaign.create(replace(recipe, output=str(disk / "output")))
    stopped = campaign.run(client)
    assert stopped.stopped is not None
    assert "full" in stopped.stopped or "No space" in stopped.stopped
    assert not stopped.complete
    assert not campaign.status().failed  # no cell is to blame
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
    assert campaign.run(client).complete
    assert campaign.verify().is_sound
    assert _products(campaign) == _products(done)


def test_a_disk_without_any_room_is_refused(recipe: CampaignRecipe, small_disk: Callable[[int], Path]) -> None:
    with pytest.raises(OutputNotWritableError, match=r"full|No space|GB left"):
        Campaign.create(replace(recipe, output=str(small_disk(8192) / "output")))


def test_a_store_that_cannot_keep_marks_is_refused(recipe: CampaignRecipe, deaf_s3: S3, s3: S3) -> None:
    with pytest.raises(CampaignError, match="conditional writes"):
        Campaign.create(replace(recipe, output=deaf_s3.url, storage_options=deaf_s3.options))
    with pytest.raises((CampaignError, OutputNotWritableError), match="bucket"):
        Campaign.create(replace(recipe, output="s3://nowhere/campaign", storage_options=s3.options))


def _products(campaign: Campaign) -> dict[str, bytes]:
    kept = ("map.zarr/probability/c", "map.zarr/binary/c", "map.zarr/valid/c", YearLayout(2024).outlines)
    return {key: content for key, content in objects_below(Path(campaign.output)).items() if key.startswith(kept)}
