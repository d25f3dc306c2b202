"""Configs of campaigns on disk: read, refused, and described to editors."""

import json
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import Any

from rtsx.arguments import typed
from rtsx.campaign.recipe import CampaignRecipe
from rtsx.config.campaign import CampaignConfig
from rtsx.config.complaint import Complaint
from rtsx.config.strict import validated
from rtsx.config.yaml import read_yaml
from rtsx.config.year import YEAR
from rtsx.errors import ConfigError, CubeError, GridError

__all__ = ["campaign_schema", "load_campaign", "load_campaign_config"]


def load_campaign_config(path: str | PathLike[str], *, year: int | None = None) -> CampaignConfig:
    """Read and check the config of a campaign; opens neither bundles nor regions, and asks no source.

    Parameters
    ----------
    path
        YAML file. ``${NAME}`` and ``${NAME:-default}`` in it are variables of the environment; relative paths count
        from its folder.
    year
        Another year than the file's.

    Raises
    ------
    ConfigError
        It cannot be read, or something in it is wrong; everything that is wrong is listed, by line and key.
    """
    document = read_yaml(path)
    if isinstance(document.values, Mapping):
        if year is not None:
            document = replace(document, values={**document.values, "year": year})
        elif "year" not in document.values:
            missing = Complaint(("year",), "the year of the map is missing; say it here, or to the command with --year")
            # With a year that stands in for it, so that nothing else is said to be wrong only for want of one.
            values = {**document.values, "year": 2000}
            document = replace(document, values=values, complaints=(*document.complaints, missing))
    config = validated(CampaignConfig, document)
    try:
        # So that whatever can be known without reading more is told now, and by the file's name.
        config.resolved().cube.recipe()
    except (ConfigError, CubeError, GridError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return config


@typed(ConfigError)
def load_campaign(path: str | PathLike[str], *, year: int | None = None) -> CampaignRecipe:
    """Read the config of a campaign as the recipe that it means, for `Campaign.create`.

    Reads bundles and the files of regions; asks no source.

    Parameters
    ----------
    path
        YAML file; see `docs/howto/campaign.md` for its keys.
    year
        Another year than the file's: the same campaign a year later.

    Returns
    -------
    CampaignRecipe
        Region, layers, bundles and output, frozen.

    Raises
    ------
    ConfigError
        It cannot be read, or something in it is wrong; everything that is wrong is listed, by line and key.
    BundleError
        A model cannot be read.
    """
    try:
        return load_campaign_config(path, year=year).recipe()
    except ConfigError as error:
        if str(error).startswith(str(path)):
            raise
        raise ConfigError(f"{path}: {error}") from error


def campaign_schema() -> dict[str, Any]:
    """JSON schema of the config of a campaign, for editors and validators."""
    schema = json.loads(json.dumps(CampaignConfig.model_json_schema()))
    # A number everywhere else, and here too, once the year of the map stands for it.
    schema["$defs"]["PeriodConfig"]["properties"]["years"]["anyOf"].append({"const": YEAR})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
