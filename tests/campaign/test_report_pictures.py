"""Throughput counts every cell once, over the time that something ran and no other."""

import re
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsx.campaign.report_pictures import Throughput, running_spans, throughput_chart
from tests.campaign.records import NOW, a_run
from tests.campaign.test_report import Page

DAY = 86400.0


@given(st.lists(st.tuples(st.floats(0, 3e7), st.floats(0.1, 3e5)), min_size=1, max_size=20))
def test_it_agrees_with_a_count_second_by_second(spans: list[tuple[float, float]]) -> None:
    running = np.array([(begin, begin + length) for begin, length in spans])
    finished = running[:, 1]
    found = Throughput.of(finished, running)
    assert found is not None
    edges = np.unique(running)
    covered = [((low >= running[:, 0]) & (high <= running[:, 1])).any() for low, high in pairwise(edges)]
    assert found.running_s == pytest.approx(max(np.diff(edges)[covered].sum(), 1.0))
    assert sum(found.counts) == len(spans)
    assert (found.per_hour * np.diff(found.edges)).sum() / found.running_s == pytest.approx(found.mean_per_hour)
    assert len(found.counts) <= 120 or found.unit == "day"
    assert found.moment(0.0).timestamp() == pytest.approx(running[:, 0].min(), abs=1e-5)


@pytest.mark.parametrize(
    ("length", "unit", "bars"),
    [
        (20.0, "minute", 1),
        (7200.0, "minute", 120),
        (7300.0, "hour", 2),
        (5 * DAY, "hour", 120),
        (30.4 * DAY, "day", 30),
    ],
)
def test_intervals_follow_from_how_long_it_ran(length: float, unit: str, bars: int) -> None:
    found = Throughput.of(np.array([length]), np.array([[0.0, length]]))
    assert found is not None
    assert (found.unit, len(found.counts)) == (unit, bars)
    assert Page(throughput_chart(found)).count("rect") == bars


def test_a_month_between_two_runs_lowers_no_rate() -> None:
    finished = np.concatenate([np.arange(1, 61) * 60.0 + start for start in (0.0, 30 * DAY)])
    found = Throughput.of(finished, np.array([[0.0, 3600.0], [30 * DAY, 30 * DAY + 3600]]))
    assert found is not None
    assert found.mean_per_hour == 60
    assert set(found.counts[1:-1]) == {1}
    assert found.pauses == [(3600.0, 30 * DAY - 3600)]
    page = Page(throughput_chart(found))
    assert "with 1 pause of at least that (dashed) left out: 60 an hour over 2 hours" in page.text
    assert "Nothing ran for 30 days" in page.text


def test_waiting_within_a_run_counts_and_cells_of_runs_without_a_record_too() -> None:
    run = a_run(started=(NOW - timedelta(hours=2)).isoformat(), written=(NOW - timedelta(hours=1)).isoformat())
    cell = np.array([[NOW.timestamp() - 60, NOW.timestamp()]])
    found = Throughput.of(cell[:, 1], running_spans([run], cell))
    assert found is not None
    assert found.running_s == 3660


def test_large_figures_are_written_out() -> None:
    found = Throughput.of(np.arange(1300) * DAY, np.array([[0.0, 1300 * DAY]]))
    assert found is not None
    text = Page(throughput_chart(replace(found, counts=(339_120,) * 1300))).text
    assert "14,130 an hour over 1,300 days" in text
    assert "\n14,130\n" in text
    assert not re.search(r"\de[+-]\d", text)


def test_there_is_none_without_a_cell() -> None:
    assert Throughput.of(np.empty(0), np.empty((0, 2))) is None
