"""A training small enough for tests: bright squares on dark noise, and a network that finds them."""

import csv
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from rtsx.labels import StubLabelRaster
from rtsx.model import InputLayer
from rtsx.training import LogRow, LossTerm, NetworkSpec, OptimisationSpec, SamplingSpec, TrainingRecipe, TrainingScene

ENCODER = "tu-test_resnet"
"""Four blocks of few channels, which timm has for tests: building a network takes most of a short training."""

NETWORK = NetworkSpec(
    architecture="Unet", encoder=ENCODER, options={"encoder_depth": 3, "decoder_channels": [16, 8, 8]}
)


def make_scene(
    name: str = "one", *, seed: int = 0, size: int = 96, classes: tuple[str, ...] = ("target",), group: str = ""
) -> TrainingScene:
    """Squares of each class, brighter in the layer of its number; a corner without data."""
    random = np.random.default_rng(seed)
    truth = np.zeros((size, size), np.uint8)
    layers = random.normal(1000, 100, (2, size, size))
    for number in range(9):
        y, x = random.integers(0, size - 16, 2)
        kind = number % len(classes)
        truth[y : y + 12, x : x + 12] = kind + 1
        layers[kind % 2, y : y + 12, x : x + 12] += 800
    stored = layers.round().astype(np.uint16)
    stored[:, :20, :10] = 0
    box = GeoBox.from_bbox((0, 0, size * 3, size * 3), crs="EPSG:3413", resolution=3)
    coords = {axis: values.values for axis, values in box.coordinates.items()}
    attributes = {"_FillValue": np.uint16(0), "scale_factor": 1e-4}
    cube = xr.Dataset(
        {layer: (("y", "x"), array, attributes) for layer, array in zip(("red", "nir"), stored, strict=True)},
        coords=coords,
    ).rio.write_crs("EPSG:3413")
    return TrainingScene(name=name, cube=cube, truth=StubLabelRaster(truth, classes=classes), group=group)


@cache
def _usual_scenes() -> tuple[TrainingScene, ...]:
    """The scenes of recipes that name none of their own; nobody changes them."""
    return tuple(make_scene(name, seed=seed) for seed, name in enumerate(("one", "two", "three", "four"), start=1))


def make_recipe(**changes: Any) -> TrainingRecipe:
    """Two epochs of two steps on tiles of 32 px."""
    one, two, three, four = _usual_scenes()
    settings: dict[str, Any] = {
        "id": "little",
        "training": (one, two),
        "validation": (three,),
        "test": (four,),
        "inputs": (
            InputLayer.from_statistics("red", mean=0.1, std=0.03),
            InputLayer.from_statistics("nir", mean=0.1, std=0.03),
        ),
        "tile": 32,
        "overlap": 8,
        "network": NETWORK,
        "sampling": SamplingSpec(),
        "losses": (LossTerm(name="DiceLoss"), LossTerm(name="FocalLoss")),
        "optimisation": OptimisationSpec(learning_rate=3e-3),
        "epochs": 2,
        "steps_per_epoch": 2,
        "batch_size": 4,
    }
    return TrainingRecipe(**(settings | changes))


def read_log(path: Path) -> tuple[LogRow, ...]:
    """The rows of a log, as any program would read them."""
    with path.open(newline="") as file:
        rows = [{name: float(cell) if cell else None for name, cell in row.items()} for row in csv.DictReader(file)]
    return tuple(LogRow(**row | {name: int(row[name] or 0) for name in ("epoch", "step")}) for row in rows)  # type: ignore[arg-type]
