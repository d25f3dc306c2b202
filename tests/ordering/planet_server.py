"""A server on loopback that speaks Planet's Data and Orders APIs as documented, over files made here."""

import hashlib
import json
import threading
import uuid
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
from affine import Affine
from rasterio.io import MemoryFile
from shapely.geometry import mapping, shape

KEY = "PLAK-of-the-test"
SPEC = {
    "bundles": {
        "analytic_sr_udm2": {"assets": {"PSScene": ["ortho_analytic_4b_sr", "ortho_udm2"]}},
        "analytic_8b_sr_udm2": {"assets": {"PSScene": ["ortho_analytic_8b_sr", "ortho_udm2"]}},
    }
}


def tiff(bands: int, seed: int, dtype: str = "uint16") -> bytes:
    pixels = np.random.default_rng(seed).integers(1, 200, (bands, 120, 160)).astype(dtype)
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            width=160,
            height=120,
            count=bands,
            dtype=dtype,
            crs="EPSG:32608",
            transform=Affine(3, 0, 500_000 + 96 * seed, 0, -3, 7_700_000),
            nodata=None if bands == 8 else 0,
        ) as file:
            file.write(pixels)
        return memory.read()


class PlanetServer:
    """What the API knows, and what a test makes it do wrong."""

    def __init__(self, scenes) -> None:
        self.items = [
            {
                "type": "Feature",
                "id": scene.id,
                "geometry": mapping(scene.footprint),
                "properties": {
                    "acquired": scene.time.isoformat().replace("+00:00", "Z"),
                    "item_type": "PSScene",
                    "strip_id": scene.strip,
                    "cloud_cover": 0.25,
                    "clear_percent": 70,
                    "sun_azimuth": 170.5,
                    "sun_elevation": 38.25,
                    "view_angle": -2.5,
                    "satellite_id": "2442",
                    "instrument": "PSB.SD",
                    "gsd": 3.9,
                },
            }
            for scene in scenes
        ]
        self.orders: dict[str, dict] = {}
        self.colleagues: set[str] = set()
        """Ids of orders that another user of the organization has placed."""
        self.is_admin = True
        self.unlisted_fields: tuple[str, ...] = ()
        """Fields of an order that the list leaves out."""
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.ranges: list[str] = []
        self.trouble: list[tuple[str, str, object]] = []
        """(method, part of the path, status or 'lost' or 'cut'), each happening once."""
        server = self

        class Handler(_Handler):
            planet = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def count(self, method: str, part: str) -> int:
        return sum(m == method and part in path for m, path in self.requests)

    def create(self, request: dict) -> dict:
        order = {
            "id": str(uuid.uuid4()),
            "name": request["name"],
            "state": "queued",
            "last_message": "Preparing order",
            "error_hints": [],
            "created_on": f"2024-07-01T00:00:{len(self.orders):02d}.000Z",
            "products": request["products"],
            "tools": request.get("tools"),
            "order_type": request.get("order_type", "full"),
            "source_type": request.get("source_type", "scenes"),
            "delivery": request.get("delivery"),
            "_links": {},
        }
        self.orders[order["id"]] = order
        return order

    def finish(
        self, state: str = "success", *, without: tuple[str, ...] = (), damaged: str = "", manifest: bool = True
    ) -> None:
        """Bring all queued orders to an end."""
        for order in self.orders.values():
            if order["state"] not in ("queued", "running"):
                continue
            order["state"] = state
            if state in ("failed", "cancelled"):
                order["error_hints"] = ["No access to assets: PSScene/x/[ortho_analytic_4b_sr]"]
                continue
            listed, results = [], []
            for name in order["products"][0]["item_ids"]:
                if name in without:
                    continue
                seed = int(hashlib.sha256(name.encode()).hexdigest()[:4], 16) % 500
                item = next(item for item in self.items if item["id"] == name)
                contents = {
                    f"{name}_3B_AnalyticMS_SR_clip.tif": (tiff(4, seed), "ortho_analytic_4b_sr"),
                    f"{name}_3B_udm2_clip.tif": (tiff(8, seed, "uint8"), "ortho_udm2"),
                    f"{name}_metadata.json": (json.dumps(item).encode(), None),
                }
                for file, (data, asset) in contents.items():
                    path = f"PSScene/{file}"
                    notes = {"planet/item_id": name, "planet/item_type": "PSScene"} | (
                        {"planet/asset_type": asset} if asset else {}
                    )
                    digests = {"md5": hashlib.md5(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest()}
                    listed.append(
                        {
                            "path": path,
                            "media_type": "image/tiff" if asset else "application/json",
                            "size": len(data),
                            "digests": digests,
                            "annotations": notes,
                        }
                    )
                    self.files[f"{order['id']}/{path}"] = (
                        data if damaged not in file or not damaged else data[:-7] + b"damaged"
                    )
            if manifest:
                self.files[f"{order['id']}/manifest.json"] = json.dumps({"name": "", "files": listed}).encode()
            results.extend(
                {
                    "delivery": "success",
                    "name": file,
                    "location": f"{self.url}/compute/ops/download/?token={file}",
                }
                for file in self.files
                if file.startswith(order["id"])
            )
            order["_links"] = {"results": results}


class _Handler(BaseHTTPRequestHandler):
    planet: PlanetServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def do_PUT(self) -> None:
        self._handle("PUT")

    def _handle(self, method: str) -> None:
        planet = self.planet
        planet.requests.append((method, self.path))
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
        trouble = next((one for one in planet.trouble if one[0] == method and one[1] in self.path), None)
        if trouble:
            planet.trouble.remove(trouble)
            if isinstance(trouble[2], int):
                self._send(trouble[2], {"general": [{"message": f"trouble {trouble[2]}"}]})
                return
        if self.headers.get("Authorization") != f"api-key {KEY}":
            self._send(401, {"message": "Please enter a valid API key."})
            return
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/data/v1/quick-search":
            found = self._search(body)
            self.server.searches = {"s1": found}
            self._page("s1", 0)
        elif url.path.startswith("/data/v1/searches/"):
            self._page(url.path.split("/")[4], int(query["_page"]))
        elif url.path == "/compute/ops/orders/v2" and method == "POST":
            order = planet.create(body)
            if trouble:  # placed, but the answer is lost
                self.close_connection = True
                self.connection.close()
                return
            self._send(202, order)
        elif url.path == "/compute/ops/orders/v2":
            self._orders(query)
        elif url.path.startswith("/compute/ops/orders/v2/"):
            order = planet.orders.get(url.path.split("/")[-1])
            if order is None:
                self._send(404, {"message": "Order not found"})
            elif method == "PUT" and order["state"] != "queued":
                self._send(409, {"message": "Order not in a cancellable state"})
            else:
                if method == "PUT":
                    order["state"] = "cancelled"
                self._send(200, order)
        elif url.path == "/compute/ops/download/":
            self._file(query["token"], cut=trouble is not None)
        else:
            self._send(404, {"message": "no such address"})

    def _orders(self, query: dict[str, str]) -> None:
        found = [order for order in self.planet.orders.values() if query.get("name") in (None, order["name"])]
        if query.get("source_type", "scenes") != "all":
            found = [order for order in found if order["source_type"] == query.get("source_type", "scenes")]
        if "destination_ref" in query:
            found = [order for order in found if json.dumps(query["destination_ref"]) in json.dumps(order["delivery"])]
        if "user_id" not in query:
            found = [order for order in found if order["id"] not in self.planet.colleagues]
        elif not self.planet.is_admin:
            self._send(403, {"message": "You do not have permission to view orders of other users"})
            return
        found.sort(key=lambda order: order["created_on"], reverse=query.get("sort_by") != "created_on")
        page, links = int(query.get("page_marker", 0)), {}
        if len(found) > 2 * (page + 1):
            links["next"] = (
                f"{self.planet.url}{urlsplit(self.path).path}?{urlencode(query | {'page_marker': page + 1})}"
            )
        left_out = self.planet.unlisted_fields
        shown = [
            {key: told for key, told in order.items() if key not in left_out}
            for order in found[2 * page : 2 * page + 2]
        ]
        self._send(200, {"orders": shown, "_links": links})

    def _search(self, body: dict) -> list[dict]:
        assert body["item_types"] == ["PSScene"]
        region = shape(body["geometry"])
        dates = next(f for f in body["filter"]["config"] if f["type"] == "DateRangeFilter")
        assert dates["field_name"] == "acquired"
        start, end = (datetime.fromisoformat(dates["config"][key]) for key in ("gte", "lt"))
        return [
            item
            for item in self.planet.items
            if shape(item["geometry"]).intersects(region)
            and start <= datetime.fromisoformat(item["properties"]["acquired"]) < end
        ]

    def _page(self, search: str, page: int) -> None:
        found = self.server.searches[search]
        links = {"_self": self.planet.url + self.path}
        if len(found) > 2 * (page + 1):
            links["_next"] = f"{self.planet.url}/data/v1/searches/{search}/results?_page={page + 1}"
        self._send(200, {"type": "FeatureCollection", "features": found[2 * page : 2 * page + 2], "_links": links})

    def _file(self, token: str, *, cut: bool) -> None:
        data = self.planet.files[token]
        tag, start = f'"{hashlib.md5(data).hexdigest()}"', 0
        wanted = self.headers.get("Range")
        if wanted:
            self.planet.ranges.append(wanted)
            if self.headers.get("If-Range") == tag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if cut:
            self.wfile.write(data[start : (start + len(data)) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(data[start:])

    def _send(self, status: int, content: dict) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
