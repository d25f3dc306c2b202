"""Copies of campaigns: whole cells only, whenever they are stopped, and nothing of what is not theirs."""

import os
import random
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from rtsx import Campaign
from rtsx.campaign.cells import Address
from rtsx.campaign.copying import Copied, copy_campaign
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, held
from rtsx.campaign.plan import CampaignPlan, write_plan
from rtsx.campaign.products import collect_year
from rtsx.campaign.records import CommitRecord
from rtsx.campaign.stages import note_stage, verify_year
from rtsx.cube import write
from rtsx.errors import CampaignError, OutputExistsError, OutputNotWritableError, RtsxError
from rtsx.storage import atomic
from rtsx.storage.object_store import ObjectStore, open_object_store
from tests import warm
from tests.campaign.collect.finished import Output, make_pixels, plan_of
from tests.campaign.conftest import S3
from tests.meanwhile import Meanwhile

PLAN = plan_of(2, 3)
PIXELS = make_pixels(PLAN, seed=1)
CELLS = list(PLAN.cells)
YEAR = YearLayout(PLAN.year)


class Stopped(BaseException):
    """As Ctrl-C comes."""


def _planned(plan: CampaignPlan, folder: Path) -> Output:
    output = Output(plan, str(folder))
    write_plan(output.objects, plan)
    return output


def _campaign(folder: Path, *, done: int = 4) -> Output:
    output = _planned(PLAN, folder)
    output.finish(PIXELS, CELLS[:done])
    return output


def _copied(source: Path | str, target: Path | str, **options: object) -> Copied:
    return Campaign.open(str(source)).copy(str(target), **options)  # type: ignore[arg-type]


def _contents(place: Path | str, options: dict[str, object] | None = None) -> dict[str, bytes | None]:
    objects = open_object_store(str(place), options or {})
    return {found.key: objects.get(found.key) for found in objects.list("")}


def _after(calls: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something when so many files have been written, but have not got their names."""
    settle, left = atomic.settle, [calls]

    def settle_or_act(path: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            act()
        settle(path)

    monkeypatch.setattr(atomic, "settle", settle_or_act)


def test_a_copy_is_equal_and_a_second_one_writes_only_what_is_new(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    output = _campaign(source)
    open_object_store(str(source), {}).put(YEAR.lease(CELLS[5], 1), b"{}")
    first = _copied(source, target)
    assert (first.n_cells, first.n_there) == (4, 0)
    expected = {key: content for key, content in _contents(source).items() if "/leases/" not in key}
    assert _contents(target) == expected
    assert (_copied(source, target).n_objects, _copied(source, target).n_there) == (0, 4)
    output.finish(PIXELS, CELLS[4:5])
    third = _copied(source, target)
    assert (third.n_cells, third.n_there) == (5, 4)
    assert third.n_objects < first.n_objects
    assert verify_year(str(target), YEAR).is_sound
    assert Campaign.open(target).map().equals(Campaign.open(source).map())


def test_a_copy_has_the_stages_of_its_cells(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    output = _campaign(source)
    note_stage(output.objects, PLAN, "collected", marked=output.ledger.moments())
    output.finish(PIXELS, CELLS[4:5])
    note_stage(output.objects, PLAN, "verified", marked=output.ledger.moments(), without=[CELLS[1]])
    _copied(source, target)
    stages = [Campaign.open(str(place)).stages() for place in (source, target)]
    assert stages[0] == stages[1]
    assert (stages[1][0].verified, stages[1][0].collected, stages[1][0].delivered) == (4, 4, None)
    _made_anew(output, CELLS[0], seed=2)
    _copied(source, target)
    (found,) = Campaign.open(str(target)).stages()
    assert (found.done, found.verified, found.collected) == (5, 3, 3)


def test_a_copy_keeps_its_own_stages_where_those_of_the_campaign_cover_fewer_cells(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    output = _campaign(source)
    for stage in ("verified", "collected", "delivered"):
        note_stage(output.objects, PLAN, stage, marked=output.ledger.moments())
    _copied(source, target)
    there = Output(PLAN, str(target))
    there.finish(PIXELS, CELLS[4:])
    for stage in ("verified", "collected", "delivered"):
        note_stage(there.objects, PLAN, stage, marked=there.ledger.moments(), where="package")
    own = there.objects.get(YEAR.stage("delivered"))
    _copied(source, target)
    (found,) = Campaign.open(str(target)).stages()
    # Products of the copy are those of the campaign, again.
    assert (found.done, found.verified, found.collected, found.delivered) == (6, 6, 4, 6)
    assert there.objects.get(YEAR.stage("delivered")) == own


def test_a_damaged_plan_keeps_no_other_year_from_being_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    output = _campaign(source)
    note_stage(output.objects, PLAN, "verified", marked=output.ledger.moments())
    _planned(plan_of(2, 3, year=2025), source)
    output.objects.put(YearLayout(2025).plan, b"{")
    Campaign.open(str(source), year=PLAN.year).copy(target)
    assert Campaign.open(str(target), year=PLAN.year).stages(years=[PLAN.year])[0].verified == 4
    assert _contents(target).keys() == _contents(source).keys()


@pytest.mark.parametrize("key", ["plan", "cells"])
def test_a_plan_damaged_after_a_copy_is_named_and_that_of_the_copy_stays(tmp_path: Path, key: str) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    output, other = _campaign(source, done=2), _planned(plan_of(2, 3, year=2025), source)
    other.finish(PIXELS, CELLS[:1])
    _copied(source, target)
    sound = _contents(target)
    damaged = getattr(YearLayout(2025), key)
    output.objects.put(damaged, b"{")
    output.finish(PIXELS, CELLS[2:4])
    other.finish(PIXELS, CELLS[1:2])
    copied = Campaign.open(source, year=PLAN.year).copy(target)
    assert (copied.n_cells, copied.n_there, [*copied.plans]) == (6, 3, [2025])
    assert damaged in str(copied)
    assert _contents(target)[damaged] == sound[damaged]
    with pytest.warns(RuntimeWarning, match=f"2025 is left out: .*{damaged}"):
        assert [one.year for one in Campaign.open(source, year=PLAN.year).stages()] == [PLAN.year]
    other.objects.put(damaged, sound[damaged] or b"")
    assert [one.done for one in Campaign.open(source).stages()] == [4, 2]
    assert not _copied(source, target).plans


def test_a_plan_that_is_damaged_hides_no_other_campaign(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    _campaign(source)
    _planned(plan_of(2, 3, year=2025), source)
    _copied(source, target)
    there = open_object_store(str(target), {})
    there.delete(YEAR.plan)
    write_plan(there, replace(PLAN, cogs=True))
    open_object_store(str(source), {}).put(YEAR.plan, b"{")
    with pytest.raises(CampaignError, match="holds another campaign"):
        _copied(source, target)


def test_what_tells_of_others_is_written_after_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    _campaign(source, done=1)
    written: list[str] = []
    store = type(open_object_store(str(target), {}))
    put = store.put

    def noted(self: ObjectStore, key: str, content: bytes) -> None:
        put(self, key, content)
        written.append(key)

    monkeypatch.setattr(store, "put", noted)
    _copied(source, target)
    nodes = [key for key in written if key.startswith("map.zarr/") and key.endswith("/zarr.json")]
    assert len(nodes) > 3
    assert nodes[-1] == "map.zarr/zarr.json"
    assert written.index(nodes[-1]) < written.index(YEAR.plan)


def test_it_goes_to_a_cloud_and_back(tmp_path: Path, s3: S3) -> None:
    _campaign(tmp_path / "a")
    Campaign.open(tmp_path / "a").copy(s3.url, storage_options=s3.options)
    Campaign.open(s3.url, storage_options=s3.options).copy(tmp_path / "b")
    assert _contents(tmp_path / "b") == _contents(tmp_path / "a") == _contents(s3.url, dict(s3.options))


@pytest.mark.parametrize("seed", range(4))
def test_wherever_it_is_stopped_a_mark_has_its_bytes_and_the_next_one_ends_it(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    _campaign(source)
    draw = random.Random(seed)

    def stop() -> None:
        raise Stopped

    for _ in range(3):
        with monkeypatch.context() as patched:
            _after(draw.randrange(5, 30), stop, patched)
            with pytest.raises(Stopped):
                _copied(source, target)
        assert verify_year(str(target), YEAR).is_sound
    _copied(source, target)
    assert _contents(target) == _contents(source)


def copy_and_die() -> None:
    """Copy in a process of its own, which is killed after so many files."""
    source, target, calls = sys.argv[1:]
    with pytest.MonkeyPatch.context() as patched:
        _after(int(calls), lambda: os.kill(os.getpid(), signal.SIGKILL), patched)
        _copied(source, target)


def test_a_copy_that_was_killed_is_gone_on_with(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    _campaign(source)
    entry, arguments = f"{__name__}:copy_and_die", ["copy", str(source), str(target), "70"]
    process = warm.start(entry, arguments, log=tmp_path / "said", environment={})
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(CampaignLedger(open_object_store(str(target), {}), YEAR).done()) < 4
    assert verify_year(str(target), YEAR).is_sound
    _copied(source, target)
    assert _contents(target) == _contents(source)


def test_a_cell_that_is_made_anew_replaces_the_old_one(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    output = _campaign(source)
    _copied(source, target)
    CampaignLedger(output.objects, YEAR).retire(CELLS[0])
    assert _copied(source, target).n_cells == 3  # of the fourth the older one stays
    assert len(CampaignLedger(open_object_store(str(target), {}), YEAR).done()) == 4
    output.finish(make_pixels(PLAN, seed=2), CELLS[:1])
    mark = output.ledger.mark(CELLS[0])
    assert mark is not None
    later = replace(mark, finished="2031-01-01T00:00:00+00:00")
    output.objects.put(YEAR.mark(CELLS[0]), later.to_json().encode())
    assert _copied(source, target).n_there == 3
    assert _contents(target) == _contents(source)
    older = _copied(target, tmp_path / "c")
    assert older.n_cells == 4


def _made_anew(output: Output, cell: Address, *, seed: int) -> CommitRecord:
    CampaignLedger(output.objects, YEAR).retire(cell)
    output.finish(make_pixels(PLAN, seed=seed), [cell])
    mark = output.ledger.mark(cell)
    assert mark is not None
    later = replace(mark, finished="2031-01-01T00:00:00+00:00")
    output.objects.put(YEAR.mark(cell), later.to_json().encode())
    return later


@pytest.mark.parametrize("seed", range(5))
def test_a_replacement_that_is_stopped_leaves_nothing_of_two_states_to_be_trusted(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    output = _campaign(source)
    _copied(source, target)
    _made_anew(output, CELLS[0], seed=2)

    def stop() -> None:
        raise Stopped

    with monkeypatch.context() as patched:
        _after(4 + seed, stop, patched)  # once the store was probed
        with suppress(Stopped):
            _copied(source, target)
    assert verify_year(str(target), YEAR).is_sound
    there = open_object_store(str(target), {})
    if CELLS[0] not in CampaignLedger(there, YEAR).done():
        older = CommitRecord.from_json(next(iter(_contents(target / YEAR.retired).values())) or b"")
        assert not any(there.get(key) for key in older.objects if key.startswith("map.zarr/valid/"))
    _copied(source, target)
    assert _contents(target) == _contents(source)


def test_a_cell_whose_new_bytes_are_damaged_keeps_its_older_state(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    output = _campaign(source)
    _copied(source, target)
    mark = _made_anew(output, CELLS[0], seed=2)
    output.objects.put(max(mark.objects), b"other")
    assert _copied(source, target).damaged == {PLAN.year: (CELLS[0],)}
    assert verify_year(str(target), YEAR).is_sound
    assert CELLS[0] in CampaignLedger(open_object_store(str(target), {}), YEAR).done()


def test_a_cell_that_somebody_makes_in_the_copy_is_left_to_them(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    _campaign(source, done=1)
    with held(open_object_store(str(target), {}), YEAR, CELLS[0], run="there", lease_s=600):
        open_object_store(str(target), {}).put(
            "campaign.json", open_object_store(str(source), {}).get("campaign.json") or b""
        )
        assert _copied(source, target).n_cells == 0
    assert _copied(source, target).n_cells == 1


def test_products_that_the_campaign_has_no_more_go_from_the_copy(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    objects = _campaign(source, done=1).objects
    for name in ("one", "two"):
        objects.put(f"{YEAR.products}/{name}.parquet", b"rows")
    _copied(source, target)
    objects.delete(f"{YEAR.products}/two.parquet")
    _copied(source, target)
    assert _contents(target) == _contents(source)


def test_a_damaged_cell_is_left_out_and_named(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    output = _campaign(source)
    mark = CampaignLedger(output.objects, YEAR).mark(CELLS[1])
    assert mark is not None
    output.objects.put(next(iter(mark.objects)), b"other")
    copied = _copied(source, target)
    assert copied.damaged == {PLAN.year: (CELLS[1],)}
    assert copied.n_cells == 3
    assert "left out, such as r300c-209" in str(copied)
    assert CELLS[1] not in CampaignLedger(open_object_store(str(target), {}), YEAR).done()


def _other_campaign(place: Path) -> None:
    _planned(plan_of(2, 2), place)


def _own_year(place: Path) -> None:
    _planned(plan_of(2, 3, year=2031), place)


@pytest.mark.parametrize(
    ("prepare", "error", "match"),
    [
        (lambda place: (place / "notes.txt").write_text("mine"), OutputExistsError, "is not empty.*notes.txt"),
        (_other_campaign, CampaignError, "holds another campaign"),
        (_own_year, CampaignError, "has a year 2031"),
    ],
    ids=["files", "campaign", "year"],
)
def test_another_place_is_refused_before_the_first_byte(
    tmp_path: Path, prepare: Callable[[Path], object], error: type[RtsxError], match: str
) -> None:
    _campaign(tmp_path / "a", done=1)
    target = tmp_path / "b"
    target.mkdir()
    prepare(target)
    before = _contents(target)
    with pytest.raises(error, match=match):
        _copied(tmp_path / "a", target)
    assert _contents(target) == before


@pytest.mark.parametrize("other", ["a", "a/copy", "a/../a/", "."])
def test_a_place_in_the_campaign_is_refused(tmp_path: Path, other: str) -> None:
    _campaign(tmp_path / "a", done=1)
    before = _contents(tmp_path / "a")
    with pytest.raises(CampaignError, match="one place, or one lies in the other"):
        _copied(tmp_path / "a", f"{tmp_path}/{other}")
    assert _contents(tmp_path / "a") == before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"endpoint_url": "http://store.example:80"}, {"endpoint_url": "HTTP://Store.Example/"}),
        (
            {"endpoint_url": "https://store.example/s3/"},
            {"client_kwargs": {"endpoint_url": "https://store.example:443/s3"}},
        ),
        (
            {"endpoint_url": "http://store.example:9000", "key": "a"},
            {"endpoint_url": "http://store.example:9000", "key": "b"},
        ),
        ({"endpoint_url": "https://s3.eu-central-1.amazonaws.com"}, {}),
        ({}, {"endpoint_url": "http://env.example"}),
    ],
)
def test_a_place_in_the_campaign_is_refused_however_its_service_is_written(
    one: dict[str, Any], other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "http://env.example" in other.values():
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://ENV.example/")
    for here, there in ((one, other), (other, one)):
        with pytest.raises(CampaignError, match="one place, or one lies in the other"):
            copy_campaign("s3://maps/a", "s3://maps/a/b", storage_options=here, to_options=there, years=None)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A campaign of a cell."""
    _campaign(tmp_path / "a", done=1)
    return tmp_path / "a"


def test_a_place_without_rights_is_refused(finished: Path, without_rights: Path) -> None:
    with pytest.raises(OutputNotWritableError, match="cannot be written"):
        _copied(finished, without_rights / "b")


def test_a_disk_without_room_is_refused(finished: Path, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(2 * 4096)
    with pytest.raises(OutputNotWritableError, match=r"needs .* GB, and its disk has"):
        _copied(finished, disk)
    assert list(disk.iterdir()) == []


def test_years_that_are_not_planned_are_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="no plan of 1999; planned years: 2024"):
        _copied(finished, tmp_path / "b", years=[1999])
    assert not (tmp_path / "b").exists()


def test_a_store_that_gives_back_other_bytes_is_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _campaign(tmp_path / "a", done=1)
    target = tmp_path / "b"

    class Forgetful:
        def __init__(self, store: ObjectStore) -> None:
            self.store = store

        def __getattr__(self, name: str) -> object:
            return getattr(self.store, name)

        def get(self, key: str) -> bytes | None:
            content = self.store.get(key)
            return b"" if content and "/c/" in key else content

    def opened(place: str, options: dict[str, object]) -> object:
        store = open_object_store(place, options)
        return Forgetful(store) if place == str(target) else store

    monkeypatch.setattr("rtsx.campaign.copying.open_object_store", opened)
    with pytest.raises(OutputNotWritableError, match="gives back other bytes"):
        _copied(tmp_path / "a", target)
    assert CampaignLedger(open_object_store(str(target), {}), YEAR).done() == set()


def test_of_a_year_that_is_begun_meanwhile_the_copy_says_nothing_or_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_SMALLEST_TOP_LEVEL", 64)
    plan = plan_of(2, 4)
    for n in range(10, 200, 30):
        source, target = f"memory://copied/{n}/a", f"memory://copied/{n}/b"
        write_plan(Output(plan, source).objects, plan)
        collect_year(source, plan, stac=False)

        def begin(source: str = source) -> None:
            later = plan_of(2, 4, year=2025)
            write_plan(Output(later, source).objects, later)
            collect_year(source, later, stac=False)

        meanwhile = Meanwhile(n, begin)
        with meanwhile.happening():
            copy_campaign(source, target, storage_options={}, to_options={}, years=[2024])
        if not meanwhile.has_happened:
            assert n > 20, "there were writes to come between"
            return
        for group in ("", "/2x"):
            days = zarr.open_group(f"{target}/map.zarr{group}", mode="r")["time"][:]
            assert np.datetime_as_string(days.astype("M8[D]"), "Y").tolist() in (["2024"], ["2024", "2025"])
    raise AssertionError("never ended")
