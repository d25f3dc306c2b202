"""The config of a campaign, and campaigns from it."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from rtsx.arguments import typed
from rtsx.campaign.recipe import CampaignRecipe, ClusterSpec, OutlineSpec, PredictionSpec, Prices, RetrySpec
from rtsx.config.cube import CubeConfig
from rtsx.config.place import Area, AreaConfig
from rtsx.config.yaml import (
    Checked,
    ConfigIssue,
    ConfigModel,
    FilePath,
    Names,
    dump_yaml,
    from_folder,
    parse_yaml,
    read_yaml,
    validate_config,
)
from rtsx.errors import BundleError, CampaignError, ConfigError, CubeError, GridError
from rtsx.names import DEMO

if TYPE_CHECKING:
    from rtsx.campaign import Campaign
    from rtsx.model import ModelBundle


def _outlines(given: object, info: ValidationInfo) -> object:
    if isinstance(given, bool):
        return {} if given else None
    if isinstance(given, Mapping) and isinstance(given.get("water"), str):
        return {**given, "water": from_folder(given["water"], info)}
    return given


Outlines = Annotated[OutlineSpec | None, BeforeValidator(_outlines, json_schema_input_type=OutlineSpec | bool | None)]
"""How objects are outlined, or whether at all."""


"""Word for the bundle that ships with rtsx."""


YEAR = "{year}"
"""Stands for the year of the map."""


def substitute_year(values: Any, year: int) -> Any:
    """Return plain values with the year in place of ``{year}``; a text that is nothing else becomes a number.

    Raises
    ------
    ConfigError
        ``{year}`` stands without quotes, which YAML takes for a mapping.

    Examples
    --------
    >>> substitute_year({"period": {"years": "{year}"}, "files": ["a/{year}/b.tif"]}, 2024)
    {'period': {'years': 2024}, 'files': ['a/2024/b.tif']}
    """
    if isinstance(values, str):
        return year if values == YEAR else values.replace(YEAR, str(year))
    if isinstance(values, Mapping):
        if list(values.items()) == [("year", None)]:
            raise ConfigError('{year} stands in quotes, "{year}", because braces alone are a mapping in YAML')
        return {key: substitute_year(value, year) for key, value in values.items()}
    return [substitute_year(value, year) for value in values] if isinstance(values, list | tuple) else values


def _cube_of_year(given: object, info: ValidationInfo) -> object:
    """Return a cube's values, its own file's if it is a path, with the year filled in."""
    year = info.data.get("year")
    if isinstance(given, CubeConfig) or not isinstance(year, int):
        return given
    if not isinstance(given, str):
        return substitute_year(given, year)
    document = read_yaml(from_folder(str(substitute_year(given, year)), info))
    return validate_config(CubeConfig, replace(document, values=substitute_year(document.values, year)))


def _models(paths: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    if not paths:
        raise ValueError(
            "a campaign needs a model; give the path of a bundle, or demo for the one that ships with rtsx"
        )
    return tuple(path if path == DEMO else from_folder(path, info) for path in paths)


class CampaignConfig(ConfigModel):
    """A campaign: a region of any size, mapped cell by cell."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    """Name for people, reports and the STAC collection."""
    year: int = Field(ge=1900, le=2200)
    """Year of the map; what ``{year}`` in the cube stands for."""
    region: Area | None = None
    """Ground to map; the cube's own region if left out."""
    without: Area | None = None
    """Ground to leave out, such as sea and glaciers: cells that lie in it as a whole are not run."""
    extent: Area | None = None
    """Ground that the map has room for, so that later years with other regions share it; the region if left out."""
    cube: Annotated[CubeConfig, BeforeValidator(_cube_of_year, json_schema_input_type=CubeConfig | str)]
    """Layers and grid: the path of a cube's YAML file, or what stands in one. Its cells are those of the grid."""
    model: Annotated[Names, AfterValidator(_models)]
    """Path of a bundle, or of several, which are averaged; demo is the one that ships with rtsx."""
    trust: bool = False
    """Read model files that can run code of their author when read."""
    prediction: Checked[PredictionSpec] = PredictionSpec()
    """Tiles, network and runtime."""
    outlines: Outlines = OutlineSpec()
    """How objects are outlined; false for a map alone."""
    cogs: bool = CampaignRecipe.cogs
    """Also write each cell as Cloud-Optimized GeoTIFFs."""
    shard: int | None = Field(default=None, gt=0)
    """Side of a shard of the map, px, which divides the cell; 4096, or the cell where it is smaller, if left out."""
    chunk: int | None = Field(default=None, gt=0)
    """Side of a chunk, px, which divides the shard; 512, or the shard where it is smaller, if left out."""
    output: FilePath
    """Folder or URL that receives everything; later years go into the same."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """Storage options of the file system behind a URL, such as `endpoint_url` or `anon`; credentials belong into the environment.
    Never stored beside an output."""
    retry: Checked[RetrySpec] = RetrySpec()
    """What is done about cells that fail."""
    prices: Checked[Prices] = Prices()
    """What plan and report compute costs with."""
    cluster: Checked[ClusterSpec] = ClusterSpec()
    """Machines that run it, unless the command line names others."""

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        own = self.cube.region
        if self.region is None and (own is None or own.cell is not None):
            raise ValueError(
                "a campaign needs a region: arctic, a vector file, a box or tiles of ArcticDEM; the cube names none"
            )
        if "{" in self.output:
            raise ValueError(f"output is the same for all years and has no placeholders; got {self.output}")
        return self

    @property
    def layout(self) -> tuple[int, int]:
        """Sides of a shard and of a chunk, px."""
        shard = self.shard or min(CampaignRecipe.shard, self.cube.grid.cell_size)
        return shard, self.chunk or min(CampaignRecipe.chunk, shard)

    def resolved(self) -> Self:
        """Return the config with everything said: the cube stands in it, without preset, year or period left open.

        Raises
        ------
        ConfigError
            Something is said nowhere, or contradicts.
        """
        shard, chunk = self.layout
        region = self.region
        if region is None and self.cube.region is not None:
            region = AreaConfig.model_validate(self.cube.region.model_dump(exclude_none=True))
        cube = self.cube.resolved().changed(region=None)
        return self.changed(region=region, cube=cube, shard=shard, chunk=chunk)

    def without_secrets(self) -> Self:
        """Return the config without headers of servers, storage options and options of a gateway, to be stored beside an output."""
        # `environment` is one of them, in which credentials are handed to workers.
        cluster = replace(self.cluster, options={})
        return self.changed(cube=self.cube.without_secrets(), storage_options={}, cluster=cluster)

    def to_yaml(self) -> str:
        """Return YAML text that comes back equal; keys without a value are left out, but for outlines, which are then not wanted."""
        unwanted = {"outlines": False} if self.outlines is None else {}
        return dump_yaml(self.model_dump(exclude_none=True) | unwanted)

    def bundles(self) -> "tuple[ModelBundle, ...]":
        """Return the models.

        Raises
        ------
        BundleError
            One cannot be read.
        """
        from rtsx.model import ModelBundle  # here, because it loads torch

        return tuple(ModelBundle.open(path, trust=self.trust) for path in self.model)

    def recipe(self, *, with_bundles: bool = True) -> CampaignRecipe:
        """Return the recipe of this config; reads the files of regions, and bundles unless they are left out, and asks no source.

        Raises
        ------
        ConfigError
            Something is said nowhere, contradicts, or a region cannot be read.
        BundleError
            A model cannot be read.
        """
        config = self.resolved()
        assert config.region is not None  # a campaign without one is refused above
        try:
            own = {
                "region": config.region.geometry(),
                "without": None if config.without is None else config.without.geometry(),
                "extent": None if config.extent is None else config.extent.geometry(),
                "cube": config.cube.recipe(),
                "bundles": config.bundles() if with_bundles else (),
            }
            return CampaignRecipe(**config.shared(CampaignRecipe) | own)
        except CampaignError as error:
            raise ConfigError(str(error)) from error


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
            text = "the year of the map is missing; say it here, or to the command with --year"
            # With a year that stands in for it, so that nothing else is said to be wrong only for want of one.
            values = {**document.values, "year": 2000}
            document = replace(document, values=values, complaints=(*document.complaints, ConfigIssue(("year",), text)))
    config = validate_config(CampaignConfig, document)
    try:
        # So that whatever can be known without reading more is reported now, and by the file's name.
        with suppress(BundleError):  # which may lie where the campaign runs
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


def stored_campaign_config(campaign: "Campaign") -> CampaignConfig:
    """Read the config that is stored beside the plan of a campaign, with its output where it was opened.

    Model files that can run code are not read by it, whatever it says: who may write to an output may not run code here.

    Raises
    ------
    CampaignError
        It was planned from a recipe in Python, of which nothing is stored.
    ConfigError
        What is stored cannot be read.
    """
    key = campaign.ledger.layout.config
    text = campaign.objects.get(key)
    if not text:
        raise CampaignError(
            f"{campaign.output} holds no config, because {campaign.plan.name} {campaign.plan.year} was not planned from a YAML "
            "file. Give the YAML file."
        )
    document = parse_yaml(text.decode(), name=f"{campaign.output}/{key}", environment=None)
    config = validate_config(CampaignConfig, document)
    return config.changed(output=campaign.output, storage_options=dict(campaign.storage_options), trust=False)


def campaign_schema() -> dict[str, Any]:
    """Return JSON schema of the config of a campaign, for editors and validators."""
    schema = CampaignConfig.json_schema()
    # A number everywhere else, and here too, once the year of the map stands for it.
    schema["$defs"]["PeriodConfig"]["properties"]["years"]["anyOf"].append({"const": YEAR})
    for part in ("prediction", "cluster"):  # pydantic writes defaults by the names of Python
        default = schema["properties"][part]["default"]
        default["memory"] = default.pop("memory_bytes")
    return schema
