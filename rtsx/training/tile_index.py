"""Tiles of scenes, and how much of each is valid and labelled, from one pass over the chunks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Self

import numpy as np
import shapely
from numpy.typing import NDArray

from rtsx.errors import TrainingError
from rtsx.labels import IGNORED, TruthWindow
from rtsx.model import InputLayer
from rtsx.training.recipe import TrainingScene
from rtsx.training.scene_arrays import SceneArrays, every_layer

_Windows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegralImage:
    """Sums over cells of a raster: exact for windows whose sides lie on cuts, bounds for all others.

    Cells lie between the cuts of both axes, so where a tile begins and ends is a cut, whatever its size.

    Examples
    --------
    >>> counts = IntegralImage.empty((4, 4), rows=[2], columns=[2], kinds=1)
    >>> counts.add(np.eye(4, dtype=bool)[None], (slice(0, 4), slice(0, 4)))
    >>> summed = counts.summed()
    >>> windows = np.array([[0, 0, 4, 2], [1, 1, 3, 4]])
    >>> summed.min_counts(windows)[0], summed.max_counts(windows)[0]
    (array([2, 0]), array([2, 4]))
    """

    rows: NDArray[np.int64]
    """Cuts along y, from 0 to the height, rising."""
    columns: NDArray[np.int64]
    """Cuts along x, from 0 to the width, rising."""
    cells: NDArray[np.int64]
    """While it is filled: pixels of each kind in each cell (kind, row, column). Once `summed`: those above and to the left of
    each pair of cuts, one more along either axis."""

    @classmethod
    def empty(cls, shape: tuple[int, int], *, rows: Iterable[int], columns: Iterable[int], kinds: int) -> Self:
        """Nothing counted yet, over a raster of this shape with these cuts within."""
        cuts = [
            np.unique(np.clip([0, *wanted, length], 0, length)).astype(np.int64)
            for wanted, length in zip((rows, columns), shape, strict=True)
        ]
        cells = np.zeros((kinds, *(len(along) - 1 for along in cuts)), np.int64)
        return cls(rows=cuts[0], columns=cuts[1], cells=cells)

    def add(self, kinds: NDArray[np.bool_], window: TruthWindow) -> None:
        """Count pixels (kind, y, x) of a window into the cells, in place."""
        places: list[slice] = []
        breaks: list[NDArray[np.int64]] = []
        for cuts, part in zip((self.rows, self.columns), window, strict=True):
            first = int(np.searchsorted(cuts, part.start, "right")) - 1
            stop = int(np.searchsorted(cuts, part.stop, "left"))
            places.append(slice(first, stop))
            breaks.append(np.maximum(cuts[first:stop] - part.start, 0))
        for cells, pixels in zip(self.cells, kinds, strict=True):
            # One kind after the other and in 32 bits, because NumPy makes numbers of all pixels before it adds any.
            rows = np.add.reduceat(pixels, breaks[0], axis=0, dtype=np.uint32)
            cells[places[0], places[1]] += np.add.reduceat(rows, breaks[1], axis=1, dtype=np.int64)

    def summed(self) -> Self:
        """Return the same as sums from the upper left corner, which windows are counted by."""
        sums = np.pad(self.cells, ((0, 0), (1, 0), (1, 0))).cumsum(1).cumsum(2)
        return type(self)(rows=self.rows, columns=self.columns, cells=sums)

    def min_counts(self, windows: _Windows) -> NDArray[np.int64]:
        """Return pixels (kind, window) of the cells that lie wholly in windows (window, 4) of start y, x and stop y, x."""
        return self._counted(windows, wholly=True)

    def max_counts(self, windows: _Windows) -> NDArray[np.int64]:
        """Return pixels (kind, window) of the cells that share a pixel with windows (window, 4)."""
        return self._counted(windows, wholly=False)

    def _counted(self, windows: _Windows, *, wholly: bool) -> NDArray[np.int64]:
        # The first and last cut within a window, or those around it.
        top, left, bottom, right = (
            np.searchsorted(cuts, windows[:, side], "left" if is_start == wholly else "right") - (is_start != wholly)
            for side, (is_start, cuts) in enumerate(product((True, False), (self.rows, self.columns)))
        )
        bottom, right = np.maximum(bottom, top), np.maximum(right, left)  # a window within a cell holds none wholly
        sums = self.cells
        between: NDArray[np.int64] = (
            sums[:, bottom, right] - sums[:, top, right] - sums[:, bottom, left] + sums[:, top, left]
        )
        return between


VALID, LEARNABLE, LABELLED = range(3)
"""What is counted: pixels that can be trusted; those of them whose truth is not ignored; those of these that have a class."""

# Cells of an eighth of a tile, but of 16 px at least: fine enough to know a shifted tile by, a few MB for 20,000 px squared.
_CELLS_PER_TILE = 8
_LEAST_CELL = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneTiles:
    """Candidate tiles of one scene: half a tile from each other, and the last ones flush with its lower and right edge."""

    name: str
    shape: tuple[int, int]
    """Height and width of the scene, px."""
    starts: NDArray[np.int64]
    """First row and column (tile, 2) of those with enough valid pixels and one to learn from."""
    valid: NDArray[np.int64]
    """Pixels (tile,) that inference would trust."""
    labelled: NDArray[np.int64]
    """Pixels (tile,) of them that have a class and are not ignored."""
    is_hard: NDArray[np.bool_]
    """Tiles (tile,) without a label that show something that a review has refused."""
    counts: IntegralImage
    """The same three kinds (valid, learnable, labelled) for any other window, exactly or within bounds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TileIndex:
    """The tiles that can be drawn, scene by scene."""

    tile: int
    """Side of a tile, px."""
    min_valid: float
    """Part of a tile's pixels that are valid at least."""
    scenes: tuple[SceneTiles, ...]
    """In the order of the scenes."""

    @property
    def n_positive(self) -> int:
        """Tiles with a labelled pixel."""
        return sum(int((scene.labelled > 0).sum()) for scene in self.scenes)

    @property
    def n_negative(self) -> int:
        """Tiles without."""
        return sum(int((scene.labelled == 0).sum()) for scene in self.scenes)


def tile_starts(length: int, tile: int) -> list[int]:
    """Return where candidate tiles begin along an axis of `length` px; 0 alone where a tile is longer.

    Half a tile apart, because then each object of up to half a tile lies whole in one of them.

    Examples
    --------
    >>> tile_starts(100, 32)
    [0, 16, 32, 48, 64, 68]
    """
    last = max(length - tile, 0)
    return sorted({*range(0, last + 1, max(tile // 2, 1)), last})


def windows_of(starts: NDArray[np.int64], *, tile: int, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return windows (tile, 4) of start y, x and stop y, x, without what lies beyond the scene."""
    return np.concatenate([starts, np.minimum(starts + tile, shape)], axis=1)


def index_tiles(
    scenes: Sequence[TrainingScene], *, inputs: Sequence[InputLayer] | None, tile: int, min_valid: float
) -> TileIndex:
    """Find the tiles of scenes, and count their valid and labelled pixels.

    Each chunk of a scene is computed once and only counts are kept, so memory does not grow with the scene.

    Parameters
    ----------
    scenes
        At least one, all of the same classes. A scene without labels is fine, as long as another has some.
    inputs
        Channels of the network, which say what a pixel needs to be valid; None: every layer of the first scene.
    tile
        Side of a tile, px.
    min_valid
        Part of a tile's pixels, of those within the scene, that have to be valid for it to be kept.

    Raises
    ------
    TrainingError
        A layer is missing or cannot be read, or no tile is left to learn a class from; the message names the scenes.
    """
    wanted = every_layer(scenes[0]) if inputs is None else inputs
    counted = [_counted(scene, SceneArrays(scene, inputs=wanted), tile=tile) for scene in scenes]
    index = TileIndex(
        tile=tile,
        min_valid=min_valid,
        scenes=tuple(
            _scene_tiles(scene, counts, tile=tile, min_valid=min_valid)
            for scene, (counts, _) in zip(scenes, counted, strict=True)
        ),
    )
    _check_learnable(index, with_class=[some for _, some in counted])
    if len(scenes[0].truth.classes) == 1:
        _check_contrast(index)
    return index


def _counted(scene: TrainingScene, stored: SceneArrays, *, tile: int) -> tuple[IntegralImage, int]:
    """Return counts of a scene, and how many of its pixels have a class at all, valid or not."""
    cell = max(tile // _CELLS_PER_TILE, _LEAST_CELL)
    cuts = [
        {*starts, *(start + tile for start in starts), *range(0, length, cell)}
        for length, starts in ((length, tile_starts(length, tile)) for length in stored.shape)
    ]
    counts = IntegralImage.empty(stored.shape, rows=cuts[0], columns=cuts[1], kinds=3)
    with_class = 0
    for index, window in stored.chunks():
        pixels = stored.chunk(index)
        truth = pixels.truth
        has_class = (truth != 0) & (truth != IGNORED)
        known = len(scene.truth.classes)
        if truth[has_class].max(initial=0) > known:
            raise TrainingError(
                f"The truth of scene {scene.name!r} has the value {truth[has_class].max()}, but {known} classes "
                f"({', '.join(scene.truth.classes)}): 0 is none, 1 the first of them, {IGNORED} ignored. Name every class."
            )
        learnable = pixels.valid & (truth != IGNORED)
        counts.add(np.stack([pixels.valid, learnable, learnable & has_class]), window)
        with_class += int(has_class.sum())
    return counts.summed(), with_class


def _scene_tiles(scene: TrainingScene, counts: IntegralImage, *, tile: int, min_valid: float) -> SceneTiles:
    shape = scene.truth.shape
    y, x = (tile_starts(length, tile) for length in shape)
    starts = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.int64)
    found = counts.min_counts(windows_of(starts, tile=tile, shape=shape))
    area = min(tile, shape[0]) * min(tile, shape[1])
    kept = (found[VALID] >= min_valid * area) & (found[LEARNABLE] > 0)
    return SceneTiles(
        name=scene.name,
        shape=shape,
        starts=starts[kept],
        valid=found[VALID, kept],
        labelled=found[LABELLED, kept],
        is_hard=_shows(getattr(scene.truth, "refused", ()), starts[kept], tile=tile) & (found[LABELLED, kept] == 0),
        counts=counts,
    )


def _shows(outlines: Sequence[shapely.Geometry], starts: NDArray[np.int64], *, tile: int) -> NDArray[np.bool_]:
    """Return which tiles that begin there (tile, 2) meet any of some outlines in pixel coordinates."""
    shows = np.zeros(len(starts), bool)
    if len(outlines):
        y, x = starts.T
        tiles = shapely.STRtree(shapely.box(x, y, x + tile, y + tile))
        shows[tiles.query(np.asarray(outlines, np.object_), predicate="intersects")[1]] = True
    return shows


def _check_contrast(index: TileIndex) -> None:
    """Refuse scenes of one class of which every pixel that is learnt from has it, as of masks whose 0 is their nodata."""
    totals = [scene.counts.cells[:, -1, -1] for scene in index.scenes]
    learnable, labelled = (int(sum(total[kind] for total in totals)) for kind in (LEARNABLE, LABELLED))
    if learnable == labelled:
        raise TrainingError(
            f"Each of the {labelled} pixels that would be learnt from is of the class, and none shows what it is not. Where labels are a raster, is 0 "
            "its nodata? gdal_translate -a_nodata none OLD NEW makes that a value."
        )


def _check_learnable(index: TileIndex, *, with_class: Sequence[int]) -> None:
    """Refuse scenes that no class can be learnt from, by the first reason that explains it."""
    if index.n_positive:
        return
    totals = [scene.counts.cells[:, -1, -1] for scene in index.scenes]
    valid, learnable, labelled = (int(sum(total[kind] for total in totals)) for kind in (VALID, LEARNABLE, LABELLED))
    each = ", ".join(
        f"{scene.name} ({total[VALID]} valid px, {some} px with a class)"
        for scene, total, some in zip(index.scenes, totals, with_class, strict=True)
    )
    if not valid:
        reason, cure = "no pixel is valid", "Look at nodata values and masks of the cubes"
    elif not learnable:
        reason, cure = "every valid pixel is ignored", "Narrow the ignored band, or ignore fewer values"
    elif not any(with_class):
        reason, cure = "no label lies within them", "Look at CRS, place and class of the labels"
    elif not labelled:
        reason, cure = "labels lie only on pixels that are invalid or ignored", "Look at masks and nodata values there"
    else:
        reason = f"no tile of {index.tile} px with a label has {index.min_valid:.0%} valid pixels"
        cure = "Lower min_valid"
    raise TrainingError(f"There is no positive pixel to learn from in the scenes: {reason}. {cure}. Scenes: {each}.")
