"""Collecting: one product of each kind out of what the cells of a year have written, only what changed made again."""

from rtsx.campaign.collect.collected import Collected
from rtsx.campaign.collect.collecting import collect_year

__all__ = ["Collected", "collect_year"]
