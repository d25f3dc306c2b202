"""Room for overviews that was stopped half way is made whole the next time, and readers are never told of less than before."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import xarray as xr
import zarr
from zarr.abc.store import Store
from zarr.core.attributes import Attributes

from rtsx.campaign.layout import MAP
from rtsx.campaign.map import create_map, map_path, map_store, open_map
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.products import collect_year, overviews
from rtsx.campaign.products.overviews import prepare_levels
from rtsx.cube import write
from rtsx.cube.write import Levels, overviews_of
from rtsx.errors import CubeError
from rtsx.storage.zarr import YEARS
from tests.campaign.collect.finished import plan_of
from tests.cube.buildable import bytes_of
from tests.meanwhile import Meanwhile


@pytest.fixture(autouse=True)
def small_overviews(monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels down to 64 px."""
    monkeypatch.setattr(write, "_SMALLEST_TOP_LEVEL", 64)


@pytest.fixture
def plan() -> CampaignPlan:
    return plan_of(4, 4)


@pytest.fixture
def levels(plan: CampaignPlan) -> Levels:
    return overviews_of(plan.geobox, overviews=True)


@pytest.fixture
def store(plan: CampaignPlan, tmp_path: Path) -> Store:
    create_map(str(tmp_path), plan, bundle_id="demo", storage_options={})
    return map_store(str(tmp_path), {})


def years(folder: Path, group: str | None = None) -> list[int]:
    """What a reader finds without looking any further than the root of the map, or of a level."""
    told = xr.open_zarr(folder / MAP / (group or ""), consolidated=True, mask_and_scale=False)
    return [int(year) for year in told["time"].dt.year]


@pytest.mark.parametrize("place", ["consolidate", "attributes"])
def test_a_stop_before_readers_are_told_is_made_good(
    place: str,
    plan: CampaignPlan,
    levels: Levels,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    room, name = (overviews, "consolidate") if place == "consolidate" else (Attributes, "put")
    with monkeypatch.context() as patched:
        patched.setattr(room, name, stop)
        with pytest.raises(KeyboardInterrupt):
            prepare_levels(store, levels, plan=plan)
    assert years(tmp_path) == [2024]
    assert "multiscales" not in zarr.open_group(store, mode="r").attrs
    prepare_levels(store, levels, plan=plan)
    assert years(tmp_path, "2x") == [2024]
    assert len(zarr.open_group(store, mode="r").attrs["multiscales"]["layout"]) == len(levels)


def test_a_year_that_was_not_told_is_told_the_next_time(
    plan: CampaignPlan, levels: Levels, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_levels(store, levels, plan=plan)
    create_map(str(tmp_path), plan_of(4, 4, year=2025), bundle_id="demo", storage_options={})
    with monkeypatch.context() as patched:
        patched.setattr(overviews, "consolidate", lambda _: None)
        prepare_levels(store, levels, plan=plan)
    assert years(tmp_path, "2x") == [2024]
    prepare_levels(store, levels, plan=plan)
    assert years(tmp_path, "2x") == [2024, 2025]


@pytest.mark.parametrize("node", [".", "valid", "2x", "2x/valid", "2x/time", "2x/x", "2x/spatial_ref"])
def test_damaged_metadata_is_named_and_made_anew_once_it_is_removed(
    node: str, plan: CampaignPlan, levels: Levels, store: Store, tmp_path: Path
) -> None:
    prepare_levels(store, levels, plan=plan)
    whole = bytes_of(tmp_path)
    damaged = tmp_path / MAP / node / "zarr.json"
    damaged.write_bytes(damaged.read_bytes()[:50])
    with pytest.raises(CubeError, match=rf"{damaged} is truncated or damaged. Remove it; .* rtsx campaign collect"):
        prepare_levels(store, levels, plan=plan)
    damaged.unlink()
    create_map(str(tmp_path), plan, bundle_id="demo", storage_options={})
    prepare_levels(store, levels, plan=plan)
    assert bytes_of(tmp_path) == whole


def test_nothing_is_written_where_nothing_is_new(
    plan: CampaignPlan, levels: Levels, store: Store, tmp_path: Path
) -> None:
    prepare_levels(store, levels, plan=plan)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / MAP).rglob("*") if path.is_file()}
    prepare_levels(store, levels, plan=plan)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / MAP).rglob("*") if path.is_file()} == before


@pytest.mark.slow
@pytest.mark.parametrize("other", [create_map, collect_year])
def test_a_year_that_is_begun_or_collected_meanwhile_is_not_undone(other: Callable[..., object]) -> None:
    """Before every seventh write of a first collection."""
    plan, later = plan_of(2, 4), plan_of(2, 4, year=2025)
    for n in range(1, 100, 7):
        output = f"memory://{other.__name__}/{n}"
        create_map(output, plan, bundle_id="demo", storage_options={})
        if other is collect_year:
            create_map(output, later, bundle_id="demo", storage_options={})
        named = {"bundle_id": "demo"} if other is create_map else {"stac": False}
        meanwhile = Meanwhile(n, partial(other, output, later, storage_options={}, **named))
        with meanwhile.happening():
            collect_year(output, plan, stac=False)
        if not meanwhile.has_happened:
            assert n > 5, "there were writes to come between"
            return
        for group in (open_map(output, storage_options={}), *_levels(output, plan, other)):
            assert sorted(group["time"].dt.year.values) == [2024, 2025], f"before write {n}"
        attrs = zarr.open_group(map_path(output), mode="r").attrs
        assert len(attrs["multiscales"]["layout"]) == len(overviews_of(plan.geobox, overviews=True))
        assert sorted(attrs[YEARS]) == ["2024", "2025"]
    raise AssertionError("never ended")


def _levels(output: str, plan: CampaignPlan, other: Callable[..., object]) -> Iterator[xr.Dataset]:
    """Overviews, which know of a year that was collected."""
    for name, _ in overviews_of(plan.geobox, overviews=other is collect_year)[1:]:
        yield xr.open_zarr(f"{map_path(output)}/{name}", consolidated=True, mask_and_scale=False)
