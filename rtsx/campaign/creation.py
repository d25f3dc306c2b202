"""How a campaign begins: everything that can be refused is refused, then there is room for the map, and last of all the plan."""

from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import Ledger
from rtsx.campaign.map import create_map
from rtsx.campaign.objects import ObjectStore
from rtsx.campaign.opening import objects_of
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.planning import plan_campaign
from rtsx.campaign.probing import probe_store
from rtsx.campaign.recipe import CampaignRecipe
from rtsx.campaign.refusals import require_sources, require_space
from rtsx.campaign.settings import planned_years, write_prices
from rtsx.campaign.stored_plan import read_plan, require_same, require_same_map, write_plan
from rtsx.errors import CampaignError
from rtsx.storage import refuse_other_format

__all__ = ["settled_plan"]

_BLOCK_BYTES = 4096
"""Of a disk that every mark takes. What maps take nobody knows beforehand: they compress to anything, and sea to nothing."""


def settled_plan(recipe: CampaignRecipe, *, config: str) -> CampaignPlan:
    """The plan of a recipe, stored beside its output with the room for its map; the stored one where it is the same.

    Parameters
    ----------
    recipe
        What is asked for.
    config
        Text that is stored beside the plan.

    Raises
    ------
    CampaignError
        The output cannot keep marks, holds another plan or cells of one, or the recipe cannot work.
    OutputNotWritableError
        The output cannot be written, or has no room.
    """
    refuse_other_format(recipe.output, what="the folder of a campaign")
    objects = objects_of(recipe.output, recipe.storage_options)
    probe_store(objects, lease_s=recipe.retry.lease_s)
    stored = read_plan(objects, recipe.year)
    plan = plan_campaign(recipe, like=stored or _newest(objects))
    if stored is not None:
        require_same(stored, plan)
        plan = stored
    else:
        _refuse_foreign_marks(objects, plan)
        require_sources(recipe, plan)
        require_space(recipe.output, len(plan.cells) * _BLOCK_BYTES)
        require_same_map(objects, plan)
        create_map(recipe.output, plan, storage_options=recipe.storage_options)
        write_plan(objects, plan, config=config)
    write_prices(objects, recipe.prices, year=plan.year)
    return plan


def _newest(objects: ObjectStore) -> CampaignPlan | None:
    """The plan of the newest year before; None where there is none."""
    years = planned_years(objects)
    return read_plan(objects, years[-1]) if years else None


def _refuse_foreign_marks(objects: ObjectStore, plan: CampaignPlan) -> None:
    """Raise where cells were done by another plan that is gone: they would pass for cells of this one."""
    for mark in Ledger(objects, YearLayout(plan.year)).marks():
        if mark.plan_digest != plan.digest:
            raise CampaignError(
                f"The output holds cells of {plan.year} that were made by a plan that is not there any more "
                f"({mark.plan_digest[:12]}, this one is {plan.digest[:12]}). Restore it, or take another output."
            )
        return  # one speaks for all, because no run mixes plans
