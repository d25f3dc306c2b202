from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import rtsx
from rtsx.synthetic import SceneFiles

Command = Callable[..., Any]


def test_tells_versions_devices_and_extras(rtsx_command: Command) -> None:
    outcome = rtsx_command("info")
    assert outcome.status == 0
    assert rtsx.__version__ in outcome.out
    assert torch.__version__.split("+")[0] in outcome.out
    assert "cpu (" in outcome.out
    assert "extra view" in outcome.out


def test_describes_an_image(rtsx_command: Command, scene: SceneFiles) -> None:
    outcome = rtsx_command("info", scene.image, "--sensor", "planetscope")
    assert "256 x 256 px of 3 m, EPSG:32608" in outcome.out
    assert "uint16, scale 0.0001" in outcome.out
    assert "reflectance" in outcome.out


def test_describes_a_map(rtsx_command: Command, scene: SceneFiles, bundle: Path, tmp_path: Path) -> None:
    cube = rtsx.open_cube(scene.image, sensor="planetscope")
    opened = rtsx.ModelBundle.open(bundle)
    pred = rtsx.predict_cube(cube, opened, tile=128, overlap=32)
    valid = float(pred["valid"].mean())
    outcome = rtsx_command("info", rtsx.write_cube(pred, tmp_path / "map.zarr"))
    assert f"small ({opened.digest[:12]})" in outcome.out
    assert "128 px, overlap 32" in outcome.out
    assert f"{valid:.1%} of the pixels" in outcome.out
    assert f"slump  {int((pred['binary'] == 1).sum()):,} px" in " ".join(outcome.out.split("   "))
