"""Keys of what a campaign writes."""

from hypothesis import given
from hypothesis import strategies as st

from rtsx.campaign.layout import YearLayout
from rtsx.campaign.task_queue import CellResult, NoOp

YEAR = YearLayout(2024)
cells = st.tuples(st.integers(-(10**5), 10**5), st.integers(-(10**5), 10**5))


@given(cells, st.integers(0, 10**6 - 1), st.sampled_from(["probability", "binary"]))
def test_a_key_tells_its_cell(cell: tuple[int, int], generation: int, variable: str) -> None:
    keys = [
        YEAR.mark(cell),
        YEAR.failure(cell),
        YEAR.lease(cell, generation),
        YEAR.outline(cell),
        YEAR.cog(cell, variable),
    ]
    assert {YEAR.address_of(key) for key in keys} == {cell}
    assert len(set(keys)) == len(keys)
    assert all(key.startswith("years/2024/") for key in keys)


def test_leases_are_sorted_by_generation() -> None:
    leases = [YEAR.lease((1, 2), generation) for generation in (0, 2, 10, 100)]
    assert sorted(leases) == leases


def test_folders_hold_what_they_name() -> None:
    cell = (-1, 2)
    assert YEAR.mark(cell).startswith(f"{YEAR.marks}/")
    assert YEAR.lease(cell, 0).startswith(f"{YEAR.leases}/")
    assert YEAR.failure(cell).startswith(f"{YEAR.failures}/")
    assert YEAR.outline(cell).startswith(f"{YEAR.outlines}/")
    assert YEAR.cog(cell, "binary").startswith(f"{YEAR.cogs}/")
    folders = [YEAR.marks, YEAR.leases, YEAR.failures, YEAR.outlines, YEAR.cogs, YEAR.runs, YEAR.products, YEAR.items]
    assert len(set(folders)) == len(folders)
    assert {YEAR.plan, YEAR.cells, YEAR.config} == {
        f"{YEAR.root}/{name}" for name in ("plan.json", "cells.npy", "config.yaml")
    }


def test_a_job_that_does_nothing_says_so() -> None:
    assert NoOp()((1, 2), 1, "run") == CellResult(cell=(1, 2), state="done")
    assert NoOp(0.001)((1, 2), 1, "run").seconds == 0.001
