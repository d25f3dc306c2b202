"""A ladder of empty tasks, by which dask takes the rows of blocks one after the other.

dask's schedulers start where a task depends on most, counted with repetition, and grow from there: over a grid of blocks,
which all depend on about as much, that is in many places at once, and the chunks along all these fronts wait in memory. Over
12288 x 12288 px in chunks of 1024 a third of the cube did. A task that hangs on a rung depends on twice as much as one
that hangs on the rung below, so the order is ours: what waits is one row. Empty tasks, instead of having each row wait
for the one before, because a part of a prediction has to be had without the rest, and a cluster works on many rows at once.

Because dask looks at what tasks return together only where they are the last ones, this holds for what is computed or
stored at once (`compute`, `Dataset.to_zarr`), not for a store with `compute=False`: there all hang on one last task,
whose dependencies dask takes in the order of a set.
"""

from typing import Any

__all__ = ["ladder", "rung"]

# What two blocks depend on may differ by up to 2 ** this before the rungs between them.
_LOWEST = 30

_Graph = dict[Any, Any]


def ladder(name: str, rows: int) -> _Graph:
    """Tasks that return None, two for each of `rows` rungs and for what lies below the lowest.

    Examples
    --------
    >>> tasks = ladder("rung", 2)
    >>> tasks[rung("rung", 0, rows=2)][1:] == (("rung", 30, 0), ("rung", 30, 1))
    True
    """
    tasks: _Graph = {(name, 0, side): (_nothing, side) for side in (0, 1)}
    for height in range(1, _LOWEST + rows):
        for side in (0, 1):
            tasks[name, height, side] = (_nothing, (name, height - 1, 0), (name, height - 1, 1))
    return tasks


def rung(name: str, row: int, *, rows: int) -> tuple[str, int, int]:
    """Key of the task on which the blocks of a row hang; the first row hangs highest, and is begun with."""
    return name, _LOWEST + rows - 1 - row, 0


def _nothing(*_: object) -> None:
    return None
