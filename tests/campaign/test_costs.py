"""What a campaign costs, one sum for plan, status, watch and report."""

import random
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rtsx.campaign.costs import LEAST_CELLS, CellHours, Costs, MachineEstimate, UnitCost
from rtsx.campaign.estimate import CampaignEstimate, finished_cells
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, read_prices, write_prices
from rtsx.campaign.plan import write_plan
from rtsx.campaign.planning import plan_campaign
from rtsx.campaign.recipe import Machine, PredictionSpec, Prices
from rtsx.campaign.records import RunRecord
from rtsx.config import CampaignConfig
from rtsx.errors import CampaignError, ConfigError
from rtsx.storage.object_store import MemoryObjects
from tests.campaign.plans import FIRST, beside, make_recipe
from tests.campaign.records import a_mark, a_plan, a_run

CARD = "NVIDIA A100-SXM4-40GB"
NODE = Machine(name="node", hour=8.0, hardware=CARD, workers=4)
OTHER = Machine(name="other", hour=5.0, hardware=CARD)
LAPTOP = Machine(name="laptop", hour=0.5, hardware="CPU", seconds_per_tile=3.0)
PRICES = Prices(machines=(NODE, OTHER, LAPTOP), currency="EUR")
_names = count()


def run_on(hours: Mapping[str, float], **changes: object) -> RunRecord:
    """The record of a run that lasted so long on each kind of hardware."""
    seconds = {name: 3600 * spent for name, spent in hours.items()}
    return a_run(
        run=f"run-{next(_names)}",
        worker_seconds=sum(seconds.values()),
        hardware={name: spent for name, spent in seconds.items() if name},
        **changes,
    )


def test_every_hour_is_priced_by_what_it_was_computed_with() -> None:
    runs = [run_on({CARD: 3.0}, done=0, set_aside=8), run_on({CARD: 1.0, "CPU": 2.0}, ended=True)]
    costs = Costs.paid(runs, PRICES)
    assert [(one.hardware, one.hours, one.machine, one.cost) for one in costs.expenses] == [
        ("CPU", 2.0, "laptop", 1.0),
        (CARD, 4.0, "node", 8.0),  # of two machines with that card the first, four workers of which share its price
    ]
    assert (costs.hours, costs.total, costs.each(4), str(costs)) == (6.0, 9.0, 2.25, "9.00 EUR")


def test_what_has_no_price_is_named() -> None:
    costs = Costs.paid([run_on({CARD: 1.0, "NVIDIA T4": 2.0}), run_on({"": 0.5})], PRICES)
    assert (costs.total, [one.hardware for one in costs.unpriced]) == (2.0, ["", "NVIDIA T4"])
    assert str(costs) == "2.00 EUR, and 0.50 hours of hardware not known and 2.00 hours of NVIDIA T4 without a price"
    any_worker = Costs.paid([run_on({"NVIDIA T4": 2.0}), run_on({"": 0.5})], replace(PRICES, device_hour=1.0))
    assert (any_worker.total, any_worker.unpriced) == (2.5, ())


def test_hours_of_which_nobody_knows_cost_what_all_others_do() -> None:
    costs = Costs.paid([run_on({CARD: 2.0}), run_on({"": 0.5})], PRICES)
    assert [(one.name, one.cost) for one in costs.expenses] == [
        ("hardware not known (node)", 1.0),
        (f"{CARD} (node)", 4.0),
    ]
    assert (costs.total, costs.unpriced) == (5.0, ())


def test_a_year_without_records_has_cost_nothing_yet() -> None:
    costs = Costs.paid([], PRICES)
    assert (costs.hours, costs.total, costs.each(8), str(costs)) == (0.0, None, None, "")
    assert Costs.paid([run_on({CARD: 1.0})], PRICES).each(0) is None


_runs = st.lists(st.dictionaries(st.sampled_from([CARD, "CPU", "NVIDIA T4"]), st.floats(0.01, 1e4), max_size=3))


@given(_runs, _runs, st.randoms())
def test_costs_add_and_know_no_order(
    first: list[dict[str, float]], second: list[dict[str, float]], rng: random.Random
) -> None:
    some, others = [run_on(one) for one in first], [run_on(one) for one in second]
    shuffled = [*some, *others]
    rng.shuffle(shuffled)
    whole = Costs.paid([*some, *others], PRICES)
    assert Costs.paid(shuffled, PRICES) == whole
    parts = [Costs.paid(each, PRICES) for each in (some, others)]
    assert whole.hours == pytest.approx(sum(part.hours for part in parts))
    assert (whole.total or 0) == pytest.approx(sum(part.total or 0 for part in parts))
    assert whole.hours == pytest.approx(sum(sum(one.values()) for one in first + second))


@given(st.lists(st.floats(0.1, 1e4), min_size=1), st.floats(0.01, 1e5), st.randoms())
def test_hours_of_cells_add_up_to_what_was_paid(seconds: list[float], paid: float, rng: random.Random) -> None:
    hours = CellHours.of(seconds, paid_hours=paid)
    assert hours.mean * hours.cells == pytest.approx(paid)
    assert hours.low <= hours.high
    rng.shuffle(seconds)
    assert CellHours.of(seconds, paid_hours=paid).mean == pytest.approx(hours.mean)


def test_a_cell_bears_its_share_of_what_finished_none() -> None:
    seconds = [36.0] * 19 + [360.0]
    found = CellHours.of(seconds, paid_hours=0.58)  # twice their own time
    assert (found.mean, found.low, found.high) == pytest.approx((0.029, 0.02, 0.029))
    assert CellHours.of([3600.0], paid_hours=0).mean == 1.0  # nobody has recorded what was paid
    assert CellHours.of([3600.0] * 5, paid_hours=30.0, share=0.5).mean == 3.0  # half of the cells were looked at


def unit_cost(spent: np.ndarray, amounts: np.ndarray, **changes: object) -> UnitCost:
    return UnitCost.of(spent, amounts, **({"total": 2.0 * float(spent.sum()), "currency": "EUR"} | changes))


def test_the_standard_error_of_a_cell_is_that_of_a_mean_and_scales_with_what_was_paid() -> None:
    spent = np.random.default_rng(0).gamma(2.0, size=50)
    found = unit_cost(spent, np.ones(50))
    assert found.mean == pytest.approx(2 * spent.mean())
    assert found.error == pytest.approx(2 * spent.std(ddof=1) / 50**0.5)
    assert str(found) == f"{found.mean:.2f} ± {found.error:.2f} EUR, from 50 cells"


def test_the_standard_error_of_an_area_is_what_other_cells_would_have_given() -> None:
    rng = np.random.default_rng(1)

    def drawn() -> UnitCost:
        areas = rng.uniform(0, 1, 200) * (rng.uniform(size=200) > 0.2)
        return unit_cost(1 + 3 * areas + rng.gamma(1.0, size=200), areas)

    several = [drawn() for _ in range(400)]
    spread = np.std([one.mean for one in several])
    assert np.mean([one.error for one in several]) == pytest.approx(spread, rel=0.1)
    # What costs the same for each area has no error, however different the cells are.
    areas = rng.uniform(1, 9, 20)
    assert unit_cost(3 * areas, areas).error == pytest.approx(0, abs=1e-12)


def test_there_is_no_standard_error_where_it_would_say_nothing() -> None:
    few = unit_cost(np.arange(1.0, LEAST_CELLS), np.ones(LEAST_CELLS - 1))
    assert (few.mean, few.error) == (10.0, None)
    assert str(few) == "10.00 EUR, from 9 cells"
    many = np.arange(1.0, 1 + LEAST_CELLS)
    assert unit_cost(many, np.ones(LEAST_CELLS)).error is not None
    least = unit_cost(many, np.ones(LEAST_CELLS), is_least=True)
    assert (least.error, str(least)) == (None, "at least 11.00 EUR, from 10 cells")
    odd = np.where(many == 3, np.nan, many)
    assert unit_cost(odd, np.ones(LEAST_CELLS), total=55.0).error is None
    # What is but rounding is none.
    equal = unit_cost(np.full(LEAST_CELLS, 0.1), np.ones(LEAST_CELLS), total=1.1 / 3)
    assert (equal.error, str(equal)) == (0.0, "0.037 ± 0.000 EUR, from 10 cells")
    for unknown in (unit_cost(many, np.ones(LEAST_CELLS), total=None), unit_cost(many, np.zeros(LEAST_CELLS))):
        assert (unknown.mean, unknown.error) == (None, None)
    assert [
        str(unit_cost(many, np.ones(LEAST_CELLS), total=None)),
        str(unit_cost(many, np.zeros(LEAST_CELLS))),
        str(unit_cost(np.empty(0), np.empty(0))),
    ] == ["not known: no hours have a price", "not known: no ground is valid", "not known: nothing is done"]


@pytest.mark.parametrize(
    ("mean", "error", "said"),
    [
        (12345.678, 67.8, "12,345.68 ± 67.80"),
        (0.00032, 2.9e-6, "0.0003200 ± 0.0000029"),
        (0.0012, None, "0.0012"),
        (0.0, 0.0, "0.00 ± 0.00"),
    ],
)
def test_prices_have_the_digits_that_are_known(mean: float, error: float | None, said: str) -> None:
    found = UnitCost(mean=mean, error=error, cells=20, currency="EUR", is_least=False)
    assert str(found) == f"{said} EUR, from 20 cells"


def test_machines_are_compared_by_what_is_best_known() -> None:
    done = {CARD: CellHours(cells=20, mean=0.5, low=0.25, high=1.0)}
    common = {"cells": 100, "tiles": 1200, "measured": {"CPU": 9.0, "NVIDIA T4": 6.0}}

    def told(machine: Machine, done: Mapping[str, CellHours] = done) -> str:
        return str(MachineEstimate.of(machine, done=done, **common))

    assert told(NODE) == (
        f"node ({CARD}): 100.00 for 12.5 hours, from 20 finished cells, of which nine in ten cost 0.5 to 2 each"
    )
    assert told(LAPTOP) == "laptop (CPU): 0.50 for 1 hours, network alone, 3 s a tile as the prices say"
    here = Machine(name="rented", hour=1.0, hardware="NVIDIA T4")
    assert told(here) == "rented (NVIDIA T4): 2.00 for 2 hours, network alone, 6 s a tile as measured here"
    assert told(NODE, {}).startswith(f"node ({CARD}): not measured: run rtsx campaign plan on {CARD}")


def test_the_plan_takes_what_cells_of_an_earlier_year_took(tmp_path: Path) -> None:
    recipe = make_recipe(
        tmp_path, cells=[FIRST, beside(1, 1)], prices=PRICES, prediction=PredictionSpec(tile=48, overlap=16)
    )
    plan = plan_campaign(recipe)
    objects = MemoryObjects()
    for year, on in ((2022, "other"), (2023, CARD)):
        earlier = replace(plan, year=year, runtime=plan.runtime if year == 2023 else {"backend": "onnx"})
        write_plan(objects, earlier)
        write_prices(objects, PRICES, year=year)
        for n in range(4):
            CampaignLedger(objects, YearLayout(year)).commit(a_mark((0, n), seconds=900.0, hardware=on))
        CampaignLedger(objects, YearLayout(year)).note_run(run_on({on: 2.0}))
    done = finished_cells(objects, plan)
    assert done == {CARD: CellHours(cells=4, mean=0.5, low=0.5, high=0.5)}
    estimate = CampaignEstimate.of(plan, recipe, 9.0, hardware="CPU", done=done)
    assert [one.cost for one in estimate.machines] == [2 * 0.5 / 4 * 8.0, 2 * 0.5 * 5.0, 8 * 3.0 / 3600 * 0.5]
    assert estimate.device_cost == pytest.approx(8 * 9.0 / 3600 * 0.5)
    assert "  on machines by name, in EUR:\n    node (NVIDIA" in str(estimate)
    assert finished_cells(MemoryObjects(), plan) == {}


@pytest.mark.parametrize(
    ("machines", "said"),
    [
        ([NODE, replace(OTHER, name="node")], "'node' is there twice"),
        ([{**vars(NODE), "hour": -1.0}], "hour"),
        ([{**vars(NODE), "hour": float("inf")}], "a price of 0 or more"),
        ([{**vars(NODE), "workers": 0}], "workers"),
        ([{**vars(NODE), "hardware": ""}], "hardware"),
        ([{**vars(NODE), "seconds_per_tile": 0.0}], "seconds_per_tile|more than 0 s"),
    ],
)
def test_prices_that_mean_nothing_are_refused_in_python_and_in_yaml(machines: list[object], said: str) -> None:
    plain = [one if isinstance(one, dict) else vars(one) for one in machines]
    with pytest.raises(CampaignError):
        Prices(machines=tuple(Machine(**one) for one in plain))
    values = {
        "name": "a",
        "year": 2024,
        "region": "arctic",
        "cube": {"sources": {"a": {"files": "a.tif", "layers": ["red"]}}},
    }
    from rtsx.config.yaml import parse_yaml, validate_config

    text = yaml.safe_dump({**values, "model": "demo", "output": "out", "prices": {"machines": plain}})
    with pytest.raises(ConfigError, match=said):
        validate_config(CampaignConfig, parse_yaml(text, name="campaign.yaml"))


def test_prices_are_kept_with_their_machines() -> None:
    objects = MemoryObjects()
    write_prices(objects, PRICES, year=2024)
    assert read_prices(objects, year=2024) == PRICES


def test_the_ground_of_cells_is_measured_on_the_ellipsoid() -> None:
    from pyproj import Geod

    plan = a_plan(rows=3, columns=3)
    cells = [(0, 0), (2, 1)]
    expected = [abs(Geod(ellps="WGS84").geometry_area_perimeter(plan.grid[cell].lonlat)[0]) for cell in cells]
    assert plan.areas_m2(cells).tolist() == pytest.approx(expected, rel=1e-4)
    assert plan.areas_m2([]).shape == (0,)
