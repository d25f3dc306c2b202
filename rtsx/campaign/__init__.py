"""Campaigns: every cell of a region once, on a cluster that may fail; done, failed and left are known at any time.

The public names load when they are first used, because whoever only lists marks needs no network and no scheduler.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtsx.campaign.campaign import Campaign
    from rtsx.campaign.cluster_spec import ClusterSpec
    from rtsx.campaign.clusters import opened
    from rtsx.campaign.estimate import CampaignEstimate
    from rtsx.campaign.flight_summary import FlightSummary
    from rtsx.campaign.outline_spec import OutlineSpec
    from rtsx.campaign.plan import CampaignPlan
    from rtsx.campaign.planning import plan_campaign
    from rtsx.campaign.prediction_spec import PredictionSpec
    from rtsx.campaign.prices import Prices
    from rtsx.campaign.recipe import CampaignRecipe
    from rtsx.campaign.retry_spec import RetrySpec
    from rtsx.campaign.status import CampaignStatus
    from rtsx.campaign.updating import CampaignUpdate
    from rtsx.campaign.verification import Verification

__all__ = [
    "Campaign",
    "CampaignEstimate",
    "CampaignPlan",
    "CampaignRecipe",
    "CampaignStatus",
    "CampaignUpdate",
    "ClusterSpec",
    "FlightSummary",
    "OutlineSpec",
    "PredictionSpec",
    "Prices",
    "RetrySpec",
    "Verification",
    "opened",
    "plan_campaign",
]

_HOMES = {
    "Campaign": "campaign",
    "CampaignEstimate": "estimate",
    "CampaignPlan": "plan",
    "CampaignRecipe": "recipe",
    "CampaignStatus": "status",
    "CampaignUpdate": "updating",
    "ClusterSpec": "cluster_spec",
    "FlightSummary": "flight_summary",
    "OutlineSpec": "outline_spec",
    "PredictionSpec": "prediction_spec",
    "Prices": "prices",
    "RetrySpec": "retry_spec",
    "Verification": "verification",
    "opened": "clusters",
    "plan_campaign": "planning",
}


def __getattr__(name: str) -> object:
    """Load a public name from the module that defines it, once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rtsx.campaign' has no attribute {name!r}")
    value: object = getattr(import_module(f"rtsx.campaign.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
