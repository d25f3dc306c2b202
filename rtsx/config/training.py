"""The config of a training, and training from it."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from annotated_types import Ge
from pydantic import Field, TypeAdapter, ValidationInfo, field_validator

from rtsx.arguments import typed
from rtsx.config.cube import is_config
from rtsx.config.inputs import Augmentations, Inputs, Losses, NamedOne, Network, downsampling
from rtsx.config.scenes import ClassValues, LabelReader, Labels, SceneConfig, ScenesConfig, open_scene
from rtsx.config.yaml import Checked, ConfigModel, is_glance, map_texts, read_yaml, validate_config
from rtsx.cube import layer_names
from rtsx.errors import BundleError, ConfigError, LabelError, OutputExistsError, TrainingError, TruthWarning
from rtsx.labels.label_rasters import check_classes
from rtsx.model import preset_named
from rtsx.names import is_background
from rtsx.parsing import Several
from rtsx.storage import local_path, refuse_other_format, write_whole
from rtsx.training.losses import check_losses
from rtsx.training.optimiser import check_optimisation
from rtsx.training.recipe import (
    AugmentationSpec,
    LossTerm,
    NetworkSpec,
    OptimisationSpec,
    SamplingSpec,
    TrainingRecipe,
    TrainingScene,
    check_augmentation_name,
)
from rtsx.training.run_folder import RunFolder
from rtsx.training.run_log import LoggerName, ShowProgress

if TYPE_CHECKING:
    from rtsx.model import ModelBundle, OutlineChoice
    from rtsx.training import TrainedRun


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(SamplingSpec):
    """Which tiles, and which of their pixels, the network learns from."""

    ignore: Annotated[int, Ge(0)] = 0
    """Pixels on both sides of each outline that are not learnt from, nor evaluated on."""

    def sampling(self) -> SamplingSpec:
        """Return which tiles the network sees."""
        return SamplingSpec(**{field.name: getattr(self, field.name) for field in fields(SamplingSpec)})


_Term = TypeVar("_Term", LossTerm, AugmentationSpec)
Precision = Literal["float32", "bfloat16", "float16"]
_USUAL_LOSSES: dict[str, dict[str, Any]] = {term.name: {} for term in TrainingRecipe.losses}
_USUAL_OPTIMISER: dict[str, dict[str, Any]] = {OptimisationSpec.optimiser: {}}
_USUAL_SCHEDULE: dict[str, dict[str, Any]] = {OptimisationSpec.schedule: {}}


class TrainConfig(ConfigModel):
    """A training: what is learnt, from which scenes, and how.

    Examples
    --------
    >>> scenes = {"training": {"cube": "cubes/{scene}.zarr", "labels": "labels/{scene}.gpkg"}}
    >>> config = TrainConfig.model_validate({"id": "slumps", "classes": "slump", "scenes": scenes, "loss": {"DiceLoss": 0.5}})
    >>> config.loss, config.tile
    ({'DiceLoss': {'weight': 0.5}}, 256)
    """

    id: str = Field(min_length=1)
    """Name of the bundle; with several seeds, ``-seed-N`` is added."""
    classes: ClassValues
    """What is learnt: a name, names, or for each class the values that labels have for it. One class makes a yes-or-no
    network, several exclude each other."""
    model: Network = NetworkSpec()
    """The network."""
    inputs: Inputs | None = None
    """Channels; every layer of the first training scene, measured, if left out."""
    fill: float | None = None
    """Channel value of an invalid pixel; the preset's, else 0, if left out."""
    tile: int = Field(default=TrainingRecipe.tile, gt=0)
    """Side of a tile, px; a multiple of the network's stride."""
    overlap: int = Field(default=TrainingRecipe.overlap, ge=0)
    """What the bundle recommends for inference, px."""
    scenes: ScenesConfig
    """What is learnt from, chosen by and tested on."""
    labels: Labels = None
    """Labels of every scene that names none."""
    sampling: Checked[SamplingConfig] = SamplingConfig()
    """Which tiles the network sees."""
    augment: Augmentations = Field(default_factory=dict)
    """What happens to training tiles, in this order: names, with their probability or their options."""
    loss: Losses = _USUAL_LOSSES
    """What is minimised: names, with their weight or their options."""
    optimiser: NamedOne = _USUAL_OPTIMISER
    """AdamW, Adam or SGD, with options such as ``weight_decay``."""
    learning_rate: float = Field(default=OptimisationSpec.learning_rate, gt=0)
    """Learning rate at its highest."""
    schedule: NamedOne = _USUAL_SCHEDULE
    """cosine, constant, StepLR with step_size (epochs) and gamma, or ExponentialLR with gamma."""
    warmup: float = Field(default=OptimisationSpec.warmup, ge=0, lt=1)
    """Part of all steps over which the learning rate rises from 0."""
    gradient_clip: float | None = Field(default=OptimisationSpec.gradient_clip, gt=0)
    """Greatest norm of the gradient; as it comes if left out."""
    ema: float | None = Field(default=OptimisationSpec.ema, gt=0, lt=1)
    """Decay of a moving average of the weights, which is then what is evaluated and kept; none if left out."""
    precision: Precision = OptimisationSpec.precision
    """Arithmetic of forward and backward pass."""
    epochs: int = Field(default=TrainingRecipe.epochs, gt=0)
    """Greatest number of epochs."""
    steps_per_epoch: int | None = Field(default=TrainingRecipe.steps_per_epoch, gt=0)
    """Batches of an epoch; as many as show each positive tile once if left out."""
    batch_size: int = Field(default=TrainingRecipe.batch_size, gt=0)
    """Tiles of a batch, on all devices together."""
    patience: int | None = Field(default=TrainingRecipe.patience, gt=0)
    """Epochs without a better validation after which training stops; all epochs run if left out."""
    choose: Literal["pixels", "objects"] = "pixels"
    """What validation scenes choose the model's outlines by. pixels: the threshold of the best IoU, as of the map; objects:
    also a threshold and a least area of outlines, together, by object F1, which the bundle keeps. For one class."""
    seeds: Several[Annotated[int, Ge(0)]] = (TrainingRecipe.seed,)
    """One training for each, of everything that is random."""

    @field_validator("classes")
    @classmethod
    def _known_classes(cls, classes: Mapping[str, Any]) -> Mapping[str, Any]:
        _checked(check_classes, tuple(classes))
        if len(classes) > 1 and any(map(is_background, classes)):
            raise ValueError("background is what no class is, and needs no name here; leave it out")
        return classes

    @field_validator("choose")
    @classmethod
    def _of_one_class(cls, choose: str, info: ValidationInfo) -> str:
        if choose == "objects" and len(info.data.get("classes", ())) > 1:
            raise ValueError(
                "threshold and least area of outlines are chosen for one class; with several, leave choose out, and say them when "
                "outlines are extracted"
            )
        return choose

    @field_validator("tile")
    @classmethod
    def _on_the_stride(cls, tile: int, info: ValidationInfo) -> int:
        stride = 1 if is_glance(info) or "model" not in info.data else downsampling(info.data["model"])
        if tile % stride:
            raise ValueError(
                f"a tile is a multiple of the network's stride, {stride} px; got {tile}. "
                f"Take {max(1, round(tile / stride)) * stride}"
            )
        return tile

    @field_validator("overlap")
    @classmethod
    def _below_the_tile(cls, overlap: int, info: ValidationInfo) -> int:
        tile: int | None = info.data.get("tile")
        if tile is not None and overlap >= tile:
            raise ValueError(f"an overlap is less than the tile, {tile} px; got {overlap}")
        return overlap

    @field_validator("augment")
    @classmethod
    def _known_augmentations(cls, augment: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        inputs = info.data.get("inputs")
        steps = _terms(AugmentationSpec, augment, number="probability")
        for step in steps:
            _checked(check_augmentation_name, step)
        if is_glance(info):
            return augment
        from rtsx.training.augment import build_augmentations, check_augmentations  # here, because they load torch

        for step in steps:
            _checked(build_augmentations, step)
        # Not with ndvi, which may be stored or follow from other layers that are: the cube says which, and is asked later.
        if inputs is not None and "ndvi" not in inputs.names:
            _checked(check_augmentations, steps, layers=inputs.names)
        return augment

    @field_validator("loss")
    @classmethod
    def _known_losses(cls, loss: dict[str, Any]) -> dict[str, Any]:
        _checked(check_losses, _terms(LossTerm, loss, number="weight"))
        return loss

    @field_validator("optimiser", "schedule")
    @classmethod
    def _known_optimisation(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        spec = OptimisationSpec(**_with_options(str(info.field_name), given))
        _checked(check_optimisation, spec, loads_torch=not is_glance(info))
        return given

    @field_validator("seeds")
    @classmethod
    def _some_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds are at least one number, each once; got {list(seeds)}")
        return seeds

    def resolved(self) -> Self:
        """Return the config with everything said: scenes one by one in their sets, each with its labels.

        Looks for paths, and opens none.

        Raises
        ------
        ConfigError
            Scenes are missing, have no labels, or stand in two sets.
        """
        return self.changed(scenes=self.scenes.resolved(labels=self.labels), labels=None)

    def recipe(self) -> TrainingRecipe:
        """Return the recipe of the first seed; reads labels and metadata of cubes, no pixel.

        Raises
        ------
        ConfigError, CubeError, LabelError, TrainingError
            Something is missing or contradicts; the scene is named.
        """
        config = self.resolved()
        reader = LabelReader(classes=config.classes, ignore=config.sampling.ignore)
        sets = [
            tuple(config._scene(scene, reader) for scene in listed)
            for listed in (config.scenes.training, config.scenes.validation, config.scenes.test)
        ]
        reader.refuse_labels_elsewhere()
        reader.warn_of_other_years()
        listed = zip(("training", "validation", "test"), sets, strict=True)
        by_name = dict(listed)
        reader.refuse_divided_reviews({name: [scene.name for scene in scenes] for name, scenes in by_name.items()})
        if self.scenes.split is not None:
            _warn_of_divided_ground(by_name)
        own = {
            "training": sets[0],
            "validation": sets[1],
            "test": sets[2],
            "classes": tuple(self.classes),
            "inputs": None if self.inputs is None else self.inputs.channels(),
            "preset": None if self.inputs is None else self.inputs.preset,
            "fill": self._fill(),
            "network": self.model,
            "sampling": self.sampling.sampling(),
            "augmentations": _terms(AugmentationSpec, self.augment, number="probability"),
            "losses": _terms(LossTerm, self.loss, number="weight"),
            "optimisation": self._optimisation(),
            "seed": self.seeds[0],
            "provenance": {"config": config.model_dump(mode="json", exclude_none=True)},
        }
        return TrainingRecipe(**self.shared(TrainingRecipe) | own)

    def _fill(self) -> float:
        if self.fill is not None:
            return self.fill
        preset = None if self.inputs is None else self.inputs.preset
        return TrainingRecipe.fill if preset is None else preset_named(preset).fill

    def _optimisation(self) -> OptimisationSpec:
        chosen = _with_options("optimiser", self.optimiser) | _with_options("schedule", self.schedule)
        return OptimisationSpec(**self.shared(OptimisationSpec) | chosen)

    def _scene(self, scene: SceneConfig, reader: LabelReader) -> TrainingScene:
        cube, truth = open_scene(scene, reader)
        if self.inputs is not None and self.inputs.channels() is None:
            if missing := [name for name in self.inputs.names if name not in layer_names(cube)]:
                raise ConfigError(
                    f"Scene {scene.name} has no layers {missing}; it has {list(layer_names(cube))}. Name some of these in "
                    "inputs, or let the cube derive them."
                )
            cube = cube[[*self.inputs.names, *(("valid",) if "valid" in cube else ())]]
        return TrainingScene(name=str(scene.name), cube=cube, truth=truth, group=str(scene.group))


def _warn_of_divided_ground(sets: Mapping[str, Sequence[TrainingScene]]) -> None:
    """Warn where a split at random divides scenes that show the same ground."""
    from rtsx.evaluation.folds import divided_ground  # here, because most configs are only checked

    if pairs := divided_ground(sets):
        one, other = pairs[0]
        warnings.warn(
            f"{len(pairs)} pairs of scenes of different sets show the same ground, such as {one} and {other}: what is learnt from the one is known "
            "in the other, and scores are too good. Give such scenes one group, which is never divided.",
            TruthWarning,
            stacklevel=4,
        )


def _checked(check: Callable[..., object], *given: Any, **how: Any) -> None:
    """Run a check of another room, whose errors then come with line and key."""
    try:
        check(*given, **how)
    except (BundleError, LabelError, TrainingError) as error:
        raise ValueError(str(error)) from error


def _with_options(kind: str, given: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields of `OptimisationSpec` that one name with its options says."""
    ((name, options),) = given.items()
    return {kind: name, f"{kind}_options": options}


def _terms(kind: type[_Term], given: Mapping[str, Mapping[str, Any]], *, number: str) -> tuple[_Term, ...]:
    """Return losses, or augmentations, by name, of whose options the one called `number` is a field of its own."""
    return tuple(
        kind(
            name=name,
            **{key: value for key, value in options.items() if key == number},
            options={key: value for key, value in options.items() if key != number},
        )
        for name, options in given.items()
    )


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
    return validate_config(TrainConfig, read_yaml(path))


def glance_at_training(path: str | PathLike[str]) -> TrainConfig:
    """Read the config of a training, and look for the files that it names, without loading torch.

    Raises
    ------
    ConfigError
        It cannot be read, or something in it is wrong that can be known so early.
    """
    config = validate_config(TrainConfig, read_yaml(path), glance=True)
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
    """Return one recipe for each seed of a config.

    Parameters
    ----------
    config
        The config.
    folder
        What paths are remembered relative to, because a bundle is handed on to others, who have other folders.
    """
    recipe = config.recipe()
    provenance = map_texts(recipe.provenance, lambda text, _: text.removeprefix(f"{folder}/"))
    recipe = replace(recipe, provenance=provenance)
    if len(config.seeds) == 1:
        return (recipe,)
    return tuple(replace(recipe, seed=seed, id=f"{recipe.id}-seed-{seed}") for seed in config.seeds)


def training_schema() -> dict[str, Any]:
    """Return JSON schema of the config of a training, for editors and validators."""
    schema = TrainConfig.json_schema()
    # pydantic finds the sentences below the fields of a class, and not below those that it inherits.
    schema["$defs"]["SamplingConfig"]["properties"] |= TypeAdapter(SamplingSpec).json_schema()["properties"]
    return schema


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

    A training that was stopped goes on from its last epoch when it is called again, and gives what it would have given. Of
    several seeds, those that are finished are not trained again; where `choose` has changed meanwhile, it is applied to them, too.

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
    refuse_other_format(folder, what="the folder of a training")  # also of the one around those of several seeds
    text, by_objects = "", False
    if isinstance(config, TrainingRecipe):
        recipes: tuple[TrainingRecipe, ...] = (config,)
    elif isinstance(config, TrainConfig) or is_config(config):
        beside = Path.cwd() if isinstance(config, TrainConfig) else local_path(config).parent
        read = config if isinstance(config, TrainConfig) else load_train_config(config)
        recipes, text = training_recipes(read, folder=beside), read.resolved().to_yaml()
        by_objects = read.choose == "objects"
        if by_objects and not recipes[0].validation:
            raise ConfigError(
                "choose: objects needs scenes that nothing is learnt from, and there are no validation scenes. Name some, or a "
                "split; or leave choose out."
            )
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
            if len(places) > 1 and place in finished and (run := _finished(recipe, place)) is not None:
                runs.append(run)
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
                    choose=partial(_chosen_outlines, recipe, device=device) if by_objects else None,
                )
            )
        return tuple(runs)
    finally:
        # Only beside what it is the config of: what has begun by this call, or is done, and not what was there and refused it.
        if text and (runs or _recipe_text(places[0]) != before):
            write_whole(folder / "config.yaml", text.encode())


def _chosen_outlines(recipe: TrainingRecipe, bundle: "ModelBundle", *, device: str) -> "OutlineChoice":
    """Choose threshold and least area of outlines by the objects of the validation scenes."""
    from rtsx.evaluation import EvaluationScene, choose_objects  # here, because they load torch
    from rtsx.inference import predict_cube

    scenes = [
        EvaluationScene(
            name=scene.name,
            # The bundle's own tiles, because what is chosen must not depend on a machine's memory.
            prediction=predict_cube(scene.cube, bundle, tile="bundle", overlap="bundle", device=device),
            truth=scene.truth,
        )
        for scene in recipe.validation
    ]
    return choose_objects(scenes).outlines


def _recipe_text(place: Path) -> str | None:
    """Return the recipe of the training in a folder; None where none has begun."""
    path = place / "recipe.json"
    return path.read_text() if path.is_file() else None


def _finished(recipe: TrainingRecipe, place: Path) -> "TrainedRun | None":
    """Read the training that is done in a folder; None where `choose` has changed, and `train` chooses anew from its checkpoint."""
    from rtsx.training import read_run  # likewise
    from rtsx.training.run_folder import recipe_record, stated_differences

    there, here = json.loads((place / "recipe.json").read_text()), json.loads(json.dumps(recipe_record(recipe)))
    if differing := stated_differences(there, here):
        raise TrainingError(
            f"{place} holds a finished training of another recipe: {differing}. Go on with that recipe, choose another folder, "
            "or pass overwrite=True."
        )
    run, folder = read_run(place), RunFolder.at(place)
    before, now = _chosen_by(run.bundle.provenance or {}), _chosen_by(recipe.provenance)
    if before == now:
        return run
    if not folder.checkpoint.is_file():  # without which it would be trained again
        raise TrainingError(
            f"{place} holds a finished training with choose: {before}, and {now} is asked. It cannot be chosen anew, because "
            f"{folder.checkpoint} is gone. Go on with choose: {before}, choose another folder, or pass overwrite=True."
        )
    folder.result.unlink()
    return None


def _chosen_by(provenance: Mapping[str, Any]) -> str:
    """Return what outlines were chosen by, as the config in a provenance says."""
    chosen: str = provenance.get("config", {}).get("choose", TrainConfig.model_fields["choose"].default)
    return chosen
