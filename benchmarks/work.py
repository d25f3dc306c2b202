"""How workers without a scheduler share the cells of a campaign: claims a second, and how many of them meet another's cell.

The kernel sleeps, so all that is measured is what `rtsx campaign work` adds: leases, marks and listings. Workers are threads of
this process, on one folder of this disk, and on the same with a pause before each request, as of a distant store. With `--kills`,
worker processes map a small campaign while they are killed.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import rtsx
from benchmarks.campaign import cells_of
from rtsx.campaign.cells import Address
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.lease import held
from rtsx.campaign.ledger import CampaignLedger
from rtsx.campaign.recipe import RetrySpec
from rtsx.campaign.task_queue import CellResult
from rtsx.campaign.work import CellWorker, FreeCells
from rtsx.campaign.worker import cell_result
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
        if objects.get(mark) is not None:
            return "skipped"
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
        time.sleep(self._latency)
        return getattr(self._objects, name)


def share(workers: int, *, cells: int, seconds: float, latency: float = 0.0) -> tuple[float, float, float]:
    """Claims a second, the part of them that met another worker, and the least possible time over the time taken."""
    with tempfile.TemporaryDirectory() as folder:
        objects = open_object_store(str(Path(folder)), {})
        ledger = CampaignLedger(Distant(objects, latency) if latency else objects, YearLayout(2024))
        table = cells_of(cells)
        job = Sleeper(ledger, seconds)

        def work(_: int) -> None:
            for _summary in CellWorker(job, FreeCells(table, ledger), ledger=ledger, retry=RetrySpec()).work(None):
                pass

        begin = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(work, range(workers)))
        clock = time.perf_counter() - begin
        assert len(ledger.done()) == cells
        assert job.outcomes["done"] == cells
    claims = job.outcomes.total()
    return claims / clock, 1 - cells / claims, seconds * cells / workers / clock


def run(
    simulated: Sequence[int] = (1, 4, 16, 64),
    *,
    rounds: int = 100,
    seconds: float = 1.0,
    latencies: Sequence[float] = (0.0, 0.05),
) -> None:
    """Print the table, `rounds` cells for each worker, on this disk and on one that is so many seconds away."""
    print(
        f"{'workers':>8}{'cells':>8}{'away s':>8}{'claims / s':>12}{'met another':>13}{'efficiency':>12}   (cells of {seconds:g} s)"
    )
    for latency in latencies:
        for workers in simulated:
            rate, met, efficiency = share(workers, cells=workers * rounds, seconds=seconds, latency=latency)
            print(
                f"{workers:8}{workers * rounds:8}{latency:8g}{rate:12.1f}{met:13.1%}{efficiency:12.3f}",
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
            logs = folder / f"logs-{count}"
            logs.mkdir()
            config = planned(logs / "campaign.yaml", output=output, options=options)
            crew = Crew(config, workers=count, ends=ends, folder=logs, seed=seed)
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
            assert len(marked) == len(set(marked)) == cells
            assert stage.objects_of(output, options) == expected
            ended = Counter(f"{how}: {status}" for how, status in statuses)
            print(
                f"{count} x rtsx campaign work on {output.partition(':')[0] if options else 'a disk'}: {cells} cells in {clock:.0f} s, "
                f"{begun} begun, {len(marked)} marked once each, none begun after its mark, bytes equal\n  "
                + ", ".join(f"{one} ({times} times)" for one, times in sorted(ended.items())),
                flush=True,
            )
