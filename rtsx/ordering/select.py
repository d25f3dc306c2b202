"""Select scenes for a region: a small set that covers it, chosen greedily and then thinned. Nothing is bought."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer
from shapely import (
    LineString,
    MultiPolygon,
    Polygon,
    STRtree,
    difference,
    get_coordinates,
    get_parts,
    intersection,
    make_valid,
    prepare,
    segmentize,
    set_precision,
    union_all,
)
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from rtsx.errors import OrderError
from rtsx.geometry.antimeridian import lonlat_region
from rtsx.ordering.criteria import OrderCriteria, OrderLimits, Scene
from rtsx.parsing import wrap_damage
from rtsx.storage import staged

Stop = Literal["complete", "coverage", "scenes", "budget"]
"""Why no more was chosen: the candidates hold no more ground, or the limit of that name was reached."""


@dataclass(frozen=True, kw_only=True)
class ChosenScene:
    """A scene of a plan."""

    scene: Scene
    cost_km2: float
    """What it costs, in km²: its area, or the part in the region if the provider clips."""
    covers_km2: float
    """Ground of the region that it shows, in km²."""
    alone_km2: float
    """Ground of the region that no other scene of the plan shows, in km²."""

    def feature(self, **properties: object) -> dict[str, Any]:
        """Return a GeoJSON feature of the scene, with what it costs and shows."""
        return self.scene.feature(**properties, **{name: getattr(self, name) for name in _AREAS})


_AREAS = ("cost_km2", "covers_km2", "alone_km2")


@dataclass(frozen=True, kw_only=True)
class OrderPlan:
    """What would be ordered for a region."""

    chosen: tuple[ChosenScene, ...]
    """The scenes, by time and id."""
    region: BaseGeometry
    """Ground that was asked for, in longitude and latitude."""
    missing: BaseGeometry
    """Ground of the region that the plan does not cover, in longitude and latitude, without slivers below `OrderLimits.min_new_km2`."""
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
        """Return the plan as JSON holds it; `from_json` gives it back equal."""
        return {
            "chosen": [one.feature() for one in self.chosen],
            "region": mapping(self.region),
            "missing": mapping(self.missing),
            **{name: getattr(self, name) for name in _PLAIN},
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "OrderPlan":
        """Return the plan that `to_json` wrote.

        Raises
        ------
        OrderError
            It is no such thing.
        """
        with wrap_damage("The plan of an order", OrderError):
            chosen = tuple(
                ChosenScene(scene=Scene.from_feature(one), **{name: one["properties"][name] for name in _AREAS})
                for one in content["chosen"]
            )
            plain = {name: content[name] for name in _PLAIN}
            return cls(chosen=chosen, region=shape(content["region"]), missing=shape(content["missing"]), **plain)

    def geojson(self) -> dict[str, Any]:
        """Return a feature collection for a map: scenes, what they leave uncovered, and the region; `kind` tells them apart."""
        grounds = [
            ("missing", self.missing, self.region_km2 - self.covered_km2),
            ("region", self.region, self.region_km2),
        ]
        return {
            "type": "FeatureCollection",
            "features": [one.feature(kind="scene") for one in self.chosen]
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


_EDGE = 0.02
"""Longest piece in degrees that an edge is cut into, because an edge that is straight in degrees is curved here; the
chord of such a piece is within 5 cm of it at 60 degrees."""
_PIECES = 4000
"""Pieces at most along the longest side of a ring, so that an outline of the whole Arctic stays small."""
_PRECISION_M = 0.01
"""Pixel grid that vertices are snapped to, so that two scenes that share an edge leave no sliver of rounding between them."""


@dataclass(frozen=True)
class EqualAreaProjection:
    """A Lambert azimuthal equal-area projection (WGS 84) whose centre is the middle of a region.

    Areas on it are true at any distance from the centre, and neither the antimeridian nor a pole is an edge of it.

    Examples
    --------
    >>> from shapely import box
    >>> plane = EqualAreaProjection.around(box(-180, 80, 180, 90))
    >>> plane.lat
    90.0
    >>> round(plane.place(box(-180, 80, 180, 90)).area / 1e12, 2)
    3.91
    """

    lon: float
    """Longitude of the centre in degrees."""
    lat: float
    """Latitude of the centre in degrees."""

    @classmethod
    def around(cls, region: BaseGeometry) -> "EqualAreaProjection":
        """Return the plane around a region given in longitude and latitude.

        Raises
        ------
        OrderError
            The region holds no ground.
        """
        lon, lat = np.radians(get_coordinates(segmentize(_polygons(region), 5.0))).T
        if not len(lon):
            raise OrderError("A region has to be a polygon with an area; got an empty geometry. Check the file.")
        x, y, z = (np.cos(lat) * np.cos(lon)).mean(), (np.cos(lat) * np.sin(lon)).mean(), np.sin(lat).mean()
        level = float(np.hypot(x, y))
        if level < 0.1 * abs(z) or level < 1e-3:  # around a pole, or around the globe: there is no middle longitude
            return cls(0.0, 90.0 if z >= 0 else -90.0)
        # Rounded, because only the place matters and not the digits, which differ between machines.
        return cls(round(float(np.degrees(np.arctan2(y, x))), 2), round(float(np.degrees(np.arctan2(z, level))), 2))

    @property
    def crs(self) -> str:
        """The projection as pyproj reads it."""
        return f"+proj=laea +lat_0={self.lat} +lon_0={self.lon} +datum=WGS84 +units=m +no_defs"

    def place(self, region: BaseGeometry) -> BaseGeometry:
        """Return a region on the plane, in metres.

        Longitudes are taken as they stand (RFC 7946): what crosses the antimeridian is split there, or runs on beyond 180.
        """
        return self._placed(region, unwrap=False)

    def place_footprint(self, footprint: BaseGeometry) -> BaseGeometry:
        """Return the outline of an image on the plane, in metres; also one that catalogs forgot to split at the antimeridian.

        A ring takes the short way from vertex to vertex, because no image is wider than half the globe.

        Examples
        --------
        >>> unsplit = Polygon([(179, 70), (-179, 70), (-179, 71), (179, 71)])
        >>> plane = EqualAreaProjection.around(unsplit)
        >>> 8e9 < plane.place_footprint(unsplit).area < 9e9
        True
        """
        return self._placed(footprint, unwrap=True)

    def lonlat(self, ground: BaseGeometry) -> MultiPolygon:
        """Return ground on the plane in longitude and latitude, split at the antimeridian."""
        whole = _polygons(set_precision(ground, _PRECISION_M))  # which drops slivers of rounding
        return _polygons(lonlat_region(whole, self.crs, longest=np.inf))

    def _placed(self, geometry: BaseGeometry, *, unwrap: bool) -> BaseGeometry:
        parts = [
            make_valid(
                Polygon(
                    self._ring(get_coordinates(part.exterior), unwrap=unwrap),
                    [self._ring(get_coordinates(ring), unwrap=unwrap) for ring in part.interiors],
                )
            )
            for part in get_parts(_polygons(geometry))
        ]
        return _polygons(set_precision(union_all([part for part in parts if np.isfinite(part.area)]), _PRECISION_M))

    def _ring(self, ring: NDArray[np.float64], *, unwrap: bool) -> NDArray[np.float64]:
        lon = np.unwrap(ring[:, 0], period=360) if unwrap else ring[:, 0]
        path = LineString(np.column_stack([lon, ring[:, 1]]))
        west, south, east, north = path.bounds
        fine = get_coordinates(segmentize(path, max(_EDGE, (east - west) / _PIECES, (north - south) / _PIECES)))
        return np.column_stack(self._transformer.transform(fine[:, 0], fine[:, 1]))

    @cached_property
    def _transformer(self) -> Transformer:
        return Transformer.from_crs("EPSG:4326", self.crs, always_xy=True)


def _polygons(geometry: BaseGeometry) -> MultiPolygon:
    """Return the parts of a geometry that have an area."""
    parts = [
        part
        for whole in get_parts(geometry)
        for part in get_parts(whole)  # a collection may hold multi-polygons
        if isinstance(part, Polygon) and not part.is_empty
    ]
    return MultiPolygon(parts)


_ROUNDS = 10
"""Times at most that room which thinning has made is filled again."""
_KM2 = 1e-6
"""km² of a square metre."""
_LATTICE_M = 1e-4
"""Distance between two places that a corner of ground may have, m."""


def select_scenes(
    candidates: Iterable[Scene],
    region: BaseGeometry,
    *,
    wishes: OrderCriteria | None = None,
    limits: OrderLimits | None = None,
    clip: bool = False,
) -> OrderPlan:
    """Choose a small set of scenes that covers a region.

    Weighted greedy set cover, then a pass that drops every scene the others have made redundant. The answer does not
    depend on the order of the candidates; ties go to the smaller id.

    With T the price of the plan, P the price of the cheapest plan of equal coverage, W the ground wanted and R what of it
    was still missing before the last step: T <= (1 + same_day) * (1 + overlap) * (1 + ln(W / R)) * P (Wolsey 1982, for a
    greedy that is misled by at most these factors), as long as no budget or number of scenes cuts it short.

    Parameters
    ----------
    candidates
        Scenes to choose from, each id once.
    region
        Ground to cover, polygons in longitude and latitude, split at the antimeridian or running on beyond 180.
    wishes
        Weights of the objective; None for the defaults.
    limits
        Where to stop; None for none but slivers.
    clip
        Whether the provider clips to the region, so that only the ground inside is paid for.

    Raises
    ------
    OrderError
        The region has no area, or two candidates share an id.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> from shapely import box
    >>> day = datetime(2024, 7, 1, tzinfo=UTC)
    >>> west = Scene(id="west", footprint=box(0, 60, 1.2, 61), time=day, cloud_cover=0)
    >>> east = Scene(id="east", footprint=box(1, 60, 2, 61), time=day, cloud_cover=0)
    >>> middle = Scene(id="middle", footprint=box(0.5, 60, 1.5, 61), time=day, cloud_cover=0)
    >>> plan = select_scenes([west, east, middle], box(0, 60, 2, 61))
    >>> [one.scene.id for one in plan.chosen], round(plan.coverage, 6)
    (['east', 'west'], 1.0)
    """
    wishes, limits = wishes or OrderCriteria(), limits or OrderLimits()
    given = sorted(candidates, key=lambda scene: scene.id)
    twice = [name for name, count in Counter(scene.id for scene in given).items() if count > 1]
    if twice:
        raise OrderError(f"Every candidate has an id of its own; {twice[:5]} came more than once. Drop the repeats.")
    plane = EqualAreaProjection.around(region)
    ground = plane.place(region)
    if not ground.area:
        raise OrderError("A region has to be a polygon with an area; got one without. Check the file.")
    field = _Field.of(
        [scene for scene in given if limits.accepts(scene)], ground, plane=plane, wishes=wishes, clip=clip
    )
    picks: list[int] = []
    for _ in range(_ROUNDS):
        grown, stop = _greedy(field, picks, wishes=wishes, limits=limits)
        thinned = _thinned(field, grown, limits=limits)
        # Again only where a limit cut it short, because then what was thinned out has made room.
        if set(thinned) in (set(picks), set(grown)) or stop in ("complete", "coverage"):
            picks = thinned
            break
        picks = thinned
    missing = difference(ground, union_all([field.parts[index] for index in picks]), grid_size=_LATTICE_M)
    parts = [part for part in get_parts(missing) if isinstance(part, Polygon)]
    return OrderPlan(
        chosen=tuple(
            sorted((field.chosen(index, picks) for index in picks), key=lambda one: (one.scene.time, one.scene.id))
        ),
        region=region,
        missing=plane.lonlat(MultiPolygon([part for part in parts if part.area * _KM2 >= limits.min_new_km2])),
        region_km2=_km2(ground.area),
        covered_km2=_km2(ground.area - missing.area),
        coverable_km2=_km2(union_all(field.parts).area),
        clip=clip,
        stop=stop,
        candidates=len(given),
        refused=sum(not limits.accepts(scene) for scene in given),
    )


@dataclass(frozen=True)
class _Field:
    """The candidates that meet the region, on its plane."""

    scenes: tuple[Scene, ...]
    """By id."""
    parts: NDArray[np.object_]
    """Ground of the region that each shows."""
    costs: NDArray[np.float64]
    """km² that each costs."""
    prices: NDArray[np.float64]
    """See `OrderCriteria`."""
    neighbours: tuple[NDArray[np.intp], ...]
    """Others whose ground meets each one's."""
    region_m2: float
    """Area of the region."""

    @classmethod
    def of(
        cls, scenes: list[Scene], ground: BaseGeometry, *, plane: EqualAreaProjection, wishes: OrderCriteria, clip: bool
    ) -> "_Field":
        prepare(ground)
        whole = [plane.place_footprint(scene.footprint) for scene in scenes]
        parts = [intersection(one, ground) if ground.intersects(one) else one.difference(one) for one in whole]
        # On a pixel grid, which what is cut out of them inherits, because slivers of edges that nearly meet cannot be cut otherwise.
        parts = [set_precision(part, _LATTICE_M) for part in parts]
        meets = [index for index, part in enumerate(parts) if part.area > 0]
        kept = np.array([parts[index] for index in meets], dtype=object)
        areas = np.array([(parts[index] if clip else whole[index]).area * _KM2 for index in meets], float)
        pairs = STRtree(kept).query(kept, predicate="intersects") if meets else np.empty((2, 0), np.intp)
        return cls(
            scenes=tuple(scenes[index] for index in meets),
            parts=kept,
            costs=areas,
            prices=np.array(
                [wishes.price(scenes[index], area) for index, area in zip(meets, areas, strict=True)], float
            ),
            neighbours=tuple(
                np.sort(pairs[1][(pairs[0] == index) & (pairs[1] != index)]) for index in range(len(meets))
            ),
            region_m2=ground.area,
        )

    def alone(self, index: int, picks: list[int]) -> BaseGeometry:
        """Return ground of one pick that no other pick shows."""
        others = [self.parts[other] for other in self.neighbours[index] if other in picks]
        return difference(self.parts[index], union_all(others)) if others else self.parts[index]

    def chosen(self, index: int, picks: list[int]) -> ChosenScene:
        return ChosenScene(
            scene=self.scenes[index],
            cost_km2=_km2(self.costs[index] / _KM2),
            covers_km2=_km2(self.parts[index].area),
            alone_km2=_km2(self.alone(index, picks).area),
        )

    def joins(self, index: int, other: int) -> bool:
        """Test whether two neighbours are of one strip or day."""
        one, two = self.scenes[index], self.scenes[other]
        return (one.strip != "" and one.strip == two.strip) or one.day == two.day


def _greedy(field: _Field, start: list[int], *, wishes: OrderCriteria, limits: OrderLimits) -> tuple[list[int], Stop]:
    """Return the picks of a start and further ones, in the order of their worth, and why they end."""
    left = field.parts.copy()  # what of each candidate is not covered yet
    new = np.array([part.area for part in left], float)
    full = new.copy()
    bonus = np.zeros(len(new), bool)
    open_ = np.ones(len(new), bool)
    picks: list[int] = []
    covered, spent, least = 0.0, 0.0, limits.min_new_km2 / _KM2
    wanted = limits.coverage * field.region_m2

    def pick(index: int) -> None:
        nonlocal covered, spent
        picks.append(index)
        open_[index] = False
        covered += new[index]
        spent += field.costs[index]
        for other in field.neighbours[index]:
            if open_[other]:
                left[other] = difference(left[other], field.parts[index])
                new[other] = left[other].area
                bonus[other] = bonus[other] or field.joins(other, index)

    for index in start:
        pick(index)
    while True:
        if covered >= wanted:
            return picks, "coverage" if limits.coverage < 1 else "complete"
        useful = open_ & (new >= least)
        fits = useful
        if limits.budget_km2 is not None:
            fits = useful & (field.costs <= limits.budget_km2 - spent)
        if not useful.any():
            return picks, "complete"
        if not fits.any():
            return picks, "budget"
        if len(picks) == limits.max_scenes:
            return picks, "scenes"
        gain = np.minimum(new, wanted - covered)
        worth = gain / field.prices * (1 + wishes.same_day * bonus) / (1 + wishes.overlap * (1 - new / full))
        pick(int(np.argmax(np.where(fits, worth, -1.0))))  # the first of equals, hence the smallest id


def _thinned(field: _Field, picks: list[int], *, limits: OrderLimits) -> list[int]:
    """Return the picks without those that the others make redundant, the dearest looked at first."""
    kept = list(picks)
    covered = union_all([field.parts[index] for index in kept]).area if kept else 0.0
    wanted = limits.coverage * field.region_m2
    for index in sorted(picks, key=lambda index: (-field.prices[index], index)):
        alone = field.alone(index, kept).area
        if alone * _KM2 < limits.min_new_km2 or covered - alone >= wanted:
            kept.remove(index)
            covered -= alone
    return kept


def _km2(area_m2: float) -> float:
    """Square metres in km², to the square metre, so that a plan prints and compares alike."""
    return round(float(area_m2) * _KM2, 6)
