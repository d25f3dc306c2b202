"""From a prediction to footprints."""

import math
from typing import Any

import geopandas
import pandas as pd
import xarray as xr

from rtsx.errors import FootprintError
from rtsx.footprints.dask import outline_maps
from rtsx.footprints.geographic import to_geographic
from rtsx.footprints.pieces import Outlines
from rtsx.footprints.placement import Placement
from rtsx.footprints.plan import OutlineRule
from rtsx.footprints.prediction import ClassMap, levels_of, separate
from rtsx.footprints.pyproj import centroids, largest_pixel_m2, measure
from rtsx.footprints.schema import COLUMNS, conform
from rtsx.footprints.shapely import place

__all__ = ["extract_footprints"]


def extract_footprints(
    pred: xr.Dataset,
    *,
    min_area_m2: float = 288.0,
    threshold: float | None = None,
    class_name: str | None = None,
    edge_distance: int = 10,
    drop_edge: bool = False,
    geographic: bool = False,
) -> geopandas.GeoDataFrame:
    """Outline the objects of a prediction.

    Pixels that share an edge or a corner are one object, within and across chunks; the answer does not depend on the
    chunks. Invalid pixels are never inside an outline, and values under them do not matter.

    Parameters
    ----------
    pred : xarray.Dataset
        `probability` and `binary`, uint8 or float, optionally `valid`, with dimensions `([time,] [class,] y, x)` as
        `predict_cube` returns them, NumPy or dask. Computed here, each chunk once; only outlines and the borders of
        chunks stay in memory.
    min_area_m2 : float
        Smaller objects are left out; geodesic area in m². 288 m² are 32 pixels of 3 m.
    threshold : float, optional
        Smallest probability (0-1) of an object pixel. Default: what the bundle chose, as in `binary`.
    class_name : str, optional
        The class to outline. Default: every class of the prediction, one after the other.
    edge_distance : int
        Pixels, counted in king's moves: objects at most this far from an invalid pixel or from the border of `pred`
        get `touches_edge`, because their true outline may go on. Borders of chunks do not count. 0 flags nothing.
    drop_edge : bool
        Leave out what touches the edge.
    geographic : bool
        Give the geometry in EPSG:4326, split at the antimeridian, instead of in the CRS of the grid.

    Returns
    -------
    geopandas.GeoDataFrame
        One row per object, in reading order, with the columns

        - footprint_id: place of the first pixel on the lattice (and time and class, where there are several), so that
          the same map gives the same ids however it is cut up;
        - class_name, date (UTC), year, scene_id, bundle_id, bundle_digest: where the prediction tells them, else null;
        - area_m2, perimeter_m: geodesic, on WGS84; centroid_lat, centroid_lon in degrees;
        - prob_min, prob_max, prob_mean, prob_median, prob_std (divided by n), 0-1: exact for uint8; float
          probabilities are rounded to 1/10000 first, so that parts of an object add up exactly;
        - n_pixels, touches_edge, and geometry: valid Polygons or MultiPolygons along pixel borders, with their holes.

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
    _check(min_area_m2=min_area_m2, threshold=threshold, edge_distance=edge_distance)
    placement = Placement.of(pred)
    maps = separate(pred, threshold=threshold, class_name=class_name)
    rule = OutlineRule(
        threshold=threshold,
        levels=levels_of(pred["probability"]),
        edge_distance=edge_distance,
        min_pixels=max(1, math.ceil(min_area_m2 / largest_pixel_m2(placement))),
    )
    tables = []
    for one, outlines in zip(maps, outline_maps(maps, rule=rule), strict=True):
        kept = outlines.take(~outlines.touches_edge) if drop_edge else outlines
        tables.append(_tabulate(kept, one, placement=placement, provenance=pred.attrs))
    footprints = pd.concat(tables, ignore_index=True)
    footprints = footprints[footprints["area_m2"] >= min_area_m2].reset_index(drop=True)
    _check_ids(footprints)
    return to_geographic(footprints) if geographic else footprints


def _check(*, min_area_m2: float, threshold: float | None, edge_distance: int) -> None:
    if not (math.isfinite(min_area_m2) and min_area_m2 >= 0):
        raise FootprintError(f"min_area_m2 is a finite area of at least 0 m², not {min_area_m2}: 0 keeps everything")
    if threshold is not None and not 0 <= threshold <= 1:
        raise FootprintError(f"threshold is a probability from 0 to 1, not {threshold}: for 50 per cent give 0.5")
    if edge_distance < 0 or edge_distance != int(edge_distance):
        raise FootprintError(f"edge_distance is a whole number of pixels from 0, not {edge_distance}: 0 flags nothing")


def _tabulate(
    outlines: Outlines, one: ClassMap, *, placement: Placement, provenance: dict[str, Any]
) -> geopandas.GeoDataFrame:
    geometry = place(outlines.geometry, placement.transform)
    area, perimeter = measure(geometry, placement.crs)
    lat, lon = centroids(geometry, placement.crs)
    prefix = f"{one.name}_" if one.name else ""
    table: dict[str, object] = {name: getattr(outlines, name) for name in COLUMNS if hasattr(outlines, name)}
    table |= {
        "footprint_id": [prefix + name for name in placement.lattice_names(outlines.first)],
        "class_name": one.class_name,
        "date": one.date,
        "year": one.year,
        "scene_id": one.scene_id,
        "area_m2": area,
        "perimeter_m": perimeter,
        "centroid_lat": lat,
        "centroid_lon": lon,
        "bundle_id": provenance.get("bundle_id"),
        "bundle_digest": provenance.get("bundle_digest"),
    }
    return conform(table, geopandas.GeoSeries(geometry, crs=placement.crs))


def _check_ids(footprints: geopandas.GeoDataFrame) -> None:
    repeated = footprints["footprint_id"].duplicated()
    if repeated.any():
        raise FootprintError(
            f"the prediction holds the same time twice, so that footprint_id "
            f"{footprints.loc[repeated, 'footprint_id'].iloc[0]!r} is not unique: extract the footprints of each "
            "scene on its own, with pred.isel(time=...), or make a composite per time"
        )
