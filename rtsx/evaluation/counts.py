"""Counts of a scene that all its scores need and that add up over scenes; objects joined across block borders."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
import scipy.ndimage
import shapely
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.cube import geobox_of
from rtsx.errors import CubeError, EvaluationError
from rtsx.footprints.blocks import ExtractionBlock
from rtsx.footprints.geometry import components
from rtsx.geometry.crs import LONLAT, apply_affine, densified, geodesic_measures, transformed
from rtsx.parsing import AfterValidator, Written
from rtsx.scores import (
    AreaScores,
    BoundaryScores,
    ObjectOverlaps,
    ObjectScores,
    PixelScores,
    PixelTally,
    average_precision,
    calibration_error,
)
from rtsx.scores.counts import Counts

Unit = Literal["px", "m2"]

SCORES = (
    "iou",
    "precision",
    "recall",
    "f1",
    "average_precision",
    "calibration_error",
    "boundary_iou",
    "object_precision",
    "object_recall",
    "object_f1",
)
"""Names of the scores, in the order of the tables."""

_SUMS_AT_ONCE = 64
"""Weighted sums that are in memory together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassCounts:
    """Counts of one class on some ground."""

    extent: Annotated[NDArray[np.float64], Written(list[float]), AfterValidator(np.array)]
    """Hits, false alarms, misses and rejections, (4,): pixels, or m² of outlines, whose rejections are 0."""
    boundary: Counts
    """Pixels in both bands and in at least one, (2,)."""
    objects: Counts
    """Matched, found and true objects, (3,)."""
    tally: PixelTally | None = None
    """Counts by probability; None where the prediction has none."""

    def __add__(self, other: Self) -> Self:
        return next(self.weighted([self, other], np.ones((1, 2), np.int64)))

    @classmethod
    def weighted(cls, counts: Sequence[Self], weights: NDArray[np.int64]) -> Iterator[Self]:
        """Yield sums of at least one, (sum, counts): each taken a number of times; no tally where one has none or levels differ."""
        tallies = [each.tally for each in counts if each.tally is not None]
        has_tally = len(tallies) == len(counts) and len({each.levels for each in tallies}) == 1
        pixels = (
            np.stack([[each.target, each.other] for each in tallies]) if has_tally else np.empty((len(counts), 2, 0))
        )
        small = np.stack([np.concatenate((each.extent, each.boundary, each.objects)) for each in counts])
        columns = np.concatenate((small, pixels.reshape(len(counts), -1)), axis=1, dtype=np.float64)
        for start in range(0, len(weights), _SUMS_AT_ONCE):
            # In floating point, because that is many times faster and as exact: no count comes near to 2 ** 53.
            for row in weights[start : start + _SUMS_AT_ONCE].astype(np.float64) @ columns:
                whole = row[4:].astype(np.int64)
                target, other = whole[5:].reshape(2, -1)
                yield cls(
                    extent=row[:4],
                    boundary=whole[:2],
                    objects=whole[2:5],
                    tally=PixelTally(target=target, other=other) if has_tally else None,
                )

    @property
    def occurs(self) -> bool:
        """Whether the class is anywhere, in the truth or in the prediction."""
        return bool(self.extent[:3].any())

    def scores(self, unit: Unit) -> dict[str, float]:
        """Return every score of `SCORES`; NaN where there is no such score."""
        extent: PixelScores | AreaScores
        if unit == "px":
            hits, false_alarms, misses, rejections = (int(count) for count in self.extent)
            extent = PixelScores(hits=hits, false_alarms=false_alarms, misses=misses, rejections=rejections)
        else:
            shared, false, missed, _ = (float(area) for area in self.extent)
            extent = AreaScores(shared_m2=shared, false_m2=false, missed_m2=missed)
        matched, found, true = (int(count) for count in self.objects)
        objects = ObjectScores(matched=matched, found=found, true=true)
        shared_band, either = (int(count) for count in self.boundary)
        return {
            "iou": extent.iou,
            "precision": extent.precision,
            "recall": extent.recall,
            "f1": extent.f1,
            "average_precision": float("nan") if self.tally is None else average_precision(self.tally),
            "calibration_error": float("nan") if self.tally is None else calibration_error(self.tally),
            "boundary_iou": BoundaryScores(shared=shared_band, either=either).iou,
            "object_precision": objects.precision,
            "object_recall": objects.recall,
            "object_f1": objects.f1,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneCounts:
    """Counts of all classes of one scene."""

    name: str
    region: str
    """What it is summed with."""
    unit: Unit
    """What its extent is counted in: pixels, or m² of outlines."""
    classes: tuple[str, ...]
    counts: tuple[ClassCounts, ...]
    """One for each class."""


Numbers = NDArray[np.int64]
_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskPieces:
    """Objects of one map, or the parts of them that lie in a block."""

    sizes: Numbers
    """(piece,) pixels of each."""
    places: Numbers
    """(pixel,) pixels at seams that belong to a piece: row * (columns + 1) + column on the raster."""
    owners: Numbers
    """(pixel,) the piece that each belongs to."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectPieces:
    """Pieces of found and of true objects, and how many pixels they share."""

    found: MaskPieces
    true: MaskPieces
    pairs: Numbers
    """(pair, 2) a found and a true piece that share pixels."""
    shared: Numbers
    """(pair,) pixels of each pair."""

    @classmethod
    def concatenate(cls, parts: Sequence["ObjectPieces"]) -> "ObjectPieces":
        """Return all pieces of at least one set, numbered anew."""
        (found, found_before), (true, true_before) = (
            _concatenated([getattr(part, side) for part in parts]) for side in ("found", "true")
        )
        before = np.column_stack([found_before, true_before])
        pairs = np.concatenate([part.pairs + offset for part, offset in zip(parts, before, strict=True)])
        return cls(found=found, true=true, pairs=pairs, shared=np.concatenate([part.shared for part in parts]))


def _concatenated(masks: Sequence[MaskPieces]) -> tuple[MaskPieces, Numbers]:
    """Return all pieces, numbered anew, and how many came before each set."""
    before = np.cumsum([0, *(len(mask.sizes) for mask in masks)])[:-1]
    owners = np.concatenate([mask.owners + start for mask, start in zip(masks, before, strict=True)])
    sizes, places = (np.concatenate([getattr(mask, name) for mask in masks]) for name in ("sizes", "places"))
    return MaskPieces(sizes=sizes, places=places, owners=owners), before


def pieces_of(found: NDArray[np.bool_], true: NDArray[np.bool_], *, block: ExtractionBlock) -> ObjectPieces:
    """Return pieces of one block; its pixels (y, x) that do not count are False in both masks."""
    labels, masks = [], []
    for mask in (found, true):
        numbered, count = scipy.ndimage.label(mask, _EIGHT)
        labels.append(numbered)
        masks.append(_mask_pieces(numbered, count, block=block))
    both = np.flatnonzero(found & true)
    keys = (labels[0].ravel()[both].astype(np.int64) - 1) * max(len(masks[1].sizes), 1) + labels[1].ravel()[both] - 1
    unique, shared = np.unique(keys, return_counts=True)
    pairs = np.column_stack(np.divmod(unique, max(len(masks[1].sizes), 1)))
    return ObjectPieces(found=masks[0], true=masks[1], pairs=pairs, shared=shared.astype(np.int64))


def join_pieces(pieces: ObjectPieces, *, columns: int) -> ObjectOverlaps:
    """Return whole objects from the pieces of all blocks of a raster with so many columns."""
    groups = [_objects(mask, columns=columns) for mask in (pieces.found, pieces.true)]
    sizes = [
        _sums(mask.sizes, group, count=int(group.max(initial=-1)) + 1)
        for group, mask in zip(groups, (pieces.found, pieces.true), strict=True)
    ]
    width = max(len(sizes[1]), 1)
    keys = groups[0][pieces.pairs[:, 0]] * width + groups[1][pieces.pairs[:, 1]]
    unique, inverse = np.unique(keys, return_inverse=True)
    shared = _sums(pieces.shared, inverse, count=len(unique))
    return ObjectOverlaps(found=sizes[0], true=sizes[1], pairs=np.column_stack(np.divmod(unique, width)), shared=shared)


def _sums(values: Numbers, group: Numbers, *, count: int) -> NDArray[np.float64]:
    return np.asarray(np.bincount(group, weights=values.astype(np.float64), minlength=count), np.float64)


def _mask_pieces(labels: NDArray[np.int32], count: int, *, block: ExtractionBlock) -> MaskPieces:
    height, width = labels.shape
    across, down = np.arange(width), np.arange(height) * width
    sides = (across, across + (height - 1) * width, down, down + width - 1)
    flat = np.concatenate([across[:0], *(side for side, is_seam in zip(sides, block.seams, strict=True) if is_seam)])
    flat = np.unique(flat[labels.ravel()[flat] > 0])
    rows, columns = np.divmod(flat, width)
    return MaskPieces(
        sizes=np.bincount(labels.ravel(), minlength=count + 1)[1:].astype(np.int64),
        # One column more than there is, so that the last pixel of a row is no neighbour of the next row's first.
        places=(rows + block.y[0]) * (block.shape[1] + 1) + columns + block.x[0],
        owners=labels[rows, columns].astype(np.int64) - 1,
    )


def _objects(mask: MaskPieces, *, columns: int) -> Numbers:
    """Return the number of the object that each piece belongs to."""
    order = np.argsort(mask.places)
    places, owners = mask.places[order], mask.owners[order]
    links = []
    for step in (1, columns, columns + 1, columns + 2):
        at = np.searchsorted(places, places + step)
        meets = np.flatnonzero(at < len(places))
        meets = meets[places[at[meets]] == places[meets] + step]
        links.append(np.column_stack((owners[meets], owners[at[meets]])))
    return components(*np.concatenate(links).T, count=len(mask.sizes))


Geometries = NDArray[np.object_]


def pixel_area_m2(pred: xr.Dataset) -> float:
    """Return ground area of the pixel in the middle of a raster, m².

    Raises
    ------
    EvaluationError
        The raster has no CRS or no place on the Earth.
    """
    try:
        geobox = geobox_of(pred)
    except CubeError as error:
        raise EvaluationError(
            f"Objects are measured on the ground, and the prediction has no place there: {error}"
        ) from error
    row, column = (length // 2 for length in geobox.shape)
    corners = np.column_stack(
        apply_affine(geobox.affine, column + np.array([0, 1, 1, 0.0]), row + np.array([0, 0, 1, 1.0]))
    )
    ring = transformed(np.array([shapely.Polygon(corners)], np.object_), CRS.from_user_input(geobox.crs), LONLAT)
    return float(geodesic_measures(ring)[0][0])


def lonlat_of(outlines: Geometries, crs: CRS) -> Geometries:
    """Return outlines in longitude and latitude, degrees, their edges followed closely."""
    return transformed(densified(outlines, crs), crs, LONLAT)


def equal_area(outlines: Geometries, crs: CRS) -> CRS:
    """Return Lambert's azimuthal equal-area projection about the middle of outlines, so that areas in it are true, in m²."""
    moved = transformed(shapely.centroid(outlines), crs, LONLAT)
    lon, lat = np.radians(shapely.get_coordinates(moved)).T
    # The mean of directions, instead of angles, because 179 and -179 degrees lie side by side.
    x, y, z = (np.mean(part) for part in (np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)))
    middle = {"lat_0": math.degrees(math.atan2(z, math.hypot(x, y))), "lon_0": math.degrees(math.atan2(y, x))}
    return CRS.from_dict({"proj": "laea", "ellps": "WGS84", "units": "m"} | middle)


def to_plane(outlines: Geometries, crs: CRS, plane: CRS) -> Geometries:
    """Return outlines in another CRS, their edges followed closely, and valid."""
    moved = transformed(densified(outlines, crs), crs, plane)
    broken = ~shapely.is_valid(moved)
    moved[broken] = shapely.make_valid(moved[broken])
    return moved
