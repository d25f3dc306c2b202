"""A server on loopback that speaks Planet's Basemaps API as documented, and a second one where its downloads redirect to.

``python -m tests.ordering.basemap_server 71`` fetches a square of 71 quads a side with `rtsx order fetch`, which is killed ten times.
"""

import base64
import hashlib
import json
import math
import os
import resource
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
from affine import Affine
from rasterio.io import MemoryFile

KEY = "PLAK-of-the-test"
ACROSS, SIZE = 2048, 16
WORLD_M = 2 * math.pi * 6378137
SIDE_M = WORLD_M / ACROSS
NAME = "global_quarterly_2025q3_mosaic"
_PAGE = 100


def _template() -> tuple[bytes, bytes, bytes]:
    """Bytes of a quad of red 77, and those of its place in them."""
    x, y = 1234567.25, 7654321.5
    pixels = np.stack([np.full((SIZE, SIZE), value, np.uint8) for value in (77, 80, 100, 255)])
    profile = {"driver": "GTiff", "width": SIZE, "height": SIZE, "count": 4, "dtype": "uint8", "interleave": "band"}
    transform = Affine(SIDE_M / SIZE, 0, x, 0, -SIDE_M / SIZE, y)
    with MemoryFile() as memory:
        with memory.open(crs="EPSG:3857", transform=transform, photometric="RGB", alpha="yes", **profile) as file:
            file.write(pixels)
        return memory.read(), struct.pack("<d", x), struct.pack("<d", y)


_BYTES, _X, _Y = _template()


def red_of(x: int, y: int) -> int:
    return (7 * x + 13 * y) % 200 + 1


def quad_bytes(x: int, y: int) -> bytes:
    west, north = x * SIDE_M - WORLD_M / 2, (y + 1) * SIDE_M - WORLD_M / 2
    data = _BYTES.replace(_X, struct.pack("<d", west)).replace(_Y, struct.pack("<d", north))
    return data.replace(bytes([77]) * SIZE * SIZE, bytes([red_of(x, y)]) * SIZE * SIZE)


def mosaic(name: str, number: int) -> dict:
    year, quarter = int(name[17:21]), int(name[22])
    return {
        "id": f"00000000-0000-4000-8000-{number:012d}",
        "name": name,
        "bbox": [-180, -85, 180, 85],
        "coordinate_system": "EPSG:3857",
        "datatype": "byte",
        "first_acquired": f"{year}-{3 * quarter - 2:02d}-01T00:00:00.000Z",
        "last_acquired": f"{year + quarter // 4}-{3 * quarter % 12 + 1:02d}-01T00:00:00.000Z",
        "grid": {"quad_size": SIZE, "resolution": SIDE_M / SIZE},
        "level": 15,
        "product_type": "timelapse",
        "quad_download": True,
    }


class BasemapServer:
    """What the API has, and what a test makes it do wrong."""

    def __init__(self) -> None:
        names = [f"global_quarterly_{year}q{quarter}_mosaic" for year in (2024, 2025) for quarter in (1, 2, 3, 4)]
        self.mosaics = [mosaic(name, number) for number, name in enumerate(names)]
        self.not_there: set[str] = set()
        """Quads that the mosaic does not have."""
        self.refused: set[str] = set()
        self.has_contract = True
        """Quads that are listed, and whose download is not there."""
        self.damaged: dict[str, bytes] = {}
        """Bytes that come instead, with the checksum of the right ones."""
        self.halved: set[str] = set()
        """Quads of which half comes, with no checksum at all."""
        self.cut: set[str] = set()
        """Quads whose transfer breaks in the middle, once."""
        self.expired: set[str] = set()
        """Quads whose address has expired before it is asked, once."""
        self.words = ""
        """What the server says besides of quads that it refuses."""
        self.clock_off_s = 0
        """Seconds by which its clock differs from ours."""
        self.twice: set[str] = set()
        """Quads that are listed twice."""
        self.limited_every = 0
        """Every n-th request for a download is answered 429."""
        self.retry_after = "90"
        self.quota = math.inf
        """Downloads that are left."""
        self.requests: list[str] = []
        self.downloads: Counter[str] = Counter()
        """How often the bytes of a quad were sent from their beginning."""
        self.resumed: list[str] = []
        self.keys_elsewhere: list[str] = []
        """Credentials that came to where the downloads are."""
        self._lock = threading.Lock()
        self._asked = 0
        server = self

        class Handler(_Handler):
            basemaps = server

        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
        self.host, self.storage = (f"http://127.0.0.1:{one.server_port}" for one in self._servers)
        self.url = f"{self.host}/basemaps/v1"
        for one in self._servers:
            threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        for one in self._servers:
            one.shutdown()
            one.server_close()

    def is_limited(self) -> bool:
        with self._lock:
            self._asked += 1
            return bool(self.limited_every) and self._asked % self.limited_every == 0

    def is_left(self) -> bool:
        with self._lock:
            self.quota -= 1
            return self.quota >= 0


def deliver(order: dict, bucket: Path, *, state: str = "success", without=(), halved=(), with_manifest=True) -> None:
    """Bring an order of quads to its end, as Planet's Orders API does."""
    (product,) = order["products"]
    order |= {"state": state, "last_message": f"Order has {state}"}
    folder = bucket / order["delivery"]["destination"].get("path_prefix", "") / order["id"]
    if state == "failed":
        return
    (folder / product["mosaic_name"]).mkdir(parents=True)
    listed = []
    for name in set(product["quad_ids"]) - set(without):
        data, path = quad_bytes(*map(int, name.split("-"))), f"{product['mosaic_name']}/{name}_quad.tif"
        digests = {"md5": hashlib.md5(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest()}
        listed.append({"path": path, "media_type": "image/tiff", "size": len(data), "digests": digests})
        (folder / path).write_bytes(data[: len(data) // 2] if name in halved else data)
    if with_manifest:
        (folder / "manifest.json").write_text(json.dumps({"name": "", "files": listed}))


class _Handler(BaseHTTPRequestHandler):
    basemaps: BasemapServer
    disable_nagle_algorithm = True  # else each of its small answers waits 40 ms
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + self.basemaps.clock_off_s)

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        server, url = self.basemaps, urlsplit(self.path)
        server.requests.append(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        if parts[0] == "storage":
            if "Authorization" in self.headers:
                server.keys_elsewhere.append(self.path)
            self._file(parts[1])
        elif self.headers.get("Authorization") != f"api-key {KEY}":
            self._send(401, {"message": "Please enter a valid API key."})
        elif parts[2:] == ["mosaics"]:
            self._mosaics(query)
        elif parts[-1] == "quads":
            self._quads(parts[3], query)
        elif parts[-1] == "full":
            self._redirect(parts[-2])
        else:
            self._send(404, {"message": "no such address"})

    def _mosaics(self, query: dict[str, str]) -> None:
        name, part, page = query.get("name__is"), query.get("name__contains", ""), int(query.get("_page", 0))
        found = [one for one in self.basemaps.mosaics if name in (None, one["name"]) and part in one["name"]]
        links = {}
        if len(found) > 3 * (page + 1):
            links["_next"] = f"{self.basemaps.url}/mosaics?name__contains={part}&_page={page + 1}&api_key={KEY}"
        self._send(200, {"_links": links, "mosaics": found[3 * page : 3 * page + 3]})

    def _quads(self, mosaic_id: str, query: dict[str, str]) -> None:
        west, south, east, north = (float(one) for one in query["bbox"].split(","))
        columns = [math.floor((lon + 180) / 360 * ACROSS) for lon in (west, east)]
        rows = [
            math.floor((math.asinh(math.tan(math.radians(lat))) / math.pi + 1) / 2 * ACROSS) for lat in (south, north)
        ]
        found = []
        for y in range(rows[0], rows[1] + 1):
            for x in range(columns[0], columns[1] + 1):
                name = f"{x}-{y}"
                if name not in self.basemaps.not_there:
                    found += [name] * (2 if name in self.basemaps.twice else 1)
        page, links = int(query.get("_page", 0)), {}
        if len(found) > _PAGE * (page + 1):
            links["_next"] = (
                f"{self.basemaps.url}/mosaics/{mosaic_id}/quads?bbox={query['bbox']}&_page={page + 1}&api_key={KEY}"
            )
        items = [
            {
                "_links": {"download": f"{self.basemaps.url}/mosaics/{mosaic_id}/quads/{name}/full?api_key={KEY}"},
                "id": name,
                "percent_covered": 100,
            }
            for name in found[_PAGE * page : _PAGE * (page + 1)]
        ]
        self._send(200, {"_links": links, "items": items})

    def _redirect(self, name: str) -> None:
        server = self.basemaps
        if server.is_limited():
            self._send(429, {"message": "Too many requests"}, {"Retry-After": server.retry_after})
        elif not server.has_contract:
            self._send(403, {"message": "The contract has ended"})
        elif name in server.refused:
            self._send(404, {"message": f"Quad {name} not found {server.words}"})
        elif not server.is_left():
            self._send(429, {"message": "You have exceeded QUOTA for basemap downloads"})
        else:
            self._send(302, {}, {"Location": f"{server.storage}/storage/{name}?signature=secret"})

    def _file(self, name: str) -> None:
        server = self.basemaps
        if name in server.expired:
            server.expired.discard(name)
            self._send(403, {"message": "Request has expired"})
            return
        right = quad_bytes(*map(int, name.split("-")))
        data = server.damaged.get(name, right[: len(right) // 2] if name in server.halved else right)
        tag, start = f'"{hashlib.md5(data).hexdigest()}"', 0
        if (wanted := self.headers.get("Range")) and self.headers.get("If-Range") == tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start:
            server.resumed.append(name)
        else:
            server.downloads[name] += 1
        self.send_response(206 if start else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(data) - start))
        if name not in server.halved:
            digest = base64.b64encode(hashlib.md5(right).digest()).decode()
            self.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={digest}")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if name in server.cut:
            server.cut.discard(name)
            self.wfile.write(data[start : (start + len(data)) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(data[start:])

    def _send(self, status: int, content: dict, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def killed_ten_times(side: int) -> None:
    """Fetch a square of quads by the command line, killed after every eleventh of them, and print what there is in the end."""
    server, west, south = BasemapServer(), 460, 1600
    names = [f"{x}-{y}" for y in range(south, south + side) for x in range(west, west + side)]
    server.refused, server.limited_every, server.retry_after = set(names[7:10]), 500, "1"
    server.damaged = {names[77]: quad_bytes(west, south)[:-4] + b"gone"}
    lat = [math.degrees(math.atan(math.sinh((2 * y / ACROSS - 1) * math.pi))) for y in (south, south + side)]
    lon = [x / ACROSS * 360 - 180 for x in (west, west + side)]
    environment = os.environ | {"PL_API_KEY": KEY}
    with tempfile.TemporaryDirectory() as folder:
        order = Path(folder, "order.yaml")
        bbox = [lon[0], lat[0], lon[1], lat[1]]
        order.write_text(
            f"name: b\nregion: {{bbox: {bbox}}}\nout: quads\nparallel: 8\nbasemap: {{mosaic: {NAME}, base_url: {server.url}}}\n"
        )
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            "from rtsx.cli import main; main()",
            "order",
            "fetch",
            str(order),
        ]
        begun = time.monotonic()
        for kill in range(1, 11):
            process = subprocess.Popen(command, env=environment)
            while process.poll() is None and len(server.downloads) < kill * len(names) // 11:
                time.sleep(0.05)
            process.kill()
            process.wait()
            print(f"killed {kill} times, {len(server.downloads)} quads sent", flush=True)
        last = subprocess.run(command, env=environment, check=False, text=True, capture_output=True)
        print(last.stdout, last.stderr, sep="\n")
        assert last.returncode == 2
        assert all(f"{name}: " in last.stderr for name in (*server.refused, *server.damaged))
        assert len(list(Path(folder, "quads").glob("*.tif"))) == len(names) - 4
        again = {name: count for name, count in server.downloads.items() if count > 1}
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            f"{time.monotonic() - begun:.0f} s, {memory:.0f} MB; {len(again)} quads were sent more than once: {again}"
        )
    server.close()


if __name__ == "__main__":
    killed_ten_times(int(sys.argv[1]))
