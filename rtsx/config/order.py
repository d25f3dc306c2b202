"""The config of an order: what to cover, from whom, within which limits."""

import hashlib
import json
from datetime import date
from os import PathLike
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator
from shapely import to_wkb
from shapely.geometry.base import BaseGeometry

from rtsx.config.place import PeriodConfig, RegionConfig
from rtsx.config.source import AccessConfig, SignerName
from rtsx.config.validate import ConfigModel, FilePath, Names, validate_config
from rtsx.config.yaml import read_yaml
from rtsx.errors import ConfigError, MissingExtraError, OrderError
from rtsx.ordering import OrderCriteria, OrderLimits, Provider, StacApi, StacProvider, StaticCatalog

__all__ = ["OrderConfig", "load_order_config", "order_schema"]


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

    def provider(self) -> Provider:
        """The provider.

        Raises
        ------
        MissingExtraError
            Planet's SDK is not installed.
        OrderError
            There are no credentials.
        """
        try:
            from rtsx.ordering.planet import PlanetProvider  # here, because it is an extra and takes a second to load
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"Ordering from Planet needs its SDK ({error}). Install it with pip install 'rtsx[order]'."
            ) from error
        return PlanetProvider(**{name: getattr(self, name) for name in type(self).model_fields})


class StacOrderConfig(ConfigModel):
    """A STAC API, from which ordering is downloading."""

    url: str
    """Address of its landing page."""
    collections: Names
    """Ids of the collections to search."""
    assets: Names = ()
    """Assets to fetch; all if left out."""
    sign: SignerName | None = None
    """Signing hook for the hrefs, such as planetary-computer."""
    access: AccessConfig = AccessConfig()
    """Headers, time-outs and retries."""

    def provider(self) -> Provider:
        """The provider."""
        api = StacApi(self.url, self.collections, access=self.access.access())
        return StacProvider(api, assets=self.assets, sign=self.sign)


class CatalogOrderConfig(ConfigModel):
    """A static STAC catalog, from which ordering is downloading."""

    path: FilePath
    """Path or URL of its document."""
    assets: Names = ()
    """Assets to fetch; all if left out."""
    sign: SignerName | None = None
    """Signing hook for the hrefs."""
    access: AccessConfig = AccessConfig()
    """Headers, time-outs and retries."""

    def provider(self) -> Provider:
        """The provider."""
        return StacProvider(StaticCatalog(self.path, access=self.access.access()), assets=self.assets, sign=self.sign)


class LimitsConfig(ConfigModel):
    """Where an order stops."""

    max_cloud: float = Field(default=100.0, ge=0, le=100)
    """Percent under cloud, at most."""
    min_clear: float = Field(default=0.0, ge=0, le=100)
    """Percent clear, at least, where the provider tells."""
    max_scenes: int | None = Field(default=None, ge=1)
    """Scenes at most; any number if left out."""
    budget_km2: float | None = Field(default=None, gt=0)
    """Cost at most, km², with all that was ordered before under this order; any if left out."""
    coverage: float = Field(default=1.0, gt=0, le=1)
    """Share of the region, 0 to 1, after which no more is ordered."""
    min_new_km2: float = Field(default=0.01, gt=0)
    """Ground that a scene has to add, km²."""


class WishesConfig(ConfigModel):
    """Which scenes are better; weights of 0 switch a term off."""

    around: date | None = None
    """Wished date; if left out, any day of the period is as good."""
    days: float = Field(default=30.0, gt=0)
    """Distance from it, in days, from which on farther is not worse."""
    cloud: float = Field(default=4.0, ge=0)
    """Weight of cloud."""
    unclear: float = Field(default=1.0, ge=0)
    """Weight of what is not clear for any reason."""
    lateness: float = Field(default=1.0, ge=0)
    """Weight of the distance from the wished date."""
    overlap: float = Field(default=0.25, ge=0)
    """Weight of ground bought twice."""
    same_day: float = Field(default=0.25, ge=0)
    """Weight of joining a neighbour's strip or day."""
    scene_km2: float = Field(default=10.0, ge=0)
    """What a scene costs beyond its area, km²."""


class OrderConfig(ConfigModel):
    """An order."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    """Name that the provider's orders begin with; one per purpose, because orders are found again by it."""
    region: RegionConfig
    """Ground to cover."""
    period: PeriodConfig
    """Days that count."""
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
    limits: LimitsConfig = LimitsConfig()
    """Where to stop."""
    wishes: WishesConfig = WishesConfig()
    """Which scenes are better."""
    parallel: int = Field(default=4, ge=1, le=32)
    """Files fetched at once."""

    @model_validator(mode="after")
    def _one_provider(self) -> Self:
        given = [name for name in ("planet", "stac", "catalog") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"an order has one of planet, stac and catalog; got {' and '.join(given) or 'none'}")
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
        """Ground to cover, in longitude and latitude."""
        geometry = self.region.geometry()
        assert geometry is not None  # no cell, checked above
        return geometry

    def provider(self) -> Provider:
        """The provider; see `PlanetConfig.provider` for its errors."""
        given = self.planet or self.stac or self.catalog
        assert given is not None  # checked above
        return given.provider()

    def limits_value(self) -> OrderLimits:
        """The limits."""
        return OrderLimits(**self.limits.model_dump())

    def wishes_value(self) -> OrderCriteria:
        """The weights."""
        return OrderCriteria(**self.wishes.model_dump())

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
    config = validate_config(OrderConfig, read_yaml(path))
    try:
        _ = config.limits_value(), config.wishes_value()
    except OrderError as error:
        raise ConfigError(f"{path}: {error}") from error
    return config


def order_schema() -> dict[str, Any]:
    """JSON schema of the config of an order, for editors and validators."""
    schema = OrderConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **json.loads(json.dumps(schema))}
