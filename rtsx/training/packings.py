"""One packing for all scenes: a batch mixes them, so their stored values have to mean the same."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rtsx.errors import BundleError, TrainingError
from rtsx.model import InputLayer, Packing
from rtsx.model.values import check_units
from rtsx.training.stored import StoredScene

__all__ = ["common_packings", "repacked"]


def common_packings(scenes: Sequence[StoredScene], *, inputs: Sequence[InputLayer]) -> dict[str, Packing]:
    """How each layer is stored in a batch: as in the first scene; nodata is left out, because `valid` has it already.

    Raises
    ------
    TrainingError
        Scenes store different layers; or one declares a scale where another holds integers of unknown scale; or the network
        wants reflectance of integers of unknown scale, or another unit.
    """
    first = scenes[0]
    for scene in scenes:
        if scene.layers != first.layers:
            raise TrainingError(
                f"All scenes have to store the same layers; {first.name!r} has {list(first.layers)} and {scene.name!r} has "
                f"{list(scene.layers)}. Add the derived ones to all of them or to none."
            )
        for name in scene.layers:
            _check_scale(name, scene, first=first)
        try:
            check_units(inputs, scene.packings, dtypes=scene.dtypes, units=scene.units)
        except BundleError as error:
            raise TrainingError(f"Scene {scene.name!r} cannot be learnt from. {error}") from error
    return {name: replace(packing, nodata=None) for name, packing in first.packings.items()}


def _check_scale(name: str, scene: StoredScene, *, first: StoredScene) -> None:
    """Two scenes with different scales are fine as long as both mean them."""
    both = {each.name: each for each in (first, scene)}
    scales = {(each.packings[name].scale_factor, each.packings[name].add_offset) for each in both.values()}
    unsure = [
        each.name for each in both.values() if not each.packings[name].is_declared and each.dtypes[name].kind in "ui"
    ]
    if len(scales) > 1 and unsure:
        raise TrainingError(
            f"Layer {name!r} is stored as {first.dtypes[name]} with scale {first.packings[name].scale_factor:g} in scene "
            f"{first.name!r} and as {scene.dtypes[name]} with scale {scene.packings[name].scale_factor:g} in {scene.name!r}; "
            f"{unsure} do not say their scale. Set cube[{name!r}].attrs['scale_factor'] there."
        )


def repacked(
    stored: Mapping[str, NDArray[np.generic]], *, packings: Mapping[str, Packing], common: Mapping[str, Packing]
) -> NDArray[np.float32]:
    """Stored layers (layer, y, x) float32 in the common packing; bit for bit as stored where it is the scene's own.

    Examples
    --------
    >>> reflectance = {"red": np.array([[0.25]], np.float32)}
    >>> repacked(reflectance, packings={"red": Packing()}, common={"red": Packing(scale_factor=1e-4)})
    array([[[2500.]]], dtype=float32)
    """
    layers = list(stored.values())
    out = np.empty((len(layers), *layers[0].shape), np.float32)
    # Silent, because a nodata value of float64 may be beyond float32; what is invalid means nothing anyway.
    with np.errstate(over="ignore"):
        for place, (name, layer) in zip(out, stored.items(), strict=True):
            own, wanted = packings[name], common[name]
            if (own.scale_factor, own.add_offset) == (wanted.scale_factor, wanted.add_offset):
                place[...] = layer
                continue
            # In double precision: one rounding, to float32, is all that a converted value may differ by.
            factor = own.scale_factor / wanted.scale_factor
            place[...] = layer.astype(np.float64) * factor + (own.add_offset - wanted.add_offset) / wanted.scale_factor
    return out
