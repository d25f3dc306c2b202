"""`rtsx train`: from a YAML file to a bundle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rtsx.config import load_train_config
from rtsx.errors import TrainingError
from rtsx.model import ModelBundle
from tests.cli.trainable import trainable

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def config(training_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainable(tmp_path_factory.mktemp("training"), training_scenes)


@pytest.mark.slow
def test_a_file_becomes_a_bundle_that_predicts(rtsx_command: Command, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    told = rtsx_command("train", config, "--out", out, "--epochs", "1", "--device", "cpu")
    assert told.status == 0, told.err
    for word in ("validation", "IoU", "threshold", "temperature", str(out / "bundle"), str(out / "report.html")):
        assert word in told.out
    assert "epoch 1 of 1: loss" in told.err
    assert load_train_config(out / "config.yaml").epochs == 1
    bundle = ModelBundle.open(out / "bundle")
    assert bundle.classes == ("slump",)
    again = rtsx_command("train", config, "--out", out, "--epochs", "1", "--device", "cpu")
    assert again.status == 2
    assert "holds a finished training" in again.err
    image = next((config.parent / "data" / "region0").glob("*_SR.tif"))
    mapped = rtsx_command(
        "predict", image, "--model", out / "bundle", "--out", tmp_path / "map.zarr", "--device", "cpu"
    )
    assert mapped.status == 0, mapped.err


def test_what_is_wrong_is_told_before_anything_is_made(rtsx_command: Command, config: Path, tmp_path: Path) -> None:
    wrong = config.with_name("wrong.yaml")  # where the paths in it lead to something
    wrong.write_text(config.read_text().replace("tile: 32", "tile: 33").replace("epochs", "epoches"))
    spelling = rtsx_command("train", wrong, "--out", tmp_path / "run")  # without waiting for what needs the network
    assert spelling.status == 2
    assert "epoches: unknown key" in spelling.err
    wrong.write_text(config.read_text().replace("tile: 32", "tile: 33"))
    told = rtsx_command("train", wrong, "--out", tmp_path / "run")
    assert told.status == 2
    assert "a tile is a multiple of the network's stride, 8 px; got 33. Take 32" in told.err
    assert "epoches: unknown key; did you mean 'epochs'?" in spelling.err
    assert not (tmp_path / "run").exists()
    missing = rtsx_command("train", tmp_path / "absent.yaml", "--out", tmp_path / "run")
    assert missing.status == 2
    assert "there is no such file" in missing.err


def test_paths_are_remembered_relative_to_the_file(
    rtsx_command: Command, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def refuse(config: Any, out: Any, **how: Any) -> None:
        given.append(config)
        raise TrainingError("no further")

    monkeypatch.setattr("rtsx.config.training.train_bundle", refuse)
    told = rtsx_command("train", config, "--out", tmp_path / "run")
    assert "no further" in told.err
    # As a path, whose folder is known.
    assert given == [config]
