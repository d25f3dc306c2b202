"""Cells on real clusters: processes that are killed, poisoned cells, leases, GPUs, and schedulers that go."""

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster
from distributed.client import _get_global_client

from rtsx.campaign.clusters import connect_cluster
from rtsx.campaign.dask_runner import run_on_cluster
from rtsx.campaign.recipe import ClusterSpec, RetrySpec
from rtsx.campaign.records import Failure, RunSummary
from rtsx.campaign.task_queue import CellResult, NoOp
from rtsx.errors import ClusterError
from tests import warm
from tests.campaign.flights import CrowdedJob, Diary, TroubledJob, UnreadableJob
from tests.servers import free_port

SOON = RetrySpec(attempts=3, backoff_s=0.05, longest_backoff_s=0.1)
CELLS = [(-1, x) for x in range(24)]


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """Lost workers are what these tests are about, so nobody has to read of them."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.scheduler", "distributed.nanny")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}),
        connect_cluster(ClusterSpec(workers=2, memory_bytes=2**31)) as client,
    ):
        yield client


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path)


def test_every_cell_is_run_once_and_counted_once(client: Client, diary: Diary) -> None:
    seen: list[CellResult] = []
    ticks: list[RunSummary] = []
    summary = run_on_cluster(
        client,
        TroubledJob(diary),
        CELLS,
        run="r",
        retry=SOON,
        on_outcome=seen.append,
        on_tick=ticks.append,
        in_flight=5,
    )
    assert (summary.done, summary.left, summary.set_aside, summary.stopped, summary.complete) == (24, 0, (), None, True)
    assert sorted(outcome.cell for outcome in seen) == CELLS
    assert [len(diary.read(cell, "done")) for cell in CELLS] == [1] * 24
    assert ticks[0].workers == 2
    assert max(tick.in_flight for tick in ticks) <= 5
    assert (ticks[-1].done, ticks[-1].in_flight) == (24, 0)
    assert "24 of 24 cells done" in str(summary)


def test_no_cells_is_a_run_that_ends_at_once(client: Client) -> None:
    summary = run_on_cluster(client, NoOp(), [], run="r", retry=SOON)
    assert summary.complete
    assert summary.cells == 0


def test_cells_that_fail_kill_or_are_leased_are_tried_again_and_the_bad_one_is_set_aside(
    client: Client, diary: Diary
) -> None:
    job = TroubledJob(
        diary,
        kills_once=frozenset([CELLS[2]]),
        fails_once=frozenset([CELLS[3]]),
        leased_once=frozenset([CELLS[4]]),
        lasting=frozenset([CELLS[5]]),
        raises=frozenset([CELLS[6]]),
    )
    aside: list[Failure] = []
    summary = run_on_cluster(client, job, CELLS, run="r", retry=SOON, on_set_aside=aside.append)
    assert (summary.done, summary.left, summary.stopped) == (22, 0, None)
    assert {gone.cell: (gone.kind, gone.error, gone.attempts) for gone in aside} == {
        CELLS[5]: ("lasting", "ValueError", 1),
        CELLS[6]: ("passing", "ZeroDivisionError", 3),
    }
    assert tuple(aside) == summary.set_aside
    assert len(diary.read(CELLS[2], "start")) == 2
    assert not summary.complete
    assert "set aside: cell (-1, 5): ValueError: bad data" in str(summary)


def test_a_process_whose_gpu_failed_is_replaced(client: Client, diary: Diary) -> None:
    broken = CELLS[2]
    summary = run_on_cluster(
        client, TroubledJob(diary, breaks_gpu_once=frozenset([broken])), CELLS, run="r", retry=SOON
    )
    assert summary.complete
    failed, again = diary.read(broken, "start")
    assert failed != again
    client.wait_for_workers(2)
    assert failed not in {worker["pid"] for worker in _workers(client)}


@pytest.mark.slow
def test_a_cell_that_always_kills_its_worker_takes_no_other_with_it(client: Client, diary: Diary) -> None:
    poisoned = CELLS[7]
    twice = replace(SOON, attempts=2)
    summary = run_on_cluster(client, TroubledJob(diary, kills=frozenset([poisoned])), CELLS, run="r", retry=twice)
    (gone,) = summary.set_aside
    assert (gone.cell, gone.error, gone.kind) == (poisoned, "KilledWorker", "passing")
    assert "worker was lost" in gone.message
    assert summary.done == 23
    # The first loss may have been another's fault; and a task may be lost that had not begun when its worker went.
    assert 2 <= len(set(diary.read(poisoned, "start"))) <= twice.attempts + 1


@pytest.mark.slow
def test_what_no_cell_can_do_stops_the_run_and_the_next_run_goes_on(client: Client, diary: Diary) -> None:
    cells = [(0, x) for x in range(400)]
    summary = run_on_cluster(
        client, TroubledJob(diary, halting=frozenset([(0, 3)])), cells, run="r", retry=SOON, in_flight=8
    )
    assert summary.stopped == "cell (0, 3) failed as every other would: ValueError: bad data"
    assert summary.set_aside == ()
    assert summary.done + summary.left == 400
    assert summary.left > 200  # the rest was not run first
    assert summary.in_flight == 0
    assert run_on_cluster(client, TroubledJob(diary), cells, run="s", retry=SOON).complete


def test_too_many_failures_stop_the_run(client: Client, diary: Diary) -> None:
    cells = [(0, x) for x in range(400)]
    few = RetrySpec(most_failures=2)
    summary = run_on_cluster(
        client, TroubledJob(diary, lasting=frozenset(cells)), cells, run="r", retry=few, in_flight=8
    )
    assert len(summary.set_aside) >= 2
    assert summary.left > 200
    assert summary.stopped is not None
    assert "cells were set aside" in summary.stopped


def test_a_job_that_workers_cannot_read_is_told_at_once(client: Client) -> None:
    with pytest.raises(ClusterError, match=r"cannot read what it is asked to run .*a_library_that_is_not_there"):
        run_on_cluster(client, UnreadableJob(), CELLS, run="r", retry=SOON)


def test_an_error_of_the_caller_leaves_nothing_on_the_cluster(client: Client, diary: Diary) -> None:
    def full(outcome: CellResult) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run_on_cluster(client, TroubledJob(diary), CELLS, run="r", retry=SOON, on_outcome=full)
    _until_empty(client)


def test_nothing_is_left_on_the_cluster_at_the_end(client: Client) -> None:
    run_on_cluster(client, NoOp(), CELLS, run="r", retry=SOON)
    _until_empty(client)


def _until_empty(client: Client) -> None:
    """Wait until the scheduler has no task any more; the timeout of the test says that it never has."""
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        pass


@pytest.mark.slow
def test_workers_with_a_gpu_run_one_cell_for_each_and_the_others_none(diary: Diary) -> None:
    kwargs = {"threads_per_worker": 4, "processes": True, "dashboard_address": ":0", "memory_limit": 0}
    with LocalCluster(n_workers=1, **kwargs) as cluster, Client(cluster) as client:
        plain = {worker["pid"] for worker in _workers(client)}
        for number in (1, 2):
            spec = cluster.worker_spec[0]
            cluster.worker_spec[f"gpu{number}"] = spec | {"options": spec["options"] | {"resources": {"GPU": 1}}}
        cluster.sync(cluster._correct_state)
        client.wait_for_workers(3)
        assert run_on_cluster(client, CrowdedJob(diary, processes=2), CELLS, run="r", retry=SOON).complete
    used = {process for cell in CELLS for process in diary.read(cell, "free")}
    assert len(used) >= 2  # more where a process had to be replaced
    assert not used & plain
    assert [diary.read(cell, "crowded") for cell in CELLS] == [[]] * len(CELLS)


def _workers(client: Client) -> list[dict[str, int]]:
    return [{"pid": pid} for pid in client.run(os.getpid).values()]


@pytest.mark.slow
def test_workers_may_come_while_cells_wait_for_them(diary: Diary) -> None:
    with LocalCluster(n_workers=0, processes=True, dashboard_address=":0") as cluster, Client(cluster) as client:
        adapted = []

        def tick(summary: RunSummary) -> None:
            if not adapted:
                adapted.append(cluster.adapt(minimum=0, maximum=2, interval="50ms"))

        summary = run_on_cluster(client, TroubledJob(diary), CELLS, run="r", retry=SOON, on_tick=tick)
        assert summary.complete
        adapted[0].stop()


def test_a_cluster_that_gets_no_worker_is_told() -> None:
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
        pytest.raises(ClusterError, match="no worker for 0 s"),
    ):
        run_on_cluster(client, NoOp(), CELLS, run="r", retry=SOON, workers_within_s=0.0)


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[BaseProcess, str]]:
    """A scheduler in a process of its own, with a worker."""
    address = f"tcp://127.0.0.1:{free_port()}"
    commands = (
        ["dask", "scheduler", "--host", "127.0.0.1", "--port", address.rsplit(":", 1)[1], "--no-dashboard"],
        ["dask", "worker", address, "--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path)],
    )
    processes = [
        warm.start("dask.cli:run_cli", words, log=tmp_path / f"{words[1]}.log", environment={}) for words in commands
    ]
    try:
        yield processes[0], address
    finally:
        for one in processes:
            one.kill()
            one.join()


@pytest.mark.slow
def test_a_scheduler_that_is_killed_ends_the_run_with_a_clear_error(
    scheduler: tuple[BaseProcess, str], diary: Diary
) -> None:
    process, address = scheduler
    with connect_cluster(ClusterSpec(scheduler=address)) as client:
        ticks: list[RunSummary] = []

        def kill(outcome: CellResult) -> None:
            process.kill()

        with pytest.raises(ClusterError, match=r"The scheduler tcp://.* was lost.*run the campaign again"):
            run_on_cluster(
                client,
                TroubledJob(diary),
                CELLS,
                run="r",
                retry=SOON,
                on_outcome=kill,
                on_tick=ticks.append,
                in_flight=2,
            )
        assert ticks[-1].left > 0


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://x"])
def test_an_address_without_a_scheduler_is_told_and_leaves_computing_as_it_was(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr("rtsx.campaign.clusters.CONNECT_S", 0.2)
    before = _get_global_client()
    with dask.config.set(scheduler="synchronous"):
        with (
            pytest.raises(ClusterError, match=f"No scheduler answers at '{address}'"),
            connect_cluster(ClusterSpec(scheduler=address)),
        ):
            raise AssertionError
        assert dask.config.get("scheduler") == "synchronous"
    assert _get_global_client() is before
