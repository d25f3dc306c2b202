"""Ordering: which scenes to buy for a region, buying them once, and registering what arrives as STAC items.

Planet's provider is in `rtsx.ordering.planet`, which needs the extra ``order``.
"""

from typing import TYPE_CHECKING

from rtsx.lazy import lazy

if TYPE_CHECKING:
    from rtsx.ordering.basemap import BasemapApi, Mosaic
    from rtsx.ordering.catalog import StacApi, StaticCatalog
    from rtsx.ordering.criteria import OrderCriteria, OrderLimits, Scene
    from rtsx.ordering.delivery import BucketDelivery, QuadProvider, collect_quads, order_quads
    from rtsx.ordering.ledger import Ledger, OrderEntry
    from rtsx.ordering.order import FetchResult, fetch_order, order_status, planned_batches, submit_order
    from rtsx.ordering.provider import Batch, OrderStatus, Provider, RemoteFile
    from rtsx.ordering.quad_download import fetch_quads, list_quads
    from rtsx.ordering.quads import QuadCounts, QuadLedger, quad_ledger
    from rtsx.ordering.select import ChosenScene, OrderPlan, select_scenes
    from rtsx.ordering.stac import StacProvider

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
