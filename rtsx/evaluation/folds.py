"""The plan of a cross-validation: which scenes train, validate and test, fold by fold; scenes that share an area stay together."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Self

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.cube import geobox_of
from rtsx.errors import EvaluationError
from rtsx.evaluation.counts import equal_area, lonlat_of, to_plane
from rtsx.footprints.geometry import components
from rtsx.labels import IGNORED
from rtsx.parsing import parsed_json

if TYPE_CHECKING:
    from rtsx.training import TrainingScene

ALL_OTHERS = "all others"
"""What a fold has learnt from that was given everything but the groups it is tested on."""
POOLED = "pooled"
"""What a fold has learnt from that was given a part of every group."""
ALL_REGIONS = "all"
"""What tables call all regions together."""
RESERVED = (ALL_OTHERS, POOLED, ALL_REGIONS)
"""Names that no group may have, because tables could not tell it from them."""


@dataclass(frozen=True, kw_only=True)
class FoldUnit:
    """Scenes that are never divided between learning and testing, because they show the same ground or the same labels."""

    group: str
    """Region, or whatever else stays on one side."""
    scenes: tuple[str, ...]
    positives: int
    """Labelled pixels in all of them."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One training and what it is tested on."""

    name: str
    """Tells the fold from the others."""
    trained_on: str
    """Row of the transfer matrix: a group, `ALL_OTHERS` or `POOLED`."""
    training: tuple[str, ...]
    """Scenes that are learnt from."""
    validation: tuple[str, ...]
    """Scenes that choose epoch and threshold, of the same groups as those of the training."""
    test: tuple[str, ...]
    """Scenes that are evaluated; nothing is learnt or chosen from them."""


@dataclass(frozen=True, kw_only=True)
class FoldPlan:
    """All folds; a pure function of scenes, groups and seed.

    Examples
    --------
    >>> units = [FoldUnit(group=g, scenes=(f"{g}1",), positives=9) for g in ("lena", "yukon", "banks")]
    >>> plan = FoldPlan.leave_one_out(units, validation=0.0, seed=0)
    >>> [(fold.name, fold.training, fold.test) for fold in plan.folds][:2]
    [('lena', ('yukon1', 'banks1'), ('lena1',)), ('yukon', ('lena1', 'banks1'), ('yukon1',))]
    """

    folds: tuple[Fold, ...]
    """At least one."""

    @classmethod
    def leave_one_out(cls, units: Sequence[FoldUnit], *, validation: float, seed: int) -> Self:
        """Each group is tested by what was learnt from all others.

        Raises
        ------
        EvaluationError
            There is one group only, or one has no labelled pixel.
        """
        groups = _checked_groups(units, validation)
        return cls(folds=_folds(units, {group: (group,) for group in groups}, validation=validation, seed=seed))

    @classmethod
    def k_fold(cls, units: Sequence[FoldUnit], *, folds: int, validation: float, seed: int) -> Self:
        """Groups are dealt to `folds` parts of about as many scenes, and each part is tested by what the others taught.

        Raises
        ------
        EvaluationError
            A fold would be empty, there is one group only, or one has no labelled pixel.
        """
        groups = _checked_groups(units, validation)
        if not 2 <= folds <= len(groups):
            raise EvaluationError(
                f"Groups are never divided, so {len(groups)} of them ({', '.join(groups)}) make 2 to {len(groups)} folds; "
                f"with folds={folds} {'one would be empty' if folds > len(groups) else 'nothing would be left to learn from'}."
            )
        sizes = {group: sum(len(unit.scenes) for unit in units if unit.group == group) for group in groups}
        order = [groups[number] for number in np.random.default_rng(seed).permutation(len(groups))]
        parts: list[list[str]] = [[] for _ in range(folds)]
        # The largest first, each to the part that has least; an empty part before all, so that none stays empty.
        for group in sorted(order, key=lambda name: -sizes[name]):
            min(parts, key=lambda part: (sum(sizes[name] for name in part), len(part))).append(group)
        dealt = {f"fold {number}": tuple(part) for number, part in enumerate(parts, 1)}
        return cls(folds=_folds(units, dealt, validation=validation, seed=seed))

    def to_json(self) -> str:
        """Return everything as JSON; `from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, document: str) -> Self:
        """Return a plan from its JSON.

        Raises
        ------
        EvaluationError
            It is none.
        """
        return parsed_json(document, cls, what="The plan of folds", error=EvaluationError)


def transfer_plan(units: Sequence[FoldUnit], *, held_out: float, validation: float, seed: int) -> FoldPlan:
    """Return the plan of a transfer matrix: learnt from each group alone, from all others, and from all together.

    Every row is tested on the same ground: of each group a part, about `held_out` of its scenes, that nothing is learnt
    from. A group that cannot be divided is tested whole by what the others taught, and never by itself.

    Raises
    ------
    EvaluationError
        There is one group only, or one has no labelled pixel.
    """
    groups = _checked_groups(units, validation)
    if not 0 < held_out < 1:
        raise EvaluationError(
            f"held_out is the part of a group's scenes that is tested, between 0 and 1; got {held_out}."
        )
    own = {group: [unit for unit in units if unit.group == group] for group in groups}
    tested = {group: _drawn(own[group], share=held_out, key=(seed, number)) for number, group in enumerate(groups)}
    kept = {group: [unit for unit in own[group] if unit not in tested[group]] for group in groups}
    tests = {group: tested[group] or own[group] for group in groups}

    def fold(name: str, *, trained_on: str, sources: Sequence[str], targets: Sequence[str]) -> Fold:
        learnt = [unit for group in sources for unit in kept[group]]
        key = (seed, len(groups) + groups.index(sources[0]), len(sources))
        test = [unit for group in targets for unit in tests[group]]
        return _fold(name, trained_on=trained_on, learnt=learnt, validation=validation, key=key, test=test)

    divided = [group for group in groups if tested[group]]
    folds = []
    for group in groups:
        targets = [each for each in groups if each != group or each in divided]
        folds.append(fold(group, trained_on=group, sources=[group], targets=targets))
    for group in groups:
        others = [each for each in groups if each != group]
        folds.append(fold(f"all but {group}", trained_on=ALL_OTHERS, sources=others, targets=[group]))
    if divided:
        folds.append(fold(POOLED, trained_on=POOLED, sources=groups, targets=divided))
    return FoldPlan(folds=tuple(folds))


def _checked_groups(units: Sequence[FoldUnit], validation: float) -> list[str]:
    """Return the groups, in the order in which they first occur."""
    if not 0 <= validation < 1:
        raise EvaluationError(f"validation is a part of the training scenes, from 0 to below 1; got {validation}.")
    groups = list(dict.fromkeys(unit.group for unit in units))
    if len(groups) < 2:
        only = f"all scenes are of group {groups[0]!r}" if groups else "there is no scene"
        raise EvaluationError(
            f"What is learnt in one group is tested in another, so there have to be two at least, but {only}: say which "
            "region each scene lies in, with group=..."
        )
    taken = [group for group in groups if group in RESERVED]
    if taken:
        raise EvaluationError(
            f"{taken[0]!r} is a row or column of the results and no name of a group: call the group something else."
        )
    bare = [group for group in groups if not any(unit.positives for unit in units if unit.group == group)]
    if bare:
        raise EvaluationError(
            f"Every group needs a labelled pixel to be tested by, and there is none in {', '.join(map(repr, bare))}: leave their scenes "
            "out, put them into another group, or check that the labels lie on them."
        )
    return groups


def _folds(
    units: Sequence[FoldUnit], parts: Mapping[str, tuple[str, ...]], *, validation: float, seed: int
) -> tuple[Fold, ...]:
    folds = []
    for number, (name, groups) in enumerate(parts.items()):
        learnt = [unit for unit in units if unit.group not in groups]
        test = [unit for unit in units if unit.group in groups]
        key = (seed, number)
        folds.append(_fold(name, trained_on=ALL_OTHERS, learnt=learnt, validation=validation, key=key, test=test))
    return tuple(folds)


def _fold(
    name: str,
    *,
    trained_on: str,
    learnt: Sequence[FoldUnit],
    validation: float,
    key: Sequence[int],
    test: Sequence[FoldUnit],
) -> Fold:
    """Return a fold of these units, of which a part is drawn for validation."""
    chosen = _drawn(learnt, share=validation, key=key)
    training = _names([unit for unit in learnt if unit not in chosen])
    return Fold(name=name, trained_on=trained_on, training=training, validation=_names(chosen), test=_names(test))


def _drawn(units: Sequence[FoldUnit], *, share: float, key: Sequence[int]) -> list[FoldUnit]:
    """Return units with about a share of all scenes, one with labels among them; none where the rest would have no label."""
    order = [units[number] for number in np.random.default_rng(list(key)).permutation(len(units))]
    labelled = [unit for unit in order if unit.positives]
    if share == 0 or len(labelled) < 2:
        return []
    wanted = share * sum(len(unit.scenes) for unit in units)
    drawn, scenes = [labelled[0]], len(labelled[0].scenes)
    for unit in order:
        if unit not in (labelled[0], labelled[-1]) and scenes + len(unit.scenes) <= wanted:
            drawn.append(unit)
            scenes += len(unit.scenes)
    return drawn


def _names(units: Sequence[FoldUnit]) -> tuple[str, ...]:
    return tuple(scene for unit in units for scene in unit.scenes)


_ROWS_AT_ONCE = 1024
_EARTH_M = 6_371_000.0
_LONGEST_LABEL_M = 100_000.0
"""Scenes this far apart share no label: ids are those of files and rows, which may be called alike in two regions."""


@dataclass(frozen=True, kw_only=True)
class SceneExtent:
    """What a scene shows, as far as the division into folds goes by it."""

    name: str
    group: str
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


def overlap_of(scene: "TrainingScene") -> SceneExtent:
    """Return what a scene shows; reads its truth once, rows at a time, and nothing of its cube."""
    height, width = scene.truth.shape
    positives = 0
    for start in range(0, height, _ROWS_AT_ONCE):
        values = scene.truth.read((slice(start, min(start + _ROWS_AT_ONCE, height)), slice(0, width)))
        positives += int(np.count_nonzero((values != 0) & (values != IGNORED)))
    return replace(_extent_of(scene), positives=positives, labels=frozenset(getattr(scene.truth, "label_ids", ())))


def _extent_of(scene: "TrainingScene") -> SceneExtent:
    geobox = geobox_of(scene.cube)
    return SceneExtent(
        name=scene.name,
        group=scene.group,
        outline=geobox.extent.geom,
        crs=CRS.from_user_input(geobox.crs),
        pixel_m2=abs(geobox.affine.determinant),
        positives=0,
        labels=frozenset(),
    )


def divided_ground(sets: Mapping[str, Sequence["TrainingScene"]]) -> tuple[tuple[str, str], ...]:
    """Return pairs of scenes of different sets that share more ground than a pixel, as ``training/a``; reads no pixel."""
    extents = [(name, _extent_of(scene)) for name, scenes in sets.items() for scene in scenes]
    grounds = [extent for _, extent in extents]
    titles = [f"{name}/{extent.name}" for name, extent in extents]
    pairs = _overlapping(grounds, _apart_m(grounds))
    return tuple((titles[i], titles[j]) for i, j in pairs if extents[i][0] != extents[j][0])


def planned_units(grounds: Sequence[SceneExtent], *, merge: bool) -> tuple[FoldUnit, ...]:
    """Return units that may be divided: scenes that overlap on the ground by more than a pixel, or share a label, are one.

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
    together = ([groups[number] for number in some] for some in _components(len(groups), same))
    merged = {group: "+".join(map(str, some)) for some in together for group in some}
    return tuple(
        FoldUnit(
            group=merged[grounds[members[0]].group],
            scenes=tuple(grounds[member].name for member in members),
            positives=sum(grounds[member].positives for member in members),
        )
        for members in units
    )


def _check_one_group(one: SceneExtent, other: SceneExtent) -> None:
    if one.group != other.group:
        shared = sorted(one.labels & other.labels)
        why = f"share the label {shared[0]!r}" if shared else "show the same ground"
        raise EvaluationError(
            f"Scenes {one.name!r} of group {one.group!r} and {other.name!r} of group {other.group!r} {why}: what is learnt "
            "from one would be tested on the other. Put them into one group, or let groups grow together with "
            "overlapping='merge'."
        )


def _apart_m(grounds: Sequence[SceneExtent]) -> NDArray[np.float64]:
    """Return how far scenes are apart at least, (scene, scene) m; 0 or less where they may meet."""
    if not grounds:
        return np.empty((0, 0))
    outlines = [lonlat_of(np.array([ground.outline], np.object_), ground.crs) for ground in grounds]
    centres, radii = zip(*(_circle(shapely.get_coordinates(each)) for each in outlines), strict=True)
    angles = np.arccos(np.clip(np.array(centres) @ np.array(centres).T, -1, 1))
    return np.asarray(_EARTH_M * (angles - np.add.outer(radii, radii)))


def _overlapping(grounds: Sequence[SceneExtent], apart: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return pairs of scenes that share more ground than a pixel of either."""
    near = np.argwhere(np.triu(apart <= 0, 1)).tolist()
    return [(i, j) for i, j in near if _shared(grounds[i], grounds[j]) > 1.0]


def _shared(one: SceneExtent, other: SceneExtent) -> float:
    """Return ground that two scenes share, in pixels of the coarser one."""
    first, second = (np.array([ground.outline], np.object_) for ground in (one, other))
    plane = equal_area(first, one.crs)
    a, b = to_plane(first, one.crs, plane), to_plane(second, other.crs, plane)
    pixels = [each.pixel_m2 * shapely.area(moved)[0] / each.outline.area for each, moved in ((one, a), (other, b))]
    return float(shapely.area(shapely.intersection(a, b))[0] / max(pixels))


def _circle(lonlat: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return a direction and the angle around it, radians, that hold all points."""
    lon, lat = np.radians(lonlat).T
    points = np.column_stack((np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)))
    middle = points.mean(axis=0) / max(float(np.linalg.norm(points.mean(axis=0))), 1e-12)
    # A little more, because edges bend outwards between their densified vertices.
    return middle, float(np.arccos(np.clip(points @ middle, -1, 1)).max()) + 1000.0 / _EARTH_M


def _components(count: int, links: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return numbers 0 to count - 1 in groups that links hold together, each and all in ascending order."""
    found: dict[int, list[int]] = {}
    for number, each in enumerate(components(*np.array(links, np.int64).reshape(-1, 2).T, count=count).tolist()):
        found.setdefault(each, []).append(number)
    return list(found.values())
