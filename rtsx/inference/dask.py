"""The dask driver: a lazy prediction as one small graph, whose rows of blocks run one after the other.

dask's schedulers start where a task depends on most, counted with repetition, and grow from there: over a grid of blocks,
which all depend on about as much, that is in many places at once, and the chunks along all these fronts wait in memory. Over
12288 x 12288 px in chunks of 1024 a third of the cube did. A task that hangs on a barrier depends on twice as much as one
that hangs on the barrier below, so the order is ours: what waits is one row. Empty tasks, instead of having each row wait
for the one before, because a part of a prediction has to be had without the rest, and a cluster works on many rows at once.

Because dask looks at what tasks return together only where they are the last ones, this holds for what is computed or
stored at once (`compute`, `Dataset.to_zarr`), not for a store with `compute=False`: there all hang on one last task,
whose dependencies dask takes in the order of a set.

Per chunk: one task reads all layers; one marks valid pixels; one adds the halo and runs the tiles that begin in the
chunk; one cuts each strip that a neighbour needs; one adds up and quantises. A chunk is read into the place in which the device finds it,
see `_Window`, and waits for the neighbours that need it as their halo, so that nothing is decoded twice. Nothing is computed twice and
nothing is computed here. Blocks are taken row by row, so that what waits in memory is a row of chunks.
"""

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from math import prod
from operator import getitem
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph, Layer, MaterializedLayer
from numpy.typing import NDArray

from rtsx.cube.zarr_cube import StoredPixels, stored_pixels
from rtsx.errors import CubeError
from rtsx.inference.device import Hardware, Memory, Pending, host_bytes, memory_for, plain_memory, planes, room_for
from rtsx.inference.kernel import BlockInput, TileSums, crop, finished, quantise, within
from rtsx.inference.plan import Block, BlockPlan, Region, region_overlap, shape_of
from rtsx.inference.runner import Runner
from rtsx.tiling import TileRange

# What two blocks depend on may differ by up to 2 ** this before the barriers between them.
_LOWEST = 30

_Graph = dict[Any, Any]


def ordering_barriers(name: str, rows: int) -> _Graph:
    """Build the tasks that order the rows depth first: they return None, two for each of `rows` barriers and for what lies below the lowest.

    Examples
    --------
    >>> tasks = ordering_barriers("barrier", 2)
    >>> tasks[barrier("barrier", 0, rows=2)][1:] == (("barrier", 30, 0), ("barrier", 30, 1))
    True
    """
    tasks: _Graph = {(name, 0, side): (_no_value, side) for side in (0, 1)}
    for height in range(1, _LOWEST + rows):
        for side in (0, 1):
            tasks[name, height, side] = (_no_value, (name, height - 1, 0), (name, height - 1, 1))
    return tasks


def barrier(name: str, row: int, *, rows: int) -> tuple[str, int, int]:
    """Return the key of the task on which the blocks of a row hang; the first row hangs highest, and is begun with."""
    return name, _LOWEST + rows - 1 - row, 0


def _no_value(*_: object) -> None:
    return None


def _hardware_name(runner: Runner) -> str:
    """Say on which kind of device a computation begins; run once for all of its blocks, on whichever worker."""
    return Hardware.of(runner.where).name


_Key = tuple[Any, ...]
_Chunks = tuple[tuple[int, ...], ...]


def predict_lazily(
    layers: Mapping[str, da.Array], mask: da.Array | None, *, runner: Runner, shared: Collection[str] = ()
) -> dict[str, da.Array]:
    """Build lazy outputs by name (see `quantise`) and `valid`, in the chunks of the layers, which all share them (y, x).

    Layers that are `shared` with other predictions (`"valid"` for the mask) come from tasks of their own, so that they are read once.
    """
    arrays = dict(layers) if mask is None else {**layers, "valid": mask}
    chunks = next(iter(layers.values())).chunks
    blocks = runner.blocks(chunks)
    token = tokenize(*(array.name for array in arrays.values()), runner)
    stored = {
        name: pixels
        for name, array in arrays.items()
        if name not in shared and (pixels := stored_pixels(array)) is not None
    }
    reading = _reading(arrays, stored, blocks=blocks, runner=runner, token=token)
    read = next(iter(reading.layers))
    valid = _valid(reading, read, token=token, chunks=chunks)
    graph = _graph(blocks, layers, read=read, valid=valid.name, runner=runner, token=token)
    planned = _Outputs(graph, blocks=blocks, token=token, ahead=runner.tiles_ahead(runner.planned))
    sources: list[Any] = [valid]
    outputs = HighLevelGraph.from_collections(f"outputs-{token}", planned, dependencies=sources)
    # Of a single pixel, for the names, dtypes and leading axes.
    total = np.zeros((runner.plan.kept, len(runner.plan.classes), 1, 1), np.int32)
    templates = quantise(total, np.ones((1, 1), bool), plan=runner.plan)
    lazy = {name: _array(name, template, outputs, chunks=chunks, token=token) for name, template in templates.items()}
    return lazy | {"valid": valid}


def _reading(
    arrays: Mapping[str, da.Array], stored: Mapping[str, StoredPixels], *, blocks: BlockPlan, runner: Runner, token: str
) -> HighLevelGraph:
    """Build a task for each chunk that gives it of every array: from the store where it is there, else from its own task."""
    others = [array for name, array in arrays.items() if name not in stored]
    dtypes = {name: array.dtype for name, array in arrays.items()}
    # The same for every prediction of these layers with these blocks.
    name = f"read-{tokenize([(name, array.name) for name, array in arrays.items()], sorted(stored), blocks, runner.device, runner.backend)}"
    source = f"stored-{name}"
    tasks: _Graph = {source: _Stored(stored)}
    for block in blocks:
        task = _ReadTask(block.region, _Window.around(block), dtypes)
        tasks[name, *block.index] = (task, f"runner-{token}", source, [(one.name, *block.index) for one in others])
    whole = HighLevelGraph.from_collections(name, tasks, dependencies=others)  # type: ignore[arg-type]  # dask.array is one
    needed = {**whole.dependencies, name: whole.dependencies[name] | {f"runner-{token}"}, f"runner-{token}": set()}
    return HighLevelGraph(
        {name: whole.layers[name], **whole.layers, f"runner-{token}": {f"runner-{token}": runner}}, needed
    )


def _valid(reading: HighLevelGraph, read: str, *, token: str, chunks: _Chunks) -> da.Array:
    key = f"valid-{token}"
    tasks: _Graph = {
        (key, *index): (_valid_pixels, f"runner-{token}", (read, *index))
        for index in product(*(range(len(sizes)) for sizes in chunks))
    }
    layers: dict[str, Any] = {**reading.layers, key: tasks}
    graph = HighLevelGraph(layers, {**reading.dependencies, key: {read, f"runner-{token}"}})
    return da.Array(graph, key, chunks=chunks, dtype=bool)


def _valid_pixels(runner: Runner, window: "_Window") -> NDArray[np.bool_]:
    stored = {name: window.chunk(name) for name in window.layers}
    mask = stored.pop("valid", None)
    return runner.valid(stored, mask)


def _array(
    name: str, template: NDArray[Any], outputs: HighLevelGraph, *, chunks: Sequence[Sequence[int]], token: str
) -> da.Array:
    key = f"{name}-{token}"
    leading = template.shape[:-2]
    zeros = (0,) * len(leading)
    picked: _Graph = {
        (key, *zeros, j, i): (getitem, (f"finished-{token}", j, i), name)
        for j, i in product(*(range(len(sizes)) for sizes in chunks))
    }
    graph = HighLevelGraph(
        layers={**outputs.layers, key: picked}, dependencies={**outputs.dependencies, key: {f"outputs-{token}"}}
    )
    return da.Array(graph, key, chunks=(*((n,) for n in leading), *chunks), dtype=template.dtype)


def _graph(
    blocks: BlockPlan, layers: Mapping[str, da.Array], *, read: str, valid: str, runner: Runner, token: str
) -> _Graph:
    runner_key = f"runner-{token}"
    begun_on = f"hardware-{token}"
    graph: _Graph = {begun_on: (_hardware_name, runner_key)}
    pixel_bytes = 1 + sum(array.dtype.itemsize for array in layers.values())
    room = runner.windows_in_flight(blocks) * blocks.largest_read * pixel_bytes
    receiving: dict[tuple[int, int], list[_Key]] = {block.index: [] for block in blocks}
    for block in blocks:
        if block.read is None or block.output is None:
            continue
        output = (f"tiles-{token}", *block.index)
        needed = blocks.intersecting(block.read)
        task = _TilesTask(tiles=block.tiles, read=block.read, room_bytes=room)
        windows = [(read, *index) for index in needed]
        graph[output] = (task, runner_key, windows, [(valid, *index) for index in needed], begun_on)
        for target in blocks.intersecting(block.output):
            strip = (f"strip-{token}", *block.index, *target)
            graph[strip] = (_StripTask(blocks.region(target)), output)
            receiving[target].append(strip)
    barriers = f"barrier-{token}"
    across = _across(blocks)
    rows = len(blocks.chunks[across])
    for index, strips in receiving.items():
        hold = barrier(barriers, index[across], rows=rows)
        task_key = (f"finished-{token}", *index)
        graph[task_key] = (_FinishTask(blocks.region(index)), runner_key, strips, (valid, *index), hold)
    return graph | ordering_barriers(barriers, rows)


def _across(blocks: BlockPlan) -> int:
    """Return the axis along which rows of blocks follow each other: theirs or that of columns, whichever are shorter."""
    return int(len(blocks.chunks[1]) > len(blocks.chunks[0]))


def waiting_bytes(blocks: BlockPlan, *, pixel_bytes: int, output_bytes: int, hardware: Hardware) -> tuple[int, int]:
    """Return the bytes of windows, and of sums, that at most wait in memory while a row of blocks runs, besides those of blocks in flight.

    Parameters
    ----------
    blocks
        All blocks.
    pixel_bytes, output_bytes
        Of all layers of a pixel, and of its sums.
    hardware
        What takes the windows.
    """
    across = _across(blocks)
    windows, sums, beyond = [], [0], []
    ends = [part.stop for part in blocks.intervals[across]]
    for row in blocks.rows(across=across):
        windows.append(sum(host_bytes(prod(shape_of(_Window.around(block))) * pixel_bytes, hardware) for block in row))
        reads = [block.read[across].stop for block in row if block.read is not None]
        beyond.append(bisect_left(ends, max(reads, default=0)))
        strips = [block.output[across].stop - block.region[across].stop for block in row if block.output is not None]
        sums.append(max([0, *strips]) * blocks.tiling.shape[1 - across] * output_bytes)
    return max(sum(windows[row + 1 : last + 1]) for row, last in enumerate(beyond)), max(sums)


class _Outputs(MaterializedLayer):
    """The tasks of a prediction, where no block is waited for before those after it have handed in tiles to fill its last batch.

    Those of the blocks that a computation needs, which are known when the graph is culled: a part has to be had without the rest.
    """

    def __init__(self, tasks: _Graph, *, blocks: BlockPlan, token: str, ahead: int) -> None:
        super().__init__(tasks)
        self._across, self._token, self._ahead = _across(blocks), token, ahead

    def cull(self, keys: set[Any], all_hlg_keys: Collection[Any]) -> tuple[Layer, Mapping[Any, set[Any]]]:
        """Keep what these keys need, and have it wait."""
        culled, needs = super().cull(keys, all_hlg_keys)
        if not self._ahead:
            return culled, needs
        tasks: _Graph = dict(culled)
        dependencies: dict[Any, set[Any]] = dict(needs)
        name, across = f"tiles-{self._token}", self._across
        tiles = sorted(
            (key for key in tasks if isinstance(key, tuple) and key[0] == name),
            key=lambda key: (key[1 + across], key[2 - across]),
        )
        handed, waited = ([(f"{word}-{self._token}", *key[1:]) for key in tiles] for word in ("handed", "waited"))
        totals = [0, *accumulate(len(tasks[key][0].tiles) for key in tiles)]
        # In groups, because `dask.optimize` makes these edges part of the graph, where a part has to be had without the rest, too.
        groups = [total // self._ahead for total in totals]
        lasts = dict(zip(groups, handed, strict=False))
        awaited: dict[_Key, list[_Key]] = {}
        for number, (key, mark) in enumerate(zip(tiles, handed, strict=True)):
            has_earlier = number > 0 and groups[number - 1] == groups[number]
            # After those before it, too: dask would else take this block next, and not those between.
            tasks[mark] = (_no_value, key, *handed[number - has_earlier : number])
            dependencies[mark] = {key, *handed[number - has_earlier : number]}
            last = min(bisect_left(totals, totals[number + 1] + self._ahead), len(tiles)) - 1
            between = (lasts.get(group) for group in range(groups[number], groups[last]))
            awaited[key[1:]] = [handed[last], *(mark for mark in between if mark is not None)]
            # A thread that waits for the device reads nothing, so one waits at a time: for a strip of this block, after one of that before.
            awaited[key[1:]] += waited[number - has_earlier : number]
        done = {key[1:]: mark for key, mark in zip(tiles, waited, strict=True)}
        for key in [key for key in tasks if isinstance(key, tuple) and key[0] == f"strip-{self._token}"]:
            tasks[key] = (*tasks[key], awaited[key[1:3]])
            dependencies[key] = dependencies[key] | set(awaited[key[1:3]])
            if (mark := done[key[1:3]]) not in tasks:  # the first of this block; its others wait for that
                tasks[mark], dependencies[mark] = (_no_value, key), {key}
                awaited[key[1:3]] = [mark]
        return MaterializedLayer(tasks, annotations=self.annotations), dependencies


# Tasks are objects that carry their constants, because dask would take a tuple in a graph for a task or a key.


@dataclass(frozen=True)
class _Stored:
    """Layers of a store."""

    pixels: Mapping[str, StoredPixels]
    """By name."""


_ROOMY = 2.0
"""Times a chunk that its window may have and wait for its tiles; a larger one is made when these run, and the chunk copied."""


class _Window:
    """Layers (y, x) of one chunk, with room for what its own tiles see of others, as one piece of memory. Pickles as the chunk alone.

    The chunk is read into the first rows and columns; what its tiles see to the right and below is copied into the rest just before they
    run. Blocks look forwards only and run row by row, so its own tiles are the last that need it.
    """

    def __init__(self, own: Region, region: Region, *, dtypes: Mapping[str, np.dtype[Any]], memory: Memory) -> None:
        self.own = own
        """Pixels of the chunk."""
        self.region = region
        """Pixels of the layers, from the first of the chunk."""
        self.layers = planes(shape_of(region), dtypes, memory=memory)
        """By name; `valid` is the cube's mask."""

    @staticmethod
    def around(block: Block) -> Region:
        """Return what the window of a block is made for: its chunk, and what its tiles see beyond that."""
        if block.read is None:
            return block.region
        y, x = (slice(own.start, max(own.stop, seen.stop)) for own, seen in zip(block.region, block.read, strict=True))
        is_roomy = prod(shape_of((y, x))) <= _ROOMY * prod(shape_of(block.region))
        return (y, x) if is_roomy else block.region

    def chunk(self, name: str) -> NDArray[Any]:
        """Return the pixels of the chunk."""
        return within(self.layers[name], self.own, self.region)

    def with_halo(self, others: Sequence["_Window"], read: Region, *, memory: Memory) -> "_Window":
        """Return a window over at least `read`, this one where it has room, with the pixels of other chunks in it."""
        window, missing = self, others
        if any(own.stop < seen.stop for own, seen in zip(self.region, read, strict=True)):
            dtypes = {name: layer.dtype for name, layer in self.layers.items()}
            window, missing = _Window(read, read, dtypes=dtypes, memory=memory), [self, *others]
        for other in missing:
            both = region_overlap(read, other.own)
            for name, layer in window.layers.items():
                within(layer, both, window.region)[...] = within(other.layers[name], both, other.region)
        return window

    @property
    def nbytes(self) -> int:
        """Of the chunk."""
        return sum(prod(shape_of(self.own)) * layer.itemsize for layer in self.layers.values())

    def __sizeof__(self) -> int:
        """Return what a cluster moves and spills."""
        return object.__sizeof__(self) + self.nbytes

    def __reduce__(self) -> tuple[Any, ...]:
        return _window_of, (self.own, {name: self.chunk(name) for name in self.layers})


def _window_of(own: Region, chunks: Mapping[str, NDArray[Any]]) -> _Window:
    window = _Window(own, own, dtypes={}, memory=plain_memory)
    window.layers.update(chunks)
    return window


@dataclass(frozen=True)
class _ReadTask:
    """Reads all layers of one chunk, one after the other: none of a store costs a task of dask's, or a copy."""

    own: Region
    region: Region
    """Pixels of the window."""
    dtypes: Mapping[str, np.dtype[Any]]
    """By name."""

    def __call__(self, runner: Runner, stored: _Stored, others: list[NDArray[Any]]) -> _Window:
        window = _Window(self.own, self.region, dtypes=self.dtypes, memory=memory_for(runner.where))
        waiting = iter(others)
        for name, layer in window.layers.items():
            if name in stored.pixels:
                stored.pixels[name].read_into(layer, self.own)
            else:
                pixels = next(waiting)
                if not (np.can_cast(pixels.dtype, layer.dtype) or {pixels.dtype.kind, layer.dtype.kind} == {"f"}):
                    raise CubeError(
                        f"Layer {name!r} says that it is {layer.dtype}, and its pixels come as {pixels.dtype}. Give it the dtype "
                        "that it has, such as by astype, or by output_dtypes of apply_ufunc and dtype of map_blocks."
                    )
                window.chunk(name)[...] = pixels
        return window


@dataclass(frozen=True)
class _TilesTask:
    """Adds the halo to a window and runs the tiles that begin in its chunk."""

    tiles: TileRange
    read: Region
    """Pixels that these tiles see."""
    room_bytes: int
    """What all windows of a process may take."""

    def __call__(  # noqa: PLR0917 - dask gives them by place
        self, runner: Runner, windows: list[_Window], valid: list[NDArray[np.bool_]], begun_on: str
    ) -> Pending[TileSums]:
        """Run the tiles on the chunks, their own first, and their valid pixels; waits for them where a batch is one tile."""
        runner.require_hardware(begun_on)
        device = runner.where
        own, *others = windows
        names = runner.plan.layers
        n_bytes = prod(shape_of(self.read)) * (1 + sum(own.layers[name].itemsize for name in names))
        room = room_for(device, n_bytes, limit=self.room_bytes)
        try:
            window = own.with_halo(others, self.read, memory=memory_for(device))
            trusted = np.empty(shape_of(self.read), bool)
            for one, pixels in zip(windows, valid, strict=True):
                both = region_overlap(self.read, one.own)
                within(trusted, both, self.read)[...] = within(pixels, both, one.own)
            block = BlockInput(
                region=self.read,
                stored={name: within(window.layers[name], self.read, window.region) for name in names},
                packings=runner.packings,
                valid=trusted,
            )
            pending = runner.submit(block, self.tiles, room=room)
        except BaseException:
            room.release()
            raise
        if not runner.tiles_ahead(Hardware.of(device)):
            pending.result()
        return pending


@dataclass(frozen=True)
class _StripTask:
    """Waits for the output of one block and crops it to what another needs."""

    region: Region
    """Pixels of the block that needs it."""

    def __call__(self, output: Pending[TileSums], _handed: object = None) -> TileSums:
        return crop(output.result(), self.region)


@dataclass(frozen=True)
class _FinishTask:
    """Adds up the strips of one block and quantises."""

    region: Region
    """Pixels of the block."""

    def __call__(
        self, runner: Runner, strips: list[TileSums], valid: NDArray[np.bool_], _barrier: None
    ) -> dict[str, NDArray[Any]]:
        return finished(strips, self.region, valid, plan=runner.plan)
