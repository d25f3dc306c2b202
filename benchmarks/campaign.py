"""What a campaign's driver costs per cell, whether it stays small, and how it scales; and one large graph over the same cells.

The kernel does nothing, so all that is measured is the driver: `rtsx.campaign.dask_runner.run_on_cluster`. Scheduler and driver are one
process here, which is the worse case for both. Simulated workers are threads of this process whose kernel sleeps.
"""

import logging
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import psutil
from distributed import Client, LocalCluster

from rtsx.campaign.cells import CellTable
from rtsx.campaign.clusters import connect_cluster
from rtsx.campaign.dask_runner import run_on_cluster
from rtsx.campaign.recipe import ClusterSpec, RetrySpec
from rtsx.campaign.records import RunSummary
from rtsx.campaign.task_queue import CellResult, NoOp

MIB = 2**20


@dataclass(frozen=True)
class Overhead:
    """What a run of cells that do nothing costs its driver."""

    cells: int
    """Cells."""
    first_s: float
    """From the call to the first cell that is done, s."""
    clock_ms: float
    """Time on the clock per cell, ms."""
    busy_ms: float
    """Time of processors in this process per cell, ms: driver and scheduler."""
    early_mib: float
    """Resident memory of this process when a tenth of the cells is done, MiB."""
    late_mib: float
    """When the last is done, likewise."""

    @property
    def growth(self) -> float:
        """How much the memory grows over nine tenths of the run, as a part of what it was."""
        return self.late_mib / self.early_mib - 1


@dataclass(frozen=True)
class GraphRun:
    """One dask graph over the same number of chunks."""

    chunks: int
    """Chunks of the raster."""
    tasks: int
    """Tasks of the graph."""
    clock_s: float
    """Seconds on the clock, with building; infinite where it was not done in time."""
    peak_mib: float
    """Greatest resident memory of the process with client and scheduler, MiB."""


def cells_of(count: int) -> CellTable:
    """So many cells, row by row of a square."""
    side = math.ceil(math.sqrt(count))
    return CellTable(np.stack(np.divmod(np.arange(count), side), axis=1).astype(np.int32))


def quiet() -> None:
    """Keep what a cluster says of itself out of the tables."""
    for name in ("distributed", "distributed.scheduler", "distributed.worker", "distributed.shuffle"):
        logging.getLogger(name).setLevel(logging.ERROR)


def overhead(cells: int, *, workers: int) -> Overhead:
    """Run cells that do nothing on worker processes of this machine."""
    process, seen, early = psutil.Process(), 0, math.nan
    first = math.inf

    def completed(outcome: CellResult) -> None:
        nonlocal seen, early, first
        first = min(first, time.perf_counter())
        seen += 1
        if seen == max(1, cells // 10):
            early = process.memory_info().rss / MIB

    table = cells_of(cells)
    with connect_cluster(ClusterSpec(workers=workers)) as client:
        client.wait_for_workers(workers)
        begin, busy = time.perf_counter(), time.process_time()
        summary = run_on_cluster(client, NoOp(), table, run="benchmark", retry=RetrySpec(), on_outcome=completed)
        clock, busy = time.perf_counter() - begin, time.process_time() - busy
        late = process.memory_info().rss / MIB
    assert summary.complete
    return Overhead(cells, first - begin, 1000 * clock / cells, 1000 * busy / cells, early, late)


def efficiency(workers: int, *, seconds: float, rounds: int) -> float:
    """Least possible time over the time taken, for cells that sleep, `rounds` on each of so many simulated workers."""
    cells = cells_of(workers * rounds)
    with (
        LocalCluster(n_workers=0, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        # Now only, because a client cannot connect in time while so many start in its process.
        cluster.scale(workers)
        client.wait_for_workers(workers)
        begin = time.perf_counter()
        summary: RunSummary = run_on_cluster(client, NoOp(seconds), cells, run="benchmark", retry=RetrySpec())
        clock = time.perf_counter() - begin
    assert summary.complete
    return seconds * rounds / clock


def graph(chunks: int, *, workers: int, limit_s: float) -> GraphRun:
    """Run one graph of `map_overlap` and `to_zarr` in a process of its own, for so long at most."""
    command = [sys.executable, "-m", "benchmarks.overlap_graph", str(chunks), str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        watched, peak, end = psutil.Process(process.pid), 0.0, time.monotonic() + limit_s
        while process.poll() is None and time.monotonic() < end:
            try:
                peak = max(peak, watched.memory_info().rss / MIB)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.1)
        if process.poll() is None:
            for child in watched.children(recursive=True):
                child.kill()
            process.kill()
        assert process.stdout is not None
        said = process.stdout.read().split()
    tasks = int(said[0]) if said else 0
    return GraphRun(chunks, tasks, float(said[1]) if len(said) > 1 else math.inf, peak)


def run(
    cells: int,
    *,
    workers: int = 2,
    simulated: Sequence[int] = (1, 4, 16, 64),
    seconds: float = 5.0,
    rounds: int = 8,
    limit_s: float = 600.0,
) -> tuple[list[Overhead], dict[int, float], list[GraphRun]]:
    """Measure and print the three tables, of cells up to so many."""
    quiet()
    sizes = [count for count in (cells // 100, cells // 10, cells) if count]
    print(f"{'cells':>9}{'first s':>9}{'clock ms':>10}{'busy ms':>9}{'MiB, 1/10':>11}{'MiB, end':>10}{'growth':>8}")
    flown = []
    for count in sizes:
        flown.append(took := overhead(count, workers=workers))
        print(
            f"{count:9}{took.first_s:9.2f}{took.clock_ms:10.2f}{took.busy_ms:9.2f}{took.early_mib:11.0f}{took.late_mib:10.0f}"
            f"{took.growth:8.1%}",
            flush=True,
        )
    print(
        f"\n{'simulated workers':>18}{'cells':>8}{'efficiency':>12}   (cells of {seconds:g} s, {rounds} for each worker)"
    )
    reached = {}
    for count in simulated:
        reached[count] = efficiency(count, seconds=seconds, rounds=rounds)
        print(f"{count:18}{count * rounds:8}{reached[count]:12.3f}", flush=True)
    print(
        f"\n{'chunks':>9}{'tasks':>10}{'clock s':>9}{'ms / chunk':>12}{'peak MiB':>10}   (one graph, map_overlap and to_zarr)"
    )
    graphs = []
    for count in sizes:
        graphs.append(one := graph(count, workers=workers, limit_s=limit_s))
        if math.isinf(one.clock_s):
            print(f"{count:9}{one.tasks:10}  not done in {limit_s:.0f} s{one.peak_mib:13.0f}", flush=True)
            break
        print(
            f"{count:9}{one.tasks:10}{one.clock_s:9.1f}{1000 * one.clock_s / count:12.2f}{one.peak_mib:10.0f}",
            flush=True,
        )
    return flown, reached, graphs
