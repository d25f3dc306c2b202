"""Catalogs: valid documents, links and hrefs that lead somewhere, metadata that the files' headers confirm."""

import datetime as dt
import json
import shutil
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.view import ViewExtension
from scipy import ndimage

from rtsx.synthetic.scene import UDM2_BANDS
from rtsx.synthetic.stac import catalog_items, collections, document_paths, tcvis_item, write_catalog
from tests.servers import catalog_collections


@pytest.fixture(scope="module")
def items(region):
    return catalog_items(region.catalog)


def of(items, collection):
    found = [item for item in items if item["collection"] == collection]
    assert found
    return found


def test_every_document_is_valid(region, items, stac_errors):
    paths = sorted(region.catalog.parent.rglob("*.json"))
    documents = [json.loads(path.read_text()) for path in paths if path != region.description]
    assert len(documents) == 1 + 3 + 4 + len(region.dem) + 1
    for document in [*documents, *items, *catalog_collections(region.catalog)]:
        assert stac_errors(document) == []
    del documents[-1]["links"]
    assert stac_errors(documents[-1]) != []  # the validator does look


def test_pystac_walks_the_catalog(region):
    catalog = pystac.Catalog.from_file(str(region.catalog))
    walked = list(catalog.get_items(recursive=True))
    assert [item.id for item in walked] == [item["id"] for item in catalog_items(region.catalog)]
    assert {item.collection_id for item in walked} == {"planetscope", "arcticdem-mosaic-10m", "tcvis"}
    for item in walked:
        assert item.get_root() is catalog
        assert item.get_parent().id == item.collection_id
        for asset in item.assets.values():
            assert Path(asset.get_absolute_href()).is_file()
    scene = walked[0]
    assert ProjectionExtension.ext(scene).code == region.spec.scene_specs[0].crs
    assert ViewExtension.ext(scene).sun_elevation > 30


def test_hrefs_are_relative_on_disk_and_absolute_for_a_server(region, items, tmp_path):
    for path in region.catalog.parent.rglob("*.json"):
        assert str(region.catalog.parent) not in path.read_text()
    for item in items:
        assert [(link["rel"], Path(link["href"]).is_file()) for link in item["links"]] == [("collection", True)]
        for asset in item["assets"].values():
            assert Path(asset["href"]).is_absolute()
            with rasterio.open(asset["href"]) as raster:
                assert raster.count == len(asset["bands"])
    moved = shutil.copytree(region.catalog.parent, tmp_path / "moved")
    for asset in pystac.Item.from_file(str(next(moved.glob("planetscope/*/*.json")))).assets.values():
        assert Path(asset.get_absolute_href()).is_relative_to(moved)


def test_metadata_is_what_the_headers_say(items):
    for item in items:
        said = item["properties"]
        for asset in item["assets"].values():
            with rasterio.open(asset["href"]) as raster:
                assert said["proj:code"] == f"EPSG:{raster.crs.to_epsg()}"
                assert Affine(*said["proj:transform"]) == raster.transform
                assert tuple(said["proj:shape"]) == raster.shape
                assert asset["type"].endswith("cloud-optimized")
                for number, band in enumerate(asset["bands"], start=1):
                    assert band["name"] == raster.descriptions[number - 1]
                    assert band["data_type"] == raster.dtypes[number - 1]
                    assert band.get("nodata") == raster.nodata
                    assert band.get("raster:scale", 1) == raster.scales[number - 1]
                    assert band.get("raster:offset", 0) == raster.offsets[number - 1]


def test_scenes_are_named_and_timed_as_planets(region, items):
    scenes = of(items, "planetscope")
    for item, spec in zip(scenes, region.spec.scene_specs, strict=True):
        assert item["id"] == spec.image_id
        assert set(item["assets"]) == {"ortho_analytic_4b_sr", "ortho_udm2"}
        optical, udm2 = item["assets"].values()
        assert [band["eo:common_name"] for band in optical["bands"]] == ["blue", "green", "red", "nir"]
        assert tuple(band["name"] for band in udm2["bands"]) == UDM2_BANDS
        assert dt.datetime.fromisoformat(item["properties"]["datetime"]).strftime("%Y%m%d_%H%M%S") == spec.image_id[:15]
        with rasterio.open(udm2["href"]) as raster:
            mask = raster.read().astype(bool)
        cloud, seen = mask[UDM2_BANDS.index("cloud")], ~mask[UDM2_BANDS.index("unusable")]
        assert item["properties"]["eo:cloud_cover"] == pytest.approx(100 * cloud.sum() / seen.sum(), abs=0.01)
    assert {item["properties"]["proj:code"] for item in scenes} == {"EPSG:32608", "EPSG:32609"}


def test_elevation_and_trends_have_no_single_time(items):
    for item in [*of(items, "arcticdem-mosaic-10m"), *of(items, "tcvis")]:
        assert item["properties"]["datetime"] is None
        assert item["properties"]["start_datetime"] < item["properties"]["end_datetime"]


def test_footprints_hold_all_data_and_little_else(items):
    """Every pixel that is not nodata, with its corners; the rest of the raster is outside of a scene's footprint."""
    for item in items:
        asset = next(iter(item["assets"].values()))
        with rasterio.open(asset["href"]) as raster:
            seen = raster.read(1) != raster.nodata
            rows, columns = np.nonzero(seen & ~ndimage.binary_erosion(seen))  # those at an edge
            to_lonlat = Transformer.from_crs(raster.crs, "EPSG:4326", always_xy=True)
            transform = raster.transform
        corners = [
            to_lonlat.transform(transform.c + transform.a * (columns + i), transform.f + transform.e * (rows + j))
            for i in (0, 1)
            for j in (0, 1)
        ]
        footprint = shapely.geometry.shape(item["geometry"])
        assert footprint.is_valid
        assert footprint.exterior.is_ccw
        for x, y in corners:
            assert shapely.covers(footprint.buffer(1e-6), shapely.points(x, y)).all()
        assert tuple(item["bbox"]) == pytest.approx(footprint.bounds)
        if item["collection"] == "planetscope":
            x, y = to_lonlat.transform(*shapely.get_coordinates(footprint.exterior).T, direction="INVERSE")
            outline = shapely.Polygon(np.stack([x, y], axis=1))
            assert outline.area / 9 == pytest.approx(seen.sum(), rel=0.03)
            assert seen.sum() < 0.9 * seen.size


def test_collections_span_their_items(region, items):
    for collection in catalog_collections(region.catalog):
        members = of(items, collection["id"])
        west, south, east, north = collection["extent"]["spatial"]["bbox"][0]
        edges = np.array([item["bbox"] for item in members])
        assert (west, south) == tuple(edges[:, :2].min(axis=0))
        assert (east, north) == tuple(edges[:, 2:].max(axis=0))
        start, end = collection["extent"]["temporal"]["interval"][0]
        times = [
            item["properties"]["datetime"] or item["properties"][key]
            for item in members
            for key in ("start_datetime", "end_datetime")
        ]
        assert (start, end) == (min(times), max(times))


def test_every_document_is_foretold(region, items):
    folder = region.catalog.parent
    foretold = document_paths(folder, [(item["collection"], item["id"]) for item in items])
    assert foretold[0] == region.catalog
    assert set(foretold) == set(folder.rglob("*.json")) - {region.description}


def test_a_catalog_describes_files_that_lie_elsewhere(region, tmp_path):
    catalog = write_catalog(
        tmp_path / "catalog",
        [tcvis_item(region.tcvis, name="trends")],
        collections=collections(dem_resolution_m=10),
        name="apart",
        description="Files beside it.",
    )
    item = pystac.Item.from_file(str(catalog.parent / "tcvis" / "trends" / "trends.json"))
    assert Path(item.assets["tcvis"].get_absolute_href()).resolve() == region.tcvis.resolve()
    assert [child.id for child in pystac.Catalog.from_file(str(catalog)).get_children()] == ["tcvis"]
