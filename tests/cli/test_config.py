"""`rtsx config`: schemas, and the predecessor's files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rtsx.cli.config import schema_of
from rtsx.config import load_train_config

Command = Callable[..., Any]


@pytest.mark.parametrize("kind", ["train", "evaluate", "campaign", "cube", "order"])
def test_the_schema_is_printed_or_written(rtsx_command: Command, tmp_path: Path, kind: Any) -> None:
    assert json.loads(rtsx_command("config", "schema", kind).out) == json.loads(json.dumps(schema_of(kind)))
    assert rtsx_command("config", "schema", kind, "--out", tmp_path / "s.json").status == 0
    assert json.loads((tmp_path / "s.json").read_text()) == json.loads(json.dumps(schema_of(kind)))
    assert rtsx_command("config", "schema", kind, "--out", tmp_path / "s.json").status == 2


def test_an_unknown_kind_lists_the_known_ones(rtsx_command: Command) -> None:
    told = rtsx_command("config", "schema", "moon")
    assert told.status == 2
    assert "evaluate" in told.err


def test_a_training_of_the_predecessor_is_translated(rtsx_command: Command, tmp_path: Path) -> None:
    old = tmp_path / "config.yml"
    old.write_text(
        "model: {architecture: Unet, encoder: resnet18, encoder_weights: random}\n"
        "loss_function: DiceLoss\ndata_sources: [PlanetScope]\ndata_threads: 3\n"
        "datasets:\n  train: {augment: false, scenes: [20190618_201847]}\n"
    )
    out = tmp_path / "train.yaml"
    told = rtsx_command("config", "import", old, "--out", out, "--labels", "outlines/{scene}.shp")
    assert told.status == 0, told.err
    assert "data_threads: left out" in told.err
    config = load_train_config(out)
    (scene,) = config.scenes.training
    assert scene.names == ("20190618_201847",)
    assert scene.labels is not None
    assert scene.labels.files == (str(tmp_path / "outlines/{scene}.shp"),)
    assert rtsx_command("config", "import", old, "--out", out).status == 2
