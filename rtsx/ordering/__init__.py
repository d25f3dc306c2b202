"""Ordering: which scenes to buy for a region, buying them once, and registering what arrives as STAC items."""

from rtsx.ordering.plan import ChosenScene, OrderPlan
from rtsx.ordering.scene import Scene
from rtsx.ordering.selection import select_scenes
from rtsx.ordering.wishes import Limits, Wishes

__all__ = ["ChosenScene", "Limits", "OrderPlan", "Scene", "Wishes", "select_scenes"]
