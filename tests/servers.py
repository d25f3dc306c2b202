"""Servers on loopback ports for tests: STAC APIs, and one that answers by a script."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pystac
import pytest

from tests.ordering.file_server import FileServer

Answer = tuple[int, bytes] | None
"""Status and body of one answer, of a redirect the address; None for a server that never answers."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def script_of(name: str) -> str:
    """A program of this environment, else a skip."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: pip install it to run this test")
    return found


def wait_until_answers(
    url: str, process: "subprocess.Popen[bytes]", *, limit_s: float = 60, refusal: int | None = None
) -> None:
    """Ask until a server answers, or refuses with this status, or fail when it has ended or taken too long."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server at {url} ended with status {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == refusal:
                return
            threading.Event().wait(0.02)
    raise RuntimeError(f"the server at {url} did not answer within {limit_s} s")


def collection_of(name: str, **fields: Any) -> dict[str, Any]:
    """The smallest valid collection."""
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [["2000-01-01T00:00:00Z", None]]}}
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": name,
        "description": name,
        "license": "other",
        "extent": extent,
        "links": [],
    } | fields


@contextmanager
def rustac_server(folder: Path, items: Sequence[Mapping[str, Any]], collections: Sequence[str]) -> Iterator[str]:
    """Address of a STAC API in memory; ready in about a tenth of a second. Files of this disk are served over HTTP."""
    rustac = script_of("rustac")
    files_server = FileServer(Path("/"))
    items = [
        {**item, "assets": {key: _over_http(one, files_server.url) for key, one in item["assets"].items()}}
        for item in items
    ]
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": list(items)}))
    for name in collections:
        (folder / f"{name}.json").write_text(json.dumps(collection_of(name)))
    files = ["items.json", *(f"{name}.json" for name in collections)]
    port = free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([rustac, "serve", *files, "-a", f"127.0.0.1:{port}"], cwd=folder, **quiet)
    try:
        wait_until_answers(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()  # SIGKILL, because it does not end on SIGTERM
        process.wait()
        files_server.close()


def _over_http(asset: Mapping[str, Any], url: str) -> Mapping[str, Any]:
    return {**asset, "href": f"{url}{asset['href']}"} if str(asset["href"]).startswith("/") else asset


@contextmanager
def pgstac_server(items: Sequence[Mapping[str, Any]], collections: Sequence[str]) -> Iterator[str]:
    """Address of the reference STAC API over PostGIS, with queries and CQL2; ready in about ten seconds."""
    uvicorn, pypgstac = script_of("uvicorn"), script_of("pypgstac")
    pytest.importorskip("stac_fastapi.pgstac")
    programs = _postgres_programs()
    as_postgres = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    port, api_port = free_port(), free_port()
    database = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres", "PGDATABASE": "postgres"}
    environment = os.environ | database | {"PGPASSWORD": "postgres", "PGSSLMODE": "disable"}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    # Not below pytest's folder, because that is closed to the user that PostgreSQL has to run as.
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rtsx-pgstac-")))
        if as_postgres:
            shutil.chown(folder, "postgres")
        data = str(folder / "data")
        _run([*as_postgres, str(programs / "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"])
        options = ["-p", str(port), "-k", str(folder), "-h", "127.0.0.1", "-F", "-c", "shared_buffers=32MB"]
        server = subprocess.Popen([*as_postgres, str(programs / "postgres"), "-D", data, *options], **quiet)
        stack.callback(_end, server, signal.SIGTERM)
        for _ in range(1000):
            if not subprocess.run([programs / "pg_isready", "-q"], env=environment).returncode:
                break
            threading.Event().wait(0.02)
        files = {"collections": [collection_of(name) for name in collections], "items": items}
        _run([pypgstac, "migrate"], environment)
        for kind, documents in files.items():
            file = folder / f"{kind}.ndjson"
            file.write_text("".join(json.dumps(document) + "\n" for document in documents))
            _run([pypgstac, "load", kind, str(file), "--method", "insert"], environment)
        app = ["stac_fastapi.pgstac.app:create_app", "--factory", "--host", "127.0.0.1", "--port", str(api_port)]
        api = subprocess.Popen([uvicorn, *app], env=environment, cwd=folder, **quiet)
        stack.callback(_end, api, signal.SIGKILL)
        url = f"http://127.0.0.1:{api_port}"
        wait_until_answers(url, api)
        yield url


def _postgres_programs() -> Path:
    """Folder of PostgreSQL's programs, else a skip; also where it lacks PostGIS."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = found[-1] if found else shutil.which("initdb")
    if initdb is None:
        pytest.skip("PostgreSQL is not installed: this test needs it with PostGIS")
    programs = Path(initdb).parent
    share = subprocess.run([programs / "pg_config", "--sharedir"], capture_output=True, text=True).stdout.strip()
    if not (Path(share) / "extension" / "postgis.control").exists():
        pytest.skip(f"PostgreSQL at {programs} has no PostGIS: install it, e.g. postgresql-15-postgis-3 of Debian")
    return programs


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")


def _end(process: "subprocess.Popen[bytes]", how: signal.Signals) -> None:
    process.send_signal(how)
    process.wait()


class ScriptedServer:
    """An HTTP server that gives the answers of a list, one after the other, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        """Answers by path; the last one is given again and again."""
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        """Method, path, headers and JSON body of each request."""
        self.released = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.asked.append((self.command, self.path, dict(self.headers), json.loads(body) if body else None))
                answers = server.answers.get(self.path) or [(404, b"no such page")]
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                if answer is None:
                    server.released.wait()  # until the test is over
                    return
                self.send_response(answer[0])
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer[1])))
                if 300 <= answer[0] < 400:
                    self.send_header("Location", answer[1].decode())
                self.end_headers()
                self.wfile.write(answer[1])

            do_GET = do_POST = _answer

            def log_message(self, *_: Any) -> None:
                """Keep quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def landing_page(self, *extensions: str) -> None:
        """Answer at the root like a STAC API with search and some of its extensions."""
        classes = ["core", "item-search", *(f"item-search#{name}" for name in extensions)]
        link = {"rel": "search", "href": f"{self.url}/search", "type": "application/geo+json", "method": "POST"}
        page = {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "scripted",
            "description": "scripted",
            "conformsTo": [f"https://api.stacspec.org/v1.0.0/{name}" for name in classes],
            "links": [link, {"rel": "self", "href": self.url}],
        }
        for path in ("/", ""):
            self.answers[path] = [(200, json.dumps(page).encode())]

    def searches(self, *answers: Answer | Mapping[str, Any]) -> None:
        """Answers to searches, in order."""
        self.answers["/search"] = [
            (200, json.dumps(answer).encode()) if isinstance(answer, Mapping) else answer for answer in answers
        ]

    def close(self) -> None:
        """Let go of whoever still waits, and stop."""
        self.released.set()
        self._http.shutdown()
        self._http.server_close()


def catalog_collections(catalog: Path) -> list[dict[str, Any]]:
    """Collections of a static catalog as a server takes them: no links; in the catalog's order."""
    return [{**one.to_dict(), "links": []} for one in pystac.Catalog.from_file(str(catalog.resolve())).get_children()]
