"""Division of scenes by their groups."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsx.config.inputs import SplitConfig, split_scenes
from rtsx.errors import ConfigError

GROUPS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60)


@given(groups=GROUPS, validation=st.floats(0.05, 0.45), test=st.sampled_from([0.0, 0.1, 0.4]), seed=st.integers(0, 50))
def test_no_group_is_divided_and_no_scene_lost(groups: list[str], validation: float, test: float, seed: int) -> None:
    split = SplitConfig(validation=validation, test=test, seed=seed)
    needed = 2 + (test > 0)
    if len(set(groups)) < needed:
        with pytest.raises(ConfigError, match="needs more than"):
            split_scenes(groups, split)
        return
    parts = split_scenes(groups, split)
    assert sorted(place for part in parts for place in part) == list(range(len(groups)))
    sets = [{groups[place] for place in part} for part in parts]
    assert all(not one & other for n, one in enumerate(sets) for other in sets[n + 1 :])
    assert parts[0]
    assert parts[1]
    assert bool(parts[2]) == (test > 0)
    assert parts == split_scenes(groups, split)


def test_the_draw_goes_by_groups_not_by_their_order() -> None:
    groups = [f"g{number % 20}" for number in range(100)]
    split = SplitConfig(validation=0.2, test=0.1, seed=3)
    held = {groups[place] for place in split_scenes(groups, split)[1]}
    shuffled = random.Random(0).sample(groups, len(groups))
    assert {shuffled[place] for place in split_scenes(shuffled, split)[1]} == held
    assert [len(part) for part in split_scenes(groups, split)] == [70, 20, 10]
    assert {groups[place] for place in split_scenes(groups, SplitConfig(seed=4))[1]} != held


def test_parts_leave_some_for_training() -> None:
    with pytest.raises(ValueError, match=r"leave some for training; got 0\.6 and 0\.4"):
        SplitConfig(validation=0.6, test=0.4)
