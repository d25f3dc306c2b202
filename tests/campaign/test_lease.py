"""Who is at work on a cell."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, Lease, LeaseTaken, acquire, held, renew
from rtsx.errors import CampaignError
from rtsx.storage.object_store import MemoryObjects, ObjectStore, open_object_store
from tests.campaign.conftest import S3

YEAR = YearLayout(2024)
CELL = (3, -5)


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = datetime(2024, 7, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Hands:
    return Hands()


def _keys(objects: ObjectStore) -> list[str]:
    return sorted(found.key for found in objects.list(YEAR.leases))


def test_a_lease_lasts_as_long_as_its_block(clock: Hands) -> None:
    objects = MemoryObjects()
    with held(objects, YEAR, CELL, run="a", lease_s=60, clock=clock) as lease:
        assert (lease.cell, lease.run, lease.generation) == (CELL, "a", 1)
        assert lease.expires == clock.now + timedelta(seconds=60)
        assert CampaignLedger(objects, YEAR).leases() == {CELL: lease}
    assert _keys(objects) == []


def test_a_lease_is_given_back_after_an_error(clock: Hands) -> None:
    objects = MemoryObjects()
    with pytest.raises(ZeroDivisionError), held(objects, YEAR, CELL, run="a", lease_s=60, clock=clock):
        raise ZeroDivisionError
    assert _keys(objects) == []


def test_another_run_is_told_when_to_come_back(clock: Hands) -> None:
    objects = MemoryObjects()
    with held(objects, YEAR, CELL, run="a", lease_s=60, clock=clock):
        clock.wait(20)
        with (
            pytest.raises(LeaseTaken, match=r"r003c-005 is being run .* in run a until 00:01:00 UTC") as error,
            held(objects, YEAR, CELL, run="b", lease_s=60, clock=clock),
        ):
            pass
        assert error.value.free_after_s == 40
        assert len(_keys(objects)) == 1
        with held(objects, YEAR, (3, -4), run="b", lease_s=60, clock=clock):
            pass


def test_a_lease_that_has_ended_is_taken_over_once(clock: Hands) -> None:
    objects = MemoryObjects()
    dead = acquire(objects, YEAR, CELL, run="a", lease_s=60, clock=clock)
    clock.wait(60)
    with held(objects, YEAR, CELL, run="b", lease_s=60, clock=clock) as lease:
        assert lease.generation == 2
        with pytest.raises(LeaseTaken):
            acquire(objects, YEAR, CELL, run="c", lease_s=60, clock=clock)
        assert CampaignLedger(objects, YEAR).leases()[CELL].run == "b"
        assert renew(objects, YEAR, dead, lease_s=60, clock=clock) is not None  # its own file; the other one counts
    assert _keys(objects) == []


def test_the_same_run_takes_over_at_once(clock: Hands) -> None:
    objects = MemoryObjects()
    lost = acquire(objects, YEAR, CELL, run="a", lease_s=60, clock=clock)
    with held(objects, YEAR, CELL, run="a", lease_s=60, clock=clock) as lease:
        assert (lost.generation, lease.generation) == (1, 2)
    assert _keys(objects) == []


def test_a_renewal_moves_the_end(clock: Hands) -> None:
    objects = MemoryObjects()
    lease = acquire(objects, YEAR, CELL, run="a", lease_s=60, clock=clock)
    clock.wait(40)
    assert renew(objects, YEAR, lease, lease_s=60, clock=clock)
    clock.wait(40)
    with pytest.raises(LeaseTaken) as error:
        acquire(objects, YEAR, CELL, run="b", lease_s=60, clock=clock)
    assert error.value.free_after_s == 20


def test_a_lease_that_is_another_s_is_neither_renewed_nor_given_back(clock: Hands) -> None:
    objects = MemoryObjects()
    with held(objects, YEAR, CELL, run="a", lease_s=60, clock=clock) as lease:
        objects.delete(YEAR.lease(CELL, 1))
        assert renew(objects, YEAR, lease, lease_s=60, clock=clock) is None
        theirs = acquire(objects, YEAR, CELL, run="b", lease_s=60, clock=clock)
        assert renew(objects, YEAR, lease, lease_s=60, clock=clock) is None
    assert CampaignLedger(objects, YEAR).leases() == {CELL: theirs}


def test_a_lease_is_renewed_while_its_block_runs() -> None:
    renewals = threading.Semaphore(0)

    class Watched(MemoryObjects):
        def put(self, key: str, content: bytes) -> None:
            super().put(key, content)
            renewals.release()

    objects = Watched()
    with held(objects, YEAR, CELL, run="a", lease_s=0.03) as lease:
        for _ in range(3):
            assert renewals.acquire(timeout=30)
        assert CampaignLedger(objects, YEAR).leases()[CELL].expires > lease.expires
    assert _keys(objects) == []


def test_a_renewal_that_fails_does_not_end_the_block() -> None:
    failures = threading.Semaphore(0)

    class Broken(MemoryObjects):
        def put(self, key: str, content: bytes) -> None:
            failures.release()
            raise ConnectionResetError

    objects = Broken()
    with held(objects, YEAR, CELL, run="a", lease_s=0.03):
        for _ in range(2):
            assert failures.acquire(timeout=30)
    assert _keys(objects) == []


def test_what_is_no_lease_holds_nothing(clock: Hands) -> None:
    objects = MemoryObjects()
    objects.put(YEAR.lease(CELL, 1), b"half of a le")
    assert acquire(objects, YEAR, CELL, run="a", lease_s=60, clock=clock).generation == 2


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_one_of_many_runs_holds_a_cell(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    objects = open_object_store(str(tmp_path), {})
    if where == "s3":
        s3: S3 = request.getfixturevalue("s3")
        objects = open_object_store(s3.url, s3.options)
    ready = threading.Barrier(8)

    def contend(number: int) -> bool:
        ready.wait()
        try:
            acquire(objects, YEAR, CELL, run=f"run {number}", lease_s=600)
        except LeaseTaken:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(contend, range(8))).count(True) == 1


def test_a_lease_comes_back_equal_and_others_are_told() -> None:
    when = datetime(2024, 7, 1, 12, 30, 0, 5, UTC)
    lease = Lease(cell=CELL, generation=2, run="a", holder="h", taken=when, expires=when)
    assert Lease.from_json(lease.to_json()) == lease
    for text in ("", "{}", "[]", '{"cell": 3}'):
        with pytest.raises(CampaignError, match="no lease"):
            Lease.from_json(text)
