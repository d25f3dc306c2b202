"""Images from STAC: searches, static catalogs, items at hand and tables of items."""

from rtsx.cube.stac.client import HttpAccess
from rtsx.cube.stac.images import images_of
from rtsx.cube.stac.sources import ItemTable, StacCatalog, StacItems, StacSearch
from rtsx.lazy import lazy

__all__ = ["HttpAccess", "ItemTable", "StacCatalog", "StacItems", "StacSearch", "images_of"]

__getattr__ = lazy(__name__, renamed={"Access": "HttpAccess"})
