"""Stores that can and cannot be trusted with a campaign."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from shapely import box
from shapely.geometry import mapping

from rtsx.campaign.campaign import Campaign
from rtsx.campaign.cell_input import likely_cells
from rtsx.campaign.planning import plan_campaign
from rtsx.campaign.preflight import check_object_store, opened_sample, require_space, sampled
from rtsx.cube import BandRequest, CubeRecipe, FileImages, GivenImages, LayerRecipe, SourceRecipe
from rtsx.cube.stac import StacItems
from rtsx.cube.terrain import get_terrain
from rtsx.errors import BundleError, CampaignError, CubeError, OutputNotWritableError
from rtsx.inference.clouds import CloudMasked
from rtsx.storage.object_store import MemoryObjects, ObjectStore, RetryingObjects, StoredObject, open_object_store
from tests.campaign.conftest import S3, Keys
from tests.campaign.plans import FIRST, GRID, beside, ground, make_bundle, make_plan, make_recipe, make_source
from tests.faults import FaultyProxy
from tests.servers import free_port


def _hasty(objects: ObjectStore) -> ObjectStore:
    """The same store with short pauses."""
    assert isinstance(objects, RetryingObjects)
    return replace(objects, pauses_s=(0.001,))


def test_good_stores_pass_and_keep_nothing(s3: S3, tmp_path: Path) -> None:
    for objects in (
        open_object_store(str(tmp_path / "new" / "folder"), {}),
        open_object_store(s3.url, s3.options),
        MemoryObjects(),
    ):
        check_object_store(objects, lease_s=60)
        assert list(objects.list("probes")) == []


def test_what_a_killed_probe_left_is_removed_and_a_living_one_is_not(tmp_path: Path) -> None:
    objects = open_object_store(str(tmp_path), {})
    for name in ("killed", "living"):
        objects.put(f"probes/{name}-write", b"")
    os.utime(tmp_path / "probes" / "killed-write", (0, 0))
    check_object_store(objects, lease_s=60)
    assert [found.key for found in objects.list("probes")] == ["probes/living-write"]


def test_a_store_that_falters_passes(s3: S3) -> None:
    with FaultyProxy(s3.endpoint, rate=0.1, faults=("503", "cut", "cut after"), seed=1) as proxy:
        check_object_store(RetryingObjects(open_object_store(s3.url, s3.through(proxy.url)), (0.001,) * 8), lease_s=60)
        assert proxy.failed > 0


def test_a_store_that_ignores_conditions_is_refused(deaf_s3: S3) -> None:
    with pytest.raises(CampaignError, match=r"does not keep conditional writes: 16 of 16 writers .*If-None-Match"):
        check_object_store(open_object_store(deaf_s3.url, deaf_s3.options), lease_s=60)


def test_a_store_that_looks_first_and_writes_then_is_refused() -> None:
    class Racing(MemoryObjects):
        def create(self, key: str, content: bytes) -> bool:
            won = content != b"late"  # right for one writer at a time, and wrong for several
            self.put(key, content)
            return won

    with pytest.raises(CampaignError, match="conditional writes"):
        check_object_store(Racing(), lease_s=60)


def test_a_bucket_that_is_not_there_is_told(s3: S3) -> None:
    with pytest.raises(
        OutputNotWritableError, match=r"s3://nowhere-at-all/maps cannot be written.*There is no such bucket.*create it"
    ):
        check_object_store(open_object_store("s3://nowhere-at-all/maps", s3.options), lease_s=60)


def test_a_service_that_is_not_there_is_told(s3: S3) -> None:
    objects = open_object_store(s3.url, s3.through(f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(CampaignError, match=r"cannot be reached \(EndpointConnectionError.*Check the address"):
        check_object_store(_hasty(objects), lease_s=60)


def test_credentials_that_nobody_knows_are_told(s3: S3, guarded: Keys) -> None:
    with pytest.raises(OutputNotWritableError, match=r"does not know these credentials.*AWS_ACCESS_KEY_ID"):
        check_object_store(open_object_store(s3.url, s3.options), lease_s=60)


def test_a_wrong_secret_is_told(s3: S3, guarded: Keys) -> None:
    options = s3.options | {"key": guarded.writer["AWS_ACCESS_KEY_ID"], "secret": "wrong"}
    with pytest.raises(OutputNotWritableError, match="does not know these credentials"):
        check_object_store(open_object_store(s3.url, options), lease_s=60)


def test_credentials_that_may_only_read_are_told(s3: S3, guarded: Keys) -> None:
    keys = guarded.reader
    options = s3.options | {"key": keys["AWS_ACCESS_KEY_ID"], "secret": keys["AWS_SECRET_ACCESS_KEY"]}
    with pytest.raises(OutputNotWritableError, match=r"cannot be written \(PermissionError.*rights"):
        check_object_store(open_object_store(s3.url, options), lease_s=60)


def test_missing_credentials_are_told(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    options = {"endpoint_url": s3.endpoint, "client_kwargs": {"region_name": "eu-central-1"}}
    with pytest.raises(OutputNotWritableError, match=r"needs credentials, and there are none.*AWS_ACCESS_KEY_ID"):
        check_object_store(open_object_store(s3.url, options), lease_s=60)


def test_a_folder_without_rights_is_told(without_rights: Path) -> None:
    with pytest.raises(OutputNotWritableError, match=r"closed cannot be written \(PermissionError.*rights"):
        check_object_store(open_object_store(str(without_rights), {}), lease_s=60)


def test_a_file_instead_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "map").write_bytes(b"")
    with pytest.raises(OutputNotWritableError, match="cannot be written"):
        check_object_store(open_object_store(str(tmp_path / "map"), {}), lease_s=60)


def test_a_full_disk_is_told(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(16 * 4096)
    with (folder / "everything").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 16 * 4096)
    with pytest.raises(OutputNotWritableError, match=r"is full .*Free space"):
        check_object_store(open_object_store(str(folder), {}), lease_s=60)


@pytest.mark.parametrize("minutes", [-3, 3])
def test_a_clock_that_is_off_is_refused(minutes: int, s3: S3, tmp_path: Path) -> None:
    def clock() -> datetime:
        return datetime.now(UTC) + timedelta(minutes=minutes)

    for objects in (open_object_store(str(tmp_path), {}), open_object_store(s3.url, s3.options)):
        word = "ahead of" if minutes > 0 else "behind"
        with pytest.raises(CampaignError, match=rf"1[78]\d s {word} that of .*leases of 120 s bear 30 s.*chrony"):
            check_object_store(objects, lease_s=120, clock=clock)
        check_object_store(objects, lease_s=1200, clock=clock)


class _Forgetful(MemoryObjects):
    def list(self, prefix: str) -> Iterator[StoredObject]:
        return iter(())


class _Stale(MemoryObjects):
    def get(self, key: str) -> bytes | None:
        return b"old" if super().get(key) is not None else None


class _Undying(MemoryObjects):
    def delete(self, key: str) -> None:
        """Say nothing, do nothing."""


@pytest.mark.parametrize(
    ("store", "words"),
    [(_Forgetful, "does not list"), (_Stale, "other bytes"), (_Undying, "still gives an object that was removed")],
)
def test_a_store_that_is_behind_itself_is_refused(store: type[MemoryObjects], words: str) -> None:
    with pytest.raises(CampaignError, match=words):
        check_object_store(store(), lease_s=60)


def test_cells_are_looked_at_far_and_wide() -> None:
    cells = make_plan().cells
    assert sorted(sampled(cells)) == sorted(cells)
    assert len(list(sampled(cells, most=2))) == 2
    assert next(iter(sampled(cells))) == (310, -209)


def test_one_cell_with_images_is_enough(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, cells=[FIRST, *(beside(y, 30) for y in range(5))])
    plan = plan_campaign(recipe)
    cube = opened_sample(recipe.cube, plan.cells)
    assert (cube.sizes["y"], cube.sizes["x"]) == (64, 64)
    with pytest.raises(CampaignError, match=r"None of 2 of the campaign's 6 cells, spread over all of them"):
        opened_sample(recipe.cube, plan.cells, most=2)


def test_a_region_with_images_in_one_cell_of_many_is_planned_and_run_from_what_was_fetched(tmp_path: Path) -> None:
    cells = [FIRST, *(beside(y, x) for y in range(15) for x in range(20, 40))]
    recipe = make_recipe(tmp_path, cells=cells)
    campaign = Campaign.create(recipe)
    assert FIRST not in set(sampled(campaign.plan.cells))
    with pytest.raises(CampaignError, match=r"None of 64 of the campaign's 301 cells"):
        opened_sample(recipe.cube, campaign.plan.cells)
    assert campaign.fetch(tmp_path / "store").cells == len(cells)
    (tmp_path / "scene.tif").unlink()
    fetched = Campaign.create(replace(recipe, fetched=str(tmp_path / "store")))
    assert list(likely_cells(fetched.recipe, fetched.plan.cells, stored=fetched.plan)) == [FIRST]
    assert fetched.estimate().cells == len(cells)


def test_likely_cells_lie_under_the_items_of_a_search_whatever_adds_a_mask_to_them(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, cells=[FIRST, *(beside(y, 30) for y in range(5))])
    x, y = ground(beside(3, 30)).centroid.coords[0]
    item = {
        "type": "Feature",
        "id": "a",
        "assets": {},
        "geometry": mapping(box(x - 1e-5, y - 1e-5, x + 1e-5, y + 1e-5)),
    }
    items = StacItems([item, {**item, "id": "beyond", "geometry": mapping(box(10, 10, 11, 11))}])
    found = []
    for images in (items, CloudMasked(images=items, model="none", name="clouds", digest="d")):
        source = replace(recipe.cube.sources[0], images=images)
        sparse = replace(recipe, cube=replace(recipe.cube, sources=(source,)))
        found.append(list(likely_cells(sparse, plan_campaign(recipe).cells, stored=None)))
    assert found == [[beside(3, 30)]] * 2


def test_sources_that_went_away_are_told(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    empty = replace(recipe, cube=CubeRecipe(grid=GRID, sources=(make_source(tmp_path, images=GivenImages(())),)))
    with pytest.raises(CampaignError, match="The last answer was: Source 'scenes' has no image of this ground"):
        plan_campaign(empty)
    timed = replace(recipe, cube=CubeRecipe(grid=GRID, sources=(make_source(tmp_path / "scene.tif", group="day"),)))
    with pytest.raises(CampaignError, match="have time steps of their own"):
        plan_campaign(timed)
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
        plan_campaign(digital)
    (tmp_path / "scene.tif").write_bytes(b"damaged")
    with pytest.raises(CubeError, match=r"scene\.tif"):
        plan_campaign(recipe)


def test_a_sun_that_moves_from_cell_to_cell_is_refused(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    heights = SourceRecipe(
        name="heights",
        images=FileImages(assets={"dem": (str(tmp_path / "scene.tif"),)}),
        layers=(LayerRecipe(wanted=BandRequest(name="dem", bands=(1,))),),
        terrain=(get_terrain("hillshade"),),
        sun_of="scenes",
    )
    moving = replace(recipe, cube=CubeRecipe(grid=GRID, sources=(*recipe.cube.sources, heights)))
    with pytest.raises(CampaignError, match=r"\['heights'\] take the sun of hillshade .* Leave sun_of out"):
        plan_campaign(moving)
    fixed = replace(moving, cube=CubeRecipe(grid=GRID, sources=(*recipe.cube.sources, replace(heights, sun_of=None))))
    plan_campaign(fixed)


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
