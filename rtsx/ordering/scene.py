"""One image that could be ordered, as its provider describes it before anything is paid."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from rtsx.errors import OrderError

__all__ = ["Scene"]


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
        """A GeoJSON feature that `from_feature` reads, with further properties beside its own."""
        return {
            "type": "Feature",
            "id": self.id,
            "geometry": mapping(self.footprint),
            "properties": {
                "time": self.time.astimezone(UTC).isoformat(),
                "cloud_cover": self.cloud_cover,
                "clear_percent": self.clear_percent,
                "strip": self.strip,
                "collection": self.collection,
                **properties,
            },
        }

    @classmethod
    def from_feature(cls, feature: Mapping[str, Any]) -> "Scene":
        """The scene that `feature` wrote.

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
            cloud_cover=properties["cloud_cover"],
            clear_percent=properties["clear_percent"],
            strip=properties["strip"],
            collection=properties["collection"],
        )
