"""The direct driver: predicts a plane of NumPy arrays at once, block by block, without a scheduler."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsx.inference.answers import cut_out, finished, joined
from rtsx.inference.blocks import BlockPlan
from rtsx.inference.kernel import Answer, Window
from rtsx.inference.runner import Runner

__all__ = ["direct_chunks", "predict_arrays"]

# Pixels along each side of a block: bounds what is prepared at once; larger blocks are no faster.
_BLOCK = 2048


def predict_arrays(
    layers: Mapping[str, NDArray[Any]], mask: NDArray[np.bool_] | None, *, runner: Runner
) -> dict[str, NDArray[Any]]:
    """Answers by name (see `finished`) and `valid`, each over the whole plane (y, x) of the layers."""
    valid = runner.valid(layers, mask)
    blocks = BlockPlan(tiling=runner.plan.tiling, chunks=direct_chunks(runner.plan.tiling.shape))
    waiting: list[Answer] = []
    rows: list[dict[str, NDArray[Any]]] = []
    for row in blocks.rows():
        for block in row:
            if block.read is None:
                continue
            window = Window(
                region=block.read,
                stored={name: layer[block.read] for name, layer in layers.items()},
                packings=runner.packings,
                valid=valid[block.read],
            )
            waiting.append(runner.answer(window, block.tiles))
        band = (row[0].region[0], slice(0, valid.shape[1]))
        rows.append(finished(joined(waiting, band, plan=runner.plan), valid[band], plan=runner.plan))
        # What lies wholly above the next band is done with.
        below = (slice(band[0].stop, valid.shape[0]), band[1])
        waiting = [cut_out(answer, below) for answer in waiting if answer.region[0].stop > band[0].stop]
    names = rows[0]
    return {name: np.concatenate([row[name] for row in rows], axis=-2) for name in names} | {"valid": valid}


def direct_chunks(shape: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chunks in which a plane of this shape is run."""
    y, x = ((_BLOCK,) * (length // _BLOCK) + ((rest,) if (rest := length % _BLOCK) else ()) for length in shape)
    return y, x
