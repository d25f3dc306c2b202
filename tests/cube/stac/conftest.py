"""Items, and servers that hold them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest
from shapely import box
from shapely.geometry import mapping

from rtsx.cube.rasterio import RasterHeader
from tests.servers import ScriptedServer, rustac_server

Server = Callable[..., str]


@pytest.fixture(scope="session")
def stac_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a STAC API that holds items: ``stac_server(items, collections) -> url``."""
    with ExitStack() as stack:

        def start(items: list[dict[str, Any]], collections: tuple[str, ...]) -> str:
            server: AbstractContextManager[str] = rustac_server(tmp_path_factory.mktemp("stac"), items, collections)
            return stack.enter_context(server)

        yield start


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A server that answers by a script."""
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture
def make_item() -> Callable[..., dict[str, Any]]:
    """An item with one described band ``red`` in EPSG:4326 at a place."""

    def make(
        name: str = "a",
        *,
        at: tuple[float, float] = (10.0, 60.0),
        day: str = "2023-07-14T10:00:00Z",
        collection: str | None = "scenes",
        properties: dict[str, Any] | None = None,
        assets: dict[str, Any] | None = None,
        size: float = 1.0,
    ) -> dict[str, Any]:
        west, south = at
        outline = box(west, south, west + size, south + size)
        red = {
            "href": f"https://example.org/{name}/red.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "proj:transform": [size / 100, 0, west, 0, -size / 100, south + size],
            "proj:shape": [100, 100],
            "eo:bands": [{"name": "B1", "common_name": "red"}],
            "raster:bands": [{"data_type": "uint16", "nodata": 0}],
        }
        item: dict[str, Any] = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": [],
            "id": name,
            "geometry": mapping(outline),
            "bbox": list(outline.bounds),
            "properties": {"datetime": day, "proj:epsg": 4326, **(properties or {})},
            "links": [],
            "assets": {"red": red} if assets is None else assets,
        }
        return item if collection is None else item | {"collection": collection}

    return make


@pytest.fixture
def no_header() -> Callable[[str], RasterHeader]:
    """A header reader for tests in which no header may be read."""

    def read(path: str) -> RasterHeader:
        raise AssertionError(f"the header of {path} was read")

    return read
