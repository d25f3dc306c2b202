"""Sample predictions for a report: a few tiles as image, truth and probability."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rtsx.labels import IGNORED
from rtsx.model import InputLayer
from rtsx.training.ahead import BatchReader
from rtsx.training.draws import TileAddress
from rtsx.training.tiles import TileIndex

__all__ = ["Sample", "draw_samples", "sample_tiles"]

Picture = NDArray[np.uint8]

_POSITIVE, _NEGATIVE = 5, 1
"""Tiles with and without a label that are shown."""
_COLOURS = ("red", "green", "blue")
_NOTHING = (220, 220, 220)
"""Of pixels that are not valid, or not judged."""
# Corners of a scale from dark to bright that keeps its order in grey and for the colour-blind.
_SCALE = np.array([(13, 8, 60), (84, 39, 143), (189, 55, 84), (249, 142, 9), (252, 255, 164)], np.float64)
_CLASSES = ((230, 97, 1), (27, 120, 183), (51, 140, 65), (150, 100, 190), (190, 160, 20), (200, 60, 130))
"""Colours of classes, again from the first when they run out."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One tile, drawn."""

    scene: int
    """Number of its scene."""
    start: tuple[int, int]
    """Its first row and column, px."""
    image: Picture
    """What the network sees (y, x, 3): red, green and blue where there are, else its first channel in grey."""
    truth: Picture
    """Classes in colours."""
    probability: Picture
    """Of the target, from dark for 0 to bright for 1; of several classes, of any."""


def sample_tiles(index: TileIndex) -> tuple[TileAddress, ...]:
    """A few tiles with labels and one without, at even distances through all scenes."""
    every = [
        (TileAddress(number, (int(y), int(x))), bool(labelled))
        for number, scene in enumerate(index.scenes)
        for (y, x), labelled in zip(scene.starts, scene.labelled, strict=True)
    ]
    chosen: list[TileAddress] = []
    for wanted, is_positive in ((_POSITIVE, True), (_NEGATIVE, False)):
        fitting = [tile for tile, has_label in every if has_label == is_positive]
        places = np.linspace(0, len(fitting) - 1, min(wanted, len(fitting))).round().astype(int)
        chosen.extend(fitting[place] for place in places)
    return tuple(chosen)


def draw_samples(
    network: Callable[[torch.Tensor], torch.Tensor],
    reader: BatchReader,
    tiles: Sequence[TileAddress],
    *,
    inputs: Sequence[InputLayer],
    fill: float,
    device: torch.device,
) -> list[Sample]:
    """Draw tiles as the network sees them, and what it answers; `network` gives probabilities."""
    samples = []
    for tile in tiles:
        batch = reader.read([tile]).to(device)
        channels = batch.channels(inputs, fill=fill)
        answer = network(channels)[0].cpu().numpy()
        target = answer[0] if len(answer) == 1 else 1 - answer[0]
        valid = batch.valid[0].cpu().numpy()
        samples.append(
            Sample(
                scene=tile.scene,
                start=tile.start,
                image=_image(channels[0].cpu().numpy(), [layer.name for layer in inputs], valid=valid),
                truth=_truth(batch.target()[0].cpu().numpy()),
                probability=_hidden(_scaled(target), valid=valid),
            )
        )
    return samples


def _image(channels: NDArray[np.float32], names: Sequence[str], *, valid: NDArray[np.bool_]) -> Picture:
    shown = [names.index(name) for name in _COLOURS] if set(_COLOURS) <= set(names) else [0, 0, 0]
    planes = []
    for number in shown:
        plane = channels[number]
        low, high = np.percentile(plane[valid], (2, 98)) if valid.any() else (0.0, 1.0)
        planes.append(np.clip((plane - low) / max(high - low, 1e-6), 0, 1) * 255)
    return _hidden(np.stack(planes, axis=-1).astype(np.uint8), valid=valid)


def _truth(target: NDArray[np.uint8]) -> Picture:
    picture: Picture = np.zeros((*target.shape, 3), np.uint8)
    for number in range(1, int(target[target != IGNORED].max(initial=0)) + 1):
        picture[target == number] = _CLASSES[(number - 1) % len(_CLASSES)]
    return _hidden(picture, valid=target != IGNORED)


def _scaled(probability: NDArray[np.float32]) -> Picture:
    place = np.clip(probability, 0, 1) * (len(_SCALE) - 1)
    corners = np.arange(len(_SCALE))
    return np.stack([np.interp(place, corners, _SCALE[:, k]) for k in range(3)], axis=-1).round().astype(np.uint8)


def _hidden(picture: Picture, *, valid: NDArray[np.bool_]) -> Picture:
    picture = picture.copy()
    picture[~valid] = _NOTHING
    return picture
