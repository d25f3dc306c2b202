"""Workers of a campaign that need no scheduler: this process, or several of this machine."""

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from dask.utils import format_bytes

from rtsx.campaign.cell_task import cell_job
from rtsx.campaign.clusters import WorkerRequirements, worker_environments
from rtsx.campaign.drift import require_accepted
from rtsx.campaign.estimate import CampaignEstimate
from rtsx.campaign.map import create_map
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.preflight import check_object_store
from rtsx.campaign.recipe import CampaignRecipe
from rtsx.campaign.records import ProgressCallback, RunRecord, RunSummary, versions_here
from rtsx.campaign.run import warn_of_mixed_hardware
from rtsx.campaign.worker import RECORD_S, require_zone, run_cells
from rtsx.errors import ClusterError
from rtsx.inference.ensemble import bundle_ids
from rtsx.inference.memory import available_bytes

if TYPE_CHECKING:
    from rtsx.campaign.campaign import Campaign


def work_campaign(campaign: "Campaign", *, until: datetime | None, progress: ProgressCallback | None) -> RunSummary:
    """Run cells in this process, one at a time, until none is left; see `Campaign.work`."""
    plan, recipe, ledger = campaign.plan, campaign.required_recipe("Working"), campaign.ledger
    require_zone(until)
    check_object_store(ledger.objects, lease_s=recipe.retry.lease_s)
    require_accepted(ledger.objects, plan)
    require_worker_memory(plan, recipe, workers=1)
    runs = ledger.runs(damaged=[])
    _require_like_others(runs)
    create_map(recipe.output, plan, bundle_id=bundle_ids(recipe.bundles), storage_options=recipe.storage_options)
    job = cell_job(recipe, plan, most_lost=recipe.retry.attempts)
    warn_of_mixed_hardware(runs, job.hardware)
    return run_cells(job, plan, ledger, retry=recipe.retry, until=until, progress=progress, hardware=job.hardware)


def run_in_processes(campaign: "Campaign", command: Sequence[str], *, workers: int, gpus: bool) -> list[int]:
    """Run a command of rtsx in several processes of this machine; returns their exit statuses.

    Parameters
    ----------
    campaign
        Of which each is a worker.
    command
        What follows the word `rtsx`.
    workers
        Processes, which share the processors.
    gpus
        Whether each has a GPU of its own.

    Raises
    ------
    ClusterError
        The machine has less memory, or fewer GPUs.
    """
    assert campaign.recipe is not None  # a command has read one
    require_worker_memory(campaign.plan, campaign.recipe, workers=workers)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", "from rtsx.cli import main; main()", *command], env={**os.environ, **variables}
        )
        for variables in worker_environments(workers, gpus=gpus)
    ]
    try:
        return [process.wait() for process in started]
    finally:  # after SIGTERM too, which a batch system may send to this process alone
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def require_worker_memory(plan: CampaignPlan, recipe: CampaignRecipe, *, workers: int) -> None:
    """Refuse more workers on this machine than its memory holds.

    Raises
    ------
    ClusterError
        It has less than they need.
    """
    needed = CampaignEstimate.of(plan, recipe).memory_bytes
    bound = recipe.prediction.memory_bytes
    if bound is not None and needed > bound:
        raise ClusterError(
            f"A worker of this campaign needs {format_bytes(needed)} besides libraries and weights, and its memory is said to be "
            f"{format_bytes(bound)}. Give prediction more memory, or plan with smaller tiles."
        )
    if needed * workers > available_bytes():
        raise ClusterError(
            f"{workers} worker{'s' * (workers > 1)} of this campaign need{'s' * (workers == 1)} {format_bytes(needed * workers)} "
            f"besides libraries and weights, and this machine has {format_bytes(available_bytes())}. Start fewer, take a larger "
            "machine, or plan with smaller tiles."
        )


def _require_like_others(runs: Iterable[RunRecord]) -> None:
    """Refuse to make other bytes than the workers that are at it now.

    Raises
    ------
    ClusterError
        One that wrote its record within the last minute has other versions of libraries.
    """
    recent = datetime.now(UTC) - timedelta(seconds=2 * RECORD_S)
    for record in runs:
        if not record.ended and datetime.fromisoformat(record.written) > recent:
            wrong = WorkerRequirements(record.versions, 0).differing(versions_here())
            if wrong:
                raise ClusterError(
                    f"This process {', '.join(wrong)}: {record.host} is at this campaign with it, and would write other bytes. "
                    "Give all machines one environment, such as one container image."
                )
