"""Training examples of the demo's bundle: synthetic scenes, cut into crops and changed at random."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from rtsx.cli.console import status
from rtsx.model.inputs import InputLayer, Packing, prepare
from rtsx.synthetic import Scene, SceneSpec, make_scene, varied_spec

__all__ = ["INPUTS", "Example", "cut", "make_examples", "varied_spec"]

BANDS = ("blue", "green", "red", "nir")
"""Stored layers, in the order of the scenes' bands."""
PACKINGS = {name: Packing(scale_factor=1e-4, nodata=0, is_declared=True) for name in BANDS}
"""How the scenes store reflectance."""
INPUTS = (
    InputLayer.from_range("blue", 0, 0.25, clip=True, units="reflectance"),
    InputLayer.from_range("green", 0, 0.25, clip=True, units="reflectance"),
    InputLayer.from_range("red", 0, 0.3, clip=True, units="reflectance"),
    InputLayer.from_range("nir", 0, 0.5, clip=True, units="reflectance"),
    InputLayer.from_range("ndvi", -1, 1, clip=True, units="index"),
)
"""Channels of the network."""
AROUND_SLUMPS = 0.6
"""Part of the crops that lie around a slump."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One scene, or a crop of one, as the network is fed."""

    stored: torch.Tensor
    """DN (band, y, x)."""
    valid: torch.Tensor
    """Pixels (y, x) that count."""
    truth: torch.Tensor
    """Slumps (y, x)."""

    @classmethod
    def from_scene(cls, scene: Scene) -> "Example":
        """Take image, mask rule *tss-v1* and truth of a scene."""
        valid = scene.good_mask() & (scene.image > 0).all(axis=0)
        return cls(
            stored=torch.from_numpy(scene.image.astype(np.int16)),  # a scene's DN end at 15000
            valid=torch.from_numpy(valid),
            truth=torch.from_numpy(scene.truth_mask()),
        )

    def channels(self) -> torch.Tensor:
        """Network input (layer, y, x), float32, made by the function that inference uses."""
        stored = dict(zip(BANDS, self.stored, strict=True))
        return prepare(stored, self.valid, inputs=INPUTS, packings=PACKINGS, fill=0.0)


def make_arrays(spec: SceneSpec) -> tuple[NDArray[np.int16], NDArray[np.bool_], NDArray[np.bool_]]:
    """Make one scene in a process of its own; arrays, because they travel cheaper than tensors."""
    example = Example.from_scene(make_scene(spec))
    return example.stored.numpy(), example.valid.numpy(), example.truth.numpy()


def make_examples(specs: Sequence[SceneSpec], *, label: str, processes: int) -> list[Example]:
    """Make scenes in `processes` at a time, under a progress bar; their order is that of `specs`."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads half-alive
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        made = track(pool.map(make_arrays, specs), label, total=len(specs), console=status())
        return [
            Example(stored=torch.from_numpy(stored), valid=torch.from_numpy(valid), truth=torch.from_numpy(truth))
            for stored, valid, truth in made
        ]


def cut(example: Example, *, crop: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cut a crop, often around a slump, change its light, turn and flip it.

    Returns channels (layer, y, x), truth (y, x) and valid (y, x).
    """
    size = example.valid.shape[0]
    centre = rng.integers(0, size, 2)
    slump = torch.nonzero(example.truth & example.valid)
    if len(slump) and rng.uniform() < AROUND_SLUMPS:
        centre = slump[int(rng.integers(len(slump)))].numpy() + rng.integers(-crop // 3, crop // 3, 2)
    row, column = (int(start) for start in np.clip(centre - crop // 2, 0, size - crop))
    rows, columns = slice(row, row + crop), slice(column, column + crop)
    gain = rng.normal(1, 0.06) * (1 + rng.normal(0, 0.03, len(BANDS)))
    stored = example.stored[:, rows, columns].float() * torch.tensor(gain, dtype=torch.float32)[:, None, None]
    stored += float(rng.normal(0, 40))
    part = Example(stored=stored, valid=example.valid[rows, columns], truth=example.truth[rows, columns])
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    turned = (torch.rot90(layer, turns, (-2, -1)) for layer in (part.channels(), part.truth, part.valid))
    channels, truth, valid = (layer.flip(-1) if flip else layer for layer in turned)
    return channels, truth, valid
