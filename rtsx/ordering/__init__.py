"""Ordering: which scenes to buy for a region, buying them once, and registering what arrives as STAC items.

Planet's provider is in `rtsx.ordering.planet`, which needs the extra ``order``.
"""

from typing import TYPE_CHECKING

from rtsx.names import lazy

if TYPE_CHECKING:
    from rtsx.ordering.basemap import BasemapApi, Mosaic
    from rtsx.ordering.criteria import OrderCriteria, OrderLimits, Scene
    from rtsx.ordering.delivery import collect_quads, order_quads
    from rtsx.ordering.fetch import FetchResult, fetch_order
    from rtsx.ordering.order import Ledger, OrderEntry, order_status, planned_batches, submit_order
    from rtsx.ordering.provider import Batch, BucketDelivery, OrderStatus, Provider, QuadProvider, RemoteFile
    from rtsx.ordering.quad_download import fetch_quads
    from rtsx.ordering.quads import QuadCounts, QuadLedger, list_quads, quad_ledger
    from rtsx.ordering.select import ChosenScene, OrderPlan, select_scenes
    from rtsx.ordering.stac import StacApi, StacProvider, StaticCatalog

__getattr__ = lazy(
    __name__,
    renamed={
        "Answer": "OrderStatus",
        "Entry": "OrderEntry",
        "Fetched": "FetchResult",
        "Limits": "OrderLimits",
        "Wishes": "OrderCriteria",
    },
)
