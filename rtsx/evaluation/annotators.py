"""Agreement of annotators with each other, and where models stand among them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from rtsx.cube import geobox_of
from rtsx.errors import CubeError, EvaluationError
from rtsx.evaluation.cases import UNCOUNTED, EvaluationScene, RasterCase, Truth, case_of
from rtsx.evaluation.dask import reduce_blocks
from rtsx.labels import IGNORED, LabelRaster, TruthWindow
from rtsx.parsing import parsed_json
from rtsx.scores import AgreementCounts, PixelScores


@dataclass(frozen=True, kw_only=True, eq=False)
class Agreement:
    """How far annotators agree, with each other and with their majority, and models with them."""

    annotators: tuple[str, ...]
    """Their names, in order."""
    models: tuple[str, ...]
    """Names of what is compared with them."""
    counts: AgreementCounts = field(repr=False)
    """Pixels that they share, annotators first."""

    @property
    def mean_pairwise_iou(self) -> float:
        """Mean IoU over all pairs of annotators; NaN for one alone."""
        iou = self.counts.iou()
        pairs = iou[np.triu_indices(len(self.annotators), 1)]
        return float(pairs.mean()) if len(pairs) else float("nan")

    @property
    def majority_px(self) -> int:
        """Pixels that at least half of the annotators see as the target."""
        return self.counts.all_size

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """IoU of each with each, annotators and models, by name."""
        names = [*self.annotators, *self.models]
        return pd.DataFrame(self.counts.iou(), index=names, columns=names)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row for each annotator and model.

        `kind`; `target_px`, what it sees; `mean_iou`, over the annotators besides itself; `majority_iou` and
        `majority_f1`, against the majority of all, to which an annotator has added its own vote; `others_iou`,
        against the majority of the annotators besides itself, which is fair between annotators and models; `rank`,
        by that, from 1.
        """
        counts, rows = self.counts, []
        iou = counts.iou()
        for number, name in enumerate([*self.annotators, *self.models]):
            others = [other for other in range(len(self.annotators)) if other != number]
            with_all = self._scores(number, int(counts.all_shared[number]), counts.all_size)
            with_others = self._scores(number, int(counts.others_shared[number]), int(counts.others_size[number]))
            rows.append(
                {
                    "name": name,
                    "kind": "annotator" if number < len(self.annotators) else "model",
                    "target_px": int(counts.sizes[number]),
                    "mean_iou": float(iou[number, others].mean()) if others else float("nan"),
                    "majority_iou": with_all.iou,
                    "majority_f1": with_all.f1,
                    "others_iou": with_others.iou,
                }
            )
        table = pd.DataFrame(rows)
        table["rank"] = table["others_iou"].rank(ascending=False, method="min").astype(int)
        return table

    def _scores(self, number: int, shared: int, size: int) -> PixelScores:
        own = int(self.counts.sizes[number])
        rest = self.counts.counted - own - size + shared
        return PixelScores(hits=shared, false_alarms=own - shared, misses=size - shared, rejections=rest)

    def __str__(self) -> str:
        """The table, best first, and what the annotators have in common."""
        text: str = self.table.sort_values("rank", kind="stable").to_string(index=False, float_format="{:.3f}".format)
        return (
            f"{text}\nmean IoU of two annotators {self.mean_pairwise_iou:.3f}, "
            f"majority {self.majority_px} of {self.counts.counted} px"
        )

    def to_json(self) -> str:
        """Return everything as JSON; `from_json` reads it."""
        return json.dumps(asdict(self), default=np.ndarray.tolist)

    @classmethod
    def from_json(cls, document: str) -> "Agreement":
        """Return an agreement from its JSON.

        Raises
        ------
        EvaluationError
            It is none.
        """
        return parsed_json(document, cls, what="The agreement", error=EvaluationError)


def annotator_agreement(
    annotators: Mapping[str, Truth],
    like: xr.Dataset,
    *,
    models: Mapping[str, xr.Dataset] | None = None,
    class_name: str | None = None,
    threshold: float | None = None,
) -> Agreement:
    """Compare what several people have outlined on one ground, and models with them.

    A pixel is the target for an annotator if its centre lies in one of his outlines, and for the majority if it is for at
    least half of the annotators. It counts where no annotator has 255, all models are valid, and `like` is where it has a
    variable `valid`; on the same pixels for everyone. Computed block by block, each chunk of a model once.

    Parameters
    ----------
    annotators
        At least two, by name: polygons in any CRS, an integer raster (y, x) with its CRS, coded 0, 1 and 255 for unknown, or
        a `LabelRaster`.
    like
        What lies on the pixels that are compared: a cube or a prediction, with a CRS.
    models
        Predictions on the same pixels, by name.
    class_name
        The class that is compared; of polygons with a column `class_name`, those that have it. None: the only one that all
        know.
    threshold
        Least probability (0-1) of what a model found. None: its own decision.

    Raises
    ------
    EvaluationError
        Fewer than two annotators, two of one name, different grids, a missing CRS, no pixel that counts, or geometry
        that is no area.

    Examples
    --------
    >>> import shapely
    >>> import rioxarray
    >>> like = xr.Dataset({"red": (("y", "x"), np.zeros((4, 4)))}, coords={"y": [35, 25, 15, 5], "x": [5, 15, 25, 35]})
    >>> like = like.rio.write_crs("EPSG:32652")
    >>> drawn = {
    ...     "one": gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 20, 40)], crs="EPSG:32652"),
    ...     "two": gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 40, 20)], crs="EPSG:32652"),
    ... }
    >>> agreement = annotator_agreement(drawn, like)
    >>> round(agreement.mean_pairwise_iou, 3), agreement.majority_px
    (0.333, 12)
    """
    if len(annotators) < 2:
        raise EvaluationError(f"Agreement is between two annotators at least; got {len(annotators)}.")
    given = dict(models or {})
    if twice := sorted(set(annotators) & set(given)):
        raise EvaluationError(
            f"Annotators and models have names of their own, but both have {', '.join(twice)}: rename one."
        )
    classes = None if class_name is None else [class_name]
    _check_class(annotators, class_name)
    blank = _blank(like, class_name)
    drawn = [
        _case(name, blank, _of_class(labels, class_name), classes=classes, threshold=None)
        for name, labels in annotators.items()
    ]
    first = drawn[0].truth
    found = [_case(name, pred, first, classes=classes, threshold=threshold) for name, pred in given.items()]
    _check_grids(like, given)
    stacked = xr.concat([drawn[0].decided, *(case.decided for case in found)], dim="class", join="override")
    kernel = _Kernel(truths=tuple(case.truth for case in drawn), numbers=tuple(case.numbers[0] for case in drawn))
    counts = reduce_blocks(stacked, kernel)
    if not counts.counted:
        raise EvaluationError("No pixel counts: nowhere do all annotators know what is there and all models are valid.")
    return Agreement(annotators=tuple(annotators), models=tuple(given), counts=counts)


def _check_class(annotators: Mapping[str, Truth], class_name: str | None) -> None:
    tables = [one for one in annotators.values() if isinstance(one, gpd.GeoDataFrame) and "class_name" in one.columns]
    known = sorted({str(name) for table in tables for name in table["class_name"].dropna()})
    if class_name is not None and known and class_name not in known:
        raise EvaluationError(f"No annotator has outlined the class {class_name!r}; there are {', '.join(known)}.")


def _of_class(labels: Truth, class_name: str | None) -> Truth:
    """Return polygons of the class alone, where they say of which they are; anything else as it is."""
    if class_name is None or not isinstance(labels, gpd.GeoDataFrame) or "class_name" not in labels.columns:
        return labels
    return labels[labels["class_name"].isna() | (labels["class_name"] == class_name)]


def _blank(like: xr.Dataset, class_name: str | None) -> xr.Dataset:
    """Return a prediction of nothing on the pixels of `like`, for the checks that predictions and truths undergo."""
    try:
        geobox = geobox_of(like)
    except CubeError as error:
        raise EvaluationError(f"Annotators are compared on the pixels of a raster with a CRS: {error}") from error
    chunks = tuple(like.chunksizes.get(name, (length,)) for name, length in zip("yx", geobox.shape, strict=True))
    nothing = xr.zeros_like(xr.DataArray(np.broadcast_to(np.uint8(0), geobox.shape), dims=("y", "x")))
    blank = xr.Dataset({"binary": nothing.chunk(dict(zip("yx", chunks, strict=True))) if like.chunks else nothing})
    coords = {name: one for name, one in like.coords.items() if set(one.dims) <= {"y", "x"}}
    blank = blank.assign_coords(coords)
    if "valid" in like.data_vars:
        blank["valid"] = like["valid"]
    return blank if class_name is None else blank.assign_attrs(bundle_classes=[class_name])


def _case(
    name: str, pred: xr.Dataset, truth: Truth, *, classes: Sequence[str] | None, threshold: float | None
) -> RasterCase:
    case = case_of(EvaluationScene(name=name, prediction=pred, truth=truth), classes=classes, threshold=threshold)
    assert isinstance(case, RasterCase), "the prediction is a raster"
    return case


def _check_grids(like: xr.Dataset, models: Mapping[str, xr.Dataset]) -> None:
    for name, pred in models.items():
        try:
            differs = geobox_of(pred) != geobox_of(like)
        except CubeError as error:
            raise EvaluationError(f"Model {name!r} has no place on the ground: {error}") from error
        if differs:
            raise EvaluationError(
                f"Model {name!r} lies on another grid than the pixels that are compared: predict those."
            )


@dataclass(frozen=True)
class _Kernel:
    """Counts one block."""

    truths: tuple[LabelRaster, ...]
    """One for each annotator."""
    numbers: tuple[int, ...]
    """Value of the class in each of them."""

    def __call__(self, decided: NDArray[np.uint8], window: TruthWindow) -> AgreementCounts:
        """Count a block; the first of `decided` (model, y, x) says only where pixels count."""
        seen = [truth.read(window) for truth in self.truths]
        masks = [values == number for values, number in zip(seen, self.numbers, strict=True)]
        masks += [model == 1 for model in decided[1:]]
        counted = (decided != UNCOUNTED).all(axis=0) & (np.stack(seen) != IGNORED).all(axis=0)
        return AgreementCounts.of(np.stack(masks), counted, annotators=len(self.truths))
