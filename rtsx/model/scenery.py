"""Made-up network input: random fields that look like ground to a network, for measuring speed and reach."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere

from rtsx.model.inputs import InputLayer

__all__ = ["Scenery", "plausible_ranges"]

_GRAINS = (64, 16, 4, 1)
"""Sizes of the features in px; all count the same, as in ground that is rough at every scale."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenery:
    """A supply of square scenes in channel units, the same for the same seed."""

    ranges: tuple[tuple[float, float], ...]
    """Channel values (low, high) of each layer."""
    seed: int
    """Of every random number."""
    sample: torch.Tensor | None = None
    """Channels (layer, y, x) float32 of a real scene to show instead of random fields, mirrored where it is too small."""

    def field(self, side: int, *, number: int) -> torch.Tensor:
        """Scene (1, layer, side, side) float32; every number is another one.

        Examples
        --------
        >>> scene = Scenery(ranges=((0.0, 1.0), (-2.0, 2.0)), seed=0).field(32, number=3)
        >>> scene.shape, bool(scene[0, 0].min() >= 0), bool(scene[0, 1].min() < -1)
        (torch.Size([1, 2, 32, 32]), True, True)
        """
        if self.sample is not None:
            return _turned_sample(self.sample, side, number)
        generator = torch.Generator().manual_seed(self.seed * 10_007 + number)
        field = torch.zeros(1, len(self.ranges), side, side)
        for grain in _GRAINS:
            cells = side // grain + 2
            rough = torch.randn(1, len(self.ranges), cells, cells, generator=generator)
            whole = F.interpolate(rough, scale_factor=grain, mode="bilinear") if grain > 1 else rough
            field += whole[..., :side, :side]
        low, high = self._limits()
        # Within four deviations lies all of a normal field but a few pixels, which the clamp takes.
        return torch.clamp(low + (high - low) * (field / len(_GRAINS) ** 0.5 / 4 + 0.5), low, high)

    def flat(self, side: int, *, at: float) -> torch.Tensor:
        """Scene (1, layer, side, side) of one value: each layer's low for `at` 0, its high for 1."""
        low, high = self._limits()
        return (low + (high - low) * at).expand(1, -1, side, side)

    def _limits(self) -> tuple[torch.Tensor, torch.Tensor]:
        low, high = torch.tensor(self.ranges).T[:, None, :, None, None]
        return low, high


def plausible_ranges(inputs: Sequence[InputLayer]) -> tuple[tuple[float, float], ...]:
    """Channel values that each input is likely to take, as (low, high).

    Its clip where it has one; two standard deviations where physical 0 lies below the channel's 0, as it does after
    ``(physical - mean) / std``; else 0 to 1.

    Examples
    --------
    >>> plausible_ranges([InputLayer.from_statistics("red", mean=10, std=4), InputLayer(name="slope", scale=1 / 90)])
    ((-2.0, 2.0), (0.0, 1.0))
    """
    return tuple(layer.clip or ((-2.0, 2.0) if layer.offset < 0 else (0.0, 1.0)) for layer in inputs)


def _turned_sample(sample: torch.Tensor, side: int, number: int) -> torch.Tensor:
    """The sample in one of its eight positions, repeated by mirroring, its middle in the middle."""
    turned = torch.rot90(sample.flip(-1) if number // 4 % 2 else sample, number % 4, (-2, -1))
    for axis in (-2, -1):
        length = turned.shape[axis]
        place = torch.arange(side) - side // 2 + length // 2
        place = place.remainder(2 * length)
        turned = turned.index_select(axis, torch.where(place < length, place, 2 * length - 1 - place))
    return turned[None].float()
