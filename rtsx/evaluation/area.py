"""Sum up how much of the target a map expects: probability x ground, on a coarse grid, without a threshold."""

import math
from functools import partial

import numpy as np
import xarray as xr
from affine import Affine
from numpy.typing import NDArray

from rtsx.arguments import typed
from rtsx.cube import GRID_MAPPING, geobox_of
from rtsx.cube.georeference import pixel_m
from rtsx.errors import EvaluationError
from rtsx.evaluation.dask import check_range, reduce_blocks
from rtsx.footprints.class_maps import split_classes, thresholds_of
from rtsx.geometry.pixels import PixelMesh
from rtsx.labels import TruthWindow
from rtsx.scores.estimates import CellSums, SumCells

_MISSING = 255


@typed(EvaluationError, but=("pred",))
def expected_area(
    pred: xr.Dataset, *, cell_m: float | None = None, cell_degrees: float | None = None, class_name: str | None = None
) -> xr.Dataset:
    """Sum probability x ground area of the pixels of a map by cells of a coarse grid.

    Where probabilities are calibrated, as those of bundles that rtsx has trained are on ground like their own, this is the
    area of the target that is to be expected, whatever the threshold; outlines hold less, as they leave out all that is
    unlikely. Computed here, on the scheduler in force, each chunk once; what remains of a chunk is a sum for each cell.

    Parameters
    ----------
    pred
        The map, of one time, as `predict_cube` or a campaign gives it.
    cell_m
        Side of a cell in the unit of the map's CRS, m for most; cells begin at multiples of it. 10,000 where neither it nor
        `cell_degrees` is given.
    cell_degrees
        Instead, side of a cell in degrees of longitude and latitude; 0.5, for example.
    class_name
        Which class of several.

    Returns
    -------
    xarray.Dataset
        `expected_area_m2` and `valid_area_m2` (the ground that the map knows), float64, geodesic on WGS84, `(y, x)` with
        the middles of the cells that the map meets: in the map's CRS, or in EPSG:4326. In memory.

    Raises
    ------
    EvaluationError
        Both sizes are given or one is below a pixel, the map has several classes or times, no valid pixel, or
        probabilities beyond 0 to 1.
    FootprintError
        `pred` is no prediction.

    Examples
    --------
    >>> import rioxarray
    >>> probability = np.full((100, 100), 25, np.uint8)
    >>> pred = xr.Dataset(
    ...     {"probability": (("y", "x"), probability, {"scale_factor": 0.01, "_FillValue": 255})},
    ...     coords={"y": 7_799_995.0 - 10 * np.arange(100), "x": 500_005.0 + 10 * np.arange(100)},
    ... ).rio.write_crs("EPSG:32608")
    >>> area = expected_area(pred, cell_m=500)
    >>> area["expected_area_m2"].values.round(-2)
    array([[62600., 62600.],
           [62600., 62600.]])
    """
    if cell_m is not None and cell_degrees is not None:
        raise EvaluationError(
            "Cells have their side in the map's unit or in degrees: give cell_m or cell_degrees, not both."
        )
    side = cell_degrees or cell_m or 10_000.0
    if not (math.isfinite(side) and side > 0) or 0 in (cell_m, cell_degrees):
        raise EvaluationError(f"The side of a cell is above 0; got {cell_m if cell_degrees is None else cell_degrees}.")
    maps = split_classes(pred, threshold=0.0, class_name=class_name, water=None)
    if len(maps) > 1:
        raise EvaluationError(
            f"Area is summed over one map, but the prediction has {len(maps)} of different classes or times: say "
            "class_name, or year; in Python, select a time with pred.isel(time=...)."
        )
    probability = maps[0].probability
    missing = np.uint8(_MISSING) if probability.dtype == np.uint8 else np.nan
    known = probability.where(~maps[0].invalid, missing)
    geobox = geobox_of(pred)
    pixel = abs(geobox.affine.e) if cell_degrees is None else pixel_m(geobox) / 111_195
    if side < pixel:
        raise EvaluationError(f"The side of a cell is at least that of a pixel, here {pixel:.6g}; got {side:g}.")
    kernel = SumCells(
        mesh=PixelMesh(geobox),
        side=side,
        degrees=cell_degrees is not None,
        levels=1 if probability.dtype.kind == "f" else thresholds_of(probability),
    )
    sums = reduce_blocks(known.expand_dims("layer"), partial(_checked_sums, kernel))
    if not len(sums.cells):
        raise EvaluationError("The map has no valid pixel.")
    return _on_grid(sums, side=side, crs="EPSG:4326" if cell_degrees is not None else str(geobox.crs))


def _checked_sums(kernel: SumCells, stacked: NDArray[np.float32] | NDArray[np.uint8], window: TruthWindow) -> CellSums:
    """Sum a part, and refuse what is no probability."""
    stored = stacked[0]
    valid = np.isfinite(stored) if stored.dtype.kind == "f" else stored != _MISSING
    check_range(stored[valid], levels=kernel.levels, window=window)
    return kernel(stored, window)


def _on_grid(sums: CellSums, *, side: float, crs: str) -> xr.Dataset:
    first, last = sums.cells.min(axis=0), sums.cells.max(axis=0)
    areas = np.zeros((2, *(last - first + 1)))
    areas[:, last[0] - sums.cells[:, 0], sums.cells[:, 1] - first[1]] = sums.area_m2.T
    middles = {
        "y": (np.arange(last[0], first[0] - 1, -1) + 0.5) * side,
        "x": (np.arange(first[1], last[1] + 1) + 0.5) * side,
    }
    attrs = {"units": "m2", "cell_methods": "area: sum"}
    result = xr.Dataset(
        {
            "expected_area_m2": (("y", "x"), areas[0], {"long_name": "expected area of the target", **attrs}),
            "valid_area_m2": (("y", "x"), areas[1], {"long_name": "ground with a valid probability", **attrs}),
        },
        coords=middles,
    )
    for name in result.data_vars:
        result[name].encoding |= GRID_MAPPING
    corner = (float(first[1] * side), float((last[0] + 1) * side))
    # Stated, because the coordinates of a single cell do not tell its side.
    placed: xr.Dataset = result.rio.write_crs(crs).rio.write_transform(Affine(side, 0, corner[0], 0, -side, corner[1]))
    return placed
