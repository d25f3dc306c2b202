"""The scenes of a training, in their sets."""

from typing import Self

from pydantic import model_validator

from rtsx.config.labels import LabelsConfig
from rtsx.config.scene import SceneConfig, Scenes, expanded
from rtsx.config.split import SplitConfig, divided
from rtsx.config.strict import Strict
from rtsx.errors import ConfigError

__all__ = ["ScenesConfig"]


class ScenesConfig(Strict):
    """What is learnt from, chosen by and judged on."""

    training: Scenes
    """What is learnt from."""
    validation: Scenes = ()
    """What chooses epoch, threshold and temperature; without any, the last epoch is kept."""
    test: Scenes = ()
    """What measures the result, once."""
    split: SplitConfig | None = None
    """Parts of the training scenes that are held out instead."""

    @model_validator(mode="after")
    def _said_once(self) -> Self:
        if not self.training:
            raise ValueError("training needs at least one scene")
        if self.split is not None and (self.validation or self.test):
            raise ValueError("scenes are split, or validation and test are listed; leave one of them out")
        return self

    def resolved(self, *, labels: LabelsConfig | None) -> Self:
        """Scenes one by one, each with name, group and labels; looks for paths, and opens none.

        Raises
        ------
        ConfigError
            Scenes are missing or have no labels, two have one name, or a group stands in two sets.
        """
        training, validation, test = (
            expanded(listed, labels=labels, place=f"scenes.{name}")
            for name, listed in (("training", self.training), ("validation", self.validation), ("test", self.test))
        )
        if self.split is not None:
            parts = divided([str(scene.group) for scene in training], self.split)
            training, validation, test = (tuple(training[place] for place in part) for part in parts)
        _refuse_doubles({"training": training, "validation": validation, "test": test})
        return self.changed(training=training, validation=validation, test=test, split=None)


def _refuse_doubles(sets: dict[str, tuple[SceneConfig, ...]]) -> None:
    groups: dict[str, str] = {}
    names: set[str] = set()
    for label, scenes in sets.items():
        for scene in scenes:
            name, group = str(scene.name), str(scene.group)
            if groups.setdefault(group, label) != label:
                raise ConfigError(
                    f"scenes: {group} stands in {groups[group]} and in {label}, and what a network has learnt from says "
                    "nothing about it elsewhere. Move the scenes of a group into one set, or give them other groups"
                )
            if name in names:
                raise ConfigError(f"scenes: two scenes are called {name}; give them names of their own with name:")
            names.add(name)
