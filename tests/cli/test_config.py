"""`rtsx config`: schemas, examples, and the predecessor's files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rtsx.cli.config import schema_of
from rtsx.config import load_cube_config, load_train_config

Command = Callable[..., Any]


@pytest.mark.parametrize("kind", ["train", "evaluate", "campaign", "cube", "order"])
def test_the_schema_is_printed_or_written(rtsx_command: Command, tmp_path: Path, kind: Any) -> None:
    assert json.loads(rtsx_command("config", "schema", kind).out) == json.loads(json.dumps(schema_of(kind)))
    written = rtsx_command("config", "schema", kind, "--out", tmp_path / "s.json")
    assert (written.status, written.out.split()) == (0, ["Written", "schema", str(tmp_path / "s.json")])
    assert json.loads((tmp_path / "s.json").read_text()) == json.loads(json.dumps(schema_of(kind)))
    assert rtsx_command("config", "schema", kind, "--out", tmp_path / "s.json").status == 2


def test_an_unknown_kind_lists_the_known_ones(rtsx_command: Command) -> None:
    told = rtsx_command("config", "schema", "moon")
    assert told.status == 2
    assert "evaluate" in told.err


def test_examples_are_listed_with_what_they_are_for(rtsx_command: Command) -> None:
    told = rtsx_command("config", "example")
    assert told.status == 0
    assert "Sentinel-2 L2A at 10 m, the median of a summer's clear pixels, with ArcticDEM." in told.out
    assert "yaml-language-server" not in told.out


@pytest.mark.parametrize("out", ["cube.yaml", "configs/2024/cube.yaml"])
def test_an_example_looks_for_data_below_the_working_directory(
    rtsx_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    made = rtsx_command("config", "example", "cube-demo", "--out", out)
    assert (made.status, made.out.split()) == (0, ["Written", "config", str(out)])
    catalog = load_cube_config(out).resolved().sources["planetscope"].catalog
    assert catalog is not None
    assert Path(str(catalog.path)).resolve() == tmp_path / "demo-output" / "scene" / "catalog.json"
    assert f"rtsx cube build {out} --out cube.zarr" in Path(out).read_text()
    again = rtsx_command("config", "example", "cube-demo", "--out", out)
    assert again.status == 2
    assert "--overwrite" in again.err
    assert rtsx_command("config", "example", "cube-demo", "--out", out, "--overwrite").status == 0


def test_an_example_is_printed(rtsx_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed = rtsx_command("config", "example", "campaign-demo").out
    assert rtsx_command("config", "example", "campaign-demo", "--out", "campaign-demo.yaml").status == 0
    assert printed == Path("campaign-demo.yaml").read_text()


def test_an_unknown_example_and_an_ending_of_another_format_are_refused(rtsx_command: Command, tmp_path: Path) -> None:
    told = rtsx_command("config", "example", "cube-dmo", "--out", tmp_path / "cube.yaml")
    assert told.status == 2
    assert "Did you mean 'cube-demo'?" in told.err
    assert rtsx_command("config", "example", "cube-demo", "--out", tmp_path / "cube.tif").status == 2
    assert list(tmp_path.iterdir()) == []


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
