"""Train a bundle from a recipe: refuse what cannot be trained before a pixel is read, measure the scaling, train, and keep what came of it."""

import json
import math
import platform
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

import rtsx
from rtsx.cube import layer_names
from rtsx.errors import MissingExtraError, TrainingError
from rtsx.model import InputLayer, ModelBundle, OutlineChoice, required_layers
from rtsx.model.metadata import DISTRIBUTIONS, LayerDistribution, check_tiles
from rtsx.model.network import resolve_device
from rtsx.names import is_background, version_of
from rtsx.training.augment import check_augmentations, check_dropped
from rtsx.training.dataset import TileBatch, TileReader
from rtsx.training.finish import TrainedModel, TrainedRun, finalise, result_of
from rtsx.training.loop import CACHE_BYTES, TrainingCheckpoint, fit
from rtsx.training.losses import build_loss
from rtsx.training.networks import check_encoder_weights, check_step, output_classes, stride_of
from rtsx.training.optimiser import check_optimisation
from rtsx.training.recipe import TrainingRecipe, explained
from rtsx.training.report import write_training_report
from rtsx.training.run_folder import RunFolder, recipe_record
from rtsx.training.run_log import LoggerName, Progress, RowLogger, ShowProgress, check_loggers, open_loggers, write_log
from rtsx.training.sampler import TileAddress, TrainingPlan, candidates, spread, validation_tiles
from rtsx.training.scene_arrays import every_layer
from rtsx.training.tile_index import TileIndex, index_tiles


def check_recipe(recipe: TrainingRecipe) -> int:
    """Refuse a recipe that cannot be trained, and return the stride of its network, px; reads no pixel.

    Raises
    ------
    TrainingError
        The message says what is wrong, and what would be right.
    """
    if not recipe.id:
        raise TrainingError("A recipe needs an id, which becomes the bundle's name; got ''.")
    _check_numbers(recipe)
    _check_classes(recipe)
    _check_scenes(recipe)
    stride = stride_of(recipe.network)
    check_encoder_weights(recipe.network)
    with explained():
        check_tiles(recipe.tile, overlap=recipe.overlap, stride=stride, trim=None)
    build_loss(recipe.losses, classes=len(output_classes(recipe.classes)))
    check_optimisation(recipe.optimisation)
    inputs = every_layer(recipe.training[0]) if recipe.inputs is None else recipe.inputs
    layers = tuple(layer.name for layer in inputs)
    if not layers or len(set(layers)) < len(layers):
        raise TrainingError(f"A network needs at least one input layer, and each once; got {list(layers)}.")
    for scene in recipe.scenes:
        with explained(f"Scene {scene.name!r} lacks layers of the recipe. "):
            required_layers(inputs, layer_names(scene.cube))
    # Those that are stored, because ndvi that is derived changes with red and nir.
    check_augmentations(recipe.augmentations, layers=required_layers(inputs, layer_names(recipe.training[0].cube)))
    check_dropped(recipe.augmentations, channels=len(layers))
    return stride


def check_devices(recipe: TrainingRecipe, *, device: str, devices: int, num_workers: int) -> None:
    """Refuse what the machine cannot do.

    Parameters
    ----------
    recipe
        A checked one.
    device
        Type of the device: "cpu" or "cuda".
    devices
        How many of them.
    num_workers
        Processes that read.
    """
    if devices < 1 or recipe.batch_size % devices:
        raise TrainingError(
            f"devices has to be at least 1 and divide the batch of {recipe.batch_size} tiles evenly; got {devices}."
        )
    if num_workers < 0:
        raise TrainingError(f"num_workers has to be at least 0; got {num_workers}.")
    if recipe.optimisation.precision == "float16" and device == "cpu":
        raise TrainingError("precision='float16' needs a GPU. Take 'bfloat16' or 'float32' on a CPU.")
    check_step(recipe.network, tile=recipe.tile, tiles=recipe.batch_size // devices)


def _check_numbers(recipe: TrainingRecipe) -> None:
    for name in ("epochs", "batch_size", "steps_per_epoch", "patience"):
        if (count := getattr(recipe, name)) is not None and count < 1:
            raise TrainingError(f"{name} has to be at least 1; got {count}.")
    if not math.isfinite(recipe.fill):
        raise TrainingError(f"fill is the channel value of an invalid pixel, a finite number; got {recipe.fill}.")
    try:
        json.dumps(recipe.provenance)
    except (TypeError, ValueError) as error:
        raise TrainingError(
            f"provenance is kept with the bundle as JSON, and is none: {error}. Give text, numbers, lists and mappings."
        ) from error
    if recipe.patience is not None and not recipe.validation:
        raise TrainingError(
            "patience waits for a better validation, but there are no validation scenes. Name some, or leave it out."
        )


def _check_classes(recipe: TrainingRecipe) -> None:
    classes = recipe.classes
    if not classes or len(set(classes)) < len(classes) or "" in classes:
        raise TrainingError(f"A recipe learns at least one class, each with its own name; got {list(classes)}.")
    if len(classes) > 1 and any(map(is_background, classes)):
        raise TrainingError(
            f"With several classes the network gets 'background' by itself; leave it out of classes={list(classes)}."
        )


def _check_scenes(recipe: TrainingRecipe) -> None:
    if not recipe.training:
        raise TrainingError("A recipe needs at least one training scene; got none.")
    twice = [name for name, n in Counter(scene.name for scene in recipe.scenes).items() if n > 1]
    if twice:
        raise TrainingError(
            f"Scenes {twice} stand more than once among training, validation and test: what is learnt from cannot be tested on. "
            "Give each scene one place and its own name."
        )
    learnt = {scene.group for scene in (*recipe.training, *recipe.validation) if scene.group}
    divided = sorted(learnt & {scene.group for scene in recipe.test})
    if divided:
        raise TrainingError(
            f"Groups {divided} have scenes on both sides of the test, which then measures what was learnt by heart. Keep all "
            "scenes of a group on one side."
        )
    for scene in recipe.scenes:
        if scene.truth.classes != recipe.classes:
            raise TrainingError(
                f"The recipe learns the classes {list(recipe.classes)}, but the truth of scene {scene.name!r} has "
                f"{list(scene.truth.classes)}. Make its truth with the classes of the recipe, in their order."
            )


MEASURED_TILES = 256
"""Tiles that are looked at, at most: millions of pixels, while the answer needs no more than two digits."""


def measured_tiles(index: TileIndex) -> tuple[TileAddress, ...]:
    """Return tiles to measure on: all of them, or so many at even distances through all scenes."""
    return spread([tile for tile, _ in candidates(index)], MEASURED_TILES)


def measured_inputs(
    reader: TileReader, tiles: Sequence[TileAddress], *, names: Sequence[str]
) -> tuple[InputLayer, ...]:
    """Return layers scaled to mean 0 and deviation 1, in physical units, over the valid pixels of some tiles.

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
    """Return the distribution of each stored layer over valid pixels of some tiles, in physical units: what images of later years are held against.

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
    """Yield physical values (layer, pixel) of the valid pixels of each tile, float64."""
    for address in tiles:
        batch: TileBatch = reader.read([address])
        valid = batch.valid[0]
        rows = []
        for name in names:
            packing = batch.packings[name]
            stored = batch.stored[0, batch.layers.index(name)][valid].double()
            rows.append(stored * packing.scale_factor + packing.add_offset)
        yield torch.stack(rows)


_LIBRARIES = ("kornia", "lightning", "numpy", "scipy", "segmentation-models-pytorch", "timm", "torch", "xarray")
"""Libraries whose versions the weights may depend on."""


def library_versions() -> dict[str, str]:
    """Return versions by name, Python's and our own among them."""
    versions = {name: version_of(name) for name in _LIBRARIES}  # some are optional
    found = {name: version for name, version in versions.items() if version is not None}
    return {"python": platform.python_version(), "rtsx": rtsx.__version__, **found}


def git_revision(folder: Path) -> str | None:
    """Commit that a working directory is at, with ``+changes`` where files differ from it; None where there is no git."""
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(folder), *command], check=True, capture_output=True, text=True, timeout=30
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+changes" if changes else commit


def machine(device: torch.device, *, devices: int) -> dict[str, object]:
    """Return what a training ran on: sums are rounded as the device and the number of threads have it."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": device.type, "name": name, "devices": devices, "threads": torch.get_num_threads()}


def train(
    recipe: TrainingRecipe,
    out: str | Path,
    *,
    overwrite: bool = False,
    device: str = "auto",
    devices: int = 1,
    num_workers: int = 0,
    loggers: Sequence[LoggerName] = (),
    progress: ShowProgress | None = None,
    choose: Callable[[ModelBundle], OutlineChoice] | None = None,
) -> TrainedRun:
    """Train a network and make a bundle of it.

    Everything is kept in one folder: `bundle/`, `log.csv` (one row an epoch), `report.html`, `checkpoints/`. A training that
    was stopped, however, goes on from its last epoch when it is called again, and gives what it would have given; on a CPU
    with as many threads, bit for bit.

    With validation scenes the epoch with the best IoU is kept (averaged over classes; of a single class, at its best
    threshold), probabilities are calibrated by a temperature, and the threshold with the best IoU is stored. Without, the
    last epoch is kept with threshold 0.5 and temperature 1.

    Parameters
    ----------
    recipe
        What is learnt from, how, and what the bundle says about itself.
    out
        Local folder that does not exist, is empty, or holds an unfinished training of the same recipe.
    overwrite
        Replace the training that is there, finished or not, once the new one has done an epoch; a folder that holds
        anything else is kept.
    device
        "auto" (the GPU where there is one), "cpu", "cuda" or "cuda:N".
    devices
        How many of them; above 1 by processes that share each batch (DDP), started anew, so a script has to keep what it
        does behind ``if __name__ == "__main__"``.
    num_workers
        Processes that read tiles; 0 reads in a thread beside the network. The result never depends on it.
    loggers
        "tensorboard", "wandb", or both, beside the CSV file; what is not installed is refused.
    progress
        Called after every step and every epoch.
    choose
        Called once, with the calibrated bundle: threshold and least area of outlines that it is to carry. None: none.

    Returns
    -------
    TrainedRun
        The bundle, its scores and its folder.

    Raises
    ------
    TrainingError
        The recipe cannot be trained, found before anything is read; there is nothing to learn from; a loss is NaN or
        infinite; the folder holds an unfinished training of another recipe.
    OutputExistsError
        The folder holds a finished training, or something else.
    OutputNotWritableError
        It cannot be written.
    MissingExtraError
        Lightning, or a logger that was asked for, is not installed.
    """
    with explained():
        where = resolve_device(device)
    check_recipe(recipe)
    check_devices(recipe, device=where.type, devices=devices, num_workers=num_workers)
    check_loggers(loggers)
    launch = _launcher()
    folder = RunFolder.at(out)
    folder.require_free(overwrite=overwrite)
    inputs, tiles, learnt = _look_at(recipe)
    record = recipe_record(recipe)
    with folder.claimed(record, overwrite=overwrite) as digest:
        plan = TrainingPlan(
            recipe=recipe,
            digest=digest,
            inputs=inputs,
            index=tiles["training"],
            validation=validation_tiles(tiles["validation"]) if recipe.validation else (),
            folder=folder,
            num_workers=num_workers,
        )
        logs = open_loggers(loggers, folder.path, id=recipe.id, record=record, digest=digest)
        try:
            show = partial(_shown, logs=logs, progress=progress)
            launch(fit, plan, device=where, devices=devices, precision=recipe.optimisation.precision, show=show)
        finally:
            for log in logs:
                log.close()
        checkpoint = TrainingCheckpoint.open(folder.checkpoint)
        write_log(folder.log, checkpoint.log)
        finished = finalise(plan, checkpoint, test=tiles.get("test"), device=where)
        if choose is not None:
            finished = replace(finished, bundle=replace(finished.bundle, outlines=choose(finished.bundle)))
        provenance = {
            "recipe": record,
            "recipe_digest": digest,
            DISTRIBUTIONS: {name: asdict(one) | {"quantiles": list(one.quantiles)} for name, one in learnt.items()},
            "best_epoch": checkpoint.best.epoch,
            "epochs": checkpoint.epoch,
            "versions": library_versions(),
            "git_revision": git_revision(Path.cwd()),
            "machine": machine(where, devices=devices),
            **recipe.provenance,
        }
        return _keep(plan, finished, checkpoint, provenance=provenance, validation_index=tiles.get("validation"))


def _look_at(
    recipe: TrainingRecipe,
) -> tuple[tuple[InputLayer, ...], dict[str, TileIndex], dict[str, LayerDistribution]]:
    """Find the scaling where nobody has said it, the tiles of each set of scenes that there is, and what values are learnt from."""
    wanted = every_layer(recipe.training[0]) if recipe.inputs is None else recipe.inputs
    sets = {"training": recipe.training, "validation": recipe.validation, "test": recipe.test}
    readers = {
        role: TileReader(scenes, inputs=wanted, tile=recipe.tile, cache_bytes=CACHE_BYTES)
        for role, scenes in sets.items()
        if scenes  # made for all of them first, because a reader refuses what does not go together before it reads
    }
    index = partial(index_tiles, inputs=wanted, tile=recipe.tile, min_valid=recipe.sampling.min_valid)
    tiles = {"training": index(recipe.training)}
    measured = measured_tiles(tiles["training"])
    inputs = recipe.inputs
    if inputs is None:
        inputs = measured_inputs(readers["training"], measured, names=[layer.name for layer in wanted])
    learnt = measured_distributions(readers["training"], measured)
    for role in ("validation", "test"):
        try:
            if sets[role]:
                tiles[role] = index(sets[role])
        except TrainingError as error:
            raise TrainingError(f"The {role} scenes cannot be scored. {error}") from error
    return inputs, tiles, learnt


def _launcher() -> Callable[..., None]:
    """Return what starts a training; asked for first, so that nobody waits for scenes only to hear that it is missing."""
    try:
        from rtsx.training.engine import launch  # of the extra `train`
    except ImportError as error:
        raise MissingExtraError(f"Training needs the train extra: pip install 'rtsx[train]' ({error}).") from error
    return launch


def _shown(moment: Progress, *, logs: Sequence[RowLogger], progress: ShowProgress | None) -> None:
    if moment.row is not None:
        for log in logs:
            log.log(moment.row)
    if progress is not None:
        progress(moment)


def _keep(
    plan: TrainingPlan,
    finished: TrainedModel,
    checkpoint: TrainingCheckpoint,
    *,
    provenance: Mapping[str, object],
    validation_index: TileIndex | None,
) -> TrainedRun:
    """Write bundle, report and, last of all, the result."""
    threshold, validation = finished.bundle.threshold, finished.validation
    run = TrainedRun(
        folder=plan.folder.path,
        bundle=replace(finished.bundle, provenance=provenance),
        epochs=checkpoint.epoch,
        best_epoch=checkpoint.best.epoch,
        validation=None if validation is None else validation.scores(threshold),
        test={name: metrics.scores(threshold) for name, metrics in finished.test.items()},
    )
    run.bundle.save(plan.folder.bundle, overwrite=True)
    write_training_report(plan, finished, log=checkpoint.log, run=run, validation_index=validation_index)
    plan.folder.finish(result_of(run))
    return run
