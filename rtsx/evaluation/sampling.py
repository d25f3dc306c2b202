"""Draw stratified random samples for people to review: of outlines, and of the ground that a map covers."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS
from shapely.geometry.base import BaseGeometry

from rtsx.arguments import typed
from rtsx.cube import geobox_of
from rtsx.errors import EvaluationError
from rtsx.evaluation.dask import reduce_blocks
from rtsx.footprints import validate_footprints
from rtsx.footprints.class_maps import split_classes
from rtsx.footprints.confidence import Band
from rtsx.footprints.schema import stated_years
from rtsx.geometry.crs import LONLAT, WGS84, apply_affine, transformed
from rtsx.geometry.pixels import PixelMesh
from rtsx.labels import LabelRaster, TruthWindow, rasterize_labels

Allocation = Literal["equal", "proportional"]
"""How many units each stratum gives: as many as each other, or by its size."""

SAMPLE_COLUMNS = (
    "sample_id",
    "design",
    "stratum",
    "region",
    "mapped",
    "stratum_size",
    "inclusion_probability",
    "verdict",
)
"""Columns of every sample, beside its geometry."""

_GROUND = ("elsewhere", "near", "found")
"""Kinds of ground, by the value that they are painted with."""


@typed(EvaluationError, but=("footprints",))
def sample_outlines(
    footprints: gpd.GeoDataFrame,
    *,
    size: int,
    confidence_edges: Sequence[float] = (0.45, 0.65, 0.8),
    area_edges_m2: Sequence[float] = (500.0, 2000.0, 10_000.0),
    region: str | None = None,
    allocation: Allocation = "equal",
    seed: int = 0,
) -> gpd.GeoDataFrame:
    """Draw outlines at random from strata of confidence, size and region; what is right among them is the map's precision.

    Parameters
    ----------
    footprints
        Outlines of one class, as `extract_footprints` gives them.
    size
        Outlines to draw; all of them, where there are fewer, and more where strata are to have two each.
    confidence_edges
        Values of `prob_max` (0-1) between which strata lie, ascending; none makes one stratum.
    area_edges_m2
        Likewise values of `area_m2`.
    region
        Column of `footprints` whose values are strata, too; None for none.
    allocation
        `"equal"`: as many from each stratum, which tells strata apart best; `"proportional"`: by the number of its
        outlines, which tells the whole best. Never fewer than two, or all.
    seed
        Of the draw; the same outlines and seed give the same sample, in whatever order the rows are.

    Returns
    -------
    geopandas.GeoDataFrame
        The rows that were drawn, in random order, with the columns of `footprints`, and

        - in place of what has their names, sample_id: `"s1"`, `"s2"`, ...; design: `"outlines"`; region: text, empty without;
        - stratum: text, such as ``prob 0.65-0.8, 500-2000 m2``; mapped: True;
        - stratum_size: outlines of the stratum; inclusion_probability: the part of them that was drawn;
        - verdict: None, for a reviewer; one of `"target"`, `"other"` and `"unsure"`.

    Raises
    ------
    EvaluationError
        There is no outline, or several classes; edges do not ascend; a column is missing.
    FootprintError
        `footprints` is not what `validate_footprints` expects.
    """
    validate_footprints(footprints)
    _require_one_class(footprints)
    _require_numbers(size=size, seed=seed)
    if not len(footprints):
        raise EvaluationError("A sample is drawn from outlines, but there is none.")
    if region is not None and region not in footprints.columns:
        raise EvaluationError(
            f"region names a column of the footprints, but {region!r} is none of {', '.join(map(str, footprints.columns))}."
        )
    ordered = footprints.sort_values("footprint_id", ignore_index=True)  # so that the order of rows changes nothing
    regions = pd.Series("", index=ordered.index) if region is None else ordered[region].astype(str)
    confidence = _bands(ordered["prob_max"], confidence_edges, what="confidence_edges", words=("prob {}", ""))
    area = _bands(ordered["area_m2"], area_edges_m2, what="area_edges_m2", words=("{}", " m2"))
    strata = (confidence + ", " + area).str.strip(", ")
    groups = list(ordered.groupby([regions, strata], sort=True).indices.items())
    counts = _allocated(np.array([len(rows) for _, rows in groups]), size=size, allocation=allocation)
    rng = np.random.default_rng(seed)
    parts = []
    for (name, rows), count in zip(groups, counts, strict=True):
        drawn = ordered.iloc[np.sort(rng.choice(rows, count, replace=False))]
        sizes = {"stratum_size": float(len(rows)), "inclusion_probability": count / len(rows)}
        parts.append(drawn.assign(region=name[0], stratum=name[1], mapped=True, **sizes))
    return _finished(pd.concat(parts, ignore_index=True), design="outlines", rng=rng)


@typed(EvaluationError, but=("pred", "footprints", "regions"))
def sample_ground(
    pred: xr.Dataset,
    footprints: gpd.GeoDataFrame,
    *,
    size: int,
    near_m: float = 500.0,
    regions: gpd.GeoDataFrame | None = None,
    allocation: Allocation = "equal",
    seed: int = 0,
) -> gpd.GeoDataFrame:
    """Draw points of the ground at random from what was found, what is near it, and elsewhere; recall and area follow from them.

    Computed here, on the scheduler in force, each chunk once; only the points that may still be drawn are kept. The
    points do not depend on chunks.

    Parameters
    ----------
    pred
        The map, of one class and one time, as `predict_cube` or a campaign gives it: where it is not valid, nothing is drawn.
    footprints
        The outlines of the map whose accuracy is asked for, in any CRS, as `extract_footprints` gives them.
    size
        Points to draw.
    near_m
        Ground up to about this far from an outline is a stratum of its own, as missed objects are likely there.
    regions
        Polygons with a column `region`, in any CRS: each is a set of strata of its own, and what lies in none is not drawn.
        None: the whole map.
    allocation
        `"equal"` or `"proportional"` to area; see `sample_outlines`.
    seed
        Of the draw.

    Returns
    -------
    geopandas.GeoDataFrame
        Points in the map's CRS, in random order, each the middle of a pixel, drawn without replacement with a probability
        that is proportional to the pixel's area. Columns as of `sample_outlines`: design is `"ground"`, stratum
        `"found"`, `"near"` or `"elsewhere"`, mapped is True in `"found"`, and stratum_size is the area of the stratum, m², geodesic.

    Raises
    ------
    EvaluationError
        No pixel is valid, the map has several classes or times, an outline is of another year, or none meets it.
    FootprintError
        `pred` or `footprints` is not what it should be.
    """
    validate_footprints(footprints)
    _require_one_class(footprints)
    _require_numbers(size=size, seed=seed)
    if not 0 <= near_m <= _FARTHEST_M:
        raise EvaluationError(f"near_m is a distance from 0 to {_FARTHEST_M:.0f} m; got {near_m}.")
    maps = split_classes(pred, threshold=0.0, class_name=None, water=None)
    if len(maps) > 1:
        raise EvaluationError(
            f"A sample is drawn from one map, but the prediction has {len(maps)} of different classes or times: give "
            "a map of one; in Python, pred.isel(time=...) or pred.sel({'class': [...]}) select it."
        )
    others = sorted(stated_years(footprints) - {maps[0].year}) if maps[0].year is not None else []
    if others:
        raise EvaluationError(
            f"The map is of {maps[0].year}, and outlines are of {' and '.join(map(str, others))}: what was found there is no sample of "
            "this map. Give the outlines of its year, or the map of theirs."
        )
    geobox = geobox_of(pred)
    around = gpd.GeoSeries(_buffered(footprints, near_m), crs=footprints.crs)
    painted = gpd.GeoDataFrame(
        {"class_name": ["near"] * len(around) + ["found"] * len(around)},
        geometry=pd.concat([around, footprints.geometry], ignore_index=True),
        crs=footprints.crs,
    )
    found = rasterize_labels(painted, geobox, classes=_GROUND[1:])
    if not len(footprints):
        warnings.warn(
            "There are no outlines, so all of the map counts as ground where nothing was found: are these its footprints?",
            RuntimeWarning,
            stacklevel=3,
        )
    elif not found.count:
        raise EvaluationError("No outline meets the map: are these its footprints?")
    names = [""] if regions is None else _region_names(regions)
    placed = None
    if regions is not None:
        placed = rasterize_labels(regions.assign(class_name=regions["region"].astype(str)), geobox, classes=names)
    kernel = _DrawPixels(
        mesh=PixelMesh(geobox), found=found, regions=placed, strata=len(names) * len(_GROUND), size=size, seed=seed
    )
    drawn = reduce_blocks((~maps[0].invalid).expand_dims("layer"), kernel)
    there = np.flatnonzero(drawn.area_m2 > 0).tolist()
    if not len(there):
        raise EvaluationError("There is no valid pixel to draw, in the map or in the regions.")
    counts = _allocated(drawn.n_pixels[there], size=size, allocation=allocation, by=drawn.area_m2[there])
    parts = [drawn.first(stratum, count, regions=names) for stratum, count in zip(there, counts, strict=True)]
    table = pd.concat(parts, ignore_index=True)
    middles = apply_affine(geobox.affine, table.pop("column").to_numpy() + 0.5, table.pop("row").to_numpy() + 0.5)
    points = gpd.points_from_xy(*middles, crs=CRS.from_user_input(geobox.crs))
    return _finished(gpd.GeoDataFrame(table, geometry=points), design="ground", rng=np.random.default_rng(seed))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Drawn:
    """Pixels that may be drawn, and the sizes of the strata; blocks add up."""

    area_m2: NDArray[np.float64]
    """`(stratum,)` ground of the stratum."""
    n_pixels: NDArray[np.int64]
    """`(stratum,)` its pixels."""
    pixels: pd.DataFrame
    """`stratum`, `key` (the order in which those of a stratum are drawn), `row`, `column` and `area_m2`."""
    size: int
    """Pixels of a stratum that are kept at most: those with the smallest keys."""

    def __add__(self, more: "_Drawn") -> "_Drawn":
        return _Drawn(
            area_m2=self.area_m2 + more.area_m2,
            n_pixels=self.n_pixels + more.n_pixels,
            pixels=_smallest(pd.concat([self.pixels, more.pixels], ignore_index=True), size=self.size),
            size=self.size,
        )

    def first(self, stratum: int, count: int, *, regions: Sequence[str]) -> pd.DataFrame:
        """Return the first so many pixels of a stratum, as rows of the sample."""
        first = self.pixels[self.pixels["stratum"] == stratum].sort_values("key").head(count)
        area = float(self.area_m2[stratum])
        return first[["row", "column"]].assign(
            region=regions[stratum // len(_GROUND)],
            stratum=_GROUND[stratum % len(_GROUND)],
            mapped=stratum % len(_GROUND) == len(_GROUND) - 1,
            stratum_size=area,
            inclusion_probability=np.minimum(1.0, count * first["area_m2"] / area),
        )


def _smallest(pixels: pd.DataFrame, *, size: int) -> pd.DataFrame:
    """Keep the `size` pixels of each stratum with the smallest keys."""
    stratum, key = pixels["stratum"].to_numpy(), pixels["key"].to_numpy()
    kept = []
    for number in np.unique(stratum):
        places = np.flatnonzero(stratum == number)
        kept.append(places[np.argpartition(key[places], size - 1)[:size]] if len(places) > size else places)
    return pixels.iloc[np.concatenate(kept)] if kept else pixels


@dataclass(frozen=True, kw_only=True)
class _DrawPixels:
    """The kernel: pixels of one block that are among the first of their strata.

    Each pixel draws a key from an exponential distribution whose rate is its area, and the pixels with the smallest keys
    are the sample: weighted sampling without replacement that needs to see each pixel once, in any order (Efraimidis and
    Spirakis 2006, Information Processing Letters 97, 181-185).
    """

    mesh: PixelMesh
    found: LabelRaster
    """1 near what was found, 2 found."""
    regions: LabelRaster | None
    """Number of the region, from 1; 0 outside of all."""
    strata: int
    """How many there are."""
    size: int
    """Pixels of a stratum that are kept at most."""
    seed: int

    def __call__(self, valid: NDArray[np.bool_], window: TruthWindow) -> _Drawn:
        rows, columns = np.nonzero(valid[0])
        if not len(rows):  # most of an Arctic is sea
            return self._drawn(rows, rows, columns, area=np.empty(0))
        stratum = self.found.read(window)[rows, columns].astype(np.int64)
        if self.regions is not None:
            region = self.regions.read(window)[rows, columns].astype(np.int64)
            inside = region > 0
            rows, columns, stratum = rows[inside], columns[inside], (stratum + (region - 1) * len(_GROUND))[inside]
        area = self.mesh.areas_m2(window)[rows, columns]
        return self._drawn(stratum, rows + window[0].start, columns + window[1].start, area=area)

    def _drawn(
        self,
        stratum: NDArray[np.int64],
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        *,
        area: NDArray[np.float64],
    ) -> _Drawn:
        key = -np.log(_uniform(rows, columns, seed=self.seed)) / area
        pixels = pd.DataFrame({"stratum": stratum, "key": key, "row": rows, "column": columns, "area_m2": area})
        return _Drawn(
            area_m2=np.bincount(stratum, weights=area, minlength=self.strata).astype(np.float64),
            n_pixels=np.bincount(stratum, minlength=self.strata),
            pixels=_smallest(pixels, size=self.size),
            size=self.size,
        )


def _uniform(rows: NDArray[np.int64], columns: NDArray[np.int64], *, seed: int) -> NDArray[np.float64]:
    """Return a number above 0 and at most 1 for each pixel, by its place and the seed alone.

    SplitMix64's finaliser (Steele, Lea and Flood 2014, OOPSLA) of the seed, then of that and the row, then of that and the column.
    """
    mixed = np.zeros(len(rows), np.uint64)
    for part in (np.uint64(seed), rows.astype(np.uint64), columns.astype(np.uint64)):
        mixed = (mixed ^ part) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return ((mixed >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53


def _allocated(
    available: NDArray[np.int64], *, size: int, allocation: Allocation, by: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Deal a sample out to strata, one unit after the other, by the highest averages of Sainte-Lague.

    Two to each at least, and never more than it has.
    """
    weights = np.ones(len(available)) if allocation == "equal" else np.asarray(available if by is None else by, float)
    counts = np.minimum(available, 2)
    for _ in range(size - int(counts.sum())):
        wanting = np.where(counts < available, weights / (counts + 0.5), -1.0)
        if wanting.max() < 0:
            break
        counts[np.argmax(wanting)] += 1
    return counts


def _finished(table: gpd.GeoDataFrame, *, design: str, rng: np.random.Generator) -> gpd.GeoDataFrame:
    """Shuffle the rows, so that the first of them are a sample, too, and name them."""
    shuffled = table.iloc[rng.permutation(len(table))].reset_index(drop=True)
    shuffled["sample_id"] = [f"s{number}" for number in range(1, len(shuffled) + 1)]
    shuffled["design"] = design
    shuffled["verdict"] = pd.Series([None] * len(shuffled), dtype=object)
    further = [name for name in shuffled.columns if name not in (*SAMPLE_COLUMNS, "geometry")]
    return shuffled[[*SAMPLE_COLUMNS, *further, "geometry"]]


def _bands(
    values: "pd.Series[float]", edges: Sequence[float], *, what: str, words: tuple[str, str]
) -> "pd.Series[str]":
    """Return the name of the band between edges in which each value lies; empty where there is no edge."""
    if any(one >= other for one, other in pairwise(edges)) or not np.isfinite(edges).all():
        raise EvaluationError(f"{what} ascend, but came as {list(edges)}.")
    if not len(edges):
        return pd.Series("", index=values.index)
    ends = [f"{edge:.15g}" for edge in edges]  # `stratum_bands` reads them
    names = [f"under {ends[0]}", *(f"{low}-{high}" for low, high in pairwise(ends)), f"from {ends[-1]}"]
    place = np.searchsorted(np.asarray(edges, np.float64), values.to_numpy(np.float64), side="right")
    return pd.Series([words[0].format(names[number]) + words[1] for number in place], index=values.index)


_NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_BAND = re.compile(
    rf"(?P<prob>prob )?(?:under (?P<below>{_NUMBER})|from (?P<least>{_NUMBER})|(?P<low>{_NUMBER})-(?P<high>{_NUMBER}))"
    r"(?P<area> m2)?"
)


def stratum_bands(stratum: str) -> tuple[Band, Band]:
    """Return the bands of greatest probability and of area that the name of a stratum of outlines says.

    Raises
    ------
    EvaluationError
        It is no such name.

    Examples
    --------
    >>> stratum_bands("prob 0.65-0.8, under 500 m2")
    ((0.65, 0.8), (None, 500.0))
    """
    bands: dict[bool, Band] = {}
    for part in filter(None, stratum.split(", ")):
        found = _BAND.fullmatch(part)
        if found is None or (found["prob"] is None) == (found["area"] is None):
            raise EvaluationError(
                f"A stratum of outlines is called 'prob 0.65-0.8, 500-2000 m2' or the like; got {stratum!r}: draw it with sample_outlines."
            )
        ends = [found[name] for name in ("least", "low", "below", "high")]
        low, high = ends[0] or ends[1], ends[2] or ends[3]
        bands[found["area"] is None] = (None if low is None else float(low), None if high is None else float(high))
    return bands.get(True, (None, None)), bands.get(False, (None, None))


_FARTHEST_M = 10_000_000.0
"""Largest `near_m`, m: a quarter of the way around the Earth."""


def _buffered(footprints: gpd.GeoDataFrame, distance_m: float) -> NDArray[np.object_]:
    """Widen each outline by a distance on the ground, by the scale of its CRS at its middle."""
    outlines = np.asarray(footprints.geometry.array, np.object_)
    if not len(outlines) or distance_m == 0:
        return outlines
    crs = CRS.from_user_input(footprints.crs)
    x, y = shapely.get_coordinates(shapely.centroid(outlines)).T
    step = np.hypot(*(shapely.bounds(outlines)[:, 2:] - shapely.bounds(outlines)[:, :2]).T) / 100
    (lon, lat), east, north = (
        shapely.get_coordinates(transformed(shapely.points(*at), crs, LONLAT)).T
        for at in ((x, y), (x + step, y), (x, y + step))
    )
    scales = np.column_stack([WGS84.inv(lon, lat, *other)[2] / step for other in (east, north)])

    def widened(outline: BaseGeometry, scale: NDArray[np.float64]) -> BaseGeometry:
        in_metres = shapely.transform(outline, lambda xy: xy * scale)
        return shapely.transform(shapely.buffer(in_metres, distance_m), lambda xy: xy / scale)

    return np.array([widened(*each) for each in zip(outlines, scales, strict=True)], np.object_)


def _region_names(regions: gpd.GeoDataFrame) -> list[str]:
    if "region" not in regions.columns or not len(regions):
        raise EvaluationError(
            f"regions are polygons with a column 'region', but there are {len(regions)} rows with the columns "
            f"{', '.join(map(str, regions.columns))}."
        )
    return sorted(regions["region"].astype(str).unique())


def _require_one_class(footprints: gpd.GeoDataFrame) -> None:
    names = [str(name) for name in footprints["class_name"].dropna().unique()]
    if len(names) > 1:
        raise EvaluationError(
            f"A sample is drawn of one class, but the outlines are of {', '.join(names)}: select one with "
            "footprints[footprints['class_name'] == ...]."
        )


def _require_numbers(*, size: int, seed: int) -> None:
    if size < 2:
        raise EvaluationError(f"size is how many to draw, at least 2; got {size}.")
    if seed < 0:
        raise EvaluationError(f"seed is a whole number from 0; got {seed}.")
