"""From the last checkpoint to a bundle: the best weights, calibrated, with a threshold, and measured."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch

from rtsx.cube import geobox_of
from rtsx.cube.georeference import ground_pixel_m
from rtsx.labels import IGNORED
from rtsx.model import ModelBundle
from rtsx.training.ahead import ReadAhead
from rtsx.training.batch import Batch
from rtsx.training.calibration import SAMPLED_PIXELS, best_temperature, counted_logits
from rtsx.training.checkpoint import Checkpoint
from rtsx.training.draws import TileAddress, validation_tiles
from rtsx.training.fitting import CACHE_BYTES
from rtsx.training.judgement import Judgement
from rtsx.training.judging import chunked, judge
from rtsx.training.networks import new_network, output_classes
from rtsx.training.plan import TrainingPlan
from rtsx.training.reading import TileReader
from rtsx.training.scene import TrainingScene
from rtsx.training.tiles import TileIndex

__all__ = ["Finished", "finish"]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A bundle and how good it is."""

    bundle: ModelBundle
    """Without provenance as yet."""
    validation: Judgement | None
    """Of the validation scenes, by calibrated probabilities; None without any."""
    test: Mapping[str, Judgement]
    """Of each test scene by name."""


def finish(plan: TrainingPlan, checkpoint: Checkpoint, *, test: TileIndex | None, device: torch.device) -> Finished:
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
        Where to judge.
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
        validation = _judged(bundle, plan, scenes=recipe.validation, tiles=plan.validation, device=device)
        bundle = replace(bundle, threshold=validation.best_threshold)
    tested = {}
    tiles = validation_tiles(test) if test else ()
    for number, scene in enumerate(recipe.test):
        own = [tile for tile in tiles if tile.scene == number]
        tested[scene.name] = _judged(bundle, plan, scenes=recipe.test, tiles=own, device=device)
    return Finished(bundle=bundle, validation=validation, test=tested)


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


def _judged(
    bundle: ModelBundle,
    plan: TrainingPlan,
    *,
    scenes: Sequence[TrainingScene],
    tiles: Sequence[TileAddress],
    device: torch.device,
) -> Judgement:
    """How good a bundle is on some tiles, by the network as it will answer for maps."""
    network = bundle.network(device=str(device), precision="float32", backend="eager")
    with _batches(plan, scenes, tiles) as batches:
        return judge(
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
) -> Iterator[Iterator[Batch]]:
    reader = TileReader(scenes, inputs=plan.inputs, tile=plan.recipe.tile, cache_bytes=CACHE_BYTES)
    # In a thread, because starting processes takes longer than what they would save here.
    with ReadAhead({"tiles": reader}, num_workers=0) as ahead:
        yield ahead.batches("tiles", chunked(tiles, plan.recipe.batch_size))
