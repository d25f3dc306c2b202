"""The dask driver: the blocks of all scenes as one graph, each chunk computed once, and the kernel that counts one block."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import Any, TypeVar, cast
from uuid import uuid4

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import compute
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from rtsx.errors import EvaluationError
from rtsx.evaluation.cases import NEITHER, UNCOUNTED, EvaluationSettings, RasterCase, of_scene
from rtsx.evaluation.counts import ClassCounts, ObjectPieces, join_pieces, pieces_of, pixel_area_m2
from rtsx.footprints.blocks import ExtractionBlock, ExtractionPlan
from rtsx.footprints.class_maps import FAR_FROM_ONE, OF_NO_LEVEL
from rtsx.footprints.extract import add_window, boxed
from rtsx.labels import IGNORED, LabelRaster, TruthWindow
from rtsx.scores import PixelTally, boundary_buffer


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockCounts:
    """What remains of a block, or of several, when its pixels are forgotten."""

    counts: tuple[ClassCounts, ...]
    """One for each class, without objects."""
    pieces: tuple[tuple[ObjectPieces, ...], ...]
    """For each class the objects, block by block."""

    def __add__(self, other: "BlockCounts") -> "BlockCounts":
        return BlockCounts(
            counts=tuple(one + more for one, more in zip(self.counts, other.counts, strict=True)),
            pieces=tuple(one + more for one, more in zip(self.pieces, other.pieces, strict=True)),
        )


def count_block(
    decided: NDArray[np.uint8],
    probability: NDArray[Any] | None,
    truth: NDArray[np.uint8],
    *,
    block: ExtractionBlock,
    numbers: tuple[int, ...],
    levels: int,
    boundary: int,
) -> BlockCounts:
    """Count one block.

    Parameters
    ----------
    decided
        (class, y, x) of the block with a halo of `boundary` pixels, cut to the raster: 1 found, 0 not, `UNCOUNTED`.
    probability
        (class, y, x) of the block alone, uint8 in `levels` steps or float 0-1; None for none.
    truth
        (y, x) of the block with the same halo, coded as by `LabelRaster`.
    block
        Where it lies.
    numbers
        Value of each class in the truth.
    levels
        Steps between probability 0 and 1.
    boundary
        Width of the bands, px.
    """
    (tall, wide), (y, x) = block.halo(boundary), block.window
    core = (slice(y.start - tall.start, y.stop - tall.start), slice(x.start - wide.start, x.stop - wide.start))
    counts, pieces = [], []
    for place, number in enumerate(numbers):
        counted = (decided[place] != UNCOUNTED) & (truth != IGNORED)
        if (counted & (decided[place] == NEITHER)).any():
            raise EvaluationError(
                "binary is 1 where an object is, 0 elsewhere, and its _FillValue where nothing is known, but a pixel that counts has another "
                "value: recode it, or mark such pixels in `valid`"
            )
        found, true = counted & (decided[place] == 1), counted & (truth == number)
        bands = [boundary_buffer(mask, counted, distance=boundary)[core] for mask in (found, true)]
        inner_counted, inner_found, inner_true = counted[core], found[core], true[core]
        n_hits, n_found, n_true = (
            int(np.count_nonzero(mask)) for mask in (inner_found & inner_true, inner_found, inner_true)
        )
        rest = int(np.count_nonzero(inner_counted)) - n_found - n_true + n_hits
        tally = None
        if probability is not None:
            values = probability[place][inner_counted]
            check_range(values, levels=levels, window=block.window)
            tally = PixelTally.of(values, inner_true[inner_counted], levels=levels)
        counts.append(
            ClassCounts(
                extent=np.array([n_hits, n_found - n_hits, n_true - n_hits, rest], np.float64),
                boundary=np.array([np.count_nonzero(bands[0] & bands[1]), np.count_nonzero(bands[0] | bands[1])]),
                objects=np.zeros(3, np.int64),
                tally=tally,
            )
        )
        pieces.append((pieces_of(inner_found, inner_true, block=block),))
    return BlockCounts(counts=tuple(counts), pieces=tuple(pieces))


def check_range(values: NDArray[Any], *, levels: int, window: TruthWindow) -> None:
    """Refuse valid probabilities of a window that are none: floats beyond 0 to 1, integers beyond their levels.

    Raises
    ------
    EvaluationError
        Says where.
    """
    greatest = 1.0 if values.dtype.kind == "f" else levels
    if values.size and not 0 <= values.min() <= values.max() <= greatest:
        y, x = window
        raise EvaluationError(
            f"probability runs from 0 to {greatest:g}, but a pixel in rows {y.start}-{y.stop - 1}, columns "
            f"{x.start}-{x.stop - 1} has {values.max()} or {values.min()}: {FAR_FROM_ONE if values.dtype.kind == 'f' else OF_NO_LEVEL}"
        )


_BLOCK_SIZE = 2048
"""Side of the blocks, in pixels, in which arrays in memory are worked through."""
_FAN_IN = 16
"""Results that one task adds up."""
_STRIP_PIXELS = 2**20
"""Pixels that a kernel of `reduce_blocks` is given at a time."""


def evaluate_rasters(cases: Sequence[RasterCase], *, rule: EvaluationSettings) -> list[tuple[ClassCounts, ...]]:
    """Counts of each scene by class."""
    # Before anything is computed, because a scene without a place on the ground is refused at once.
    least = [least_pixels(case, rule.min_object_area_m2) for case in cases]
    counted = count_rasters(cases, rule=rule)
    return [_finished(case, one, rule=rule, least=n) for case, one, n in zip(cases, counted, least, strict=True)]


def count_rasters(cases: Sequence[RasterCase], *, rule: EvaluationSettings) -> list[BlockCounts]:
    """Count scenes, computed in one go on the scheduler that is in force.

    What a block leaves behind are counts and the objects, of which those at seams keep the pixels there.
    """
    pending = [_lazy(case, rule=rule) if _is_lazy(case) else _direct(case, rule=rule) for case in cases]
    lazy = iter(compute(*(each for each in pending if isinstance(each, da.Array))))
    return [next(lazy)[0] if isinstance(each, da.Array) else each for each in pending]


Sum = TypeVar("Sum")


def reduce_blocks(stacked: xr.DataArray, kernel: Callable[[NDArray[Any], TruthWindow], Sum]) -> Sum:
    """The sum of what a kernel returns for parts of an array (layer, y, x) and their windows; each chunk computed once.

    Parts have at most `_STRIP_PIXELS` pixels, or one row, whatever the chunks, so that a kernel's memory is bounded.
    """
    height, width = stacked.shape[1:]
    if stacked.chunks is None:
        blocks = ExtractionPlan.regular((height, width), size=_BLOCK_SIZE).blocks
        return _total([_reduced(kernel, stacked.values[:, *block.window], block.window) for block in blocks])
    whole = da.asarray(stacked.data).rechunk({0: -1})
    plan = ExtractionPlan(rows=whole.chunks[1], columns=whole.chunks[2])
    name = f"reduce-{uuid4().hex}"
    graph: dict[Any, Any] = {f"{name}-kernel": kernel}
    level: list[Any] = []
    for number, block in enumerate(plan.blocks):
        level.append((f"{name}-block", number))
        chunk = (whole.name, 0, *divmod(number, len(plan.columns)))
        graph[level[-1]] = (_reduced, f"{name}-kernel", chunk, block.window)
    return cast("Sum", _summed(name, graph, level, sources=[whole]).compute()[0])


def _reduced(kernel: Callable[[NDArray[Any], TruthWindow], Sum], chunk: NDArray[Any], window: TruthWindow) -> Sum:
    rows, columns = window
    step = max(1, _STRIP_PIXELS // chunk.shape[2])
    starts = range(0, chunk.shape[1], step)
    windows = [slice(rows.start + start, min(rows.start + start + step, rows.stop)) for start in starts]
    return _total(
        [kernel(chunk[:, part.start - rows.start : part.stop - rows.start], (part, columns)) for part in windows]
    )


def _finished(
    case: RasterCase, counted: BlockCounts, *, rule: EvaluationSettings, least: int
) -> tuple[ClassCounts, ...]:
    if not any(each.extent.any() for each in counted.counts):
        raise EvaluationError(
            f"No pixel{of_scene(case.name)} counts: nowhere is the prediction valid where the truth is known. Is this the "
            "right truth, and is any of the prediction valid?"
        )
    finished = []
    for counts, parts in zip(counted.counts, counted.pieces, strict=True):
        pieces = ObjectPieces.concatenate(parts)
        scores = join_pieces(pieces, columns=case.decided.sizes["x"]).at_least(least).match(rule.object_iou)
        objects = np.array([scores.matched, scores.found, scores.true])
        finished.append(
            ClassCounts(extent=counts.extent, boundary=counts.boundary, objects=objects, tally=counts.tally)
        )
    return tuple(finished)


def least_pixels(case: RasterCase, area_m2: float) -> int:
    """Return how many pixels an object of a scene has at least, of an area on the ground."""
    if area_m2 == 0:
        return 1
    # Less a billionth, because 288 m² are 32 pixels of 9 m² and not 33 of a little less.
    return max(1, math.ceil(area_m2 / pixel_area_m2(case.prediction) - 1e-9))


def _is_lazy(case: RasterCase) -> bool:
    return any(array is not None and array.chunks is not None for array in (case.decided, case.probability))


def _direct(case: RasterCase, *, rule: EvaluationSettings) -> BlockCounts:
    height, width = case.truth.shape
    counted = []
    for block in ExtractionPlan.regular((height, width), size=_BLOCK_SIZE).blocks:
        decided = case.decided.values[:, *block.halo(rule.boundary)]
        probability = None if case.probability is None else case.probability.values[:, *block.window]
        counted.append(_task(case, block, rule=rule)(case.truth, decided, probability))
    return reduce(add, counted)


def _lazy(case: RasterCase, *, rule: EvaluationSettings) -> da.Array:
    """Counts of a scene as an array of one object.

    A graph of our own, instead of `map_overlap`, because that gives a halo to every array, also to the probabilities,
    and instead of `delayed`, because that optimises each argument alone and so computes shared chunks more than once.
    """
    decided, probability = _whole_classes(case.decided), _whole_classes(case.probability)
    assert decided is not None, "every case has a decision"
    plan = ExtractionPlan(rows=decided.chunks[1], columns=decided.chunks[2])
    if probability is not None:
        probability = probability.rechunk({1: plan.rows, 2: plan.columns})
    # A name of its own, instead of one by the digest of the truth, because that would read a raster one time more.
    name = f"evaluate-{uuid4().hex}"
    truth = f"{name}-truth"
    graph: dict[Any, Any] = {truth: case.truth}
    level: list[Any] = []
    for number, block in enumerate(plan.blocks):
        at = divmod(number, len(plan.columns))
        halo = add_window(graph, decided, plan.parts(block.halo(rule.boundary)), name=name)
        level.append((f"{name}-block", number))
        chunk = None if probability is None else (probability.name, 0, *at)
        graph[level[-1]] = (_task(case, block, rule=rule), truth, halo, chunk)
    return _summed(name, graph, level, sources=[array for array in (decided, probability) if array is not None])


def _summed(name: str, graph: dict[Any, Any], level: list[Any], *, sources: Sequence[Any]) -> da.Array:
    """The sum of what some keys of a graph give, a few at a time where they are computed, as an array of one object."""
    depth = 0
    while len(level) > 1:
        depth += 1
        groups = [level[start : start + _FAN_IN] for start in range(0, len(level), _FAN_IN)]
        level = [(f"{name}-sum{depth}", number) for number in range(len(groups))]
        graph |= {key: (_total, group) for key, group in zip(level, groups, strict=True)}
    graph[name, 0] = (boxed, level[0])
    layered = HighLevelGraph.from_collections(name, graph, dependencies=sources)
    return da.Array(layered, name, chunks=((1,),), dtype=object)


def _whole_classes(array: xr.DataArray | None) -> da.Array | None:
    return None if array is None else da.asarray(array.data).rechunk({0: -1})


def _task(case: RasterCase, block: ExtractionBlock, *, rule: EvaluationSettings) -> Callable[..., BlockCounts]:
    # With its constants, because dask would take a tuple in a graph for a task or a key.
    return partial(
        _count, scene=case.name, block=block, boundary=rule.boundary, numbers=case.numbers, levels=case.levels
    )


def _total(parts: list[Sum]) -> Sum:
    return reduce(add, parts)


def _count(
    truth: LabelRaster,
    halo: NDArray[np.uint8] | list[list[NDArray[np.uint8]]],
    probability: NDArray[Any] | None,
    *,
    scene: str,
    block: ExtractionBlock,
    boundary: int,
    **how: Any,
) -> BlockCounts:
    """Count a block of a scene from its halo, whole or as the parts of chunks that make it up."""
    try:
        known = truth.read(block.halo(boundary))
        return count_block(np.block(halo), probability, known, block=block, boundary=boundary, **how)
    except EvaluationError as error:
        raise EvaluationError(f"Scene {scene!r} cannot be evaluated: {error}") from error
