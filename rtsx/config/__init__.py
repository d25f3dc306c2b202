"""Configs: YAML files as strict models, and the values that they mean.

What trains, judges and maps regions loads when it is first used, because a cube that is opened needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from rtsx.config.building import Build, build_cube
from rtsx.config.cube import CubeConfig
from rtsx.config.files import cube_schema, load_cube_config, load_cube_recipe
from rtsx.config.opening import open_cube

if TYPE_CHECKING:
    from rtsx.config.campaign import CampaignConfig
    from rtsx.config.campaign_files import campaign_schema, load_campaign, load_campaign_config
    from rtsx.config.evaluate import EvaluateConfig, evaluation_schema, load_evaluate_config
    from rtsx.config.predecessor import ImportedTraining, import_training
    from rtsx.config.scene import SceneConfig
    from rtsx.config.train import TrainConfig
    from rtsx.config.training import load_train_config, load_training_recipe, train_bundle, training_schema

__all__ = [
    "Build",
    "CampaignConfig",
    "CubeConfig",
    "EvaluateConfig",
    "ImportedTraining",
    "SceneConfig",
    "TrainConfig",
    "build_cube",
    "campaign_schema",
    "cube_schema",
    "evaluation_schema",
    "import_training",
    "load_campaign",
    "load_campaign_config",
    "load_cube_config",
    "load_cube_recipe",
    "load_evaluate_config",
    "load_train_config",
    "load_training_recipe",
    "open_cube",
    "train_bundle",
    "training_schema",
]

_HOMES = {
    "CampaignConfig": "rtsx.config.campaign",
    "EvaluateConfig": "rtsx.config.evaluate",
    "ImportedTraining": "rtsx.config.predecessor",
    "SceneConfig": "rtsx.config.scene",
    "TrainConfig": "rtsx.config.train",
    "campaign_schema": "rtsx.config.campaign_files",
    "evaluation_schema": "rtsx.config.evaluate",
    "import_training": "rtsx.config.predecessor",
    "load_campaign": "rtsx.config.campaign_files",
    "load_campaign_config": "rtsx.config.campaign_files",
    "load_evaluate_config": "rtsx.config.evaluate",
    "load_train_config": "rtsx.config.training",
    "load_training_recipe": "rtsx.config.training",
    "train_bundle": "rtsx.config.training",
    "training_schema": "rtsx.config.training",
}


def __getattr__(name: str) -> object:
    """Load a name from the module that defines it, once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rtsx.config' has no attribute {name!r}; its names are {', '.join(__all__)}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
