"""Ordering: which scenes to buy for a region, buying them once, and registering what arrives as STAC items.

Planet's provider is in `rtsx.ordering.planet`, which needs the extra ``order``.
"""

from rtsx.ordering.documents import StacApi, StaticCatalog
from rtsx.ordering.ledger import Entry, Ledger
from rtsx.ordering.order import Fetched, fetch_order, order_status, planned_batches, submit_order
from rtsx.ordering.plan import ChosenScene, OrderPlan
from rtsx.ordering.provider import Answer, Batch, Provider, RemoteFile
from rtsx.ordering.scene import Scene
from rtsx.ordering.selection import select_scenes
from rtsx.ordering.stac import StacProvider
from rtsx.ordering.wishes import Limits, Wishes

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
