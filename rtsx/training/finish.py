"""From the last checkpoint to a bundle: best weights, calibrated temperature, threshold, scores.

Guo, Pleiss, Sun, Weinberger 2017 (ICML), "On calibration of modern neural networks": logits are divided by one number,
which is chosen to minimise the negative log-likelihood of held-out pixels. Which answer is greatest never changes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from rtsx.cube import geobox_of
from rtsx.cube.georeference import ground_pixel_m
from rtsx.labels import IGNORED
from rtsx.model import ModelBundle
from rtsx.training.checkpoint import TrainingCheckpoint
from rtsx.training.dataset import ReadAhead, TileBatch, TileReader
from rtsx.training.loop import CACHE_BYTES
from rtsx.training.metrics import EpochMetrics, chunked, evaluate_epoch
from rtsx.training.networks import new_network, output_classes
from rtsx.training.recipe import TrainingScene
from rtsx.training.sampler import TileAddress, TrainingPlan, validation_tiles
from rtsx.training.tile_index import TileIndex

SAMPLED_PIXELS = 2**20
"""Pixels that calibration looks at, at most about: more would not move one number."""
_LIMITS = (1 / 20, 20.0)
"""Least and greatest temperature; where all held-out pixels are right, colder is always better."""


def counted_logits(
    logits: torch.Tensor, target: torch.Tensor, *, ignored: int, every: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Logits (pixel, class) and classes (pixel,) of every so-many-th pixel that counts.

    Parameters
    ----------
    logits
        (tile, class, y, x), of any floating dtype.
    target
        (tile, y, x) uint8.
    ignored
        The target's value where a pixel does not count.
    every
        1 takes every pixel.
    """
    counts = target != ignored
    chosen = logits.movedim(1, -1)[counts][::every]
    return chosen.float().cpu().numpy(), target[counts][::every].cpu().numpy()


def negative_log_likelihood(logits: NDArray[np.float32], truth: NDArray[np.uint8], *, temperature: float) -> float:
    """Mean negative logarithm of the probability of the truth, in nats.

    Parameters
    ----------
    logits
        (pixel, class); one class stands for a sigmoid, several for a softmax.
    truth
        (pixel,): 0 or 1 with one class, the class with several.
    temperature
        What logits are divided by.

    Examples
    --------
    >>> logits = np.array([[0.0], [0.0]], np.float32)
    >>> round(negative_log_likelihood(logits, np.array([0, 1], np.uint8), temperature=2.0), 4)
    0.6931
    """
    scaled = torch.from_numpy(logits).double() / temperature
    if logits.shape[1] == 1:
        target = torch.from_numpy(truth).double()
        return float(torch.nn.functional.binary_cross_entropy_with_logits(scaled[:, 0], target))
    return float(torch.nn.functional.cross_entropy(scaled, torch.from_numpy(truth).long()))


def best_temperature(logits: NDArray[np.float32], truth: NDArray[np.uint8]) -> float:
    """Temperature with the least negative log-likelihood, between 0.05 and 20; 1 where the truth is the same everywhere.

    Without both kinds of pixels there is nothing to weigh: the best probability would be 0 or 1 throughout.
    """
    if len(np.unique(truth)) < 2:
        return 1.0
    low, high = (math.log(limit) for limit in _LIMITS)
    # In the logarithm, because a temperature and its inverse are equally far from 1.
    found = minimize_scalar(
        lambda exponent: negative_log_likelihood(logits, truth, temperature=math.exp(exponent)),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-4},
    )
    # Rounded, because further digits depend on how the machine adds up.
    return round(math.exp(float(found.x)), 3)


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A bundle and how good it is."""

    bundle: ModelBundle
    """Without provenance as yet."""
    validation: EpochMetrics | None
    """Of the validation scenes, by calibrated probabilities; None without any."""
    test: Mapping[str, EpochMetrics]
    """Of each test scene by name."""


def finalise(
    plan: TrainingPlan, checkpoint: TrainingCheckpoint, *, test: TileIndex | None, device: torch.device
) -> TrainedModel:
    """Make the bundle of a training whose epochs are done.

    Parameters
    ----------
    plan
        What was trained.
    checkpoint
        Its last.
    test
        Tiles of the test scenes.
    device
        Where to evaluate.
    """
    recipe = plan.recipe
    # Without weights to start from, because they would be loaded only to be replaced.
    spec = replace(recipe.network, encoder_weights=None)
    classes = output_classes(recipe.classes)
    network = new_network(spec, layers=len(plan.inputs), classes=len(classes), seed=recipe.seed)
    network.load_state_dict(dict(checkpoint.best.state))
    network.eval()
    bundle = ModelBundle.from_module(
        network,
        inputs=plan.inputs,
        preset=recipe.preset,
        classes=classes,
        tile=recipe.tile,
        overlap=recipe.overlap,
        fill=recipe.fill,
        pixel_m=round(float(np.median([ground_pixel_m(geobox_of(scene.cube)) for scene in recipe.training])), 3),
        id=recipe.id,
    )
    validation = None
    if plan.validation:
        temperature = _temperature(network.to(device), plan, device=device)
        bundle = replace(bundle, temperature=temperature)
        validation = _evaluated(bundle, plan, scenes=recipe.validation, tiles=plan.validation, device=device)
        bundle = replace(bundle, threshold=validation.best_threshold)
    tested = {}
    tiles = validation_tiles(test) if test else ()
    for number, scene in enumerate(recipe.test):
        own = [tile for tile in tiles if tile.scene == number]
        tested[scene.name] = _evaluated(bundle, plan, scenes=recipe.test, tiles=own, device=device)
    return TrainedModel(bundle=bundle, validation=validation, test=tested)


def _temperature(network: torch.nn.Module, plan: TrainingPlan, *, device: torch.device) -> float:
    """The temperature that suits the validation scenes best."""
    recipe = plan.recipe
    # Odd, because a step that divides the width of a tile would look at the same columns always.
    every = (len(plan.validation) * recipe.tile**2 // SAMPLED_PIXELS) | 1
    logits, truth = [], []
    with _batches(plan, recipe.validation, plan.validation) as batches, torch.no_grad():
        for batch in batches:
            there = batch.to(device)
            answer = network(there.channels(plan.inputs, fill=recipe.fill))
            some, kinds = counted_logits(answer, there.target(), ignored=IGNORED, every=every)
            logits.append(some)
            truth.append(kinds)
    return best_temperature(np.concatenate(logits), np.concatenate(truth))


def _evaluated(
    bundle: ModelBundle,
    plan: TrainingPlan,
    *,
    scenes: Sequence[TrainingScene],
    tiles: Sequence[TileAddress],
    device: torch.device,
) -> EpochMetrics:
    """How good a bundle is on some tiles, by the network as it will answer for maps."""
    network = bundle.network(device=str(device), precision="float32", backend="eager")
    with _batches(plan, scenes, tiles) as batches:
        return evaluate_epoch(
            network,
            batches,
            inputs=bundle.inputs,
            fill=bundle.fill,
            channels=len(bundle.classes),
            device=device,
        )


@contextmanager
def _batches(
    plan: TrainingPlan, scenes: Sequence[TrainingScene], tiles: Sequence[TileAddress]
) -> Iterator[Iterator[TileBatch]]:
    reader = TileReader(scenes, inputs=plan.inputs, tile=plan.recipe.tile, cache_bytes=CACHE_BYTES)
    # In a thread, because starting processes takes longer than what they would save here.
    with ReadAhead({"tiles": reader}, num_workers=0) as ahead:
        yield ahead.batches("tiles", chunked(tiles, plan.recipe.batch_size))
