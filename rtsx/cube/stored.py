"""How the variables of a source are stored: one dtype and packing for all of its images, settled before any is read."""

from collections.abc import Sequence

import numpy as np

from rtsx.cube.block import StoredLayer
from rtsx.cube.image import Image
from rtsx.cube.recipe import SourceRecipe
from rtsx.errors import CubeError

__all__ = ["stored_layers"]


def stored_layers(source: SourceRecipe, images: Sequence[Image]) -> tuple[StoredLayer, ...]:
    """Dtype and packing of every layer of a source.

    The images of a layer share a dtype. Where their offsets differ, as Sentinel-2's do from 2022, the lowest is the
    variable's, because then no stored value of the others falls below zero.

    Raises
    ------
    CubeError
        The images of a layer have several dtypes or scales, or nodata that the dtype cannot hold.
    """
    layers = []
    for recipe in source.layers:
        bands = [(image.id, image.bands[recipe.name]) for image in images]
        _, one = bands[0]
        for what in ("dtype", "scale_factor"):
            values = {getattr(each, what): name for name, each in bands}
            if len(values) > 1:
                raise CubeError(
                    f"Source {source.name!r}: all images have to store layer {recipe.name!r} in one {what}, but they have "
                    + ", ".join(f"{value} (as {name})" for value, name in values.items())
                    + ". Put them into sources of their own, or convert them."
                )
        dtype = np.dtype(one.dtype if recipe.dtype is None else recipe.dtype)
        nodata = next((each.nodata for _, each in bands if each.nodata is not None), None)
        if dtype.kind == "f":
            nodata = float("nan") if recipe.dtype is not None else nodata
        elif nodata is not None and not np.iinfo(dtype).min <= nodata <= np.iinfo(dtype).max:
            nodata = None  # no stored pixel can have it
        offset = min(each.add_offset for _, each in bands)
        layers.append(
            StoredLayer(recipe=recipe, dtype=dtype, nodata=nodata, scale_factor=one.scale_factor, add_offset=offset)
        )
    return tuple(layers)
