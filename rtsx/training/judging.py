"""Answers of a network for tiles, counted against the truth; the same for validation in training and at its end."""

from collections.abc import Callable, Iterable, Sequence

import torch

from rtsx.model import InputLayer
from rtsx.training.batch import Batch
from rtsx.training.draws import TileAddress
from rtsx.training.judgement import Judgement

__all__ = ["chunked", "judge", "probability_of"]


def judge(
    answer: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterable[Batch],
    *,
    inputs: Sequence[InputLayer],
    fill: float,
    channels: int,
    device: torch.device,
) -> Judgement:
    """Count the answers for some batches.

    Parameters
    ----------
    answer
        Network input (tile, layer, y, x) to probabilities (tile, class, y, x), both on the device.
    batches
        Tiles that count each pixel once.
    inputs, fill
        How the input is made: as in inference.
    channels
        Classes of the answer.
    device
        Where the network is.
    """
    total = Judgement.empty(channels=channels)
    for batch in batches:
        there = batch.to(device)
        total += Judgement.of(answer(there.channels(inputs, fill=fill)), there.target())
    return total


def probability_of(logits: torch.Tensor) -> torch.Tensor:
    """Sigmoid of a single class, softmax of several; (tile, class, y, x) float32."""
    return logits.float().sigmoid() if logits.shape[1] == 1 else logits.float().softmax(dim=1)


def chunked(tiles: Sequence[TileAddress], size: int) -> list[Sequence[TileAddress]]:
    """Tiles in batches of a size, the last one as it comes: a network that does not learn takes any number."""
    return [tiles[start : start + size] for start in range(0, len(tiles), size)]
