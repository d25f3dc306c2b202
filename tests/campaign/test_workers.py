"""Workers of other versions or too little memory run no cell, whether they are there or come later."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from rtsx.campaign.clusters import WorkerRequirements, WorkerResources, release_environment, require_environment
from rtsx.campaign.dask_runner import run_on_cluster
from rtsx.campaign.recipe import RetrySpec
from rtsx.campaign.records import RunSummary, versions_here
from rtsx.campaign.task_queue import NoOp
from rtsx.errors import ClusterError
from tests.campaign.flights import Diary, TroubledJob

GIB = 2**30


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=1, threads_per_worker=2, memory_limit=2 * GIB, processes=True, dashboard_address=":0"
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster) as client:
        yield client


@pytest.mark.slow
def test_a_fit_cluster_passes_and_may_run_afterwards(client: Client) -> None:
    require_environment(client, WorkerRequirements(versions_here(), GIB))
    assert run_on_cluster(client, NoOp(), [(0, 0)], run="r", retry=RetrySpec()).complete
    release_environment(client)  # once more than needed, which is no error


def test_other_versions_and_too_little_memory_are_refused_by_name(client: Client) -> None:
    other = versions_here() | {"zarr": "0.0"}
    with pytest.raises(ClusterError) as told:
        require_environment(client, WorkerRequirements(other, 2 * GIB))
    lines = str(told.value).splitlines()
    here = versions_here()["zarr"]
    assert lines[1] == f"- the scheduler has zarr {here} instead of 0.0"
    assert lines[2].startswith("- worker tcp://")
    assert lines[2].endswith(f"has zarr {here} instead of 0.0; has 2.00 GiB for 2 cells at a time, which need 4.00 GiB")
    assert "one environment" in lines[3]


def add_worker(cluster: LocalCluster, name: str, **options: object) -> None:
    """Start another worker, of another kind."""
    spec = cluster.worker_spec[0]
    cluster.worker_spec[name] = spec | {"options": spec["options"] | options}
    cluster.sync(cluster._correct_state)


@pytest.mark.slow
def test_a_worker_that_comes_later_and_does_not_fit_runs_nothing_and_leaves(
    cluster: LocalCluster, client: Client, tmp_path: Path
) -> None:
    diary, go = Diary(tmp_path), tmp_path / "go"
    require_environment(client, WorkerRequirements(versions_here(), GIB))
    fit = set(client.run(_process).values())
    ticks: list[RunSummary] = []

    def tick(summary: RunSummary) -> None:
        ticks.append(summary)
        if len(ticks) == 1:
            add_worker(cluster, "small", memory_limit=GIB // 2)
        elif client.get_events(f"rtsx-environment-{client.id}"):
            go.touch()

    cells = [(0, x) for x in range(12)]
    assert run_on_cluster(
        client, TroubledJob(diary, waits_for=go), cells, run="r", retry=RetrySpec(), on_tick=tick
    ).complete
    assert {process for cell in cells for process in diary.read(cell, "done")} <= fit
    (event,) = client.get_events(f"rtsx-environment-{client.id}")
    assert "has 512.00 MiB for 2 cells at a time, which need 2.00 GiB" in event[1]


def _process() -> int:
    import os

    return os.getpid()


@pytest.mark.slow
def test_a_cluster_all_of_whose_workers_are_sent_away_is_told() -> None:
    with LocalCluster(n_workers=0, processes=True, dashboard_address=":0") as cluster, Client(cluster) as client:
        require_environment(client, WorkerRequirements(versions_here(), 2**50))
        cluster.adapt(minimum=0, maximum=1, interval="100ms")
        with pytest.raises(ClusterError, match=r"those that came were sent away, the last since worker .*2.00 PiB"):
            run_on_cluster(client, NoOp(), [(0, 0)], run="r", retry=RetrySpec())


def test_a_worker_without_a_bound_has_memory_enough() -> None:
    assert WorkerRequirements({}, 2**60).lacking(WorkerResources({}, 0, slots=4)) == ""


@pytest.mark.parametrize(
    ("wanted", "has", "said"),
    [
        ("", "CPU", ""),
        ("GPU", "NVIDIA A10", ""),
        ("GPU", "CPU", "would compute with CPU instead of GPU"),
        ("NVIDIA A10", "NVIDIA H200", "would compute with NVIDIA H200 instead of NVIDIA A10"),
        ("CPU", "NVIDIA A10", "would compute with NVIDIA A10 instead of CPU"),
    ],
)
def test_one_map_is_computed_by_one_kind_of_device(wanted: str, has: str, said: str) -> None:
    needs = WorkerRequirements({}, 0, device="auto", hardware=wanted)
    assert needs.lacking(WorkerResources({}, 0, slots=1, hardware=has)) == said


def test_what_is_missing_is_named() -> None:
    assert (
        WorkerRequirements({"torch": "2.6"}, 0).lacking(WorkerResources({}, 0, slots=1))
        == "has torch missing instead of 2.6"
    )
