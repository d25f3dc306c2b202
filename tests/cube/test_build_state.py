"""Recipes as plain values."""

import json
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rtsx.cube.build_state import PartPlan, describe_recipe
from rtsx.cube.images import BandRequest
from rtsx.cube.recipe import CubeRecipe, LayerRecipe, SourceRecipe
from rtsx.cube.stac import HttpAccess, StacSearch
from rtsx.cube.write import StoragePlan
from rtsx.grid import Grid
from rtsx.parsing import first_difference

SEARCH = StacSearch("https://stac.example.org", ("PSScene",), access=HttpAccess(headers=(("Authorization", "secret"),)))
LAYER = LayerRecipe(wanted=BandRequest(name="red", nodata=float("nan")))
RECIPE = CubeRecipe(grid=Grid.arctic(), sources=(SourceRecipe(name="planetscope", images=SEARCH, layers=(LAYER,)),))


def test_a_description_is_json_without_keys_of_servers() -> None:
    described = describe_recipe(RECIPE)
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    assert "secret" not in json.dumps(described)
    assert described["sources"][0]["images"]["url"] == "https://stac.example.org"


def test_equal_recipes_do_not_differ_and_others_say_where() -> None:
    assert first_difference(describe_recipe(RECIPE), describe_recipe(replace(RECIPE))) is None
    other = replace(RECIPE, sources=(replace(RECIPE.sources[0], group="day"),))
    assert (
        first_difference(describe_recipe(RECIPE), describe_recipe(other))
        == "sources[planetscope].group is all there and day here"
    )
    assert first_difference({"a": [1]}, {"a": [1, 2]}) == "a is [1] there and [1, 2] here"
    assert first_difference({"a": 1}, {"b": 1}) == "a is 1 there and null here"


SIZES = st.integers(1, 100)


@given(SIZES, SIZES, st.integers(1, 40), st.integers(1, 40), st.integers(0, 50))
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
