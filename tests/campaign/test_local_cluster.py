"""Workers on this machine are started as a network on a CPU wants them.

What they are asked is defined within the tests, because it is then sent by value: of a function of this file they would be told the
name, and load all that the file loads.
"""

import os
from pathlib import Path

import dask
import psutil
import pytest
from dask.system import CPU_COUNT
from distributed import Worker

from rtsx.campaign.clusters import opened
from rtsx.campaign.recipe import ClusterSpec
from rtsx.model.allocator import KEEPING


def heard() -> set[str]:
    """Addresses at which this process and those it started listen."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return {
        connection.laddr.ip
        for process in family
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }


def test_workers_keep_memory_and_have_their_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    def said() -> tuple[dict[str, str | None], object, int]:
        import torch

        kept = {name: os.environ.get(name) for name in KEEPING}
        return kept, dask.config.get("distributed.worker.memory.pause"), torch.get_num_threads()

    for name in (*KEEPING, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)  # what is set outside counts more
    with opened(ClusterSpec(workers=1)) as client:
        client.wait_for_workers(1)
        ((kept, pause, threads),) = client.run(said).values()
        # Scheduler, workers, nannies, and the dashboards of all: nobody outside this machine reaches them.
        assert heard() == {"127.0.0.1"}
    assert kept == KEEPING
    assert pause is False
    assert threads == CPU_COUNT


def test_each_worker_sees_one_of_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(dask_worker: Worker) -> tuple[str | None, object, object]:
        pause = dask.config.get("distributed.worker.memory.pause")
        return os.environ.get("CUDA_VISIBLE_DEVICES"), dask_worker.state.total_resources, pause

    monkeypatch.setattr("rtsx.campaign.clusters._gpus", lambda: ["4", "7"])
    with opened(ClusterSpec(workers=2, memory_bytes=2**30)) as client:
        client.wait_for_workers(2)
        answers = client.run(seen).values()
        assert heard() == {"127.0.0.1"}
    assert sorted(gpu for gpu, _, _ in answers) == ["4", "7"]
    assert [resources for _, resources, _ in answers] == [{"GPU": 1}, {"GPU": 1}]
    assert [pause for _, _, pause in answers] == [False, False]  # though they come after the cluster


def test_workers_leave_nothing_behind_and_say_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    def local_folder(dask_worker: Worker) -> str:
        import torch

        torch.nn.Conv2d(1, 1, 3)(torch.zeros(1, 1, 64, 64))
        return str(dask_worker.local_directory)

    environment = dict(os.environ)
    with opened(ClusterSpec(workers=1)) as client:
        client.wait_for_workers(1)
        (folder,) = client.run(local_folder).values()
        assert Path(folder).exists()
    assert not Path(folder).exists()
    assert dict(os.environ) == environment
    assert capfd.readouterr().err == ""
