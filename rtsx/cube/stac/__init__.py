"""Images from STAC: searches, static catalogs, items at hand and tables of items."""

from rtsx.cube.stac.catalog import StacCatalog
from rtsx.cube.stac.documents import Access
from rtsx.cube.stac.images import images_of
from rtsx.cube.stac.items import StacItems
from rtsx.cube.stac.search import StacSearch
from rtsx.cube.stac.table import ItemTable

__all__ = ["Access", "ItemTable", "StacCatalog", "StacItems", "StacSearch", "images_of"]
