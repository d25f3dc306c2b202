"""A scene that could be ordered, what makes one better than another, and where an order has to stop."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from rtsx.errors import OrderError
from rtsx.parsing import STRICT


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A candidate for an order.

    Raises
    ------
    OrderError
        It has no ground, a time without a zone, or a percentage that is none.
    """

    id: str
    """Id that the provider knows it by."""
    footprint: BaseGeometry
    """Ground that it shows, in longitude and latitude."""
    time: datetime
    """When it was taken, in UTC, aware."""
    cloud_cover: float | None = None
    """Percent under cloud; None where the provider does not say."""
    clear_percent: float | None = None
    """Percent that is clear of cloud, haze, shadow and snow; None where the provider does not say."""
    strip: str = ""
    """What images of one pass of one satellite share; empty where the provider does not say."""
    collection: str = ""
    """Collection or item type that it belongs to."""

    def __post_init__(self) -> None:
        """Check once what everything after relies on."""
        if self.footprint.is_empty or not self.footprint.area:
            raise OrderError(
                f"Scene {self.id!r} has to have a footprint with an area; it has {self.footprint.geom_type}."
            )
        if self.time.tzinfo is None:
            raise OrderError(f"Scene {self.id!r} has to have a time with a zone; got {self.time}. Append +00:00.")
        for name, percent in (("cloud_cover", self.cloud_cover), ("clear_percent", self.clear_percent)):
            if percent is not None and not 0 <= percent <= 100:
                raise OrderError(f"Scene {self.id!r}: {name} is a percentage, 0 to 100; got {percent}.")

    @property
    def day(self) -> str:
        """Day in UTC, as ISO has it."""
        return self.time.astimezone(UTC).date().isoformat()

    def feature(self, **properties: object) -> dict[str, Any]:
        """Return a GeoJSON feature that `from_feature` reads, with further properties beside its own."""
        return {
            "type": "Feature",
            "id": self.id,
            "geometry": mapping(self.footprint),
            "properties": {
                "time": self.time.astimezone(UTC).isoformat(),
                **{name: getattr(self, name) for name in _TOLD},
                **properties,
            },
        }

    @classmethod
    def from_feature(cls, feature: Mapping[str, Any]) -> "Scene":
        """Return the scene that `feature` wrote.

        Examples
        --------
        >>> from shapely import box
        >>> scene = Scene(id="a", footprint=box(0, 60, 1, 61), time=datetime(2024, 7, 1, tzinfo=UTC), cloud_cover=3.0)
        >>> Scene.from_feature(scene.feature()) == scene
        True
        """
        properties = feature["properties"]
        return cls(
            id=feature["id"],
            footprint=shape(feature["geometry"]),
            time=datetime.fromisoformat(properties["time"]),
            **{name: properties[name] for name in _TOLD},
        )


_TOLD = ("cloud_cover", "clear_percent", "strip", "collection")
"""What a feature has of a scene as it is."""
_UNKNOWN_PERCENT = 50.0
"""Cloud that a scene is priced for when its provider is silent: worse than known clear, better than known overcast."""


@dataclass(frozen=True, kw_only=True)
class OrderCriteria:
    """Weights of the objective; 0 switches a term off.

    A scene's *price* is fixed::

        price = (cost_km2 + scene_km2) * (1 + cloud * cloud_cover / 100
                                            + unclear * (1 - clear_percent / 100)
                                            + lateness * min(1, days from wished date / days))

    Each step takes the scene with the largest *worth*::

        worth = new ground / price * (1 + same_day, if it touches a chosen scene of its strip or day)
                                   / (1 + overlap * share of its ground that is covered already)

    where *new ground* never counts beyond the coverage that is asked for. Without `same_day` and `overlap` this is the
    greedy of weighted set cover; its bound is stated by `select_scenes`.

    Raises
    ------
    OrderError
        A weight is negative, or `days` is not positive.
    """

    __pydantic_config__ = STRICT

    around: date | None = None
    """Wished date; if left out, any day of the period is as good."""
    days: Annotated[float, Gt(0)] = 30.0
    """Distance from the wished date, in days, from which on farther is not worse."""
    cloud: Annotated[float, Ge(0)] = 4.0
    """Weight of cloud: a scene under full cloud is priced 1 + `cloud` times a clear one."""
    unclear: Annotated[float, Ge(0)] = 1.0
    """Weight of what is not clear for any reason; counts only where the provider tells `clear_percent`."""
    lateness: Annotated[float, Ge(0)] = 1.0
    """Weight of the distance from the wished date."""
    overlap: Annotated[float, Ge(0)] = 0.25
    """Weight of ground that would be bought a second time."""
    same_day: Annotated[float, Ge(0)] = 0.25
    """Weight of joining a neighbour's strip or day: such scenes match in light and season and mosaic without steps."""
    scene_km2: Annotated[float, Ge(0)] = 10.0
    """What a scene costs beyond its area, km²: keeps orders from being made of many small pieces."""

    def __post_init__(self) -> None:
        """Refuse weights that would turn the objective around."""
        for name in ("cloud", "unclear", "lateness", "overlap", "same_day", "scene_km2"):
            if not getattr(self, name) >= 0:
                raise OrderError(f"Weight {name} is 0 or more; got {getattr(self, name)}.")
        if not self.days > 0:
            raise OrderError(f"days is more than 0; got {self.days}.")

    def price(self, scene: Scene, cost_km2: float) -> float:
        """Return the price of a scene that costs `cost_km2` to order, in km² of a perfect one.

        Examples
        --------
        >>> from datetime import datetime
        >>> from shapely import box
        >>> scene = Scene(id="a", footprint=box(0, 60, 1, 61), time=datetime(2024, 7, 1, tzinfo=UTC), cloud_cover=50.0)
        >>> OrderCriteria().price(scene, 190.0)
        600.0
        """
        cloud = _UNKNOWN_PERCENT if scene.cloud_cover is None else scene.cloud_cover
        clear = 100.0 if scene.clear_percent is None else scene.clear_percent
        late = 0.0
        if self.around is not None:
            late = min(1.0, abs((scene.time.astimezone(UTC).date() - self.around).days) / self.days)
        penalty = self.cloud * cloud / 100 + self.unclear * (1 - clear / 100) + self.lateness * late
        return (cost_km2 + self.scene_km2) * (1 + penalty)


@dataclass(frozen=True, kw_only=True)
class OrderLimits:
    """What an order must not exceed.

    Raises
    ------
    OrderError
        A limit is out of its range.
    """

    __pydantic_config__ = STRICT

    max_cloud: Annotated[float, Ge(0), Le(100)] = 100.0
    """Percent under cloud that a scene may have; one whose provider is silent passes."""
    min_clear: Annotated[float, Ge(0), Le(100)] = 0.0
    """Percent that has to be clear; one whose provider is silent passes."""
    max_scenes: Annotated[int, Ge(1)] | None = None
    """Scenes at most; any number if left out."""
    budget_km2: Annotated[float, Gt(0)] | None = None
    """Cost at most, km², with all that was ordered before under this order; any if left out."""
    coverage: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of the region, 0 to 1, after which no more is ordered; 1 takes all that the candidates cover."""
    min_new_km2: Annotated[float, Gt(0)] = 0.01
    """Ground that a scene has to add, km²: slivers between footprints are not worth a scene."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, fits, what in (
            ("max_cloud", 1 <= self.max_cloud <= 100 or self.max_cloud == 0, "a percentage, 0 to 100, such as 20"),
            ("min_clear", 0 <= self.min_clear <= 100, "a percentage, 0 to 100"),
            ("coverage", 0 < self.coverage <= 1, "a share, above 0 and at most 1"),
            ("max_scenes", self.max_scenes is None or self.max_scenes >= 1, "1 or more, or none"),
            ("budget_km2", self.budget_km2 is None or self.budget_km2 > 0, "more than 0, or none"),
            ("min_new_km2", self.min_new_km2 > 0, "more than 0"),
        ):
            if not fits:
                raise OrderError(f"{name} is {what}; got {getattr(self, name)}.")

    def accepts(self, scene: Scene) -> bool:
        """Test whether a scene is clear enough to be considered."""
        return (scene.cloud_cover or 0.0) <= self.max_cloud and (
            scene.clear_percent is None or scene.clear_percent >= self.min_clear
        )
