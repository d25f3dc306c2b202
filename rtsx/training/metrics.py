"""Output of a network counted against the truth by class, probability and decision; in training and at its end."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
import torch

from rtsx.labels import IGNORED
from rtsx.model import InputLayer
from rtsx.scores import LEVELS_OF_FLOAT, PixelScores, PixelTally, average_precision, best_threshold
from rtsx.training.dataset import TileBatch
from rtsx.training.sampler import TileAddress


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """Counts of pixels; those of parts add up to those of the whole.

    A single class is found where its probability reaches a threshold; of exclusive classes the greatest is found, and
    the background has no scores of its own.
    """

    probabilities: tuple[PixelTally, ...]
    """Counts by probability, one for each class that is learnt."""
    decisions: tuple[PixelTally, ...]
    """Counts by whether the class was the greatest, in two levels; empty with a single class."""

    @classmethod
    def empty(cls, *, channels: int) -> Self:
        """Begin with no pixel, for a network with this many output channels."""
        return cls(
            probabilities=(PixelTally.empty(levels=LEVELS_OF_FLOAT),) * max(channels - 1, 1),
            decisions=(PixelTally.empty(levels=1),) * (channels - 1),
        )

    @classmethod
    def of(cls, probability: torch.Tensor, target: torch.Tensor) -> Self:
        """Count the pixels of a batch.

        Parameters
        ----------
        probability
            (tile, class, y, x) float32, 0-1.
        target
            (tile, y, x) uint8; ignored pixels are left out.
        """
        counts = target != IGNORED
        chosen = probability.movedim(1, -1)[counts].cpu().numpy()
        truth = target[counts].cpu().numpy()
        if chosen.shape[1] == 1:
            return cls(probabilities=(PixelTally.of(chosen[:, 0], truth == 1, levels=LEVELS_OF_FLOAT),), decisions=())
        greatest = chosen.argmax(1)
        classes = range(1, chosen.shape[1])
        return cls(
            probabilities=tuple(PixelTally.of(chosen[:, k], truth == k, levels=LEVELS_OF_FLOAT) for k in classes),
            decisions=tuple(PixelTally.of((greatest == k).astype(np.uint8), truth == k, levels=1) for k in classes),
        )

    def __add__(self, more: Self) -> Self:
        return type(self)(
            probabilities=tuple(a + b for a, b in zip(self.probabilities, more.probabilities, strict=True)),
            decisions=tuple(a + b for a, b in zip(self.decisions, more.decisions, strict=True)),
        )

    @property
    def n_pixels(self) -> int:
        """Pixels that were counted."""
        return self.probabilities[0].n_target + self.probabilities[0].n_other

    @property
    def best_threshold(self) -> float:
        """Threshold with the greatest IoU of a single class; 0.5 with several, which need none."""
        return 0.5 if self.decisions else best_threshold(self.probabilities[0])[0]

    def by_class(self, threshold: float) -> tuple[PixelScores, ...]:
        """Return scores of each class; the threshold is that of a single one."""
        if self.decisions:
            return tuple(PixelScores.at(tally, 1.0) for tally in self.decisions)
        return (PixelScores.at(self.probabilities[0], threshold),)

    def scores(self, threshold: float) -> PixelScores:
        """Return scores of all classes together: their pixels added up."""
        counts = Counter[str]()
        for scores in self.by_class(threshold):
            counts.update(asdict(scores))
        return PixelScores(**counts)

    def mean_iou(self, threshold: float) -> float:
        """Return IoU, averaged over the classes."""
        return float(np.mean([scores.iou for scores in self.by_class(threshold)]))

    def mean_average_precision(self) -> float:
        """Return the average precision, averaged over the classes that are there; NaN where none is."""
        found = [average_precision(tally) for tally in self.probabilities if tally.n_target]
        return float(np.mean(found)) if found else float("nan")

    def to_counts(self) -> torch.Tensor:
        """Return all counts as one int64 tensor, which processes can add up; `with_counts` takes it back."""
        tallies = (*self.probabilities, *self.decisions)
        return torch.from_numpy(np.concatenate([part for tally in tallies for part in (tally.target, tally.other)]))

    def with_counts(self, counts: torch.Tensor) -> Self:
        """Return the metrics of these counts, in the shape of this one."""
        sizes = [tally.levels + 1 for tally in (*self.probabilities, *self.decisions) for _ in ("target", "other")]
        parts = iter(np.split(counts.cpu().numpy().copy(), np.cumsum(sizes)[:-1]))
        tallies = [PixelTally(target=target, other=other) for target, other in zip(parts, parts, strict=True)]
        n_classes = len(self.probabilities)
        return type(self)(probabilities=tuple(tallies[:n_classes]), decisions=tuple(tallies[n_classes:]))


def evaluate_epoch(
    network: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterable[TileBatch],
    *,
    inputs: Sequence[InputLayer],
    fill: float,
    channels: int,
    device: torch.device,
) -> EpochMetrics:
    """Count the answers for some batches.

    Parameters
    ----------
    network
        Network input (tile, layer, y, x) to probabilities (tile, class, y, x), both on the device.
    batches
        Tiles that count each pixel once.
    inputs, fill
        How the input is made: as in inference.
    channels
        Classes of the network.
    device
        Where the network is.
    """
    total = EpochMetrics.empty(channels=channels)
    for batch in batches:
        there = batch.to(device)
        total += EpochMetrics.of(network(there.channels(inputs, fill=fill)), there.target())
    return total


def probability_of(logits: torch.Tensor) -> torch.Tensor:
    """Return sigmoid of a single class, softmax of several; (tile, class, y, x) float32."""
    return logits.float().sigmoid() if logits.shape[1] == 1 else logits.float().softmax(dim=1)


def chunked(tiles: Sequence[TileAddress], size: int) -> list[Sequence[TileAddress]]:
    """Return tiles in batches of a size, the last one as it comes: a network that does not learn takes any number."""
    return [tiles[start : start + size] for start in range(0, len(tiles), size)]
