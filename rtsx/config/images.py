"""Where the images of a source come from: one model per kind."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field

from rtsx.config.strict import FilePath, Names, Strict
from rtsx.cube.files import FileImages, StoreImages
from rtsx.cube.stac import Access, ItemTable, StacCatalog, StacSearch
from rtsx.cube.stac.hrefs import SIGNER_GROUP, Signer, check_signer
from rtsx.errors import ConfigError

__all__ = ["AccessConfig", "CatalogConfig", "FilesConfig", "ItemsConfig", "SignerName", "StacConfig", "StoreConfig"]


SignerName = Annotated[str, AfterValidator(lambda name: check_signer(name).name)]
"""Name of a signing hook: ``planetary-computer``, or that of an installed package."""


class AccessConfig(Strict):
    """How a server is asked."""

    headers: dict[str, str] = Field(default_factory=dict)
    """Headers of each request, such as an API key from ``${NAME}``; never stored beside an output."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Seconds without an answer after which a request has failed."""
    retries: int = Field(default=4, ge=0)
    """Times that a request is sent again after a fault of the server or the line."""
    backoff_s: float = Field(default=1.0, ge=0)
    """Seconds before the second retry; doubled for each further one."""

    def access(self) -> Access:
        """The access."""
        return Access(
            headers=tuple(self.headers.items()),
            timeout_s=self.timeout_s,
            retries=self.retries,
            backoff_s=self.backoff_s,
        )

    @classmethod
    def from_access(cls, access: Access) -> Self:
        """The config of an access."""
        return cls(
            headers=dict(access.headers),
            timeout_s=access.timeout_s,
            retries=access.retries,
            backoff_s=access.backoff_s,
        )


class StacConfig(Strict):
    """A STAC API."""

    url: str
    """Address of its landing page."""
    collections: Names
    """Ids of the collections to search."""
    max_cloud_cover: float | None = Field(default=None, ge=0, le=100)
    """Percent under cloud, at most."""
    ids: Names = ()
    """Ids of the items that count; all if left out."""
    query: dict[str, Any] | None = None
    """Conditions on properties, such as ``{platform: {eq: sentinel-2a}}``."""
    filter: dict[str, Any] | str | None = None
    """Condition in CQL2."""
    sign: SignerName | None = None
    """Signing hook for the hrefs, such as ``planetary-computer``."""
    page: int = Field(default=100, gt=0)
    """Items per page that the server is asked for."""
    access: AccessConfig = AccessConfig()
    """Headers, time-outs and retries."""

    def source(self) -> StacSearch:
        """The image source."""
        return StacSearch(
            self.url,
            self.collections,
            query=self.query,
            filter=self.filter,
            max_cloud_cover=self.max_cloud_cover,
            ids=self.ids,
            sign=self.sign,
            page=self.page,
            access=self.access.access(),
        )

    @classmethod
    def from_source(cls, search: StacSearch) -> Self:
        """The config of a search."""
        return cls(
            url=search.url,
            collections=search.collections,
            query=None if search.query is None else dict(search.query),
            filter=dict(search.filter) if isinstance(search.filter, Mapping) else search.filter,
            max_cloud_cover=search.max_cloud_cover,
            ids=search.ids,
            sign=_as_name(search.sign),
            page=search.page,
            access=AccessConfig.from_access(search.access),
        )


def _as_name(sign: str | Signer | None) -> str | None:
    if sign is not None and not isinstance(sign, str):
        raise ConfigError(
            f"The signing hook {getattr(sign, '__name__', sign)!r} is a function, which no file can name. Register it as an entry "
            f"point of the group {SIGNER_GROUP!r} in its package, and give its name."
        )
    return sign


def _as_path(given: object) -> object:
    return {"path": given} if isinstance(given, str) else given


class CatalogConfig(Strict):
    """A static STAC catalog, collection, item, or folder of items."""

    path: FilePath
    """Path or URL of the document or the folder."""
    collections: Names = ()
    """Ids of the collections whose items count; all if left out."""
    max_cloud_cover: float | None = Field(default=None, ge=0, le=100)
    """Percent under cloud, at most."""
    prefer_local: bool = False
    """Take the file beside the item instead of the stated address, as after a download."""
    sign: SignerName | None = None
    """Signing hook for the hrefs."""
    access: AccessConfig = AccessConfig()
    """Headers, time-outs and retries."""

    def source(self) -> StacCatalog:
        """The image source."""
        return StacCatalog(
            self.path,
            collections=self.collections,
            max_cloud_cover=self.max_cloud_cover,
            prefer_local=self.prefer_local,
            sign=self.sign,
            access=self.access.access(),
        )

    @classmethod
    def from_source(cls, catalog: StacCatalog) -> Self:
        """The config of a catalog."""
        return cls(
            path=catalog.path,
            collections=catalog.collections,
            max_cloud_cover=catalog.max_cloud_cover,
            prefer_local=catalog.prefer_local,
            sign=_as_name(catalog.sign),
            access=AccessConfig.from_access(catalog.access),
        )


class ItemsConfig(Strict):
    """A GeoParquet table of STAC items."""

    path: FilePath
    """Path or URL of a Parquet file, or of a folder of them."""
    collections: Names = ()
    """Ids of the collections whose items count; all if left out."""
    max_cloud_cover: float | None = Field(default=None, ge=0, le=100)
    """Percent under cloud, at most."""
    sign: SignerName | None = None
    """Signing hook for the hrefs."""

    def source(self) -> ItemTable:
        """The image source."""
        return ItemTable(self.path, collections=self.collections, max_cloud_cover=self.max_cloud_cover, sign=self.sign)

    @classmethod
    def from_source(cls, table: ItemTable) -> Self:
        """The config of a table."""
        return cls(
            path=table.path,
            collections=table.collections,
            max_cloud_cover=table.max_cloud_cover,
            sign=_as_name(table.sign),
        )


class StoreConfig(Strict):
    """A Zarr store as one image."""

    path: FilePath
    """Path or URL of the group; its arrays are the bands."""
    time: datetime | None = None
    """When it was taken; nothing for what has no date."""

    def source(self) -> StoreImages:
        """The image source."""
        return StoreImages(path=self.path, time=self.time)

    @classmethod
    def from_source(cls, store: StoreImages) -> Self:
        """The config of a store."""
        return cls(path=store.path, time=store.time)


def _as_assets(given: object) -> object:
    """``files: x.tif`` and ``files: {image: x.tif}`` as the model has them."""
    if isinstance(given, str | list | tuple):
        given = {"image": given}
    if isinstance(given, Mapping) and not {"assets"} <= set(given) <= {"assets", "sensor"}:
        given = {"assets": dict(given)}
    return given


class FilesConfig(Strict):
    """Raster files by what they are."""

    assets: dict[str, Annotated[tuple[FilePath, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)]]
    """Paths, URLs or patterns by asset, the image itself first; the n-th files of each belong together."""
    sensor: str | None = None
    """Product that names the bands of the image; the source's `sensor` where that says no number of bands."""

    def source(self) -> FileImages:
        """The image source."""
        return FileImages(assets=self.assets, sensor=self.sensor)

    @classmethod
    def from_source(cls, files: FileImages) -> Self:
        """The config of files."""
        return cls(assets=dict(files.assets), sensor=files.sensor)


Catalog = Annotated[CatalogConfig, BeforeValidator(_as_path, json_schema_input_type=CatalogConfig | str)]
"""A catalog, or its path alone."""
Items = Annotated[ItemsConfig, BeforeValidator(_as_path, json_schema_input_type=ItemsConfig | str)]
"""A table, or its path alone."""
Store = Annotated[StoreConfig, BeforeValidator(_as_path, json_schema_input_type=StoreConfig | str)]
"""A store, or its path alone."""
Files = Annotated[
    FilesConfig,
    BeforeValidator(_as_assets, json_schema_input_type=dict[str, list[str] | str] | list[str] | str),
]
"""Files by asset, or the images alone."""
