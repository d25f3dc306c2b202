"""What a campaign is asked to do, as frozen values: region, layers, bundles, prediction, outlines, retries, prices, cluster."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from numbers import Integral
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen
from shapely.geometry.base import BaseGeometry

from rtsx.arguments import typed
from rtsx.cube import CubeRecipe
from rtsx.errors import CampaignError, ClusterError
from rtsx.footprints.pieces import LEAST_AREA_M2, area_column, checked_thresholds
from rtsx.inference.plan import Merge, TestTimeAugmentation
from rtsx.parsing import STRICT, Memory, Several
from rtsx.storage import absolute
from rtsx.tiling import Blend
from rtsx.tiling.plan import WIDEST_HALO

if TYPE_CHECKING:
    from rtsx.model import ModelBundle


@typed(CampaignError)
@dataclass(frozen=True, kw_only=True)
class PredictionSpec:
    """Tile, blend and runtime of a campaign; the words are those of `predict_cube`."""

    __pydantic_config__ = STRICT

    tile: Annotated[int, Gt(0)] | Literal["auto", "bundle"] = "auto"
    """Side of a tile, px; auto takes the one of least over-compute, borders of cells included, bundle the one of training."""
    overlap: Annotated[int, Ge(0)] | Literal["auto", "bundle"] = "auto"
    """Pixels that neighbouring tiles share; auto covers the network's reach."""
    trim: Annotated[int, Ge(0)] | None = None
    """Pixels on each side of a tile that never count; the bundle's own if left out."""
    blend: Blend | Literal["auto"] = "auto"
    """How tiles are joined; auto is crop where the network's receptive field is finite, because all blends then give one output and
    this one computes nothing twice at the border of a cell, and linear elsewhere."""
    batch_size: Annotated[int, Gt(0)] | None = None
    """Tiles per forward pass; the device's own choice if left out."""
    device: str = "auto"
    """Device of each worker: auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic; auto is float32."""
    backend: Literal["eager", "compile", "onnx", "openvino"] = "eager"
    """What runs the network. Not auto, because workers that chose differently would not write the same bytes."""
    augment: Several[TestTimeAugmentation] = ()
    """Turns averaged with the image as it is: hflip, vflip, rot90, rot180, rot270, transpose."""
    scales: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)] = (1.0,)
    """Sizes at which tiles are shown."""
    merge: Merge = "mean"
    """How scales are fused."""
    spread: bool = False
    """Also store how far the members of an ensemble disagree: the standard deviation of their probabilities, as `spread`."""
    memory_bytes: Memory | None = field(default=None, metadata={"alias": "memory"})
    """Memory of one worker, such as 8GB, by which the tile is chosen where it is auto; that of the smallest worker at hand, else of
    this machine, if left out."""


@typed(CampaignError)
@dataclass(frozen=True, kw_only=True)
class OutlineSpec:
    """How objects are outlined; the words are those of `extract_footprints`.

    Raises
    ------
    CampaignError
        A number is out of its range.
    """

    __pydantic_config__ = STRICT

    min_area_m2: Annotated[float, Ge(0)] | None = None
    """Smaller objects are left out, m²; geodesic. The bundle's own choice if left out, or 288."""
    threshold: Annotated[float, Gt(0), Le(1)] | None = None
    """Least probability of an object; the bundle's own if left out."""
    edge_distance: Annotated[int, Ge(0), Le(WIDEST_HALO)] = 10
    """Outlines this near to missing data are marked as cut, px; the halo that cells look around themselves."""
    area_thresholds: Several[Annotated[float, Gt(0), Le(1)]] | None = None
    """Whole per cents (0-1) at which the area of an outline is measured, for `area_m2_t45` and the like, or `[]`; those of the
    campaign's plan before if left out, else 0.45, 0.65 and 0.8."""
    nodata_fraction: bool = False
    """Also say which part of the box around an outline is not valid."""
    water: str | None = None
    """Vector file of polygons of water, by which outlines are flagged as they are collected, not in cells; None for no such flags."""
    max_water: Annotated[float, Ge(0), Le(1)] | None = None
    """Part of an outline (0-1) that may be water; 0.2 if left out."""

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing, before they stand in a plan."""
        threshold = 1 if self.threshold is None else self.threshold
        if not (0 < threshold <= 1 and (self.min_area_m2 or 0) >= 0 and 0 <= self.edge_distance <= WIDEST_HALO):
            raise CampaignError(
                "Outlines take a threshold above 0 and up to 1, a min_area_m2 of 0 or more, and an edge_distance from 0 to "
                f"{WIDEST_HALO}; got {self}."
            )
        if self.area_thresholds is not None:
            object.__setattr__(self, "area_thresholds", checked_thresholds(self.area_thresholds))
        if self.max_water is not None and not (self.water and 0 <= self.max_water <= 1):
            raise CampaignError(
                f"max_water is the part of an outline, from 0 to 1, that may lie in water; got {self.max_water} with water {self.water!r}. "
                "Name a file of polygons as water, and give 0.2 for 20 per cent."
            )
        if self.water is not None:
            object.__setattr__(
                self, "water", absolute(self.water)
            )  # because products are made from other working folders

    @property
    def least_area_m2(self) -> float:
        """Smaller objects are left out, m²."""
        return LEAST_AREA_M2 if self.min_area_m2 is None else self.min_area_m2

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns beside those that all footprints have."""
        areas = [area_column(one) for one in self.area_thresholds or ()]
        return (*areas, "nodata_fraction") if self.nodata_fraction else tuple(areas)

    def to_document(self) -> dict[str, Any]:
        """Convert to JSON values; what plans of before did not say is left out where it is as it was then."""
        document = asdict(self)
        if self.area_thresholds is None:
            del document["area_thresholds"]
        if not self.nodata_fraction:
            del document["nodata_fraction"]
        for name in ("water", "max_water"):
            if document[name] is None:
                del document[name]
        return json.loads(json.dumps(document))  # type: ignore[no-any-return]

    @property
    def halo(self) -> int:
        """Pixels that cells look around themselves: one at least, because what is cut has to be known to be merged."""
        return max(self.edge_distance, 1)


@typed(CampaignError)
@dataclass(frozen=True, kw_only=True)
class RetrySpec:
    """What is done about cells that fail: retries, leases, and when to give up.

    Raises
    ------
    CampaignError
        A number is out of its range.
    """

    __pydantic_config__ = STRICT

    attempts: Annotated[int, Ge(1)] = 4
    """Times that a cell is tried in one run, while its failures are of the kind that can pass."""
    backoff_s: Annotated[float, Ge(0)] = 5.0
    """Seconds before the second attempt; doubled for each further one, and spread at random by up to a half."""
    longest_backoff_s: Annotated[float, Ge(0)] = 300.0
    """Bound of that pause, s."""
    most_failures: Annotated[int, Ge(1)] = 100
    """Cells set aside in one run after which it stops: so many rarely have reasons of their own."""
    lease_s: Annotated[float, Gt(0)] = 120.0
    """Seconds after its last renewal at which a cell's lease is free for another run. Renewed at a third of it."""

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if self.attempts < 1 or self.most_failures < 1:
            raise CampaignError(
                f"attempts and most_failures are at least 1; got {self.attempts} and {self.most_failures}."
            )
        if not (0 <= self.backoff_s <= self.longest_backoff_s) or not self.lease_s > 0:
            raise CampaignError(
                f"backoff_s lies between 0 and longest_backoff_s, and lease_s is above 0; got {self.backoff_s}, "
                f"{self.longest_backoff_s} and {self.lease_s} s."
            )


@typed(CampaignError)
@dataclass(frozen=True, kw_only=True)
class Machine:
    """One kind of machine that a campaign may run on, and its price.

    Raises
    ------
    CampaignError
        A number is out of its range, or a name is missing.
    """

    __pydantic_config__ = STRICT

    name: Annotated[str, MinLen(1)]
    """Name for people."""
    hour: Annotated[float, Ge(0)]
    """Price of it for an hour."""
    hardware: Annotated[str, MinLen(1)]
    """What it computes with, as commit records and `rtsx campaign plan` name it: CPU, or a card such as NVIDIA A100-SXM4-40GB."""
    workers: Annotated[int, Ge(1)] = 1
    """Workers that share it, such as one for each of its GPUs."""
    seconds_per_tile: Annotated[float, Gt(0)] | None = None
    """What a tile takes a worker there, as `rtsx campaign plan` measured it; from cells that such hardware has done, or measured where
    that runs, if left out."""

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if not (self.name and self.hardware and 0 <= self.hour < inf and self.workers >= 1):
            raise CampaignError(
                f"A machine has a name, its hardware, a price of 0 or more for an hour, and 1 worker or more; got {self!r}."
            )
        if self.seconds_per_tile is not None and not 0 < self.seconds_per_tile < inf:
            raise CampaignError(f"A tile takes more than 0 s; got {self.seconds_per_tile} on {self.name}.")


@typed(CampaignError)
@dataclass(frozen=True, kw_only=True)
class Prices:
    """What plan, status, watch and report compute costs with; all in one currency.

    Raises
    ------
    CampaignError
        Two machines have one name, or a price is below 0.
    """

    __pydantic_config__ = STRICT

    device_hour: Annotated[float, Ge(0)] | None = None
    """Price of a worker for an hour, with its GPU where it has one; of those on hardware that no machine below has."""
    machines: tuple[Machine, ...] = ()
    """Kinds of machines with their prices, which the plan compares. Of several with one hardware, the first prices what has been run."""
    gigabyte_month: Annotated[float, Ge(0)] | None = None
    """Price of storing 10^9 bytes for a month."""
    gigabyte_read: Annotated[float, Ge(0)] | None = None
    """Price of reading 10^9 bytes from the sources."""
    currency: str = "EUR"
    """Name of the currency."""

    def __post_init__(self) -> None:
        """Refuse prices below 0, and two of one name."""
        object.__setattr__(self, "machines", tuple(self.machines))
        for name in ("device_hour", "gigabyte_month", "gigabyte_read"):
            price = getattr(self, name)
            if price is not None and not 0 <= price < inf:
                raise CampaignError(f"{name} is a price of 0 or more; got {price}.")
        twice = [name for name, count in Counter(one.name for one in self.machines).items() if count > 1]
        if twice:
            raise CampaignError(f"Each machine of the prices has a name of its own; {twice[0]!r} is there twice.")

    def machine(self, hardware: str) -> Machine | None:
        """Return the first machine with that hardware."""
        return next((one for one in self.machines if one.hardware == hardware), None)

    def worker_hour(self, hardware: str) -> float | None:
        """Return the price of a worker for an hour on that hardware; None where nobody has said.

        Examples
        --------
        >>> prices = Prices(machines=[Machine(name="node", hour=8.0, hardware="NVIDIA A100-SXM4-40GB", workers=4)])
        >>> prices.worker_hour("NVIDIA A100-SXM4-40GB"), prices.worker_hour("CPU")
        (2.0, None)
        """
        machine = self.machine(hardware)
        return self.device_hour if machine is None else machine.hour / machine.workers


@dataclass(frozen=True, kw_only=True)
class CampaignRecipe:
    """One map of one region in one year.

    Raises
    ------
    CampaignError
        The region is empty, or a number is out of its range.
    """

    name: str
    """Name of the campaign, for people and for the STAC collection."""
    year: int
    """Year of the map: its step on the axis `time`, and what ``{year}`` in the config stood for."""
    region: BaseGeometry
    """Ground to be mapped: any shapely geometry in longitude and latitude."""
    without: BaseGeometry | None = None
    """Ground that is left out, such as sea and glaciers, likewise; a cell that lies in it as a whole is not run."""
    extent: BaseGeometry | None = None
    """Ground that the arrays have room for, likewise; None for the region. Years of different regions share arrays
    if they share this."""
    cube: CubeRecipe
    """Layers of a cell, and the grid whose cells are run; images of one year, without a time dimension."""
    bundles: "tuple[ModelBundle, ...]"
    """The model, or the members of an ensemble; none where only the inputs of what is planned are fetched."""
    output: str
    """Folder or URL that receives everything; a folder is kept as an absolute path."""
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    """Storage options of the file system behind a URL, such as `endpoint_url` or `anon`; credentials belong into the environment."""
    prediction: PredictionSpec = field(default=PredictionSpec())
    """How cells are predicted."""
    outlines: OutlineSpec | None = field(default=OutlineSpec())
    """How objects are outlined; None leaves outlines out."""
    cogs: bool = False
    """Also write a cell's probability and binary map as Cloud-Optimized GeoTIFFs."""
    shard: int = 4096
    """Side of a shard of the map, px; divides the cell."""
    chunk: int = 512
    """Side of a chunk inside a shard, px; divides the shard."""
    retry: RetrySpec = field(default=RetrySpec())
    """What is done about cells that fail."""
    prices: Prices = field(default=Prices())
    """What the plan and the report compute costs with."""
    fetched: str | None = None
    """Folder or URL of a store that `Campaign.fetch` has filled, which images are read from; None for their sources."""

    def __post_init__(self) -> None:
        """Check what belongs to no single part, and make the output mean the same in every working directory."""
        object.__setattr__(self, "output", absolute(self.output))  # because workers have other working folders
        object.__setattr__(self, "fetched", None if self.fetched is None else absolute(self.fetched))
        if not self.name or "/" in self.name:
            raise CampaignError(f"A campaign has a name without slashes; got {self.name!r}.")
        for name in ("year", "shard", "chunk"):
            value: object = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise CampaignError(f"The {name} of a campaign is a whole number; got {value!r}.")
            object.__setattr__(self, name, int(value))
        if not 1900 <= self.year <= 2200:
            raise CampaignError(f"A campaign maps one year, such as 2024; got {self.year}.")
        if self.region.is_empty:
            raise CampaignError("The region of a campaign is empty: no cell can meet it.")
        cell = self.cube.grid.cell_size
        if self.chunk < 1 or self.shard % self.chunk or cell % self.shard:
            raise CampaignError(
                f"A cell is whole shards and a shard whole chunks, or two cells would write into one; got cells of {cell}, "
                f"shards of {self.shard} and chunks of {self.chunk} px."
            )


@typed(ClusterError)
@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """A local cluster; or the address of a scheduler; or a dask-gateway.

    Raises
    ------
    ClusterError
        The choices contradict each other.

    Examples
    --------
    >>> ClusterSpec(workers=2).kind, ClusterSpec(gateway="http://gateway", profile="gpu", adapt=(0, 8)).kind
    ('local', 'gateway')
    """

    __pydantic_config__ = STRICT

    workers: Annotated[int, Ge(1)] | None = None
    """Worker processes, on this machine or of the gateway's cluster. If left out, on this machine one, or one per GPU; at a gateway, `adapt` says."""
    threads: Annotated[int, Ge(1)] | None = None
    """Cells that a worker on this machine runs at a time; one if left out."""
    memory_bytes: Memory | None = field(default=None, metadata={"alias": "memory"})
    """Memory of a worker on this machine, such as 8GB; an equal share of it if left out."""
    scheduler: str | None = None
    """Address of a scheduler that runs already, such as ``tcp://10.0.0.1:8786``; its workers are used as they are."""
    gateway: str | None = None
    """URL of a dask-gateway."""
    profile: str | None = None
    """Kind of workers, an option of the gateway such as ``gpu``; its default if left out."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further options of the gateway's cluster."""
    auth: Literal["basic", "kerberos", "jupyterhub"] | None = None
    """How to say who one is to the gateway. User and password of ``basic`` come from DASK_GATEWAY_USER and
    DASK_GATEWAY_PASSWORD, the token of ``jupyterhub`` from JUPYTERHUB_API_TOKEN. If left out, ``basic`` where DASK_GATEWAY_PASSWORD
    is set, else as dask's own configuration says."""
    adapt: tuple[int, int] | None = None
    """Least and most workers, between which the cluster follows the work."""

    def __post_init__(self) -> None:
        """Refuse choices of two kinds of cluster."""
        if self.kind != "local" and (self.threads is not None or self.memory_bytes is not None):
            raise ClusterError(
                f"threads and memory are those of workers on this machine; with a {self.kind}, say them where its workers are "
                "started"
            )
        if self.scheduler is not None and self.gateway is not None:
            raise ClusterError("A campaign runs at a scheduler or at a gateway; both were given. Leave one out.")
        if self.gateway is None and (self.profile is not None or self.options or self.auth is not None):
            raise ClusterError("profile, options and auth are those of a gateway, and no gateway was given.")
        if self.scheduler is not None and (self.workers is not None or self.adapt is not None):
            raise ClusterError("The workers of a running scheduler are used as they are; leave out workers and adapt.")
        if self.workers is not None and self.adapt is not None:
            raise ClusterError(f"Either a number of workers ({self.workers}) or bounds for it {self.adapt}; not both.")
        if self.gateway is not None and self.workers is None and self.adapt is None:
            raise ClusterError(
                "A gateway starts as many workers as it is asked for: say how many (workers), or between which numbers they follow "
                "the work (adapt)."
            )
        if any(number is not None and number < 1 for number in (self.workers, self.threads)):
            raise ClusterError(f"workers and threads are at least 1; got {self.workers} and {self.threads}.")
        if self.memory_bytes is not None and self.memory_bytes < 1:
            raise ClusterError(f"memory_bytes is above 0; got {self.memory_bytes}.")
        if self.adapt is not None and not (0 <= self.adapt[0] <= self.adapt[1] and self.adapt[1] >= 1):
            raise ClusterError(f"adapt is least and most workers, with the most at least 1; got {self.adapt}.")

    @property
    def kind(self) -> Literal["local", "scheduler", "gateway"]:
        """Which of the three it is."""
        if self.gateway is not None:
            return "gateway"
        return "local" if self.scheduler is None else "scheduler"
