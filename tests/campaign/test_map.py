"""The map before any cell is run: what is made, what is added, and what is refused."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.core.sync import sync

from rtsx import open_cube
from rtsx.campaign.layout import MAP
from rtsx.campaign.map import VARIABLES, create_map, damaged_coordinates, map_path, map_store, map_year, open_map
from rtsx.campaign.stages import Verification
from rtsx.cli.info import prediction_rows
from rtsx.cube import validate_cube
from rtsx.cube.times import with_facts
from rtsx.errors import CampaignError, CubeError, FootprintError, OutputExistsError
from rtsx.footprints import extract_footprints
from rtsx.grid import Grid
from rtsx.model.metadata import OutlineChoice
from rtsx.storage.object_store import open_object_store
from rtsx.storage.zarr import COMPLETE, MAP_IDENTITY, RetryingStore, consolidate
from tests.campaign.random_campaign import make_bundle, make_plan, make_recipe
from tests.cube.buildable import bytes_of
from tests.faults import FaultyProxy
from tests.meanwhile import Meanwhile

if TYPE_CHECKING:
    from rtsx.campaign.plan import CampaignPlan
    from tests.campaign.conftest import S3


def plan_of(classes: int = 1, *, year: int = 2024, cell: int = 64, shard: int = 32) -> "CampaignPlan":
    recipe = make_recipe(
        (Path("none.tif"),), "nowhere", cell=cell, bundles=(make_bundle(classes),), year=year, shard=shard
    )
    return make_plan(recipe)


def test_a_new_map_is_whole_and_empty(tmp_path: Path) -> None:
    plan = plan_of()
    create_map(str(tmp_path), plan, bundle_id="demo", storage_options={})
    found = open_map(str(tmp_path), storage_options={})
    validate_cube(found)
    assert found.odc.geobox == plan.geobox
    assert found.sizes == {"time": 1, "y": 192, "x": 192}
    assert found["time"].values[0] == np.datetime64("2024-01-01")
    assert not found["valid"].values.any()
    assert (found["probability"].values == 255).all()
    assert (found["binary"].values == 255).all()
    assert found["probability"].chunksizes["y"][0] == plan.shard
    assert found.attrs["lattice_origin"] == [0.0, 0.0], "the grid's, so that outlines are named alike for all tiles"
    assert found.attrs["bundle_digest"] == make_bundle().digest
    assert found.attrs["threshold"] == 0.5
    assert with_facts(found).attrs["bundle_id"] == "demo"


def test_shards_are_the_plans_and_that_of_valid_is_a_cell(tmp_path: Path) -> None:
    create_map(str(tmp_path), plan_of(3), bundle_id="demo", storage_options={})
    group = zarr.open_group(map_path(str(tmp_path)), mode="r")
    assert group["probability"].shards == group["binary"].shards == (1, 1, 32, 32)
    assert group["valid"].shards == (1, 64, 64)
    assert group["probability"].chunks == (1, 1, 16, 16)
    assert [group[name].fill_value for name in ("probability", "binary", "valid")] == [255, 255, False]
    assert not [file for file in tmp_path.rglob("c/*") if "probability" in str(file)], "sparse: no shard is stored"


def test_readers_that_know_nothing_of_us_read_it(tmp_path: Path) -> None:
    create_map(str(tmp_path), plan_of(3), bundle_id="demo", storage_options={})
    plain = xr.open_zarr(map_path(str(tmp_path)), decode_coords="all", chunks=None)
    assert plain["probability"].dims == ("time", "class", "y", "x")
    assert list(plain["class"].values) == ["target", "water", "ground"]
    assert np.isnan(plain["probability"].isel(y=slice(3), x=slice(3)).values).all()
    assert plain.rio.crs.to_epsg() == 3413


def test_the_same_call_again_changes_nothing(tmp_path: Path) -> None:
    create_map(str(tmp_path), plan_of(), bundle_id="demo", storage_options={})
    # With their numbers, which change when a file is replaced by one that is the same: readers are there.
    before = {file: (file.read_bytes(), file.stat().st_ino) for file in tmp_path.rglob("*") if file.is_file()}
    create_map(str(tmp_path), plan_of(), bundle_id="demo", storage_options={})
    assert before == {file: (file.read_bytes(), file.stat().st_ino) for file in tmp_path.rglob("*") if file.is_file()}


def test_every_year_is_a_step_and_years_come_back_in_order(tmp_path: Path) -> None:
    for year in (2024, 2023, 2025, 2023):
        create_map(str(tmp_path), plan_of(year=year), bundle_id="demo", storage_options={})
    group = zarr.open_group(map_path(str(tmp_path)), mode="r+")
    assert [map_year(group, year) for year in (2024, 2023, 2025)] == [0, 1, 2]
    group["valid"][1, :64, :64] = True
    found = open_map(str(tmp_path), storage_options={})
    assert list(found["time"].dt.year.values) == [2023, 2024, 2025]
    assert open_cube(map_path(str(tmp_path))).identical(found)
    told = dict(prediction_rows(found))
    assert str(told["grid"]).endswith("3 times of 2023, 2024, 2025")
    assert make_bundle().digest[:12] in str(told["model"])
    assert list(found["valid"].sum(("y", "x")).values) == [64 * 64, 0, 0]
    with pytest.raises(CampaignError, match=r"has the years \[2024, 2023, 2025\], and 2022 is not among them"):
        map_year(group, 2022)


def test_readers_see_a_year_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(store: object) -> None:
        raise KeyboardInterrupt

    create_map(str(tmp_path), plan_of(), bundle_id="demo", storage_options={})
    monkeypatch.setattr("rtsx.campaign.map.consolidate", stop)
    with pytest.raises(KeyboardInterrupt):
        create_map(str(tmp_path), plan_of(year=2025), bundle_id="demo", storage_options={})
    monkeypatch.undo()
    for years in ([2024], [2024, 2025]):
        found = xr.open_zarr(map_path(str(tmp_path)), consolidated=True)
        assert list(found["time"].dt.year.values) == years
        assert found["valid"].shape[0] == len(years)
        create_map(str(tmp_path), plan_of(year=2025), bundle_id="demo", storage_options={})


def test_years_of_another_bundle_say_only_what_they_share(tmp_path: Path) -> None:
    one = plan_of()
    other = replace(plan_of(year=2025), prediction=replace(one.prediction, members=("another",)))
    create_map(str(tmp_path), one, bundle_id="demo", storage_options={})
    create_map(str(tmp_path), other, bundle_id="demo", storage_options={})
    found = open_map(str(tmp_path), storage_options={})
    assert "bundle_digest" not in found.attrs
    assert found.attrs["threshold"] == 0.5
    for opened in (found, open_cube(map_path(str(tmp_path)))):
        digests = [with_facts(opened.isel(time=place)).attrs["bundle_digest"] for place in (0, 1)]
        assert digests == [make_bundle().digest, "another"]


def test_outlines_of_a_year_follow_the_rule_of_its_own_model(tmp_path: Path) -> None:
    one = plan_of()
    rule = OutlineChoice(threshold=0.9, min_area_m2=0.0)
    create_map(str(tmp_path), one, bundle_id="demo", storage_options={})
    other = replace(plan_of(year=2025), prediction=replace(one.prediction, members=("another",), outlines=rule))
    create_map(str(tmp_path), other, bundle_id="demo", storage_options={})
    group = zarr.open_group(map_path(str(tmp_path)), mode="r+")
    group["valid"][:] = True
    group["binary"][:] = 0
    group["probability"][:] = 0
    group["probability"][:, 10:30, 10:30] = 80
    group["probability"][:, 15:25, 15:25] = 95
    group["binary"][:, 10:30, 10:30] = 1
    found = open_cube(map_path(str(tmp_path)))
    assert [extract_footprints(found.isel(time=place))["n_pixels"].sum() for place in (0, 1)] == [400, 100]
    with pytest.raises(FootprintError, match=r"years of this map have an outline_threshold each: take one year"):
        extract_footprints(found)
    assert len(extract_footprints(found, threshold=0.5, min_area_m2=0)) == 2


def test_a_step_without_a_day_is_no_year(tmp_path: Path) -> None:
    create_map(str(tmp_path), plan_of(), bundle_id="demo", storage_options={})
    group = zarr.open_group(map_path(str(tmp_path)), mode="r+", use_consolidated=False)
    for name in ("time", "probability", "binary", "valid"):
        group[name].resize((2, *group[name].shape[1:]))
    consolidate(group.store)
    assert list(open_cube(map_path(str(tmp_path)))["time"].dt.year.values) == [2024]
    group["time"][0] = -1
    with pytest.raises(CubeError, match="has no year yet: its creation was stopped"):
        open_cube(map_path(str(tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize("stop", range(4))
def test_a_creation_that_was_stopped_anywhere_is_ended_by_the_next(
    tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before the n-th array has grown; the next call ends with the bytes of one that was never stopped."""
    create_map(str(tmp_path / "whole"), plan_of(), bundle_id="demo", storage_options={})
    create_map(str(tmp_path / "whole"), plan_of(year=2025), bundle_id="demo", storage_options={})
    create_map(str(tmp_path / "cut"), plan_of(), bundle_id="demo", storage_options={})
    left = [stop]

    def failing(self: object, shape: tuple[int, ...]) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(self, shape)

    real = zarr.Array.resize
    monkeypatch.setattr(zarr.Array, "resize", failing)
    with pytest.raises(KeyboardInterrupt):
        create_map(str(tmp_path / "cut"), plan_of(year=2025), bundle_id="demo", storage_options={})
    assert list(open_map(str(tmp_path / "cut"), storage_options={})["time"].dt.year.values) == [2024], "still whole"
    monkeypatch.undo()
    create_map(str(tmp_path / "cut"), plan_of(), bundle_id="demo", storage_options={})
    told = open_map(str(tmp_path / "cut"), storage_options={})
    assert list(told["time"].dt.year.values) == [2024], "nobody is told of half a year"
    create_map(str(tmp_path / "cut"), plan_of(year=2025), bundle_id="demo", storage_options={})
    files = [
        {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
        for root in (tmp_path / "whole", tmp_path / "cut")
    ]
    assert files[0] == files[1]


def test_a_creation_that_was_stopped_in_the_middle_is_not_seen_as_a_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rtsx.campaign.map._fill", stopped)
    with pytest.raises(KeyboardInterrupt):
        create_map(str(tmp_path), plan_of(), bundle_id="demo", storage_options={})
    with pytest.raises(CubeError, match="was never finished"):
        open_map(str(tmp_path), storage_options={})
    monkeypatch.undo()
    create_map(str(tmp_path), plan_of(), bundle_id="demo", storage_options={})
    assert open_map(str(tmp_path), storage_options={}).sizes["time"] == 1


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda: plan_of(cell=96), "grid.cell_size is 64 there and 96 here"),
        (lambda: plan_of(3), "classes is .* there and .* here"),
        (lambda: plan_of(shard=64), "shard is 32 there and 64 here"),
        (
            lambda: replace(plan_of(), grid=Grid("EPSG:3413", 5.0, cell_size=64)),
            "grid.resolution is 10.0 there and 5.0",
        ),
        (lambda: replace(plan_of(), rows=(299, 304)), r"rows\[0\] is 300 there and 299 here"),
    ],
)
def test_another_map_is_told_by_its_first_difference(tmp_path: Path, other: object, said: str) -> None:
    create_map(str(tmp_path), plan_of(), bundle_id="demo", storage_options={})
    with pytest.raises(CampaignError, match=said):
        create_map(str(tmp_path), other(), bundle_id="demo", storage_options={})  # type: ignore[operator]


def test_what_is_no_map_is_left_alone(tmp_path: Path) -> None:
    zarr.create_group(map_path(str(tmp_path)), attributes={"title": "mine"})
    with pytest.raises(OutputExistsError, match="is no map of a campaign"):
        create_map(str(tmp_path), plan_of(), bundle_id="demo", storage_options={})


def test_a_plan_in_floats_is_refused(tmp_path: Path) -> None:
    plan = plan_of()
    with pytest.raises(CampaignError, match="dtype='uint8'"):
        create_map(
            str(tmp_path),
            replace(plan, prediction=replace(plan.prediction, dtype="float32")),
            bundle_id="demo",
            storage_options={},
        )


def test_no_map_is_told(tmp_path: Path) -> None:
    with pytest.raises(CubeError, match="there is no such file or folder"):
        open_map(str(tmp_path), storage_options={})


@pytest.mark.slow
def test_in_an_object_store(s3: "S3") -> None:
    create_map(s3.url, plan_of(), bundle_id="demo", storage_options=s3.options)
    create_map(s3.url, plan_of(year=2025), bundle_id="demo", storage_options=s3.options)
    group = zarr.open_group(map_store(s3.url, s3.options), mode="r+", use_consolidated=False)
    group["valid"][map_year(group, 2025), :64, :64] = True
    found = open_map(s3.url, storage_options=s3.options)
    assert list(found["valid"].sum(("y", "x")).values) == [0, 64 * 64]


@pytest.mark.parametrize(("asked", "requests"), [({}, 1), ({"retries": {"max_attempts": 2}}, 3)])
def test_a_store_is_asked_once_for_each_attempt_unless_the_user_wants_more(
    asked: dict[str, Any], requests: int, s3: "S3"
) -> None:
    with FaultyProxy(s3.endpoint, rate=1.0, faults=("503",)) as proxy:
        options = s3.through(proxy.url)
        options = {**options, "config_kwargs": {**options.get("config_kwargs", {}), **asked}}
        store = map_store(s3.url, options)
        assert isinstance(store, RetryingStore)
        with pytest.raises(OSError, match=r"503|Service"):
            sync(RetryingStore(store._store, pauses_s=()).exists("zarr.json"))
        assert proxy.asked == requests


@pytest.mark.slow
@pytest.mark.parametrize(("place", "is_first"), [("local", True), ("memory", True), ("memory", False)])
def test_two_years_that_begin_at_once_get_a_step_each(tmp_path: Path, place: str, is_first: bool) -> None:
    """Another year is begun and finished before each single write of the first one: no interleaving loses anything."""
    step = {("local", True): 9, ("memory", True): 3, ("memory", False): 1}[place, is_first]
    for n in range(0, 200, step):  # a disk takes ten times as long, and differs in its claims alone
        output = str(tmp_path / str(n)) if place == "local" else f"memory://years-{is_first}/{n}"
        if not is_first:
            create_map(output, plan_of(year=2022), bundle_id="demo", storage_options={})

        ended: list[int] = []

        def other(output: str = output, ended: list[int] = ended) -> None:
            create_map(output, replace(plan_of(year=2025), name="other"), bundle_id="demo", storage_options={})
            ended.append(1)

        def look(output: str = output, ended: list[int] = ended) -> None:
            root = open_object_store(output, {}).get(f"{MAP}/zarr.json")
            assert root is None or MAP_IDENTITY.encode() in root, "workers find a map of a campaign at all times"
            if ended:
                group = zarr.open_group(map_store(output, {}), mode="r", use_consolidated=False)
                step = map_year(group, 2025)
                shortest = min(array.shape[0] for name, array in group.arrays() if name in (*VARIABLES, "time"))
                assert step < shortest, "cells of the other year, which may be running, have their place at all times"

        meanwhile = Meanwhile(n, other, look=look)
        with meanwhile.happening():
            create_map(output, plan_of(year=2024), bundle_id="demo", storage_options={})
        if not meanwhile.has_happened:
            assert n > 5, "there were writes to come between"
            return
        years = [2024, 2025] if is_first else [2022, 2024, 2025]
        for opened in (open_map(output, storage_options={}), xr.open_zarr(map_path(output), consolidated=False)):
            assert sorted(opened["time"].dt.year.values) == years, f"before write {n}"
        group = zarr.open_group(map_path(output), mode="r")
        assert sorted(group.attrs["rtsx:years"]) == [str(year) for year in years]
        assert {group[name].shape[0] for name in ("probability", "binary", "valid", "time")} == {len(years)}
    raise AssertionError("never ended")


# A filter of one thread is not that of another, and zarr warns in each.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_many_years_at_once_in_an_object_store(s3: "S3") -> None:
    years = [2022, 2023]
    with ThreadPoolExecutor(2) as threads:
        list(
            threads.map(
                lambda year: create_map(s3.url, plan_of(year=year), bundle_id="demo", storage_options=s3.options), years
            )
        )
    assert list(open_map(s3.url, storage_options=s3.options)["time"].dt.year.values) == years


def test_years_that_cannot_be_read_are_named_and_come_back_from_their_claims(tmp_path: Path) -> None:
    for year in (2025, 2024):
        create_map(str(tmp_path), plan_of(year=year), bundle_id="demo", storage_options={})
    group = zarr.open_group(map_store(str(tmp_path), {}), mode="r", use_consolidated=False)
    stored = tmp_path / "map.zarr" / "time" / "c" / "0"
    stored.write_bytes(stored.read_bytes()[:5])
    with pytest.raises(CampaignError, match=r"read: file:.*map.zarr/time/c/0 is damaged .*run the campaign again"):
        map_year(group, 2024)
    create_map(str(tmp_path), plan_of(year=2024), bundle_id="demo", storage_options={})
    assert [map_year(group, year) for year in (2025, 2024)] == [0, 1]


def test_a_year_that_another_run_is_adding_is_no_damage(tmp_path: Path) -> None:
    create_map(str(tmp_path), plan_of(), bundle_id="demo", storage_options={})
    (claim,) = tmp_path.rglob("claims/*.json")
    claim.with_name("000001.json").write_text(claim.read_text().replace("2024", "2025"))
    assert damaged_coordinates(str(tmp_path), plan_of(), storage_options={}) == {}
    zarr.open_group(tmp_path / "map.zarr", mode="r+", use_consolidated=False)["time"].resize((2,))  # type: ignore[union-attr]
    assert damaged_coordinates(str(tmp_path), plan_of(), storage_options={}) == {}


def test_a_step_that_lost_its_year_is_given_to_none(tmp_path: Path) -> None:
    for year in (2023, 2024):  # as in a map of before there were claims
        create_map(str(tmp_path), plan_of(year=year), bundle_id="demo", storage_options={})
    for path in tmp_path.rglob("claims/*.json"):
        path.unlink()
    shutil.rmtree(tmp_path / "map.zarr" / "time" / "c")
    assert set(damaged_coordinates(str(tmp_path), plan_of(), storage_options={})) == {"map.zarr/time"}
    for year in (2024, 2023):
        with pytest.raises(CampaignError, match="which year step 0 of the map has"):
            create_map(str(tmp_path), plan_of(year=year), bundle_id="demo", storage_options={})


def test_a_claim_that_is_damaged_is_named(tmp_path: Path) -> None:
    create_map(str(tmp_path), plan_of(), bundle_id="demo", storage_options={})
    (claim,) = tmp_path.rglob("claims/*.json")
    claim.write_text("[]")
    with pytest.raises(CampaignError, match=r"claims/000000.json does not say whose step"):
        create_map(str(tmp_path), plan_of(year=2025), bundle_id="demo", storage_options={})


def test_damaged_coordinates_are_found_and_written_anew(tmp_path: Path) -> None:
    def faults() -> dict[str, str]:
        return damaged_coordinates(str(tmp_path), plan_of(), storage_options={})

    create_map(str(tmp_path), plan_of(), bundle_id="demo", storage_options={})
    assert faults() == {}
    group = zarr.open_group(tmp_path / "map.zarr", mode="r+", use_consolidated=False)
    group["x"][3] = 7.0  # type: ignore[index]
    for name in ("y", "time"):
        (chunk,) = [path for path in (tmp_path / "map.zarr" / name / "c").rglob("*") if path.is_file()]
        chunk.write_bytes(chunk.read_bytes()[:9])
    found = faults()
    assert set(found) == {"map.zarr/x", "map.zarr/y", "map.zarr/time"}
    assert found["map.zarr/x"] == "has other values than it was written with"
    assert "cannot be read" in found["map.zarr/y"]
    assert not Verification(n_cells=1, n_objects=0, n_bytes=0, coordinates=found).is_sound
    assert "all cells are what their marks say.\nmap.zarr/y cannot be read" in str(
        Verification(n_cells=1, n_objects=0, n_bytes=0, coordinates={"map.zarr/y": found["map.zarr/y"]})
    )
    (tmp_path / "map.zarr" / "spatial_ref" / "c").unlink()
    create_map(str(tmp_path), plan_of(), bundle_id="demo", storage_options={})
    assert faults() == {}
    assert open_map(str(tmp_path), storage_options={}).rio.crs is not None
    (tmp_path / "map.zarr" / "zarr.json").unlink()
    assert "cannot be opened" in faults()["map.zarr"]


@pytest.mark.parametrize("node", [".", "probability", "valid", "time", "x", "spatial_ref"])
def test_damaged_metadata_is_named_and_written_anew_once_it_is_removed(tmp_path: Path, node: str) -> None:
    def create() -> None:
        create_map(str(tmp_path), plan_of(), bundle_id="demo", storage_options={})

    create()
    whole = bytes_of(tmp_path)
    damaged = tmp_path / "map.zarr" / node / "zarr.json"
    for length in (0, 100):
        damaged.write_bytes(damaged.read_bytes()[:length])
        with pytest.raises(CubeError, match=rf"{damaged} is truncated or damaged. Remove it; rtsx campaign run"):
            create()
        (fault,) = damaged_coordinates(str(tmp_path), plan_of(), storage_options={}).values()
        assert str(damaged) in fault
        damaged.unlink()
        create()
        assert bytes_of(tmp_path) == whole


def test_of_two_maps_that_begin_at_once_one_is_there_and_the_other_told(tmp_path: Path) -> None:
    def other() -> None:
        create_map(str(tmp_path), plan_of(3), bundle_id="demo", storage_options={})

    with Meanwhile(0, other).happening(), pytest.raises(CampaignError, match=r"classes is .* there and .* here"):
        create_map(str(tmp_path), plan_of(), bundle_id="demo", storage_options={})
    assert open_map(str(tmp_path), storage_options={}).sizes == {"time": 1, "class": 3, "y": 192, "x": 192}


def test_a_creation_of_an_earlier_version_that_was_stopped_is_ended(tmp_path: Path) -> None:
    zarr.create_group(map_path(str(tmp_path)), attributes={COMPLETE: False})
    create_map(str(tmp_path), plan_of(), bundle_id="demo", storage_options={})
    assert open_map(str(tmp_path), storage_options={}).sizes["time"] == 1
