"""How the variables of a source are stored: one dtype and packing for all of its images, settled before any is read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsx.cube.image import AssetBands, Image
from rtsx.cube.packing import packing_attrs
from rtsx.cube.recipe import LayerRecipe, SourceRecipe
from rtsx.errors import CubeError

__all__ = ["StoredLayer", "stored_layers"]


@dataclass(frozen=True)
class StoredLayer:
    """How one variable of a cube is stored, whatever its images say one by one."""

    recipe: LayerRecipe
    """Where it comes from and how it is warped."""
    dtype: np.dtype[Any]
    """Dtype of the variable."""
    nodata: float | None
    """Stored value of a missing pixel; None where the dtype has no value to spare."""
    scale_factor: float
    """Physical units per stored unit."""
    add_offset: float
    """Physical value of stored 0."""

    @property
    def fill(self) -> float:
        """What a missing pixel holds: nodata, else NaN, else 0, which only `valid` tells from a value."""
        return self.nodata if self.nodata is not None else (math.nan if self.dtype.kind == "f" else 0)

    @property
    def attributes(self) -> dict[str, Any]:
        """CF attributes of the variable."""
        packs = (self.scale_factor, self.add_offset) != (1.0, 0.0)
        return dict(
            packing_attrs(
                self.dtype,
                scale_factor=self.scale_factor if packs else None,
                add_offset=self.add_offset if packs else None,
                nodata=self.nodata if self.dtype.kind != "f" or self.nodata is not None else math.nan,
                units=self.recipe.units,
                long_name=self.recipe.long_name,
            )
        )

    def repacked(self, pixels: NDArray[Any], valid: NDArray[np.bool_], bands: AssetBands) -> NDArray[Any]:
        """Stored pixels of one image in the packing of the variable; Sentinel-2's offset of 2022 is why they differ."""
        if (bands.scale_factor, bands.add_offset) == (self.scale_factor, self.add_offset):
            return pixels.astype(self.dtype, copy=False)
        stored = (pixels * (bands.scale_factor / self.scale_factor)) + (
            (bands.add_offset - self.add_offset) / self.scale_factor
        )
        if self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            stored = np.clip(np.floor(stored + 0.5), limits.min, limits.max)
            if self.nodata is not None:  # a value that lands on nodata is a value all the same
                stored[stored == self.nodata] += 1
        return np.where(valid, stored, self.fill).astype(self.dtype)


def stored_layers(source: SourceRecipe, images: Sequence[Image]) -> tuple[StoredLayer, ...]:
    """Dtype and packing of every layer of a source.

    The images of a layer share a dtype. Where their offsets differ, as Sentinel-2's do from 2022, the lowest is the
    variable's, because then no stored value of the others falls below zero.

    Raises
    ------
    CubeError
        A layer is more than one band, or its images have several dtypes, scales or nodata values.
    """
    layers = []
    for recipe in source.layers:
        bands = [(image.id, image.bands[recipe.name]) for image in images]
        _, one = bands[0]
        for name, each in bands:
            if len(each.bands) != 1:
                raise CubeError(
                    f"Source {source.name!r}: layer {recipe.name!r} is one band, but image {name!r} answers with the "
                    f"{len(each.bands)} bands {list(each.bands)} of {each.asset or each.href}. Say which one it is, such as "
                    f"{recipe.name}: 1."
                )
        # Offsets may differ: they are brought to one below. Those of elevation may not, as its pieces are read as one.
        alike = ("dtype", "scale_factor", "nodata", *(("add_offset",) if source.terrain else ()))
        for what in alike:
            values = {str(getattr(each, what)): name for name, each in bands}
            if len(values) > 1:
                raise CubeError(
                    f"Source {source.name!r}: all images have to store layer {recipe.name!r} in one {what}, but they have "
                    + ", ".join(f"{value} (as {name})" for value, name in values.items())
                    + f". Say {what} in the layer where the items are wrong, else make them sources of their own."
                )
        dtype = np.dtype(one.dtype if recipe.dtype is None else recipe.dtype)
        nodata = one.nodata
        if dtype.kind == "f":
            nodata = float("nan") if recipe.dtype is not None else nodata
        elif nodata is not None and not np.iinfo(dtype).min <= nodata <= np.iinfo(dtype).max:
            nodata = None  # no stored pixel can have it
        offset = min(each.add_offset for _, each in bands)
        layers.append(
            StoredLayer(recipe=recipe, dtype=dtype, nodata=nodata, scale_factor=one.scale_factor, add_offset=offset)
        )
    return tuple(layers)
