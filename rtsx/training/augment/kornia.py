"""Kornia: tiles warped and blurred so that invalid pixels never leak into valid ones."""

import math

import torch

from rtsx.errors import MissingExtraError
from rtsx.labels import IGNORED
from rtsx.training.augment.aspect import ANGLES
from rtsx.training.batch import Batch

__all__ = ["blurred", "rotation", "warped", "zoom"]

_EXTRA = "Training needs the train extra: pip install 'rtsx[train]'."


def rotation(degrees: torch.Tensor, *, size: int) -> torch.Tensor:
    """Matrices (tile, 2, 3) that turn tiles about their middle, counter-clockwise by these angles (tile,)."""
    try:
        from kornia.geometry import get_rotation_matrix2d  # heavy, and part of an extra
    except ImportError as error:
        raise MissingExtraError(_EXTRA) from error
    middle = torch.full((len(degrees), 2), (size - 1) / 2)
    matrices: torch.Tensor = get_rotation_matrix2d(middle, degrees, torch.ones(len(degrees), 2))
    return matrices


def zoom(sides: torch.Tensor, corners: torch.Tensor, *, size: int) -> torch.Tensor:
    """Matrices (tile, 2, 3) that enlarge a square of each tile to the whole tile.

    Parameters
    ----------
    sides
        Side of each square, px, (tile,).
    corners
        Upper left corner of each square (tile, 2) as y, x: 0 is the outer edge of the first pixel.
    size
        Side of a tile, px.
    """
    factor = size / sides
    matrices = torch.zeros(len(sides), 2, 3)
    for row, axis in ((0, 1), (1, 0)):  # x comes first in a matrix
        matrices[:, row, row] = factor
        # A pixel's centre lies half a pixel from its edge, before and after.
        matrices[:, row, 2] = (0.5 - corners[:, axis]) * factor - 0.5
    return matrices


def warped(batch: Batch, matrices: torch.Tensor) -> Batch:
    """Tiles moved by matrices (tile, 2, 3) from old to new pixels, x first.

    Layers are bilinear over the valid ones of the four pixels around; `valid`, truth and angles, which have no mean, are
    those of the nearest pixel. What was not in the picture is invalid and ignored.
    """
    try:
        from kornia.geometry import warp_affine
    except ImportError as error:
        raise MissingExtraError(_EXTRA) from error
    size = (batch.valid.shape[-2], batch.valid.shape[-1])
    moves = matrices.to(batch.stored)
    is_angle = [name in ANGLES for name in batch.layers]
    weight = batch.valid[:, None].to(batch.stored)
    values = batch.stored.masked_fill(~batch.valid[:, None], 0)
    smooth = warp_affine(torch.cat([values, weight], 1), moves, size, mode="bilinear", padding_mode="zeros")
    # Truth is turned over, because what comes from outside is 0 and has to be IGNORED.
    turned_over = IGNORED - batch.truth[:, None].to(batch.stored)
    sharp = torch.cat([weight, turned_over, values[:, is_angle]], 1)
    nearest = warp_affine(sharp, moves, size, mode="nearest", padding_mode="zeros")
    valid = nearest[:, 0] > 0.5
    # The nearest pixel has a quarter of the weight or more, so that no valid pixel is divided by 0.
    stored = smooth[:, :-1] / smooth[:, -1:].clamp_min(0.1)
    stored[:, is_angle] = nearest[:, 2:]
    truth = (IGNORED - nearest[:, 1]).round().to(torch.uint8)
    return Batch(
        stored=stored.masked_fill_(~valid[:, None], 0),
        layers=batch.layers,
        packings=batch.packings,
        valid=valid,
        truth=truth,
    )


def blurred(values: torch.Tensor, valid: torch.Tensor, *, sigmas: torch.Tensor, widest: float) -> torch.Tensor:
    """Layers (tile, layer, y, x) smoothed by a Gaussian over valid pixels (tile, y, x) alone; invalid ones become 0.

    Parameters
    ----------
    values, valid
        What is smoothed.
    sigmas
        Standard deviation of each tile's Gaussian, px, (tile,).
    widest
        Greatest of them that could have been drawn: it gives the size of the kernel, so that no tile changes with those
        beside it.
    """
    try:
        from kornia.filters import gaussian_blur2d
    except ImportError as error:
        raise MissingExtraError(_EXTRA) from error
    side = 2 * math.ceil(3 * widest) + 1
    weight = valid[:, None].to(values)
    weighted = torch.cat([values.masked_fill(~valid[:, None], 0), weight], 1)
    both = sigmas.to(values)[:, None].expand(-1, 2)
    # A border of zeros has no weight, so what lies beyond the tile counts as little as what is invalid.
    smooth = gaussian_blur2d(weighted, side, both, border_type="constant")
    mean = smooth[:, :-1] / smooth[:, -1:].clamp_min(torch.finfo(values.dtype).tiny)
    return mean.masked_fill_(~valid[:, None], 0)
