"""The config of a campaign: what a YAML file says, and the recipe that it means."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from rtsx.campaign.recipe import CampaignRecipe
from rtsx.config.choices import OutlineConfig, Outlines, PredictionConfig, PricesConfig, RetryConfig
from rtsx.config.cluster import ClusterConfig
from rtsx.config.cube import CubeConfig
from rtsx.config.ground import Ground, GroundConfig
from rtsx.config.strict import FilePath, Names, Strict, from_folder, validated
from rtsx.config.yaml import dump_yaml, read_yaml
from rtsx.config.year import with_year
from rtsx.errors import CampaignError, ConfigError

if TYPE_CHECKING:
    from rtsx.model import ModelBundle

__all__ = ["CampaignConfig"]

DEMO = "demo"
"""Word for the bundle that ships with rtsx."""


def _cube_of_year(given: object, info: ValidationInfo) -> object:
    """A cube's values, its own file's if it is a path, with the year filled in."""
    year = info.data.get("year")
    if isinstance(given, CubeConfig) or not isinstance(year, int):
        return given
    if not isinstance(given, str):
        return with_year(given, year)
    document = read_yaml(from_folder(str(with_year(given, year)), info))
    return validated(CubeConfig, replace(document, values=with_year(document.values, year)))


def _models(paths: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    if not paths:
        raise ValueError(
            "a campaign needs a model; give the path of a bundle, or demo for the one that ships with rtsx"
        )
    return tuple(path if path == DEMO else from_folder(path, info) for path in paths)


class CampaignConfig(Strict):
    """A campaign: a region of any size, mapped cell by cell."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    """Name for people, reports and the STAC collection."""
    year: int = Field(ge=1900, le=2200)
    """Year of the map; what ``{year}`` in the cube stands for."""
    region: Ground | None = None
    """Ground to map; the cube's own region if left out."""
    without: Ground | None = None
    """Ground to leave out, such as sea and glaciers: cells that lie in it as a whole are not run."""
    extent: Ground | None = None
    """Ground that the map has room for, so that later years with other regions share it; the region if left out."""
    cube: Annotated[
        CubeConfig,
        BeforeValidator(_cube_of_year, json_schema_input_type=CubeConfig | str),
    ]
    """Layers and grid: the path of a cube's YAML file, or what stands in one. Its cells are those of the grid."""
    model: Annotated[Names, AfterValidator(_models)]
    """Path of a bundle, or of several, which are averaged; demo is the one that ships with rtsx."""
    trust: bool = False
    """Read model files that can run code of their author when read."""
    prediction: PredictionConfig = PredictionConfig()
    """Tiles, network and runtime."""
    outlines: Outlines = OutlineConfig()
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
    """For fsspec, where `output` is a URL; credentials belong into the environment. Never stored beside an output."""
    retry: RetryConfig = RetryConfig()
    """What is done about cells that fail."""
    prices: PricesConfig = PricesConfig()
    """What plan and report reckon costs with."""
    cluster: ClusterConfig = ClusterConfig()
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
        """The config with everything said: the cube stands in it, without preset, year or period left open.

        Raises
        ------
        ConfigError
            Something is said nowhere, or contradicts.
        """
        shard, chunk = self.layout
        region = self.region
        if region is None and self.cube.region is not None:
            region = GroundConfig.model_validate(self.cube.region.model_dump(exclude_none=True))
        cube = self.cube.resolved().changed(region=None)
        return self.changed(region=region, cube=cube, shard=shard, chunk=chunk)

    def without_secrets(self) -> Self:
        """The config without headers of servers, storage options and options of a gateway, to be stored beside an output."""
        cluster = self.cluster.changed(
            options={}
        )  # `environment` is one of them, in which credentials are handed to workers
        return self.changed(cube=self.cube.without_secrets(), storage_options={}, cluster=cluster)

    def to_yaml(self) -> str:
        """YAML text that comes back equal; keys without a value are left out, but for outlines, which are then not wanted."""
        unwanted = {"outlines": False} if self.outlines is None else {}
        return dump_yaml(self.model_dump(exclude_none=True) | unwanted)

    def bundles(self) -> "tuple[ModelBundle, ...]":
        """The models.

        Raises
        ------
        BundleError
            One cannot be read.
        """
        from rtsx.model import ModelBundle  # here, because it loads torch

        return tuple(ModelBundle.open(path, trust=self.trust) for path in self.model)

    def recipe(self) -> CampaignRecipe:
        """The recipe of this config; reads bundles and the files of regions, and asks no source.

        Raises
        ------
        ConfigError
            Something is said nowhere, contradicts, or a region cannot be read.
        BundleError
            A model cannot be read.
        """
        config = self.resolved()
        shard, chunk = config.layout
        assert config.region is not None  # a campaign without one is refused above
        try:
            return CampaignRecipe(
                name=config.name,
                year=config.year,
                region=config.region.geometry(),
                without=None if config.without is None else config.without.geometry(),
                extent=None if config.extent is None else config.extent.geometry(),
                cube=config.cube.recipe(),
                bundles=config.bundles(),
                output=config.output,
                storage_options=config.storage_options,
                prediction=config.prediction.spec(),
                outlines=None if config.outlines is None else config.outlines.spec(),
                cogs=config.cogs,
                shard=shard,
                chunk=chunk,
                retry=config.retry.spec(),
                prices=config.prices.spec(),
            )
        except CampaignError as error:
            raise ConfigError(str(error)) from error
