"""Scaling by what the training scenes hold: mean and deviation of every layer, measured on some of their tiles."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from rtsx.errors import TrainingError
from rtsx.model import InputLayer
from rtsx.model.metadata import LayerDistribution
from rtsx.training.dataset import TileBatch, TileReader
from rtsx.training.sampler import TileAddress
from rtsx.training.tile_index import TileIndex

MEASURED_TILES = 256
"""Tiles that are looked at, at most: millions of pixels, while the answer needs no more than two digits."""


def measured_tiles(index: TileIndex) -> tuple[TileAddress, ...]:
    """Tiles to measure on: all of them, or so many at even distances through all scenes."""
    every = [
        TileAddress(number, (int(y), int(x))) for number, scene in enumerate(index.scenes) for y, x in scene.starts
    ]
    if len(every) <= MEASURED_TILES:
        return tuple(every)
    chosen = np.linspace(0, len(every) - 1, MEASURED_TILES).round().astype(int)
    return tuple(every[n] for n in chosen)


def measured_inputs(
    reader: TileReader, tiles: Sequence[TileAddress], *, names: Sequence[str]
) -> tuple[InputLayer, ...]:
    """Layers scaled to mean 0 and deviation 1, in physical units, over the valid pixels of some tiles.

    Tiles are read one by one, so memory does not grow with their number. Counted in double precision.

    Parameters
    ----------
    reader
        Reads them.
    tiles
        At least one with a valid pixel.
    names
        The layers, in the order of the network's channels; all of them stored.

    Raises
    ------
    TrainingError
        A layer has one value throughout, so nothing can be learnt from it.
    """
    count = 0
    total = torch.zeros(len(names), dtype=torch.float64)
    squares = torch.zeros(len(names), dtype=torch.float64)
    # Around the first tile's mean instead of 0, because squares of large numbers would swallow small deviations.
    origin: torch.Tensor | None = None
    for values in _physical(reader, tiles, names=names):
        if not values.shape[1]:
            continue
        origin = values.mean(1) if origin is None else origin
        centred = values - origin[:, None]
        count += values.shape[1]
        total += centred.sum(1)
        squares += centred.square().sum(1)
    if origin is None:
        raise TrainingError("No valid pixel to measure the scaling of layers on. Look at nodata values and masks.")
    mean = origin + total / count
    deviation = (squares / count - (total / count).square()).clamp(min=0).sqrt()
    flat = [name for name, spread in zip(names, deviation.tolist(), strict=True) if not spread > 0]
    if flat:
        raise TrainingError(
            f"Layers {flat} have one value on all {count} valid pixels that were looked at, so they cannot be scaled. Leave "
            "them out, or say inputs= with a scaling."
        )
    return tuple(
        # To seven digits, which is what float32 can hold.
        InputLayer.from_statistics(name, mean=float(f"{middle:.7g}"), std=float(f"{spread:.7g}"))
        for name, middle, spread in zip(names, mean.tolist(), deviation.tolist(), strict=True)
    )


_PIXELS = 4096
"""Pixels of a tile whose values are kept for quantiles, at even distances."""
_TILES = 64
"""Tiles that they are taken of, at most."""


def measured_distributions(reader: TileReader, tiles: Sequence[TileAddress]) -> dict[str, LayerDistribution]:
    """Distribution of each stored layer over valid pixels of some tiles, in physical units: what images of later years are held against.

    Parameters
    ----------
    reader
        Reads them.
    tiles
        As `measured_tiles` gives them; a part of them is read.
    """
    some = tiles[:: -(-len(tiles) // _TILES)]
    pixels = np.concatenate(
        [
            values[:, :: -(-values.shape[1] // _PIXELS) or 1].numpy()
            for values in _physical(reader, some, names=reader.layers)
        ],
        axis=1,
    )
    return {
        name: LayerDistribution.of(values, pixels=values.size)
        for name, values in zip(reader.layers, pixels, strict=True)
    }


def _physical(reader: TileReader, tiles: Sequence[TileAddress], *, names: Sequence[str]) -> Iterator[torch.Tensor]:
    """Physical values (layer, pixel) of the valid pixels of each tile, float64."""
    for address in tiles:
        batch: TileBatch = reader.read([address])
        valid = batch.valid[0]
        rows = []
        for name in names:
            packing = batch.packings[name]
            stored = batch.stored[0, batch.layers.index(name)][valid].double()
            rows.append(stored * packing.scale_factor + packing.add_offset)
        yield torch.stack(rows)
