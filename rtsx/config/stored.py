"""The config that a built store keeps of itself."""

from collections.abc import Mapping
from typing import Any

from rtsx.config.cube import CubeConfig
from rtsx.config.strict import validated
from rtsx.config.yaml import parse_yaml
from rtsx.cube.opening import is_store
from rtsx.cube.zarr import BUILD, open_group
from rtsx.errors import ConfigError, CubeError

__all__ = ["stored_config"]


def stored_config(path: str, options: Mapping[str, Any]) -> CubeConfig | None:
    """The config of a store that holds images on their own grids; None for anything else.

    Raises
    ------
    CubeError
        The store is not built to its end, or was built without a config.
    ConfigError
        The config is none, or wants a file of this machine: whoever made the store has written it, so that it is given
        no variable of the environment, and nothing that it names is read.
    """
    if not is_store(path):
        return None
    group = open_group(path, options)
    if BUILD not in group.attrs or "build" not in group:
        return None
    details: Any = group["build"].attrs.asdict()
    if "index" not in details:
        return None
    if not details["config"]:
        raise CubeError(
            f"{path} was built from a recipe, not from a config, so that it does not know how to be aligned. Open it with "
            "with_native_images(recipe, path)."
        )
    config = validated(CubeConfig, parse_yaml(str(details["config"]), name=f"{path} (its config)", environment=None))
    if config.region is not None and config.region.file is not None:
        raise ConfigError(
            f"{path} (its config): region.file is {config.region.file}, and a store may not make its reader open other "
            "files. Build it again, which stores the region itself, or open it with with_native_images(recipe, path)."
        )
    return config
