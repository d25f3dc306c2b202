""""""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtsx.errors import OutputExistsError, OutputNotWritableError, TrainingError
from rtsx.labels import StubLabelRaster
from rtsx.training import OptimisationSpec
from rtsx.training.run_folder import RunFolder, recipe_record, stated_differences
from tests.training.little import make_recipe, make_scene

RECORD = {"id": "a", "seed": 0, "network": {"encoder": "resnet18"}}


def make_run(path: Path, *, is_finished: bool = False) -> RunFolder:
    folder = RunFolder(path)
    with folder.claimed(RECORD, overwrite=False):
        folder.checkpoint.write_bytes(b"old")
    if is_finished:
        folder.finish({"epochs": 1})
    return folder


def test_a_new_an_empty_and_an_unfinished_folder_are_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".recipe.json.0123.partial").mkdir()  # a start was stopped here
    for name in ("new", "empty"):
        folder = RunFolder(tmp_path / name)
        folder.require_free(overwrite=False)
        with folder.claimed(RECORD, overwrite=False) as digest:
            folder.checkpoint.write_bytes(b"an epoch")
        with folder.claimed(RECORD, overwrite=False) as again:
            assert again == digest


def test_a_finished_one_is_kept_unless_it_is_given_away(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", is_finished=True)
    with pytest.raises(OutputExistsError, match=r"holds a finished training.*pass overwrite=True"):
        folder.require_free(overwrite=False)
    folder.require_free(overwrite=True)
    with folder.claimed({**RECORD, "seed": 1}, overwrite=True):
        assert not folder.result.exists()
        folder.checkpoint.write_bytes(b"new")
    assert sorted(path.name for path in folder.path.iterdir()) == ["checkpoints", "recipe.json"]
    assert folder.checkpoint.read_bytes() == b"new"


def files(folder: RunFolder) -> dict[str, bytes]:
    return {str(path.relative_to(folder.path)): path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}


def test_what_is_overwritten_is_back_when_the_new_one_does_no_epoch(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", is_finished=True)
    before = files(folder)

    def diverge() -> None:
        with folder.claimed({**RECORD, "seed": 1}, overwrite=True):
            folder.log.write_text("half")
            folder.failed_batch.write_bytes(b"nan")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        diverge()
    assert files(folder) == {**before, "failed-batch.npz": b"nan"}


def test_a_training_that_does_no_epoch_claims_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "new" / "run")
    with pytest.raises(ValueError, match="no tiles"), folder.claimed(RECORD, overwrite=False):
        raise ValueError("no tiles")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("moves", range(6))
def test_what_is_overwritten_survives_a_kill_at_any_moment(
    moves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path / "run", is_finished=True)
    before = files(folder)
    plain, left = Path.rename, [moves]

    def rename(self: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] < 0:
            raise SystemExit  # nothing after it runs, as if killed
        return plain(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(SystemExit), folder.claimed({**RECORD, "seed": 1}, overwrite=True):
        raise SystemExit
    monkeypatch.undo()
    with pytest.raises(OutputExistsError, match="holds a finished training"), folder.claimed(RECORD, overwrite=False):
        raise AssertionError("the block ran")
    assert files(folder) == before


def test_one_process_trains_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with (
        folder.claimed(RECORD, overwrite=False),
        pytest.raises(OutputExistsError, match="Another process is training"),
        folder.claimed(RECORD, overwrite=False),
    ):
        raise AssertionError("the block ran")


def test_another_recipe_is_refused_by_what_differs(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    other = {**RECORD, "seed": 1, "network": {"encoder": "resnet34"}}
    with pytest.raises(
        TrainingError,
        match=r"another recipe: network.encoder: 'resnet18' there, 'resnet34' here; seed: 0 there, 1 here",
    ):
        folder.claimed(other, overwrite=False).__enter__()


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_training_is_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("five years")
    with pytest.raises(OutputExistsError, match=r"holds \['thesis.tex'\] and no training"):
        RunFolder(tmp_path).require_free(overwrite=overwrite)
    with pytest.raises(OutputExistsError, match="is a file"):
        RunFolder(tmp_path / "thesis.tex").require_free(overwrite=overwrite)


def test_what_somebody_put_into_a_run_is_not_thrown_away(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", is_finished=True)
    (folder.path / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"holds more than a training: \['notes.txt'\]"):
        folder.require_free(overwrite=True)


def test_other_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="needs a local folder; got s3:"):
        RunFolder.at("s3://bucket/run")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputNotWritableError, match="cannot be kept in"):
        RunFolder(tmp_path / "file" / "run").claimed(RECORD, overwrite=False).__enter__()


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
