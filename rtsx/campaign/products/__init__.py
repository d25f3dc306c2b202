"""Collecting: one product of each kind out of what the cells of a year have written, only what changed made again."""

from rtsx.campaign.products.collect import Collected, collect_year
from rtsx.campaign.products.deliver import Delivered, deliver_year
from rtsx.campaign.products.delivery_plan import DeliveryRequest
from rtsx.campaign.products.footprints import stored_footprints

__all__ = ["Collected", "Delivered", "DeliveryRequest", "collect_year", "deliver_year", "stored_footprints"]
