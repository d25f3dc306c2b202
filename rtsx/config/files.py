"""Configs on disk: read, refused, and described to editors."""

import json
from os import PathLike
from typing import Any

from rtsx.arguments import typed
from rtsx.config.cube import CubeConfig
from rtsx.config.strict import validated
from rtsx.config.yaml import read_yaml
from rtsx.cube.recipe import CubeRecipe
from rtsx.errors import ConfigError, CubeError, GridError

__all__ = ["cube_schema", "load_cube_config", "load_cube_recipe"]


def load_cube_config(path: str | PathLike[str]) -> CubeConfig:
    """Read and check the config of a cube.

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
    config = validated(CubeConfig, read_yaml(path))
    try:
        _ = config.recipe(), config.cell
    except (ConfigError, CubeError, GridError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return config


@typed(ConfigError)
def load_cube_recipe(path: str | PathLike[str]) -> CubeRecipe:
    """Read the config of a cube as the recipe that it means.

    Raises
    ------
    ConfigError
        See `load_cube_config`.
    """
    return load_cube_config(path).recipe()


def cube_schema() -> dict[str, Any]:
    """JSON schema of the config of a cube, for editors and validators."""
    schema = CubeConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **json.loads(json.dumps(schema))}
