"""Ordering: which scenes to buy for a region, buying them once, and registering what arrives as STAC items.

Planet's provider is in `rtsx.ordering.planet`, which needs the extra ``order``.
"""

from rtsx.ordering.catalog import StacApi, StaticCatalog
from rtsx.ordering.criteria import Limits, Scene, Wishes
from rtsx.ordering.ledger import Entry, Ledger
from rtsx.ordering.order import Fetched, fetch_order, order_status, planned_batches, submit_order
from rtsx.ordering.provider import Answer, Batch, Provider, RemoteFile
from rtsx.ordering.select import ChosenScene, OrderPlan, select_scenes
from rtsx.ordering.stac import StacProvider

__all__ = [
    "Answer",
    "Batch",
    "ChosenScene",
    "Entry",
    "Fetched",
    "Ledger",
    "Limits",
    "OrderPlan",
    "Provider",
    "RemoteFile",
    "Scene",
    "StacApi",
    "StacProvider",
    "StaticCatalog",
    "Wishes",
    "fetch_order",
    "order_status",
    "planned_batches",
    "select_scenes",
    "submit_order",
]
