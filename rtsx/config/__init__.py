"""Configs: YAML files as strict models, and the values that they mean."""

from rtsx.config.building import Build, build_cube
from rtsx.config.cube import CubeConfig
from rtsx.config.files import cube_schema, load_cube_config, load_cube_recipe
from rtsx.config.opening import open_cube

__all__ = ["Build", "CubeConfig", "build_cube", "cube_schema", "load_cube_config", "load_cube_recipe", "open_cube"]
