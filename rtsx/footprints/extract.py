"""From a prediction to footprints."""

import math
from collections.abc import Sequence
from os import PathLike
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import xarray as xr

from rtsx.cube import open_source
from rtsx.cube.times import FACTS, with_facts
from rtsx.errors import FootprintError
from rtsx.footprints.blocks import ExtractionRule
from rtsx.footprints.class_maps import ClassMap, split_classes, thresholds_of
from rtsx.footprints.clean import overlap_fraction, water_in
from rtsx.footprints.confidence import ConfidenceRule
from rtsx.footprints.dask import outline_maps
from rtsx.footprints.geometry import Placement, centroids, largest_pixel_m2, measure, to_geographic, to_map_crs
from rtsx.footprints.pieces import AREA_THRESHOLDS, LEAST_AREA_M2, Outlines, area_column, checked_thresholds
from rtsx.footprints.schema import COLUMNS, coerce, reorder


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

    Pixels that share an edge or a corner are one object, within and across chunks; the answer does not depend on the
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
    if edge_distance < 0 or edge_distance != int(edge_distance):
        raise FootprintError(f"edge_distance is a whole number of pixels from 0, not {edge_distance}: 0 flags nothing")


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
    area, perimeter = measure(geometry, placement.crs)
    lat, lon = centroids(geometry, placement.crs)
    prefix = f"{one.name}_" if one.name else ""
    known = (*COLUMNS, "nodata_fraction", "cut", "prob_counts")
    table: dict[str, object] = {name: getattr(outlines, name) for name in known if hasattr(outlines, name)}
    table |= {
        area_column(least): n_at / outlines.n_pixels * area
        for least, n_at in zip(thresholds, outlines.n_at.T, strict=True)
    }
    table |= {name: getattr(one, name) for name in ("class_name", "date", "year", "scene_id")}
    table |= {
        "water_fraction": outlines.n_water / outlines.n_pixels,
        "footprint_id": [prefix + name for name in placement.lattice_names(outlines.first)],
        "area_m2": area,
        "perimeter_m": perimeter,
        "centroid_lat": lat,
        "centroid_lon": lon,
        "bundle_id": provenance.get("bundle_id"),
        "bundle_digest": provenance.get("bundle_digest"),
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
