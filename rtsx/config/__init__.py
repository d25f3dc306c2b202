"""Configs: YAML files as strict models, and the values that they mean."""

from rtsx.config.cube import CubeConfig
from rtsx.config.files import cube_schema, load_cube_config, load_cube_recipe

__all__ = ["CubeConfig", "cube_schema", "load_cube_config", "load_cube_recipe"]
