"""The kernel: stored pixels of a window in, blended and quantised output of its tiles out.

Part of the kernel: tensors in, tensors out, on whatever device the batch lies on.

Knows arrays, tiles and networks; no store, no scheduler, no geography. Answers are sums of weighted probabilities in
fixed point: integers add up to the same total in any order, so neither chunks nor workers can change a bit, which
sums of floats would.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from rtsx.errors import BundleError
from rtsx.inference.blocks import Region, regions_meet
from rtsx.inference.device import from_device, to_device
from rtsx.inference.plan import PredictionPlan, apply_dihedral, invert_dihedral
from rtsx.model.inputs import InputLayer, Packing, prepare
from rtsx.model.network import Network
from rtsx.tiling import Tile, TileAxis, TilePlan, TileRange, reflect_pad

ProbabilityForward = Callable[[torch.Tensor], torch.Tensor]
"""A network: batch (tile, layer, y, x) to probabilities (tile, class, y, x)."""


def forward_tiles(batch: torch.Tensor, network: ProbabilityForward, *, plan: PredictionPlan) -> torch.Tensor:
    """Compute probabilities (tile, class, y, x) of one member: augmentations averaged, scales fused by `plan.merge`."""
    if plan.augment == ("identity",) and plan.scales == (1.0,):
        return network(batch)
    return _fused([_averaged(_at_scale(batch, network, scale=scale, plan=plan)) for scale in plan.scales], plan.merge)


def _at_scale(
    batch: torch.Tensor, network: ProbabilityForward, *, scale: float, plan: PredictionPlan
) -> list[torch.Tensor]:
    size = batch.shape[-1]
    seen = batch if scale == 1 else _resized(batch, round(size * scale))
    outputs = (invert_dihedral(network(apply_dihedral(seen, name).contiguous()), name) for name in plan.augment)
    return [output if scale == 1 else _resized(output, size) for output in outputs]


def _resized(batch: torch.Tensor, size: int) -> torch.Tensor:
    # Antialiased, because a plain bilinear half-size picture drops every other pixel's neighbours.
    return interpolate(batch, size=(size, size), mode="bilinear", align_corners=False, antialias=size < batch.shape[-1])


def _averaged(outputs: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(outputs)).mean(0) if len(outputs) > 1 else outputs[0]


def _fused(outputs: Sequence[torch.Tensor], merge: str) -> torch.Tensor:
    if merge == "max" and len(outputs) > 1:
        return torch.stack(list(outputs)).amax(0)
    return _averaged(outputs)


_Pixels = TypeVar("_Pixels", NDArray[Any], NDArray[np.bool_], torch.Tensor)

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
    """Weighted probabilities (member, class, y, x), `ONE` for 1; None where no tile held a valid pixel."""


def tiles_to_run(window: BlockInput, tiles: TileRange, *, tiling: TilePlan) -> Iterator[Tile]:
    """Select the tiles with a valid pixel in their support; no output of the others would be kept. Uses no device."""
    return (tile for tile in tiling.tiles(tiles) if _within(window.valid, tile.support, window.region).any())


def run_tiles(
    window: BlockInput,
    tiles: TileRange,
    *,
    plan: PredictionPlan,
    members: Sequence[EnsembleMember],
    batch_size: int,
) -> TileSums:
    """Run those tiles of a range that are `tiles_to_run` over the window that holds them, in the caller's thread and stream.

    Raises
    ------
    torch.OutOfMemoryError
        The device's memory ended; nothing of the block is left on it when the error is let go of.
    """
    tiling = plan.tiling
    region = tiling.output_region(tiles)
    waiting = list(tiles_to_run(window, tiles, tiling=tiling))
    if not waiting:
        return TileSums(region=region, values=None)
    device = members[0].network.device
    with torch.inference_mode():
        channels = _prepared(window, members, device)
        shape = (plan.kept, len(plan.classes), *(part.stop - part.start for part in region))
        total = torch.zeros(shape, dtype=torch.int32, device=device)
        finite = torch.ones((), dtype=torch.bool, device=device)
        done = 0
        while done < len(waiting):
            part = waiting[done : done + batch_size]
            outputs = _probabilities(part, channels, members=members, region=window.region, plan=plan)
            finite &= outputs.isfinite().all()
            for number, tile in enumerate(part):
                _blend(outputs[:, number], tile, total=total, region=region, tiling=tiling)
            done += len(part)
        # Once per block instead of once per batch, because asking makes the host wait for a GPU.
        if not finite:
            raise BundleError(
                f"The network answered NaN or infinity for a tile in pixels {region}. Run it with precision='float32'; "
                f"if that is what it ran with, look for values in the layers that it was not trained with."
            )
        return TileSums(region=region, values=from_device(total))


def _prepared(
    window: BlockInput, members: Sequence[EnsembleMember], device: torch.device
) -> dict[tuple[tuple[InputLayer, ...], float], torch.Tensor]:
    """Compute the network input (layer, y, x) of the whole window, once for all members with the same channels."""
    stored = {name: to_device(layer, device) for name, layer in window.stored.items()}
    valid = to_device(window.valid, device)
    return {
        (inputs, fill): prepare(stored, valid, inputs=inputs, packings=window.packings, fill=fill)
        for inputs, fill in {(member.inputs, member.fill) for member in members}
    }


def _probabilities(
    tiles: Sequence[Tile],
    channels: Mapping[tuple[tuple[InputLayer, ...], float], torch.Tensor],
    *,
    members: Sequence[EnsembleMember],
    region: Region,
    plan: PredictionPlan,
) -> torch.Tensor:
    """Compute probabilities (member, tile, class, y, x) of one batch; the members' mean alone unless they are kept."""
    batches = {key: _batch(tiles, prepared, region=region, tiling=plan.tiling) for key, prepared in channels.items()}
    outputs = [forward_tiles(batches[member.inputs, member.fill], member.network, plan=plan) for member in members]
    if len(outputs) == 1:
        return outputs[0][None]
    stacked = torch.stack(outputs)
    return stacked if plan.keep_members else stacked.mean(0, keepdim=True)


def _batch(tiles: Sequence[Tile], prepared: torch.Tensor, *, region: Region, tiling: TilePlan) -> torch.Tensor:
    """Cut windows (tile, layer, y, x) out of the prepared region; beyond the raster they are mirrored."""
    size = tiling.tile
    batch = prepared.new_empty((len(tiles), prepared.shape[0], size, size))
    for place, tile in zip(batch, tiles, strict=True):
        inside = tuple(
            slice(max(-first, 0), min(length - first, size))
            for first, length in zip(tile.start, tiling.shape, strict=True)
        )
        y, x = (
            slice(first - part.start + within.start, first - part.start + within.stop)
            for first, part, within in zip(tile.start, region, inside, strict=True)
        )
        place[:, inside[0], inside[1]].copy_(prepared[:, y, x])
        _mirror(place[:, inside[0]], inside[1], axis=2)
        _mirror(place, inside[0], axis=1)
    return batch


def _mirror(place: torch.Tensor, inside: slice, *, axis: int) -> None:
    """Fill one axis of a window (layer, y, x) beyond its inside, in place.

    Margins alone, instead of an index over the whole window: a large tile is mirrored often, and copied twice that way.
    """
    within = place.narrow(axis, inside.start, inside.stop - inside.start)
    for start, stop in ((0, inside.start), (inside.stop, place.shape[axis])):
        if start < stop:
            mirror = reflect_pad(start - inside.start, stop - inside.start, length=inside.stop - inside.start)
            margin = within.index_select(axis, torch.from_numpy(mirror).to(place.device))
            place.narrow(axis, start, stop - start).copy_(margin)


def _blend(output: torch.Tensor, tile: Tile, *, total: torch.Tensor, region: Region, tiling: TilePlan) -> None:
    """Add one tile's weighted probabilities (member, class, y, x) to the region's total, in place."""
    y, x = (slice(s.start - f, s.stop - f) for s, f in zip(tile.support, tile.start, strict=True))
    here = _within(total, tile.support, region)
    supported = output[..., y, x]
    if tiling.blend == "max":
        torch.maximum(here, _fixed(supported * ONE), out=here)
        return
    along_y, along_x = (
        _weights(axis, index, output.device) for axis, index in zip((tiling.y, tiling.x), tile.index, strict=True)
    )
    here += _fixed(supported * (along_y[:, None] * along_x * ONE))


@lru_cache(maxsize=1024)
def _weights(axis: TileAxis, index: int, device: torch.device) -> torch.Tensor:
    """Weights along one axis of a tile, on the device; kept, because sending them makes the host wait for a GPU."""
    return torch.from_numpy(axis.weights(index)).to(device)


def _fixed(values: torch.Tensor) -> torch.Tensor:
    return values.round_().to(torch.int32)


def _within(array: _Pixels, wanted: Region, region: Region) -> _Pixels:
    """Crop an array (..., y, x) over `region` to `wanted`."""
    y, x = (slice(w.start - r.start, w.stop - r.start) for w, r in zip(wanted, region, strict=True))
    return array[..., y, x]


NODATA = 255
"""Stored value of an invalid pixel in every uint8 output."""

# Half a millionth: a probability of exactly the threshold must not fall below it by the rounding of its weights.
_SLACK = 8


def crop(output: TileSums, region: Region) -> TileSums:
    """Crop sums to a region, as their own memory, so that the rest can be freed."""
    both = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(output.region, region, strict=True))
    y, x = (slice(b.start - a.start, b.stop - a.start) for a, b in zip(output.region, both, strict=True))
    values = None if output.values is None else np.ascontiguousarray(output.values[..., y, x])
    return TileSums(region=(both[0], both[1]), values=values)


def merge_strips(outputs: Sequence[TileSums], region: Region, *, plan: PredictionPlan) -> NDArray[np.int32]:
    """Add all sums over a region (member, class, y, x); `"max"` takes the greatest instead of the sum."""
    total = np.zeros((plan.kept, len(plan.classes), *(part.stop - part.start for part in region)), np.int32)
    add = np.maximum if plan.tiling.blend == "max" else np.add
    for output in outputs:
        if not regions_meet(output.region, region):
            continue
        strip = crop(output, region)
        if strip.values is None:
            continue
        y, x = (slice(s.start - r.start, s.stop - r.start) for s, r in zip(strip.region, region, strict=True))
        add(total[..., y, x], strip.values, out=total[..., y, x])
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
    percent = np.minimum(np.rint(values * np.float32(100 / ONE)), 100).astype(np.uint8)
    return np.where(valid, percent, np.uint8(NODATA))


def _binary(values: NDArray[Any], valid: NDArray[np.bool_], plan: PredictionPlan) -> NDArray[np.uint8]:
    if plan.exclusive:
        positive = np.arange(len(values))[:, None, None] == values.argmax(0)
    else:
        positive = values + _SLACK >= round(plan.threshold * ONE)
    return np.where(valid, positive.astype(np.uint8), np.uint8(NODATA))
