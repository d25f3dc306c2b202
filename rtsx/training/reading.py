"""Tiles by address as batches: stored pixels read through chunks, valid as in inference, with their truth."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from rtsx.errors import TrainingError
from rtsx.labels import IGNORED, TruthWindow
from rtsx.model import InputLayer
from rtsx.tiling import reflected
from rtsx.training.batch import Batch
from rtsx.training.chunk_cache import ChunkCache
from rtsx.training.draws import TileAddress
from rtsx.training.packings import common_packings, repacked
from rtsx.training.scene import TrainingScene
from rtsx.training.stored import StoredPixels, StoredScene

__all__ = ["TileReader"]

_Arrays = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.uint8]]


class TileReader:
    """Reads tiles of scenes.

    Lazy scenes are computed chunk by chunk, in the calling thread, and chunks are kept within `cache_bytes`; scenes in memory
    are sliced. Nothing is read before `read`. It can be pickled, without its chunks, but is for one thread.

    Parameters
    ----------
    scenes
        What addresses refer to by number.
    inputs
        Channels of the network; they say which layers are read, and what a valid pixel is.
    tile
        Side of a tile, px.
    cache_bytes
        Memory for computed chunks, of all scenes together. It pays where it holds the chunks of as many scenes as an epoch
        draws from at a time; at least one chunk of all layers should fit.

    Raises
    ------
    TrainingError
        A scene lacks a layer, or stores one in a way that cannot be told from another scene's.
    """

    def __init__(
        self, scenes: Sequence[TrainingScene], *, inputs: Sequence[InputLayer], tile: int, cache_bytes: int
    ) -> None:
        if not scenes:
            raise TrainingError("Tiles need at least one scene to be read from; got none.")
        self.tile = tile
        self._scenes = tuple(StoredScene(scene, inputs=inputs) for scene in scenes)
        self.packings = common_packings(self._scenes, inputs=inputs)
        self.layers = self._scenes[0].layers
        self._cache = ChunkCache(cache_bytes)

    def read(self, addresses: Sequence[TileAddress]) -> Batch:
        """The tiles at some addresses, in their order.

        A tile may reach beyond its scene: what lies within is mirrored there, as inference does, and the truth of mirrored
        pixels is ignored, because each pixel counts once. Stored values of invalid pixels are 0.

        Parameters
        ----------
        addresses
            At least one.

        Raises
        ------
        TrainingError
            A chunk cannot be read, or a tile lies wholly beyond its scene.
        """
        tiles = [self._tile(address) for address in addresses]
        stored, valid, truth = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*tiles, strict=True))
        return Batch(stored=stored, layers=self.layers, packings=self.packings, valid=valid, truth=truth)

    def _tile(self, address: TileAddress) -> _Arrays:
        scene = self._scenes[address.scene]
        inside = [
            slice(max(first, 0), min(first + self.tile, length))
            for first, length in zip(address.start, scene.shape, strict=True)
        ]
        window: TruthWindow = (inside[0], inside[1])
        if any(part.start >= part.stop for part in window):
            raise TrainingError(
                f"A tile at {address.start} lies beyond scene {scene.name!r} of {scene.shape} px; addresses and scenes do not "
                "belong together."
            )
        pixels = self._pixels(address.scene, window)
        truth = pixels.truth.copy()
        truth[: address.skipped[0]] = IGNORED
        truth[:, : address.skipped[1]] = IGNORED
        stored = repacked(pixels.stored, packings=scene.packings, common=self.packings)
        stored[:, ~pixels.valid] = 0
        if truth.shape == (self.tile, self.tile):
            return stored, pixels.valid.copy(), truth
        return self._mirrored((stored, pixels.valid, truth), window, start=address.start)

    def _pixels(self, number: int, window: TruthWindow) -> StoredPixels:
        """A window of one scene, put together from its chunks."""
        scene = self._scenes[number]
        if not scene.is_lazy:
            return scene.window(window)
        parts: list[tuple[StoredPixels, TruthWindow]] = []
        for index, region in scene.chunks_of(window):
            chunk = self._cache.get((number, index), lambda index=index: scene.chunk(index))  # type: ignore[misc]  # a default argument binds the loop's value
            both = [slice(max(w.start, r.start), min(w.stop, r.stop)) for w, r in zip(window, region, strict=True)]
            of_chunk, of_window = (
                tuple(slice(b.start - o.start, b.stop - o.start) for b, o in zip(both, origin, strict=True))
                for origin in (region, window)
            )
            parts.append((chunk[of_chunk], of_window))  # type: ignore[index, arg-type]  # two axes give pairs
        return _joined(parts, shape=(window[0].stop - window[0].start, window[1].stop - window[1].start))

    def _mirrored(self, arrays: _Arrays, window: TruthWindow, *, start: tuple[int, int]) -> _Arrays:
        """What lies within a tile, mirrored to its full size as inference's kernel does; mirrored truth is ignored."""
        stored, valid, truth = arrays
        y, x = (
            reflected(first - part.start, first - part.start + self.tile, length=part.stop - part.start)
            for first, part in zip(start, window, strict=True)
        )
        whole = np.full((self.tile, self.tile), IGNORED, np.uint8)
        whole[tuple(slice(p.start - s, p.stop - s) for p, s in zip(window, start, strict=True))] = truth
        return stored[:, y[:, None], x], valid[y[:, None], x], whole


def _joined(parts: Sequence[tuple[StoredPixels, TruthWindow]], *, shape: tuple[int, int]) -> StoredPixels:
    first = parts[0][0]
    if len(parts) == 1:
        return first
    stored = {name: np.empty(shape, layer.dtype) for name, layer in first.stored.items()}
    valid, truth = np.empty(shape, bool), np.empty(shape, np.uint8)
    for pixels, place in parts:
        for name, layer in pixels.stored.items():
            stored[name][place] = layer
        valid[place], truth[place] = pixels.valid, pixels.truth
    return StoredPixels(stored=stored, valid=valid, truth=truth)
