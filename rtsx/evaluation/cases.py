"""Settings of an evaluation and its scenes, taken apart into what is compared: maps of classes, or outlines. Nothing is scored here."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TypeAlias

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from pyproj import CRS

from rtsx.cube import class_names, geobox_of
from rtsx.cube.encoding import as_mask
from rtsx.cube.georeference import describe_geobox
from rtsx.errors import CubeError, EvaluationError, FootprintError, LabelError
from rtsx.evaluation.counts import Unit
from rtsx.footprints.blocks import polygonize
from rtsx.footprints.class_maps import is_found, missing_pixels, thresholds_of
from rtsx.labels import LabelRaster, open_label_raster, rasterize_labels
from rtsx.labels.label_rasters import same_pixels, warp_onto
from rtsx.labels.rasterize import to_pixels
from rtsx.labels.standardise import marked_absent
from rtsx.scores import LEVELS_OF_FLOAT
from rtsx.tiling.plan import WIDEST_HALO

Truth: TypeAlias = LabelRaster | xr.DataArray | gpd.GeoDataFrame
"""What is there: pixels with numbers of classes, or polygons."""
ALONE = "scene"
"""Name of a prediction that is evaluated alone, which messages leave out."""
_BLOCK = 2048
"""Side of what is read of a map at once where its ground is outlined, px."""


def of_scene(name: str) -> str:
    """Return which scene a message is about, and nothing where there is one alone.

    Examples
    --------
    >>> f"The truth{of_scene('lena')} is empty", f"The truth{of_scene(ALONE)} is empty"
    ("The truth of scene 'lena' is empty", 'The truth is empty')
    """
    return "" if name == ALONE else f" of scene {name!r}"


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Everything that scores depend on besides predictions and truth.

    Raises
    ------
    EvaluationError
        A number is out of its range.
    """

    threshold: float | None
    """Least probability, 0-1, of what counts as found; None: the prediction's own decision, its `binary`."""
    object_iou: float
    """Least IoU of a found and a true object that are the same, above 0 to 1."""
    boundary: int
    """Width of the band inside outlines that the boundary IoU looks at, px, at least 1."""
    min_object_area_m2: float
    """Smaller objects, found or true, are left out of the object scores, m²; 0 keeps all."""
    bootstrap: int
    """Times that scenes are drawn anew for the intervals; 0 gives none."""
    seed: int
    """Seed of these draws."""

    def __post_init__(self) -> None:
        """Refuse what is no rule."""
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise EvaluationError(
                f"threshold is a probability from 0 to 1, not {self.threshold}: for 50 per cent give 0.5"
            )
        if not 0 < self.object_iou <= 1:
            raise EvaluationError(
                f"object_iou is the least IoU of a match, above 0 to 1, not {self.object_iou}: 0.5 is usual"
            )
        if not 1 <= self.boundary <= WIDEST_HALO or self.boundary != int(self.boundary):
            raise EvaluationError(f"boundary is a whole number of pixels from 1 to {WIDEST_HALO}, not {self.boundary}")
        if not (math.isfinite(self.min_object_area_m2) and self.min_object_area_m2 >= 0):
            raise EvaluationError(
                f"min_object_area_m2 is a finite area of at least 0 m², not {self.min_object_area_m2}: 0 keeps everything"
            )
        if self.bootstrap < 0 or self.bootstrap != int(self.bootstrap):
            raise EvaluationError(f"bootstrap is a whole number of draws from 0, not {self.bootstrap}")

    @property
    def of_objects(self) -> str:
        """The rule of object scores, for people."""
        return f"objects: IoU >= {self.object_iou:g}, {self.sizes}"

    @property
    def sizes(self) -> str:
        """Which objects are scored, for people."""
        return f"from {self.min_object_area_m2:g} m² on" if self.min_object_area_m2 else "all sizes"


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationScene:
    """One ground at one time, twice: as predicted and in truth. Nothing is read before it is evaluated.

    Raises
    ------
    EvaluationError
        Prediction or truth are of a kind that cannot be evaluated.
    """

    name: str
    """Tells the scene from the others; the unit that intervals are drawn from."""
    region: str = ""
    """What scores are summed over beside the whole."""
    prediction: xr.Dataset | gpd.GeoDataFrame
    """What `predict_cube` returns, or what is opened from where it was written; or footprints."""
    truth: Truth
    """On the pixels of the prediction: a `LabelRaster`, or an integer raster (y, x) with its CRS, coded like one: 0 nothing, k the
    k-th class of the prediction, 255 where nobody can tell. Or polygons in any CRS, which every pixel whose centre they
    hold belongs to; polygons are the only truth of footprints."""
    mapped: xr.Dataset | gpd.GeoDataFrame | None = None
    """Ground that footprints can be on: the map that they are of, whose valid pixels count, or polygons in any CRS. Truth
    elsewhere is left out; None: all of it counts."""

    def __post_init__(self) -> None:
        """Refuse kinds that do not go together."""
        if not isinstance(self.prediction, xr.Dataset | gpd.GeoDataFrame):
            raise EvaluationError(
                f"The prediction{of_scene(self.name)} is a Dataset as predict_cube returns it, or a GeoDataFrame of "
                f"footprints, not {type(self.prediction).__name__}."
            )
        if isinstance(self.prediction, gpd.GeoDataFrame) and not isinstance(self.truth, gpd.GeoDataFrame):
            raise EvaluationError(
                f"Footprints are evaluated by polygons, but the truth{of_scene(self.name)} is "
                f"{type(self.truth).__name__}: evaluate the prediction that the footprints are from instead."
            )
        if self.mapped is not None and not isinstance(self.prediction, gpd.GeoDataFrame):
            raise EvaluationError(
                f"The prediction{of_scene(self.name)} is a map, which says itself which ground is valid: leave mapped= out."
            )
        if not isinstance(self.mapped, xr.Dataset | gpd.GeoDataFrame | None):
            raise EvaluationError(
                f"mapped{of_scene(self.name)} is the map that the outlines are of, or a GeoDataFrame of polygons, not "
                f"{type(self.mapped).__name__}."
            )


UNCOUNTED = 255
"""Value of a decision where the prediction is not valid."""
NEITHER = 2
"""Value of a decision where `binary` says neither yes nor no, which is refused when it counts."""
_BACKGROUND = "background"
_TARGET = "target"


@dataclass(frozen=True, kw_only=True, eq=False)
class RasterCase:
    """A prediction and a truth on the same pixels."""

    name: str
    region: str
    classes: tuple[str, ...]
    """What is evaluated, by the names of the truth."""
    numbers: tuple[int, ...]
    """Value of each class in the truth."""
    decided: xr.DataArray = field(repr=False)
    """(class, y, x) uint8: 1 found, 0 not, `UNCOUNTED`; lazy where the prediction is."""
    probability: xr.DataArray | None = field(repr=False)
    """(class, y, x) uint8 levels or float 0-1; None where the prediction has none."""
    levels: int
    """Steps between probability 0 and 1."""
    truth: LabelRaster = field(repr=False)
    prediction: xr.Dataset = field(repr=False)
    """Where it all came from, for its place on the ground."""
    unit: Unit = "px"


@dataclass(frozen=True, kw_only=True, eq=False)
class OutlineCase:
    """Found and true outlines of one class."""

    name: str
    region: str
    classes: tuple[str]
    found: gpd.GeoDataFrame = field(repr=False)
    """Valid Polygons and MultiPolygons with a CRS."""
    true: gpd.GeoDataFrame = field(repr=False)
    """Likewise, perhaps in another CRS."""
    mapped: gpd.GeoDataFrame | None = field(repr=False)
    """Polygons of the ground that counts, in any CRS; None where it is not known."""
    unit: Unit = "m2"


def case_of(
    scene: EvaluationScene, *, classes: Sequence[str] | None, threshold: float | None
) -> RasterCase | OutlineCase:
    """What is compared in a scene.

    Raises
    ------
    EvaluationError
        Prediction and truth do not go together; names the scene.
    """
    if isinstance(scene.prediction, gpd.GeoDataFrame):
        if threshold is not None:
            raise EvaluationError(
                f"A threshold chooses pixels, but the prediction{of_scene(scene.name)} is outlines, which are found already: "
                "leave it out, or select outlines by prob_mean or prob_max before."
            )
        return _outline_case(scene, classes)
    return _raster_case(scene, scene.prediction, classes=classes, threshold=threshold)


def _raster_case(
    scene: EvaluationScene, pred: xr.Dataset, *, classes: Sequence[str] | None, threshold: float | None
) -> RasterCase:
    _check_shape(scene, pred)
    names = _class_names(pred)
    truth = _truth_of(scene, pred, names)
    size = (pred.sizes["y"], pred.sizes["x"])
    if truth.shape != size:
        raise EvaluationError(
            f"Prediction and truth{of_scene(scene.name)} differ in size: {size} and {truth.shape} px. Bring the truth onto "
            "the grid of the prediction, with gdalwarp; in Python, rasterize_labels(labels, geobox_of(prediction), ...) makes it of labels."
        )
    evaluated = _evaluated_classes(scene, names, truth.classes, wanted=classes)
    places = [place for place, _ in evaluated]
    outputs = {
        name: _by_class(pred[name], places)
        for name in ("probability", "binary")
        if name in pred.data_vars and not (name == "binary" and threshold is not None)
    }
    probability = outputs.get("probability")
    levels = LEVELS_OF_FLOAT if probability is None else _levels_of(scene, probability)
    return RasterCase(
        name=scene.name,
        region=scene.region,
        classes=tuple(truth.classes[number - 1] for _, number in evaluated),
        numbers=tuple(number for _, number in evaluated),
        decided=_decided(scene, outputs, _valid(pred), threshold=threshold, levels=levels),
        probability=probability,
        levels=levels,
        truth=truth,
        prediction=pred,
    )


def _check_shape(scene: EvaluationScene, pred: xr.Dataset) -> None:
    if not {"probability", "binary"} & set(pred.data_vars):
        raise EvaluationError(
            f"The prediction{of_scene(scene.name)} has probability or binary, or both, but there are "
            f"{', '.join(map(str, pred.data_vars)) or 'no variables'}: is this what predict_cube returned?"
        )
    used = pred[[name for name in ("probability", "binary", "valid") if name in pred.data_vars]]
    strange = sorted(map(str, set(used.dims) - {"class", "y", "x"}))
    if strange or not {"y", "x"} <= set(used.dims):
        raise EvaluationError(
            f"The prediction{of_scene(scene.name)} has dimensions ([class,] y, x), but came with "
            f"{', '.join(map(str, used.dims))}: a scene is one ground at one time; in Python, pred.isel(time=...) selects it"
        )


def _class_names(pred: xr.Dataset) -> list[str | None]:
    """Names of the prediction's classes, in order; None where it does not say what it found."""
    names, count = class_names(pred), pred.sizes.get("class", 1)
    if len(names) == count:
        return list(names)
    return [None] if count == 1 else [f"class_{number}" for number in range(count)]


def _truth_of(scene: EvaluationScene, pred: xr.Dataset, names: Sequence[str | None]) -> LabelRaster:
    targets = [name or _TARGET for name in names if name != _BACKGROUND]
    try:
        if isinstance(scene.truth, gpd.GeoDataFrame):
            if len(targets) > 1:
                raise EvaluationError(
                    f"The prediction{of_scene(scene.name)} has the classes {', '.join(targets)}, but its truth is polygons "
                    "of one: say which class they are with class_name=...; in Python, rasterize_labels(labels, geobox_of(prediction), classes=[...]) makes rasters of all"
                )
            outlines = _checked_outlines(scene, scene.truth, what="truth")
            return rasterize_labels(outlines.assign(class_name=targets[0]), geobox_of(pred), classes=targets)
        if isinstance(scene.truth, xr.DataArray):
            _check_grids(scene, pred, scene.truth)
            return open_label_raster(
                scene.truth, classes={name: [number] for number, name in enumerate(targets, 1)}, ignored=[UNCOUNTED]
            )
    except (CubeError, LabelError) as error:
        raise EvaluationError(
            f"The truth{of_scene(scene.name)} cannot be brought onto its prediction: {error}"
        ) from error
    return scene.truth


def _check_grids(scene: EvaluationScene, pred: xr.Dataset, truth: xr.DataArray) -> None:
    grid, other = geobox_of(pred), geobox_of(truth)
    if not same_pixels(grid, other):
        raise EvaluationError(
            f"Prediction and truth{of_scene(scene.name)} lie on different grids: {describe_geobox(grid)} and "
            f"{describe_geobox(other)}. Warp the truth onto the prediction's grid: {warp_onto(grid)}."
        )


def _evaluated_classes(
    scene: EvaluationScene, predicted: Sequence[str | None], true: Sequence[str], *, wanted: Sequence[str] | None
) -> list[tuple[int, int]]:
    """Place in the prediction and value in the truth of each class to evaluate."""
    targets = [name for name in predicted if name != _BACKGROUND]
    if len(targets) == 1 and len(true) == 1:
        known = {true[0]: predicted.index(targets[0])}
    else:
        known = {name: place for place, name in enumerate(predicted) if name in true and name is not None}
        if wanted is None and (set(known) != set(true) or set(known) != set(targets)):
            raise EvaluationError(
                f"The prediction{of_scene(scene.name)} is of the classes {', '.join(map(str, targets))}, and its truth knows "
                f"{', '.join(true)}: name those to evaluate with classes=[...]"
            )
    for name in wanted or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "evaluate one of those that both have."
            raise EvaluationError(
                f"Class {name!r} is not among those that prediction ({', '.join(map(str, targets))}) and truth "
                f"({', '.join(true)}){of_scene(scene.name)} share: {hint}"
            )
    evaluated = [name for name in true if name in (known if wanted is None else wanted)]
    if not evaluated:
        raise EvaluationError(f"No class{of_scene(scene.name)} is to be evaluated: classes is empty.")
    return [(known[name], true.index(name) + 1) for name in evaluated]


def _by_class(prediction: xr.DataArray, places: Sequence[int]) -> xr.DataArray:
    several = prediction if "class" in prediction.dims else prediction.expand_dims("class")
    picked = several.transpose("class", "y", "x").isel({"class": list(places)})
    return picked.drop_vars([name for name in picked.coords if name not in ("y", "x")])


def _levels_of(scene: EvaluationScene, probability: xr.DataArray) -> int:
    try:
        return thresholds_of(probability)
    except FootprintError as error:
        raise EvaluationError(f"The prediction{of_scene(scene.name)} has no probabilities: {error}") from error


def _valid(pred: xr.Dataset) -> xr.DataArray | None:
    return as_mask(pred["valid"].transpose("y", "x")) if "valid" in pred.data_vars else None


def _decided(
    scene: EvaluationScene,
    outputs: Mapping[str, xr.DataArray],
    valid: xr.DataArray | None,
    *,
    threshold: float | None,
    levels: int,
) -> xr.DataArray:
    """What was found: (class, y, x) uint8 1, 0, or `UNCOUNTED` where any answer is missing or not valid."""
    name, cure = "binary", "give a threshold"
    if threshold is not None:
        name, cure = "probability", "evaluate it without a threshold"
    if name not in outputs:
        raise EvaluationError(f"The prediction{of_scene(scene.name)} has no {name}: {cure}.")
    if threshold is None:
        found: xr.DataArray = xr.apply_ufunc(is_found, outputs[name], dask="parallelized", output_dtypes=[bool])
    else:
        steps = outputs[name]
        if steps.dtype.kind == "f":
            steps = xr.apply_ufunc(np.rint, steps * levels, dask="allowed")
        found = steps >= np.ceil(threshold * levels - 1e-3)  # as `PixelTally.above` does
    decided = found.astype(np.uint8)
    if threshold is None:
        decided = decided.where((outputs[name] == 0) | (outputs[name] == 1), np.uint8(NEITHER))
    if "probability" in outputs:
        decided = decided.where(~missing_pixels(outputs["probability"]), np.uint8(UNCOUNTED))
    if "binary" in outputs:
        decided = decided.where(~missing_pixels(outputs["binary"], undeclared=None), np.uint8(UNCOUNTED))
    if valid is not None:
        decided = decided.where(valid, np.uint8(UNCOUNTED))
    return decided.transpose("class", "y", "x")


def _outline_case(scene: EvaluationScene, classes: Sequence[str] | None) -> OutlineCase:
    assert isinstance(scene.prediction, gpd.GeoDataFrame), "checked by the caller"
    assert isinstance(scene.truth, gpd.GeoDataFrame), "checked by the scene"
    found = _checked_outlines(scene, scene.prediction, what="prediction")
    true = _checked_outlines(scene, scene.truth, what="truth")
    named = {str(name) for table in (found, true) for name in _named(table)}
    name = next(iter(_named(true)), next(iter(_named(found)), _TARGET))
    if classes is not None and list(classes) != [name]:
        raise EvaluationError(
            f"The outlines{of_scene(scene.name)} are of {', '.join(sorted(named)) or 'a class without a name'}, not of "
            f"{', '.join(classes)}, to be evaluated: select the outlines of one class before."
        )
    mapped = scene.mapped
    if isinstance(mapped, xr.Dataset):
        _check_shape(scene, mapped)
        mapped = _mapped_ground(mapped, found, true)
    elif mapped is not None:
        mapped = _checked_outlines(scene, mapped.drop(columns="class_name", errors="ignore"), what="mapped ground")
    return OutlineCase(
        name=scene.name, region=scene.region, classes=(str(name),), found=found, true=true, mapped=mapped
    )


def _mapped_ground(pred: xr.Dataset, *tables: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Outline the valid pixels of a map in all blocks that outlines meet, so that a large map is not read whole.

    Parameters
    ----------
    pred : xarray.Dataset
        (y, x), as `predict_cube` returns it: its `valid`, or else what is not missing in `binary` or `probability`.
    *tables : geopandas.GeoDataFrame
        Valid Polygons or MultiPolygons in any CRS.

    Returns
    -------
    geopandas.GeoDataFrame
        Polygons in the CRS of the map; no row where outlines meet no valid pixel.
    """
    grid = geobox_of(pred)
    met: set[tuple[int, int]] = set()
    for table in tables:
        crs = CRS.from_user_input(table.crs)
        placed, _ = to_pixels(np.asarray(table.geometry.array, np.object_), crs, grid, margin=0)
        for left, top, right, bottom in shapely.bounds(shapely.get_parts(placed)).reshape(-1, 4).tolist():
            met |= {*product(_blocks(top, bottom, grid.shape.y), _blocks(left, right, grid.shape.x))}
    valid = _mapped_pixels(pred)
    parts = []
    for row, column in sorted(met):
        origin = (row * _BLOCK, column * _BLOCK)
        window = valid[origin[0] : origin[0] + _BLOCK, origin[1] : origin[1] + _BLOCK].to_numpy()
        if window.any():
            parts.append(polygonize(window.astype(np.int32), 1, origin=origin)[0])
    pixels = shapely.transform(np.array(parts, np.object_), lambda xy: np.stack(grid.affine * xy.T, axis=1))
    return gpd.GeoDataFrame(geometry=pixels, crs=str(grid.crs))


def _blocks(low: float, high: float, size: int) -> range:
    """Numbers of the blocks along one axis that a stretch of pixels meets."""
    return range(math.floor(max(low, 0.0)) // _BLOCK, math.ceil(min(high, size) / _BLOCK))


def _mapped_pixels(pred: xr.Dataset) -> xr.DataArray:
    valid = _valid(pred)
    if valid is not None:
        return valid
    known = ~missing_pixels(pred["binary" if "binary" in pred.data_vars else "probability"])
    return known.transpose("y", "x", ...) if "class" not in known.dims else known.all("class").transpose("y", "x")


def _named(table: gpd.GeoDataFrame) -> list[str]:
    return list(table["class_name"].dropna().unique()) if "class_name" in table.columns else []


def _checked_outlines(scene: EvaluationScene, table: gpd.GeoDataFrame, *, what: str) -> gpd.GeoDataFrame:
    where = f"of the {what}{of_scene(scene.name)}"
    if what == "truth":
        _, absent, _ = marked_absent(table)
        table = table[~absent]
    if table.crs is None:
        raise EvaluationError(f"The outlines {where} need a CRS, but it is None: set it with outlines.set_crs(...).")
    kinds = sorted({str(kind) for kind in table.geom_type.unique()} - {"Polygon", "MultiPolygon"})
    if kinds:
        raise EvaluationError(
            f"The outlines {where} are Polygons or MultiPolygons, but there are {', '.join(kinds)} among them: leave these "
            "out, or repair the labels with rtsx.standardise_labels(...)."
        )
    broken = ~table.geometry.is_valid | table.geometry.is_empty
    if broken.any():
        raise EvaluationError(
            f"{int(broken.sum())} of {len(table)} outlines {where} are not valid; the first is row "
            f"{int(np.argmax(broken.to_numpy()))}: repair them with rtsx.standardise_labels(...) or outlines.make_valid()."
        )
    names = _named(table)
    if len(names) > 1:
        raise EvaluationError(
            f"The outlines {where} are of several classes, {', '.join(map(str, names))}: evaluate one at a time; in Python, "
            "outlines[outlines['class_name'] == ...] selects it."
        )
    return table
