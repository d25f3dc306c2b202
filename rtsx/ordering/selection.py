"""Which scenes to order: a small set that covers a region, chosen greedily and then thinned."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from shapely import (
    MultiPolygon,
    Polygon,
    STRtree,
    difference,
    get_parts,
    intersection,
    prepare,
    set_precision,
    union_all,
)
from shapely.geometry.base import BaseGeometry

from rtsx.errors import OrderError
from rtsx.ordering.plan import ChosenScene, OrderPlan, Stop
from rtsx.ordering.plane import EqualAreaPlane
from rtsx.ordering.scene import Scene
from rtsx.ordering.wishes import Limits, Wishes

__all__ = ["select_scenes"]

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
    wishes: Wishes | None = None,
    limits: Limits | None = None,
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
    wishes, limits = wishes or Wishes(), limits or Limits()
    given = sorted(candidates, key=lambda scene: scene.id)
    twice = [name for name, count in Counter(scene.id for scene in given).items() if count > 1]
    if twice:
        raise OrderError(f"Every candidate has an id of its own; {twice[:5]} came more than once. Drop the repeats.")
    plane = EqualAreaPlane.around(region)
    ground = plane.place(region)
    if not ground.area:
        raise OrderError("A region has to be a polygon with an area; got one without. Check the file.")
    field = _Field.of([scene for scene in given if limits.admits(scene)], ground, plane=plane, wishes=wishes, clip=clip)
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
        refused=sum(not limits.admits(scene) for scene in given),
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
    """See `Wishes`."""
    neighbours: tuple[NDArray[np.intp], ...]
    """Others whose ground meets each one's."""
    region_m2: float
    """Area of the region."""

    @classmethod
    def of(
        cls, scenes: list[Scene], ground: BaseGeometry, *, plane: EqualAreaPlane, wishes: Wishes, clip: bool
    ) -> "_Field":
        prepare(ground)
        whole = [plane.place_footprint(scene.footprint) for scene in scenes]
        parts = [intersection(one, ground) if ground.intersects(one) else one.difference(one) for one in whole]
        # On a lattice, which what is cut out of them inherits, because slivers of edges that nearly meet cannot be cut otherwise.
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
        """Ground of one pick that no other pick shows."""
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
        """Whether two neighbours are of one strip or day."""
        one, two = self.scenes[index], self.scenes[other]
        return (one.strip != "" and one.strip == two.strip) or one.day == two.day

    def wanted_m2(self, limits: Limits) -> float:
        """Ground after which no more is ordered."""
        # All that there is for a coverage of 1, because rounding must not make it one scene less.
        return self.region_m2 if limits.coverage == 1 else limits.coverage * self.region_m2


def _greedy(field: _Field, start: list[int], *, wishes: Wishes, limits: Limits) -> tuple[list[int], Stop]:
    """The picks of a start and further ones, in the order of their worth, and why they end."""
    left = field.parts.copy()  # what of each candidate is not covered yet
    new = np.array([part.area for part in left], float)
    full = new.copy()
    bonus = np.zeros(len(new), bool)
    open_ = np.ones(len(new), bool)
    picks: list[int] = []
    covered, spent, least = 0.0, 0.0, limits.min_new_km2 / _KM2
    wanted = field.wanted_m2(limits)

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


def _thinned(field: _Field, picks: list[int], *, limits: Limits) -> list[int]:
    """The picks without those that the others make redundant, the dearest looked at first."""
    kept = list(picks)
    covered = union_all([field.parts[index] for index in kept]).area if kept else 0.0
    wanted = field.wanted_m2(limits)
    for index in sorted(picks, key=lambda index: (-field.prices[index], index)):
        alone = field.alone(index, kept).area
        if alone * _KM2 < limits.min_new_km2 or covered - alone >= wanted:
            kept.remove(index)
            covered -= alone
    return kept


def _km2(area_m2: float) -> float:
    """Square metres in km², to the square metre, so that a plan prints and compares alike."""
    return round(float(area_m2) * _KM2, 6)
