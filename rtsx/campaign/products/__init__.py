"""Collecting: one product of each kind out of what the cells of a year have written, only what changed made again."""

from rtsx.campaign.products.collect import Collected, collect_year

__all__ = ["Collected", "collect_year"]
