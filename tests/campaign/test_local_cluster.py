"""Workers on this machine are started as a network on a CPU wants them."""

import os

import dask
import pytest
from dask.system import CPU_COUNT

from rtsx.campaign.cluster_spec import ClusterSpec
from rtsx.campaign.clusters import opened
from rtsx.model.allocator import KEEPING


def _said() -> tuple[dict[str, str | None], object, int]:
    import torch

    kept = {name: os.environ.get(name) for name in KEEPING}
    return kept, dask.config.get("distributed.worker.memory.pause"), torch.get_num_threads()


def test_workers_keep_memory_and_have_their_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)  # what is set outside counts more
    with opened(ClusterSpec(workers=1)) as client:
        client.wait_for_workers(1)
        ((kept, pause, threads),) = client.run(_said).values()
    assert kept == KEEPING
    assert pause is False
    assert threads == CPU_COUNT
