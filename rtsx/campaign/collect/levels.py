"""Level 2: the footprints of a year as one set, partition by partition.

Level 1, one set per image, are the footprints themselves: the one image that a campaign outlines is the map of its year.
"""

import geopandas

from rtsx.campaign.collect.footprints import FOOTPRINTS
from rtsx.campaign.collect.geoparquet import empty_outlines
from rtsx.campaign.collect.records import Record
from rtsx.campaign.collect.tables import PartTable, Refreshed
from rtsx.campaign.layout import YearLayout
from rtsx.footprints import level2_footprints

__all__ = ["LEVEL2", "collect_level2"]

LEVEL2 = "level2"
"""Folder of level 2 below the products of a year."""
_OWN = ("n_images", "n_images_possible", "first_date", "last_date")


def collect_level2(footprints: PartTable, refreshed: Refreshed, *, layout: YearLayout) -> Refreshed:
    """Bring level 2 up to date with the footprints; an object stays in its partition."""

    def is_current(name: str, record: Record) -> bool:
        return bool(record["footprints"] == refreshed.records[name]["sha256"])

    def make(name: str) -> tuple[geopandas.GeoDataFrame, Record]:
        rows = footprints.read(name)
        # Maps that say no time are of the year of the campaign all the same.
        rows["year"] = rows["year"].fillna(layout.year)
        level2 = level2_footprints([rows]).get(layout.year)
        if level2 is None:
            level2 = empty_outlines(rows.crs, *_OWN)
        return level2, {FOOTPRINTS: refreshed.records[name]["sha256"]}

    return PartTable.of(footprints.objects, layout, LEVEL2).refresh(refreshed.records, is_current=is_current, make=make)
