"""The config of a campaign, and campaigns from it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from rtsx.arguments import typed
from rtsx.campaign.recipe import CampaignRecipe, ClusterSpec, OutlineSpec, PredictionSpec, Prices, RetrySpec
from rtsx.config.cube import CubeConfig
from rtsx.config.place import Area, AreaConfig
from rtsx.config.validate import (
    YEAR,
    ConfigModel,
    FilePath,
    Memory,
    Names,
    from_folder,
    memory_bytes,
    substitute_year,
    validate_config,
)
from rtsx.config.yaml import ConfigIssue, dump_yaml, read_yaml
from rtsx.errors import CampaignError, ClusterError, ConfigError, CubeError, GridError
from rtsx.inference.plan import Merge, TestTimeAugmentation
from rtsx.tiling import Blend

if TYPE_CHECKING:
    from rtsx.model import ModelBundle

__all__ = [
    "CampaignConfig",
    "ClusterConfig",
    "OutlineConfig",
    "OutlineOption",
    "PredictionConfig",
    "PricesConfig",
    "RetryConfig",
    "campaign_schema",
    "load_campaign",
    "load_campaign_config",
]

_Pixels = Annotated[int, Field(ge=0)]
_Turns = Annotated[
    tuple[TestTimeAugmentation, ...],
    BeforeValidator(
        lambda given: (given,) if isinstance(given, str) else given,
        json_schema_input_type=list[TestTimeAugmentation] | TestTimeAugmentation,
    ),
]


class PredictionConfig(ConfigModel):
    """How cells are predicted; the words are those of `rtsx.predict_cube`."""

    tile: Annotated[int, Field(gt=0)] | Literal["auto", "bundle"] = PredictionSpec.tile
    """Side of a tile, px; auto takes the cheapest that gives the right answer, bundle the one of training."""
    overlap: _Pixels | Literal["auto", "bundle"] = PredictionSpec.overlap
    """Pixels that neighbouring tiles share."""
    trim: _Pixels | None = PredictionSpec.trim
    """Pixels on each side of a tile that never count; the bundle's own if left out."""
    blend: Blend | Literal["auto"] = PredictionSpec.blend
    """How tiles are joined; auto is crop where the network's reach is finite, linear elsewhere."""
    batch_size: int | None = Field(default=PredictionSpec.batch_size, gt=0)
    """Tiles per forward pass; the device's own choice if left out."""
    device: str = PredictionSpec.device
    """Device of each worker: auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic; auto is bfloat16 on a GPU and float32 on a CPU."""
    backend: Literal["eager", "compile", "onnx", "openvino"] = "eager"
    """What runs the network; the same everywhere, so that all workers write the same bytes."""
    augment: _Turns = PredictionSpec.augment
    """Turns averaged with the image as it is: hflip, vflip, rot90, rot180, rot270, transpose."""
    scales: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = PredictionSpec.scales
    """Sizes at which tiles are shown."""
    merge: Merge = PredictionSpec.merge
    """How scales are fused."""
    memory: Memory | None = None
    """Memory of one worker, such as 8GB, by which the tile is chosen where it is auto; that of this machine if left out."""

    def spec(self) -> PredictionSpec:
        """How cells are predicted."""
        said = {name: getattr(self, name) for name in type(self).model_fields if name != "memory"}
        return PredictionSpec(**said, memory_bytes=None if self.memory is None else memory_bytes(self.memory))


class OutlineConfig(ConfigModel):
    """How objects are outlined; the words are those of `rtsx.extract_footprints`."""

    min_area_m2: float = Field(default=OutlineSpec.min_area_m2, ge=0)
    """Smaller objects are left out, m²."""
    threshold: float | None = Field(default=OutlineSpec.threshold, gt=0, le=1)
    """Least probability of an object; the model's own if left out."""
    edge_distance: int = Field(default=OutlineSpec.edge_distance, ge=0)
    """Outlines this near to missing data are marked as cut, px."""

    def spec(self) -> OutlineSpec:
        """How objects are outlined."""
        return OutlineSpec(**{name: getattr(self, name) for name in type(self).model_fields})


OutlineOption = Annotated[
    OutlineConfig | None,
    BeforeValidator(
        lambda given: {True: {}, False: None}[given] if isinstance(given, bool) else given,
        json_schema_input_type=OutlineConfig | bool | None,
    ),
]
"""How objects are outlined, or whether at all."""


class RetryConfig(ConfigModel):
    """What is done about cells that fail."""

    attempts: int = Field(default=RetrySpec.attempts, ge=1)
    """Times that a cell is tried in one run, while its failures can pass."""
    backoff_s: float = Field(default=RetrySpec.backoff_s, ge=0)
    """Seconds before the second attempt; doubled for each further one."""
    longest_backoff_s: float = Field(default=RetrySpec.longest_backoff_s, ge=0)
    """Bound of that pause, s."""
    most_failures: int = Field(default=RetrySpec.most_failures, ge=1)
    """Cells set aside in one run after which it stops."""
    lease_s: float = Field(default=RetrySpec.lease_s, gt=0)
    """Seconds without a sign of life after which another run may take over a cell."""

    def spec(self) -> RetrySpec:
        """What is done about cells that fail."""
        return RetrySpec(**{name: getattr(self, name) for name in type(self).model_fields})


class PricesConfig(ConfigModel):
    """What plan and report compute costs with; what is left out costs nothing."""

    device_hour: float | None = Field(default=None, ge=0)
    """Price of a worker for an hour, with its GPU where it has one."""
    gigabyte_month: float | None = Field(default=None, ge=0)
    """Price of storing 10^9 bytes for a month."""
    gigabyte_read: float | None = Field(default=None, ge=0)
    """Price of reading 10^9 bytes from the sources."""
    currency: str = Prices.currency
    """Name of the currency."""

    def spec(self) -> Prices:
        """The prices."""
        return Prices(**{name: getattr(self, name) for name in type(self).model_fields})


class ClusterConfig(ConfigModel):
    """Workers on this machine, a scheduler that runs already, or a dask-gateway.

    Examples
    --------
    >>> ClusterConfig(workers=2, memory="4GB").spec().memory_bytes
    4000000000
    """

    workers: int | None = Field(default=None, ge=1)
    """Worker processes, here or of the gateway's cluster."""
    threads: int | None = Field(default=None, ge=1)
    """Cells that a worker on this machine runs at a time; one if left out."""
    memory: Memory | None = None
    """Memory of a worker on this machine, such as 8GB; an equal share of it if left out."""
    scheduler: str | None = None
    """Address of a running scheduler, such as ``tcp://10.0.0.1:8786``; its workers are used as they are."""
    gateway: str | None = None
    """URL of a dask-gateway."""
    profile: str | None = None
    """Kind of workers at the gateway, such as gpu."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further options of the gateway's cluster."""
    auth: Literal["basic", "kerberos", "jupyterhub"] | None = None
    """How to say who one is to the gateway; secrets are taken from the environment."""
    adapt: tuple[int, int] | None = None
    """Least and most workers, between which the cluster follows the work."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        elsewhere = "scheduler" if self.scheduler is not None else "gateway" if self.gateway is not None else None
        if elsewhere is not None and (self.threads is not None or self.memory is not None):
            raise ValueError(
                f"threads and memory are those of workers on this machine; with a {elsewhere}, say them where its workers "
                "are started"
            )
        try:
            self.spec()
        except ClusterError as error:
            raise ValueError(str(error)) from error
        return self

    def spec(self) -> ClusterSpec:
        """The cluster."""
        return ClusterSpec(
            workers=self.workers,
            threads=ClusterSpec.threads if self.threads is None else self.threads,
            memory_bytes=None if self.memory is None else memory_bytes(self.memory),
            scheduler=self.scheduler,
            gateway=self.gateway,
            profile=self.profile,
            options=self.options,
            auth=self.auth,
            adapt=self.adapt,
        )


DEMO = "demo"
"""Word for the bundle that ships with rtsx."""


def _cube_of_year(given: object, info: ValidationInfo) -> object:
    """A cube's values, its own file's if it is a path, with the year filled in."""
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
    outlines: OutlineOption = OutlineConfig()
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
    """What plan and report compute costs with."""
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
            region = AreaConfig.model_validate(self.cube.region.model_dump(exclude_none=True))
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
            missing = ConfigIssue(
                ("year",), "the year of the map is missing; say it here, or to the command with --year"
            )
            # With a year that stands in for it, so that nothing else is said to be wrong only for want of one.
            values = {**document.values, "year": 2000}
            document = replace(document, values=values, complaints=(*document.complaints, missing))
    config = validate_config(CampaignConfig, document)
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
