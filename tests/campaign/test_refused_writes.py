"""Whoever may not write to a bucket, or not delete from it, is told so at every door, in words and as `OutputNotWritableError`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from fsspec.config import conf
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from rtsx import Campaign, build_cube
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, held, write_prices
from rtsx.campaign.map import create_map, map_store
from rtsx.campaign.plan import write_plan
from rtsx.campaign.products.package import Package
from rtsx.campaign.recipe import Prices
from rtsx.cube import write_cube
from rtsx.errors import OutputNotWritableError
from rtsx.review import create_review
from rtsx.storage.lock import exclusive_lock
from rtsx.storage.object_store import ObjectStore, open_object_store
from tests.campaign.conftest import S3, Keys
from tests.campaign.records import a_failure, a_mark, a_plan
from tests.campaign.small_campaign import CELLS, GRID, make_bundle, make_recipe, write_country
from tests.cube.conftest import random_cube
from tests.review.reviewers import image, outlines_of

__all__ = ["random_cube"]

PLAN = a_plan(rows=1, columns=2)


@dataclass(frozen=True)
class Place:
    """A bucket, as one of its users sees it."""

    url: str
    options: dict[str, Any]
    folder: Path
    cube: xr.Dataset
    """Something to write."""

    @property
    def objects(self) -> ObjectStore:
        return open_object_store(self.url, self.options)

    @property
    def ledger(self) -> CampaignLedger:
        return CampaignLedger(self.objects, YearLayout(PLAN.year))

    @property
    def campaign(self) -> Campaign:
        return Campaign(plan=PLAN, output=self.url, storage_options=self.options)


def cube(at: Place) -> None:
    write_cube(at.cube, f"{at.url}/a.zarr", storage_options=at.options, overwrite=True)


def build(at: Place) -> None:
    recipe = make_recipe(write_country(at.folder), "out").cube
    place = f"{at.url}/b.zarr"
    build_cube(recipe, place, cell=GRID[CELLS[0]], storage_options=at.options, overwrite=True, overviews=False)


def bundle(at: Place) -> None:
    make_bundle().save(f"{at.url}/bundle", overwrite=True)


def create(at: Place) -> None:
    Campaign.create(make_recipe(write_country(at.folder), at.url, storage_options=at.options))


def map_of_a_year(at: Place) -> None:
    create_map(at.url, PLAN, bundle_id="demo", storage_options=at.options)


def shard(at: Place) -> None:
    sync(map_store(at.url, at.options).set("valid/c/0", default_buffer_prototype().buffer.from_bytes(b"1")))


def copy(at: Place) -> None:
    source = open_object_store(str(at.folder / "source"), {})
    write_plan(source, PLAN)
    write_prices(source, Prices(), year=PLAN.year)
    create_map(str(at.folder / "source"), PLAN, bundle_id="demo", storage_options={})
    Campaign(plan=PLAN, output=str(at.folder / "source")).copy(f"{at.url}/copy", storage_options=at.options)


def lease(at: Place) -> None:
    with held(at.objects, at.ledger.layout, (0, 1), run="run", lease_s=60):
        pass


def lock(at: Place) -> None:
    with exclusive_lock(f"{at.url}/locked", at.options):
        pass


def review(at: Place) -> None:
    create_review(
        outlines_of(3),
        f"{at.url}/review",
        cubes={"2024": "cube.zarr"},
        opener=lambda _: image(),
        storage_options=at.options,
    )


def verdict(at: Place) -> None:
    at.objects.create("verdicts/1.json", b"{}")


DOORS: dict[str, Callable[[Place], object]] = {
    "write_cube": cube,
    "build_cube": build,
    "a bundle": bundle,
    "Campaign.create": create,
    "the map": map_of_a_year,
    "a shard": shard,
    "a mark": lambda at: at.ledger.commit(a_mark((0, 0))),
    "what is set aside": lambda at: at.ledger.quarantine(a_failure((0, 1))),
    "a lease": lease,
    "a copy": copy,
    "a package": lambda at: Package(at.objects, at.url).put("a", b"a"),
    "a review": review,
    "a verdict": verdict,
    "a lock": lock,
}
"""What writes, and what of it removes what is there."""
REMOVING: dict[str, Callable[[Place], object]] = {
    "write_cube": cube,
    "build_cube": build,
    "a bundle": bundle,
    "Campaign.create": create,
    "a shard": lambda at: sync(map_store(at.url, at.options).delete("valid/c/0")),
    "shards": lambda at: sync(map_store(at.url, at.options).delete_dir("valid")),
    "a mark": lambda at: at.ledger.retire((0, 0)),
    "Campaign.retry": lambda at: at.campaign.retry(),
    "a package": lambda at: Package(at.objects, at.url).delete("a"),
    "a review": review,
}


@pytest.fixture
def entered(
    s3: S3,
    guarded: Keys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    random_cube: Callable[..., xr.Dataset],
) -> Callable[[dict[str, str]], Place]:
    """The bucket as the user with such keys sees it."""

    def enter(keys: dict[str, str]) -> Place:
        options = s3.options | {"key": keys["AWS_ACCESS_KEY_ID"], "secret": keys["AWS_SECRET_ACCESS_KEY"]}
        monkeypatch.setitem(conf, "s3", options)  # for a bundle, which takes none
        return Place(f"s3://{s3.bucket}/maps", options, tmp_path, random_cube((40, 50), chunk=32))

    return enter


@pytest.mark.parametrize("door", DOORS)
def test_who_may_not_write_is_told(door: str, entered: Callable[[dict[str, str]], Place], guarded: Keys) -> None:
    with pytest.raises(OutputNotWritableError, match=r"s3://.*/maps.* cannot be written.*(rights|Check)"):
        DOORS[door](entered(guarded.reader))


@pytest.mark.parametrize("door", REMOVING)
def test_who_may_not_delete_is_told_and_what_is_there_stays(
    door: str, entered: Callable[[dict[str, str]], Place], guarded: Keys
) -> None:
    owner = entered(guarded.writer)
    if door not in ("a mark", "a review"):  # which have to be new
        DOORS.get(door, shard)(owner)
    shard(owner)
    owner.ledger.commit(a_mark((0, 0)))
    owner.ledger.quarantine(a_failure((0, 1)))
    there = {found.key: owner.objects.get(found.key) for found in owner.objects.list("")}
    with pytest.raises(OutputNotWritableError, match=r"cannot be written.*rights"):
        REMOVING[door](replace(entered(guarded.keeper), cube=owner.cube + 0))
    assert there.items() <= {key: owner.objects.get(key) for key in there}.items()
