"""Memory of a task, reckoned."""

from dataclasses import replace
from pathlib import Path

import pytest

from rtsx.campaign.planning import TaskMemory, plan_campaign
from rtsx.campaign.preflight import opened_sample
from rtsx.errors import MemoryPlanError
from rtsx.tiling import TilePlan
from tests.campaign.plans import make_bundle, make_recipe


def tiling_of(tile: int, *, side: int = 4096) -> TilePlan:
    return TilePlan(shape=(3 * side, 3 * side), tile=tile, overlap=64, trim=32, stride=4, blend="crop")


def memory_of(**changes: object) -> TaskMemory:
    values = {"bundles": (make_bundle(),), "stored_bytes": 9, "side": 4096, "is_outlined": True, "batch_size": None}
    return TaskMemory(**(values | changes))


def test_what_a_task_holds_is_in_it(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    plan = plan_campaign(recipe)
    memory = TaskMemory.of(recipe, opened_sample(recipe.cube, plan.cells), layers=plan.prediction.layers)
    assert (memory.stored_bytes, memory.side, memory.is_outlined) == (5, 64, True)
    reckoned = memory.reckoned(plan.prediction.tiling)
    assert reckoned.window_bytes > 64**2 * memory.stored_bytes
    assert reckoned.answer_bytes > 64**2 * 3
    assert reckoned.total_bytes < 2**28


def test_more_of_anything_takes_more() -> None:
    least = memory_of().reckoned(tiling_of(512)).total_bytes
    assert memory_of().reckoned(tiling_of(3072)).total_bytes > least
    assert memory_of(stored_bytes=18).reckoned(tiling_of(512)).total_bytes > least
    assert memory_of(batch_size=8).reckoned(tiling_of(512)).total_bytes > least
    assert memory_of(side=8192).reckoned(tiling_of(512, side=8192)).total_bytes > least
    assert memory_of(is_outlined=False).reckoned(tiling_of(512)).total_bytes < least
    other = replace(make_bundle(), fill=1.0)  # wants its own channels
    assert memory_of(bundles=(make_bundle(), other)).reckoned(tiling_of(512)).total_bytes > least


def test_a_worker_that_is_too_small_is_told_by_how_much() -> None:
    with pytest.raises(MemoryPlanError, match=r"but a worker has 0\.1 GiB. Take a smaller tile"):
        memory_of().reckoned(tiling_of(3072)).require(2**27)
