"""The plan of one prediction: everything that its values depend on, and nothing of where they are computed; and what follows from it.

Frozen, comparable, printable; written into the attributes of every prediction. With it the turns of tiles that it names, the choice of
its tiling where the caller leaves that to us, and the blocks that it is run in. Pure.

For a network whose output depends on a finite neighbourhood, every tiling whose trim covers the receptive field gives the same
output, so the cheapest is taken. One that looks at the whole tile (squeeze-and-excitation, pooling, attention) gets
the tile it was trained with.

Blocks are the chunks of the cube. A tile belongs to the block in which its window begins, so every tile runs once; the
strips of its output that spill over the right and lower edge are handed over and added there. A block reads and spills
forwards only, so that row by row its chunk and its output can be freed as soon as its own tiles have run. Recomputing shared tiles in every
block, as a plain `map_overlap` does, costs 1.3-1.9 times more on usual chunk sizes.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate, pairwise, product
from math import ceil, prod
from operator import attrgetter
from typing import TYPE_CHECKING, Literal, get_args

from rtsx.errors import PlanError
from rtsx.model.metadata import OutlineChoice
from rtsx.pages import html_table
from rtsx.parsing import parsed_json
from rtsx.tiling import Blend, TilePlan, TileRange

if TYPE_CHECKING:
    import torch


TestTimeAugmentation = Literal["identity", "hflip", "vflip", "rot90", "rot180", "rot270", "transpose"]
"""A turn by name; rotations are counter-clockwise, `transpose` mirrors at the main diagonal."""

TEST_TIME_AUGMENTATIONS: tuple[TestTimeAugmentation, ...] = get_args(TestTimeAugmentation)
"""Every augmentation by name."""

_BACK: dict[TestTimeAugmentation, TestTimeAugmentation] = {"rot90": "rot270", "rot270": "rot90"}


def apply_dihedral(batch: "torch.Tensor", augmentation: TestTimeAugmentation) -> "torch.Tensor":
    """Flip or rotate a batch, as a view; shape (..., y, x) with y equal to x."""
    match augmentation:
        case "identity":
            return batch
        case "hflip":
            return batch.flip(-1)
        case "vflip":
            return batch.flip(-2)
        case "transpose":
            return batch.transpose(-2, -1)
        case _:
            return batch.rot90(int(augmentation.removeprefix("rot")) // 90, dims=(-2, -1))


def invert_dihedral(output: "torch.Tensor", augmentation: TestTimeAugmentation) -> "torch.Tensor":
    """Undo `apply_dihedral`: ``invert_dihedral(apply_dihedral(batch, a), a)`` is the batch.

    Examples
    --------
    >>> import torch
    >>> batch = torch.arange(4).reshape(2, 2)
    >>> all(torch.equal(invert_dihedral(apply_dihedral(batch, a), a), batch) for a in TEST_TIME_AUGMENTATIONS)
    True
    """
    return apply_dihedral(output, _BACK.get(augmentation, augmentation))


Merge = Literal["mean", "max"]
"""How the outputs at several scales become one."""

PredictionDtype = Literal["uint8", "float32"]
"""What probability is stored as: per cent with 255 for nodata, or a fraction with NaN."""


@dataclass(frozen=True, kw_only=True)
class PredictionPlan:
    """What is run over one raster, and how outputs are merged."""

    tiling: TilePlan
    """Tiles and their weights."""
    layers: tuple[str, ...]
    """Variables of the cube that are read."""
    classes: tuple[str, ...]
    """Names of the classes; one means yes or no."""
    threshold: float
    """Least probability of a positive pixel; among exclusive classes the most probable one counts instead."""
    exclusive: bool
    """True where the classes' probabilities sum to one (softmax)."""
    members: tuple[str, ...]
    """Digests of the bundles, whose outputs are averaged."""
    augment: tuple[TestTimeAugmentation, ...]
    """Flips and rotations whose outputs are averaged, the identity among them."""
    scales: tuple[float, ...]
    """Sizes at which the network sees a tile, as fractions of its own."""
    merge: Merge
    """How the scales are fused."""
    keep_members: bool
    """True: every bundle's own output and their spread are returned too."""
    dtype: PredictionDtype
    """What probability is stored as."""
    outlines: OutlineChoice | None = None
    """Threshold and least area of outlines that the first bundle brings; None: as `threshold` says."""

    def __post_init__(self) -> None:
        """Refuse what the kernel could not run."""
        unknown = [name for name in self.augment if name not in TEST_TIME_AUGMENTATIONS]
        if unknown:
            raise PlanError(
                f"augment has to be among {', '.join(TEST_TIME_AUGMENTATIONS)}; got {', '.join(map(str, unknown))}."
            )
        if self.merge not in ("mean", "max"):
            raise PlanError(f"merge has to be 'mean' or 'max'; got {self.merge!r}.")
        if self.dtype not in ("uint8", "float32"):
            raise PlanError(f"dtype has to be 'uint8' or 'float32'; got {self.dtype!r}.")
        if self.keep_members and self.tiling.blend == "max":
            raise PlanError(
                "keep_members cannot go with blend='max': the greatest of the members' mean is not the mean of their "
                "greatest. Take another blend."
            )
        for scale in self.scales:
            size = self.tiling.tile * scale
            if size % self.tiling.stride:
                raise PlanError(
                    f"A tile of {self.tiling.tile} px at scale {scale} has {size:g} px, which is no multiple of the "
                    f"network's stride of {self.tiling.stride} px. Take another scale or tile."
                )

    def _repr_html_(self) -> str:
        return html_table("Prediction plan", self.summary)

    @property
    def summary(self) -> list[tuple[str, object]]:
        """What it says in a few words, by name."""
        return [
            ("layers", ", ".join(self.layers)),
            ("classes", ", ".join(self.classes)),
            ("threshold", f"{self.threshold:g}"),
            *(() if self.outlines is None else [("outlines", str(self.outlines))]),
            ("tiles", f"{self.tiling.tile} px with overlap {self.tiling.overlap}, blended by {self.tiling.blend}"),
            ("bundles", ", ".join(digest[:12] for digest in self.members)),
            ("passes per tile", self.passes_per_tile),
        ]

    @property
    def kept(self) -> int:
        """Number of outputs that are kept apart until the end: one per bundle, or their mean alone."""
        return len(self.members) if self.keep_members else 1

    @property
    def passes_per_tile(self) -> int:
        """Number of forward passes of one tile, all bundles, augmentations and scales together."""
        return len(self.members) * len(self.augment) * len(self.scales)

    def to_json(self) -> str:
        """Write one line for an attribute; numbers and names only."""
        document = asdict(self)
        if self.outlines is None:  # so that plans of before keep their digest
            del document["outlines"]
        return json.dumps(document, sort_keys=True)

    @property
    def attrs(self) -> dict[str, object]:
        """Attributes of what is predicted by this plan, beside the plan itself."""
        chosen = {} if self.outlines is None else self.outlines.attrs
        return {"bundle_digest": "+".join(self.members), "threshold": self.threshold, **chosen}

    @classmethod
    def from_json(cls, text: str) -> "PredictionPlan":
        """Return the plan that `to_json` wrote, equal to it.

        Raises
        ------
        PlanError
            The text is no JSON object, a name is unknown or missing, a value is of another type, or values contradict
            each other.

        Examples
        --------
        >>> PredictionPlan.from_json('{"tiling": 3}')
        Traceback (most recent call last):
        ...
        rtsx.errors.PlanError: The plan, tiling: input should be an object; got 3. It was edited or damaged, ...
        """
        return parsed_json(text, cls, what="The plan", error=PlanError)


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
    needs: TilingNeeds,
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
    needs
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
    >>> needs = TilingNeeds(stride=32, tile=256, overlap=64, trim=None, reach=50)
    >>> print(choose_tiling((4096, 4096), (0, 0), needs=needs, tile="auto", overlap="auto", trim=None,
    ...                     blend="linear", largest=3000))
    4 tiles of 2176 px, overlap 128, trim 50, linear, over 4096 x 4096 px: over-compute 1.13
    """
    if blend == "crop" and trim is not None:
        raise PlanError(f"blend='crop' trims half the overlap by itself; got trim={trim}. Leave trim out.")
    for name, choice in (("tile", tile), ("overlap", overlap)):
        if not isinstance(choice, int) and choice not in ("auto", "bundle"):
            raise PlanError(f"{name} has to be a number of pixels, 'auto' or 'bundle'; got {choice!r}.")
    if tile == "auto" and (needs.reach is None or 4 * needs.reach > largest):
        tile = "bundle"  # nothing larger is known to give the same output, or to fit
    size = needs.tile if tile == "bundle" else tile
    shared = _overlap(size, overlap, needs=needs)
    edge = _trim(shared, trim, blend=blend, needs=needs, by_reach=overlap == "auto" or size == "auto")

    def plan(pixels: int) -> TilePlan:
        return TilePlan(
            shape=shape, offset=offset, tile=pixels, overlap=shared, trim=edge, stride=needs.stride, blend=blend
        )

    if size != "auto":
        return plan(size)
    grain = -(-_GRAIN // needs.stride) * needs.stride
    least = max(2 * shared, grain)
    candidates = [plan(pixels) for pixels in range(-(-least // grain) * grain, largest + 1, grain)]
    if not candidates:
        return plan(-(-(shared + 1) // grain) * grain)
    return min(candidates, key=cost or attrgetter("over_compute"))


def _overlap(tile: int | Literal["auto"], overlap: TileChoice, *, needs: TilingNeeds) -> int:
    if isinstance(overlap, int):
        return overlap
    stride, wanted = needs.stride, needs.overlap
    if overlap == "auto" and needs.reach is not None:
        wanted = 2 * -(-max(needs.reach, needs.trim or 0) // stride) * stride
    return wanted if tile == "auto" else min(wanted, tile // 2 // stride * stride)


def _trim(overlap: int, trim: int | None, *, blend: Blend, needs: TilingNeeds, by_reach: bool) -> int:
    if blend == "crop":
        return overlap // 2
    if trim is not None:
        return trim
    if by_reach and needs.reach is not None:
        return min(max(needs.reach, needs.trim or 0), overlap // 2)
    return overlap // 8 if needs.trim is None else min(needs.trim, overlap // 2)


Region = tuple[slice, slice]
"""Pixels of the raster, (y, x)."""


def regions_meet(one: Region, other: Region) -> bool:
    """Test whether two regions share a pixel."""
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


def input_window(tiling: TilePlan, region: Region) -> Region:
    """Return the pixels of the raster that the prediction of a region depends on: what the windows of its tiles cover.

    Examples
    --------
    >>> tiling = TilePlan(shape=(512, 512), tile=128, overlap=32, trim=16, stride=32, blend="crop")
    >>> input_window(tiling, (slice(0, 96), slice(96, 192)))
    (slice(0, 192, None), slice(64, 288, None))
    """
    return tiling.read_region(tiling.tiles_covering(region))


def region_overlap(one: Region, other: Region) -> Region:
    """Return the pixels that two regions share."""
    y, x = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return y, x


def region_within(region: Region, whole: Region) -> Region:
    """Return where a region lies in an array over `whole`."""
    y, x = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(region, whole, strict=True))
    return y, x


def shape_of(region: Region) -> tuple[int, int]:
    """Return height and width, px."""
    return region[0].stop - region[0].start, region[1].stop - region[1].start


@dataclass(frozen=True, kw_only=True)
class Block:
    """One chunk of the raster and the tiles that begin in it."""

    index: tuple[int, int]
    """Position among the chunks, (y, x)."""
    region: Region
    """Pixels of the chunk."""
    tiles: TileRange
    """Tiles that this block runs; none where a chunk is smaller than a step."""
    read: Region | None
    """Pixels that the windows of these tiles cover, halo included; None without tiles."""
    output: Region | None
    """Pixels of the output of these tiles; extends into the neighbours. None without tiles."""


@dataclass(frozen=True, kw_only=True)
class BlockPlan:
    """All blocks of one raster.

    Examples
    --------
    >>> tiling = TilePlan(shape=(512, 512), tile=256, overlap=64, trim=0, stride=32)
    >>> plan = BlockPlan(tiling=tiling, chunks=((200, 200, 112), (512,)))
    >>> [len(block.tiles) for block in plan]
    [6, 3, 0]
    """

    tiling: TilePlan
    """Tiles and their weights."""
    chunks: tuple[tuple[int, ...], tuple[int, ...]]
    """Sizes of the chunks along y and x, as dask counts them."""
    wanted: TileRange | None = None
    """Tiles that are run; None for all."""

    @cached_property
    def intervals(self) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Pixels of each chunk along y and along x."""
        y, x = (tuple(slice(*pair) for pair in pairwise(accumulate(sizes, initial=0))) for sizes in self.chunks)
        return y, x

    def __iter__(self) -> Iterator[Block]:
        """Blocks, row by row."""
        for row in self.rows():
            yield from row

    def rows(self, *, across: int = 0) -> Iterator[list[Block]]:
        """Yield rows of blocks, from the top; columns, from the left, where they follow each other along axis 1."""
        for j in range(len(self.chunks[across])):
            along = range(len(self.chunks[1 - across]))
            yield [self.block((i, j) if across else (j, i)) for i in along]

    def region(self, index: tuple[int, int]) -> Region:
        """Return pixels of the chunk at a position."""
        return self.intervals[0][index[0]], self.intervals[1][index[1]]

    def block(self, index: tuple[int, int]) -> Block:
        """Return the block at a position."""
        region = self.region(index)
        y, x = (self._starting_in(axis, part) for axis, part in enumerate(region))
        tiles = TileRange(y, x)
        return Block(
            index=index,
            region=region,
            tiles=tiles,
            read=self.tiling.read_region(tiles) if len(tiles) else None,
            output=self.tiling.output_region(tiles) if len(tiles) else None,
        )

    def _starting_in(self, axis: int, part: slice) -> range:
        along = (self.tiling.y, self.tiling.x)[axis].tiles_starting_in(part.start, part.stop)
        if self.wanted is None:
            return along
        wanted = (self.wanted.y, self.wanted.x)[axis]
        return range(max(along.start, wanted.start), min(along.stop, wanted.stop))

    @cached_property
    def n_tiles(self) -> int:
        """Tiles of all blocks."""
        return len(self.tiling.all if self.wanted is None else self.wanted)

    @cached_property
    def tiles_per_block(self) -> float:
        """Mean of those blocks that run any."""
        return self.n_tiles / max(1, sum(len(block.tiles) > 0 for block in self))

    @property
    def largest_read(self) -> int:
        """Pixels of the largest region that any block reads, or of the largest chunk if that is larger."""
        longest = 1
        for number, (axis, parts) in enumerate(zip((self.tiling.y, self.tiling.x), self.intervals, strict=True)):
            ranges = [self._starting_in(number, part) for part in parts]
            windows = [axis.window(tiles[-1])[1] - axis.window(tiles[0])[0] for tiles in ranges if tiles]
            longest *= max([part.stop - part.start for part in parts] + windows)
        return longest

    def intersecting(self, region: Region) -> list[tuple[int, int]]:
        """Return positions of the chunks that share a pixel with a region, row by row."""
        along = (
            [i for i, part in enumerate(parts) if part.start < wanted.stop and wanted.start < part.stop]
            for parts, wanted in zip(self.intervals, region, strict=True)
        )
        return list(product(*along))  # type: ignore[arg-type]  # two axes give pairs


# Pixels along each side of a block: bounds what is prepared at once; larger blocks are no faster.
_BLOCK = 2048


def direct_chunks(shape: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Choose the chunks in which a plane of this shape is run."""
    y, x = ((_BLOCK,) * (length // _BLOCK) + ((rest,) if (rest := length % _BLOCK) else ()) for length in shape)
    return y, x


def waiting_sums(blocks: BlockPlan, *, ahead: int) -> int:
    """Return pixels of the sums that at most wait while a plane in memory is predicted: of a row, and of those that fill its last batch."""
    rows = list(blocks.rows())
    pixels = [sum(prod(shape_of(block.output)) for block in row if block.output is not None) for row in rows]
    tiles = min((n for row in rows if (n := sum(len(block.tiles) for block in row))), default=1)
    return min(sum(pixels), max(pixels) * (1 + ceil(ahead / tiles)))
