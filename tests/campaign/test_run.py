"""The record of a run: there from its first second, true at its end, and never the reason why a run ends."""

from collections.abc import Iterator

import numpy as np
import pytest
from distributed import Client

from rtsx.campaign.cells import CellTable
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, planned_years, read_prices, write_prices
from rtsx.campaign.recipe import Prices, RetrySpec
from rtsx.campaign.records import RunSummary
from rtsx.campaign.run import cells_among, run_recorded
from rtsx.campaign.task_queue import CellResult, NoOp
from rtsx.errors import CampaignError, OutputNotWritableError
from rtsx.storage.object_store import MemoryObjects
from tests.campaign.records import a_failure, a_plan
from tests.campaign.small_campaign import thread_client

LAYOUT = YearLayout(2024)
PLAN = a_plan(rows=2, columns=3)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with thread_client() as client:
        yield client


class Poisoned:
    """Fails in one cell."""

    def __call__(self, cell: tuple[int, int], attempt: int, run: str) -> CellResult:
        if cell == (1, 1):
            return CellResult(cell=cell, state="failed", failure=a_failure(cell))
        return CellResult(cell=cell, state="done")


def test_a_run_leaves_a_record_and_what_it_set_aside(client: Client) -> None:
    objects, told = MemoryObjects(), list[RunSummary]()
    ledger = CampaignLedger(objects, LAYOUT)
    summary = run_recorded(
        Poisoned(),
        PLAN.cells,
        plan=PLAN,
        ledger=CampaignLedger(objects, LAYOUT),
        client=client,
        retry=RetrySpec(),
        progress=told.append,
        on_set_aside=ledger.quarantine,
    )
    assert (summary.cells, summary.done, summary.complete) == (6, 5, False)
    assert list(ledger.failures()) == [(1, 1)]
    (record,) = CampaignLedger(objects, LAYOUT).runs()
    assert (record.run, record.plan_digest, record.done, record.set_aside) == (summary.run, PLAN.digest, 5, 1)
    assert record.ended
    assert told[-1].done == 5


def test_a_run_is_on_record_from_its_first_second_and_when_it_is_stopped(client: Client) -> None:
    objects = MemoryObjects()
    seen = []

    def stop(summary: RunSummary) -> None:
        seen.extend(CampaignLedger(objects, LAYOUT).runs())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recorded(
            NoOp(0.01),
            PLAN.cells,
            plan=PLAN,
            ledger=CampaignLedger(objects, LAYOUT),
            client=client,
            retry=RetrySpec(),
            progress=stop,
            on_set_aside=None,
        )
    assert not seen[0].ended
    (record,) = CampaignLedger(objects, LAYOUT).runs()
    assert (record.ended, record.stopped) == (True, "it was interrupted")


def test_a_record_that_cannot_be_written_ends_no_run(client: Client) -> None:
    class Full(MemoryObjects):
        def put(self, key: str, content: bytes) -> None:
            raise OutputNotWritableError("the disk is full")

    summary = run_recorded(
        NoOp(),
        PLAN.cells,
        plan=PLAN,
        ledger=CampaignLedger(Full(), LAYOUT),
        client=client,
        retry=RetrySpec(),
        progress=None,
        on_set_aside=None,
    )
    assert summary.complete


def test_cells_keep_their_order() -> None:
    table = CellTable(np.array([[3, 0], [1, 0], [2, 5]], np.int32))
    assert list(cells_among(table, lambda cell: cell[0] > 1)) == [(3, 0), (2, 5)]
    assert len(cells_among(table, lambda cell: False)) == 0


def test_prices_are_kept_by_year() -> None:
    objects = MemoryObjects()
    assert planned_years(objects) == []
    assert read_prices(objects, year=2024) == Prices()
    prices = Prices(device_hour=1.5, gigabyte_month=0.02, gigabyte_read=0.0, currency="CHF")
    write_prices(objects, prices, year=2025)
    write_prices(objects, Prices(), year=2023)
    assert planned_years(objects) == [2023, 2025]
    assert read_prices(objects, year=2025) == prices
    objects.put("settings/2025.json", b'{"prices": {"hour": 3}}')
    with pytest.raises(CampaignError, match=r"settings/2025\.json, prices\.hour: unknown name"):
        read_prices(objects, year=2025)
