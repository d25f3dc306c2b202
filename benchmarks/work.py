"""How workers without a scheduler share the cells of a campaign, and what a cell costs them beside those of a dask cluster.

The kernel sleeps, so all that is measured is what `rtsx campaign work` and `run` add: leases and marks, listings here and a scheduler
there. Workers of both are threads of this process, on one folder of this disk, and on the same with a pause before each request, as of
a distant store. With `--kills`, worker processes map a small campaign while they are killed.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster

import rtsx
from benchmarks.campaign import cells_of, quiet
from rtsx.campaign.cells import Address
from rtsx.campaign.dask_runner import run_on_cluster
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, held
from rtsx.campaign.recipe import RetrySpec
from rtsx.campaign.task_queue import CellResult, cell_result
from rtsx.campaign.worker import CellWorker, FreeCells
from rtsx.storage.object_store import ObjectStore, open_object_store


@dataclass
class Sleeper:
    """Takes a cell as a campaign does, and sleeps instead of mapping it."""

    ledger: CampaignLedger
    seconds: float
    outcomes: Counter[str] = field(default_factory=Counter)

    def __call__(self, cell: Address, attempt: int, run: str) -> CellResult:
        """Run a cell; see `rtsx.campaign.task_queue.CellTask`."""
        outcome = cell_result(self._run, cell, attempt=attempt, run=run)
        self.outcomes[outcome.state] += 1
        return outcome

    def _run(self, cell: Address, run: str) -> str:
        mark, objects = self.ledger.layout.mark(cell), self.ledger.objects
        with held(objects, self.ledger.layout, cell, run=run, lease_s=120.0):
            if objects.get(mark) is not None:
                return "skipped"
            time.sleep(self.seconds)
            return "done" if objects.create(mark, run.encode()) else "skipped"


class Distant:
    """A store that is so many seconds away."""

    def __init__(self, objects: ObjectStore, latency: float) -> None:
        self._objects, self._latency = objects, latency

    def __getattr__(self, name: str) -> Any:
        """Wait, and do it."""
        if name.startswith("_"):  # before it is unpickled
            raise AttributeError(name)
        time.sleep(self._latency)
        return getattr(self._objects, name)


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What became of cells that sleep."""

    claims_per_s: float
    """Cells that workers tried to take, a second."""
    met: float
    """Part of them that another worker held or had done."""
    efficiency: float
    """Least possible time over the time taken."""
    overhead_ms: float
    """Time of a worker per cell beyond its sleep, ms."""


@contextmanager
def _sleeping(cells: int, *, seconds: float, latency: float) -> Iterator[Sleeper]:
    """The kernel, on a new folder; every cell has to be done when it is over."""
    with tempfile.TemporaryDirectory() as folder:
        objects = open_object_store(str(Path(folder)), {})
        there: Any = Distant(objects, latency) if latency else objects
        yield Sleeper(CampaignLedger(there, YearLayout(2024)), seconds)
        assert len(CampaignLedger(objects, YearLayout(2024)).done()) == cells


def share(workers: int, *, cells: int, seconds: float, latency: float = 0.0) -> Shared:
    """Let workers without a scheduler share cells."""
    with _sleeping(cells, seconds=seconds, latency=latency) as job:
        table = cells_of(cells)

        def work(_: int) -> None:
            worker = CellWorker(job, FreeCells(table, job.ledger, lease_s=120.0), ledger=job.ledger, retry=RetrySpec())
            for _summary in worker.work(None):
                pass

        begin = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(work, range(workers)))
        clock = time.perf_counter() - begin
    assert job.outcomes["done"] == cells
    claims = job.outcomes.total()
    return Shared(
        claims_per_s=claims / clock,
        met=1 - cells / claims,
        efficiency=seconds * cells / workers / clock,
        overhead_ms=1000 * (clock * workers / cells - seconds),
    )


def overhead_of_run(workers: int, *, cells: int, seconds: float, latency: float = 0.0) -> float:
    """Time of a worker of a dask cluster per cell beyond its sleep, ms."""
    with (
        _sleeping(cells, seconds=seconds, latency=latency) as job,
        LocalCluster(n_workers=0, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        cluster.scale(workers)
        client.wait_for_workers(workers)
        begin = time.perf_counter()
        assert run_on_cluster(client, job, cells_of(cells), run="benchmark", retry=RetrySpec()).complete
        clock = time.perf_counter() - begin
    return 1000 * (clock * workers / cells - seconds)


def run(
    simulated: Sequence[int] = (1, 4, 16, 64),
    *,
    rounds: int = 100,
    seconds: float = 1.0,
    latencies: Sequence[float] = (0.0, 0.05),
) -> None:
    """Print the table, `rounds` cells for each worker, on this disk and on one that is so many seconds away."""
    quiet()
    print(f"{'':60}{'overhead per cell, ms':>24}")
    print(
        f"{'workers':>8}{'cells':>8}{'away s':>8}{'claims / s':>12}{'met another':>13}{'efficiency':>12}{'work':>11}{'run':>12}"
        f"   (cells of {seconds:g} s)"
    )
    for latency in latencies:
        for workers in simulated:
            cells = workers * rounds
            shared = share(workers, cells=cells, seconds=seconds, latency=latency)
            beside = overhead_of_run(workers, cells=cells, seconds=seconds, latency=latency)
            print(
                f"{workers:8}{cells:8}{latency:8g}{shared.claims_per_s:12.1f}{shared.met:13.1%}{shared.efficiency:12.3f}"
                f"{shared.overhead_ms:11.1f}{beside:12.1f}",
                flush=True,
            )


def kills(*, across: int = 14, workers: int = 8, on_s3: int = 2, ends: int = 4, seed: int = 0) -> None:
    """Run a small campaign by workers that are ended at random, some of them on a store over S3; print what came of it.

    Raises
    ------
    AssertionError
        Bytes are other than those of `rtsx campaign run`, a cell was begun after its mark, or a worker ended with a wrong status.
    """
    from tests.campaign import stage  # here, because the other table needs no test's server
    from tests.campaign.actors import STATUSES, Crew
    from tests.campaign.conftest import new_bucket, serving_s3
    from tests.campaign.small_campaign import thread_client

    cells = across**2
    with tempfile.TemporaryDirectory() as name, serving_s3() as server:
        folder = Path(name)
        bundle = stage.write_bundle(folder / "bundle")
        files = [str(path) for path in stage.write_country(folder, across=across)[1:]]
        planned = partial(stage.write_campaign, files=files, bundle=bundle, across=across)
        ran = planned(folder / "run.yaml", output=str(folder / "run"), options={})
        begin = time.perf_counter()
        with thread_client() as client:
            assert rtsx.Campaign.create(rtsx.load_campaign(ran)).run(client).complete
        print(f"rtsx campaign run: {cells} cells in {time.perf_counter() - begin:.0f} s", flush=True)
        expected = stage.objects_of(str(folder / "run"), {})
        bucket = new_bucket(server)
        for count, output, options in (
            (workers - on_s3, str(folder / "worked"), {}),
            (on_s3, bucket.url, bucket.options),
        ):
            if not count:
                continue
            logs = Path(tempfile.mkdtemp(dir=folder))
            config = planned(logs / "campaign.yaml", output=output, options=options)
            crew = Crew.at_random(config, workers=count, ends=ends, folder=logs, seed=seed)
            begin = time.perf_counter()
            statuses = crew.run(limit_s=1800)
            clock = time.perf_counter() - begin
            assert all(status in STATUSES[how] for how, status in statuses), f"{statuses}\n{crew.said()}"
            diary = crew.diary
            marked = [cell for what, cell in diary if what == "marked"]
            again = [
                cell
                for place, (what, cell) in enumerate(diary)
                if what == "begun" and ("marked", cell) in diary[:place]
            ]
            begun = sum(what == "begun" for what, _ in diary)
            assert not again, f"begun after their mark: {again}"
            twice = [cell for cell, times in Counter(marked).items() if times > 1]
            assert not twice, f"marked twice: {twice}"
            killed = sum(
                how.startswith("SIG") and status != 0 for how, status in statuses
            )  # maybe between a mark and its line
            assert cells - killed <= len(marked) <= cells, f"{len(marked)} of {cells} marks, {killed} workers killed"
            assert stage.objects_of(output, options) == expected
            ended = Counter(f"{how}: {status}" for how, status in statuses)
            print(
                f"{count} x rtsx campaign work on {output.partition(':')[0] if options else 'a disk'}: {cells} cells in {clock:.0f} s, "
                f"{begun} begun, {len(marked)} seen to be marked, once each, none begun after its mark, bytes equal\n  "
                + ", ".join(f"{one} ({times} times)" for one, times in sorted(ended.items())),
                flush=True,
            )
