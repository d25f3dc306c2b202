"""Trainings from YAML files: read, described to editors, and run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtsx.arguments import typed
from rtsx.config.opening import is_config
from rtsx.config.strict import validated
from rtsx.config.train import TrainConfig
from rtsx.config.yaml import read_yaml
from rtsx.errors import ConfigError, OutputExistsError, TrainingError
from rtsx.storage import local_path, write_whole
from rtsx.training.loggers import LoggerName
from rtsx.training.progress import ShowProgress
from rtsx.training.recipe import TrainingRecipe

if TYPE_CHECKING:
    from rtsx.training import TrainedRun

__all__ = [
    "glance_at_training",
    "load_train_config",
    "load_training_recipe",
    "train_bundle",
    "training_recipes",
    "training_schema",
]


def load_train_config(path: str | PathLike[str]) -> TrainConfig:
    """Read and check the config of a training; opens neither cubes nor labels.

    Parameters
    ----------
    path
        YAML file. ``${NAME}`` and ``${NAME:-default}`` in it are variables of the environment; relative paths count
        from its folder.

    Raises
    ------
    ConfigError
        It cannot be read, or something in it is wrong; everything that is wrong is listed, by line and key.
    """
    return validated(TrainConfig, read_yaml(path))


def glance_at_training(path: str | PathLike[str]) -> TrainConfig:
    """Read the config of a training, and look for the files that it names, without loading torch.

    Raises
    ------
    ConfigError
        It cannot be read, or something in it is wrong that can be known so early.
    """
    config = validated(TrainConfig, read_yaml(path), glance=True)
    config.scenes.resolved(labels=config.labels)
    return config


@typed(ConfigError)
def load_training_recipe(path: str | PathLike[str]) -> TrainingRecipe:
    """Read the config of a training as the recipe that it means, for the first of its seeds.

    Reads labels and the metadata of cubes, no pixel.

    Raises
    ------
    ConfigError
        See `load_train_config`; or files are missing, or labels do not fit cubes.
    CubeError, LabelError, TrainingError
        A scene cannot be used; it is named.
    """
    return training_recipes(load_train_config(path), folder=local_path(path).parent)[0]


def training_recipes(config: TrainConfig, *, folder: Path) -> tuple[TrainingRecipe, ...]:
    """One recipe for each seed of a config.

    Parameters
    ----------
    config
        The config.
    folder
        What paths are remembered relative to, because a bundle is handed on to others, who have other folders.
    """
    recipe = config.recipe()
    recipe = replace(recipe, provenance=_without_folder(recipe.provenance, folder))
    if len(config.seeds) == 1:
        return (recipe,)
    return tuple(replace(recipe, seed=seed, id=f"{recipe.id}-seed-{seed}") for seed in config.seeds)


def training_schema() -> dict[str, Any]:
    """JSON schema of the config of a training, for editors and validators."""
    schema = TrainConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **json.loads(json.dumps(schema))}


@typed(TrainingError)
def train_bundle(
    config: str | PathLike[str] | TrainConfig | TrainingRecipe,
    out: str | PathLike[str],
    *,
    overwrite: bool = False,
    device: str = "auto",
    devices: int = 1,
    num_workers: int = 0,
    loggers: Sequence[LoggerName] = (),
    progress: ShowProgress | None = None,
) -> "tuple[TrainedRun, ...]":
    """Train a network on cubes and labels, and make a bundle of it that `predict_cube` runs.

    A training that was stopped goes on from its last epoch when it is called again, and gives what it would have given.

    Parameters
    ----------
    config
        Path of a YAML config, a `TrainConfig`, or a `TrainingRecipe`.
    out
        Local folder. One seed: the folder of its run, with `bundle/`, `log.csv`, `report.html` and `checkpoints/`. Several:
        one such folder for each, `seed-N`. The resolved config is `config.yaml` in it.
    overwrite
        Replace a training that is there, finished or not, once the new one has done an epoch.
    device
        ``"auto"`` (the GPU where there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    devices
        How many of them share each batch; above 1, a script has to keep what it does behind
        ``if __name__ == "__main__"``.
    num_workers
        Processes that read tiles; 0 reads in a thread. The result never depends on it.
    loggers
        ``"tensorboard"``, ``"wandb"``, or both, beside the CSV file.
    progress
        Called after every step and every epoch.

    Returns
    -------
    tuple of TrainedRun
        One for each seed, in their order: the bundle, its scores and its folder.

    Raises
    ------
    ConfigError, CubeError, LabelError
        The config cannot be read, or scenes and labels do not fit.
    TrainingError
        There is nothing to learn from, a loss is NaN, or the folder holds an unfinished training of another recipe.
    OutputExistsError
        The folder holds a finished training, or something else.
    """
    from rtsx.training import train  # here, because it loads torch

    folder = local_path(out)
    text = ""
    if isinstance(config, TrainingRecipe):
        recipes: tuple[TrainingRecipe, ...] = (config,)
    elif isinstance(config, TrainConfig) or is_config(config):
        beside = Path.cwd() if isinstance(config, TrainConfig) else local_path(config).parent
        read = config if isinstance(config, TrainConfig) else load_train_config(config)
        recipes, text = training_recipes(read, folder=beside), read.resolved().to_yaml()
    else:
        raise ConfigError(f"A training is described by a YAML file; got {config!s}. Its name ends in .yaml or .yml.")
    places = [folder] if len(recipes) == 1 else [folder / f"seed-{recipe.seed}" for recipe in recipes]
    finished = [] if overwrite else [place for place in places if (place / "result.json").is_file()]
    if len(finished) == len(places) > 1:
        raise OutputExistsError(
            f"{folder} holds finished trainings of all {len(places)} seeds. Choose another folder, or pass "
            "overwrite=True to begin anew."
        )
    before = _recipe_text(places[0])
    runs: list[TrainedRun] = []
    try:
        for recipe, place in zip(recipes, places, strict=True):
            # What is done of several seeds stays done, so that the same call goes on after whatever stopped it.
            if len(places) > 1 and place in finished:
                runs.append(_finished(recipe, place))
                continue
            runs.append(
                train(
                    recipe,
                    place,
                    overwrite=overwrite,
                    device=device,
                    devices=devices,
                    num_workers=num_workers,
                    loggers=loggers,
                    progress=progress,
                )
            )
        return tuple(runs)
    finally:
        # Only beside what it is the config of: what has begun by this call, or is done, and not what was there and refused it.
        if text and (runs or _recipe_text(places[0]) != before):
            write_whole(folder / "config.yaml", text.encode())


def _recipe_text(place: Path) -> str | None:
    """The recipe of the training in a folder; None where none has begun."""
    path = place / "recipe.json"
    return path.read_text() if path.is_file() else None


def _finished(recipe: TrainingRecipe, place: Path) -> "TrainedRun":
    from rtsx.training import read_run  # likewise
    from rtsx.training.record import differences, recipe_record

    there, here = json.loads((place / "recipe.json").read_text()), json.loads(json.dumps(recipe_record(recipe)))
    if there != here:
        raise TrainingError(
            f"{place} holds a finished training of another recipe: {'; '.join(list(differences(there, here))[:5])}. Go on "
            "with that recipe, choose another folder, or pass overwrite=True."
        )
    return read_run(place)


def _without_folder(values: Any, folder: Path) -> Any:
    if isinstance(values, str):
        return values.removeprefix(f"{folder}/")
    if isinstance(values, Mapping):
        return {key: _without_folder(value, folder) for key, value in values.items()}
    return [_without_folder(value, folder) for value in values] if isinstance(values, list | tuple) else values
