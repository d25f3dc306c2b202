"""The job of one cell: what it writes, in which order, what it leaves alone, and what becomes of its errors."""

import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas
import numpy as np
import pytest
import rasterio
import xarray as xr
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from rtsx.campaign.cell_input import CellWindow
from rtsx.campaign.cell_task import CellJob, cell_job
from rtsx.campaign.cells import Address
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, held
from rtsx.campaign.map import map_path, open_map
from rtsx.campaign.recipe import CampaignRecipe, OutlineSpec
from rtsx.campaign.records import CommitRecord
from rtsx.campaign.stages import verify_year
from rtsx.cube import GivenImages, Period
from rtsx.cube.load import search_area
from rtsx.footprints import extract_footprints, merge_footprints
from rtsx.storage.object_store import ObjectStore, open_object_store
from tests.campaign.random_campaign import LEFT, TOP, make_bundle, make_job, make_plan, make_recipe, whole, write_files
from tests.servers import free_port

if TYPE_CHECKING:
    from tests.campaign.conftest import S3

FIRST: Address = (TOP // 64, LEFT // 64)
"""The cell at the upper left."""
LAYOUT = YearLayout(2024)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write_files(tmp_path_factory.mktemp("scenes"), seed=3)


@pytest.fixture
def recipe(scenes: tuple[Path, ...], tmp_path: Path) -> CampaignRecipe:
    return make_recipe(scenes, tmp_path / "out")


def beside(iy: int, ix: int) -> Address:
    return FIRST[0] + iy, FIRST[1] + ix


def objects_in(recipe: CampaignRecipe) -> ObjectStore:
    return open_object_store(recipe.output, recipe.storage_options)


def mark_of(recipe: CampaignRecipe, cell: Address) -> CommitRecord:
    mark = CampaignLedger(objects_in(recipe), LAYOUT).mark(cell)
    assert mark is not None
    return mark


def run(job: CellJob, *cells: Address) -> None:
    for cell in cells:
        outcome = job(cell, 1, "a-run")
        assert outcome.state == "done", outcome.failure


def test_a_cell_is_told_by_its_mark(recipe: CampaignRecipe) -> None:
    plan = make_plan(recipe)
    job = make_job(recipe, plan)
    outcome = job(FIRST, 1, "a-run")
    assert (outcome.state, outcome.cell, outcome.failure) == ("done", FIRST, None)
    mark = mark_of(recipe, FIRST)
    found = open_map(recipe.output, storage_options={}).isel(time=0, y=slice(64), x=slice(64))
    assert mark.state == "mapped"
    assert mark.n_valid == int(found["valid"].sum()) > 0
    assert mark.plan_digest == plan.digest
    assert mark.bundles == (make_bundle().digest,)
    assert [stamp.image for stamp in mark.inputs] == ["scene0"]
    assert mark.versions["zarr"]
    assert mark.hardware == "CPU"
    assert mark.peak_memory_bytes > 2**20
    assert mark.seconds > 0
    assert mark.run == "a-run"
    assert mark.gaps == ()
    root = Path(recipe.output)
    assert {key.split("/c/")[0] for key in mark.objects} >= {
        "map.zarr/probability",
        "map.zarr/binary",
        "map.zarr/valid",
    }
    for key, digest in mark.objects.items():
        assert sha256((root / key).read_bytes()).hexdigest() == digest
    assert verify_year(recipe.output, LAYOUT, storage_options={}).is_sound


def test_a_cell_that_is_done_is_skipped_and_nothing_of_it_is_touched(recipe: CampaignRecipe) -> None:
    job = make_job(recipe, make_plan(recipe))
    run(job, FIRST)

    # Files, because the folder of leases had one for a moment.
    def times() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in Path(recipe.output).rglob("*") if file.is_file()}

    before = times()
    assert job(FIRST, 1, "another-run").state == "skipped"
    assert before == times()


def test_a_cell_that_another_run_holds_comes_back_with_the_time_to_wait(recipe: CampaignRecipe) -> None:
    job = make_job(recipe, make_plan(recipe))
    with held(objects_in(recipe), LAYOUT, FIRST, run="other", lease_s=60.0):
        outcome = job(FIRST, 1, "a-run")
    assert outcome.state == "leased"
    assert 0 < outcome.free_after_s <= 60
    assert CampaignLedger(objects_in(recipe), LAYOUT).mark(FIRST) is None
    run(job, FIRST)
    assert not CampaignLedger(objects_in(recipe), LAYOUT).leases()


def test_a_job_travels(recipe: CampaignRecipe) -> None:
    job = make_job(recipe, make_plan(recipe))
    run(job, FIRST)  # so that it holds what must not travel
    run(pickle.loads(pickle.dumps(job)), beside(0, 1))


def test_a_job_of_many_cells_travels_light(recipe: CampaignRecipe) -> None:
    plan = make_plan(recipe)
    assert beside(2, 2) in plan.cells  # reckons a dictionary of all of them
    assert "places" not in cell_job(recipe, plan).plan.cells.__dict__
    assert cell_job(recipe, plan).plan_digest == plan.digest


class Written(LocalStore):
    """A local store that keeps a list of what is done to pixels."""

    done: list[tuple[str, str]] = []  # noqa: RUF012 - of the class, because stores are copied

    async def set(self, key: str, value: Buffer) -> None:
        Written.done.append(("set", key))
        await super().set(key, value)

    async def delete(self, key: str) -> None:
        Written.done.append(("delete", key))
        await super().delete(key)


def test_shards_are_written_once_and_valid_after_all_else_but_the_mark(recipe: CampaignRecipe) -> None:
    job = make_job(recipe, make_plan(recipe))
    objects = job._objects
    Written.done = []
    noted = Written.done

    class Noting:
        def __getattr__(self, name: str) -> Any:
            def call(key: str, *content: bytes) -> Any:
                noted.append((name, key))
                return getattr(objects, name)(key, *content)

            return call

    job.__dict__["_map"] = Written(map_path(recipe.output))
    job.__dict__["_objects"] = Noting()
    run(job, beside(1, 1))
    shards = [key for what, key in noted if what == "set"]
    assert len(shards) == len(set(shards)) == 4 + 4 + 1
    kinds = [
        "valid" if "valid" in key else "mark" if "marks" in key else "outline" if "outlines" in key else "shard"
        for what, key in noted
        if what in ("set", "put", "create") and "leases" not in key
    ]
    assert kinds == ["shard"] * 8 + ["outline", "valid", "mark"]


@pytest.mark.slow
def test_a_reader_sees_a_cell_whole_or_not_at_all_while_it_is_run_again(recipe: CampaignRecipe) -> None:
    job = make_job(recipe, make_plan(recipe))
    run(job, FIRST)
    ledger = CampaignLedger(objects_in(recipe), LAYOUT)
    expected = open_map(recipe.output, storage_options={}).isel(time=0).compute()
    ledger.retire(FIRST)
    seen = []

    class Looking(LocalStore):
        async def set(self, key: str, value: Buffer) -> None:
            if "valid" not in key:
                seen.append(not (Path(map_path(recipe.output)) / "valid/c/0/0/0").exists())
            await super().set(key, value)

    job.__dict__["_map"] = Looking(map_path(recipe.output))
    run(job, FIRST)
    assert seen
    assert all(seen), "nobody trusts a cell that is half written"
    xr.testing.assert_identical(open_map(recipe.output, storage_options={}).isel(time=0).compute(), expected)


def test_a_run_that_was_overtaken_puts_back_what_it_removed(recipe: CampaignRecipe) -> None:
    job = make_job(recipe, make_plan(recipe))
    run(job, FIRST)
    ledger = CampaignLedger(objects_in(recipe), LAYOUT)
    mark = mark_of(recipe, FIRST)
    ledger.retire(FIRST)

    class Overtaking(LocalStore):
        async def delete(self, key: str) -> None:
            if "valid" in key:
                assert ledger.commit(mark), "the other run ends while this one begins"
            await super().delete(key)

    job.__dict__["_map"] = Overtaking(map_path(recipe.output))
    assert job(FIRST, 1, "a-run").state == "skipped"
    assert verify_year(recipe.output, LAYOUT, storage_options={}).is_sound


def test_a_run_that_was_overtaken_and_fails_puts_it_back_too(recipe: CampaignRecipe) -> None:
    plan = make_plan(recipe)
    run(make_job(recipe, plan), FIRST)
    ledger = CampaignLedger(objects_in(recipe), LAYOUT)
    mark = mark_of(recipe, FIRST)
    ledger.retire(FIRST)

    def overtaken() -> BaseException:
        assert not (Path(map_path(recipe.output)) / "valid/c/0/0/0").exists()
        assert ledger.commit(mark)
        return ValueError("bad data")

    source = replace(recipe.cube.sources[0], images=failing(overtaken))
    broken = replace(recipe, cube=replace(recipe.cube, sources=(source,)))
    assert cell_job(broken, plan)(FIRST, 1, "a-run").state == "failed"
    assert verify_year(recipe.output, LAYOUT, storage_options={}).is_sound


def test_who_marks_a_cell_looks_whether_another_has_removed_it_meanwhile(recipe: CampaignRecipe) -> None:
    job = make_job(recipe, make_plan(recipe))
    objects = job._objects

    class Removing:
        def __getattr__(self, name: str) -> Any:
            return getattr(objects, name)

        def create(self, key: str, content: bytes) -> bool:
            if "marks" in key:
                (Path(map_path(recipe.output)) / "valid/c/0/0/0").unlink()
            return objects.create(key, content)

    job.__dict__["_objects"] = Removing()
    run(job, FIRST)
    assert verify_year(recipe.output, LAYOUT, storage_options={}).is_sound


@pytest.mark.slow
def test_shards_that_are_there_are_replaced_even_if_they_are_damaged(recipe: CampaignRecipe) -> None:
    job = make_job(recipe, make_plan(recipe))
    run(job, FIRST)
    ledger = CampaignLedger(objects_in(recipe), LAYOUT)
    expected = open_map(recipe.output, storage_options={}).compute()
    for shard in Path(map_path(recipe.output)).glob("[bpv]*/c/0/0/0"):
        shard.write_bytes(b"damaged")
    ledger.retire(FIRST)
    run(job, FIRST)
    xr.testing.assert_identical(open_map(recipe.output, storage_options={}).compute(), expected)
    assert verify_year(recipe.output, LAYOUT, storage_options={}).is_sound


def test_ground_without_an_image_is_an_empty_cell(scenes: tuple[Path, ...], tmp_path: Path) -> None:
    recipe = make_recipe(scenes[2:], tmp_path / "out")  # a strip at the upper right
    job = make_job(recipe, make_plan(recipe))
    run(job, FIRST, beside(0, 2))
    empty = mark_of(recipe, FIRST)
    assert (empty.state, empty.objects, empty.inputs, empty.n_valid, empty.n_outlines) == ("empty", {}, (), 0, 0)
    assert mark_of(recipe, beside(0, 2)).state == "mapped"
    assert not list(Path(map_path(recipe.output)).glob("[bpv]*/c/0/0/[01]"))


def test_a_cell_of_nothing_but_invalid_pixels_is_empty_too(tmp_path: Path) -> None:
    path = tmp_path / "holes.tif"
    source = write_files(tmp_path, seed=1)[0]
    with rasterio.open(source) as file:
        profile, pixels = file.profile, file.read()
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.zeros_like(pixels))
        file.descriptions = ("red", "nir")
    recipe = make_recipe((path,), tmp_path / "out")
    run(make_job(recipe, make_plan(recipe)), FIRST)
    mark = mark_of(recipe, FIRST)
    assert (mark.state, mark.objects) == ("empty", {})
    assert [stamp.image for stamp in mark.inputs] == ["holes"]
    assert not list(Path(map_path(recipe.output)).glob("[bpv]*/c/*"))


def test_what_a_cell_wrote_before_is_gone_when_its_ground_has_no_image_any_more(
    scenes: tuple[Path, ...], tmp_path: Path
) -> None:
    recipe = make_recipe(scenes, tmp_path / "out", cogs=True)
    plan = make_plan(recipe)
    run(make_job(recipe, plan), FIRST)
    root = Path(recipe.output)
    assert (root / LAYOUT.outline(FIRST)).exists()
    assert (root / LAYOUT.cog(FIRST, "probability")).exists()
    CampaignLedger(objects_in(recipe), LAYOUT).retire(FIRST)
    later = make_recipe(scenes[2:], tmp_path / "out", cogs=True)
    run(cell_job(later, plan), FIRST)
    assert mark_of(recipe, FIRST).state == "empty"
    assert not (root / LAYOUT.outline(FIRST)).exists()
    assert not (root / LAYOUT.cog(FIRST, "probability")).exists()
    assert not list(Path(map_path(recipe.output)).glob("*/c/0/*/*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "halo", "cell", "cells"),
    [(1, 10, 64, [beside(y, x) for y in (0, 1) for x in (0, 1)]), (3, 3, 96, None)],
)
def test_outlines_of_cells_are_those_of_the_whole(
    scenes: tuple[Path, ...], tmp_path: Path, classes: int, halo: int, cell: int, cells: list[Address] | None
) -> None:
    rule = OutlineSpec(min_area_m2=900.0, edge_distance=halo)
    recipe = make_recipe(scenes, tmp_path / "out", cell=cell, bundles=(make_bundle(classes),), outlines=rule)
    plan = make_plan(recipe, cells=cells)
    run(make_job(recipe, plan), *plan.cells)
    tables = []
    for place in plan.cells:
        content = objects_in(recipe).get(LAYOUT.outline(place))
        mark = mark_of(recipe, place)
        assert (content is not None) == (mark.n_outlines > 0) == (LAYOUT.outline(place) in mark.objects)
        if content is not None:
            tables.append(geopandas.read_parquet(io.BytesIO(content)))
            assert len(tables[-1]) == mark.n_outlines
    found = merge_footprints(tables, min_area_m2=rule.min_area_m2)
    expected = extract_footprints(
        open_map(recipe.output, storage_options={}).compute(), min_area_m2=rule.min_area_m2, edge_distance=halo
    )
    same = ["footprint_id", "n_pixels", "touches_edge", "prob_mean", "prob_median", "class_name", "year", "area_m2"]
    assert found["bundle_id"].unique().tolist() == [make_bundle(classes).id]
    left, right = (table[same].sort_values("footprint_id").reset_index(drop=True) for table in (found, expected))
    assert len(right) > 5
    assert left.equals(right)


def test_outlines_that_flag_no_edge_can_be_merged_all_the_same(scenes: tuple[Path, ...], tmp_path: Path) -> None:
    recipe = make_recipe(scenes, tmp_path / "out", outlines=OutlineSpec(edge_distance=0))
    run(make_job(recipe, make_plan(recipe)), beside(1, 1))
    found = geopandas.read_parquet(io.BytesIO(objects_in(recipe).get(LAYOUT.outline(beside(1, 1))) or b""))
    cell = open_map(recipe.output, storage_options={}).isel(y=slice(64, 128), x=slice(64, 128)).compute()
    expected = extract_footprints(cell, edge_distance=0)
    assert len(expected) > 1
    assert found["cut"].any()
    assert not found["touches_edge"].any()
    assert merge_footprints([found], min_area_m2=288.0)["footprint_id"].tolist() == expected["footprint_id"].tolist()


def test_outlines_beside_ground_that_is_not_in_the_plan_are_cut(scenes: tuple[Path, ...], tmp_path: Path) -> None:
    rule = OutlineSpec(min_area_m2=0.0, edge_distance=4)
    recipe = make_recipe(scenes, tmp_path / "out", outlines=rule)
    plan = make_plan(recipe, cells=[beside(1, 1), beside(1, 0)])
    run(make_job(recipe, plan), *plan.cells)
    tables = [
        geopandas.read_parquet(io.BytesIO(objects_in(recipe).get(LAYOUT.outline(cell)) or b"")) for cell in plan.cells
    ]
    found = merge_footprints(tables, min_area_m2=0.0)
    mapped = open_map(recipe.output, storage_options={}).compute()
    expected = extract_footprints(mapped, min_area_m2=0.0, edge_distance=4)
    same = ["footprint_id", "n_pixels", "touches_edge"]
    left, right = (table[same].sort_values("footprint_id").reset_index(drop=True) for table in (found, expected))
    assert left.equals(right)
    assert 0 < left["touches_edge"].sum() < len(left)


def test_the_halo_is_read_where_tiles_do_not_see_it(scenes: tuple[Path, ...], tmp_path: Path) -> None:
    recipe = make_recipe(scenes, tmp_path / "out", outlines=OutlineSpec(edge_distance=20))
    ground = CellWindow.of(make_plan(recipe), beside(1, 1))
    count = np.zeros((192, 192), int)
    count[ground.read] += 1
    for part in ground.unread:
        count[part] += 1
    wanted = np.zeros((192, 192), bool)
    wanted[ground.haloed] = True
    assert (count[wanted] == 1).all()
    assert ground.unread, "tiles see 8 px around the cell, outlines 20"
    assert ground.geobox.shape == (64 + 40, 64 + 40)
    assert len(ground.neighbours) == 8


@pytest.mark.slow
def test_geotiffs_of_a_cell(scenes: tuple[Path, ...], tmp_path: Path) -> None:
    recipe = make_recipe(scenes, tmp_path / "out", cogs=True)
    plan = make_plan(recipe)
    run(make_job(recipe, plan), beside(0, 1))
    expected = whole(recipe, plan).isel(y=slice(0, 64), x=slice(64, 128))
    for name in ("probability", "binary"):
        key = LAYOUT.cog(beside(0, 1), name)
        assert key in mark_of(recipe, beside(0, 1)).objects
        with rasterio.open(Path(recipe.output) / key) as file:
            np.testing.assert_array_equal(file.read(1), expected[name].values)
            assert file.bounds == plan.grid[beside(0, 1)].bounds
            assert file.tags()["bundle_id"] == make_bundle().id


@pytest.mark.slow
def test_bytes_do_not_depend_on_who_ran_first_and_how_often(scenes: tuple[Path, ...], tmp_path: Path) -> None:
    found = []
    for name, order in (("one", 1), ("other", -1)):
        recipe = make_recipe(scenes, tmp_path / name)
        plan = make_plan(recipe)
        job = make_job(recipe, plan)
        for number, cell in enumerate(list(plan.cells)[:2][::order]):
            run(job, cell)
            if number == 0:
                CampaignLedger(objects_in(recipe), LAYOUT).retire(cell)
                run(job, cell)
        root = Path(recipe.output)
        kept = [file for file in root.rglob("*") if file.is_file() and not {"marks", "retired"} & set(file.parts)]
        found.append({str(file.relative_to(root)): file.read_bytes() for file in kept})
    assert found[0] == found[1]


def failing(error: Callable[[], BaseException]) -> Any:
    class Failing(GivenImages):
        def find(self, area: Any, period: Period | None, wanted: Any) -> Any:
            raise error()

    return Failing(())


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (lambda: ConnectionResetError("gone"), "passing"),
        (lambda: ValueError("bad data"), "lasting"),
        (lambda: OSError(28, "No space left on device"), "halting"),
    ],
)
def test_errors_are_outcomes(recipe: CampaignRecipe, error: Callable[[], BaseException], kind: str) -> None:
    plan = make_plan(recipe)
    make_job(recipe, plan)
    source = replace(recipe.cube.sources[0], images=failing(error))
    broken = replace(recipe, cube=replace(recipe.cube, sources=(source,)))
    outcome = cell_job(broken, plan)(FIRST, 3, "a-run")
    assert outcome.state == "failed"
    assert outcome.failure is not None
    assert (outcome.failure.kind, outcome.failure.cell, outcome.failure.attempts) == (kind, FIRST, 3)
    assert outcome.failure.message == str(error())
    assert "in find" in outcome.failure.traceback
    ledger = CampaignLedger(objects_in(recipe), LAYOUT)
    assert ledger.mark(FIRST) is None
    assert not ledger.leases(), "others may try"


def test_what_ends_the_process_is_no_outcome(recipe: CampaignRecipe) -> None:
    plan = make_plan(recipe)
    make_job(recipe, plan)
    source = replace(recipe.cube.sources[0], images=failing(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cell_job(replace(recipe, cube=replace(recipe.cube, sources=(source,))), plan)(FIRST, 1, "a-run")


def test_a_bundle_that_is_not_the_plans_halts(recipe: CampaignRecipe) -> None:
    plan = make_plan(recipe)
    make_job(recipe, plan)
    outcome = cell_job(replace(recipe, bundles=(make_bundle(3),)), plan)(FIRST, 1, "a-run")
    assert outcome.failure is not None
    assert (outcome.failure.kind, outcome.failure.error) == ("halting", "PlanError")


@pytest.mark.filterwarnings("ignore::rtsx.errors.MissingCoverageWarning")
def test_images_that_were_left_out_are_in_the_mark(tmp_path: Path) -> None:
    files = write_files(tmp_path, seed=3)
    with rasterio.open(files[0]) as file:
        first = int(file.get_tag_item("BLOCK_OFFSET_0_8", "TIFF", bidx=1))
    content = bytearray(files[0].read_bytes())
    content[first : first + 200] = b"\xff" * 200
    files[0].write_bytes(content)
    recipe = make_recipe(files, tmp_path / "out")
    plan = make_plan(recipe)
    source = replace(recipe.cube.sources[0], unreadable="gap")
    recipe = replace(recipe, cube=replace(recipe.cube, sources=(source,)))
    run(make_job(recipe, plan), beside(1, 1))
    assert mark_of(recipe, beside(1, 1)).gaps == ("scenes/scene0",)


def test_an_image_that_is_away_for_a_moment_is_no_gap(scenes: tuple[Path, ...], tmp_path: Path) -> None:
    recipe = make_recipe(scenes, tmp_path / "out")
    plan = make_plan(recipe)
    source = recipe.cube.sources[0]
    geobox = plan.grid[beside(1, 1)].geobox
    images = source.images.find(search_area(geobox, margin_m=source.reach_m), None, source.wanted)
    away = {
        name: replace(bands, href=f"http://127.0.0.1:{free_port()}/a.tif") for name, bands in images[0].bands.items()
    }
    source = replace(source, images=GivenImages((replace(images[0], bands=away), *images[1:])), unreadable="gap")
    recipe = replace(recipe, cube=replace(recipe.cube, sources=(source,)))
    with rasterio.Env(GDAL_HTTP_MAX_RETRY="0"):
        outcome = make_job(recipe, plan)(beside(1, 1), 1, "a-run")
    assert outcome.failure is not None
    assert outcome.failure.kind == "passing"
    assert CampaignLedger(objects_in(recipe), LAYOUT).done() == set()


@pytest.mark.slow
def test_in_an_object_store(scenes: tuple[Path, ...], s3: "S3") -> None:
    recipe = make_recipe(scenes, s3.url, storage_options=s3.options, cogs=True)
    plan = make_plan(recipe)
    run(make_job(recipe, plan), beside(1, 1))
    verified = verify_year(s3.url, LAYOUT, storage_options=s3.options)
    assert verified.is_sound
    assert verified.n_cells == 1
    found = open_map(s3.url, storage_options=s3.options).isel(time=0, y=slice(64, 128), x=slice(64, 128))
    expected = whole(recipe, plan).isel(y=slice(64, 128), x=slice(64, 128))
    for name in ("probability", "binary", "valid"):
        np.testing.assert_array_equal(found[name].values, expected[name].values)
