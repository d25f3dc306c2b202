"""One run of a campaign, and its update: cells without a commit record, or with inputs that changed since."""

import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from rtsx.campaign.cell_input import cell_geobox, cubes_of, input_stamps
from rtsx.campaign.cell_task import cell_job
from rtsx.campaign.cells import Address, CellTable
from rtsx.campaign.clusters import WorkerRequirements, require_environment
from rtsx.campaign.dask_runner import run_on_cluster
from rtsx.campaign.drift import require_accepted
from rtsx.campaign.estimate import CampaignEstimate
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, held
from rtsx.campaign.map import create_map
from rtsx.campaign.plan import CampaignPlan, read_plan, require_same
from rtsx.campaign.planning import planned_of
from rtsx.campaign.preflight import check_object_store
from rtsx.campaign.recipe import CampaignRecipe, RetrySpec
from rtsx.campaign.records import (
    Failure,
    ProgressCallback,
    RunRecord,
    RunSummary,
    hardware_mixture,
    hardware_name,
    hardware_of,
    versions_here,
)
from rtsx.campaign.searches import ask_searches_again
from rtsx.campaign.task_queue import CellResult, CellTask, cell_result
from rtsx.campaign.worker import RunLog, new_run
from rtsx.errors import CampaignError
from rtsx.inference.ensemble import bundle_ids
from rtsx.pages import render_text
from rtsx.storage.object_store import open_object_store

if TYPE_CHECKING:
    from distributed import Client

    from rtsx.campaign.campaign import Campaign


def run_campaign(campaign: "Campaign", client: "Client", *, progress: ProgressCallback | None) -> RunSummary:
    """Run every cell that has no mark and was not set aside; see `Campaign.run`."""
    plan, recipe, ledger = campaign.plan, campaign.required_recipe("Running"), campaign.ledger
    require_ready(plan, recipe, ledger=ledger, client=client)
    create_map(recipe.output, plan, bundle_id=bundle_ids(recipe.bundles), storage_options=recipe.storage_options)
    done = ledger.done()
    # A record that cannot be read keeps no cell from being tried.
    before = {cell: one for cell, one in ledger.failures(damaged=[]).items() if cell in plan.cells and cell not in done}
    cells = cells_among(plan.cells, lambda cell: cell not in done and cell not in before)
    n_done = len(plan.cells) - len(cells) - len(before)

    def of_campaign(summary: RunSummary) -> RunSummary:
        set_aside = (*(before[cell] for cell in sorted(before)), *summary.set_aside)
        return replace(summary, cells=summary.cells + len(before), set_aside=set_aside, before=n_done)

    summary = run_recorded(
        cell_job(recipe, plan),
        cells,
        plan=plan,
        ledger=ledger,
        client=client,
        retry=recipe.retry,
        progress=None if progress is None else lambda now: progress(of_campaign(now)),
        on_set_aside=ledger.quarantine,
    )
    return of_campaign(summary)


def warn_of_mixed_hardware(runs: Iterable[RunRecord], hardware: str) -> None:
    """Warn where a run with that hardware would make one map of several kinds; nothing where it is not known."""
    kinds = {*hardware_of(runs), hardware}
    if len(kinds) > 1 and hardware not in ("", "GPU"):
        warnings.warn(hardware_mixture(sorted(kinds)), RuntimeWarning, stacklevel=2)


def require_ready(plan: CampaignPlan, recipe: CampaignRecipe, *, ledger: CampaignLedger, client: "Client") -> None:
    """Refuse what cannot run, before the first cell.

    Raises
    ------
    CampaignError
        The output cannot keep marks, holds no plan or another one, or its drift check has tripped and nobody accepted it.
    ClusterError
        The workers are not of one kind with this process, or have too little memory.
    """
    check_object_store(ledger.objects, lease_s=recipe.retry.lease_s)
    stored = read_plan(ledger.objects, plan.year)
    if stored is None:
        raise CampaignError(f"{recipe.output} holds no plan of {plan.year} any more. Create the campaign again.")
    require_same(stored, plan)
    require_accepted(ledger.objects, plan)
    spec = recipe.prediction
    with client.as_current():
        # Without a worker, "auto" may be anything.
        is_known = spec.device.startswith("cuda") or (spec.device == "auto" and client.nthreads())
        needs = WorkerRequirements(
            versions_here(),
            CampaignEstimate.of(plan, recipe).memory_bytes,
            device=spec.device,
            backends=(spec.backend,),
            hardware=planned_of(recipe).name if is_known else "",
        )
    require_environment(client, needs)
    hardware = "CPU" if spec.device == "cpu" else needs.hardware
    warn_of_mixed_hardware(ledger.runs(damaged=[]), hardware)


def run_recorded(
    job: CellTask,
    cells: Collection[Address],
    *,
    plan: CampaignPlan,
    ledger: CampaignLedger,
    client: "Client",
    retry: RetrySpec,
    progress: ProgressCallback | None,
    on_set_aside: Callable[[Failure], None] | None,
) -> RunSummary:
    """Run cells, and keep a record of the run beside the output, from the first second to the last.

    Parameters
    ----------
    job
        What is run for each.
    cells
        Which, in this order.
    plan
        What they are cells of.
    ledger
        Of the year, which keeps the record.
    client
        Of the cluster.
    retry
        Attempts, pauses, and when to give up.
    progress
        Called now and then, and at the end.
    on_set_aside
        Called with the failure of each cell that is given up; None where that is nobody's loss.
    """
    log = RunLog(ledger, plan)

    def tick(summary: RunSummary) -> None:
        log.note(summary)
        if progress is not None:
            progress(summary)

    try:
        return run_on_cluster(client, job, cells, run=new_run(), retry=retry, on_set_aside=on_set_aside, on_tick=tick)
    finally:
        log.end()


def cells_among(cells: CellTable, is_wanted: Callable[[Address], bool]) -> CellTable:
    """Select cells, in their order; as an array, because a million tuples are a hundred megabytes.

    Examples
    --------
    >>> list(cells_among(CellTable(np.array([[4, 1], [4, 0], [3, 0]], np.int32)), lambda cell: cell[1] == 0))
    [(4, 0), (3, 0)]
    """
    kept = np.fromiter((is_wanted(cell) for cell in cells), bool, len(cells))
    return CellTable(cells.addresses[kept])


@dataclass(frozen=True, kw_only=True)
class CampaignUpdate:
    """What an update found and did."""

    checked: int
    """Marked cells whose inputs were looked at."""
    changed: int
    """Cells whose inputs are others now, so that they lost their mark."""
    unchecked: tuple[Failure, ...]
    """Cells whose inputs could not be looked at; they keep their mark."""
    stopped: str | None
    """Why the search stopped before its last cell; None where it did not. Nothing is run then."""
    run: RunSummary | None
    """The run of all cells without a mark; None where the search stopped."""

    @property
    def complete(self) -> bool:
        """Whether every cell was looked at, and all have a mark again."""
        return not self.unchecked and self.run is not None and self.run.complete

    def __str__(self) -> str:
        return render_text("update.txt", {"of": self})


def update_campaign(campaign: "Campaign", client: "Client", *, progress: ProgressCallback | None) -> CampaignUpdate:
    """Take the mark from cells whose inputs changed, then run all cells without one; see `Campaign.update`."""
    plan, recipe, ledger = campaign.plan, campaign.required_recipe("An update"), campaign.ledger
    require_ready(plan, recipe, ledger=ledger, client=client)
    if recipe.fetched is None:
        ask_searches_again(ledger.objects, plan, recipe)
    search = run_recorded(
        CellUpdate(recipe=recipe, plan=plan),
        cells_among(plan.cells, ledger.done().__contains__),
        plan=plan,
        ledger=ledger,
        client=client,
        retry=recipe.retry,
        progress=progress,
        on_set_aside=None,  # they keep what they have
    )
    run = None
    if search.stopped is None:
        run = run_campaign(campaign, client, progress=progress)
    return CampaignUpdate(
        checked=search.done + search.skipped,
        changed=search.done,
        unchecked=search.set_aside,
        stopped=search.stopped,
        run=run,
    )


@dataclass(frozen=True, kw_only=True)
class CellUpdate:
    """Takes the mark from a cell whose inputs changed: such an outcome is *done*, and *skipped* where they are the same."""

    recipe: CampaignRecipe = field(repr=False)
    """Whose sources are asked."""
    plan: CampaignPlan = field(repr=False)
    """What cells were made by."""

    def __call__(self, cell: Address, attempt: int, run: str) -> CellResult:
        """Look at one cell; see `CellTask`."""
        spec = self.recipe.prediction
        return cell_result(
            self._retire_changed, cell, attempt=attempt, run=run, hardware=hardware_name(spec.device, spec.backend)
        )

    def _retire_changed(self, cell: Address, run: str) -> Literal["done", "skipped"]:
        """Take the mark away if it does not tell the inputs of today."""
        objects = open_object_store(self.recipe.output, self.recipe.storage_options)
        ledger = CampaignLedger(objects, YearLayout(self.plan.year))
        mark = ledger.mark(cell)
        if mark is None:
            return "skipped"
        cube = cubes_of(self.recipe, self.plan, objects, digest=mark.plan_digest)(cell)
        if mark.inputs == input_stamps(cube, cell_geobox(self.plan, cell)):
            return "skipped"
        with held(objects, ledger.layout, cell, run=run, lease_s=self.recipe.retry.lease_s):
            if ledger.mark(cell) != mark:  # another update was faster, and its run may be further already
                return "skipped"
            ledger.retire(cell)
        return "done"


_conforms: type[CellTask] = CellUpdate
