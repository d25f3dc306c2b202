"""Training configs of thaw-slump-segmentation: every key is translated or named."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from rtsx.config import import_training, load_train_config
from rtsx.config.starter import ImportedTraining
from rtsx.errors import ConfigError
from rtsx.model import PRESETS

OLD: dict[str, Any] = {
    "model": {"architecture": "UnetPlusPlus", "encoder": "resnet34", "encoder_weights": "imagenet"},
    "loss_function": "FocalLoss",
    "data_threads": 4,
    "data_sources": ["TCVIS", "Slope", "RelativeElevation", "PlanetScope", "NDVI"],
    "datasets": {
        "train": {
            "augment": True,
            "augment_types": ["HorizontalFlip", "VerticalFlip", "Blur", "RandomRotate90", "RandomBrightnessContrast",
                              "MultiplicativeNoise"],
            "shuffle": True,
            "scenes": ["20190727_160426_104e", "20190618_201847"],
        },
        "val": {"augment": False, "shuffle": False, "scenes": ["20200722_081437_1032"]},
        "test": {"augment": False, "shuffle": False, "scenes": ["20200722_081438_1032"]},
    },
    "batch_size": 4,
    "learning_rate": 0.01,
    "learning_rate_scheduler": "StepLR",
    "lr_step_size": 5,
    "lr_gamma": 0.2,
    "schedule": [{"phase": "Training", "epochs": 30, "steps": [{"train_on": "train"}, {"validate_on": "val"}, "log_images"]}],
}  # fmt: skip


def imported(folder: Path, values: Any, *, name: str = "old.yml") -> ImportedTraining:
    path = folder / name
    path.write_text(yaml.safe_dump(values, sort_keys=False).replace("'", ""))
    return import_training(path)


def translated(folder: Path, values: Any) -> dict[str, Any]:
    text = imported(folder, values).text
    (folder / "train.yaml").write_text(text)
    load_train_config(folder / "train.yaml")
    read: dict[str, Any] = yaml.safe_load(text)
    return read


def test_the_usual_config_is_translated(tmp_path: Path) -> None:
    values = translated(tmp_path, OLD)
    place = {"cube": "cubes/{scene}.zarr", "labels": "labels/{scene}.gpkg"}
    ten = ["ndvi", "blue", "green", "red", "nir", "relative_elevation", "slope"]
    assert values == {
        "id": "old",
        "classes": ["thaw_slump"],
        "model": OLD["model"],
        # Sorted by source, as the channels of the published weights are.
        "inputs": {"preset": "tss-v1", "layers": [*ten, "tc_brightness", "tc_greenness", "tc_wetness"]},
        "tile": 256,
        "scenes": {
            "training": {**place, "names": ["20190727_160426_104e", "20190618_201847"]},
            "validation": {**place, "names": ["20200722_081437_1032"]},
            "test": {**place, "names": ["20200722_081438_1032"]},
        },
        "augment": OLD["datasets"]["train"]["augment_types"],
        "loss": "FocalLoss",
        "optimiser": "AdamW",
        "batch_size": 4,
        "learning_rate": 0.01,
        "schedule": {"StepLR": {"step_size": 5, "gamma": 0.2}},
        "epochs": 30,
    }


def test_every_key_is_translated_or_named(tmp_path: Path) -> None:
    more = {
        "resume": "logs/a",
        "run_info": {"timestamp": "2022", "git_head": "v1"},
        "visualization_tiles": {"a": [1]},
        "modelscale": 8,
        "nobody_knows": 1,
    }
    old = {**OLD, **more, "datasets": {**OLD["datasets"], "extra": {"scenes": ["x"]}}}
    old["datasets"]["val"] = {**old["datasets"]["val"], "batch_size": 9, "oddity": 1}
    notes = imported(tmp_path, old).notes
    for key in (*more, "data_threads", "datasets.extra", "datasets.val.batch_size", "datasets.val.oddity"):
        assert any(note.startswith(f"{key}: ") for note in notes), key
    assert any(note.startswith("schedule, phase Training: log_images") for note in notes)
    text = imported(tmp_path, old).text
    head = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    assert all(note in head for note in notes)


@pytest.mark.parametrize(
    ("fields", "key", "value"),
    [
        ({"learning_rate_scheduler": "StepLR", "lr_step_size": None, "lr_gamma": None}, "schedule",
         {"StepLR": {"step_size": 10, "gamma": 0.1}}),
        ({"learning_rate_scheduler": "ExponentialLR", "lr_gamma": None}, "schedule", {"ExponentialLR": {"gamma": 0.9}}),
        ({"learning_rate_scheduler": None}, "schedule", "constant"),
        ({"loss_function": "LovaszLoss"}, "loss", "LovaszLoss"),
        ({"loss_function": "softbcewithlogitsloss"}, "loss", "SoftBCEWithLogitsLoss"),
        ({"loss_function": {"type": "BinaryCrossEntropy", "pos_weight": 150}}, "loss",
         {"SoftBCEWithLogitsLoss": {"pos_weight": 150}}),
        ({"model": "UNet"}, "model", {"architecture": "Unet", "encoder": "resnet34"}),
        ({"model": {"architecture": "Unet3Plus", "encoder": "resnet18", "encoder_weights": "random"}}, "model",
         {"architecture": "UnetPlusPlus", "encoder": "resnet18"}),
        ({"data_sources": ["PlanetScope", "Hillshade", "AbsoluteElevation"]}, "inputs",
         {"preset": "tss-v1", "layers": ["blue", "green", "red", "nir"]}),
    ],
)  # fmt: skip
def test_other_values_are_translated(tmp_path: Path, fields: dict[str, Any], key: str, value: object) -> None:
    assert (
        translated(tmp_path, {key: value for key, value in {**OLD, **fields}.items() if value is not None})[key]
        == value
    )


def test_the_first_format_is_translated(tmp_path: Path) -> None:
    old = {
        "model": "UNet",
        "input_channels": 10,
        "modelscale": 8,
        "datasets": {
            "train": {"augment": True, "shuffle": True, "folders": ["a"]},
            "val": {"augment": False, "shuffle": False, "folders": ["b"]},
        },
        "batch_size": 32,
        "learning_rate": 0.001,
        "schedule": [
            {"phase": "Slump Pretraining", "epochs": 10, "loss_function": {"type": "BinaryCrossEntropy"},
             "steps": [{"train_on": "slump_tiles(train)"}, {"validate_on": "val"}, "log_images"]},
            {"phase": "Full Training", "epochs": 5, "loss_function": {"type": "BinaryCrossEntropy", "pos_weight": 150},
             "steps": [{"train_on": "train"}, {"validate_on": "val"}]},
        ],
    }  # fmt: skip
    values = translated(tmp_path, old)
    assert values["epochs"] == 15
    assert values["inputs"]["layers"] == list(load_preset_order())
    assert values["augment"] == ["HorizontalFlip", "VerticalFlip", "RandomRotate90"]
    assert values["scenes"]["training"]["names"] == ["a"]
    notes = imported(tmp_path, old).notes
    assert any("phases had several" in note for note in notes)
    assert any("slump_tiles" in note for note in notes)
    only = {**old, "schedule": old["schedule"][:1]}
    assert translated(tmp_path, only)["sampling"] == {"negatives": 0}


def load_preset_order() -> tuple[str, ...]:
    order = ("ndvi", "blue", "green", "red", "nir", "relative_elevation", "slope")
    assert set(order) < set(PRESETS["tss-v1"].scaling)
    return (*order, "tc_brightness", "tc_greenness", "tc_wetness")


def test_a_config_beside_checkpoints_is_called_after_its_run(tmp_path: Path) -> None:
    (tmp_path / "run_7").mkdir()
    text = imported(tmp_path / "run_7", OLD, name="config.yml").text
    assert yaml.safe_load(text)["id"] == "run_7"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1], "is no training config of thaw-slump-segmentation, which has at least model and datasets; it has list"),
        ({"id": "a", "scenes": 1}, "it has id, scenes"),
        ({**OLD, "loss_function": "HingeLoss"}, "The loss HingeLoss is not among DiceLoss, FocalLoss"),
        ({**OLD, "data_sources": ["Moon"]}, r"No data source of \['Moon'\] is a layer"),
        (
            {**OLD, "schedule": [{"epochs": 1, "steps": [{"train_on": "other"}]}]},
            "uses the dataset other, but there are train",
        ),
        ({key: OLD[key] for key in ("model", "datasets")}, "Nothing says which loss_function"),
    ],
)
def test_what_cannot_be_translated_is_refused(tmp_path: Path, values: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        imported(tmp_path, values)
