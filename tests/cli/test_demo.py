from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
import rasterio
from PIL import Image

import rtsx
from rtsx.cli import demo, options
from rtsx.synthetic import archive as scenes

Command = Callable[..., Any]
MADE = {"scene", "cube.yaml", "map.zarr", "slumps.parquet", "probability.tif", "binary.tif", "demo.png"}


@pytest.mark.slow
def test_makes_maps_scores_and_draws_a_scene(rtsx_command: Command, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    outcome = rtsx_command("demo", "--out", out, "--size", "256", "--seed", "5")
    assert outcome.status == 0, outcome.err
    assert {path.name for path in out.iterdir()} == MADE
    assert "Scene 5, 256 x 256 px of 3 m, on the Arctic grid" in outcome.out
    assert "The truth of this scene has 2 slumps, too few for scores to say much. Take --size 1024" in outcome.err
    assert all(word in outcome.out for word in ("IoU", "precision", "recall", "total", str(out / "demo.png")))
    stored = rtsx.open_cube(out / "map.zarr")
    with rasterio.open(out / "binary.tif") as file:
        assert (file.read(1) == stored["binary"].values).all()
    assert len(gpd.read_parquet(out / "slumps.parquet")) == len(rtsx.extract_footprints(stored))
    with Image.open(out / "demo.png") as picture:
        assert picture.width > 1000


@pytest.mark.slow
def test_refuses_a_folder_that_exists_and_replaces_only_its_own_files(rtsx_command: Command, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    (out / "scene").mkdir(parents=True)
    (out / "scene" / "mine.txt").write_text("mine")
    line = ("demo", "--out", out, "--size", "256", "--seed", "5")
    refused = rtsx_command(*line)
    assert refused.status == 2
    assert "--overwrite" in refused.err
    assert [path.name for path in out.iterdir()] == ["scene"]
    assert rtsx_command(*line, "--overwrite").status == 0
    assert (out / "scene" / "mine.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_run_that_was_interrupted_at_any_step_is_replaced(
    rtsx_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_memory: list[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "demo"
    line = ("demo", "--out", out, "--size", "256", "--overwrite", "--seed")
    steps = (
        *((scenes, name) for name in ("make_scene", "write_layers", "write_catalog")),
        (options, "open_prediction"),
        *((demo, name) for name in ("write_outlines", "write_cogs", "_score_and_draw")),
    )
    for seed, (module, name) in enumerate(steps, start=5):
        with monkeypatch.context() as broken:
            broken.setattr(module, name, interrupt)
            assert rtsx_command(*line, seed // 2).status not in (0, 2)
    (left,) = (out / "scene").glob("*_scene.json")
    mine = left.with_name(left.name.replace("scene.json", "notes.txt"))
    mine.write_text("mine")
    assert rtsx_command(*line, 9).status == 0
    assert {path.name for path in out.iterdir()} == MADE
    assert not left.exists()
    assert len(list((out / "scene").iterdir())) == 6 + 1 + 4  # layers, notes, and a catalog of three collections
    assert mine.read_text() == "mine"
    assert len(kept_memory) == len(steps) + 1


def test_its_own_scene_has_to_be_found(rtsx_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_SIZE", 256)
    monkeypatch.setattr(demo, "EXPECTED_IOU", 1.01)
    outcome = rtsx_command("demo", "--out", tmp_path / "demo", "--size", "256")
    assert outcome.status == 1
    assert "has to reach an IoU of 1.01" in outcome.err


def test_refuses_a_scene_that_is_too_small(rtsx_command: Command, tmp_path: Path) -> None:
    outcome = rtsx_command("demo", "--out", tmp_path / "demo", "--size", "32")
    assert outcome.status == 2
    assert not (tmp_path / "demo").exists()
