"""Batches of tiles, read from scenes, ahead of the network; what is read, and in which order, never depends on that."""

import multiprocessing
import pickle
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cloudpickle
import numpy as np
import torch
from numpy.typing import NDArray

from rtsx.errors import TrainingError
from rtsx.labels import IGNORED, TruthWindow
from rtsx.model import InputLayer, Packing, prepare
from rtsx.model.values import check_units
from rtsx.tiling import reflect_pad
from rtsx.training.recipe import TrainingScene, explained
from rtsx.training.sampler import TileAddress
from rtsx.training.scene_arrays import ChunkCache, PixelArrays, SceneArrays


@dataclass(frozen=True, kw_only=True, eq=False)
class TileBatch:
    """Tiles before any scaling: augmentation changes these, and the network's input is made by inference's own `prepare`.

    Values under an invalid pixel mean nothing, here as everywhere.
    """

    stored: torch.Tensor
    """Layers as stored, (tile, layer, y, x) float32."""
    layers: tuple[str, ...]
    """Names of the stored layers, in their order; those that the bundle's channels are made of."""
    packings: Mapping[str, Packing]
    """How each layer is stored; the same for all tiles."""
    valid: torch.Tensor
    """True (tile, y, x) where inference would trust a pixel."""
    truth: torch.Tensor
    """Coded as by `LabelRaster`, (tile, y, x) uint8; `IGNORED` where a label is not to be learnt from."""

    def channels(self, inputs: Sequence[InputLayer], *, fill: float) -> torch.Tensor:
        """Return network input (tile, layer, y, x) float32, by the function that inference uses."""
        stored = dict(zip(self.layers, self.stored.unbind(1), strict=True))
        prepared = prepare(stored, self.valid, inputs=inputs, packings=self.packings, fill=fill)
        return prepared.transpose(0, 1)

    def target(self) -> torch.Tensor:
        """Return truth (tile, y, x) with every invalid pixel ignored too: what losses and scores go by."""
        return self.truth.masked_fill(~self.valid, IGNORED)

    def to(self, device: torch.device) -> Self:
        """Move everything to a device."""
        moved: dict[str, Any] = {name: getattr(self, name).to(device) for name in ("stored", "valid", "truth")}
        return replace(self, **moved)


def common_packings(scenes: Sequence[SceneArrays], *, inputs: Sequence[InputLayer]) -> dict[str, Packing]:
    """Return how each layer is stored in a batch: as in the first scene; nodata is left out, because `valid` has it already.

    Raises
    ------
    TrainingError
        Scenes store different layers; or one declares a scale where another holds integers of unknown scale; or the network
        wants reflectance of integers of unknown scale, or another unit.
    """
    first = scenes[0]
    for scene in scenes:
        if scene.layers != first.layers:
            raise TrainingError(
                f"All scenes have to store the same layers; {first.name!r} has {list(first.layers)} and {scene.name!r} has "
                f"{list(scene.layers)}. Add the derived ones to all of them or to none."
            )
        for name in scene.layers:
            _check_scale(name, scene, first=first)
        with explained(f"Scene {scene.name!r} cannot be learnt from. "):
            check_units(inputs, scene.packings, dtypes=scene.dtypes, units=scene.units)
    return {name: replace(packing, nodata=None) for name, packing in first.packings.items()}


def _check_scale(name: str, scene: SceneArrays, *, first: SceneArrays) -> None:
    """Two scenes with different scales are fine as long as both mean them."""
    both = {each.name: each for each in (first, scene)}
    scales = {(each.packings[name].scale_factor, each.packings[name].add_offset) for each in both.values()}
    unsure = [
        each.name for each in both.values() if not each.packings[name].is_declared and each.dtypes[name].kind in "ui"
    ]
    if len(scales) > 1 and unsure:
        raise TrainingError(
            f"Layer {name!r} is stored as {first.dtypes[name]} with scale {first.packings[name].scale_factor:g} in scene "
            f"{first.name!r} and as {scene.dtypes[name]} with scale {scene.packings[name].scale_factor:g} in {scene.name!r}; "
            f"{unsure} do not say their scale. Set cube[{name!r}].attrs['scale_factor'] there."
        )


def repacked(
    stored: Mapping[str, NDArray[np.generic]], *, packings: Mapping[str, Packing], common: Mapping[str, Packing]
) -> NDArray[np.float32]:
    """Return stored layers (layer, y, x) float32 in the common packing; bit for bit as stored where it is the scene's own.

    Examples
    --------
    >>> reflectance = {"red": np.array([[0.25]], np.float32)}
    >>> repacked(reflectance, packings={"red": Packing()}, common={"red": Packing(scale_factor=1e-4)})
    array([[[2500.]]], dtype=float32)
    """
    layers = list(stored.values())
    out = np.empty((len(layers), *layers[0].shape), np.float32)
    # Silent, because a nodata value of float64 may be beyond float32; what is invalid means nothing anyway.
    with np.errstate(over="ignore"):
        for place, (name, layer) in zip(out, stored.items(), strict=True):
            own, wanted = packings[name], common[name]
            if (own.scale_factor, own.add_offset) == (wanted.scale_factor, wanted.add_offset):
                place[...] = layer
                continue
            # In double precision: one rounding, to float32, is all that a converted value may differ by.
            factor = own.scale_factor / wanted.scale_factor
            place[...] = layer.astype(np.float64) * factor + (own.add_offset - wanted.add_offset) / wanted.scale_factor
    return out


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
        self.tile = tile
        self._scenes = tuple(SceneArrays(scene, inputs=inputs) for scene in scenes)
        self.packings = common_packings(self._scenes, inputs=inputs)
        self.layers = self._scenes[0].layers
        self._cache = ChunkCache(cache_bytes)

    def read(self, addresses: Sequence[TileAddress]) -> TileBatch:
        """Return the tiles at some addresses, in their order.

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
        return TileBatch(stored=stored, layers=self.layers, packings=self.packings, valid=valid, truth=truth)

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

    def _pixels(self, number: int, window: TruthWindow) -> PixelArrays:
        """Return a window of one scene, put together from its chunks."""
        scene = self._scenes[number]
        if not scene.is_lazy:
            return scene.window(window)
        parts: list[tuple[PixelArrays, TruthWindow]] = []
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
        """Return what lies within a tile, mirrored to its full size as inference's kernel does; mirrored truth is ignored."""
        stored, valid, truth = arrays
        y, x = (
            reflect_pad(first - part.start, first - part.start + self.tile, length=part.stop - part.start)
            for first, part in zip(start, window, strict=True)
        )
        whole = np.full((self.tile, self.tile), IGNORED, np.uint8)
        whole[tuple(slice(p.start - s, p.stop - s) for p, s in zip(window, start, strict=True))] = truth
        return stored[:, y[:, None], x], valid[y[:, None], x], whole


def _joined(parts: Sequence[tuple[PixelArrays, TruthWindow]], *, shape: tuple[int, int]) -> PixelArrays:
    first = parts[0][0]
    if len(parts) == 1:
        return first
    stored = {name: np.empty(shape, layer.dtype) for name, layer in first.stored.items()}
    valid, truth = np.empty(shape, bool), np.empty(shape, np.uint8)
    for pixels, place in parts:
        for name, layer in pixels.stored.items():
            stored[name][place] = layer
        valid[place], truth[place] = pixels.valid, pixels.truth
    return PixelArrays(stored=stored, valid=valid, truth=truth)


@contextmanager
def to_shared(value: object) -> Iterator[str]:
    """Yield the path of a file that holds a value for as long as the block runs.

    A file, instead of an argument of the process: multiprocessing writes arguments into a pipe and waits for ever where
    the new process ends before it has read them, because its main module cannot be imported, say.

    Examples
    --------
    >>> with to_shared({"seed": 1}) as parcel:
    ...     from_shared(parcel)
    {'seed': 1}
    """
    with tempfile.TemporaryDirectory(prefix="rtsx-") as folder:
        path = Path(folder) / "parcel"
        path.write_bytes(cloudpickle.dumps(value))
        yield str(path)


def from_shared(parcel: str) -> Any:
    """Return the value in a file of `to_shared`."""
    return cloudpickle.loads(Path(parcel).read_bytes())


class ReadAhead:
    """Reads batches in a thread of its own, or in processes of its own.

    Parameters
    ----------
    readers
        What reads, by name.
    num_workers
        0: one thread, which overlaps with the network because reading leaves Python's lock alone most of the time. More:
        so many processes, each with a copy of the readers and their caches.

    Examples
    --------
    >>> class Numbers:
    ...     def read(self, addresses):
    ...         return sum(addresses)
    >>> with ReadAhead({"sums": Numbers()}, num_workers=0) as ahead:
    ...     list(ahead.batches("sums", [[1, 2], [3], [4, 5]]))
    [3, 3, 9]
    """

    def __init__(self, readers: Mapping[str, TileReader], *, num_workers: int) -> None:
        self._readers = None if num_workers else dict(readers)
        self._depth = max(2, 2 * num_workers)
        self._executor: Executor
        self._open = ExitStack()
        if num_workers:
            self._executor = ProcessPoolExecutor(
                num_workers,
                # Not forked, because a copy of this process would have torch's threads locked in the midst of their work.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_take_readers,
                initargs=(self._open.enter_context(to_shared(dict(readers))),),
            )
        else:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="rtsx-read")

    def batches(self, name: str, addresses: Iterable[Sequence[TileAddress]]) -> Iterator[TileBatch]:
        """Read one batch after the other by a reader, some before they are asked for; errors come in their place."""
        waiting: deque[Future[TileBatch] | Future[bytes]] = deque()
        for each in addresses:
            waiting.append(self._submit(name, each))
            if len(waiting) > self._depth:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())

    def _submit(self, name: str, addresses: Sequence[TileAddress]) -> "Future[TileBatch] | Future[bytes]":
        if self._readers is None:
            return self._executor.submit(_read_there, name, addresses)
        return self._executor.submit(self._readers[name].read, addresses)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._executor.shutdown(cancel_futures=True)
        self._open.close()


def _result(future: "Future[TileBatch] | Future[bytes]") -> TileBatch:
    found = future.result()
    return pickle.loads(found) if isinstance(found, bytes) else found


_readers: dict[str, TileReader] = {}
"""The readers of a worker process; executors know no other place for them."""


def _take_readers(parcel: str) -> None:
    _readers.update(from_shared(parcel))
    torch.set_num_threads(1)


def _read_there(name: str, addresses: Sequence[TileAddress]) -> bytes:
    # As bytes, because torch would pass tensors on as open files, which run out.
    return pickle.dumps(_readers[name].read(addresses))
