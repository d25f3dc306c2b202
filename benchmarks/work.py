"""How workers without a scheduler share the cells of a campaign: claims a second, and how many of them meet another's cell.

The kernel sleeps, so all that is measured is what `rtsx campaign work` adds: leases, marks and listings. Workers are threads of
this process, on one folder of this disk.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.campaign import cells_of
from rtsx.campaign.cells import Address
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.lease import held
from rtsx.campaign.ledger import CampaignLedger
from rtsx.campaign.recipe import RetrySpec
from rtsx.campaign.task_queue import CellResult
from rtsx.campaign.work import CellWorker, FreeCells
from rtsx.campaign.worker import cell_result
from rtsx.storage.object_store import open_object_store


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


def share(workers: int, *, cells: int, seconds: float) -> tuple[float, float, float]:
    """Claims a second, the part of them that met another worker, and the least possible time over the time taken."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = CampaignLedger(open_object_store(str(Path(folder)), {}), YearLayout(2024))
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


def run(simulated: Sequence[int] = (1, 4, 16, 64), *, rounds: int = 100, seconds: float = 1.0) -> None:
    """Print the table, `rounds` cells for each worker."""
    print(
        f"{'workers':>8}{'cells':>8}{'claims / s':>12}{'met another':>13}{'efficiency':>12}   (cells of {seconds:g} s)"
    )
    for workers in simulated:
        rate, met, efficiency = share(workers, cells=workers * rounds, seconds=seconds)
        print(f"{workers:8}{workers * rounds:8}{rate:12.1f}{met:13.1%}{efficiency:12.3f}", flush=True)
