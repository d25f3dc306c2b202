"""The kernel: stored pixels of a window in, blended and quantised output of its tiles out.

Knows arrays, tiles and networks; no store, no scheduler, no geography. Outputs are sums of weighted probabilities in
fixed point: integers add up to the same total in any order, so neither chunks nor workers can change a bit, which
sums of floats would.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import pairwise, product
from math import prod
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from rtsx.inference.device import current_stream, from_device, to_device
from rtsx.inference.plan import (
    PredictionPlan,
    Region,
    apply_dihedral,
    invert_dihedral,
    region_overlap,
    region_within,
    regions_meet,
    shape_of,
)
from rtsx.model.inputs import InputLayer, Packing, prepare
from rtsx.model.network import Network, require_probabilities
from rtsx.tiling import Tile, TileAxis, TilePlan, TileRange, reflect_pad

ProbabilityForward = Callable[[torch.Tensor], torch.Tensor]
"""A network: batch (tile, layer, y, x) to probabilities (tile, class, y, x)."""


def forward_tiles(batch: torch.Tensor, network: ProbabilityForward, *, plan: PredictionPlan) -> torch.Tensor:
    """Compute probabilities (tile, class, y, x) of one member: augmentations averaged, scales fused by `plan.merge`."""
    if plan.augment == ("identity",) and plan.scales == (1.0,):
        return network(batch)
    return _merged([_at_scale(batch, network, scale=scale, plan=plan) for scale in plan.scales], plan.merge)


def _at_scale(batch: torch.Tensor, network: ProbabilityForward, *, scale: float, plan: PredictionPlan) -> torch.Tensor:
    size = batch.shape[-1]
    seen = batch if scale == 1 else _resized(batch, round(size * scale))
    outputs = (invert_dihedral(network(apply_dihedral(seen, name).contiguous()), name) for name in plan.augment)
    return _merged([output if scale == 1 else _resized(output, size) for output in outputs], "mean")


def _resized(batch: torch.Tensor, size: int) -> torch.Tensor:
    # Antialiased, because a plain bilinear half-size picture drops every other pixel's neighbours.
    return interpolate(batch, size=(size, size), mode="bilinear", align_corners=False, antialias=size < batch.shape[-1])


def _merged(outputs: list[torch.Tensor], merge: str) -> torch.Tensor:
    if len(outputs) == 1:
        return outputs[0]
    return torch.stack(outputs).amax(0) if merge == "max" else torch.stack(outputs).mean(0)


_Pixels = TypeVar("_Pixels", NDArray[Any], NDArray[np.bool_], torch.Tensor)
_Sums = TypeVar("_Sums", NDArray[Any], torch.Tensor)

ONE = 2**24
"""Fixed-point value of probability 1: the finest at which float32 still holds every integer."""


@dataclass(frozen=True, kw_only=True)
class EnsembleMember:
    """One network of an ensemble and its input."""

    network: Network
    """Batch (tile, layer, y, x) to probabilities (tile, class, y, x)."""
    inputs: tuple[InputLayer, ...]
    """Its input channels."""
    fill: float
    """Channel value of an invalid pixel."""


@dataclass(frozen=True, kw_only=True)
class BlockInput:
    """Input of one block: pixels of every layer, halo included."""

    region: Region
    """Which pixels of the raster these are."""
    stored: Mapping[str, NDArray[Any]]
    """Layers (y, x) as stored."""
    packings: Mapping[str, Packing]
    """How each layer is stored."""
    valid: NDArray[np.bool_]
    """True (y, x) where a pixel can be trusted."""


@dataclass(frozen=True, kw_only=True)
class TileSums:
    """Weighted sums of a block's tiles; to be added to its neighbours' where they overlap."""

    region: Region
    """Pixels of the raster that the sums cover."""
    values: NDArray[np.int32] | None
    """Weighted probabilities (member, class, y, x), `ONE` for 1; None where no tile held a valid pixel. Anything where they are `done`."""
    complete: Region | None = None
    """Pixels to which no other block adds, and which the device has quantised."""
    done: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What is stored of these, by name; see `quantise`."""

    def __sizeof__(self) -> int:
        """Return its bytes, those of the arrays included, by which a cluster spills and moves it."""
        arrays: list[NDArray[Any]] = [*self.done.values(), *(() if self.values is None else (self.values,))]
        return object.__sizeof__(self) + sum(int(array.nbytes) for array in arrays)


def tiles_to_run(window: BlockInput, tiles: TileRange, *, tiling: TilePlan) -> Iterator[Tile]:
    """Select the tiles with a valid pixel in their support; no output of the others would be kept. Uses no device."""
    return (tile for tile in tiling.tiles(tiles) if within(window.valid, tile.support, window.region).any())


class BlockRun:
    """One block while its tiles run: its channels on the device, and the sums of the tiles that are done.

    Used by one thread at a time, in the stream of that thread. What a batch adds is added by `run_batch` alone.
    """

    def __init__(
        self,
        window: BlockInput,
        tiles: TileRange,
        *,
        plan: PredictionPlan,
        open_members: Callable[[], tuple[EnsembleMember, ...]],
    ) -> None:
        self.plan = plan
        self.window = window
        """Held until `sums` has waited: its pixels are sent to a GPU while this goes on, from pinned memory that torch knows by its first
        byte only, so that nothing but a reference keeps the next window from being read into it. Also what begins again after
        memory ended is sent anew from it."""
        self.region = plan.tiling.output_region(tiles)
        self._complete = plan.tiling.complete_region(tiles)
        self.tiles = tuple(tiles_to_run(window, tiles, tiling=plan.tiling))
        """Tiles that have to run."""
        self._open_members = open_members
        self.restart()

    def __sizeof__(self) -> int:
        """Return the bytes of its sums, which is what comes of it."""
        return object.__sizeof__(self) + 4 * prod(self._shape)

    @property
    def _shape(self) -> tuple[int, ...]:
        """Of the sums."""
        return self.plan.kept, len(self.plan.classes), *shape_of(self.region)

    def restart(self) -> None:
        """Let go of everything on the device, and begin with the first tile again."""
        self.members: tuple[EnsembleMember, ...] = ()
        self.channels: dict[tuple[tuple[InputLayer, ...], float], torch.Tensor] = {}
        """Network input (layer, y, x) of the whole window, once for all members with the same channels."""
        self._total: torch.Tensor | None = None
        self._valid: torch.Tensor | None = None
        self._extremes: tuple[torch.Tensor, torch.Tensor] | None = None
        """Least and greatest of all probabilities so far, NaN where one was."""

    def begin(self) -> None:
        """Open the networks and bring the pixels to the device, before the first batch."""
        if self._total is not None:
            return
        members = self._open_members()
        device = members[0].network.device
        valid = to_device(self.window.valid, device)
        self.members, self.channels = members, _prepared(self.window, valid, members)
        self._valid = valid
        self._total = torch.zeros(self._shape, dtype=torch.int32, device=device)

    def add(self, outputs: torch.Tensor, tiles: Sequence[Tile]) -> None:
        """Add probabilities (member, tile, class, y, x) of tiles of this block."""
        assert self._total is not None, "tiles are run after `begin`"
        low, high = outputs.aminmax()
        if self._extremes is not None:
            low, high = torch.minimum(low, self._extremes[0]), torch.maximum(high, self._extremes[1])
        self._extremes = low, high
        _blend(outputs, tiles, total=self._total, region=self.region, tiling=self.plan.tiling)

    def sums(self) -> TileSums:
        """Bring the sums to the host, where all tiles have run; the only time that the host waits for the device.

        On a GPU, pixels to which no other block adds are quantised there, and come as bytes.

        Raises
        ------
        BundleError
            The network returned what cannot be probabilities.
        """
        if self._total is None or self._extremes is None:
            return TileSums(region=self.region, values=None)
        complete, done = None, {}
        if self._complete is not None and self._valid is not None and quantises(self._total.device, self.plan):
            complete = self._complete
            done = quantise_there(
                within(self._total, complete, self.region),
                within(self._valid, complete, self.window.region),
                plan=self.plan,
            )
        around = [self.region] if complete is None else _around(complete, self.region)
        strips = [within(self._total, part, self.region) for part in around]
        *arrays, low, high = from_device([*done.values(), *strips, *self._extremes])
        require_probabilities(float(low), float(high), where=f"for a tile in pixels {self.region}")
        if complete is None:
            return TileSums(region=self.region, values=arrays[0])
        values = np.empty(self._shape, np.int32)
        for part, strip in zip(around, arrays[len(done) :], strict=True):
            within(values, part, self.region)[...] = strip
        return TileSums(
            region=self.region, values=values, complete=complete, done=dict(zip(done, arrays, strict=False))
        )


def quantises(device: torch.device, plan: PredictionPlan) -> bool:
    """Test whether a device quantises what is complete: a GPU does, because a quarter of the bytes come back."""
    return device.type != "cpu" and plan.kept == 1 and plan.dtype == "uint8"


def _around(inner: Region, outer: Region) -> list[Region]:
    """Return the parts of a region around another one in it."""
    (y, x), (tall, wide) = inner, outer
    parts = (
        (slice(tall.start, y.start), wide),
        (slice(y.stop, tall.stop), wide),
        (y, slice(wide.start, x.start)),
        (y, slice(x.stop, wide.stop)),
    )
    return [part for part in parts if part[0].start < part[0].stop and part[1].start < part[1].stop]


def run_batch(parts: Sequence[tuple[BlockRun, Sequence[Tile]]], size: int) -> None:
    """Run tiles of several blocks of one prediction as one batch, in the caller's thread and stream.

    The batch has `size` tiles whatever comes, because libraries choose their arithmetic by its shape.

    Raises
    ------
    torch.OutOfMemoryError
        The device's memory ended; every block has to `restart` then.
    """
    with torch.inference_mode():
        for block, _ in parts:
            block.begin()
        outputs = _probabilities(parts, size=size)
        done = 0
        for block, tiles in parts:
            block.add(outputs[:, done : done + len(tiles)], tiles)
            done += len(tiles)


def _prepared(
    window: BlockInput, valid: torch.Tensor, members: Sequence[EnsembleMember]
) -> dict[tuple[tuple[InputLayer, ...], float], torch.Tensor]:
    """Compute the network input (layer, y, x) of the whole window, once for all members with the same channels."""
    stored = {name: to_device(layer, valid.device) for name, layer in window.stored.items()}
    return {
        (inputs, fill): prepare(stored, valid, inputs=inputs, packings=window.packings, fill=fill)
        for inputs, fill in {(member.inputs, member.fill) for member in members}
    }


def _probabilities(parts: Sequence[tuple[BlockRun, Sequence[Tile]]], *, size: int) -> torch.Tensor:
    """Compute probabilities (member, tile, class, y, x) of one batch; the members' mean alone unless they are kept."""
    first = parts[0][0]
    batches = {key: _batch(parts, key, size=size) for key in first.channels}
    outputs = [
        forward_tiles(batches[member.inputs, member.fill], member.network, plan=first.plan) for member in first.members
    ]
    if len(outputs) == 1:
        return outputs[0][None]
    stacked = torch.stack(outputs)
    return stacked if first.plan.keep_members else stacked.mean(0, keepdim=True)


def _batch(
    parts: Sequence[tuple[BlockRun, Sequence[Tile]]], key: tuple[tuple[InputLayer, ...], float], *, size: int
) -> torch.Tensor:
    """Cut windows (tile, layer, y, x) out of the blocks' channels; beyond the raster they are mirrored.

    Where there are fewer than `size` tiles, the rest is zeros, whose output nobody uses.
    """
    some = parts[0][0].channels[key]
    side = parts[0][0].plan.tiling.tile
    # What networks on a GPU turn it into; on a CPU some take rows as they are.
    layout = torch.contiguous_format if some.device.type == "cpu" else torch.channels_last
    batch = torch.empty((size, len(some), side, side), dtype=some.dtype, device=some.device, memory_format=layout)
    number = 0
    for block, tiles in parts:
        for tile in tiles:
            _cut(batch[number], tile, block.channels[key], region=block.window.region, tiling=block.plan.tiling)
            number += 1
    batch[number:] = 0
    return batch


def _cut(place: torch.Tensor, tile: Tile, prepared: torch.Tensor, *, region: Region, tiling: TilePlan) -> None:
    """Cut the window of one tile (layer, y, x) out of the prepared region."""
    inside = tuple(
        slice(max(-first, 0), min(length - first, tile.size))
        for first, length in zip(tile.start, tiling.shape, strict=True)
    )
    y, x = (
        slice(first - part.start + own.start, first - part.start + own.stop)
        for first, part, own in zip(tile.start, region, inside, strict=True)
    )
    place[:, inside[0], inside[1]].copy_(prepared[:, y, x])
    _mirror(place[:, inside[0]], inside[1], axis=2)
    _mirror(place, inside[0], axis=1)


def _mirror(place: torch.Tensor, inside: slice, *, axis: int) -> None:
    """Fill one axis of a window (layer, y, x) beyond its inside, in place.

    Margins alone, instead of an index over the whole window: a large tile is mirrored often, and copied twice that way.
    """
    within = place.narrow(axis, inside.start, inside.stop - inside.start)
    for start, stop in ((0, inside.start), (inside.stop, place.shape[axis])):
        if start < stop:
            mirrored = _mirrored(
                start - inside.start,
                stop - inside.start,
                length=inside.stop - inside.start,
                device=place.device,
                stream=current_stream(place.device),
            )
            place.narrow(axis, start, stop - start).copy_(within.index_select(axis, mirrored))


# Kept on the device, both, because sending them makes the host wait for a GPU; by stream, because memory that one stream
# frees may be another's before that has read it.


@lru_cache(maxsize=512)
def _mirrored(start: int, stop: int, *, length: int, device: torch.device, stream: int) -> torch.Tensor:
    return torch.from_numpy(reflect_pad(start, stop, length=length)).to(device)


@lru_cache(maxsize=512)
def _weights(axis: TileAxis, index: int, *, device: torch.device, stream: int) -> torch.Tensor:
    """Return weights along one axis of a window, 0 outside of its support."""
    low, high = (edge - axis.start(index) for edge in axis.support(index))
    padded = np.zeros(axis.tile, np.float32)
    padded[low:high] = axis.weights(index)
    return torch.from_numpy(padded).to(device)


def _blend(
    outputs: torch.Tensor, tiles: Sequence[Tile], *, total: torch.Tensor, region: Region, tiling: TilePlan
) -> None:
    """Add weighted probabilities (member, tile, class, y, x) of tiles to the region's total, in place."""
    supports = [
        tuple(
            slice(part.start - first, part.stop - first) for part, first in zip(tile.support, tile.start, strict=True)
        )
        for tile in tiles
    ]
    # No more than some tile counts in.
    y, x = (
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*supports, strict=True)
    )
    weighted = outputs[..., y, x]
    if tiling.blend == "max":
        weighted = weighted * ONE
    else:
        weights = partial(_weights, device=outputs.device, stream=current_stream(outputs.device))
        along_y, along_x = (
            torch.stack([weights(axis, axis.alike(tile.index[number]))[part] for tile in tiles])
            for number, (axis, part) in enumerate(((tiling.y, y), (tiling.x, x)))
        )
        weighted = weighted * (along_y[:, None, :, None] * along_x[:, None, None, :] * ONE)
    fixed = weighted.round_().to(torch.int32)
    for number, (tile, support) in enumerate(zip(tiles, supports, strict=True)):
        here = within(total, tile.support, region)
        own = within(fixed[:, number], (support[0], support[1]), (y, x))
        if tiling.blend == "max":
            torch.maximum(here, own, out=here)
        else:
            here += own


def within(array: _Pixels, wanted: Region, region: Region) -> _Pixels:
    """Crop an array (..., y, x) over `region` to `wanted`."""
    return array[..., *region_within(wanted, region)]


NODATA = 255
"""Stored value of an invalid pixel in every uint8 output."""

# Half a millionth: a probability of exactly the threshold must not fall below it by the rounding of its weights.
_SLACK = 8


def crop(output: TileSums, region: Region) -> TileSums:
    """Crop sums to a region, as their own memory so that the rest can be freed, unless that is the smaller part."""
    both = region_overlap(output.region, region)
    values = None if output.values is None else within(output.values, both, output.region)
    if values is not None and output.values is not None and 2 * values.size < output.values.size:
        values = np.ascontiguousarray(values)
    if output.complete is None or not regions_meet(output.complete, both):
        return TileSums(region=both, values=values)
    complete = region_overlap(output.complete, both)
    done = {name: within(pixels, complete, output.complete) for name, pixels in output.done.items()}
    return TileSums(region=both, values=values, complete=complete, done=done)


_ROWS = 128
"""That are added up and quantised at a time, so that sums stay in the processor's cache."""


def finished(
    outputs: Sequence[TileSums], region: Region, valid: NDArray[np.bool_], *, plan: PredictionPlan
) -> dict[str, NDArray[Any]]:
    """Add up all sums over a region and return what is stored of it by name, see `quantise`."""
    out: dict[str, NDArray[Any]] = {}
    edges = [region, *(output.complete for output in outputs if output.complete is not None)]
    y_cuts, x_cuts = (
        {edge for part in along for edge in (part.start, part.stop)} for along in zip(*edges, strict=True)
    )
    y_cuts.update(range(region[0].start, region[0].stop, _ROWS))
    rows, columns = (
        [slice(*pair) for pair in pairwise(sorted(cut for cut in cuts if part.start <= cut <= part.stop))]
        for cuts, part in zip((y_cuts, x_cuts), region, strict=True)
    )
    for part in product(rows, columns):
        done = next((one for one in outputs if one.complete is not None and regions_meet(one.complete, part)), None)
        if done is not None and done.complete is not None:
            pixels = {name: within(array, part, done.complete) for name, array in done.done.items()}
        else:
            pixels = quantise(merge_strips(outputs, part, plan=plan), within(valid, part, region), plan=plan)
        for name, array in pixels.items():
            if name not in out:
                out[name] = np.empty((*array.shape[:-2], *shape_of(region)), array.dtype)
            within(out[name], part, region)[...] = array
    return out


def merge_strips(outputs: Sequence[TileSums], region: Region, *, plan: PredictionPlan) -> NDArray[np.int32]:
    """Add all sums over a region (member, class, y, x); `"max"` takes the greatest instead of the sum."""
    total = np.zeros((plan.kept, len(plan.classes), *shape_of(region)), np.int32)
    add = np.maximum if plan.tiling.blend == "max" else np.add
    for output in outputs:
        if output.values is not None and regions_meet(output.region, region):
            both = region_overlap(output.region, region)
            here = within(total, both, region)
            add(here, within(output.values, both, output.region), out=here)
    return total


def quantise(total: NDArray[np.int32], valid: NDArray[np.bool_], *, plan: PredictionPlan) -> dict[str, NDArray[Any]]:
    """Compute stored outputs by name, from the total (member, class, y, x) and validity (y, x) of one region.

    Returns
    -------
    dict
        `probability` and `binary` (y, x), or (class, y, x) with several classes; with `plan.keep_members` also
        `probability_member` (member, ...) and `spread`, their standard deviation in float32.
    """
    merged = total[0] if len(total) == 1 else total.mean(0)
    outputs = {"probability": _stored(merged, valid, plan), "binary": _binary(merged, valid, plan)}
    if plan.keep_members:
        outputs["probability_member"] = _stored(total, valid, plan)
        spread = (total.std(0) / ONE).astype(np.float32)
        outputs["spread"] = np.where(valid, spread, np.float32(np.nan))
    if len(plan.classes) == 1:
        return {name: np.squeeze(values, axis=-3) for name, values in outputs.items()}
    return outputs


def _stored(values: NDArray[Any], valid: NDArray[np.bool_], plan: PredictionPlan) -> NDArray[Any]:
    if plan.dtype == "float32":
        fraction = np.minimum(values / np.float32(ONE), 1).astype(np.float32)
        return np.where(valid, fraction, np.float32(np.nan))
    if values.dtype == np.int32:
        percent = _percent(values).astype(np.uint8)
    else:
        percent = np.minimum(np.rint(values * np.float32(100 / ONE)), 100).astype(np.uint8)
    percent[..., ~valid] = NODATA
    return percent


def _percent(values: _Sums) -> _Sums:
    """Return per cents of sums, in whole numbers: halves go to the even one, as by `rint`."""
    scaled = values.clip(max=ONE) * 25  # 100 / 2 ** 24 is 25 / 2 ** 22
    scaled += ((scaled >> 22) & 1) + (2**21 - 1)
    scaled >>= 22
    return scaled


def quantise_there(total: torch.Tensor, valid: torch.Tensor, *, plan: PredictionPlan) -> dict[str, torch.Tensor]:
    """Do what `quantise` does of one member in uint8, to the byte, where a tensor is."""
    values = total[0]
    if plan.exclusive:
        classes = torch.arange(len(values), device=values.device)[:, None, None]
        positive = classes == values.argmax(0)  # the first of equals, as NumPy
    else:
        positive = values + _SLACK >= round(plan.threshold * ONE)
    outputs = {"probability": _percent(values), "binary": positive}
    stored = {name: pixels.to(torch.uint8).masked_fill_(~valid, NODATA) for name, pixels in outputs.items()}
    return {name: pixels[0] for name, pixels in stored.items()} if len(plan.classes) == 1 else stored


def _binary(values: NDArray[Any], valid: NDArray[np.bool_], plan: PredictionPlan) -> NDArray[np.uint8]:
    if plan.exclusive:
        positive = np.arange(len(values))[:, None, None] == values.argmax(0)
    else:
        positive = values + _SLACK >= round(plan.threshold * ONE)
    stored: NDArray[np.uint8] = np.asarray(positive, np.uint8)
    stored[..., ~valid] = NODATA
    return stored
