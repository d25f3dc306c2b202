"""A training that takes a second, for whatever commands need one."""

from pathlib import Path
from typing import Any

import yaml

from rtsx.synthetic import placed_apart, varied_spec, write_scenes

BANDS = ("blue", "green", "red", "nir")


def write_training_scenes(folder: Path) -> Path:
    """Write four scenes of two regions."""
    for number, seeds in enumerate(((5, 6), (9, 15))):
        specs = [placed_apart(varied_spec(seed, size=96, slumps_per_km2=20.0)) for seed in seeds]
        list(write_scenes(specs, folder / f"region{number}", processes=1))
    return folder


def trainable(folder: Path, data: Path, **fields: Any) -> Path:
    """Write the YAML of a small training on these scenes, with what else it is to say."""
    (folder / "data").symlink_to(data)
    scenes = {
        "files": "data/{region}/{scene}_3B_AnalyticMS_SR.tif",
        "mask": ["data/{region}/{scene}_3B_udm2.tif", "tss-v1"],
        "labels": "data/{region}/{scene}_slumps.parquet",
        "group": "{region}",
    }
    values = {
        "id": "small",
        "classes": "slump",
        "model": {
            "architecture": "Unet",
            "encoder": "tu-test_resnet",
            "options": {"encoder_depth": 3, "decoder_channels": [16, 8, 8]},
        },
        "inputs": {"layers": {name: {"range": [0, 0.5], "units": "reflectance"} for name in BANDS}},
        "tile": 32,
        "overlap": 8,
        "scenes": {"training": scenes, "split": {"validation": 0.5}},
        "epochs": 2,
        "steps_per_epoch": 1,
        "batch_size": 2,
        **fields,
    }
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path
