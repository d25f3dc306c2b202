from pathlib import Path

import pytest

from rtsx.errors import OutputExistsError, OutputNotWritableError, TrainingError
from rtsx.training.folder import RunFolder

RECORD = {"id": "a", "seed": 0, "network": {"encoder": "resnet18"}}


def make_run(path: Path, *, is_finished: bool = False) -> RunFolder:
    folder = RunFolder(path)
    folder.begin(RECORD, overwrite=False)
    if is_finished:
        folder.finish({"epochs": 1})
    return folder


def test_a_new_an_empty_and_an_unfinished_folder_are_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".recipe.json.0123.partial").mkdir()  # a start was stopped here
    for name in ("new", "empty"):
        folder = RunFolder(tmp_path / name)
        folder.require_free(overwrite=False)
        digest = folder.begin(RECORD, overwrite=False)
        folder.require_free(overwrite=False)
        assert folder.begin(RECORD, overwrite=False) == digest
        assert folder.checkpoint.parent.is_dir()


def test_a_finished_one_is_kept_unless_it_is_given_away(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", is_finished=True)
    with pytest.raises(OutputExistsError, match=r"holds a finished training.*overwrite=True, or read it with read_run"):
        folder.require_free(overwrite=False)
    folder.checkpoint.write_bytes(b"old")
    folder.require_free(overwrite=True)
    folder.begin({**RECORD, "seed": 1}, overwrite=True)
    assert not folder.result.exists()
    assert not folder.checkpoint.exists()


def test_another_recipe_is_refused_by_what_differs(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    other = {**RECORD, "seed": 1, "network": {"encoder": "resnet34"}}
    with pytest.raises(
        TrainingError,
        match=r"another recipe: network.encoder: 'resnet18' there, 'resnet34' here; seed: 0 there, 1 here",
    ):
        folder.begin(other, overwrite=False)


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
        RunFolder(tmp_path / "file" / "run").begin(RECORD, overwrite=False)
