import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtsx.errors import TrainingError
from rtsx.labels import StubLabelRaster
from rtsx.training import OptimisationSpec
from rtsx.training.record import recipe_record, stated_differences
from tests.training.little import make_recipe, make_scene


def changed(**changes: object) -> str:
    """What differs between a recipe and one with changes."""
    return stated_differences(recipe_record(make_recipe()), recipe_record(make_recipe(**changes)))


def test_a_record_is_json_and_the_same_every_time() -> None:
    record = recipe_record(make_recipe())
    assert json.loads(json.dumps(record)) == record
    assert changed() == ""


def test_what_changes_the_answer_changes_the_record() -> None:
    assert changed(seed=1) == "seed: 0 there, 1 here"
    assert (
        changed(optimisation=OptimisationSpec(learning_rate=3e-3, ema=0.9)) == "optimisation.ema: None there, 0.9 here"
    )
    assert re.match(r"test: [^;]*$", changed(test=()))


def test_chunks_change_nothing() -> None:
    scenes = [make_scene("one", seed=1), make_scene("two", seed=2)]
    lazy = tuple(replace(scene, cube=scene.cube.chunk(y=17, x=40)) for scene in scenes)
    assert changed(training=lazy) == ""


def test_other_imagery_and_other_truth_are_told_apart() -> None:
    scene = make_scene("one", seed=1)
    cube = scene.cube.copy(deep=True)
    cube["red"].values[48, 48] += 1
    others = (replace(scene, cube=cube), make_scene("two", seed=2))
    assert re.match(r"training\[one\].middle: [^;]*$", changed(training=others))
    values = scene.truth.read((slice(0, 96), slice(0, 96)))
    values[0, 0] = 1 - values[0, 0]
    others = (replace(scene, truth=StubLabelRaster(np.asarray(values))), make_scene("two", seed=2))
    assert re.match(r"training\[one\].truth: [^;]*$", changed(training=others))


def test_provenance_changes_nothing() -> None:
    assert changed(provenance={"config": "elsewhere.yaml"}) == ""


def test_other_weights_under_one_path_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "encoder.pth"
    recipe = make_recipe(network=replace(make_recipe().network, encoder_weights=str(path)))
    path.write_bytes(b"one")
    before = recipe_record(recipe)
    path.write_bytes(b"two")
    assert re.match(r"encoder_weights_sha256: [^;]*$", stated_differences(before, recipe_record(recipe)))
    path.unlink()
    with pytest.raises(TrainingError, match="there is no file"):
        recipe_record(recipe)
