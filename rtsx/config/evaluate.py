"""The config of an evaluation: which scenes a model is evaluated on, and by which rule."""

from collections.abc import Iterator
from os import PathLike
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field

from rtsx.config.scenes import ClassValues, LabelReader, Labels, Scenes, expand_scenes, open_scene
from rtsx.config.yaml import ConfigModel, read_yaml, validate_config

if TYPE_CHECKING:
    from rtsx.evaluation import Evaluation, EvaluationScene, ObjectChoice
    from rtsx.model import ModelBundle


class EvaluateConfig(ConfigModel):
    """An evaluation of a model: every scene is predicted and compared with its labels, chunk by chunk.

    Examples
    --------
    >>> scenes = {"cube": "cubes/{scene}.zarr", "labels": "labels/{scene}.gpkg"}
    >>> EvaluateConfig.model_validate({"classes": "slump", "scenes": scenes}).object_iou
    0.5
    """

    classes: ClassValues
    """What labels show: a name, names, or for each class the values that labels have for it."""
    scenes: Scenes
    """What is predicted and evaluated; scores are also summed by their `group`."""
    labels: Labels = None
    """Labels of every scene that names none."""
    ignore: int = Field(default=0, ge=0)
    """Pixels on both sides of each outline that are not evaluated."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """Least probability of what was found; the model's own if left out."""
    object_iou: float = Field(default=0.5, gt=0, le=1)
    """Least IoU of a found and a true object that are the same one."""
    boundary: int = Field(default=3, gt=0)
    """Width of the band for the boundary IoU, px."""
    min_object_area_m2: float = Field(default=0.0, ge=0)
    """Smaller objects, found or true, are left out of the object scores, m²."""
    bootstrap: int = Field(default=1000, ge=0)
    """Times that scenes are drawn anew for the intervals; 0 for none."""
    seed: int = Field(default=0, ge=0)
    """Seed of these draws."""

    def resolved(self) -> Self:
        """Return the config with scenes one by one, each with its labels; looks for paths, and opens none.

        Raises
        ------
        ConfigError
            Scenes are missing or have no labels.
        """
        return self.changed(scenes=expand_scenes(self.scenes, labels=self.labels, place="scenes"), labels=None)

    def predicted_scenes(
        self, bundle: "ModelBundle | list[ModelBundle]", *, device: str
    ) -> "Iterator[EvaluationScene]":
        """Yield the scenes with their lazy predictions.

        Raises
        ------
        ConfigError, CubeError, LabelError, BundleError
            Something is missing or does not fit; the scene is named.
        """
        from rtsx.evaluation import EvaluationScene  # here, because they load torch
        from rtsx.inference import predict_cube

        reader = LabelReader(classes=self.classes, ignore=self.ignore)
        scenes = [(scene, *open_scene(scene, reader)) for scene in self.resolved().scenes]
        reader.refuse_labels_elsewhere()
        reader.warn_of_other_years()
        for scene, cube, truth in scenes:
            # A scene that is its own group is no region: its scores stand in the table of scenes.
            region = "" if scene.group == scene.name else str(scene.group)
            prediction = predict_cube(cube, bundle, device=device)
            yield EvaluationScene(name=str(scene.name), region=region, prediction=prediction, truth=truth)

    def evaluate(self, bundle: "ModelBundle | list[ModelBundle]", *, device: str) -> "Evaluation":
        """Predict and evaluate every scene, on the dask scheduler in force.

        Raises
        ------
        ConfigError, CubeError, LabelError, BundleError, EvaluationError
            Something is missing or does not fit.
        """
        from rtsx.evaluation import EvaluationSettings, evaluate

        # Of a model of more classes these are scored alone.
        return evaluate(
            self.predicted_scenes(bundle, device=device), classes=tuple(self.classes), **self.shared(EvaluationSettings)
        )

    def choose(self, bundle: "ModelBundle | list[ModelBundle]", *, device: str) -> "ObjectChoice":
        """Predict every scene, and choose threshold and least size by objects; raises what `evaluate` does."""
        from rtsx.evaluation import choose_objects

        return choose_objects(
            self.predicted_scenes(bundle, device=device),
            class_name=next(iter(self.classes)) if len(self.classes) == 1 else None,
            object_iou=self.object_iou,
            min_object_area_m2=self.min_object_area_m2,
        )


def load_evaluate_config(path: str | PathLike[str]) -> EvaluateConfig:
    """Read and check the config of an evaluation; opens neither cubes nor labels.

    Raises
    ------
    ConfigError
        It cannot be read, or something in it is wrong; everything that is wrong is listed, by line and key.
    """
    return validate_config(EvaluateConfig, read_yaml(path))


def evaluation_schema() -> dict[str, Any]:
    """Return JSON schema of the config of an evaluation, for editors and validators."""
    return EvaluateConfig.json_schema()
