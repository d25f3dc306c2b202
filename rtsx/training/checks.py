"""What of a recipe can be refused before a pixel is read."""

import json
import math
from collections import Counter
from collections.abc import Sequence

from rtsx.cube import layer_names
from rtsx.errors import BundleError, TrainingError
from rtsx.model import required_layers
from rtsx.model.metadata import check_tiles
from rtsx.training.augment import check_augmentations, check_dropped
from rtsx.training.losses import build_loss, check_losses
from rtsx.training.networks import check_encoder_weights, check_step, output_classes, stride_of
from rtsx.training.optimiser import check_optimisation
from rtsx.training.recipe import TrainingRecipe, TrainingScene
from rtsx.training.scene_arrays import every_layer


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
    try:
        check_tiles(recipe.tile, overlap=recipe.overlap, stride=stride, trim=None)
    except BundleError as error:
        raise TrainingError(str(error)) from error
    check_losses(recipe.losses)
    build_loss(recipe.losses, classes=len(output_classes(recipe.classes)))
    check_optimisation(recipe.optimisation)
    inputs = every_layer(recipe.training[0]) if recipe.inputs is None else recipe.inputs
    layers = tuple(layer.name for layer in inputs)
    if not layers or len(set(layers)) < len(layers):
        raise TrainingError(f"A network needs at least one input layer, and each once; got {list(layers)}.")
    for scene in _all_scenes(recipe):
        try:
            required_layers(inputs, layer_names(scene.cube))
        except BundleError as error:
            raise TrainingError(f"Scene {scene.name!r} lacks layers of the recipe. {error}") from error
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
    counts = {
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "steps_per_epoch": 1 if recipe.steps_per_epoch is None else recipe.steps_per_epoch,
        "patience": 1 if recipe.patience is None else recipe.patience,
    }
    for name, count in counts.items():
        if count < 1:
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
    if len(classes) > 1 and "background" in classes:
        raise TrainingError(
            f"With several classes the network gets 'background' by itself; leave it out of classes={list(classes)}."
        )


def _check_scenes(recipe: TrainingRecipe) -> None:
    if not recipe.training:
        raise TrainingError("A recipe needs at least one training scene; got none.")
    twice = [name for name, n in Counter(scene.name for scene in _all_scenes(recipe)).items() if n > 1]
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
    for scene in _all_scenes(recipe):
        if scene.truth.classes != recipe.classes:
            raise TrainingError(
                f"The recipe learns the classes {list(recipe.classes)}, but the truth of scene {scene.name!r} has "
                f"{list(scene.truth.classes)}. Make its truth with the classes of the recipe, in their order."
            )


def _all_scenes(recipe: TrainingRecipe) -> Sequence[TrainingScene]:
    return (*recipe.training, *recipe.validation, *recipe.test)
