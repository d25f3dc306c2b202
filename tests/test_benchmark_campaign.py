"""The benchmark of campaigns runs small, and says of every run what was done."""

import logging
import math
from collections.abc import Iterator

import pytest

from benchmarks import campaign, work
from tests import warm


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    """The benchmark quiets loggers for good; tests after it may want them."""
    names = ("distributed", "distributed.scheduler", "distributed.worker", "distributed.shuffle")
    before = {name: logging.getLogger(name).level for name in names}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def test_campaign_prints_its_three_tables(capsys: pytest.CaptureFixture[str]) -> None:
    with warm.workers():
        flown, reached, graphs = campaign.run(4, workers=1, simulated=(3,), seconds=0.02, rounds=2, limit_s=200)
    assert [took.cells for took in flown] == [4]
    assert all(took.early_mib > 0 and took.late_mib > 0 and 0 < took.first_s < math.inf for took in flown)
    assert set(reached) == {3}
    assert all(0 < share <= 1 for share in reached.values())
    assert [one.chunks for one in graphs] == [4]
    assert all(one.clock_s < math.inf and one.tasks > one.chunks and one.peak_mib > 0 for one in graphs)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 2 + 1 + 2 + 1 + 2


def test_a_graph_that_takes_too_long_is_ended(capsys: pytest.CaptureFixture[str]) -> None:
    assert math.isinf(campaign.graph(4, workers=1, limit_s=0.0).clock_s)


def test_work_and_run_stand_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    work.run((2,), rounds=2, seconds=0.02, latencies=(0.0, 0.001))
    above, head, *rows = capsys.readouterr().out.splitlines()
    assert "overhead per cell, ms" in above
    assert "work         run   (cells of 0.02 s)" in head
    for row, away in zip(rows, (0.0, 0.001), strict=True):
        workers, cells, latency, claims, met, efficiency, by_work, by_run = row.split()
        assert (workers, cells, float(latency)) == ("2", "4", away)
        assert float(claims) > 0
        assert 0 <= float(met.rstrip("%")) < 100
        assert 0 < float(efficiency) < 1
        assert min(float(by_work), float(by_run)) > 0


def test_cells_are_different_ones() -> None:
    assert len(campaign.cells_of(10)) == 10
