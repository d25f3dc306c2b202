"""How far a campaign is, from what lies in its output."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger
from rtsx.campaign.recipe import Machine, Prices
from rtsx.campaign.status import CampaignStatus, campaign_status, status_of
from rtsx.storage.object_store import MemoryObjects
from tests.campaign.records import NOW, a_failure, a_lease, a_mark, a_plan, a_run

PLAN = a_plan(rows=2, columns=4)


def status(**changes: Any) -> CampaignStatus:
    facts = {"marked": {}, "leases": (), "failures": {}, "runs": (), "prices": Prices(), "now": NOW}
    return status_of(PLAN, **(facts | changes))


def marked(minutes_ago: list[float]) -> dict[tuple[int, int], datetime]:
    return {cell: NOW - timedelta(minutes=minutes) for cell, minutes in zip(PLAN.cells, minutes_ago, strict=False)}


def test_before_the_first_run_all_is_left() -> None:
    fresh = status()
    assert (fresh.cells, fresh.done, fresh.running, dict(fresh.failed), fresh.left) == (8, 0, (), {}, 8)
    assert (fresh.started, fresh.finished, fresh.rate_per_hour, fresh.time_to_go_s) == ("", "", None, None)
    assert (fresh.device_hours, fresh.costs.total, fresh.is_complete) == (0.0, None, False)
    assert str(fresh) == "arctic 2024: 0 of 8 cells done (0.0%)\n  running 0, failed 0, left 8"


def test_every_cell_counts_once() -> None:
    found = status(
        marked=marked([50, 40, 30]),
        # One lease of a cell that is done, one that has expired, one of a cell of no plan.
        leases=(
            a_lease((0, 0), ends_in_s=9),
            a_lease((1, 0), ends_in_s=9),
            a_lease((1, 1), ends_in_s=-1),
            a_lease((7, 7), ends_in_s=9),
        ),
        failures={(1, 2): a_failure((1, 2)), (0, 1): a_failure((0, 1)), (9, 9): a_failure((9, 9))},
        runs=(a_run(),),
    )
    assert (found.done, found.running, list(found.failed), found.left) == (3, ((1, 0),), [(1, 2)], 3)
    assert found.done + len(found.running) + len(found.failed) + found.left == found.cells


def test_rate_and_time_to_go_come_from_the_last_hour() -> None:
    found = status(
        marked=marked([300, 240, 50, 20]), leases=(a_lease((1, 0), ends_in_s=9),), runs=(a_run(started=_ago(hours=5)),)
    )
    assert found.rate_per_hour == 2.0
    assert found.time_to_go_s == 4 / 2.0 * 3600  # cells that run are not done


def test_a_young_run_is_rated_over_its_own_time() -> None:
    runs = (a_run(run="a", started=_ago(hours=9), ended=True), a_run(run="b", started=_ago(minutes=30)))
    found = status(marked=marked([40, 20, 10]), leases=(a_lease((1, 0), ends_in_s=9),), runs=runs)
    assert found.rate_per_hour == 4.0
    assert found.started == _ago(hours=9)


def test_nothing_that_stands_still_has_a_rate() -> None:
    assert status(marked=marked([1, 2]), runs=(a_run(),)).rate_per_hour is None


def test_costs_are_those_of_all_runs() -> None:
    runs = (a_run(run="a"), a_run(run="b", worker_seconds=1800.0))
    priced = status(runs=runs, prices=Prices(device_hour=3.0, currency="USD"))
    assert (priced.device_hours, priced.costs.total) == (2.5, 7.5)
    assert "2.50 device-hours, 7.50 USD\n" in f"{priced}\n"
    half = status(runs=runs, marked=marked([9, 8, 7, 6]), prices=Prices(device_hour=3.0))
    assert "2.50 device-hours, 7.50 EUR, 1.88 EUR a cell that is done" in str(half)
    assert "2.50 device-hours\n" in f"{status(runs=runs)}\n"


def test_hours_without_a_price_and_kinds_of_hardware_are_named() -> None:
    runs = (
        a_run(run="a", hardware={"CPU": 7200.0}),
        a_run(run="b", hardware={"NVIDIA T4": 7200.0}),
        a_run(run="c", hardware={"NVIDIA L4": 7200.0}, done=0),  # which has made nothing of the map
    )
    text = str(status(runs=runs, prices=Prices(machines=(Machine(name="desk", hour=0.5, hardware="CPU"),))))
    assert (
        "6.00 device-hours, 1.00 EUR, and 2.00 hours of NVIDIA L4 and 2.00 hours of NVIDIA T4 without a price" in text
    )
    assert "Cells of this map are computed with CPU and NVIDIA T4, whose probabilities differ" in text
    assert "differ" not in str(status(runs=runs[:1]))


def test_all_marks_are_the_end() -> None:
    found = status(marked=marked([8, 7, 6, 5, 4, 3, 2, 1]), runs=(a_run(),))
    assert (found.is_complete, found.left, found.finished) == (True, 0, _ago(minutes=1))


@pytest.mark.parametrize(("ended", "done", "minutes"), [(True, 8, 300), (False, 8, 1), (True, 0, 1)])
def test_a_copy_was_finished_when_its_last_run_was(ended: bool, done: int, minutes: int) -> None:
    run = a_run(written=_ago(minutes=300), ended=ended, done=done)
    again = a_run(run="again", ended=True, done=0)  # came to no cell
    assert status(marked=marked([3, 2, 1, 1, 1, 1, 1, 1]), runs=(run, again)).finished == _ago(minutes=minutes)


def test_the_text_names_failures() -> None:
    found = status(failures={(1, 2): a_failure((1, 2))})
    assert "  r001c002 CubeError: scene.tif cannot be read" in str(found)


def test_it_is_read_from_the_output_without_a_mark() -> None:
    class Closed(MemoryObjects):
        """Gives out everything but marks."""

        def get(self, key: str) -> bytes | None:
            assert "/marks/" not in key
            return super().get(key)

    objects, layout = Closed(), YearLayout(2024)
    ledger = CampaignLedger(objects, layout)
    for cell in [(0, 0), (0, 1)]:
        ledger.commit(a_mark(cell))
    ledger.quarantine(a_failure((1, 1)))
    lease = replace(a_lease((1, 0), ends_in_s=0), expires=datetime.now().astimezone() + timedelta(hours=1))
    objects.put(layout.lease((1, 0), 1), lease.to_json().encode())
    CampaignLedger(objects, layout).note_run(
        a_run(started=(datetime.now().astimezone() - timedelta(minutes=30)).isoformat())
    )
    found = campaign_status(objects, PLAN, prices=Prices())
    assert (found.done, found.running, list(found.failed), found.left) == (2, ((1, 0),), [(1, 1)], 4)
    assert found.rate_per_hour == pytest.approx(4.0, rel=0.01)


def _ago(**spans: float) -> str:
    return (NOW - timedelta(**spans)).isoformat()
