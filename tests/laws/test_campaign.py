"""Law 3: a campaign's cells give, byte for byte, the prediction of its whole window; whatever their size and order.

On random pixels with invalid ones among them, resampled, by a network with a stride and a reach of several pixels.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtsx.campaign.map import open_map
from tests.campaign.random_campaign import make_bundle, make_job, make_plan, make_recipe, whole, write_files

TILINGS = {
    # A lattice moved by what fits nothing; one moved by half the overlap, as a campaign moves it, is in tests/campaign/test_campaign.py.
    "crop, moved": {"blend": "crop", "tile": 48, "overlap": 16, "trim": 8, "offset": (19200 + 8, -13440 - 12)},
    "linear": {"blend": "linear", "tile": 40, "overlap": 16, "trim": 3},
    "max": {"blend": "max", "tile": 36, "overlap": 12, "trim": 1},
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write_files(tmp_path_factory.mktemp("scenes"), seed=11)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cell"), [("crop, moved", 96), ("linear", 64), ("max", 96), ("linear", 192)])
def test_law_3_cells_are_the_whole(scenes: tuple[Path, ...], tmp_path: Path, name: str, cell: int) -> None:
    assert_cells_are_the_whole(scenes, tmp_path, cell=cell, classes=1, tiles=TILINGS[name], seed=cell)


@pytest.mark.slow
def test_law_3_of_several_classes(scenes: tuple[Path, ...], tmp_path: Path) -> None:
    assert_cells_are_the_whole(scenes, tmp_path, cell=96, classes=3, tiles=TILINGS["linear"], seed=5)


def assert_cells_are_the_whole(
    scenes: tuple[Path, ...], folder: Path, *, cell: int, classes: int, tiles: dict[str, Any], seed: int
) -> None:
    recipe = make_recipe(scenes, folder / "out", cell=cell, bundles=(make_bundle(classes),), outlines=None)
    plan = make_plan(recipe, **tiles)
    job = make_job(recipe, plan)
    cells = list(plan.cells)
    random.Random(seed).shuffle(cells)
    for one in cells:
        outcome = job(one, 1, "a-run")
        assert outcome.state == "done", outcome.failure
    found = open_map(recipe.output, storage_options={}).isel(time=0).compute()
    expected = whole(recipe, plan)
    share = expected["valid"].values.mean()
    assert 0.2 < share < 0.9, "a test of nothing"
    for name in ("valid", "probability", "binary"):
        assert found[name].dims == expected[name].dims
        np.testing.assert_array_equal(found[name].values, expected[name].values, err_msg=name)
