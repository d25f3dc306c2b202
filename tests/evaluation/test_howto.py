"""The how-to runs, on files like those it speaks of."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import rtsx
from tests.evaluation.scenes import make_prediction, random_case
from tests.evaluation.trainers import WritingTrainer
from tests.training.little import make_recipe, make_scene

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "evaluation.md"


@pytest.mark.slow
def test_the_howto_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    # What is trained does not matter here, and trainings take their time.
    trainer = WritingTrainer(tmp_path)
    monkeypatch.setattr(
        "rtsx.evaluation.cross_validation.trained_bundle", lambda recipe, folder, device: trainer(recipe, folder)
    )
    for number, name in enumerate(("map", "herschel-1", "herschel-2", "lena-1", "anna", "boris", "chen")):
        level, truth, valid = random_case(number, size=(60, 60))
        pred = make_prediction(level, valid=valid)
        rtsx.write_cube(pred, f"{name}.zarr")
        drawn = rtsx.extract_footprints(make_prediction(100 * (truth == 1)), min_area_m2=0)
        drawn.to_parquet("labels.parquet" if name == "map" else f"{name}.parquet")
    rtsx.extract_footprints(rtsx.open_cube("map.zarr")).to_parquet("found.parquet")
    scenes = [
        make_scene(f"{group} {n}", seed=n, size=40, group=group) for group in ("Lena", "Horton") for n in range(2)
    ]
    apart = [replace(s, cube=s.cube.assign_coords(x=s.cube.x + 5000 * n)) for n, s in enumerate(scenes)]
    names = {"recipe": make_recipe(training=tuple(apart), validation=(), test=(), epochs=1, steps_per_epoch=1)}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(block, PAGE.name, "exec"), names)
    shown = capsys.readouterr().out
    assert "boundary_iou" in shown
    assert "mean IoU of two annotators" in shown
    assert "all others" in shown
    assert (tmp_path / "transfer" / "matrix.png").is_file()
