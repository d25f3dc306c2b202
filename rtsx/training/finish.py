"""A finished training: the choice of its weights, its bundle and its scores; and a run that its folder gives back.

Guo, Pleiss, Sun, Weinberger 2017 (ICML), "On calibration of modern neural networks": logits are divided by one number,
which is chosen to minimise the negative log-likelihood of held-out pixels. Which output is greatest never changes.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from rtsx.cube import geobox_of
from rtsx.cube.georeference import ground_pixel_m
from rtsx.errors import TrainingError
from rtsx.labels import IGNORED
from rtsx.model import ModelBundle
from rtsx.parsing import json_value, parsed_json, wrap_damage
from rtsx.scores import PixelScores
from rtsx.training.dataset import ReadAhead, TileBatch, TileReader
from rtsx.training.loop import CACHE_BYTES, TrainingCheckpoint
from rtsx.training.metrics import EpochMetrics, chunked, evaluate_epoch
from rtsx.training.networks import new_network, output_classes
from rtsx.training.recipe import TrainingScene
from rtsx.training.run_folder import RunFolder
from rtsx.training.sampler import TileAddress, TrainingPlan, validation_tiles
from rtsx.training.tile_index import TileIndex

SAMPLED_PIXELS = 2**20
"""Pixels that calibration looks at, at most about: more would not move one number."""
_LIMITS = (1 / 20, 20.0)
"""Least and greatest temperature; where all held-out pixels are right, colder is always better."""


def counted_logits(
    logits: torch.Tensor, target: torch.Tensor, *, every: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return logits (pixel, class) and classes (pixel,) of every so-many-th pixel that counts.

    Parameters
    ----------
    logits
        (tile, class, y, x), of any floating dtype.
    target
        (tile, y, x) uint8; `IGNORED` where a pixel does not count.
    every
        1 takes every pixel.
    """
    counts = target != IGNORED
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
    """Return the temperature with the least negative log-likelihood, between 0.05 and 20; 1 where the truth is the same everywhere.

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
    """Return the temperature that suits the validation scenes best."""
    recipe = plan.recipe
    # Odd, because a step that divides the width of a tile would look at the same columns always.
    every = (len(plan.validation) * recipe.tile**2 // SAMPLED_PIXELS) | 1
    logits, truth = [], []
    with _batches(plan, recipe.validation, plan.validation) as batches, torch.no_grad():
        for batch in batches:
            there = batch.to(device)
            output = network(there.channels(plan.inputs, fill=recipe.fill))
            some, kinds = counted_logits(output, there.target(), every=every)
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
    """Return how good a bundle is on some tiles, by the network as it will answer for maps."""
    network = bundle.network(device=str(device), precision="float32", backend="eager")
    with _batches(plan, scenes, tiles) as batches:
        return evaluate_epoch(
            network, batches, inputs=bundle.inputs, fill=bundle.fill, channels=len(bundle.classes), device=device
        )


@contextmanager
def _batches(
    plan: TrainingPlan, scenes: Sequence[TrainingScene], tiles: Sequence[TileAddress]
) -> Iterator[Iterator[TileBatch]]:
    reader = TileReader(scenes, inputs=plan.inputs, tile=plan.recipe.tile, cache_bytes=CACHE_BYTES)
    # In a thread, because starting processes takes longer than what they would save here.
    with ReadAhead({"tiles": reader}, num_workers=0) as ahead:
        yield ahead.batches("tiles", chunked(tiles, plan.recipe.batch_size))


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A bundle, how it came about, and how good it is."""

    folder: Path
    """Where everything lies: `bundle/`, `log.csv`, `report.html`, `checkpoints/`."""
    bundle: ModelBundle
    """What was trained, calibrated and with its threshold."""
    epochs: int
    """Epochs that were run."""
    best_epoch: int
    """The one that the bundle is of, from 1."""
    validation: PixelScores | None
    """Of the validation scenes at the bundle's threshold, which they have chosen; the pixels of several classes added up.
    None without any."""
    test: Mapping[str, PixelScores]
    """Of each test scene by its name, likewise."""


def read_run(folder: str | Path) -> TrainedRun:
    """Read what `train` left.

    Raises
    ------
    TrainingError
        No training is there, or it is not finished.
    """
    run = RunFolder.at(folder)
    if not run.recipe.is_file():
        raise TrainingError(f"{folder} holds no training. Name the folder that train() wrote to.")
    if not run.result.is_file():
        raise TrainingError(
            f"The training in {folder} is not finished. Call train() again with the same recipe to go on."
        )
    result = json_value(run.result.read_bytes(), what=str(run.result), error=TrainingError)
    with wrap_damage(str(run.result), TrainingError):
        test, validation = json.dumps(result["test"]), json.dumps(result["validation"])
        return TrainedRun(
            folder=run.path,
            bundle=ModelBundle.open(run.bundle),
            epochs=result["epochs"],
            best_epoch=result["best_epoch"],
            validation=None
            if result["validation"] is None
            else parsed_json(validation, PixelScores, what=str(run.result), error=TrainingError),
            test=parsed_json(test, dict[str, PixelScores], what=str(run.result), error=TrainingError),
        )


def result_of(run: TrainedRun) -> dict[str, object]:
    """Return what `read_run` reads, as JSON values."""
    return {
        "epochs": run.epochs,
        "best_epoch": run.best_epoch,
        "bundle_digest": run.bundle.digest,
        "threshold": run.bundle.threshold,
        "temperature": run.bundle.temperature,
        "validation": None if run.validation is None else asdict(run.validation),
        "test": {name: asdict(scores) for name, scores in run.test.items()},
    }
