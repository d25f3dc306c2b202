"""The choice of tile and overlap."""

import pytest

from rtsx.errors import PlanError
from rtsx.inference.plan import TilingNeeds, choose_tiling
from rtsx.tiling import TilePlan


def choose(shape: tuple[int, int] = (4096, 4096), *, reach: int | None = 50, **given: object) -> TilePlan:
    needs = TilingNeeds(stride=32, tile=256, overlap=64, trim=None, reach=reach)
    options = {"tile": "auto", "overlap": "auto", "trim": None, "blend": "linear", "largest": 4096} | given
    return choose_tiling(shape, (0, 0), needs=needs, **options)


def test_auto_covers_the_reach_at_the_least_cost() -> None:
    plan = choose(largest=3000)
    assert plan.trim == 50
    assert plan.overlap == 128
    assert plan.over_compute < 1.2
    worse = [choose(tile=tile, overlap=128, trim=50) for tile in range(288, 3000, 32)]
    assert plan.over_compute <= min(other.over_compute for other in worse)


def test_auto_takes_whatever_costs_least() -> None:
    assert choose(cost=lambda plan: abs(plan.tile - 1000)).tile == 992
    assert choose(tile=512, cost=lambda plan: abs(plan.tile - 1000)).tile == 512


def test_auto_keeps_within_the_memory() -> None:
    assert choose(largest=1000).tile <= 1000


def test_auto_fits_a_small_scene() -> None:
    plan = choose((500, 700))
    assert plan.tile <= 896
    assert len(plan) <= 4


def test_a_network_that_looks_at_the_whole_tile_gets_its_own() -> None:
    plan = choose(reach=None)
    assert (plan.tile, plan.overlap, plan.trim) == (256, 64, 8)


def test_a_reach_beyond_the_memory_falls_back_to_the_bundle() -> None:
    assert choose(reach=900, largest=1024).tile == 256


def test_numbers_and_bundle_are_taken_as_they_are() -> None:
    assert (choose(tile=512, overlap=96).tile, choose(tile=512, overlap=96).overlap) == (512, 96)
    assert (choose(tile="bundle", overlap="bundle").tile, choose(tile="bundle").overlap) == (256, 128)
    assert choose(tile=512, overlap=128, trim=3).trim == 3
    assert choose(tile=512, overlap=128).trim == 16
    assert choose(tile=512, overlap=128, trim=0).trim == 0
    assert choose(tile="bundle", overlap="bundle", reach=None).trim == 8


def test_crop_trims_half_the_overlap() -> None:
    assert choose(tile=512, overlap=128, blend="crop").trim == 64
    with pytest.raises(PlanError, match=r"blend='crop' trims half the overlap by itself; got trim=3. Leave trim out"):
        choose(tile=512, overlap=128, blend="crop", trim=3)


def test_words_are_checked() -> None:
    with pytest.raises(PlanError, match="tile has to be a number of pixels, 'auto' or 'bundle'; got 'large'"):
        choose(tile="large")
