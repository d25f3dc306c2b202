"""Progress is seen at once, wherever work runs and wherever it is looked at."""

import errno
import io
import os
import sys
from threading import Event

import dask
import dask.array as da
import distributed
import numpy as np
import pytest
from distributed import Client, LocalCluster

from rtsx import progress
from rtsx.progress import Line, show_progress, watched


class Screen(io.StringIO):
    """What was written; tells when."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal
        self.written = Event()

    def isatty(self) -> bool:
        return self._is_terminal

    def flush(self) -> None:
        self.written.set()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_S", 0.0)


def test_counts_the_tasks_that_take_the_time() -> None:
    told: list[tuple[int, int]] = []
    graph = {("answer-1", i): (np.sqrt, i) for i in range(5)} | {"sum": (sum, [("answer-1", i) for i in range(5)])}
    with watched(lambda done, total: told.append((done, total)), counts="answer-"):
        dask.threaded.get(graph, "sum")
    assert told == [(done, 5) for done in range(6)]


def test_counts_every_task_where_none_has_the_name() -> None:
    told: list[tuple[int, int]] = []
    with watched(lambda done, total: told.append((done, total)), counts="answer-"):
        da.ones((4, 4), chunks=2).sum().compute(scheduler="threads")
    assert told[-1][0] == told[-1][1] > 1


def test_a_cluster_is_heard() -> None:
    told: list[tuple[int, int]] = []

    def waiting(number: int) -> int:
        assert distributed.Event("seen").wait(60)
        return number

    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        seen = distributed.Event("seen", client=client)

        def update(done: int, total: int) -> None:
            told.append((done, total))
            seen.set()

        kept = da.ones(4, chunks=1).persist()  # of before: counts for nothing
        with watched(update, counts="waiting"):
            dask.compute([dask.delayed(waiting, pure=False)(number) for number in range(6)])
        del kept
    assert told[0] == (0, 6)
    assert told[-1] == (6, 6)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("is_terminal", [True, False])
def test_something_is_said_before_anything_is_done(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    screen = Screen(is_terminal=is_terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    with Line("reading", unit="tiles") as line:
        assert screen.written.wait(60)
        line.update(2, 3, ", one by one")
    assert screen.getvalue().lstrip("\r").startswith("reading ...")
    assert "reading: 2 of 3 tiles, one by one" in screen.getvalue()
    assert screen.getvalue().endswith("\n")
    if not is_terminal:
        assert not {"\r", "\x1b"} & set(screen.getvalue()), "a log holds no control characters"


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("kind", ["none", "closed", "full"])
def test_a_log_that_cannot_be_written_costs_no_work(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    screen = {"none": None, "closed": io.StringIO(), "full": Full()}[kind]
    if screen is not None and kind == "closed":
        screen.close()
    monkeypatch.setattr(sys, "stderr", screen)
    with Line("reading") as line:
        line.update(1, 1)


@pytest.mark.usefixtures("at_once")
def test_one_speaks_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(is_terminal=False)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "_LONGEST_S", 0.01)

    def heard() -> str:
        """The next three words."""
        start = screen.tell()
        for _ in range(3):
            screen.written.clear()
            assert screen.written.wait(60)
        return screen.getvalue()[start:]

    with Line("outer"):
        assert "outer" in heard()
        with Line("inner"):
            heard()  # what was said at the moment of the change
            inner = heard()
        assert "outer" in heard()
    assert "inner" in inner
    assert "outer" not in inner


def test_what_is_quick_is_not_worth_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("adding"):
        da.ones((4, 4), chunks=2).sum().compute()
    assert capsys.readouterr().err == ""
