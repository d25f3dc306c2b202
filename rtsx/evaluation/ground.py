"""Which scenes show the same ground or the same labels, and so must never be divided."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.cube import geobox_of
from rtsx.errors import EvaluationError
from rtsx.evaluation.folds import PlannedUnit
from rtsx.evaluation.pyproj import equal_area, lonlat_of, to_plane
from rtsx.labels import IGNORED
from rtsx.training import TrainingScene

__all__ = ["SceneGround", "ground_of", "planned_units"]

_ROWS_AT_ONCE = 1024
_EARTH_M = 6_371_000.0
_LONGEST_LABEL_M = 100_000.0
"""Scenes this far apart share no label: ids are those of files and rows, which may be called alike in two regions."""


@dataclass(frozen=True, kw_only=True)
class SceneGround:
    """What a scene shows, as far as the division into folds goes by it."""

    name: str
    """Of the scene."""
    group: str
    """Of the scene."""
    outline: shapely.Polygon = field(repr=False)
    """Border of its raster in `crs`."""
    crs: CRS
    """Where the outline lies."""
    pixel_m2: float
    """Area of a pixel in the unit of the CRS, squared; less than this is no overlap."""
    positives: int
    """Pixels that a label lies on."""
    labels: frozenset[str]
    """Ids of its labels, where the truth tells them."""


def ground_of(scene: TrainingScene) -> SceneGround:
    """What a scene shows; reads its truth once, rows at a time, and nothing of its cube."""
    geobox = geobox_of(scene.cube)
    height, width = scene.truth.shape
    positives = 0
    for start in range(0, height, _ROWS_AT_ONCE):
        values = scene.truth.read((slice(start, min(start + _ROWS_AT_ONCE, height)), slice(0, width)))
        positives += int(np.count_nonzero((values != 0) & (values != IGNORED)))
    return SceneGround(
        name=scene.name,
        group=scene.group,
        outline=geobox.extent.geom,
        crs=CRS.from_user_input(geobox.crs),
        pixel_m2=abs(geobox.affine.determinant),
        positives=positives,
        labels=frozenset(getattr(scene.truth, "label_ids", ())),
    )


def planned_units(grounds: Sequence[SceneGround], *, merge: bool) -> tuple[PlannedUnit, ...]:
    """Units that may be divided: scenes that overlap on the ground by more than a pixel, or share a label, are one.

    Scenes that only touch are not, nor are those over 100 km apart whose labels are called alike. Where a unit belongs to several groups, these become one if `merge`.

    Raises
    ------
    EvaluationError
        Two scenes share a name, or a unit belongs to several groups and they are not to be merged.
    """
    names = [ground.name for ground in grounds]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise EvaluationError(f"Scenes have names of their own, but {', '.join(repeated)} occurs more than once.")
    apart = _apart_m(grounds)
    alike = [(i, j) for i, j in combinations(range(len(grounds)), 2) if grounds[i].labels & grounds[j].labels]
    links = [(i, j) for i, j in alike if apart[i, j] <= _LONGEST_LABEL_M]
    links += _overlapping(grounds, apart)
    if not merge:
        for i, j in links:
            _check_one_group(grounds[i], grounds[j])
    units = _components(len(grounds), links)
    groups = list(dict.fromkeys(ground.group for ground in grounds))
    same = [(groups.index(grounds[i].group), groups.index(grounds[j].group)) for i, j in links]
    merged = {
        group: "+".join(map(str, some)) for some in _named(groups, _components(len(groups), same)) for group in some
    }
    return tuple(
        PlannedUnit(
            group=merged[grounds[members[0]].group],
            scenes=tuple(grounds[member].name for member in members),
            positives=sum(grounds[member].positives for member in members),
        )
        for members in units
    )


def _named(groups: Sequence[str], members: Sequence[Sequence[int]]) -> list[list[str]]:
    return [[groups[number] for number in some] for some in members]


def _check_one_group(one: SceneGround, other: SceneGround) -> None:
    if one.group != other.group:
        shared = sorted(one.labels & other.labels)
        why = f"share the label {shared[0]!r}" if shared else "show the same ground"
        raise EvaluationError(
            f"Scenes {one.name!r} of group {one.group!r} and {other.name!r} of group {other.group!r} {why}: what is learnt "
            "from one would be tested on the other. Put them into one group, or let groups grow together with "
            "overlapping='merge'."
        )


def _apart_m(grounds: Sequence[SceneGround]) -> NDArray[np.float64]:
    """How far scenes are apart at least, (scene, scene) m; 0 or less where they may meet."""
    if not grounds:
        return np.empty((0, 0))
    outlines = [lonlat_of(np.array([ground.outline], np.object_), ground.crs) for ground in grounds]
    centres, radii = zip(*(_circle(shapely.get_coordinates(each)) for each in outlines), strict=True)
    angles = np.arccos(np.clip(np.array(centres) @ np.array(centres).T, -1, 1))
    return np.asarray(_EARTH_M * (angles - np.add.outer(radii, radii)))


def _overlapping(grounds: Sequence[SceneGround], apart: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs of scenes that share more ground than a pixel of either."""
    pairs = []
    for i, j in zip(*np.nonzero(np.triu(apart <= 0, 1)), strict=True):
        one, other = grounds[int(i)], grounds[int(j)]
        if _shared(one, other) > 1.0:
            pairs.append((int(i), int(j)))
    return pairs


def _shared(one: SceneGround, other: SceneGround) -> float:
    """Ground that two scenes share, in pixels of the coarser one."""
    first, second = (np.array([ground.outline], np.object_) for ground in (one, other))
    plane = equal_area(first, one.crs)
    a, b = to_plane(first, one.crs, plane), to_plane(second, other.crs, plane)
    pixels = [each.pixel_m2 * shapely.area(moved)[0] / each.outline.area for each, moved in ((one, a), (other, b))]
    return float(shapely.area(shapely.intersection(a, b))[0] / max(pixels))


def _circle(lonlat: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """A direction and the angle around it, radians, that hold all points."""
    lon, lat = np.radians(lonlat).T
    points = np.column_stack((np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)))
    middle = points.mean(axis=0) / max(float(np.linalg.norm(points.mean(axis=0))), 1e-12)
    # A little more, because edges bend outwards between their densified vertices.
    return middle, float(np.arccos(np.clip(points @ middle, -1, 1)).max()) + 1000.0 / _EARTH_M


def _components(count: int, links: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Numbers 0 to count - 1 in groups that links hold together, each and all in ascending order."""
    one, other = np.array(links, np.int64).reshape(-1, 2).T
    graph = scipy.sparse.coo_array((np.ones(len(one), bool), (one, other)), shape=(count, count))
    _, label = scipy.sparse.csgraph.connected_components(graph, directed=False)
    found: dict[int, list[int]] = {}
    for number, each in enumerate(label.tolist()):
        found.setdefault(each, []).append(number)
    return list(found.values())
