from pathlib import Path

import pytest

from rtsx.errors import OutputExistsError, OutputNotWritableError, TrainingError
from rtsx.training.run_folder import RunFolder

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
