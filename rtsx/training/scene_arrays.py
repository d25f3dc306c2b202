"""Stored pixels of a scene, computed chunk by chunk and kept in a bounded number of bytes."""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, product
from typing import Any, Self

import dask.array as da
import numpy as np
from dask.base import compute
from numpy.typing import NDArray

from rtsx.cube import layer_names, packing
from rtsx.errors import LayerValuesWarning, TrainingError
from rtsx.labels import TruthWindow
from rtsx.model import InputLayer, Packing, required_layers
from rtsx.model.inputs import trusted_pixels
from rtsx.model.values import check_values
from rtsx.training.recipe import TrainingScene, explained

LayerArray = NDArray[Any] | da.Array
"""A layer (y, x), lazy or not."""


def chunk_edges(layers: Iterable[LayerArray]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return where chunks begin along y and x, and where the last one ends, of the first lazy layer; None where none is lazy."""
    for layer in layers:
        if isinstance(layer, da.Array):
            y, x = ((0, *accumulate(sizes)) for sizes in layer.chunks)
            return y, x
    return None


def rechunked(layer: LayerArray, edges: tuple[tuple[int, ...], tuple[int, ...]]) -> LayerArray:
    """Return a lazy layer in the chunks that all share; one in memory as it is."""
    if not isinstance(layer, da.Array):
        return layer
    chunks = tuple(tuple(int(size) for size in np.diff(along)) for along in edges)
    shared: da.Array = layer.rechunk(chunks)
    return shared


def computed_chunk(
    layers: Mapping[str, LayerArray], index: tuple[int, int], *, region: tuple[slice, slice]
) -> dict[str, NDArray[Any]]:
    """Return one chunk of all layers, by its place and by its pixels; read together, because a task may give several layers.

    In this very thread: worker processes of a training would otherwise start a pool of threads each.
    """
    chunks = [layer.blocks[index] if isinstance(layer, da.Array) else layer[region] for layer in layers.values()]
    computed = compute(*chunks, scheduler="synchronous")
    return {name: np.asarray(chunk) for name, chunk in zip(layers, computed, strict=True)}


# Side of the blocks in which a scene in memory is walked, px: bounds what is made of it at once.
_BLOCK = 2048


def every_layer(scene: TrainingScene) -> tuple[InputLayer, ...]:
    """Return all layers of a scene as they are: what is read where nobody has said yet what the network wants."""
    return tuple(InputLayer(name=name) for name in layer_names(scene.cube))


@dataclass(frozen=True, kw_only=True)
class PixelArrays:
    """Part of a scene, in memory."""

    stored: Mapping[str, NDArray[Any]]
    """Layers (y, x) in the dtype that they are stored in."""
    valid: NDArray[np.bool_]
    """True (y, x) where inference would trust a pixel."""
    truth: NDArray[np.uint8]
    """What is where (y, x), coded as by `LabelRaster`."""

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.valid.nbytes + self.truth.nbytes + sum(layer.nbytes for layer in self.stored.values())

    def __getitem__(self, part: tuple[slice, slice]) -> Self:
        stored = {name: layer[part] for name, layer in self.stored.items()}
        return type(self)(stored=stored, valid=self.valid[part], truth=self.truth[part])


class SceneArrays:
    """The layers that a network needs of one scene and their truth, read chunk by chunk.

    Lazy layers are brought into the chunks of the first of them, as inference does, so that whatever tasks they share run
    once. Truth comes by chunk too, because it may be as lazy. Nothing is computed before `chunk` is called.

    Raises
    ------
    TrainingError
        The scene lacks a layer.
    """

    def __init__(self, scene: TrainingScene, *, inputs: Sequence[InputLayer]) -> None:
        with explained(f"Scene {scene.name!r} cannot be learnt from. "):
            self.layers = required_layers(inputs, layer_names(scene.cube))
        self.name = scene.name
        self.shape: tuple[int, int] = (scene.cube.sizes["y"], scene.cube.sizes["x"])
        self.packings = {name: Packing(**packing(scene.cube[name])) for name in self.layers}
        self.dtypes = {name: scene.cube[name].dtype for name in self.layers}
        self.units = {name: scene.cube[name].attrs.get("units", "") for name in self.layers}
        self._inputs = tuple(inputs)
        self._truth = scene.truth
        self._warned: set[str] = set()
        names = (*self.layers, *(("valid",) if "valid" in scene.cube else ()))
        arrays: dict[str, LayerArray] = {name: scene.cube[name].data for name in names}
        edges = chunk_edges(arrays.values())
        self.is_lazy = edges is not None
        if edges is None:
            y, x = ((*range(0, length, _BLOCK), length) for length in self.shape)
            edges = (y, x)
        self._edges = edges
        self._arrays = {name: rechunked(array, edges) for name, array in arrays.items()}

    def chunks(self) -> Iterator[tuple[tuple[int, int], TruthWindow]]:
        """Yield the place and pixels of every chunk, row by row."""
        for index in product(*(range(len(along) - 1) for along in self._edges)):
            place: tuple[int, int] = index  # type: ignore[assignment]  # two axes give pairs
            yield place, self._region(place)

    def chunks_of(self, window: TruthWindow) -> list[tuple[tuple[int, int], TruthWindow]]:
        """Return the place and pixels of the chunks that share a pixel with a window."""
        along = (
            [place for place, (start, stop) in enumerate(pairwise(edges)) if start < part.stop and part.start < stop]
            for edges, part in zip(self._edges, window, strict=True)
        )
        return [(index, self._region(index)) for index in product(*along)]  # type: ignore[arg-type, misc]  # as above

    def chunk(self, index: tuple[int, int]) -> PixelArrays:
        """Return one chunk, computed.

        Raises
        ------
        TrainingError
            It cannot be read; the message names scene and pixels and keeps the cause.
        """
        region = self._region(index)
        try:
            pixels = self._pixels(computed_chunk(self._arrays, index, region=region), region)
            doubts = check_values(pixels.stored, pixels.valid, inputs=self._inputs, packings=self.packings)
        except Exception as error:  # whatever a source of the cube raises
            y, x = region
            raise TrainingError(
                f"Scene {self.name!r} cannot be read at rows {y.start}-{y.stop}, columns {x.start}-{x.stop}: {error}"
            ) from error
        for doubt in sorted(doubts.keys() - self._warned):
            self._warned.add(doubt)
            warnings.warn(f"Scene {self.name!r}: {doubts[doubt]}", LayerValuesWarning, stacklevel=2)
        return pixels

    def window(self, window: TruthWindow) -> PixelArrays:
        """Return pixels of a window of a scene that lies in memory, without a copy of its layers."""
        return self._pixels({name: np.asarray(array[window]) for name, array in self._arrays.items()}, window)

    def _pixels(self, arrays: Mapping[str, NDArray[Any]], region: TruthWindow) -> PixelArrays:
        stored = {name: arrays[name] for name in self.layers}
        valid = trusted_pixels(stored, inputs=self._inputs, packings=self.packings, mask=arrays.get("valid"))
        return PixelArrays(stored=stored, valid=valid, truth=self._truth.read(region))

    def _region(self, index: tuple[int, int]) -> TruthWindow:
        y, x = (slice(edges[place], edges[place + 1]) for edges, place in zip(self._edges, index, strict=True))
        return y, x


class ChunkCache:
    """Keeps what was used last and drops what was not used for longest.

    For one thread: each worker of a training has its own. A chunk that is larger than the whole cache is kept until another is
    asked for, because whoever reads it has to have the memory anyway, and a scene may be a single chunk.

    Examples
    --------
    >>> import numpy as np
    >>> cache = ChunkCache(0)
    >>> pixels = PixelArrays(stored={}, valid=np.ones((2, 2), bool), truth=np.zeros((2, 2), np.uint8))
    >>> cache.get("a", lambda: pixels) is pixels, cache.n_bytes
    (True, 8)
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.n_bytes = 0
        self.n_computed = 0
        self._kept: OrderedDict[Hashable, PixelArrays] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], PixelArrays]) -> PixelArrays:
        """Return the chunk of a key, computed where it is not kept."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        # Before the next is computed, so that never two are there that do not fit.
        self._drop(leave=0)
        chunk = compute()
        self.n_computed += 1
        self._kept[key] = chunk
        self.n_bytes += chunk.nbytes
        self._drop(leave=1)
        return chunk

    def _drop(self, *, leave: int) -> None:
        while self.n_bytes > self.limit_bytes and len(self._kept) > leave:
            _, dropped = self._kept.popitem(last=False)
            self.n_bytes -= dropped.nbytes

    def __getstate__(self) -> dict[str, object]:
        """A limit without chunks: what another process gets, which will fill its own."""
        return {"limit_bytes": self.limit_bytes, "n_bytes": 0, "n_computed": 0, "_kept": OrderedDict()}
