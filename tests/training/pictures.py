"""Batches in memory that tests of augmentations share."""

from collections.abc import Mapping, Sequence

import torch

from rtsx.labels import IGNORED
from rtsx.model import Packing
from rtsx.training import AugmentationSpec
from rtsx.training.dataset import TileBatch

LAYERS = ("red", "nir", "ndvi", "slope", "aspect")
PACKINGS = {
    "red": Packing(scale_factor=1e-4, is_declared=True),
    "nir": Packing(scale_factor=1e-4, add_offset=-0.1, is_declared=True),
    "ndvi": Packing(scale_factor=0.01, add_offset=-1.0),
    "slope": Packing(),
    "aspect": Packing(scale_factor=0.5, add_offset=0.0),
}


def make_batch(
    *,
    tiles: int = 4,
    size: int = 24,
    seed: int = 0,
    layers: Sequence[str] = LAYERS,
    invalid: float = 0.15,
    packings: Mapping[str, Packing] = PACKINGS,
) -> TileBatch:
    """Random layers with holes, in which NaN stands, and random truth with ignored pixels."""
    random = torch.Generator().manual_seed(seed)
    shape = (tiles, size, size)
    physical = {
        "red": 0.02 + 0.3 * torch.rand(shape, generator=random),
        "nir": 0.1 + 0.4 * torch.rand(shape, generator=random),
        "slope": 40 * torch.rand(shape, generator=random),
        "aspect": 360 * torch.rand(shape, generator=random),
        "hillshade": torch.rand(shape, generator=random),
        "dem": 100 * torch.rand(shape, generator=random),
    }
    physical["ndvi"] = (physical["nir"] - physical["red"]) / (physical["nir"] + physical["red"])
    known = {name: packings.get(name, Packing()) for name in layers}
    stored = torch.stack(
        [(physical[name] - known[name].add_offset) / known[name].scale_factor for name in layers], dim=1
    )
    valid = torch.rand(shape, generator=random) >= invalid
    truth = (torch.rand(shape, generator=random) < 0.3).to(torch.uint8)
    truth[torch.rand(shape, generator=random) < 0.1] = IGNORED
    stored = stored.masked_fill(~valid[:, None], float("nan"))
    return TileBatch(stored=stored, layers=tuple(layers), packings=known, valid=valid, truth=truth)


def layer(batch: TileBatch, name: str) -> torch.Tensor:
    """Physical values (tile, y, x) of a layer."""
    packing = batch.packings[name]
    return batch.stored[:, batch.layers.index(name)] * packing.scale_factor + packing.add_offset


def always(name: str, **options: object) -> list[AugmentationSpec]:
    return [AugmentationSpec(name=name, probability=1.0, options=options)]


def shown(batch: TileBatch) -> torch.Tensor:
    """Stored values with 0 under invalid pixels, so that they can be compared."""
    return batch.stored.masked_fill(~batch.valid[:, None], 0)
