"""The dask driver: a lazy prediction as one small graph, whose rows of blocks run one after the other.

dask's schedulers start where a task depends on most, counted with repetition, and grow from there: over a grid of blocks,
which all depend on about as much, that is in many places at once, and the chunks along all these fronts wait in memory. Over
12288 x 12288 px in chunks of 1024 a third of the cube did. A task that hangs on a rung depends on twice as much as one
that hangs on the rung below, so the order is ours: what waits is one row. Empty tasks, instead of having each row wait
for the one before, because a part of a prediction has to be had without the rest, and a cluster works on many rows at once.

Because dask looks at what tasks return together only where they are the last ones, this holds for what is computed or
stored at once (`compute`, `Dataset.to_zarr`), not for a store with `compute=False`: there all hang on one last task,
whose dependencies dask takes in the order of a set.

Per chunk: one task reads all layers; one marks valid pixels; one puts the halo together and runs the tiles that begin in the
chunk; one cuts each strip that a neighbour needs; one adds up and quantises. What is read waits for the neighbours that need it as
their halo, so that nothing is decoded twice. Nothing is computed twice and nothing is computed here. Blocks
are taken row by row, so that what waits in memory is a row of chunks.
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
from rtsx.inference.blocks import BlockPlan, Region
from rtsx.inference.device import Hardware, Pending, room_for
from rtsx.inference.kernel import BlockInput, TileSums, crop, merge_strips, quantise
from rtsx.inference.runner import Runner
from rtsx.tiling import TileRange

# What two blocks depend on may differ by up to 2 ** this before the rungs between them.
_LOWEST = 30

_Graph = dict[Any, Any]


def ordering_barriers(name: str, rows: int) -> _Graph:
    """Build the tasks that order the rows depth first: they return None, two for each of `rows` barriers and for what lies below the lowest.

    Examples
    --------
    >>> tasks = ordering_barriers("rung", 2)
    >>> tasks[barrier("rung", 0, rows=2)][1:] == (("rung", 30, 0), ("rung", 30, 1))
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


def predict_lazily(layers: Mapping[str, da.Array], mask: da.Array | None, *, runner: Runner) -> dict[str, da.Array]:
    """Build lazy outputs by name (see `quantise`) and `valid`, in the chunks of the layers, which all share them (y, x)."""
    arrays = [*layers.values(), *([] if mask is None else [mask])]
    chunks = arrays[0].chunks
    blocks = runner.blocks(chunks)
    token = tokenize(*(array.name for array in arrays), runner)
    read = f"read-{tokenize(*(array.name for array in arrays))}"  # the same for every prediction of these layers
    valid = _valid(_reading(read, arrays, blocks), read, names=tuple(layers), runner=runner, token=token, chunks=chunks)
    graph = _graph(blocks, layers, read=read, valid=valid.name, runner=runner, token=token)
    planned = _Outputs(graph, blocks=blocks, token=token, ahead=runner.tiles_ahead(runner.planned))
    sources: list[Any] = [valid]
    outputs = HighLevelGraph.from_collections(f"outputs-{token}", planned, dependencies=sources)
    lazy = {
        name: _array(name, template, outputs, chunks=chunks, token=token)
        for name, template in _templates(runner).items()
    }
    return lazy | {"valid": valid}


def _reading(name: str, arrays: Sequence[da.Array], blocks: BlockPlan) -> HighLevelGraph:
    """Build a task for each chunk that gives it of every array: from the store, where that is all they are, else from their own tasks."""
    indices = list(product(*(range(len(parts)) for parts in blocks.intervals)))
    stored = [pixels for array in arrays if (pixels := stored_pixels(array)) is not None]
    if len(stored) < len(arrays):
        tasks: _Graph = {(name, *index): (_together, [(array.name, *index) for array in arrays]) for index in indices}
        return HighLevelGraph.from_collections(name, tasks, dependencies=arrays)  # type: ignore[arg-type]  # dask.array is one
    source = f"stored-{name}"
    tasks = {(name, *index): (_ReadTask(blocks.region((index[0], index[1]))), source) for index in indices}
    tasks[source] = _Stored(tuple(stored))
    return HighLevelGraph({name: tasks}, {name: set()})


def _together(arrays: list[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
    return tuple(arrays)


def _valid(
    reading: HighLevelGraph, read: str, *, names: tuple[str, ...], runner: Runner, token: str, chunks: _Chunks
) -> da.Array:
    key = f"valid-{token}"
    runner_key = f"runner-{token}"
    tasks: _Graph = {
        (key, *index): (_ValidTask(names), runner_key, (read, *index))
        for index in product(*(range(len(sizes)) for sizes in chunks))
    }
    tasks[runner_key] = runner
    layers: dict[str, Any] = {**reading.layers, key: tasks}
    graph = HighLevelGraph(layers, {**reading.dependencies, key: {read}})
    return da.Array(graph, key, chunks=chunks, dtype=bool)


def _templates(runner: Runner) -> dict[str, NDArray[Any]]:
    """Call `quantise` on a single pixel, for the names, dtypes and leading axes of the outputs."""
    plan = runner.plan
    total = np.zeros((plan.kept, len(plan.classes), 1, 1), np.int32)
    return quantise(total, np.ones((1, 1), bool), plan=plan)


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
        task = _TilesTask(
            names=tuple(layers),
            tiles=block.tiles,
            read=block.read,
            origins=[blocks.region(index) for index in needed],
            room_bytes=room,
        )
        parts = [(read, *index) for index in needed]
        graph[output] = (task, runner_key, parts, [(valid, *index) for index in needed], begun_on)
        for target in blocks.intersecting(block.output):
            strip = (f"strip-{token}", *block.index, *target)
            graph[strip] = (_StripTask(blocks.region(target)), output)
            receiving[target].append(strip)
    rungs = f"rung-{token}"
    across = _across(blocks)
    rows = len(blocks.chunks[across])
    for index, strips in receiving.items():
        hold = barrier(rungs, index[across], rows=rows)
        task_key = (f"finished-{token}", *index)
        graph[task_key] = (_FinishTask(blocks.region(index)), runner_key, strips, (valid, *index), hold)
    return graph | ordering_barriers(rungs, rows)


def _across(blocks: BlockPlan) -> int:
    """Return the axis along which rows of blocks follow each other: theirs or that of columns, whichever are shorter."""
    return int(len(blocks.chunks[1]) > len(blocks.chunks[0]))


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
        handed = [(f"handed-{self._token}", *key[1:]) for key in tiles]
        for key, mark, before in zip(tiles, handed, [None, *handed], strict=False):
            # After those before it, too: dask would else take this block next, and not those between.
            tasks[mark] = (_no_value, key, before)
            dependencies[mark] = {key} if before is None else {key, before}
        totals = [0, *accumulate(len(tasks[key][0].tiles) for key in tiles)]
        awaited = {
            key[1:]: handed[min(bisect_left(totals, totals[number + 1] + self._ahead), len(tiles)) - 1]
            for number, key in enumerate(tiles)
        }
        for key in [key for key in tasks if isinstance(key, tuple) and key[0] == f"strip-{self._token}"]:
            tasks[key] = (*tasks[key], awaited[key[1:3]])
            dependencies[key] = dependencies[key] | {awaited[key[1:3]]}
        return MaterializedLayer(tasks, annotations=self.annotations), dependencies


# Tasks are objects that carry their constants, because dask would take a tuple in a graph for a task or a key.


@dataclass(frozen=True)
class _Stored:
    """Layers of a store."""

    pixels: tuple[StoredPixels, ...]
    """One for each layer, and for the mask."""


@dataclass(frozen=True)
class _ReadTask:
    """Reads all layers of one chunk, one after the other: none of them costs a task of dask's."""

    region: Region

    def __call__(self, stored: _Stored) -> tuple[NDArray[Any], ...]:
        return tuple(pixels[self.region] for pixels in stored.pixels)


@dataclass(frozen=True)
class _ValidTask:
    """Marks the valid pixels of one chunk."""

    names: tuple[str, ...]
    """Layers, in the order in which they come; the mask, if there is one, is the last."""

    def __call__(self, runner: Runner, arrays: tuple[NDArray[Any], ...]) -> NDArray[np.bool_]:
        stored = dict(zip(self.names, arrays, strict=False))
        return runner.valid(stored, arrays[-1] if len(arrays) > len(self.names) else None)


@dataclass(frozen=True)
class _TilesTask:
    """Assembles a window from chunks and runs the tiles that begin in one of them."""

    names: tuple[str, ...]
    """Layers, in the order in which their chunks come."""
    tiles: TileRange
    read: Region
    """Pixels that these tiles see."""
    origins: list[Region]
    """Pixels of each chunk that is handed over."""
    room_bytes: int
    """What all windows of a process may take."""

    def __call__(  # noqa: PLR0917 - dask gives them by place
        self, runner: Runner, parts: list[tuple[NDArray[Any], ...]], valid: list[NDArray[np.bool_]], begun_on: str
    ) -> Pending[TileSums]:
        """Run the tiles on the chunks, each with every layer, and their valid pixels; waits for them where a batch is one tile."""
        runner.require_hardware(begun_on)
        device = runner.where
        n_pixels = prod(part.stop - part.start for part in self.read)
        n_bytes = n_pixels * (1 + sum(parts[0][place].dtype.itemsize for place in range(len(self.names))))
        room = room_for(device, n_bytes, limit=self.room_bytes)
        try:
            window = BlockInput(
                region=self.read,
                stored={
                    name: self._assembled([part[place] for part in parts]) for place, name in enumerate(self.names)
                },
                packings=runner.packings,
                valid=self._assembled(valid),
            )
            pending = runner.submit(window, self.tiles, room=room)
        except BaseException:
            room.release()
            raise
        if not runner.tiles_ahead(Hardware.of(device)):
            pending.result()
        return pending

    def _assembled(self, chunks: Sequence[NDArray[Any]]) -> NDArray[Any]:
        out = np.empty([part.stop - part.start for part in self.read], chunks[0].dtype)
        for chunk, origin in zip(chunks, self.origins, strict=True):
            both = [slice(max(r.start, o.start), min(r.stop, o.stop)) for r, o in zip(self.read, origin, strict=True)]
            to = tuple(slice(b.start - r.start, b.stop - r.start) for b, r in zip(both, self.read, strict=True))
            source = tuple(slice(b.start - o.start, b.stop - o.start) for b, o in zip(both, origin, strict=True))
            out[to] = chunk[source]
        return out


@dataclass(frozen=True)
class _StripTask:
    """Waits for the output of one block and crops it to what another needs."""

    region: Region
    """Pixels of the block that needs it."""

    def __call__(self, output: Pending[TileSums], _handed: None = None) -> TileSums:
        return crop(output.result(), self.region)


@dataclass(frozen=True)
class _FinishTask:
    """Adds up the strips of one block and quantises."""

    region: Region
    """Pixels of the block."""

    def __call__(
        self, runner: Runner, strips: list[TileSums], valid: NDArray[np.bool_], _rung: None
    ) -> dict[str, NDArray[Any]]:
        return quantise(merge_strips(strips, self.region, plan=runner.plan), valid, plan=runner.plan)
