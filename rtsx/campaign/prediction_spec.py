"""How a campaign predicts: the choices of `predict_cube` that an operator may make, before any of them is settled."""

from dataclasses import dataclass
from typing import Literal

from rtsx.inference.augment import Augmentation
from rtsx.inference.choice import TileChoice
from rtsx.inference.plan import Merge
from rtsx.tiling import Blend

__all__ = ["PredictionSpec"]


@dataclass(frozen=True, kw_only=True)
class PredictionSpec:
    """Tile, blend and runtime of a campaign; the words are those of `predict_cube`."""

    tile: TileChoice = "auto"
    """Pixels, `"bundle"`, or `"auto"`: the tile of least over-compute, borders of cells included."""
    overlap: TileChoice = "auto"
    """Pixels that neighbouring tiles share; `"auto"` covers the network's reach."""
    trim: int | None = None
    """Pixels on each side of a tile that never count; None as in `predict_cube`."""
    blend: Blend | Literal["auto"] = "auto"
    """`"auto"`: crop where the network's reach is finite, because all blends then give one answer and this one computes
    nothing twice at the border of a cell; linear elsewhere."""
    batch_size: int | None = None
    """Tiles per forward pass; None leaves it to the device."""
    device: str = "auto"
    """Device of each worker."""
    precision: str = "auto"
    """Arithmetic of the network."""
    backend: str = "eager"
    """What runs the network. Not `"auto"`: workers that chose differently would not write the same bytes."""
    augment: tuple[Augmentation, ...] = ()
    """Turns of each tile beside the picture as it is."""
    scales: tuple[float, ...] = (1.0,)
    """Sizes at which a tile is shown."""
    merge: Merge = "mean"
    """How scales are fused."""
    memory_bytes: int | None = None
    """Memory of one worker, by which `tile="auto"` is chosen; None: of the smallest worker at hand, else of this machine."""
