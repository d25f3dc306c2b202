"""The config of an order: what to cover, from whom, within which limits."""

import hashlib
import json
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator
from shapely import to_wkb
from shapely.geometry.base import BaseGeometry

from rtsx import ordering
from rtsx.config.place import PeriodConfig, Region
from rtsx.config.yaml import Checked, ConfigModel, FilePath, Names, read_yaml, validate_config
from rtsx.cube.stac import HttpAccess
from rtsx.cube.stac.assets import SignerName
from rtsx.errors import MissingExtraError
from rtsx.ordering.criteria import OrderCriteria, OrderLimits
from rtsx.ordering.provider import BucketDelivery

if TYPE_CHECKING:
    from rtsx.ordering import BasemapApi, Provider, QuadProvider


class PlanetConfig(ConfigModel):
    """Planet's Orders API; the key is in the environment, as PL_API_KEY, or stored by ``planet auth login``."""

    item_type: str = "PSScene"
    """Item type."""
    bundle: str = "analytic_sr_udm2"
    """Product bundle, such as analytic_sr_udm2 (4 bands) or analytic_8b_sr_udm2."""
    fallback: Names = ()
    """Bundles to deliver where a scene has not all of the first."""
    clip: bool = True
    """Clip to the region, and pay for that only."""
    harmonize: bool = False
    """Match the reflectance of Sentinel-2."""
    partial: bool = True
    """Accept an order of which some scenes cannot be delivered; otherwise it fails as a whole."""
    base_url: str | None = None
    """Address of the APIs; Planet's if left out."""

    def provider(self) -> "Provider":
        """Return the provider.

        Raises
        ------
        MissingExtraError
            Planet's SDK is not installed.
        OrderError
            There are no credentials.
        """
        provider: Provider = _planet().PlanetProvider(**dict(self))
        return provider


class _DownloadConfig(ConfigModel):
    """What is downloaded of items of STAC, and how."""

    assets: Names = ()
    """Assets to fetch; all if left out."""
    sign: SignerName | None = None
    """Signing hook for the hrefs, such as planetary-computer."""
    access: HttpAccess = HttpAccess()
    """Headers, time-outs and retries."""


class StacOrderConfig(_DownloadConfig):
    """A STAC API, from which ordering is downloading."""

    url: str
    """Address of its landing page."""
    collections: Names
    """Ids of the collections to search."""

    def provider(self) -> "Provider":
        """Return the provider."""
        api = ordering.StacApi(self.url, self.collections, access=self.access)
        return ordering.StacProvider(api, assets=self.assets, sign=self.sign)


class CatalogOrderConfig(_DownloadConfig):
    """A static STAC catalog, from which ordering is downloading."""

    path: FilePath
    """Path or URL of its document."""

    def provider(self) -> "Provider":
        """Return the provider."""
        catalog = ordering.StaticCatalog(self.path, access=self.access)
        return ordering.StacProvider(catalog, assets=self.assets, sign=self.sign)


class BasemapConfig(ConfigModel):
    """Quads of one of Planet's basemaps; the key is in the environment, as PL_API_KEY, or stored by ``planet auth login``."""

    mosaic: str
    """Name of the mosaic, such as global_quarterly_2025q3_mosaic."""
    base_url: str | None = None
    """Address of the Basemaps API; Planet's if left out."""
    delivery: Checked[BucketDelivery] | None = None
    """Bucket that Planet delivers the quads to; they are downloaded if left out."""

    def api(self) -> "BasemapApi":
        """Return the API.

        Raises
        ------
        MissingExtraError
            Planet's SDK is not installed.
        OrderError
            There are no credentials.
        """
        planet = _planet()
        auth = planet.credentials()
        return ordering.BasemapApi(lambda href: planet.authorization(auth, href), base_url=self.base_url)

    def provider(self) -> "QuadProvider":
        """Return who takes orders of quads, for a delivery; see `api` for its errors."""
        assert self.delivery is not None  # else there is nobody to order from
        provider: QuadProvider = _planet().PlanetProvider(
            mosaic=self.mosaic, delivery=self.delivery, base_url=self.delivery.base_url
        )
        return provider


def _planet() -> ModuleType:
    """Return what needs Planet's SDK."""
    try:
        import rtsx.ordering.planet  # here, because it is an extra and takes a second to load
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Ordering from Planet needs its SDK ({error}). Install it with pip install 'rtsx[order]'."
        ) from error
    return rtsx.ordering.planet


class OrderConfig(ConfigModel):
    """An order."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    """Name that the provider's orders begin with; one per purpose, because orders are found again by it."""
    region: Region
    """Ground to cover."""
    period: PeriodConfig | None = None
    """Days that count; a basemap is of its own, and has none."""
    out: FilePath
    """Folder that scenes go to, as a STAC catalog; several orders of one collection may share it."""
    collection: str | None = None
    """Id of the collection that they become; the order's name if left out."""
    planet: PlanetConfig | None = None
    """Order from Planet."""
    stac: StacOrderConfig | None = None
    """Download from a STAC API."""
    catalog: CatalogOrderConfig | None = None
    """Download from a static STAC catalog."""
    basemap: BasemapConfig | None = None
    """Download quads of one of Planet's basemaps."""
    limits: Checked[OrderLimits] = OrderLimits()
    """Where to stop."""
    wishes: Checked[OrderCriteria] = OrderCriteria()
    """Which scenes are better."""
    parallel: int = Field(default=4, ge=1, le=32)
    """Files fetched at once."""

    @model_validator(mode="after")
    def _one_provider(self) -> Self:
        given = [name for name in ("planet", "stac", "catalog", "basemap") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"an order has one of planet, stac, catalog and basemap; got {' and '.join(given) or 'none'}"
            )
        if self.basemap is None and self.period is None:
            raise ValueError("an order of scenes needs the days that count: add period: {years: ..., months: [...]}")
        choosing = ("period", "collection", "limits", "wishes")
        idle = [name for name in choosing if getattr(self, name) != type(self).model_fields[name].default]
        if self.basemap is not None and idle:
            raise ValueError(
                f"a basemap is one mosaic, of which all quads of the region come; leave {', '.join(idle)} out"
            )
        around = self.wishes.around
        if around is not None and self.period is not None:
            period = self.period.period()
            if not period.start <= around <= period.end:
                raise ValueError(f"wishes.around is a day of the period, {period.start} to {period.end}; got {around}")
        if self.region.cell is not None:
            raise ValueError("the region of an order is given by bbox, file or wkt; cells belong to a cube's grid")
        if "://" in self.out:
            raise ValueError(f"out is a local folder; got {self.out}. Fetch here, then copy it there")
        return self

    @property
    def folder(self) -> Path:
        """Folder of the catalog."""
        return Path(self.out)

    @property
    def collection_id(self) -> str:
        """Id of the collection."""
        return self.collection or self.name

    def geometry(self) -> BaseGeometry:
        """Return ground to cover, in longitude and latitude."""
        geometry = self.region.geometry()
        assert geometry is not None  # no cell, checked above
        return geometry

    def provider(self) -> "Provider":
        """Return the provider; see `PlanetConfig.provider` for its errors."""
        given = self.planet or self.stac or self.catalog
        assert given is not None  # a basemap has an API instead
        return given.provider()

    def digest(self) -> str:
        """Changes with whatever changes the plan; not with the budget, which may be raised after planning."""
        content = self.model_dump(mode="json", include={"period", "planet", "stac", "catalog", "limits", "wishes"})
        content["limits"].pop("budget_km2")
        for access in (content["stac"], content["catalog"]):
            if access:
                access.pop("access")  # keys and time-outs change no plan
        ground = to_wkb(self.geometry(), hex=True)
        return hashlib.sha256(json.dumps([content, ground], sort_keys=True).encode()).hexdigest()


def load_order_config(path: str | PathLike[str]) -> OrderConfig:
    """Read and check the config of an order; nothing is asked of the provider.

    Raises
    ------
    ConfigError
        It cannot be read, or something in it is wrong; everything that is wrong is listed, by line and key.
    """
    return validate_config(OrderConfig, read_yaml(path))


def order_schema() -> dict[str, Any]:
    """Return JSON schema of the config of an order, for editors and validators."""
    return OrderConfig.json_schema()
