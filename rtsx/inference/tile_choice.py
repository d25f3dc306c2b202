"""The choice of tile, overlap and trim where the caller leaves it to us. Pure: bundles' numbers in, a plan out.

For a network whose output depends on a finite neighbourhood, every tiling whose trim covers the receptive field gives the same
output, so the cheapest is taken. One that looks at the whole tile (squeeze-and-excitation, pooling, attention) gets
the tile it was trained with.
"""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from rtsx.errors import PlanError
from rtsx.tiling import Blend, TilePlan

# Candidates for a tile are this far apart, in pixels: finer steps change the cost by less than a per cent.
_GRAIN = 32

TileChoice = int | Literal["auto", "bundle"]
"""Pixels, or who chooses them."""


@dataclass(frozen=True, kw_only=True)
class TilingNeeds:
    """Combined needs of the members of an ensemble."""

    stride: int
    """Least common multiple of the networks' strides, in pixels."""
    tile: int
    """Tile that the first was trained with."""
    overlap: int
    """Overlap that it is used with."""
    trim: int | None
    """Its trim; None where it says nothing."""
    reach: int | None
    """Largest distance at which a changed pixel moves the output of any member; None where one looks at the whole tile."""


def choose_tiling(
    shape: tuple[int, int],
    offset: tuple[int, int],
    *,
    habits: TilingNeeds,
    tile: TileChoice,
    overlap: TileChoice,
    trim: int | None,
    blend: Blend,
    largest: int,
    cost: Callable[[TilePlan], float] | None = None,
) -> TilePlan:
    """Choose the tiling of a raster.

    Parameters
    ----------
    shape, offset
        Pixels of the raster, and the position of its first one on the grid, (y, x).
    habits
        What the bundles need.
    tile, overlap
        Pixels, `"bundle"` or `"auto"`.
    trim
        Pixels on each side of a tile that never count; None for the default.
    blend
        How neighbours are joined.
    largest
        Largest tile that the memory holds, in pixels.
    cost
        What the tiling of least cost is looked for by; None for the over-compute of the raster as a whole.

    Examples
    --------
    >>> habits = TilingNeeds(stride=32, tile=256, overlap=64, trim=None, reach=50)
    >>> print(choose_tiling((4096, 4096), (0, 0), habits=habits, tile="auto", overlap="auto", trim=None,
    ...                     blend="linear", largest=3000))
    4 tiles of 2176 px, overlap 128, trim 50, linear, over 4096 x 4096 px: over-compute 1.13
    """
    if blend == "crop" and trim is not None:
        raise PlanError(f"blend='crop' trims half the overlap by itself; got trim={trim}. Leave trim out.")
    for name, choice in (("tile", tile), ("overlap", overlap)):
        if not isinstance(choice, int) and choice not in ("auto", "bundle"):
            raise PlanError(f"{name} has to be a number of pixels, 'auto' or 'bundle'; got {choice!r}.")
    if tile == "auto" and (habits.reach is None or 4 * habits.reach > largest):
        tile = "bundle"  # nothing larger is known to give the same output, or to fit
    size = habits.tile if tile == "bundle" else tile
    shared = _overlap(size, overlap, habits=habits)
    edge = _trim(shared, trim, blend=blend, habits=habits, by_reach=overlap == "auto" or size == "auto")

    def plan(pixels: int) -> TilePlan:
        return TilePlan(
            shape=shape, offset=offset, tile=pixels, overlap=shared, trim=edge, stride=habits.stride, blend=blend
        )

    if size != "auto":
        return plan(size)
    grain = -(-_GRAIN // habits.stride) * habits.stride
    least = max(2 * shared, grain)
    candidates = [plan(pixels) for pixels in range(-(-least // grain) * grain, largest + 1, grain)]
    return (
        min(candidates, key=cost or attrgetter("over_compute"))
        if candidates
        else plan(-(-(shared + 1) // grain) * grain)
    )


def _overlap(tile: int | Literal["auto"], overlap: TileChoice, *, habits: TilingNeeds) -> int:
    if isinstance(overlap, int):
        return overlap
    if overlap == "bundle" or habits.reach is None:
        return habits.overlap if tile == "auto" else min(habits.overlap, _below_half(tile, habits.stride))
    covering = 2 * -(-max(habits.reach, habits.trim or 0) // habits.stride) * habits.stride
    return covering if tile == "auto" else min(covering, _below_half(tile, habits.stride))


def _below_half(tile: int, stride: int) -> int:
    return tile // 2 // stride * stride


def _trim(overlap: int, trim: int | None, *, blend: Blend, habits: TilingNeeds, by_reach: bool) -> int:
    if blend == "crop":
        return overlap // 2
    if trim is not None:
        return trim
    if by_reach and habits.reach is not None:
        return min(max(habits.reach, habits.trim or 0), overlap // 2)
    return overlap // 8 if habits.trim is None else min(habits.trim, overlap // 2)
