"""Cells whose inputs are others now than when they were made: found by comparing stamps, and no pixel is read for it."""

from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from rtsx.campaign.cell_ground import cell_geobox
from rtsx.campaign.cell_table import Address
from rtsx.campaign.failing import failure_of
from rtsx.campaign.failure import Failure
from rtsx.campaign.flight_summary import FlightSummary
from rtsx.campaign.input_stamps import input_stamps
from rtsx.campaign.job import Job, Outcome
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.lease import LeasedElsewhere, held
from rtsx.campaign.ledger import Ledger
from rtsx.campaign.objects import ObjectStore
from rtsx.campaign.opening import objects_of
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.recipe import CampaignRecipe
from rtsx.campaign.run import Progress, cells_among, fly_recorded, require_ready, run_campaign

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["CampaignUpdate", "UpdateJob", "update_campaign"]


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
    flight: FlightSummary | None
    """The run of all cells without a mark; None where the search stopped."""

    @property
    def complete(self) -> bool:
        """Whether every cell was looked at, and all have a mark again."""
        return not self.unchecked and self.flight is not None and self.flight.complete

    def __str__(self) -> str:
        lines = [
            f"{self.checked:,} cells checked, {self.changed:,} have changed inputs, {len(self.unchecked):,} unchecked"
        ]
        if self.stopped is not None:
            lines.append(f"stopped: {self.stopped}")
        lines += [
            f"unchecked: cell {failure.cell}: {failure.error}: {failure.message}" for failure in self.unchecked[:10]
        ]
        if self.flight is not None:
            lines.append(str(self.flight))
        return "\n".join(lines)


def update_campaign(
    plan: CampaignPlan,
    recipe: CampaignRecipe,
    *,
    objects: ObjectStore,
    client: "Client",
    progress: Progress | None,
) -> CampaignUpdate:
    """Take the mark from cells whose inputs changed, then run all cells without one; see `Campaign.update`."""
    require_ready(plan, recipe, objects=objects, client=client)
    done = Ledger(objects, YearLayout(plan.year)).done()
    search = fly_recorded(
        UpdateJob(recipe=recipe, plan=plan),
        cells_among(plan.cells, done.__contains__),
        plan=plan,
        objects=objects,
        client=client,
        retry=recipe.retry,
        progress=progress,
        on_set_aside=None,  # they keep what they have
    )
    flight = None
    if search.stopped is None:
        flight = run_campaign(plan, recipe, objects=objects, client=client, progress=progress)
    return CampaignUpdate(
        checked=search.done + search.skipped,
        changed=search.done,
        unchecked=search.set_aside,
        stopped=search.stopped,
        flight=flight,
    )


@dataclass(frozen=True, kw_only=True)
class UpdateJob:
    """Takes the mark from a cell whose inputs changed: such an outcome is *done*, and *skipped* where they are the same."""

    recipe: CampaignRecipe = field(repr=False)
    """Whose sources are asked."""
    plan: CampaignPlan = field(repr=False)
    """What cells were made by."""

    def __call__(self, cell: Address, attempt: int, run: str) -> Outcome:
        """Look at one cell; see `Job`."""
        began = perf_counter()
        try:
            state: Literal["done", "skipped"] = "done" if self._retired(cell, run) else "skipped"
            return Outcome(cell=cell, state=state, seconds=perf_counter() - began)
        except LeasedElsewhere as error:
            return Outcome(cell=cell, state="leased", free_after_s=error.free_after_s)
        except Exception as error:  # whatever it is, it is an outcome, as everywhere in a campaign
            failure = failure_of(error, cell=cell, attempt=attempt, run=run)
            return Outcome(cell=cell, state="failed", seconds=perf_counter() - began, failure=failure)

    def _retired(self, cell: Address, run: str) -> bool:
        """Take the mark away if it does not tell the inputs of today."""
        objects = objects_of(self.recipe.output, self.recipe.storage_options)
        ledger = Ledger(objects, YearLayout(self.plan.year))
        mark = ledger.mark(cell)
        if mark is None or mark.inputs == input_stamps(self.recipe.cube, cell_geobox(self.plan, cell)):
            return False
        with held(objects, ledger.layout, cell, run=run, lease_s=self.recipe.retry.lease_s):
            if ledger.mark(cell) != mark:  # another update was faster, and its run may be further already
                return False
            ledger.retire(cell)
        return True


_conforms: type[Job] = UpdateJob
