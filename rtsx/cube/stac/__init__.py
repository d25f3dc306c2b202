"""Images from STAC: searches, static catalogs, items at hand and tables of items."""

from rtsx.cube.stac.client import Access
from rtsx.cube.stac.images import images_of
from rtsx.cube.stac.sources import ItemTable, StacCatalog, StacItems, StacSearch

__all__ = ["Access", "ItemTable", "StacCatalog", "StacItems", "StacSearch", "images_of"]
