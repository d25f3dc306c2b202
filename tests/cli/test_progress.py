import io
from collections.abc import Iterator

import dask
import dask.array as da
import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

from rtsx.cli import progress as module
from rtsx.cli.progress import TaskProgress, progress


@pytest.fixture
def bar() -> Iterator[Progress]:
    with Progress(console=Console(file=io.StringIO(), force_terminal=True)) as made:
        yield made


def test_counts_the_tasks_that_take_the_time(bar: Progress) -> None:
    graph = {("answer-1", i): (np.sqrt, i) for i in range(5)} | {"sum": (sum, [("answer-1", i) for i in range(5)])}
    with TaskProgress(bar, label="predicting", counts="answer-"):
        dask.threaded.get(graph, "sum")
    (task,) = bar.tasks
    assert (task.total, task.completed) == (5, 5)


def test_counts_every_task_where_none_has_the_name(bar: Progress) -> None:
    with TaskProgress(bar, label="reading", counts="answer-"):
        da.ones((4, 4), chunks=2).sum().compute(scheduler="threads")
    (task,) = bar.tasks
    assert task.completed == task.total
    assert task.total > 1


def test_shows_a_bar_on_a_terminal_and_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {}
    for is_terminal in (True, False):
        screen = io.StringIO()
        monkeypatch.setattr(module, "status", lambda: Console(file=screen, force_terminal=is_terminal))  # noqa: B023
        with progress("reading"):
            da.ones((4, 4), chunks=2).sum().compute(scheduler="threads")
        shown[is_terminal] = screen.getvalue()
    assert "reading" in shown[True]
    assert shown[False].strip() == ""
