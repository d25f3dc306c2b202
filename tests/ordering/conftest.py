"""A catalog of small scenes on disk, and a web server that cuts and forgets."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_bounds
from shapely.geometry import mapping

from rtsx.ordering.provider import checksum_of
from tests.ordering.file_server import FileServer
from tests.ordering.scenes import random_scenes


@pytest.fixture
def make_catalog(tmp_path: Path) -> Callable[..., Path]:
    """Write a static catalog: ``make_catalog(count) -> folder``; assets `image` (described) and `notes.json`."""

    def make(count: int = 5, *, folder: Path | None = None, href: str = "") -> Path:
        folder = folder or tmp_path / "provider"
        links = []
        for scene in random_scenes(count, seed=1):
            place = folder / scene.id
            place.mkdir(parents=True)
            pixels = np.random.default_rng(int(scene.id[1:])).integers(1, 2000, (2, 200, 300)).astype("uint16")
            profile = {"driver": "GTiff", "width": 300, "height": 200, "count": 2, "dtype": "uint16", "nodata": 0}
            transform = from_bounds(*scene.footprint.bounds, 300, 200)
            with rasterio.open(place / "image.tif", "w", crs="EPSG:4326", transform=transform, **profile) as file:
                file.write(pixels)
                file.descriptions = ("red", "nir")
            (place / "notes.json").write_text(json.dumps({"scene": scene.id}))
            image = {
                "href": f"{href}/{scene.id}/image.tif" if href else "./image.tif",
                "type": "image/tiff; application=geotiff",
                "file:size": (place / "image.tif").stat().st_size,
                "file:checksum": checksum_of(place / "image.tif").multihash,
            }
            item = {
                "type": "Feature",
                "stac_version": "1.0.0",
                "stac_extensions": ["https://stac-extensions.github.io/eo/v1.1.0/schema.json"],
                "id": scene.id,
                "collection": "there",
                "geometry": mapping(scene.footprint),
                "bbox": list(scene.footprint.bounds),
                "properties": {"datetime": scene.time.isoformat(), "eo:cloud_cover": scene.cloud_cover or 0.0},
                "links": [
                    {"rel": "self", "href": "elsewhere"},
                    {"rel": "license", "href": "https://example.org/license"},
                ],
                "assets": {
                    "image": image,
                    "notes": {"href": f"{href}/{scene.id}/notes.json" if href else "./notes.json"},
                },
            }
            (place / f"{scene.id}.json").write_text(json.dumps(item))
            links.append({"rel": "item", "href": f"./{scene.id}/{scene.id}.json"})
        catalog = {"type": "Catalog", "stac_version": "1.0.0", "id": "there", "description": "there", "links": links}
        (folder / "catalog.json").write_text(json.dumps(catalog))
        return folder

    return make


@pytest.fixture
def file_server(tmp_path: Path) -> Iterator[FileServer]:
    """A web server over ``tmp_path / "web"``."""
    (tmp_path / "web").mkdir()
    server = FileServer(tmp_path / "web")
    yield server
    server.close()
