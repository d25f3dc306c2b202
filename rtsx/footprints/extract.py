"""From a prediction to footprints, and the dask driver: reads blocks, calls the kernel, joins pieces of objects across block borders."""

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from itertools import islice
from operator import getitem
from os import PathLike
from typing import Any

import dask.array as da
import geopandas
import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.typing import DaskCollection, Key
from numpy.typing import NDArray

from rtsx.arguments import typed
from rtsx.cube import open_source
from rtsx.cube.times import FACTS, with_facts
from rtsx.errors import FootprintError
from rtsx.footprints.blocks import (
    BlockFootprints,
    BlockWindow,
    ExtractionBlock,
    ExtractionPlan,
    ExtractionRule,
    Margins,
    nodata_fractions,
    polygonize_block,
)
from rtsx.footprints.class_maps import ClassMap, split_classes, thresholds_of
from rtsx.footprints.clean import overlap_fraction, water_in
from rtsx.footprints.confidence import ConfidenceRule
from rtsx.footprints.geometry import (
    Placement,
    components,
    largest_pixel_m2,
    measured_columns,
    to_geographic,
    to_map_crs,
    union,
)
from rtsx.footprints.pieces import AREA_THRESHOLDS, LEAST_AREA_M2, Outlines, Pieces, area_column, checked_thresholds
from rtsx.footprints.schema import COLUMNS, coerce, reorder
from rtsx.tiling.plan import WIDEST_HALO


@typed(FootprintError, but=("pred", "water", "halo", "area_thresholds"))
def extract_footprints(
    pred: xr.Dataset | str | PathLike[str],
    *,
    min_area_m2: float | None = None,
    threshold: float | None = None,
    class_name: str | None = None,
    edge_distance: int = 10,
    drop_edge: bool = False,
    geographic: bool = False,
    water: xr.DataArray | geopandas.GeoDataFrame | geopandas.GeoSeries | None = None,
    area_thresholds: Sequence[float] = AREA_THRESHOLDS,
    nodata_fraction: bool = False,
    confidence_rule: ConfidenceRule | str | PathLike[str] | None = None,
    halo: int | tuple[int, int, int, int] = 0,
) -> geopandas.GeoDataFrame:
    """Outline the objects of a prediction.

    Pixels that share an edge or a corner are one object, within and across chunks; the result does not depend on the
    chunks. Invalid pixels are never inside an outline, and values under them do not matter.

    Parameters
    ----------
    pred : xarray.Dataset, str or pathlib.Path
        `probability` and `binary`, uint8 or float, optionally `valid`, with dimensions `([time,] [class,] y, x)` as
        `predict_cube` returns them, NumPy or dask. Computed here, each chunk once; only outlines and the borders of
        chunks stay in memory. Or the path of a stored one, which `open_cube` opens.
    min_area_m2 : float, optional
        Smaller objects are left out; geodesic area in m². Default: what the bundle chose by objects, where it did
        (`pred.attrs["outline_min_area_m2"]`), else 288 m², which are 32 pixels of 3 m.
    threshold : float, optional
        Smallest probability (0-1) of an object pixel. Default: what the bundle chose by objects, where it did
        (`pred.attrs["outline_threshold"]`), else what it chose by pixels, as in `binary`.
    class_name : str, optional
        The class to outline. Default: every class of the prediction but ``background``, one after the other.
    edge_distance : int
        Pixels, counted in king's moves: objects at most this far from an invalid pixel or from the border of `pred`
        get `touches_edge`, because their true outline may go on. Borders of chunks do not count. 0 flags nothing.
    drop_edge : bool
        Leave out what touches the edge.
    geographic : bool
        Give the geometry in EPSG:4326, split at the antimeridian, instead of in the CRS of the grid.
    water : xarray.DataArray or geopandas.GeoDataFrame or geopandas.GeoSeries, optional
        Where there is water, for the column `water_fraction` and the rule of `clean_footprints`: a map `(y, x)` of
        bool or integers, 1 on water, on any upright grid in the CRS of `pred`, NumPy or dask, computed chunk by chunk;
        or polygons in any CRS. What neither says is land.
    area_thresholds : sequence of float
        Whole per cents, as fractions (0-1), for the columns `area_m2_t45`, `area_m2_t65` and `area_m2_t80`: the area of the
        outline that is at least so probable, which says how sure its border is. They cost nothing; none leaves them out.
    nodata_fraction : bool
        Add the column `nodata_fraction`. With a `halo`, what is cut gets it from `merge_footprints`, which takes the map for it.
    confidence_rule : ConfidenceRule, str or pathlib.Path, optional
        Add the column `confidence_class`, by a rule that `derive_confidence_rule` made of a reviewed sample of outlines of the
        same bundle, or by its file.
    halo : int or tuple of int
        Pixels on all sides, or at the top, bottom, left and right, that lie in neighbouring predictions: objects there
        are left to those, and only whether the pixels are valid is looked at. An object that reaches the halo is kept
        whatever its size, so that `merge_footprints` can put it together: predictions with halos, outlined one by
        one and merged, give the outlines of the whole. 0, or at least `edge_distance`, on each side; 0 is an end of
        the data.

    Returns
    -------
    geopandas.GeoDataFrame
        One row per object, in reading order, with the columns

        - footprint_id: place of the first pixel on the pixel grid (and time and class, where there are several), so that
          the same map gives the same ids however it is cut up;
        - class_name, date (UTC), year, scene_id, bundle_id, bundle_digest: where the prediction tells them, else null;
        - area_m2, perimeter_m: geodesic, on WGS84; centroid_lat, centroid_lon in degrees;
        - prob_min, prob_max, prob_mean, prob_median, prob_std (divided by n), 0-1: exact for uint8; float
          probabilities are rounded to 1/10000 first, so that parts of an object add up exactly;
        - n_pixels, touches_edge, and geometry: valid Polygons or MultiPolygons along pixel borders, with their holes;
        - with `area_thresholds`, area_m2_t45 and so on: `area_m2` times the part of the pixels of at least 45 per cent, exact
          but for the change of a pixel's ground within the outline, which is below 0.1 per cent over 1 km;
        - with `nodata_fraction`, nodata_fraction: the part (0-1) of its bounding box, widened by `edge_distance` pixels, that
          is not valid or beyond the end of the data; missing where the outline is cut;
        - with `confidence_rule`, confidence_class: `high_confidence`, `candidate` or `marginal`; missing where the rule knows
          nothing, and where the outline is cut;
        - with `water`, water_fraction: the part (0-1) on water, of the pixels under a map or of the area under polygons;
        - with `halo`, cut: whether the object may go on behind a halo, and prob_counts: then its histogram of
          probabilities as text, from which the statistics of the whole follow exactly.

        Without objects: no rows, the same columns, dtypes and CRS.

    Raises
    ------
    FootprintError
        The prediction lacks a variable, class or CRS, or its grid is rotated; a number is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> import rioxarray
    >>> import xarray as xr
    >>> probability = np.zeros((60, 60), np.uint8)
    >>> probability[20:30, 20:30] = 80
    >>> pred = xr.Dataset(
    ...     {"probability": (("y", "x"), probability, {"scale_factor": 0.01, "_FillValue": 255})},
    ...     coords={"y": 4000.0 - 3 * np.arange(60), "x": 5000.0 + 3 * np.arange(60)},
    ... ).rio.write_crs("EPSG:32608")
    >>> footprints = extract_footprints(pred, threshold=0.5)
    >>> footprints[["n_pixels", "prob_mean", "touches_edge"]].to_dict("records")
    [{'n_pixels': 100, 'prob_mean': 0.8, 'touches_edge': False}]
    """
    if isinstance(pred, str | PathLike):
        pred = open_source(pred)
    if not isinstance(pred, xr.Dataset):
        raise FootprintError(
            f"A prediction is an xarray.Dataset or the path of one; got {type(pred).__name__}. Make one with rtsx.predict_cube, or "
            "give the path of one."
        )
    pred = with_facts(pred)
    threshold = stated_number(pred, "outline_threshold") if threshold is None else threshold
    min_area_m2 = default_min_area_m2(pred) if min_area_m2 is None else min_area_m2
    _check(min_area_m2=min_area_m2, threshold=threshold, edge_distance=edge_distance)
    thresholds = checked_thresholds(area_thresholds)
    rule_of_confidence = None if confidence_rule is None else ConfidenceRule.open(confidence_rule)
    if rule_of_confidence is not None:
        rule_of_confidence.require_bundle(pred.attrs.get("bundle_digest"))
    placement = Placement.of(pred)
    margins = _margins(halo, placement, edge_distance=edge_distance)
    if drop_edge and any(margins):
        raise FootprintError(
            "drop_edge is for whole outlines, but with a halo some are cut: merge them with merge_footprints, then "
            "leave out what is flagged with clean_footprints"
        )
    on_water = water_in(placement, water) if isinstance(water, xr.DataArray) else None
    maps = split_classes(pred, threshold=threshold, class_name=class_name, water=on_water)
    rule = ExtractionRule(
        threshold=threshold,
        levels=thresholds_of(pred["probability"]),
        edge_distance=edge_distance,
        min_pixels=max(1, math.ceil(min_area_m2 / largest_pixel_m2(placement))),
        area_thresholds=thresholds,
        nodata_fraction=nodata_fraction,
    )
    tables = []
    for one, outlines in zip(maps, outline_maps(maps, rule=rule, margins=margins), strict=True):
        kept = outlines.take(~outlines.touches_edge) if drop_edge else outlines
        table = _tabulate(kept, one, placement=placement, thresholds=thresholds, provenance=pred.attrs)
        tables.append(table[(table["area_m2"] >= min_area_m2) | table["cut"]])
    footprints = pd.concat(tables, ignore_index=True)
    _check_ids(footprints)
    if rule_of_confidence is not None:
        footprints = rule_of_confidence.apply(footprints)
    if water is not None and on_water is None:
        geometry = np.asarray(footprints.geometry.array, np.object_)
        footprints["water_fraction"] = overlap_fraction(geometry, water, crs=placement.crs)
    asked = {
        "cut": any(margins),
        "prob_counts": any(margins),
        "nodata_fraction": nodata_fraction,
        "water_fraction": water is not None,
    }
    footprints = reorder(footprints.drop(columns=[name for name, is_asked in asked.items() if not is_asked]))
    return to_geographic(footprints) if geographic else footprints


def default_min_area_m2(pred: xr.Dataset) -> float:
    """Return the least area of outlines of a prediction, m², where nobody says one."""
    stated = stated_number(pred, "outline_min_area_m2")
    return LEAST_AREA_M2 if stated is None else stated


def stated_number(pred: xr.Dataset, name: str) -> float | None:
    """Return a number among the attributes of a prediction, or of the year of a map that it is."""
    pred = with_facts(pred)
    if f'"{name}"' in pred.attrs.get(FACTS, ""):
        raise FootprintError(
            f"the years of this map have an {name} each: take one year, with pred.isel(time=...), or give threshold and min_area_m2"
        )
    value = pred.attrs.get(name)
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise FootprintError(
            f"the attribute {name} of a prediction is a number, not {value!r}: remove it, or give threshold and min_area_m2"
        ) from error


def _check(*, min_area_m2: float, threshold: float | None, edge_distance: int) -> None:
    if not (math.isfinite(min_area_m2) and min_area_m2 >= 0):
        raise FootprintError(f"min_area_m2 is a finite area of at least 0 m², not {min_area_m2}: 0 keeps everything")
    if threshold is not None and not 0 <= threshold <= 1:
        raise FootprintError(f"threshold is a probability from 0 to 1, not {threshold}: for 50 per cent give 0.5")
    if not 0 <= edge_distance <= WIDEST_HALO or edge_distance != int(edge_distance):
        raise FootprintError(
            f"edge_distance is a whole number of pixels from 0 to {WIDEST_HALO}, not {edge_distance}: 0 flags nothing"
        )


def _margins(
    halo: int | tuple[int, int, int, int], placement: Placement, *, edge_distance: int
) -> tuple[int, int, int, int]:
    given = halo if isinstance(halo, tuple) else (halo,) * 4
    if len(given) != 4 or any(isinstance(one, bool) or one != int(one) or one < 0 for one in given):
        raise FootprintError(
            f"halo is a number of pixels, or four for top, bottom, left and right, not {halo}: 0 is an end of the data"
        )
    top, bottom, left, right = (int(one) for one in given)
    near = [one for one in (top, bottom, left, right) if 0 < one < edge_distance]
    if near:
        raise FootprintError(
            f"a halo is at least as wide as edge_distance = {edge_distance} pixels, but one of {near[0]} came: whether "
            "an object touches the edge would depend on the cut; widen the halo, or lower edge_distance"
        )
    if top + bottom >= placement.shape[0] or left + right >= placement.shape[1]:
        raise FootprintError(
            f"a halo of {(top, bottom, left, right)} pixels leaves nothing of a prediction of {placement.shape} pixels "
            "(rows, columns): give the prediction with its halo"
        )
    return top, bottom, left, right


def _tabulate(
    outlines: Outlines, one: ClassMap, *, placement: Placement, thresholds: Sequence[float], provenance: dict[str, Any]
) -> geopandas.GeoDataFrame:
    geometry = to_map_crs(outlines.geometry, placement.transform)
    measured = measured_columns(geometry, placement.crs)
    prefix = f"{one.name}_" if one.name else ""
    known = (*COLUMNS, "nodata_fraction", "cut", "prob_counts")
    table: dict[str, object] = {name: getattr(outlines, name) for name in known if hasattr(outlines, name)}
    table |= {
        area_column(least): n_at / outlines.n_pixels * measured["area_m2"]
        for least, n_at in zip(thresholds, outlines.n_at.T, strict=True)
    }
    table |= {name: getattr(one, name) for name in ("class_name", "date", "year", "scene_id")}
    table |= {name: provenance.get(name) for name in ("bundle_id", "bundle_digest")}
    table |= measured | {
        "water_fraction": outlines.n_water / outlines.n_pixels,
        "footprint_id": [prefix + name for name in placement.lattice_names(outlines.first)],
    }
    return coerce(table, geopandas.GeoSeries(geometry, crs=placement.crs))


def _check_ids(footprints: geopandas.GeoDataFrame) -> None:
    repeated = footprints["footprint_id"].duplicated()
    if repeated.any():
        raise FootprintError(
            f"the prediction holds the same time twice, so that footprint_id "
            f"{footprints.loc[repeated, 'footprint_id'].iloc[0]!r} is not unique: extract the footprints of each "
            "scene on its own, with pred.isel(time=...), or make a composite per time"
        )


Numbers = NDArray[np.int64]


def merge_blocks(found: Sequence[BlockFootprints], plan: ExtractionPlan, *, rule: ExtractionRule) -> Outlines:
    """Merge the outlines of all blocks into those of the undivided raster.

    Parameters
    ----------
    found : sequence of BlockFootprints
        One for each block, in the order of `plan.blocks`.
    plan : BlockPlan
        Where the blocks lie.
    rule : ExtractionRule
        The rule by which they were outlined.

    Returns
    -------
    Outlines
        Complete objects in the order of their first pixels; small ones may be among them where they lay on a seam.
    """
    group = _objects(found, plan)
    pieces = _group([block.open for block in found], group, rule=rule)
    parts = [pieces.finish(rule.levels, thresholds=rule.area_thresholds), *(block.closed for block in found)]
    outlines = Outlines.concatenate(parts)
    if not rule.nodata_fraction:
        return outlines
    whole = ~outlines.cut  # of what is cut, nobody knows the box yet
    fractions = outlines.nodata_fraction.copy()
    fractions[whole] = nodata_fractions(outlines.geometry[whole], found, plan, reach=rule.edge_distance)
    return replace(outlines, nodata_fraction=fractions)


def _objects(found: Sequence[BlockFootprints], plan: ExtractionPlan) -> Numbers:
    """Return the number of the object that each open piece belongs to."""
    counts = np.array([len(block.open) for block in found], np.int64)
    before = np.cumsum(counts) - counts
    borders = np.empty((4, len(plan.rows), len(plan.columns)), np.object_)
    for index, (block, offset) in enumerate(zip(found, before, strict=True)):
        for side, border in enumerate(block.borders):
            borders[(side, *divmod(index, len(plan.columns)))] = np.where(border > 0, border + offset, 0)
    top, bottom, left, right = borders
    # A seam is compared along its whole length, so that the diagonals through the corners of four blocks are in it.
    sides = [*zip(bottom[:-1], top[1:], strict=True), *zip(right.T[:-1], left.T[1:], strict=True)]
    pairs = [_neighbours(np.concatenate(before), np.concatenate(after)) for before, after in sides]
    one, other = np.concatenate([np.empty((2, 0), np.int64), *pairs], axis=1)
    return components(one, other, count=int(counts.sum()))


def _neighbours(one: Numbers, other: Numbers) -> Numbers:
    """Return the pairs of pieces, numbered from 0, that face each other straight or diagonally."""
    facing = np.concatenate(
        [np.stack((one, other)), np.stack((one[:-1], other[1:])), np.stack((one[1:], other[:-1]))], axis=1
    )
    return np.unique(facing[:, (facing > 0).all(axis=0)] - 1, axis=1)


def _group(parts: Sequence[Pieces], group: Numbers, *, rule: ExtractionRule) -> Pieces:
    """Return one piece per group: united outlines, added histograms; those that are too small left out."""
    whole = {each.name: np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Pieces)}
    before = np.cumsum([0, *(len(part) for part in parts)])[:-1]
    objects = int(group.max(initial=-1)) + 1
    steps, count = rule.levels + 1, whole["count"]
    owner = whole["owner"] + np.repeat(before, [len(part.owner) for part in parts])
    is_cut = _any(whole["cut"], group, count=objects)
    kept = is_cut | (np.bincount(group[owner], weights=count, minlength=objects) >= rule.min_pixels)
    chosen = kept[group]
    number = np.cumsum(kept) - 1
    in_use = chosen[owner]
    key = (number[group[owner]] * steps + whole["level"])[in_use]
    bins, inverse = np.unique(key, return_inverse=True)
    tally = np.zeros(len(bins), np.int64)
    np.add.at(tally, inverse, count[in_use])
    n_water = np.zeros(objects, np.int64)
    np.add.at(n_water, group, whole["n_water"])
    first = np.full(int(kept.sum()), np.iinfo(np.int64).max)
    np.minimum.at(first, number[group[chosen]], whole["first"][chosen])
    return Pieces(
        geometry=union(whole["geometry"][chosen], number[group[chosen]]),
        first=first,
        touches_edge=_any(whole["touches_edge"], group, count=objects)[kept],
        cut=is_cut[kept],
        n_water=n_water[kept],
        owner=bins // steps,
        level=bins % steps,
        count=tally,
    )


def _any(flags: NDArray[np.bool_], group: Numbers, *, count: int) -> NDArray[np.bool_]:
    some = np.zeros(count, bool)
    np.logical_or.at(some, group, flags)
    return some


BLOCK_SIZE = 4096
"""Side of the blocks, in pixels, in which an array in memory is worked through."""


def plan_blocks(probability: xr.DataArray, *, margins: Margins) -> ExtractionPlan:
    """Return the blocks of a map: its dask chunks, or squares of `BLOCK_SIZE` where it lies in memory."""
    if probability.chunks is None:
        rows, columns = probability.shape
        return ExtractionPlan.regular((rows, columns), size=BLOCK_SIZE, margins=margins)
    return ExtractionPlan(rows=probability.chunks[0], columns=probability.chunks[1], margins=margins)


def outline_maps(maps: Sequence[ClassMap], *, rule: ExtractionRule, margins: Margins) -> list[Outlines]:
    """Outline the objects of every map inside its margins.

    All maps are computed in one go on the scheduler that is in force, because maps of several classes come from the
    same run of the network and would otherwise cost one run each. Each chunk is computed once and forgotten; outlines,
    border rows and border columns remain.
    """
    plans = [plan_blocks(one.probability, margins=margins) for one in maps]
    if any(array.chunks is not None for one in maps for array in _arrays(one)):
        found = _outline_lazy(maps, plans, rule=rule)
    else:
        found = [
            _outline(one, block, rule=rule) for one, plan in zip(maps, plans, strict=True) for block in plan.blocks
        ]
    remaining = iter(found)
    return [merge_blocks(list(islice(remaining, len(plan.blocks))), plan, rule=rule) for plan in plans]


def _arrays(one: ClassMap) -> list[xr.DataArray]:
    return [array for array in (one.probability, one.invalid, one.binary, one.water) if array is not None]


def _outline(one: ClassMap, block: ExtractionBlock, *, rule: ExtractionRule) -> BlockFootprints:
    arrays = (
        one.probability.values[block.window],
        None if one.binary is None else one.binary.values[block.window],
        one.invalid.values[block.halo(rule.edge_distance)],
        None if one.water is None else one.water.values[block.window],
    )
    return polygonize_block(arrays, block=block, rule=rule)


def _outline_lazy(
    maps: Sequence[ClassMap], plans: Sequence[ExtractionPlan], *, rule: ExtractionRule
) -> list[BlockFootprints]:
    """Compute all blocks of all maps as one array of results.

    A graph of our own, instead of `map_overlap`, because that cannot reach beyond the next chunk and gives every
    layer a halo, and instead of `delayed`, because that optimises each argument alone and so computes shared chunks
    more than once.
    """
    name = f"outline-{tokenize([[array.data for array in _arrays(one)] for one in maps], plans, rule)}"
    graph: dict[Key, Any] = {}
    blocks = 0
    dependencies: list[DaskCollection] = []
    for one, plan in zip(maps, plans, strict=True):
        chunks = (plan.rows, plan.columns)
        arrays = [da.asarray(array.data).rechunk(chunks) for array in _arrays(one)]
        probability, invalid, *others = arrays
        is_there = (one.binary is not None, one.water is not None)
        dependencies += arrays
        for number, block in enumerate(plan.blocks):
            at = divmod(number, len(plan.columns))
            halo = add_window(graph, invalid, plan.parts(block.halo(rule.edge_distance)), name=name)
            keys = [(array.name, *at) for array in (probability, *others)]
            outline = partial(_outline_chunk, is_there=is_there, block=block, rule=rule)
            graph[name, blocks] = (outline, keys, halo)
            blocks += 1
    layered = HighLevelGraph.from_collections(name, graph, dependencies=dependencies)
    return list(da.Array(layered, name, chunks=((1,) * blocks,), dtype=object).compute())


def add_window(
    graph: dict[Key, Any], array: da.Array, parts: Sequence[Sequence[BlockWindow]], *, name: str
) -> list[list[Key]]:
    """Add to a graph the parts of the chunks of an array (..., y, x) that make up a window; return their keys, row by row."""
    before = array.ndim - 2
    rows: list[list[Key]] = []
    for row in parts:
        rows.append([])
        for position, window in row:
            key = (f"{name}-halo", len(graph))
            graph[key] = (getitem, (array.name, *(0,) * before, *position), (*(slice(None),) * before, *window))
            rows[-1].append(key)
    return rows


def boxed(result: object) -> NDArray[np.object_]:
    """Return a result as an array of one object, because dask arrays are made of arrays."""
    box = np.empty(1, np.object_)
    box[0] = result
    return box


def _outline_chunk(
    arrays: list[NDArray[np.generic]],
    halo: list[list[NDArray[np.bool_]]],
    *,
    is_there: tuple[bool, bool],
    block: ExtractionBlock,
    rule: ExtractionRule,
) -> NDArray[np.object_]:
    probability, *others = arrays
    binary, water = (others.pop(0) if there else None for there in is_there)
    return boxed(polygonize_block((probability, binary, np.block(halo), water), block=block, rule=rule))
