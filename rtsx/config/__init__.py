"""Configs: YAML files as strict models, and the values that they mean.

What trains, evaluates and maps regions loads when it is first used, because a cube that is opened needs no torch.
"""

from typing import TYPE_CHECKING

from rtsx.names import lazy

if TYPE_CHECKING:
    from rtsx.config.campaign import (
        CampaignConfig,
        campaign_schema,
        load_campaign,
        load_campaign_config,
        stored_campaign_config,
    )
    from rtsx.config.cube import CubeConfig, build_cube, cube_schema, load_cube_config, load_cube_recipe, open_cube
    from rtsx.config.evaluate import EvaluateConfig, evaluation_schema, load_evaluate_config
    from rtsx.config.scenes import SceneConfig
    from rtsx.config.starter import ImportedTraining, import_training
    from rtsx.config.training import TrainConfig, load_train_config, load_training_recipe, train_bundle, training_schema
    from rtsx.config.viewing import view
    from rtsx.cube.build import BuildResult

__getattr__ = lazy(__name__)
