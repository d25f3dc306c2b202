"""The config of a training: what a YAML file says, and the recipe that it means."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from rtsx.config.inputs import Inputs
from rtsx.config.labels import ClassValues, LabelReader, Labels
from rtsx.config.model import ModelConfig
from rtsx.config.named import Augmentations, Losses, NamedOne
from rtsx.config.scene import SceneConfig, opened
from rtsx.config.scenes import ScenesConfig
from rtsx.config.strict import Strict, is_glance
from rtsx.cube import layer_names
from rtsx.errors import BundleError, ConfigError, LabelError, TrainingError
from rtsx.labels.label_truth import check_classes
from rtsx.model import preset_named
from rtsx.training.losses import check_losses
from rtsx.training.optimisation import OptimisationSpec
from rtsx.training.optimiser import check_optimisation
from rtsx.training.recipe import AugmentationSpec, LossTerm, TrainingRecipe, check_augmentation_name
from rtsx.training.sampling import SamplingSpec
from rtsx.training.scene import TrainingScene

__all__ = ["SamplingConfig", "TrainConfig"]


class SamplingConfig(Strict):
    """Which tiles the network sees."""

    negatives: float = Field(default=SamplingSpec.negatives, ge=0)
    """Tiles without a labelled pixel per tile with one, at the start."""
    final_negatives: float | None = Field(default=SamplingSpec.final_negatives, gt=0)
    """The same at the end; as at the start if left out."""
    drawn_by: Literal["tile", "pixel"] = SamplingSpec.drawn_by
    """Tiles with a label come equally often, or as often as they have labelled pixels, which favours large objects as an IoU does."""
    jitter: bool = SamplingSpec.jitter
    """Shift each tile at random by up to half a tile."""
    min_valid: float = Field(default=SamplingSpec.min_valid, gt=0, le=1)
    """Least part of a tile's pixels that have to be valid."""
    blocks_at_once: int | None = Field(default=SamplingSpec.blocks_at_once, ge=1)
    """Blocks of 8 by 8 tiles that are mixed at a time, where scenes are larger than memory; all ground if left out."""
    ignore: int = Field(default=0, ge=0)
    """Pixels on both sides of each outline that are not learnt from, nor judged by."""

    @model_validator(mode="after")
    def _can_change(self) -> Self:
        if self.final_negatives is not None and self.negatives == 0:
            raise ValueError(
                "negatives have to be above 0 where final_negatives differ, because the ratio grows by factors"
            )
        return self

    def sampling(self) -> SamplingSpec:
        """Which tiles the network sees."""
        return SamplingSpec(
            negatives=self.negatives,
            final_negatives=self.final_negatives,
            drawn_by=self.drawn_by,
            jitter=self.jitter,
            min_valid=self.min_valid,
            blocks_at_once=self.blocks_at_once,
        )


def _seeds(given: object) -> object:
    return (given,) if isinstance(given, int) else given


Precision = Literal["float32", "bfloat16", "float16"]
_USUAL_LOSSES: dict[str, dict[str, Any]] = {term.name: {} for term in TrainingRecipe.losses}
_USUAL_OPTIMISER: dict[str, dict[str, Any]] = {OptimisationSpec.optimiser: {}}
_USUAL_SCHEDULE: dict[str, dict[str, Any]] = {OptimisationSpec.schedule: {}}


class TrainConfig(Strict):
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
    model: ModelConfig = ModelConfig.model_construct()  # not checked, because that builds it
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
    """What is learnt from, chosen by and judged on."""
    labels: Labels = None
    """Labels of every scene that names none."""
    sampling: SamplingConfig = SamplingConfig()
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
    """Decay of a moving average of the weights, which is then what is judged and kept; none if left out."""
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
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_seeds, json_schema_input_type=list[int] | int)
    ] = (TrainingRecipe.seed,)
    """One training for each, of everything that is random."""

    @field_validator("classes")
    @classmethod
    def _known_classes(cls, classes: Mapping[str, Any]) -> Mapping[str, Any]:
        _checked(check_classes, tuple(classes))
        if len(classes) > 1 and "background" in classes:
            raise ValueError("background is what no class is, and needs no name here; leave it out")
        return classes

    @field_validator("tile")
    @classmethod
    def _on_the_stride(cls, tile: int, info: ValidationInfo) -> int:
        model: ModelConfig | None = info.data.get("model")
        if model is not None and not is_glance(info) and tile % model.stride:
            raise ValueError(
                f"a tile is a multiple of the network's stride, {model.stride} px; got {tile}. "
                f"Take {max(1, round(tile / model.stride)) * model.stride}"
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
        steps = _augmentations(augment)
        for step in steps:
            _checked(check_augmentation_name, step)
        if is_glance(info):
            return augment
        from rtsx.training.augment import check_augmentations  # here, because they load torch
        from rtsx.training.augment.registry import built

        for step in steps:
            _checked(built, step)
        # Not with ndvi, which may be stored or follow from other layers that are: the cube says which, and is asked later.
        if inputs is not None and "ndvi" not in inputs.names:
            _checked(check_augmentations, steps, layers=inputs.names)
        return augment

    @field_validator("loss")
    @classmethod
    def _known_losses(cls, loss: dict[str, Any]) -> dict[str, Any]:
        _checked(check_losses, _losses(loss))
        return loss

    @field_validator("optimiser")
    @classmethod
    def _known_optimiser(cls, optimiser: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        ((name, options),) = optimiser.items()
        spec = OptimisationSpec(optimiser=name, optimiser_options=options)  # type: ignore[arg-type]  # it is looked at
        _checked(check_optimisation, spec, loads_torch=not is_glance(info))
        return optimiser

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, schedule: dict[str, Any]) -> dict[str, Any]:
        ((name, options),) = schedule.items()
        spec = OptimisationSpec(schedule=name, schedule_options=options)  # type: ignore[arg-type]  # it is looked at
        _checked(check_optimisation, spec, loads_torch=False)
        return schedule

    @field_validator("seeds")
    @classmethod
    def _some_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds are at least one number, each once; got {list(seeds)}")
        return seeds

    def resolved(self) -> Self:
        """The config with everything said: scenes one by one in their sets, each with its labels.

        Looks for paths, and opens none.

        Raises
        ------
        ConfigError
            Scenes are missing, have no labels, or stand in two sets.
        """
        return self.changed(scenes=self.scenes.resolved(labels=self.labels), labels=None)

    def recipe(self) -> TrainingRecipe:
        """The recipe of the first seed; reads labels and metadata of cubes, no pixel.

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
        return TrainingRecipe(
            id=self.id,
            training=sets[0],
            validation=sets[1],
            test=sets[2],
            classes=tuple(self.classes),
            inputs=None if self.inputs is None else self.inputs.channels(),
            preset=None if self.inputs is None else self.inputs.preset,
            fill=self._fill(),
            tile=self.tile,
            overlap=self.overlap,
            network=self.model.network(),
            sampling=self.sampling.sampling(),
            augmentations=_augmentations(self.augment),
            losses=_losses(self.loss),
            optimisation=self._optimisation(),
            epochs=self.epochs,
            steps_per_epoch=self.steps_per_epoch,
            batch_size=self.batch_size,
            patience=self.patience,
            seed=self.seeds[0],
            provenance={"config": config.model_dump(mode="json", exclude_none=True)},
        )

    def _fill(self) -> float:
        if self.fill is not None:
            return self.fill
        preset = None if self.inputs is None else self.inputs.preset
        return TrainingRecipe.fill if preset is None else preset_named(preset).fill

    def _optimisation(self) -> OptimisationSpec:
        ((optimiser, optimiser_options),) = self.optimiser.items()
        ((schedule, schedule_options),) = self.schedule.items()
        return OptimisationSpec(
            optimiser=optimiser,  # type: ignore[arg-type]  # checked above
            optimiser_options=optimiser_options,
            learning_rate=self.learning_rate,
            schedule=schedule,  # type: ignore[arg-type]  # likewise
            schedule_options=schedule_options,
            warmup=self.warmup,
            gradient_clip=self.gradient_clip,
            ema=self.ema,
            precision=self.precision,
        )

    def _scene(self, scene: SceneConfig, reader: LabelReader) -> TrainingScene:
        cube, truth = opened(scene, reader)
        if self.inputs is not None and self.inputs.channels() is None:
            missing = [name for name in self.inputs.names if name not in layer_names(cube)]
            if missing:
                raise ConfigError(
                    f"Scene {scene.name} has no layers {missing}; it has {list(layer_names(cube))}. Name some of these in "
                    "inputs, or let the cube derive them."
                )
            cube = cube[[*self.inputs.names, *(("valid",) if "valid" in cube else ())]]
        return TrainingScene(name=str(scene.name), cube=cube, truth=truth, group=str(scene.group))


def _checked(check: Callable[..., object], *given: Any, **how: Any) -> None:
    """Run a check of another room, whose errors then come with line and key."""
    try:
        check(*given, **how)
    except (BundleError, LabelError, TrainingError) as error:
        raise ValueError(str(error)) from error


def _losses(given: Mapping[str, Mapping[str, Any]]) -> tuple[LossTerm, ...]:
    return tuple(
        LossTerm(
            name=name,
            weight=options.get("weight", LossTerm.weight),
            options={key: value for key, value in options.items() if key != "weight"},
        )
        for name, options in given.items()
    )


def _augmentations(given: Mapping[str, Mapping[str, Any]]) -> tuple[AugmentationSpec, ...]:
    return tuple(
        AugmentationSpec(
            name=name,
            probability=options.get("probability", AugmentationSpec.probability),
            options={key: value for key, value in options.items() if key != "probability"},
        )
        for name, options in given.items()
    )
