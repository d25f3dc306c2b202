"""Campaigns: every cell of a region once, on a cluster that may fail; done, failed and left are known at any time.

The public names load when they are first used, because whoever only lists marks needs no network and no scheduler.
"""

from typing import TYPE_CHECKING

from rtsx.names import lazy

if TYPE_CHECKING:
    from rtsx.campaign.campaign import Campaign
    from rtsx.campaign.clusters import connect_cluster
    from rtsx.campaign.copying import Copied
    from rtsx.campaign.drift import DriftCheck
    from rtsx.campaign.estimate import CampaignEstimate
    from rtsx.campaign.plan import CampaignPlan
    from rtsx.campaign.planning import plan_campaign
    from rtsx.campaign.recipe import (
        CampaignRecipe,
        ClusterSpec,
        Machine,
        OutlineSpec,
        PredictionSpec,
        Prices,
        RetrySpec,
    )
    from rtsx.campaign.records import RunSummary
    from rtsx.campaign.report import CampaignReport
    from rtsx.campaign.run import CampaignUpdate
    from rtsx.campaign.stages import Verification, YearStages
    from rtsx.campaign.status import CampaignStatus

__getattr__ = lazy(__name__, renamed={"FlightSummary": "RunSummary", "opened": "connect_cluster"})
