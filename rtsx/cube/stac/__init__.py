"""Images from STAC: searches, static catalogs, items at hand and tables of items."""

from typing import TYPE_CHECKING

from rtsx.names import lazy

if TYPE_CHECKING:
    from rtsx.cube.stac.assets import SIGNER_GROUP, Signer, check_signer
    from rtsx.cube.stac.client import HttpAccess
    from rtsx.cube.stac.images import images_of
    from rtsx.cube.stac.sources import ItemTable, StacCatalog, StacItems, StacSearch

__getattr__ = lazy(__name__, renamed={"Access": "HttpAccess"})
