"""A real gateway, from the configuration that is shipped: profiles, adaptive workers, passwords, and a clean end."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from dask.system import CPU_COUNT
from distributed import Worker

from rtsx.campaign.clusters import WorkerRequirements, _gpus, connect_cluster, require_environment
from rtsx.campaign.dask_runner import run_on_cluster
from rtsx.campaign.recipe import ClusterSpec, RetrySpec
from rtsx.campaign.records import RunSummary, versions_here
from rtsx.campaign.task_queue import CellResult, NoOp
from rtsx.errors import ClusterError, MissingExtraError
from rtsx.model.allocator import KEEPING
from tests.campaign.gateways import GatewayServer, gateway_server


@pytest.fixture(scope="module", autouse=True)
def quick_workers() -> None:
    """Workers are started here as they are elsewhere, because their environment is looked at."""


@pytest.fixture(scope="module")
def server() -> Iterator[GatewayServer]:
    with gateway_server() as server:
        yield server


@pytest.fixture
def gateway(server: GatewayServer, monkeypatch: pytest.MonkeyPatch) -> GatewayServer:
    """The server, and its password in the environment."""
    monkeypatch.setenv("DASK_GATEWAY_USER", "somebody")
    monkeypatch.setenv("DASK_GATEWAY_PASSWORD", server.password)
    return server


def clusters_of(server: GatewayServer) -> list[str]:
    """Names of the clusters that are there."""
    from dask_gateway import BasicAuth, Gateway

    gateway = Gateway(server.url, auth=BasicAuth("somebody", server.password))
    names = [cluster.name for cluster in gateway.list_clusters()]
    gateway.close()
    gateway._asynchronous = True
    return names


def test_workers_of_a_profile_come_with_the_work_and_the_cluster_ends(gateway: GatewayServer) -> None:
    spec = ClusterSpec(gateway=gateway.url, profile="gpu", options={"worker_memory": 1.5}, adapt=(0, 1))
    ticks: list[RunSummary] = []
    seen: list[dict[str, Any]] = []
    kept: list[dict[str, str | None]] = []

    def completed(outcome: CellResult) -> None:
        if not seen:  # while it works, because it may leave as soon as it does not
            seen.extend(client.scheduler_info(n_workers=-1)["workers"].values())
            kept.extend(
                client.run(lambda names: {name: os.environ.get(name) for name in names}, list(KEEPING)).values()
            )

    with connect_cluster(spec) as client:
        assert len(clusters_of(gateway)) == 1
        require_environment(client, WorkerRequirements(versions_here(), 2**30))
        cells = [(0, x) for x in range(40)]
        summary = run_on_cluster(
            client, NoOp(), cells, run="r", retry=RetrySpec(), on_tick=ticks.append, on_outcome=completed
        )
        assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures) == 0
    assert summary.complete
    assert ticks[0].workers == 0
    (worker,) = seen
    assert worker["resources"] == {"GPU": 1}
    assert worker["memory_limit"] == int(1.5 * 2**30)
    assert kept == [KEEPING]
    assert clusters_of(gateway) == []


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"profile": "tpu"}, r"does not take profile='tpu'"),
        ({"options": {"worker_cores": 10**6}}, r"does not take worker_cores=1000000: .*<="),
        ({"options": {"colour": "red"}}, r"has no option 'colour'; it has profile, worker_cores, worker_memory"),
    ],
)
def test_what_the_gateway_has_not_is_told_before_a_cluster_starts(
    gateway: GatewayServer, spec: dict[str, str], told: str
) -> None:
    with (
        pytest.raises(ClusterError, match=told),
        connect_cluster(ClusterSpec(gateway=gateway.url, adapt=(0, 1), **spec)),
    ):  # type: ignore[arg-type]
        raise AssertionError
    assert clusters_of(gateway) == []


def test_a_wrong_password_is_told(gateway: GatewayServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_GATEWAY_PASSWORD", "wrong")
    with (
        pytest.raises(ClusterError, match=r"does not let us in \(HTTP 401\).*DASK_GATEWAY_PASSWORD"),
        connect_cluster(ClusterSpec(gateway=gateway.url, adapt=(0, 1))),
    ):
        raise AssertionError


def test_a_gateway_without_its_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_gateway", None)
    with (
        pytest.raises(MissingExtraError, match=r"pip install 'rtsx\[gateway\]'"),
        connect_cluster(ClusterSpec(gateway="http://127.0.0.1:1", workers=1)),
    ):
        raise AssertionError


def test_a_gateway_that_is_not_there_is_told() -> None:
    with (
        pytest.raises(ClusterError, match=r"http://127.0.0.1:1 cannot be reached"),
        connect_cluster(ClusterSpec(gateway="http://127.0.0.1:1", adapt=(0, 1))),
    ):
        raise AssertionError


def test_a_token_that_is_not_set_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUPYTERHUB_API_TOKEN", raising=False)
    with (
        pytest.raises(ClusterError, match="JUPYTERHUB_API_TOKEN, which is not set"),
        connect_cluster(ClusterSpec(gateway="http://127.0.0.1:1", auth="jupyterhub", adapt=(0, 1))),
    ):
        raise AssertionError


@pytest.mark.slow
def test_ctrl_c_ends_the_cluster_of_a_gateway(gateway: GatewayServer) -> None:
    script = f"""
from rtsx.campaign.recipe import ClusterSpec
from rtsx.campaign.clusters import connect_cluster
from rtsx.campaign.dask_runner import run_on_cluster
from rtsx.campaign.task_queue import CellResult, NoOp
from rtsx.campaign.recipe import RetrySpec

with connect_cluster(ClusterSpec(gateway={gateway.url!r}, adapt=(0, 1))) as client:
    run_on_cluster(client, NoOp(), [(0, 0)], run="r", retry=RetrySpec(), in_flight=1, on_tick=lambda _: print("flying", flush=True))
    raise AssertionError("no worker is wanted")
"""
    script = script.replace("NoOp()", "NoOp(seconds=30.0)")
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ.copy(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "flying\n"
    assert len(clusters_of(gateway)) == 1
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert clusters_of(gateway) == []


def heard() -> set[str]:
    """Addresses at which this process and those it started listen."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return {
        connection.laddr.ip
        for process in family
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }


@pytest.mark.slow
def test_a_worker_keeps_memory_has_its_cores_leaves_nothing_behind_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def said(dask_worker: Worker) -> tuple[dict[str, str | None], object, int, str]:
        import torch

        torch.nn.Conv2d(1, 1, 3)(torch.zeros(1, 1, 64, 64))
        kept = {name: os.environ.get(name) for name in KEEPING}
        pause = dask.config.get("distributed.worker.memory.pause")
        return kept, pause, torch.get_num_threads(), str(dask_worker.local_directory)

    for name in (*KEEPING, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)  # what is set outside counts more
    monkeypatch.setenv("__DASK_PARENT_PID", str(os.getpid()))  # which the first cluster of a process sets
    environment = dict(os.environ)
    with connect_cluster(ClusterSpec(workers=1)) as client:
        client.wait_for_workers(1)
        ((kept, pause, threads, folder),) = client.run(said).values()
        # Scheduler, workers, nannies, and the dashboards of all: nobody outside this machine reaches them.
        assert heard() == {"127.0.0.1"}
        assert Path(folder).exists()
    assert kept == KEEPING
    assert pause is False
    assert threads == CPU_COUNT
    assert not Path(folder).exists()
    assert dict(os.environ) == environment
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("named", "count", "found"),
    [
        (None, 2, ["0", "1"]),
        ("", 0, []),
        ("4,7", 2, ["4", "7"]),
        ("4,9", 1, ["4"]),
        ("MIG-a,MIG-b,MIG-c", 1, ["MIG-a", "MIG-b", "MIG-c"]),  # CUDA counts the first of them alone
    ],
)
def test_gpus_have_the_names_that_a_process_is_given(
    monkeypatch: pytest.MonkeyPatch, named: str | None, count: int, found: list[str]
) -> None:
    if named is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    assert _gpus() == found


@pytest.mark.slow
def test_each_worker_sees_one_of_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(dask_worker: Worker) -> tuple[str | None, object, object]:
        pause = dask.config.get("distributed.worker.memory.pause")
        return os.environ.get("CUDA_VISIBLE_DEVICES"), dask_worker.state.total_resources, pause

    monkeypatch.setattr("rtsx.campaign.clusters._gpus", lambda: ["4", "7"])
    with connect_cluster(ClusterSpec(memory_bytes=2**30)) as client:
        client.wait_for_workers(2)
        answers = client.run(seen).values()
        assert heard() == {"127.0.0.1"}
    assert sorted(gpu for gpu, _, _ in answers) == ["4", "7"]
    assert [resources for _, resources, _ in answers] == [{"GPU": 1}, {"GPU": 1}]
    assert [pause for _, _, pause in answers] == [False, False]  # though they come after the cluster
