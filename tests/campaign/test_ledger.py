"""What is done, set aside and being worked at."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, acquire
from rtsx.campaign.records import CommitRecord, Failure, InputVersion
from rtsx.errors import CampaignError
from rtsx.storage.object_store import MemoryObjects, ObjectStore, open_object_store
from tests.campaign.conftest import S3

YEAR = YearLayout(2024)

MARK = CommitRecord(
    cell=(0, -1),
    plan_digest="p",
    state="mapped",
    objects={"map.zarr/valid/c/0/0/0": "00"},
    inputs=(InputVersion("dem", "tile-1", "etag"),),
    bundles=("b",),
    versions={"rtsx": "0.1"},
    n_valid=10,
    n_outlines=2,
    seconds=1.5,
    peak_memory_bytes=10**9,
    started="2024-07-01T00:00:00+00:00",
    finished="2024-07-01T00:00:02+00:00",
    run="r",
    worker="w",
)
FAILURE = Failure(
    cell=(0, -1),
    kind="lasting",
    error="CubeError",
    message="bad",
    traceback="",
    attempts=1,
    when="2024-07-01T00:00:00+00:00",
    run="r",
    worker="w",
)


@pytest.fixture(params=["disk", "s3", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "s3":
        s3: S3 = request.getfixturevalue("s3")
        return open_object_store(s3.url, s3.options)
    return open_object_store(str(tmp_path), {}) if request.param == "disk" else MemoryObjects()


def test_marks_come_back_equal(objects: ObjectStore) -> None:
    ledger = CampaignLedger(objects, YEAR)
    marks = [replace(MARK, cell=(iy, ix), n_valid=iy) for iy in (-1, 0, 12) for ix in (-1000, 7)]
    assert all(ledger.commit(mark) for mark in marks)
    assert ledger.done() == {mark.cell for mark in marks}
    assert sorted(ledger.marks(), key=lambda mark: mark.cell) == marks
    assert list(ledger.marks([(0, 7), (5, 5)])) == [replace(MARK, cell=(0, 7), n_valid=0)]
    assert ledger.mark((12, -1000)) == replace(MARK, cell=(12, -1000), n_valid=12)
    assert ledger.mark((5, 5)) is None


def test_the_first_mark_stays(objects: ObjectStore) -> None:
    ledger = CampaignLedger(objects, YEAR)
    assert ledger.commit(MARK)
    assert not ledger.commit(replace(MARK, run="another"))
    assert ledger.mark(MARK.cell) == MARK


def test_what_a_mark_names_is_on_the_disk_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = open_object_store(str(tmp_path), {})
    (key,) = MARK.objects
    shard, mark = tmp_path / key, tmp_path / YEAR.mark(MARK.cell)
    synced, fsync = [], os.fsync

    def watched(handle: int) -> None:
        name = Path(f"/proc/self/fd/{handle}").readlink()
        synced.append((name, mark.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    objects.put(key, b"by Zarr")
    CampaignLedger(objects, YEAR).commit(MARK)
    assert [late for name, late in synced if name.name == "draft"] == [
        False,
        False,
    ]  # the bytes of the shard and of the mark
    assert [(name, late) for name, late in synced if name.name != "draft"] == [
        (shard.parent, False),
        (mark.parent, True),
    ]


def test_a_retired_mark_is_kept_and_its_cell_is_free(objects: ObjectStore) -> None:
    ledger = CampaignLedger(objects, YEAR)
    for run in ("one", "two"):
        assert ledger.commit(replace(MARK, run=run))
        ledger.retire(MARK.cell)
    ledger.retire(MARK.cell)
    assert ledger.done() == set()
    kept = [objects.get(found.key) for found in objects.list(YEAR.retired)]
    assert {CommitRecord.from_json(text.decode()).run for text in kept if text is not None} == {"one", "two"}
    assert {YEAR.address_of(found.key) for found in objects.list(YEAR.retired)} == {MARK.cell}


def test_failures_are_set_aside_and_forgiven(objects: ObjectStore) -> None:
    ledger = CampaignLedger(objects, YEAR)
    failures = {(iy, 0): replace(FAILURE, cell=(iy, 0)) for iy in range(4)}
    for failure in failures.values():
        ledger.quarantine(failure)
    assert ledger.failures() == failures
    again = replace(failures[0, 0], attempts=4)
    ledger.quarantine(again)
    assert ledger.failures()[0, 0] == again
    assert ledger.set_aside_cells() == set(failures)
    assert ledger.reset([(0, 0), (9, 9)]) == 1
    assert ledger.reset() == 3
    assert ledger.failures() == {}


def test_the_newest_lease_of_a_cell_counts(objects: ObjectStore) -> None:
    ledger = CampaignLedger(objects, YEAR)
    for run in ("a", "a"):
        acquire(objects, YEAR, (0, 0), run=run, lease_s=60)
    lease = acquire(objects, YEAR, (0, 0), run="a", lease_s=60)
    other = acquire(objects, YEAR, (-3, 1), run="b", lease_s=60)
    assert ledger.leases() == {(0, 0): lease, (-3, 1): other}


def test_years_know_nothing_of_each_other(objects: ObjectStore) -> None:
    assert CampaignLedger(objects, YEAR).commit(MARK)
    assert CampaignLedger(objects, YearLayout(2025)).done() == set()


def test_what_is_no_mark_is_told(objects: ObjectStore) -> None:
    ledger = CampaignLedger(objects, YEAR)
    for content in (b"", MARK.to_json().encode()[:40], b"\xff"):
        objects.put(YEAR.mark((0, -1)), content)
        with pytest.raises(CampaignError, match=r"r000c-001\.json cannot be read.*Verify"):
            ledger.mark((0, -1))
        with pytest.raises(CampaignError, match="cannot be read"):
            list(ledger.marks())


def test_the_mark_of_another_cell_is_told(objects: ObjectStore) -> None:
    objects.put(YEAR.mark((5, 5)), MARK.to_json().encode())
    with pytest.raises(CampaignError, match=r"cell \(0, -1\), not of \(5, 5\)"):
        CampaignLedger(objects, YEAR).mark((5, 5))


def test_what_lies_beside_the_marks_is_nobody_s(objects: ObjectStore) -> None:
    objects.put(f"{YEAR.marks}/README.json", b"")
    objects.put(f"{YEAR.marks}/r000c000.json.bak", b"")
    assert CampaignLedger(objects, YEAR).done() == set()


def test_many_marks_are_listed_without_being_read() -> None:
    class Unread(MemoryObjects):
        def get(self, key: str) -> bytes | None:
            raise AssertionError("nothing should be read")

    objects = Unread()
    cells = {(iy, ix) for iy in range(-70, 70) for ix in range(-1070, -930)}
    for cell in cells:
        objects.put(YEAR.mark(cell), b"")
    assert CampaignLedger(objects, YEAR).done() == cells
