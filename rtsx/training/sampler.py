"""Which tiles a training shows, in which order: a pure function of the index, the seed and the epoch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from rtsx.errors import TrainingError
from rtsx.model import InputLayer
from rtsx.training.recipe import SamplingSpec, TrainingRecipe
from rtsx.training.run_folder import RunFolder
from rtsx.training.tile_index import LABELLED, LEARNABLE, VALID, IntegralImage, SceneTiles, TileIndex, windows_of

_Places = NDArray[np.int64]

BLOCK_TILES = 8
"""Tiles along each side of a block: ground that is read together."""


def blocks_of(scenes: _Places, starts: _Places, *, tile: int) -> _Places:
    """Return the block of each tile (tile, 3): scene, row and column of blocks.

    Examples
    --------
    >>> blocks_of(np.array([0, 1]), np.array([[0, 300], [256, 0]]), tile=32).tolist()
    [[0, 0, 1], [1, 1, 0]]
    """
    return np.column_stack([scenes, starts // (BLOCK_TILES * tile)])


def shuffle_by_blocks(
    blocks: _Places, is_positive: NDArray[np.bool_], *, at_once: int, random: np.random.Generator
) -> _Places:
    """Order (tile,) in which tiles of so many blocks at a time are shown, mixed.

    Blocks come at random, those with a label and those without taking turns by their numbers, so that no part of an epoch is
    without labels as long as there are enough blocks that have some.

    Parameters
    ----------
    blocks
        Block of each tile, as `blocks_of` gives it.
    is_positive
        Which tiles have a label.
    at_once
        Blocks of which tiles are mixed, at least 1.
    random
        Where chance comes from.
    """
    _, numbers = np.unique(blocks, axis=0, return_inverse=True)
    numbers = numbers.reshape(-1)
    has_label = np.zeros(numbers.max(initial=-1) + 1, bool)
    has_label[numbers[is_positive]] = True
    # Where each kind of block stands in the epoch, from 0 to 1: in equal steps, so that the two take turns.
    turn = np.empty(len(has_label))
    for kind in (True, False):
        of_kind = random.permutation(np.flatnonzero(has_label == kind))
        turn[of_kind] = (np.arange(len(of_kind)) + 0.5) / max(len(of_kind), 1)
    rank = np.argsort(np.argsort(turn, kind="stable"), kind="stable")
    return np.lexsort([random.random(len(numbers)), rank[numbers] // at_once])


def seed_of(*parts: int | str) -> int:
    """Return a seed of 64 bits for numbers and words that say what is drawn; others for any other parts.

    A digest, instead of adding the parts up: epoch 1 of seed 0 must not repeat epoch 0 of seed 1.

    Examples
    --------
    >>> seed_of("draw", 0, 1) == seed_of("draw", 1, 0)
    False
    """
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


# Shifts that are tried for a tile before it stays where it is.
_TRIES = 8


@dataclass(frozen=True)
class TileAddress:
    """Where a tile lies."""

    scene: int
    """Number of the scene, from 0."""
    start: tuple[int, int]
    """Its first row and column, px."""
    skipped: tuple[int, int] = (0, 0)
    """Rows at its upper and columns at its left edge that another tile counts; they are shown, but their truth is ignored."""


def negatives_per_positive(sampling: SamplingSpec, *, epoch: int, epochs: int) -> float:
    """Return tiles without a label per tile with one: geometric from the first epoch's to the last one's.

    Examples
    --------
    >>> spec = SamplingSpec(negatives=1, final_negatives=16)
    >>> [negatives_per_positive(spec, epoch=epoch, epochs=5) for epoch in range(5)]
    [1.0, 2.0, 4.0, 8.0, 16.0]
    """
    if sampling.final_negatives is None or epochs < 2:
        return float(sampling.negatives)
    passed = min(epoch / (epochs - 1), 1.0)
    return float(sampling.negatives * (sampling.final_negatives / sampling.negatives) ** passed)


def tiles_of_epoch(
    there: tuple[int, int], *, sampling: SamplingSpec, epoch: int, epochs: int, count: int | None
) -> tuple[int, int]:
    """Return how many tiles with and without a label an epoch shows, of so many that there are; arguments are those of `sample_epoch`.

    Examples
    --------
    >>> tiles_of_epoch((10, 90), sampling=SamplingSpec(negatives=2), epoch=0, epochs=1, count=None)
    (10, 20)
    """
    positives, negatives = there
    ratio = negatives_per_positive(sampling, epoch=epoch, epochs=epochs)
    if count is None:
        return positives, round(positives * ratio) if negatives else 0
    shown = max(round(count / (1 + ratio)), 1) if negatives else count
    return shown, count - shown


def sample_epoch(
    index: TileIndex, *, sampling: SamplingSpec, epoch: int, epochs: int, seed: int, count: int | None = None
) -> tuple[TileAddress, ...]:
    """Draw the tiles of one epoch, shuffled.

    Each tile of a kind is shown once before any is shown again, so an epoch of fewer tiles than there are shows different
    ones each time; drawn by pixel, tiles with a label come as often as they have labelled pixels. Of those without one, some are
    drawn from what a review has refused. Tiles are mixed over all scenes, or over `blocks_at_once`: neighbours that follow each other spare reading,
    but batches of one place are poor gradients.

    With jitter each tile is moved by up to half its side within the scene, to where it is certain that it is still what it
    was drawn as: with a labelled pixel or without any, and with enough valid ones. Counts of cells tell; a tile of which
    they could not tell after some tries stays where it is.

    Parameters
    ----------
    index
        What there is.
    sampling
        Ratio of negatives to positives, now and at the end, part of hard ones, whether tiles are moved, and how far they are mixed.
    epoch, epochs
        Which epoch, from 0, of how many.
    seed
        Seed of the training.
    count
        Tiles of the epoch; None: as many as show each positive once. Where a kind of tile is missing, the other fills up
        what was asked for.

    Returns
    -------
    tuple of TileAddress
        Equal for equal arguments.

    Raises
    ------
    TrainingError
        The index holds no tile with a label.
    """
    random = np.random.default_rng(seed_of("tiles", seed, epoch))
    scenes = np.concatenate([np.full(len(scene.starts), n) for n, scene in enumerate(index.scenes)])
    starts = np.concatenate([scene.starts for scene in index.scenes])
    labelled = np.concatenate([scene.labelled for scene in index.scenes])
    is_positive = labelled > 0
    is_hard = np.concatenate([scene.is_hard for scene in index.scenes])
    positives, negatives = np.flatnonzero(is_positive), np.flatnonzero(~is_positive)
    if not len(positives):
        raise TrainingError("No tile with a label is left to draw. Give scenes with labels, or lower min_valid.")
    n_positive, n_negative = tiles_of_epoch(
        (len(positives), len(negatives)), sampling=sampling, epoch=epoch, epochs=epochs, count=count
    )
    if sampling.drawn_by == "pixel":
        shown = random.choice(positives, n_positive, p=labelled[positives] / labelled[positives].sum())
    else:
        shown = _cycled(positives, n_positive, random=random)
    hard = np.flatnonzero(is_hard)
    n_hard = round(n_negative * sampling.hard_negatives) if len(hard) else 0
    plain = negatives if not n_hard or len(hard) == len(negatives) else np.flatnonzero(~is_positive & ~is_hard)
    drawn = np.concatenate(
        [shown, _cycled(hard, n_hard, random=random), _cycled(plain, n_negative - n_hard, random=random)]
    )
    if sampling.blocks_at_once is None:
        random.shuffle(drawn)
    else:
        blocks = blocks_of(scenes[drawn], starts[drawn], tile=index.tile)
        order = shuffle_by_blocks(blocks, is_positive[drawn], at_once=sampling.blocks_at_once, random=random)
        drawn = drawn[order]
    places = starts[drawn]
    if sampling.jitter:
        for number, scene in enumerate(index.scenes):
            # What a review has refused stays in sight.
            of_scene = np.flatnonzero((scenes[drawn] == number) & ~is_hard[drawn])
            # Seeds of their own, so that tiles of one scene do not move with the number of tiles of another.
            moving = np.random.default_rng(seed_of("jitter", seed, epoch, number))
            places[of_scene] = _moved(
                places[of_scene], is_positive[drawn[of_scene]], index=index, scene=scene, random=moving
            )
    return tuple(TileAddress(int(scene), (int(y), int(x))) for scene, (y, x) in zip(scenes[drawn], places, strict=True))


def _cycled(tiles: NDArray[np.int64], count: int, *, random: np.random.Generator) -> NDArray[np.int64]:
    """So many of the tiles, each as often as any other or once more."""
    if not count:
        return tiles[:0]
    rounds = -(-count // len(tiles))
    return np.concatenate([random.permutation(tiles) for _ in range(rounds)])[:count]


def _moved(
    starts: NDArray[np.int64],
    is_positive: NDArray[np.bool_],
    *,
    index: TileIndex,
    scene: SceneTiles,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """Return starts (tile, 2) shifted at random, each to the first of some places where it stays what it is."""
    half = index.tile // 2
    last = np.maximum(np.array(scene.shape) - index.tile, 0)
    shifts = random.integers(-half, half, (_TRIES, *starts.shape), endpoint=True)
    moved = starts.copy()
    is_settled = np.zeros(len(starts), bool)
    for shift in shifts:
        left = np.flatnonzero(~is_settled)
        tried = np.clip(starts[left] + shift[left], 0, last)
        fits = _stays(tried, is_positive[left], index=index, scene=scene)
        moved[left[fits]] = tried[fits]
        is_settled[left[fits]] = True
    return moved


def _stays(
    starts: NDArray[np.int64], is_positive: NDArray[np.bool_], *, index: TileIndex, scene: SceneTiles
) -> NDArray[np.bool_]:
    """Test whether tiles that begin there (tile, 2) are certain to be of their kind and valid enough."""
    windows = windows_of(starts, tile=index.tile, shape=scene.shape)
    counts: IntegralImage = scene.counts
    certain, possible = counts.min_counts(windows), counts.max_counts(windows)
    area = min(index.tile, scene.shape[0]) * min(index.tile, scene.shape[1])
    is_enough = (certain[VALID] >= index.min_valid * area) & (certain[LEARNABLE] > 0)
    stays: NDArray[np.bool_] = np.where(is_positive, certain[LABELLED] > 0, possible[LABELLED] == 0) & is_enough
    return stays


def candidates(index: TileIndex) -> list[tuple[TileAddress, bool]]:
    """Return all tiles that can be drawn, scene by scene, and whether they have a label."""
    return [
        (TileAddress(number, (int(y), int(x))), bool(labelled))
        for number, scene in enumerate(index.scenes)
        for (y, x), labelled in zip(scene.starts, scene.labelled, strict=True)
    ]


def spread(tiles: Sequence[TileAddress], count: int) -> tuple[TileAddress, ...]:
    """So many of the tiles at even distances; all of them where there are no more."""
    chosen = np.linspace(0, len(tiles) - 1, min(count, len(tiles))).round().astype(int)
    return tuple(tiles[n] for n in chosen)


def validation_tiles(index: TileIndex) -> tuple[TileAddress, ...]:
    """Return tiles that show every pixel of the scenes and count each valid one exactly once, block by block.

    They lie side by side from the upper left; the last ones lie flush with the lower and right edge and skip what their
    neighbours count, instead of reaching beyond the scene, where there would be nothing to see. Blocks instead of rows,
    because a row of tiles crosses more chunks than a cache may hold.
    """
    addresses = [
        TileAddress(number, (start_y, start_x), (skipped_y, skipped_x))
        for number, scene in enumerate(index.scenes)
        for (start_y, skipped_y) in _side_by_side(scene.shape[0], index.tile)
        for (start_x, skipped_x) in _side_by_side(scene.shape[1], index.tile)
        if _has_valid(scene, (start_y + skipped_y, start_x + skipped_x), (start_y + index.tile, start_x + index.tile))
    ]
    block = BLOCK_TILES * index.tile
    return tuple(sorted(addresses, key=lambda one: (one.scene, one.start[0] // block, one.start[1] // block)))


def _side_by_side(length: int, tile: int) -> Sequence[tuple[int, int]]:
    """Start of each tile along an axis, and how much of it the one before has counted.

    Examples
    --------
    >>> _side_by_side(100, 32)
    [(0, 0), (32, 0), (64, 0), (68, 28)]
    """
    last = max(length - tile, 0)
    return [(min(start, last), max(start - last, 0)) for start in range(0, length, tile)]


def _has_valid(scene: SceneTiles, start: tuple[int, int], stop: tuple[int, int]) -> bool:
    window = np.array([[*start, *np.minimum(stop, scene.shape)]])
    return bool(scene.counts.max_counts(window)[VALID, 0])


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A recipe and what has been found out about its scenes. Walked twice, it gives the same batches."""

    recipe: TrainingRecipe
    """What was asked for; checked."""
    digest: str
    """Digest of the recipe and its data."""
    inputs: tuple[InputLayer, ...]
    """Channels of the network, with their scaling."""
    index: TileIndex = field(repr=False)
    """Tiles of the training scenes."""
    validation: tuple[TileAddress, ...] = field(repr=False)
    """Tiles of the validation scenes; empty without any."""
    folder: RunFolder
    """Where everything is kept."""
    num_workers: int
    """Processes that read tiles; 0 reads in a thread."""

    @cached_property
    def steps_of_epoch(self) -> tuple[int, ...]:
        """Batches of each epoch."""
        recipe, index = self.recipe, self.index
        if recipe.steps_per_epoch is not None:
            return (recipe.steps_per_epoch,) * recipe.epochs
        # A batch that would not be full is left out, because batch normalisation learns nothing good from one or two tiles.
        counted = partial(tiles_of_epoch, (index.n_positive, index.n_negative), sampling=recipe.sampling, count=None)
        return tuple(
            max(sum(counted(epoch=epoch, epochs=recipe.epochs)) // recipe.batch_size, 1)
            for epoch in range(recipe.epochs)
        )

    @property
    def steps(self) -> int:
        """Batches of all epochs."""
        return sum(self.steps_of_epoch)

    @property
    def first_step(self) -> tuple[int, ...]:
        """Number of each epoch's first step, from 0; one more at the end."""
        return tuple(accumulate(self.steps_of_epoch, initial=0))

    def batches(self, epoch: int) -> Sequence[tuple[TileAddress, ...]]:
        """Return tiles of each batch of an epoch, from 0. Every batch is full."""
        size = self.recipe.batch_size
        recipe, count = self.recipe, self.steps_of_epoch[epoch] * size
        tiles = sample_epoch(
            self.index, sampling=recipe.sampling, epoch=epoch, epochs=recipe.epochs, seed=recipe.seed, count=count
        )
        return [tiles[start : start + size] for start in range(0, len(tiles), size)]
