"""Every file in `configs/` is of a kind, loads, and obeys the published schema of its kind, which is current."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from rtsx.cli.config import schema_of
from rtsx.config import load_campaign_config, load_cube_config, load_train_config
from rtsx.config.evaluate import load_evaluate_config
from rtsx.config.order import load_order_config
from rtsx.synthetic import TEST_SEEDS, TRAINING_SEEDS, VALIDATION_SEEDS, varied_spec, write_scenes

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = sorted(CONFIGS.glob("*.yaml"))
LOADERS: dict[str, Any] = {
    "cube": load_cube_config,
    "train": load_train_config,
    "evaluate": load_evaluate_config,
    "order": load_order_config,
    "campaign": load_campaign_config,
}


def kind_of(path: Path) -> str:
    """The first word of a file's name; the demo's are called after the demo."""
    return "train" if path.stem == "demo-train" else path.stem.split("-")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_loads_and_obeys_its_schema(path: Path) -> None:
    kind: Any = kind_of(path)
    assert LOADERS[kind](path)
    jsonschema.validate(json.loads(json.dumps(yaml.safe_load(path.read_text()), default=str)), schema_of(kind))


@pytest.mark.parametrize("kind", LOADERS)
def test_the_published_schema_is_current(kind: Any) -> None:
    published = json.loads((CONFIGS / f"{kind}.schema.json").read_text())
    again = f"write it again: rtsx config schema {kind} --out configs/{kind}.schema.json --overwrite"
    assert published == json.loads(json.dumps(schema_of(kind))), again


@pytest.mark.parametrize(
    ("builder", "folder"), [(WheelBuilder, Path("rtsx/config/examples")), (SdistBuilder, Path("configs"))]
)
def test_what_is_installed_has_the_files(builder: Any, folder: Path) -> None:
    held = [file.distribution_path for file in builder(str(CONFIGS.parent)).recurse_included_files()]
    assert {str(folder / path.name) for path in CONFIGS.iterdir()} <= set(held)
    assert len(set(held)) == len(held)


@pytest.mark.slow
def test_the_demo_is_trained_on_what_its_first_lines_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (CONFIGS / "demo-train.yaml").read_text()
    for seeds, folder in ((TRAINING_SEEDS, "training"), (VALIDATION_SEEDS, "validation"), (TEST_SEEDS, "test")):
        line = next(line for line in text.splitlines() if line.endswith(f"--out demo-data/{folder}"))
        assert f"--seeds {seeds[0]}-{seeds[-1]} " in line
        list(write_scenes([varied_spec(seeds[0], size=64, slumps_per_km2=60.0)], tmp_path / folder, processes=1))
    monkeypatch.setenv("RTSX_DEMO_DATA", str(tmp_path))
    recipe = load_train_config(CONFIGS / "demo-train.yaml").recipe()
    sets = (recipe.training, recipe.validation, recipe.test)
    assert [[scene.name for scene in scenes] for scenes in sets] == [
        [varied_spec(seeds[0]).image_id] for seeds in (TRAINING_SEEDS, VALIDATION_SEEDS, TEST_SEEDS)
    ]
    assert recipe.inputs is not None
    assert [layer.name for layer in recipe.inputs] == ["blue", "green", "red", "nir", "ndvi"]


def test_the_template_divides_regions_and_joins_labels_by_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for region in ("Banks_Island", "Herschel", "Lena", "Kolguev", "Horton", "Tuktoyaktuk", "Peel", "Mackenzie"):
        for scene in ("20210715_031254", "20220722_081437"):
            (tmp_path / "cubes" / region / f"{scene}.zarr").mkdir(parents=True)
        (tmp_path / f"{region}.gpkg").touch()
    monkeypatch.setenv("RTSX_CUBES", str(tmp_path / "cubes"))
    monkeypatch.setenv("RTSX_LABELS", str(tmp_path))
    scenes = load_train_config(CONFIGS / "train-thaw-slumps.yaml").resolved().scenes
    groups = [{scene.group for scene in listed} for listed in (scenes.training, scenes.validation, scenes.test)]
    assert [len(group) for group in groups] == [6, 1, 1]
    assert len(set.union(*groups)) == 8
    first = scenes.training[0]
    assert first.name == f"{first.group}-20210715_031254"
    assert first.labels is not None
    assert first.labels.files == (str(tmp_path / f"{first.group}.gpkg"),)
    assert first.labels.where == {"image_ids": ("20210715_031254",)}
