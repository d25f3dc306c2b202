"""The plan of an order: which scenes, what they cost, and what they leave uncovered. A frozen value, nothing bought."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from rtsx.errors import OrderError
from rtsx.ordering.scene import Scene
from rtsx.parsing import damage_told
from rtsx.storage import staged

__all__ = ["ChosenScene", "OrderPlan", "Stop"]

Stop = Literal["complete", "coverage", "scenes", "budget"]
"""Why no more was chosen: the candidates hold no more ground, or the limit of that name was reached."""


@dataclass(frozen=True, kw_only=True)
class ChosenScene:
    """A scene of a plan."""

    scene: Scene
    """What is ordered."""
    cost_km2: float
    """What it costs, in km²: its area, or the part in the region if the provider clips."""
    covers_km2: float
    """Ground of the region that it shows, in km²."""
    alone_km2: float
    """Ground of the region that no other scene of the plan shows, in km²."""


@dataclass(frozen=True, kw_only=True)
class OrderPlan:
    """What would be ordered for a region."""

    chosen: tuple[ChosenScene, ...]
    """The scenes, by time and id."""
    region: BaseGeometry
    """Ground that was asked for, in longitude and latitude."""
    missing: BaseGeometry
    """Ground of the region that the plan does not cover, in longitude and latitude, without slivers below `Limits.min_new_km2`."""
    region_km2: float
    """Area of the region, in km²."""
    covered_km2: float
    """Ground of the region that the plan covers, in km²."""
    coverable_km2: float
    """Ground of the region that all candidates within the limits cover together, in km²."""
    clip: bool
    """Whether the provider clips to the region, so that only that is paid for."""
    stop: Stop
    """Why no more was chosen."""
    candidates: int
    """Scenes that were considered."""
    refused: int
    """Scenes among them that are too cloudy or not clear enough."""

    @property
    def cost_km2(self) -> float:
        """What the plan costs, in km²."""
        return sum(one.cost_km2 for one in self.chosen)

    @property
    def coverage(self) -> float:
        """Share of the region that is covered, 0 to 1."""
        return self.covered_km2 / self.region_km2

    @property
    def overlap_km2(self) -> float:
        """Ground of the region that is bought more than once, counted each time after the first, in km²."""
        return max(0.0, sum(one.covers_km2 for one in self.chosen) - self.covered_km2)

    @property
    def days(self) -> dict[str, int]:
        """Scenes of each day, in order of days."""
        return dict(sorted(Counter(one.scene.day for one in self.chosen).items()))

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON holds it; `from_json` gives it back equal."""
        return {
            "chosen": [
                one.scene.feature(cost_km2=one.cost_km2, covers_km2=one.covers_km2, alone_km2=one.alone_km2)
                for one in self.chosen
            ],
            "region": mapping(self.region),
            "missing": mapping(self.missing),
            **{name: getattr(self, name) for name in _PLAIN},
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "OrderPlan":
        """The plan that `to_json` wrote.

        Raises
        ------
        OrderError
            It is no such thing.
        """
        with damage_told("The plan of an order", OrderError):
            chosen = tuple(
                ChosenScene(
                    scene=Scene.from_feature(feature),
                    **{name: feature["properties"][name] for name in ("cost_km2", "covers_km2", "alone_km2")},
                )
                for feature in content["chosen"]
            )
            plain = {name: content[name] for name in _PLAIN}
            return cls(chosen=chosen, region=shape(content["region"]), missing=shape(content["missing"]), **plain)

    def geojson(self) -> dict[str, Any]:
        """A feature collection for a map: scenes, what they leave uncovered, and the region; `kind` tells them apart."""
        scenes = [
            one.scene.feature(kind="scene", cost_km2=one.cost_km2, covers_km2=one.covers_km2, alone_km2=one.alone_km2)
            for one in self.chosen
        ]
        grounds = [
            ("missing", self.missing, self.region_km2 - self.covered_km2),
            ("region", self.region, self.region_km2),
        ]
        return {
            "type": "FeatureCollection",
            "features": scenes
            + [
                {"type": "Feature", "geometry": mapping(ground), "properties": {"kind": kind, "area_km2": area_km2}}
                for kind, ground, area_km2 in grounds
                if not ground.is_empty
            ],
        }

    def write_geojson(self, path: Path) -> None:
        """Write `geojson` to a file, all of it or nothing; one that is there is replaced."""
        with staged(path, overwrite=True) as stage:
            stage.write_text(json.dumps(self.geojson()) + "\n")

    def __str__(self) -> str:
        """Two lines: what it covers and what it costs."""
        return (
            f"{len(self.chosen)} of {self.candidates} scenes, days: {len(self.days)}, cover {self.coverage:.1%} of "
            f"{self.region_km2:,.0f} km²\ncost {self.cost_km2:,.0f} km², overlap {self.overlap_km2:,.0f} km²"
        )


_PLAIN = ("region_km2", "covered_km2", "coverable_km2", "clip", "stop", "candidates", "refused")
"""Fields that JSON holds as they are."""
