"""Configs: YAML files as strict models, and the values that they mean."""

from rtsx.config.cube import CubeConfig
from rtsx.config.files import cube_schema, load_cube_config, load_cube_recipe
from rtsx.config.opening import open_cube

__all__ = ["CubeConfig", "cube_schema", "load_cube_config", "load_cube_recipe", "open_cube"]
