"""Parts of a store: whole shards, each pixel once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rtsx.cube.build_state import PartPlan
from rtsx.cube.write import StoragePlan

SIZES = st.integers(1, 300)


@given(SIZES, SIZES, st.integers(1, 90), st.integers(1, 90), st.integers(0, 50))
def test_parts_are_whole_shards_and_cover_each_pixel_once(
    height: int, width: int, rows: int, columns: int, first: int
) -> None:
    plan = PartPlan((height, width), StoragePlan(chunk=(rows, columns), shard=(rows, columns)), first=first)
    hits = np.zeros((height, width), int)
    for number, part in enumerate(plan, start=first):
        assert part == plan.part(number)
        assert part.number == number
        assert (part.rows[0] % rows, part.columns[0] % columns) == (0, 0)
        assert part.rows[1] in (part.rows[0] + rows, height)
        hits[part.window] += 1
    assert (hits == 1).all()
    assert sum(1 for _ in plan) == plan.count
