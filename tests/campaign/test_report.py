"""The report: one page that is whole, well-formed and tells what is there, whatever names contain."""

from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from rtsx.campaign.costs import Costs, UnitCost
from rtsx.campaign.recipe import Machine, Prices
from rtsx.campaign.records import CommitRecord, RunRecord
from rtsx.campaign.report import _costs, collect_records, report_page, states_of, unit_costs
from rtsx.campaign.report_map import Coast, place_names
from rtsx.campaign.status import status_of
from rtsx.pages import figure
from tests.campaign.records import NOW, a_failure, a_lease, a_mark, a_plan, a_run

UNPRICED = Prices()


class Page(HTMLParser):
    """Collects elements and text, and refuses elements that close another one."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def page(*, name: str = "arctic", prices: Prices = UNPRICED, damaged: tuple[str, ...] = (), **changes: Any) -> Page:
    plan = a_plan(rows=2, columns=4, name=name)
    marks = [a_mark((0, 0)), a_mark((0, 1), state="empty", seconds=5.0), a_mark((0, 2), gaps=("scenes/a", "scenes/b"))]
    facts: dict[str, Any] = {
        "marked": {mark.cell: NOW - timedelta(minutes=5) for mark in marks},
        "leases": (a_lease((1, 0), ends_in_s=60),),
        "failures": {(1, 1): a_failure((1, 1))},
        "runs": (a_run(), a_run(run="run-2", ended=True, stopped="the disk is full")),
    } | changes
    status = status_of(plan, prices=prices, now=NOW, **facts)
    text = report_page(
        plan,
        replace(status, damaged=damaged),
        collect_records(marks),
        runs=facts["runs"],
        drift=None,
        stored={"probability": 2_500_000_000, "marks": 4096},
        prices=prices,
        coast=Coast.installed(),
        looks=(),
        now=NOW,
    )
    return Page(text)


def test_it_tells_what_there_is_to_tell() -> None:
    made = page(prices=Prices(device_hour=3.0, gigabyte_month=0.1, currency="USD"))
    for said in (
        "arctic 2024",
        "3 of 8 cells are done",
        "1 were set aside",
        "1 are running",
        "3 are left",
        "mapped: 2",
        "empty: 1",
        "running: 1",
        "failed: 1",
        "left: 3",
        "r001c001: failed, at 89.987° N, 0.000° E: CubeError: scene.tif cannot be read",
        "Traceback (most recent call last)",
        "the disk is full",
        "not ended, or killed",
        "12.00",  # two runs of two hours at 3.0
        "2.500 GB",
        "0.25 a month",
        "scenes/b",
        "tcp://node-1:4000",
        a_plan(rows=2, columns=4).digest,
    ):
        assert said in made.text, said


def test_whatever_names_a_cell_names_its_place() -> None:
    plan = a_plan(rows=2, columns=4)
    places = place_names(plan, [(0, 0), (0, 2), (1, 1), (1, 3)])
    assert len(set(places.values())) == 4
    damaged = "years/2024/marks/r001c003.json is no commit mark"
    text = page(damaged=(damaged, "r00001c001 is no name")).text
    for cell, section in (
        ((0, 0), "Slowest"),
        ((0, 0), "Hardware"),
        ((1, 1), "Failures"),
        ((1, 3), "Damaged"),
        ((0, 2), "left out"),
    ):
        assert places[cell] in text.partition(section)[2].partition("Runs")[0], section


def test_it_needs_nothing_else() -> None:
    made = page()
    assert {"script", "link", "iframe", "img"}.isdisjoint(tag for tag, _ in made.elements)
    assert not any(name in attributes for _, attributes in made.elements for name in ("src", "href", "onclick"))
    assert made.count("svg") == 5  # the map and its surroundings, each with what its frame cuts off, and the throughput


def test_nothing_in_it_is_read_as_markup() -> None:
    bad = '<script>alert("x")</script>&<b>'
    made = page(
        name=bad,
        failures={(1, 1): a_failure((1, 1), error=bad, message=bad, traceback=bad, worker=bad)},
        runs=(a_run(stopped=bad, host=bad),),
        prices=Prices(currency=bad),
    )
    assert made.count("script") == made.count("b") == 0
    assert made.text.count(bad) >= 7


def test_a_campaign_that_has_not_begun_has_a_page() -> None:
    plan = a_plan(rows=1, columns=1)
    status = status_of(plan, marked={}, leases=(), failures={}, runs=(), prices=Prices(), now=NOW)
    text = report_page(
        plan,
        status,
        collect_records([]),
        runs=(),
        drift=None,
        stored={},
        prices=Prices(),
        coast=None,
        looks=(),
        now=NOW,
    )
    assert "0 of 1 cells are done; none was set aside" in Page(text).text


def test_every_cell_has_the_state_that_counts() -> None:
    plan = a_plan(rows=1, columns=5)
    status = status_of(
        plan,
        marked={(0, 0): NOW, (0, 1): NOW},
        leases=(a_lease((0, 2), ends_in_s=9),),
        failures={(0, 3): a_failure((0, 3))},
        runs=(),
        prices=Prices(),
        now=NOW,
    )
    marks = collect_records([a_mark((0, 0)), a_mark((0, 1), state="empty")])
    assert list(states_of(plan, status, marks).values()) == ["mapped", "empty", "running", "failed", "left"]


def test_slowest_cells_workers_and_versions_are_gathered() -> None:
    marks = [
        a_mark((0, n), seconds=float(n), worker=f"w{n % 2}", versions={"torch": "2" if n < 12 else "3"})
        for n in range(13)
    ]
    facts = collect_records(iter(marks))
    assert facts.slowest[0] == ((0, 12), 12.0)
    assert len(facts.slowest) == 10
    assert facts.workers == {"w0": (7, 42.0), "w1": (6, 36.0)}
    assert facts.versions == {"torch": ("2", "3")}
    assert facts.spans[:, 1].tolist() == [NOW.timestamp()] * 13
    assert (facts.median_seconds, facts.valid.tolist()) == (6.0, [4000] * 13)


def test_costs_are_told_for_a_cell_and_for_an_area() -> None:
    plan = a_plan(rows=2, columns=4)
    prices = Prices(machines=(Machine(name="desk", hour=0.5, hardware="CPU"),), gigabyte_month=0.1, currency="USD")
    marks = [a_mark(cell, hardware="CPU", seconds=60.0 + 60 * n) for n, cell in enumerate([(0, 0), (0, 1), (1, 1)])]
    runs = [a_run(hardware={"CPU": 7200.0}), a_run(run="b", hardware={"NVIDIA T4": 3600.0}, worker_seconds=3600.0)]

    def rows(marks: list[CommitRecord], runs: list[RunRecord]) -> dict[str, tuple[object, object]]:
        costs = Costs.paid(runs, prices)
        found = _costs(plan, costs, collect_records(marks), stored={"marks": 10**9}, prices=prices)
        return {str(name): (amount, price) for name, amount, price in found}

    told = rows(marks, runs)
    km2 = plan.areas_m2([mark.cell for mark in marks]).sum() * 4000 / 64**2 / 1e6
    assert told["Worker-hours on CPU (desk)"] == (2.0, "1.00")
    assert told["Worker-hours on NVIDIA T4"] == (1.0, "no price given")
    assert told["Worker-hours of all runs"] == (3.0, "at least 1.00")
    assert told["Hours of cells that are done"] == (0.1, "")
    assert told["A cell that is done"] == ("", "at least 0.33 USD, from 3 cells")
    # Of 6 minutes of cells, 120 were paid.
    assert told["Nine in ten cells on CPU (desk)"] == ("1,320 to 3,480 s of 3", "0.1833 to 0.4833")
    assert told["10⁶ km² of valid ground"] == (
        f"from {figure(km2)} km²",
        f"at least {1e6 / km2:,.2f} USD, from 3 cells",
    )
    long = rows(marks[:1], [a_run(hardware={"CPU": 61030.0}, worker_seconds=61030.0)])
    assert long["Nine in ten cells on CPU (desk)"] == ("61,030 to 61,030 s of 1", "8.476 to 8.476")
    assert told["Stored"] == ("1.000 GB", "0.10 a month")
    none = rows([], [])
    unknown = "not known: nothing is done"
    assert none["A cell that is done"] == ("", unknown)
    assert none["10⁶ km² of valid ground"] == ("from 0 km²", unknown)


def test_prices_of_a_cell_and_an_area_have_errors_from_what_each_cell_took() -> None:
    plan = a_plan(rows=3, columns=4)
    hour = {"CPU": 0.5, "NVIDIA T4": 4.0}
    prices = Prices(machines=tuple(Machine(name=name, hour=price, hardware=name) for name, price in hour.items()))
    marks = [
        a_mark(cell, hardware=("CPU", "NVIDIA T4")[n % 3 == 0], seconds=10.0 + n * n, n_valid=300 * n)
        for n, cell in enumerate(reversed([*plan.cells]))
    ]
    # Of the T4 more was paid than its cells have taken.
    costs = Costs.paid([a_run(hardware={"CPU": 7200.0, "NVIDIA T4": 3600.0}, worker_seconds=10800.0)], prices)
    cell, area = unit_costs(plan, costs, collect_records(marks), prices=prices)
    own = np.array([mark.seconds / 3600 * hour[mark.hardware] for mark in marks])
    spent = own * 5.0 / own.sum()
    km2 = plan.areas_m2([mark.cell for mark in marks]) * [mark.n_valid / 64**2 for mark in marks] / 1e12
    assert (cell.mean, cell.error) == pytest.approx((5 / 12, spent.std(ddof=1) / 12**0.5))
    residuals = spent - 5 / km2.sum() * km2
    assert (area.mean, area.error) == pytest.approx((5 / km2.sum(), residuals.std(ddof=1) / 12**0.5 / km2.mean()))


@pytest.mark.parametrize("named", ["CPU", "NVIDIA T4"])
def test_marks_without_hardware_count_as_all_others_do_or_leave_no_error(named: str) -> None:
    plan = a_plan(rows=3, columns=4)
    prices = Prices(machines=(Machine(name="desk", hour=1.0, hardware="CPU"),))
    costs = Costs.paid([a_run(hardware={"CPU": 7200.0})], prices)

    def cell(*hardware: str) -> UnitCost:
        marks = [a_mark(one, hardware=hardware[n % 2], seconds=60.0 + n) for n, one in enumerate(plan.cells)]
        return unit_costs(plan, costs, collect_records(marks), prices=prices)[0]

    known, unknown = cell("CPU", "CPU"), cell("", named)
    assert unknown.mean == known.mean == pytest.approx(2 / 12)
    assert unknown.error == (known.error if named == "CPU" else None)


def test_cells_are_named_by_what_computed_them() -> None:
    plan = a_plan(rows=1, columns=3)
    marks = [a_mark((0, 0), hardware="CPU"), a_mark((0, 1), hardware="NVIDIA T4")]
    marks += [a_mark((0, 2), hardware="NVIDIA L4", state="empty")]  # of which nothing is in the map
    status = status_of(plan, marked={}, leases=(), failures={}, runs=(), prices=Prices(), now=NOW)
    statistics = collect_records(marks)
    page = report_page(
        plan, status, statistics, runs=(), stored={}, prices=Prices(), drift=None, coast=None, looks=(), now=NOW
    )
    text = Page(page).text
    assert "computed with CPU and NVIDIA T4, whose probabilities differ" in text
    assert "r000c001" in text
    assert "NVIDIA L4" not in text.partition("Hardware")[2].partition("Failures")[0]
