"""What a campaign is asked to do: region, layers, bundles and outputs as one frozen value. A YAML file becomes one of these."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Any

from shapely.geometry.base import BaseGeometry

from rtsx.campaign.outline_spec import OutlineSpec
from rtsx.campaign.prediction_spec import PredictionSpec
from rtsx.campaign.prices import Prices
from rtsx.campaign.retry_spec import RetrySpec
from rtsx.cube import CubeRecipe
from rtsx.errors import CampaignError
from rtsx.storage import absolute

if TYPE_CHECKING:
    from rtsx.model import ModelBundle  # which loads torch, that configs are checked without

__all__ = ["CampaignRecipe"]


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
    """What the plan and the report reckon costs with."""

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
