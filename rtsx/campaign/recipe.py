"""What a campaign is asked to do, as frozen values: region, layers, bundles, prediction, outlines, retries, prices, cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

from shapely.geometry.base import BaseGeometry

from rtsx.arguments import typed
from rtsx.cube import CubeRecipe
from rtsx.errors import CampaignError, ClusterError
from rtsx.inference.plan import Merge, TestTimeAugmentation
from rtsx.inference.tile_choice import TileChoice
from rtsx.storage import absolute
from rtsx.tiling import Blend

if TYPE_CHECKING:
    from rtsx.model import ModelBundle


@typed(CampaignError)
@dataclass(frozen=True, kw_only=True)
class PredictionSpec:
    """Tile, blend and runtime of a campaign; the words are those of `predict_cube`."""

    tile: TileChoice = "auto"
    """Pixels, `"bundle"`, or `"auto"`: the tile of least over-compute, borders of cells included."""
    overlap: TileChoice = "auto"
    """Pixels that neighbouring tiles share; `"auto"` covers the network's reach."""
    trim: int | None = None
    """Pixels on each side of a tile that never count; None as in `predict_cube`."""
    blend: Blend | Literal["auto"] = "auto"
    """`"auto"`: crop where the network's receptive field is finite, because all blends then give one output and this one computes
    nothing twice at the border of a cell; linear elsewhere."""
    batch_size: int | None = None
    """Tiles per forward pass; None leaves it to the device."""
    device: str = "auto"
    """Device of each worker."""
    precision: str = "auto"
    """Arithmetic of the network."""
    backend: str = "eager"
    """What runs the network. Not `"auto"`: workers that chose differently would not write the same bytes."""
    augment: tuple[TestTimeAugmentation, ...] = ()
    """Turns of each tile beside the picture as it is."""
    scales: tuple[float, ...] = (1.0,)
    """Sizes at which a tile is shown."""
    merge: Merge = "mean"
    """How scales are fused."""
    memory_bytes: int | None = None
    """Memory of one worker, by which `tile="auto"` is chosen; None: of the smallest worker at hand, else of this machine."""


@typed(CampaignError)
@dataclass(frozen=True, kw_only=True)
class OutlineSpec:
    """The rule of the outlines; the words are those of `extract_footprints`."""

    min_area_m2: float = 288.0
    """Smaller objects are left out; geodesic area."""
    threshold: float | None = None
    """Smallest probability of an object pixel; None: the bundle's own."""
    edge_distance: int = 10
    """Pixels from invalid ground at which an outline counts as cut; the halo that cells look around themselves."""

    @property
    def halo(self) -> int:
        """Pixels that cells look around themselves: one at least, because what is cut has to be known to be merged."""
        return max(self.edge_distance, 1)


@dataclass(frozen=True, kw_only=True)
class RetrySpec:
    """Retries, leases, and when to give up.

    Raises
    ------
    CampaignError
        A number is out of its range.
    """

    attempts: int = 4
    """Times that a cell is tried in one run, while its failures are of the kind that can pass."""
    backoff_s: float = 5.0
    """Seconds before the second attempt; doubled for each further one, and spread at random by up to a half."""
    longest_backoff_s: float = 300.0
    """Bound of that pause, seconds."""
    most_failures: int = 100
    """Cells set aside in one run after which it stops: so many rarely have reasons of their own."""
    lease_s: float = 120.0
    """Seconds after its last renewal at which a cell's lease is free for another run. Renewed at a third of it."""

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        for name, value in vars(self).items():
            kind: Any = Integral if name in ("attempts", "most_failures") else Real
            if not isinstance(value, kind) or isinstance(value, bool):
                raise CampaignError(f"{name} is a {'whole ' if kind is Integral else ''}number; got {value!r}.")
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
class Prices:
    """Prices in one currency; None leaves a part out of the sum."""

    device_hour: float | None = None
    """Of one worker, with its GPU where it has one, for an hour."""
    gigabyte_month: float | None = None
    """Of storing 10^9 bytes for a month."""
    gigabyte_read: float | None = None
    """Of reading 10^9 bytes from the sources."""
    currency: str = "EUR"
    """Name of the currency, for reports."""


@dataclass(frozen=True, kw_only=True)
class CampaignRecipe:
    """One map of one region in one year.

    Raises
    ------
    CampaignError
        The region is empty, there is no bundle, or a number is out of its range.
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
    """The model, or the members of an ensemble."""
    output: str
    """Folder or URL that receives everything; a folder is kept as an absolute path."""
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    """For fsspec, where `output` is a URL; credentials belong into the environment."""
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

    def __post_init__(self) -> None:
        """Check what belongs to no single part, and make the output mean the same in every working directory."""
        object.__setattr__(self, "output", absolute(self.output))  # because workers have other working folders
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
        if not self.bundles:
            raise CampaignError("A campaign needs at least one bundle.")
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

    workers: int | None = None
    """Worker processes, on this machine or of the gateway's cluster. None: one on this machine; at a gateway, `adapt` says."""
    threads: int = 1
    """Cells that a worker on this machine runs at a time."""
    memory_bytes: int | None = None
    """Memory of each worker on this machine, bytes; None for an equal share of what the machine has."""
    scheduler: str | None = None
    """Address of a scheduler that runs already, such as ``tcp://10.0.0.1:8786``; its workers are used as they are."""
    gateway: str | None = None
    """URL of a dask-gateway."""
    profile: str | None = None
    """Name of the kind of workers, an option of the gateway such as ``gpu``; None for its default."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further cluster options of the gateway."""
    auth: Literal["basic", "kerberos", "jupyterhub"] | None = None
    """How to say who one is to the gateway. User and password of ``basic`` come from DASK_GATEWAY_USER and
    DASK_GATEWAY_PASSWORD, the token of ``jupyterhub`` from JUPYTERHUB_API_TOKEN. None: ``basic`` where DASK_GATEWAY_PASSWORD
    is set, else as dask's own configuration says."""
    adapt: tuple[int, int] | None = None
    """Least and most workers, between which the cluster follows the work."""

    def __post_init__(self) -> None:
        """Refuse choices of two kinds of cluster."""
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
        if min(self.threads, 1 if self.workers is None else self.workers) < 1:
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
