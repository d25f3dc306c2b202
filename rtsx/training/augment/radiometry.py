"""Layers whose values are changed, in physical units: which ones, and what follows from them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from rtsx.cube.sensor import SENSORS
from rtsx.errors import TrainingError
from rtsx.training.augment.aspect import ANGLES
from rtsx.training.batch import Batch
from rtsx.training.nearest import nearest

__all__ = ["REFLECTANCE", "changed_layers", "check_changed_layers", "chosen_layers", "layer_names_of"]

REFLECTANCE = frozenset(
    name for sensor in SENSORS.values() if sensor.units == "reflectance" for bands in sensor.bands for name in bands
)
"""Layers that light and sensor change: the band names of the sensors that rtsx knows."""

Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Physical values (tile, layer, y, x), 0 where invalid, and validity (tile, 1, y, x), to new values."""


def chosen_layers(layers: Sequence[str], wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """Those that are changed: the wanted ones, else all that are known as reflectance."""
    return tuple(name for name in layers if (name in REFLECTANCE if wanted is None else name in wanted))


def layer_names_of(augmentation: str, value: object) -> tuple[str, ...] | None:
    """The parameter ``layers``: names, also where a list came, or None for reflectance.

    Raises
    ------
    TrainingError
        It is neither.
    """
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not value or not all(isinstance(name, str) for name in value):
        raise TrainingError(f"layers of {augmentation} has to be a list of names; got {value!r}.")
    return tuple(value)


def check_changed_layers(augmentation: str, layers: Sequence[str], *, wanted: tuple[str, ...] | None) -> None:
    """Refuse layers that are not there or that such a change makes no sense for, and a change of nothing.

    Raises
    ------
    TrainingError
        The layers do not allow it.
    """
    for name in wanted or ():
        if name not in layers:
            raise TrainingError(
                f"{augmentation} is to change layer {name!r}, which is not read.{nearest(name, layers)}"
            )
        if name in ANGLES:
            raise TrainingError(
                f"{augmentation} cannot change {name!r}: angles have neither mean nor gain. Leave it out."
            )
        if name == "ndvi" and {"red", "nir"} <= set(layers):
            raise TrainingError(
                f"{augmentation} cannot change 'ndvi' by itself: it follows red and nir. Name these instead."
            )
    if not chosen_layers(layers, wanted):
        raise TrainingError(
            f"{augmentation} changes reflectance, and none of the layers {list(layers)} is known as such. Name those that it is "
            "to change with layers=[...], or leave it out."
        )


def changed_layers(batch: Batch, names: Sequence[str], change: Change) -> Batch:
    """The batch with some layers changed in physical units, and a stored ndvi computed anew from changed bands.

    A pixel whose red and nir come to add up to exactly 0, which has no ndvi, becomes invalid.
    """
    places = [batch.layers.index(name) for name in names]
    factors, summands = _packing(batch, names)
    valid = batch.valid[:, None]
    physical = (batch.stored[:, places] * factors + summands).masked_fill(~valid, 0)
    stored = batch.stored.clone()
    stored[:, places] = ((change(physical, valid) - summands) / factors).masked_fill(~valid, 0)
    changed = replace(batch, stored=stored)
    if {"red", "nir"} <= set(batch.layers) and {"red", "nir"} & set(names):
        return _with_ndvi(changed, before=batch)
    return changed


def _packing(batch: Batch, names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale factors and offsets (layer, 1, 1) of some layers."""
    packings = [batch.packings[name] for name in names]
    return (
        batch.stored.new_tensor([packing.scale_factor for packing in packings])[:, None, None],
        batch.stored.new_tensor([packing.add_offset for packing in packings])[:, None, None],
    )


def _with_ndvi(batch: Batch, *, before: Batch) -> Batch:
    red, nir = _bands(batch)
    total = nir + red
    lost = (total == 0) & (sum(_bands(before)) != 0)
    stored = batch.stored
    if "ndvi" in batch.layers:
        place, packing = batch.layers.index("ndvi"), batch.packings["ndvi"]
        ndvi = ((nir - red) / total - packing.add_offset) / packing.scale_factor
        stored[:, place] = torch.where(batch.valid & (total != 0), ndvi, stored[:, place])
    return replace(batch, valid=batch.valid & ~lost)


def _bands(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Physical red and nir (tile, y, x)."""
    places = [batch.layers.index(name) for name in ("red", "nir")]
    factors, summands = _packing(batch, ("red", "nir"))
    red, nir = (batch.stored[:, places] * factors + summands).unbind(1)
    return red, nir
