"""Planet's Data and Orders APIs through Planet's own SDK (extra ``order``): access, orders, delivered files."""

import asyncio
import json
import os
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from datetime import time as clock
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import planet
from planet import data_filter, order_request
from planet.exceptions import (
    APIError,
    BadGateway,
    BadQuery,
    InvalidAPIKey,
    MissingResource,
    NoPermission,
    PlanetError,
    ServerError,
    TooManyRequests,
)
from planet.specs import FetchBundlesSpecError, SpecificationException
from planet_auth import AuthException
from shapely import unary_union
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from rtsx.cube.images import Period
from rtsx.cube.sensors import SENSORS
from rtsx.cube.stac.assets import absolute_href
from rtsx.cube.stac.client import is_same_host
from rtsx.errors import OrderError, OrderNotFoundError
from rtsx.ordering.criteria import Scene
from rtsx.ordering.provider import Batch, BucketDelivery, Checksum, OrderStatus, Provider, QuadProvider, RemoteFile
from rtsx.parsing import wrap_damage
from rtsx.redaction import withhold
from rtsx.storage import plain_folder

PASSING = (TooManyRequests, BadGateway, ServerError, httpx.TransportError, httpx.HTTPStatusError)
"""What may be over the next time; for an order, whether it was placed or not has to be asked first."""


def credentials() -> planet.Auth:
    """Return the key in ``PL_API_KEY``, else what ``planet auth login`` has stored.

    Raises
    ------
    OrderError
        There are none.
    """
    cure = "Set PL_API_KEY to your API key, or run `planet auth login`."
    if key := os.environ.get("PL_API_KEY"):
        withhold(key, "${PL_API_KEY}")
        return planet.Auth.from_key(key)
    try:
        auth = planet.Auth.from_user_default_session()
        if auth.is_initialized():
            return auth
    except (PlanetError, AuthException, OSError, ValueError) as error:
        raise OrderError(f"There are no usable credentials for Planet: {error}. {cure}") from error
    raise OrderError(f"There are no credentials for Planet. {cure}")


def authorization(auth: planet.Auth, href: str) -> dict[str, str]:
    """Return the header that a request of an address of Planet's needs."""
    request = next(auth.auth_flow(httpx.Request("GET", href)))
    return {"Authorization": request.headers["Authorization"]} if "Authorization" in request.headers else {}


@contextmanager
def describe_error(what: str) -> Iterator[None]:
    """Turn what the SDK and HTTP raise into one error that says what to do.

    Raises
    ------
    OrderError
        The block raises; the cause is kept, and is one of `PASSING` where trying again may help.
    """
    try:
        yield
    except tuple(_REFUSALS) as error:
        text = next(text for kind, text in _REFUSALS.items() if isinstance(error, kind))
        kind = OrderNotFoundError if isinstance(error, MissingResource) else OrderError
        raise kind(text.format(what=what, error=error)) from error
    except (ServerError, BadGateway, httpx.HTTPError, json.JSONDecodeError, FetchBundlesSpecError) as error:
        raise _busy(what, error) from error
    except (APIError, PlanetError, AuthException) as error:
        # The SDK has no error of its own for 503 and 504.
        if isinstance(cause := error.__context__, httpx.HTTPStatusError) and cause.response.is_server_error:
            raise _busy(what, error) from cause
        raise OrderError(f"Planet refuses to {what}: {error}. Correct the order, or ask Planet.") from error


_REFUSALS: dict[type[Exception], str] = {
    InvalidAPIKey: "Planet refuses the API key (401) to {what}. Check PL_API_KEY.",
    NoPermission: "Planet does not allow your account (403) to {what}: {error}. Check your contract.",
    MissingResource: "Planet has nothing there (404) to {what}: {error}. Is it another account's?",
    TooManyRequests: "Planet is asked too often, or the quota is used up (429), to {what}: {error}. Wait.",
    SpecificationException: "Planet does not know that product, to {what}: {error} Correct bundle or item_type.",
}


ITEM_MANIFEST = "manifest.json"
"""Name of the file that lists all others."""

_UDM2 = ("clear", "snow", "shadow", "haze_light", "haze_heavy", "cloud", "confidence", "unusable")
_COMMON = {"blue", "green", "red", "nir", "rededge", "yellow"}
"""Bands whose name is the common one of the eo extension."""
_ASSETS = {
    "ortho_analytic_4b": ("data",),
    "ortho_analytic_4b_sr": ("data", "reflectance"),
    "ortho_analytic_8b": ("data",),
    "ortho_analytic_8b_sr": ("data", "reflectance"),
    "ortho_udm2": ("data",),
}
"""Asset types whose bands are known, and their roles."""
_MEDIA_TYPES = {".tif": "image/tiff; application=geotiff", ".json": "application/json", ".xml": "application/xml"}
_PROPERTIES = {
    "gsd": "gsd",
    "satellite_id": "platform",
    "published": "published",
    "updated": "updated",
    "sun_azimuth": "view:sun_azimuth",
    "sun_elevation": "view:sun_elevation",
    "satellite_azimuth": "view:azimuth",
}
"""Planet's names that STAC has names for; all others get the prefix ``pl:``."""
_ELSEWHERE = {"acquired", "cloud_cover", "view_angle", "instrument", "id"}


def _busy(what: str, error: Exception) -> OrderError:
    return OrderError(
        f"Planet cannot {what} now: {str(error) or type(error).__name__}. Run the same command again later; nothing is "
        "ordered twice."
    )


def remote_files(
    results: Iterable[Mapping[str, Any]],
    manifest: Mapping[str, Any],
    *,
    scenes: Sequence[str],
    headers: Callable[[str], Mapping[str, str]],
) -> tuple[RemoteFile, ...]:
    """Return the files of an order that belong to a scene, sizes and checksums as the manifest has them.

    Parameters
    ----------
    results
        The order's results: names, ``<order id>/<path>``, and locations.
    manifest
        The order's manifest; empty where there is none, and then nothing is known but the names.
    scenes
        Ids of the scenes that were ordered.
    headers
        Headers that the request of a location needs.
    """
    listed = {entry["path"]: entry for entry in manifest.get("files") or ()}
    files = []
    for result in results:
        path = result["name"].split("/", 1)[-1]
        entry = listed.get(path) or listed.get(result["name"]) or {}
        notes = entry.get("annotations") or {}
        name = PurePosixPath(path).name
        scene = notes.get("planet/item_id") or next((one for one in scenes if name.startswith(f"{one}_")), None)
        if scene is None or name == ITEM_MANIFEST:
            continue
        digests = entry.get("digests") or {}
        algorithm = next((one for one in ("sha256", "md5") if digests.get(one)), None)
        files.append(
            RemoteFile(
                scene_id=scene,
                asset=_asset(name, scene, notes.get("planet/asset_type")),
                name=name,
                href=result["location"],
                size=entry.get("size"),
                checksum=Checksum(algorithm, digests[algorithm].lower()) if algorithm else None,
                media_type=entry.get("media_type") or _MEDIA_TYPES.get(PurePosixPath(name).suffix.lower()),
                headers=headers(result["location"]),
            )
        )
    return tuple(files)


def described_item(scene_id: str, files: Sequence[Path]) -> dict[str, Any]:
    """Return a STAC item from the metadata that is delivered with a scene, with what is known of its assets' bands.

    Raises
    ------
    OrderError
        There is no metadata among the files, or it is of something else.
    """
    metadata = next((path for path in files if path.name == f"{scene_id}_metadata.json"), None)
    if metadata is None:
        raise OrderError(
            f"Scene {scene_id} came without {scene_id}_metadata.json; its files are {[path.name for path in files]}. "
            "Order a bundle that holds metadata."
        )
    try:
        content = json.loads(metadata.read_text())
        own, geometry = content["properties"], content["geometry"]
        properties: dict[str, Any] = {"datetime": own["acquired"], "constellation": "planetscope"}
    except (ValueError, KeyError, TypeError) as error:
        raise OrderError(f"{metadata} is no metadata of a scene: {error!r}. Delete it, and run fetch again.") from error
    if own.get("cloud_cover") is not None:
        properties["eo:cloud_cover"] = round(100 * own["cloud_cover"], 4)  # a fraction there, per cent here
    if own.get("view_angle") is not None:
        properties["view:off_nadir"] = abs(own["view_angle"])
    if own.get("instrument"):
        properties["instruments"] = [own["instrument"]]
    for name, value in own.items():
        if name not in _ELSEWHERE and value is not None:
            properties[_PROPERTIES.get(name, f"pl:{name}")] = value
    assets = {asset: {"roles": list(roles), **_bands(asset)} for asset, roles in _ASSETS.items()}
    return {"type": "Feature", "id": scene_id, "geometry": geometry, "properties": properties, "assets": assets}


def _bands(asset: str) -> dict[str, Any]:
    if asset == "ortho_udm2":
        return {"eo:bands": [{"name": name} for name in _UDM2]}
    sensor = SENSORS["planetscope"]
    names = sensor.names(4 if "_4b" in asset else 8)
    described: dict[str, Any] = {
        "eo:bands": [{"name": name, **({"common_name": name} if name in _COMMON else {})} for name in names]
    }
    if asset.endswith("_sr"):
        stored = {"scale": sensor.scale_factor, "offset": sensor.add_offset, "nodata": sensor.nodata}
        described["raster:bands"] = [stored] * len(names)
    return described


def _asset(name: str, scene: str, stated: str | None) -> str:
    """Return the key of the asset that a file becomes: Planet's asset type, else what is left of its name."""
    if stated:
        return stated
    key = PurePosixPath(name).stem.removeprefix(f"{scene}_")
    udm = "udm2" in key.lower() and name.endswith(".tif")
    return "ortho_udm2" if udm else "metadata" if key == "metadata" else key


_Result = TypeVar("_Result")
_Call = Callable[[Any], Awaitable[Any] | AsyncIterator[Any]]
_APIS = {"data": "data/v1", "orders": "compute/ops"}
"""The SDK's clients, and where their APIs are."""
_ATTEMPTS = 5
_LONGEST_WAIT_S = 64.0
_BASE_URL = "https://api.planet.com"


@dataclass(kw_only=True, eq=False, repr=False)
class PlanetProvider:
    """Planet's PSScene and its like.

    The key comes from the environment variable ``PL_API_KEY``, or from what ``planet auth login`` has stored; it is
    never in a config.

    Raises
    ------
    OrderError
        There are no credentials.
    """

    batch_size: int = field(default=500, init=False)  # what the Orders API takes at most
    item_type: str = "PSScene"
    """Item type, such as ``PSScene``."""
    bundle: str = "analytic_sr_udm2"
    """Product bundle, such as ``analytic_sr_udm2``."""
    fallback: Sequence[str] = ()
    """Bundles to deliver where a scene has not all of `bundle`."""
    clip: bool = True
    """Clip to the region, and pay for that only."""
    harmonize: bool = False
    """Match the reflectance of Sentinel-2."""
    partial: bool = True
    """Accept an order of which some scenes cannot be delivered; otherwise such an order fails as a whole."""
    mosaic: str | None = None
    """Name of a basemap whose quads are ordered instead of scenes; the ids of a batch are theirs."""
    delivery: BucketDelivery | None = None
    """Bucket that Planet delivers to; None where files are downloaded."""
    base_url: str | None = None
    """Address of the APIs; None for Planet's."""
    pause: Callable[[float], None] = time.sleep
    """Waits between attempts."""

    def __post_init__(self) -> None:
        """Look for credentials."""
        self.can_clip = self.clip
        self._user_id: str | None = "all"
        self._whole: dict[str, dict[str, Any]] = {}  # orders of which a list left parts out
        self._auth = credentials()
        self._url = (self.base_url or _BASE_URL).rstrip("/")

    def search(self, region: BaseGeometry, period: Period) -> tuple[Scene, ...]:
        """Return scenes of standard quality that may be downloaded; see `Provider`."""
        day = timedelta(days=1)
        start, end = (datetime.combine(one, clock(), UTC) for one in (period.start, period.end))
        wanted = data_filter.and_filter(
            [
                data_filter.date_range_filter("acquired", gte=start, lt=end + day),
                data_filter.permission_filter(),
                data_filter.std_quality_filter(),
            ]
        )
        found = self._asked(
            lambda data: data.search([self.item_type], wanted, sort="acquired asc", limit=0, geometry=mapping(region)),
            what="search for scenes",
            api="data",
        )
        scenes = {item["id"]: _scene(item) for item in found}  # by id, because pages shift while images are published
        return tuple(scene for scene in scenes.values() if scene.time in period)

    def submit(self, batch: Batch) -> OrderStatus:
        """Order a batch once; see `Provider`.

        Raises
        ------
        OrderError
            Planet refuses it, or does not answer; then asking again orders nothing twice.
        """
        with describe_error("prepare an order"):
            request = self._request(batch)

        def placed() -> OrderStatus:
            order = self._named(batch.name)  # first, because an earlier answer may have been lost
            if order is None:
                order = self._once(lambda orders: orders.create_order(request), what=f"place order {batch.name}")
            return self._status_of(order)

        return self._tried(placed)

    def status(self, batch: Batch, order_id: str) -> OrderStatus:
        """Return where an order stands, with links that are fresh; see `Provider`."""
        return self._status_of(self._order(order_id))

    def placed(self) -> Iterator[tuple[Batch, OrderStatus]]:
        """Yield orders of quads of the mosaic for the bucket, oldest first; see `QuadProvider`.

        Planet shows those of the whole organization to its admins only; to others their own, of which a warning tells.
        """
        to = self.delivery
        assert to is not None  # else there is no place that they are the same by
        for order in self._listed(to):
            with wrap_damage("An order that Planet lists", OrderError):
                order_id = str(order["id"])
            with wrap_damage(f"What Planet says of order {order_id}", OrderError):
                if not (order.get("delivery") and order.get("products")):  # a list may leave them out
                    if order_id not in self._whole:
                        whole = self._order(order_id)
                        self._whole[order_id] = {key: whole.get(key) for key in ("delivery", "products", "tools")}
                    order = {**order, **self._whole[order_id]}
                if not _is_for(to, order):
                    continue
                products = [product for product in order["products"] if product.get("mosaic_name") == self.mosaic]
                quads = tuple(name for product in products for name in product.get("quad_ids") or ())
                status = self._status_of(order)
            if quads:
                yield Batch(name=str(order.get("name")), scene_ids=quads), status

    def _listed(self, to: BucketDelivery) -> list[Mapping[str, Any]]:
        """Return all orders of basemaps for a destination that Planet shows."""

        def all_pages(orders: Any) -> AsyncIterator[Mapping[str, Any]]:
            return orders.list_orders(  # type: ignore[no-any-return]
                source_type="basemaps",
                destination_ref=to.destination,
                sort_by="created_on",
                limit=0,
                user_id=self._user_id,
            )

        try:
            found: list[Mapping[str, Any]] = self._asked(all_pages, what="list orders")
        except OrderError as error:
            if self._user_id is None or not isinstance(error.__cause__, NoPermission | BadQuery):
                raise
            self._user_id = None
            found = self._asked(all_pages, what="list orders")
            warnings.warn(
                "Planet shows the orders of a whole organization to its admins only, and here those of your account: quads that a colleague has "
                "ordered for the same place are not seen, and may be ordered again. Let one account order for a place, or an admin's.",
                RuntimeWarning,
                stacklevel=2,
            )
        return found

    def _order(self, order_id: str) -> dict[str, Any]:
        """Return an order with all that Planet says of it."""
        found: dict[str, Any] = self._asked(lambda orders: orders.get_order(order_id), what=f"get order {order_id}")
        return found

    def describe(self, scene_id: str, files: Sequence[Path]) -> Mapping[str, Any]:
        """Return the item in the metadata that came with a scene; see `Provider`."""
        return described_item(scene_id, files)

    def cancel(self, order_id: str) -> None:
        """Cancel an order that is still queued.

        Raises
        ------
        OrderError
            It is running already, or over.
        """
        self._asked(lambda orders: orders.cancel_order(order_id), what=f"cancel order {order_id}")

    def _request(self, batch: Batch) -> dict[str, Any]:
        tools = []
        if self.harmonize:
            tools.append(order_request.harmonize_tool("Sentinel-2"))
        if batch.clip is not None:
            tools.append(order_request.clip_tool(mapping(unary_union(batch.clip))))
        if self.mosaic is None:
            product = order_request.product(
                list(batch.scene_ids), self.bundle, self.item_type, fallback_bundle=list(self.fallback) or None
            )
        else:
            product = {"mosaic_name": self.mosaic, "quad_ids": list(batch.scene_ids)}
        to = self.delivery
        request: dict[str, Any] = order_request.build_request(
            batch.name,
            [product],
            order_type="partial" if self.partial else "full",
            tools=tools or None,
            delivery=None if to is None else order_request.destination(to.destination, to.path_prefix or None),
        )
        return request if self.mosaic is None else request | {"source_type": "basemaps"}

    def _named(self, name: str) -> Mapping[str, Any] | None:
        """Return the newest order of exactly that name; None where there is none."""
        found = self._once(lambda orders: orders.list_orders(name=name, limit=0), what="list orders")
        own = [order for order in found if order["name"] == name]
        return max(own, key=lambda order: str(order.get("created_on", ""))) if own else None

    def _status_of(self, order: Mapping[str, Any]) -> OrderStatus:
        results = [
            {**result, "location": absolute_href(str(result["location"]), self._url)}
            for result in order.get("_links", {}).get("results") or ()
            if result.get("location")
        ]
        hints = [str(hint) for hint in order.get("error_hints") or ()]
        message = ". ".join(filter(None, [str(order.get("last_message") or ""), *hints]))
        files: tuple[RemoteFile, ...] = ()
        if order["state"] in ("success", "partial") and self.delivery is None:
            files = remote_files(results, self._manifest(results), scenes=_ids(order), headers=self._headers)
        return OrderStatus(order_id=str(order["id"]), state=order["state"], message=message, files=files)

    def _manifest(self, results: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return what the order's manifest says of each file; empty where there is none."""
        location = next((one["location"] for one in results if one["name"].split("/")[-1] == ITEM_MANIFEST), None)
        if location is None:
            return {}
        if not is_same_host(self._url, location):  # the session would send the key there
            raise OrderError(
                f"The order's manifest is at {urlsplit(location).netloc}, not at {self._url}. Report it to Planet."
            )

        async def read(session: planet.Session) -> Any:
            async with session.stream("GET", location) as response:
                return json.loads(b"".join([piece async for piece in response.aiter_bytes()]))

        content: Mapping[str, Any] = self._asked(read, what="read an order's manifest", api=None)
        return content

    def _headers(self, href: str) -> Mapping[str, str]:
        """Return credentials for a request of Planet's own address; none for another's."""
        if not is_same_host(self._url, href):
            return {}
        return authorization(self._auth, href)

    def _asked(self, call: _Call, *, what: str, api: str | None = "orders") -> Any:
        return self._tried(lambda: self._once(call, what=what, api=api))

    def _tried(self, act: Callable[[], _Result]) -> _Result:
        """Act again while Planet is only busy; what the last attempt raises is raised."""
        for attempt in range(1, _ATTEMPTS):
            try:
                return act()
            except OrderError as error:
                if not isinstance(error.__cause__, PASSING):
                    raise
            self.pause(min(2.0**attempt, _LONGEST_WAIT_S))
        return act()

    def _once(self, call: _Call, *, what: str, api: str | None = "orders") -> Any:
        """Return what a call with the client of an API gives, or with a plain session; of pages all.

        The session ends with it, unlike that of the SDK's blocking client.
        """

        async def talk() -> Any:
            async with planet.Session(auth=self._auth) as session:
                # The SDK repeats a request whose answer was lost, which for an order means two; repeating is done here.
                session.max_retries = 0
                result = call(session if api is None else session.client(api, f"{self._url}/{_APIS[api]}"))
                return [one async for one in result] if isinstance(result, AsyncIterator) else await result

        # A thread, because in a notebook this one runs a loop already.
        with describe_error(what), ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: asyncio.run(talk())).result()


def _scene(item: Mapping[str, Any]) -> Scene:
    properties = item["properties"]
    cloud = properties.get("cloud_percent", properties.get("cloud_cover"))
    if cloud is not None and "cloud_percent" not in properties:
        cloud = 100 * cloud  # cloud_cover is a fraction
    return Scene(
        id=item["id"],
        footprint=shape(item["geometry"]),
        time=datetime.fromisoformat(properties["acquired"]),
        cloud_cover=cloud,
        clear_percent=properties.get("clear_percent"),
        strip=str(properties.get("strip_id") or ""),
        collection=str(properties.get("item_type") or ""),
    )


def _is_for(delivery: BucketDelivery, order: Mapping[str, Any]) -> bool:
    """Test whether an order brings quads as they are to the place of a delivery."""
    to = (order.get("delivery") or {}).get("destination") or {}
    place = f"{to.get('ref')} {plain_folder(to.get('path_prefix') or '')}"
    return place == delivery.place and not order.get("tools")


def _ids(order: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for product in order["products"] for name in product["item_ids"])


_conforms: tuple[type[Provider], type[QuadProvider]] = (PlanetProvider, PlanetProvider)
