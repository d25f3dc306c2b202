"""The package of a year: tiles that are the map, a second call that writes nothing, one that was killed, and what is refused."""

import base64
import hashlib
import json
import re
import shutil
import uuid
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import fsspec
import geopandas
import jsonschema
import morecantile
import numpy as np
import pandas as pd
import PIL.Image
import pyarrow.parquet as pq
import pyogrio
import pystac
import pytest
import rasterio
import referencing
from affine import Affine
from pyproj import Transformer
from pystac.validation.local_validator import get_local_schema_cache
from rasterio.warp import transform_bounds
from rio_cogeo import cog_validate
from stac_geoparquet.arrow import stac_table_to_items

from rtsx.campaign import Campaign
from rtsx.campaign.drift import Acceptance, DriftCheck, compare
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.plan import CampaignPlan, write_plan
from rtsx.campaign.products.coarse import CoarseMap
from rtsx.campaign.products.deliver import Delivered
from rtsx.campaign.products.delivery_plan import DeliveryChoices, DeliveryPlan, YearHistory
from rtsx.campaign.products.fact_sheet import Facts
from rtsx.campaign.products.inventories import ARTS, DARTS_LEVEL1, DARTS_LEVEL2
from rtsx.campaign.products.package import Package
from rtsx.campaign.products.rasters import CellTiling, MapReader, MatrixTiling
from rtsx.campaign.products.styles import map_layers
from rtsx.campaign.products.tables import cell_states, partition_of
from rtsx.campaign.records import InputVersion
from rtsx.cli import main
from rtsx.errors import CampaignError, OutputExistsError, OutputNotWritableError, RtsxError
from rtsx.evaluation import assess_accuracy
from rtsx.grid import Grid
from rtsx.grid.grid import Cell
from rtsx.labels import standardise_labels
from rtsx.model.metadata import LayerDistribution
from rtsx.storage.object_store import LocalObjects
from rtsx.storage.stac import PROJECTION, RASTER
from tests.campaign.collect.finished import LEFT, TOP, Output, Pixels, make_pixels, masked, plan_of
from tests.campaign.conftest import S3
from tests.campaign.products.in_qgis import open_in_qgis
from tests.meanwhile import Meanwhile

SET = morecantile.tms.get("WebMercatorQuad")
ZOOM = 12
SIZE = SET.matrix(0).cellSize / 2**ZOOM
CORNER = SET.xy_bounds(0, 0, 0)
ARCHIVED = Grid("EPSG:3857", SIZE, cell_size=64, origin=(CORNER.left + 64 * 1000 * SIZE, CORNER.top - 64 * 1000 * SIZE))
"""Pixels of zoom 12 of WebMercatorQuad, near 82 degrees north."""
LAST = (TOP + 1, LEFT + 2)
LAST_OF_TWO = (TOP, LEFT + 1)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def changed(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


class Finished:
    """A year whose cells are done, but for some."""

    def __init__(self, folder: Path, plan: CampaignPlan, *, without: Any = ()) -> None:
        self.plan, self.pixels = plan, make_pixels(plan, seed=4, smooth=3.0, threshold=0.2)
        # A corner that nobody saw, so that there are files without a pixel.
        for name, array in self.pixels.items():
            array[:64, :64] = False if name == "valid" else 255
        self.output = Output(plan, folder / "out")
        self.output.finish(self.pixels, [cell for cell in plan.cells if cell not in without])
        self.campaign = Campaign(plan=plan, output=str(folder / "out"))

    @property
    def map(self) -> Pixels:
        return masked(self.pixels, self.plan, self.plan.cells)


@pytest.fixture(scope="module")
def polar(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(tmp_path_factory.mktemp("polar"), plan_of(2, 3, cell=64))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(tmp_path_factory.mktemp("small"), plan_of(1, 2, cell=64))


@pytest.fixture(scope="module")
def agreeing(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    plan = plan_of(2, 3, cell=64, grid=ARCHIVED, classes=("a", "b"))
    return Finished(tmp_path_factory.mktemp("agreeing"), plan)


OPTIONS: dict[str, Any] = {
    "license": "CC-BY-4.0",
    "providers": ["We=https://example.org", "They"],
    "expected_area": True,
}


@pytest.fixture(scope="module")
def package(polar: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Delivered]:
    """A package that is only looked at."""
    to = tmp_path_factory.mktemp("package") / "to"
    return to, polar.campaign.deliver(to, **OPTIONS)


@pytest.fixture(scope="module")
def packages(
    polar: Finished, package: tuple[Path, Delivered], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Packages of both kinds of tiles, and how they were asked for."""
    folder = tmp_path_factory.mktemp("tiles")
    sample = geopandas.GeoDataFrame(
        {"sample_id": [f"s{number}" for number in range(20)], "design": "ground", "stratum": ["in"] * 10 + ["out"] * 10,
         "region": "", "mapped": [True] * 10 + [False] * 10, "stratum_size": [2e6] * 10 + [50e6] * 10,
         "inclusion_probability": 1e-6, "verdict": ["target"] * 8 + ["other"] * 12},
        geometry=geopandas.points_from_xy(range(20), range(20)),
    )  # fmt: skip
    (folder / "accuracy.json").write_text(assess_accuracy(sample).to_json())
    options: dict[str, Any] = {
        "tiles": "WebMercatorQuad",
        "zoom": 9,
        "tile_zoom": 9,
        "names": "{col}_{row}",
        "outlines": False,
    }
    options["expected_area"] = True
    options["accuracy"] = folder / "accuracy.json"
    polar.campaign.deliver(folder / "to", **options)
    return {"cells": (package[0], OPTIONS), "tiles": (folder / "to", options)}


def test_cells_are_the_map_and_checksums_are_those_of_all_files(
    polar: Finished, package: tuple[Path, Delivered]
) -> None:
    to, made = package
    found = files(to)
    for name in ("probability", "binary"):
        for iy, ix in polar.plan.cells:
            key = f"{name}/r{iy:03d}c{ix:04d}.tif"
            expected = polar.map[name][polar.plan.region((iy, ix))]
            if (expected == 255).all():
                assert key not in found
                continue
            with rasterio.open(to / key) as file:
                assert np.array_equal(file.read(1), expected)
                assert file.transform.almost_equals(polar.plan.grid[iy, ix].geobox.affine)
                assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    sums = dict(line.split("  ")[::-1] for line in found.pop("SHA256SUMS").decode().splitlines())
    assert sums == {key: hashlib.sha256(content).hexdigest() for key, content in found.items()}
    assert made.n_rasters == 5
    assert set(made.rewritten) == {*found, "SHA256SUMS"}


def test_vectors_and_documents(polar: Finished, package: tuple[Path, Delivered]) -> None:
    to, made = package
    outlines = polar.campaign.outlines()
    for name in ("footprints.gpkg", "footprints_centroids.gpkg"):
        table = geopandas.read_file(to / name)
        assert sorted(table["footprint_id"]) == sorted(outlines["footprint_id"])
        assert set(table.geom_type) == {"MultiPolygon" if "centroids" not in name else "Point"}
        assert table.crs == outlines.crs
    table = geopandas.read_parquet(to / "footprints.parquet")
    assert len(table) == made.n_footprints == len(outlines) > 5
    columns = ["footprint_id", "area_m2", "geometry"]
    pd.testing.assert_frame_equal(
        table[columns].sort_values("footprint_id", ignore_index=True),
        outlines[columns].sort_values("footprint_id", ignore_index=True),
        check_dtype=False,
    )
    file = pq.ParquetFile(to / "footprints.parquet")
    assert file.num_row_groups == 2  # a partition each, of which one is in memory
    geo = json.loads(file.metadata.metadata[b"geo"])["columns"]["geometry"]
    assert np.allclose(geo["bbox"], outlines.total_bounds)
    assert set(geo["geometry_types"]) == set(outlines.geom_type)
    west, _, east, _ = outlines.total_bounds
    assert (
        0
        < len(geopandas.read_parquet(to / "footprints.parquet", bbox=(west, -1e9, (west + east) / 2, 1e9)))
        < len(table)
    )
    assert np.isclose(pd.read_csv(to / "footprints.csv")["area_m2"].sum(), outlines["area_m2"].sum())
    resources = [(uri, referencing.Resource.from_contents(one)) for uri, one in get_local_schema_cache().items()]
    schema = {"$ref": "https://schemas.stacspec.org/v1.1.0/collection-spec/json-schema/collection.json"}
    validator = jsonschema.Draft7Validator(schema, registry=referencing.Registry().with_resources(resources))
    assert [one.message for one in validator.iter_errors(json.loads((to / "collection.json").read_bytes()))] == []
    collection = pystac.Collection.from_file(str(to / "collection.json"))
    assert collection.license == "CC-BY-4.0"
    assert collection.providers is not None
    assert collection.providers[0].url == "https://example.org"
    assert all((to / one.href).is_file() for one in collection.assets.values())
    provenance = json.loads((to / "provenance.json").read_text())
    assert provenance["package"]["plan"] == polar.plan.digest
    for page in ("fact_sheet.md", "fact_sheet.html"):
        assert f"{outlines['area_m2'].sum() / 1e6:,.3f}" in (to / page).read_text()
    for page in ("fact_sheet.md", "collection.json"):
        assert "on EPSG:3413 at 40 m per pixel" in (to / page).read_text()


def test_the_map_at_a_glance(polar: Finished, package: tuple[Path, Delivered]) -> None:
    to, _ = package
    probability = np.where(polar.map["probability"] == 255, -1, polar.map["probability"].astype(int))
    greatest = probability.reshape(64, 2, 96, 2).max(axis=(1, 3))
    with rasterio.open(to / "overview" / "greatest_probability.tif") as file:
        assert np.array_equal(file.read(1, masked=True).filled(255), np.where(greatest < 0, 255, greatest))
        assert (file.bounds, file.scales) == (tuple(polar.plan.geobox.boundingbox), (0.01,))
        assert (file.colormap(1)[0], file.colormap(1)[100]) == ((244, 244, 240, 255), (128, 0, 38, 255))
    with PIL.Image.open(to / "thumbnail.png") as picture:
        alpha = np.asarray(picture)[..., 3]
    assert set(alpha.ravel()) == {0, 255}
    assert np.array_equal(alpha == 0, greatest < 0)
    assert base64.b64encode((to / "thumbnail.png").read_bytes()).decode() in (to / "fact_sheet.html").read_text()
    outlines = polar.campaign.outlines().to_crs("EPSG:6931")
    for name, total in (("density_count", len(outlines)), ("density_area_km2", outlines["area_m2"].sum() / 1e6)):
        with rasterio.open(to / "overview" / f"{name}.tif") as file:
            assert (str(file.crs), file.res, file.nodata) == ("EPSG:6931", (10_000, 10_000), -1)
            assert np.isclose(file.read(1, masked=True).sum(), total)
            points = outlines.to_crs(polar.plan.grid.crs).centroid.to_crs(file.crs)
            assert all(value[0] > 0 for value in file.sample(zip(points.x, points.y, strict=True)))


def test_coarse_pixels_of_what_has_not_changed_are_taken_again(
    polar: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = cell_states(polar.output.ledger.marks(), polar.output.layout)
    mapped = [cell for cell, state in states.items() if not state.is_empty]
    reader = MapReader.of(polar.campaign.output, polar.plan, "probability", options={}, finished=mapped)
    coarse = CoarseMap(reader=reader, states=states)
    before = coarse.encode(None, {})
    part, *others = coarse.sources
    assert others
    read: list[Any] = []
    monkeypatch.setattr(MapReader, "read", lambda self, y, x: read.append((y, x)) or np.zeros((1, 64, 64), np.uint8))
    with rasterio.MemoryFile(coarse.encode(before, coarse.sources | {part: "other"})) as memory, memory.open() as file:
        pixels = file.read(1)
    assert len(read) == sum(partition_of(cell) == part for cell in mapped)
    with rasterio.MemoryFile(before) as memory, memory.open() as file:
        kept = np.ones(pixels.shape, bool)
        for y, x in read:
            kept[y.start // 2 : y.stop // 2, x.start // 2 : x.stop // 2] = False
        assert np.array_equal(pixels[kept], file.read(1)[kept])
        assert not pixels[~kept].any()


@pytest.mark.parametrize("way", ["cells", "tiles"])
def test_a_project_opens_all_layers_wherever_it_lies(
    packages: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path, way: str
) -> None:
    to = tmp_path / "moved"
    shutil.copytree(packages[way][0], to)
    with zipfile.ZipFile(to / "map.qgz") as archive:
        project = ET.fromstring(archive.read("map.qgs"))
    layers = {layer.findtext("id"): layer for layer in project.iter("maplayer")}
    assert list(layers) == [node.get("id") for node in project.iter("layer-tree-layer")]
    assert all(len(str(identity)) > 10 for identity in layers)  # shorter ones QGIS takes for none
    for layer in layers.values():
        path, _, options = str(layer.findtext("datasource")).partition("|")
        file = to / path
        assert (path.startswith("./"), file.is_file()) == (True, True)
        style = ET.parse(file.with_suffix(".qml")).getroot()
        drawn = "rasterrenderer" if layer.get("type") == "raster" else "renderer-v2"
        (inside,), (beside,) = layer.iter(drawn), style.iter(drawn)
        assert ET.tostring(inside).split() == ET.tostring(beside).split()
        assert ET.parse(file.with_suffix(".sld")).getroot().tag.endswith("StyledLayerDescriptor")
        if layer.get("type") == "vector":
            assert options.removeprefix("layername=") in pyogrio.list_layers(file)[:, 0]
            continue
        with rasterio.open(file) as raster:
            assert str(raster.crs) == layer.findtext("srs/spatialrefsys/authid")
    for name in ("probability", "binary"):
        with rasterio.open(to / f"{name}.vrt") as whole:
            for path in (to / name).rglob("*.tif"):
                with rasterio.open(path) as one:
                    assert np.array_equal(whole.read(window=whole.window(*one.bounds)), one.read())
                    assert whole.scales == one.scales


@pytest.mark.parametrize("way", ["cells", "tiles"])
def test_qgis_opens_the_project(
    packages: dict[str, tuple[Path, dict[str, Any]]], polar: Finished, tmp_path: Path, way: str
) -> None:
    layers = open_in_qgis(packages[way][0], tmp_path / "map.png")
    assert len(layers) == (9 if way == "cells" else 5)
    assert all(one["valid"] == [True] * 3 for one in layers.values()), layers
    assert [layers[name]["crs"] for name in ("Probability", "Greatest probability")] == [
        "EPSG:3413" if way == "cells" else "EPSG:3857",
        "EPSG:3413",
    ]
    for name, one in layers.items():
        outlined = name.startswith(("Outlines", "Centroids"))
        assert one["renderers"] == ["graduatedSymbol" if outlined else "singlebandpseudocolor"] * 2
        assert "none" not in one["colours"]
        assert sum(one["colours"].values()) == (len(polar.campaign.outlines()) if outlined else 0)
    with PIL.Image.open(tmp_path / "map.png") as picture:
        seen = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    valid = (polar.map["probability"] != 255).mean()
    assert (seen != 255).any(axis=1).mean() == pytest.approx(valid, abs=0.05)


def dated(made: Finished, images: dict[Any, list[str]]) -> None:
    """Cells whose marks state images of a source."""
    for mark in list(made.output.ledger.marks()):
        inputs = tuple(InputVersion("planet", one, "1") for one in images[mark.cell])
        inputs += (InputVersion("arcticdem", "39_12_2m_v4.1", "1"),)
        marked = replace(mark, inputs=inputs)
        made.output.objects.put(made.output.layout.mark(mark.cell), marked.to_json().encode())


def test_fields_of_inventories(tmp_path: Path) -> None:
    made = Finished(tmp_path, plan_of(1, 3, cell=64))
    empty, left, right = made.plan.cells
    two = ["p/20240715_213456_45_2421", "p/20240801_221500_ff_2440"]
    dated(made, {empty: [], left: two[:1], right: two})
    options: dict[str, Any] = {"fields": ("arts", "darts"), "providers": ["Some Lab"]}
    made.campaign.deliver(tmp_path / "to", arts={"RegionName": "Ellesmere Island, Canada"}, **options)
    outlines = made.campaign.outlines().set_index("footprint_id")

    arts = geopandas.read_file(tmp_path / "to" / "arts.geojson")
    assert list(arts.columns) == [*ARTS, "geometry"]
    assert (arts.crs, set(arts["TrainClass"]), set(arts["LabelType"])) == ("EPSG:3413", {"Positive"}, {"Polygon"})
    days = {"2024-07-15": two[0][2:], "2024-07-15,2024-08-01": None}
    assert set(zip(arts["BaseMapDate"], arts["BaseMapID"], strict=True)) == set(days.items())
    assert set(arts["BaseMapSource"]) == {"planet"}
    first = arts.iloc[0]
    stated = f"{first['CentroidLat']}{first['CentroidLon']}Ellesmere Island, CanadaSome Lab{first['BaseMapDate']}planet40PositivePolygon"
    assert first["UID"] == str(uuid.uuid5(uuid.NAMESPACE_DNS, stated))
    assert arts["UID"].is_unique
    assert np.isclose(arts["Area"].sum(), outlines["area_m2"].sum())
    read = standardise_labels(tmp_path / "to" / "arts.geojson").labels
    assert sorted(read["source_id"]) == sorted(arts["UID"])
    assert set(read["class_name"]) == {"rts"}

    level1, level2 = (geopandas.read_file(tmp_path / "to" / f"darts_level{level}.gpkg") for level in (1, 2))
    assert (list(level1.columns), list(level2.columns)) == ([*DARTS_LEVEL1, "geometry"], [*DARTS_LEVEL2, "geometry"])
    assert level1.crs == level2.crs == "EPSG:4326"
    assert list(level2["id"]) == list(range(1, len(outlines) + 1))
    assert np.array_equal(level2["pval_mean"], outlines["prob_mean"])
    row = level1.iloc[0]
    assert [row[name] for name in ("image_id", "take_id", "date", "year", "satellite")] == [
        "20240715_213456_45_2421", "213456", "2024-07-15", 2024, "2421",
    ]  # fmt: skip
    assert 0 < len(level1) < len(level2)

    before = changed(tmp_path / "to")
    for said in ({"arts": {"RegionName": "Ellesmere Island, Canada"}, **options}, {}):
        again = made.campaign.deliver(tmp_path / "to", **said)
        assert (again.rewritten, changed(tmp_path / "to")) == ((), before)
    _of_earlier_version(tmp_path / "to")
    with pytest.raises(CampaignError, match=r"did not keep .* --arts RegionName=NAME"):
        made.campaign.deliver(tmp_path / "to")
    again = made.campaign.deliver(tmp_path / "to", arts={"RegionName": "Ellesmere Island, Canada"})
    assert again.rewritten == ("SHA256SUMS", "provenance.json")
    without = made.campaign.deliver(tmp_path / "to", fields=())
    assert without.removed == ("arts.geojson", "darts_level1.gpkg", "darts_level2.gpkg")


@pytest.mark.parametrize("way", ["cells", "tiles"])
def test_items_and_rasters_are_what_others_take_for_such(
    polar: Finished, packages: dict[str, tuple[Path, dict[str, Any]]], way: str
) -> None:
    to, _ = packages[way]
    rasters = sorted(to.rglob("*.tif"))
    for path in rasters:
        assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    # Nothing else has pixels: no image that the map was made of is in it.
    assert {path.relative_to(to).parts[0] for path in rasters} == {"probability", "binary", "overview"}
    assert {path.name for path in to.rglob("*") if path.suffix in (".png", ".jpg", ".vrt", ".jp2", ".zarr", ".nc")} == {
        "thumbnail.png", "probability.vrt", "binary.vrt",
    }  # fmt: skip
    collection = json.loads((to / "collection.json").read_bytes())
    assert collection["assets"]["items.parquet"]["roles"] == ["collection-mirror"]
    assert collection["assets"]["thumbnail.png"]["roles"] == ["thumbnail"]
    assert collection["stac_extensions"] == [PROJECTION, RASTER]
    assert collection["summaries"]["proj:code"] == ["EPSG:3413" if way == "cells" else "EPSG:3857"]
    items = list(stac_table_to_items(pq.read_table(to / "items.parquet")))
    resources = [(uri, referencing.Resource.from_contents(one)) for uri, one in get_local_schema_cache().items()]
    schema = {"$ref": "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"}
    validator = jsonschema.Draft7Validator(schema, registry=referencing.Registry().with_resources(resources))
    seen = set()
    for item in items:
        assert [one.message for one in validator.iter_errors(item)] == []
        assert item["collection"] == collection["id"]
        assert set(item["assets"]) == set(collection["item_assets"]) == {"probability", "binary"}
        for one in item["assets"].values():
            seen.add(to / one["href"])
            with rasterio.open(to / one["href"]) as file:
                assert item["properties"]["proj:code"] == str(file.crs)
                assert list(file.shape) == item["properties"]["proj:shape"]
                assert file.transform.almost_equals(Affine(*item["properties"]["proj:transform"]))
                west, south, east, north = transform_bounds(file.crs, "EPSG:4326", *file.bounds)
                assert np.allclose(item["bbox"], (west, south, east, north), atol=1e-3)
    assert seen == {path for path in rasters if path.parent.name != "overview"}
    assert all(re.fullmatch(r"r\d+c-?\d+" if way == "cells" else r"\d+_\d+", path.stem) for path in seen)


def test_the_fact_sheet_states_what_a_review_has_estimated(packages: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    to, options = packages["tiles"]
    (area,) = (one for one in json.loads(options["accuracy"].read_text())["estimates"] if one["measure"] == "area_m2")
    told = " | ".join(f"{area[name] / 1e6:,.3f}" for name in ("value", "low", "high"))
    assert f"| all | area, km² | {told} |" in (to / "fact_sheet.md").read_text()
    assert "was estimated from a reviewed sample" in (to / "CAVEATS.md").read_text()


def test_damage_is_mended(small: Finished, tmp_path: Path) -> None:
    small.campaign.deliver(tmp_path, outlines=False)
    before = files(tmp_path)
    tile = min(key for key in before if key.startswith("probability/"))
    tiles = min(key for key in before if key.startswith("records/r"))
    for key, record in ((tile, tiles), ("overview/greatest_probability.tif", "records/greatest_probability.json")):
        for damaged, content, options in (
            (key, before[key][:-100], {}),
            (key, before[key][:-1] + b"?", {"verify": True}),
            (record, json.dumps(dict.fromkeys(json.loads(before[record]), 1)).encode(), {}),
        ):
            (tmp_path / damaged).write_bytes(content)
            made = small.campaign.deliver(tmp_path, outlines=False, **options)
            assert set(made.rewritten) <= {damaged, record, "SHA256SUMS"}
            assert files(tmp_path) == before


def test_a_damaged_map_is_named_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtsx.cube.write._SMALLEST_TOP_LEVEL", 64)
    made = Finished(tmp_path, plan_of(2, 2, cell=64))
    records = tmp_path / "out" / made.output.layout.products / "collected" / "overviews"

    def collect() -> None:
        shutil.rmtree(records, ignore_errors=True)
        made.campaign.collect(levels=False, tracks=False, stac=False)

    def deliver() -> None:
        made.campaign.deliver(tmp_path / "to", outlines=False)

    collect()
    damage = {
        "2x/probability": ("Remove map.zarr/2x/probability/c/0 and", [collect]),
        "probability": ("verify names its cell.*retry --cell", [collect, deliver]),
    }
    for array, (told, calls) in damage.items():
        shards = tmp_path / "out" / "map.zarr" / array / "c" / "0"
        for path in (one for one in shards.rglob("*") if one.is_file()):
            path.write_bytes(b"?" * path.stat().st_size)
        for call in calls:
            with pytest.raises(CampaignError, match=rf"map.zarr/{array} is damaged in rows .*{told}"):
                call()
        if "/" in array:
            shutil.rmtree(shards)
            collect()


def test_a_plainer_call_changes_nothing(small: Finished, tmp_path: Path) -> None:
    options = {"license": "CC-BY-4.0", "providers": ["A=https://a.org"], "expected_area": True}
    small.campaign.deliver(tmp_path, outlines=False, **options)
    before = changed(tmp_path)
    assert small.campaign.deliver(tmp_path, outlines=False).rewritten == ()
    assert changed(tmp_path) == before
    _of_earlier_version(tmp_path)
    assert small.campaign.deliver(tmp_path, outlines=False).rewritten == ("SHA256SUMS", "provenance.json")
    small.campaign.deliver(tmp_path, outlines=False, license="other", providers=(), expected_area=False)
    assert json.loads((tmp_path / "collection.json").read_bytes())["license"] == "other"
    assert not (tmp_path / "overview" / "expected_area_m2.tif").exists()
    estimates = {"estimates": [{"measure": "precision", "value": 0.9, "low": 0.8, "high": 1.0}]}
    small.campaign.deliver(tmp_path, outlines=False, accuracy=estimates)
    for prepare in (lambda _: None, _of_earlier_version):
        prepare(tmp_path)
        with pytest.raises(CampaignError, match="delivered with --accuracy, and this call has none"):
            small.campaign.deliver(tmp_path, outlines=False)


def _of_earlier_version(package: Path) -> None:
    """Take away what versions before did not write."""
    path = package / "provenance.json"
    document = json.loads(path.read_bytes())
    del document["choices"]
    path.write_text(json.dumps(document))


def test_after_a_stop_a_plainer_call_has_the_choices_of_the_one_that_was_stopped(
    small: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for chosen in ("CC-BY-4.0", "CC0-1.0"):  # of a new package, and of one that is there
        with monkeypatch.context() as patched:
            patched.setattr("rtsx.campaign.products.deliver.write_rasters", stopped)
            with pytest.raises(KeyboardInterrupt):
                small.campaign.deliver(tmp_path, outlines=False, license=chosen, providers=[chosen])
        assert not (tmp_path / "SHA256SUMS").exists()
        small.campaign.deliver(tmp_path, outlines=False)
        collection = json.loads((tmp_path / "collection.json").read_bytes())
        assert (collection["license"], collection["providers"][0]["name"]) == (chosen, chosen)


def test_images_are_counted_once_and_gaps_are_named(tmp_path: Path) -> None:
    made = Finished(tmp_path, plan_of(1, 2, cell=64))
    ids = ["/home/a/x/1.tif", "/home/a/y/1.tif", "https://b.org/2.tif?sig=se/cret"]
    for number, mark in enumerate(list(made.output.ledger.marks())):
        inputs = tuple(InputVersion("s", one, f"stamp {number}") for one in ids)
        marked = replace(mark, inputs=inputs, gaps=(f"s/{ids[1]}",) if number else ())
        made.output.objects.put(made.output.layout.mark(mark.cell), marked.to_json().encode())
    to = tmp_path / "to"
    made.campaign.deliver(to, fields=["arts", "darts"], providers=["We"])
    listed = pd.read_csv(to / "inputs.csv")
    assert Counter(zip(listed["image"], listed["cells"], listed["unread_cells"], strict=True)) == {
        ("1.tif", 2, 0): 1,
        ("1.tif", 2, 1): 1,
        ("2.tif", 2, 0): 1,
    }
    assert listed["id_digest"].is_unique
    provenance = json.loads((to / "provenance.json").read_text())
    assert (provenance["inputs"], provenance["unread_inputs"]) == ({"s": 3}, 1)
    assert "1 images could not be read in some cells" in (to / "CAVEATS.md").read_text()
    assert not any(word in content for content in files(to).values() for word in (b"home/a", b"b.org", b"cret"))


@pytest.mark.parametrize(
    ("zoom", "told"),
    [
        (9, "interpolated between pixels"),
        (7, "averaged over pixels"),
        (None, "`binary` is 1 where the probability, before it is rounded to per cent, is at least"),
    ],
)
def test_caveats_say_how_rasters_were_made(small: Finished, zoom: int | None, told: str) -> None:
    plan = replace(small.plan, prediction=replace(small.plan.prediction, threshold=0.62642567))
    states = cell_states(small.output.ledger.marks(), small.output.layout)
    tiling = CellTiling(plan) if zoom is None else MatrixTiling.of(plan, "WebMercatorQuad", zoom=zoom, tile_zoom=zoom)
    delivery = DeliveryPlan(
        plan=plan,
        package=Package(small.output.objects, ""),
        identity={},
        choices=DeliveryChoices(),
        tiling=tiling,
        files=(),
        providers={},
        estimates=(),
        inventory=None,
        history=YearHistory(states=states, images={}, unread={}, versions={}, by_cell={}),
        verdicts=None,
    )
    facts = Facts(delivery=delivery, outlines=None, n_rasters=0, picture=b"", drift=None, expected_m2={})
    assert [said in facts.caveats_page() for said in (told, "Other thresholds are had from")] == [True, zoom is None]
    assert "| Threshold of probability | 0.62642567 |" in facts.markdown()
    assert "at least 0.62642567" in facts.caveats_page()


def test_of_several_classes_the_first_that_is_no_background_is_drawn_and_no_threshold_stated(small: Finished) -> None:
    prediction = replace(small.plan.prediction, classes=("background", "slump", "lake"), exclusive=True)
    plan = replace(small.plan, prediction=prediction)
    for layer in map_layers(
        plan, tiles_crs="EPSG:3413", equal_area="EPSG:6931", outlines=True, expected="EPSG:3413", reviewed=False
    ):
        of_classes = layer.key in ("probability.vrt", "binary.vrt")
        assert layer.band == (2 if of_classes else 1)
        if layer.is_raster:
            assert f'band="{layer.band}"' in layer.qml().decode()
            assert f"<SourceChannelName>{layer.band}</SourceChannelName>" in layer.sld().decode()


@pytest.mark.parametrize("way", ["cells", "tiles"])
def test_a_second_call_writes_nothing_and_projects_cells_once(
    polar: Finished, packages: dict[str, tuple[Path, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    to, options = packages[way]
    before = changed(to)
    asked: Counter[str] = Counter()
    lonlat = Cell.lonlat.fget
    assert lonlat is not None
    monkeypatch.setattr(Cell, "lonlat", property(lambda cell: asked.update([cell.id]) or lonlat(cell)))
    again = polar.campaign.deliver(to, **options)
    assert (again.rewritten, again.removed, changed(to)) == ((), (), before)
    assert set(asked.values()) == {1}


def test_two_deliveries_at_once_leave_checksums_of_what_is_there(tmp_path: Path) -> None:
    made = Finished(tmp_path, plan_of(1, 2, cell=64))
    to = tmp_path / "to"
    made.campaign.deliver(to)

    def other() -> None:
        made.campaign.ledger.retire(LAST_OF_TWO)
        made.output.finish(make_pixels(made.plan, seed=5, smooth=3.0, threshold=0.2), [LAST_OF_TWO])
        made.campaign.deliver(to)

    with Meanwhile(0, other).happening():
        made.campaign.deliver(to, providers=["We"])
    stated = dict(reversed(line.split("  ")) for line in (to / "SHA256SUMS").read_text().splitlines())
    assert {key: hashlib.sha256((to / key).read_bytes()).hexdigest() for key in stated} == stated


def test_tiles_equal_the_map_where_grids_agree(agreeing: Finished, tmp_path: Path) -> None:
    agreeing.campaign.deliver(tmp_path, tiles="WebMercatorQuad", tile_zoom=ZOOM - 2)
    box = agreeing.plan.geobox
    for name in ("probability", "binary"):
        seen = np.full(agreeing.map[name].shape, 255, np.uint8)
        for path in (tmp_path / name).rglob("*.tif"):
            z, x, y = int(path.parts[-3]), int(path.parts[-2]), int(path.stem)
            with rasterio.open(path) as file:
                assert np.allclose(file.bounds, SET.xy_bounds(x, y, z), atol=SIZE * 1e-3)
                assert (z, file.shape, file.overviews(1)) == (ZOOM - 2, (1024, 1024), [2])
                pixels = file.read()
                column, row = (round(value) for value in ~box.affine * (file.bounds.left, file.bounds.top))
            inside = (pixels != 255).any(axis=0)
            assert inside.any()
            rows, columns = np.nonzero(inside)
            seen[:, rows + row, columns + column] = pixels[:, rows, columns]
        assert np.array_equal(seen, agreeing.map[name])


def test_the_default_zoom_is_the_one_of_the_maps_pixels(agreeing: Finished) -> None:
    tiling = MatrixTiling.of(agreeing.plan, "WebMercatorQuad", zoom=None, tile_zoom=None)
    assert (tiling.zoom, tiling.tile_zoom, tiling.side) == (ZOOM, ZOOM - 4, 4096)


@pytest.mark.parametrize("tiles", ["UPSArcticWGS84Quad", "WebMercatorQuad", "WGS1984Quad"])
def test_tiles_of_another_grid_hold_every_pixel(polar: Finished, tmp_path: Path, tiles: str) -> None:
    made = morecantile.tms.get(tiles)
    zoom = MatrixTiling.of(polar.plan, tiles, zoom=None, tile_zoom=None).zoom
    polar.campaign.deliver(tmp_path, tiles=tiles, zoom=zoom, tile_zoom=zoom, outlines=False)
    rows, columns = np.nonzero(polar.map["valid"])
    x, y = polar.plan.geobox.affine * (columns + 0.5, rows + 0.5)
    crs = made.crs._pyproj_crs
    x, y = Transformer.from_crs("EPSG:3413", crs, always_xy=True).transform(x, y)
    compared, equal = 0, 0
    for path in (tmp_path / "binary").rglob("*.tif"):
        with rasterio.open(path) as file:
            bounds = made.xy_bounds(int(path.parts[-2]), int(path.stem), zoom)
            assert np.allclose(file.bounds, bounds, atol=file.res[0] * 1e-3)
            inside = (x > bounds.left) & (x < bounds.right) & (y > bounds.bottom) & (y < bounds.top)
            i, j = ~file.transform * (x[inside], y[inside])
            pixels = file.read(1)[np.floor(j).astype(int), np.floor(i).astype(int)]
        expected = polar.map["binary"][rows[inside], columns[inside]]
        compared, equal = compared + len(expected), equal + int((pixels == expected).sum())
    assert compared == len(rows)
    assert equal > 0.93 * compared  # pixels of another size and turn: those beside a border differ


class Killed(BaseException):
    """What ends a process, as far as this one is concerned."""


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Writes that are left until the next one kills."""
    left, put = [10**6], LocalObjects.put

    def counted(self: LocalObjects, key: str, content: bytes) -> None:
        if self.root.endswith("stopped"):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
        put(self, key, content)

    monkeypatch.setattr(LocalObjects, "put", counted)
    return left


def test_killed_anywhere_and_called_again_gives_the_same(
    polar: Finished, package: tuple[Path, Delivered], tmp_path: Path, dying: list[int]
) -> None:
    for writes in (0, 1, 6, 12, 16):  # each goes on where the one before was ended
        dying[0] = writes
        with pytest.raises(Killed):
            polar.campaign.deliver(tmp_path / "stopped", **OPTIONS)
        assert not (tmp_path / "stopped" / "SHA256SUMS").exists()
    dying[0] = 10**6
    polar.campaign.deliver(tmp_path / "stopped", **OPTIONS)
    assert files(tmp_path / "stopped") == files(package[0])


def test_what_a_drift_check_found_and_who_accepted_it_are_caveats(tmp_path: Path) -> None:
    made = Finished(tmp_path, plan_of(1, 2, cell=64))
    red = [LayerDistribution.of(np.arange(9.0) * factor, pixels=9) for factor in (1, 10)]
    found = compare({"red": red[1]}, {"red": red[0]}, against="2023", with_invalid=True, decides=True)
    when = "2024-07-01T00:00:00+00:00"
    check = DriftCheck(
        plan_digest=made.plan.digest,
        when=when,
        cells=(),
        invalid=0.0,
        layers={"red": red[1]},
        comparisons=tuple(found),
        same_cells=None,
        acceptances=(Acceptance(name="Ada", reason="a new product", when=when),),
    )
    made.campaign.objects.put(YearLayout(made.plan.year).drift, check.to_json().encode())
    made.campaign.deliver(tmp_path / "to", outlines=False)
    caveats = (tmp_path / "to" / "CAVEATS.md").read_text()
    assert "about 10 times those there: is the scale wrong?). Ada accepted that: a new product" in caveats
    assert json.loads((tmp_path / "to" / "provenance.json").read_text())["drift"]["acceptances"][0]["name"] == "Ada"


def test_missing_cells_are_refused_or_named_and_come_later(tmp_path: Path) -> None:
    partial = Finished(tmp_path, plan_of(2, 3, cell=64), without=[LAST])
    with pytest.raises(CampaignError, match=r"1 of 6 cells .* r301c-208.*--allow-missing"):
        partial.campaign.deliver(tmp_path / "to")
    assert not (tmp_path / "to").exists()
    made = partial.campaign.deliver(tmp_path / "to", allow_missing=True)
    named = pd.read_csv(tmp_path / "to" / "missing_cells.csv")
    assert (made.n_missing, list(named["cell"])) == (1, ["r301c-208"])
    assert "1 of 6 cells are missing" in (tmp_path / "to" / "CAVEATS.md").read_text()
    partial.output.finish(partial.pixels, [LAST])
    before = changed(tmp_path / "to" / "probability")
    later = partial.campaign.deliver(tmp_path / "to")
    assert before.items() <= changed(tmp_path / "to" / "probability").items()
    assert (later.n_missing, later.removed) == (0, ("missing_cells.csv",))
    partial.campaign.deliver(tmp_path / "new")
    assert files(tmp_path / "to") == files(tmp_path / "new")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tiles": "WebMercatorQuat"}, "Did you mean 'WebMercatorQuad'"),
        ({"tiles": "CDB1GlobalGrid"}, "several widths"),
        (
            {"tiles": "UPSAntarcticWGS84Quad", "outlines": False},
            "lies in a tile of UPSAntarcticWGS84Quad: the set has longitudes .*, the map longitudes .* and latitudes 81",
        ),
        ({"tiles": "WebMercatorQuad", "zoom": 40}, "zoom of WebMercatorQuad is from 0 to 24 here; got 40"),
        ({"tiles": "WebMercatorQuad", "zoom": 9, "tile_zoom": 10}, "from 3 to 9 here; got 10"),
        ({"tiles": "CanadianNAD83_LCC", "zoom": 9, "tile_zoom": 8}, "do not hold whole tiles"),
        ({"zoom": 4}, "name the set"),
        ({"license": "CC-BY 4.0"}, "got 'CC-BY 4.0'. Did you mean 'CC-BY-4.0'"),
        ({"license": "various"}, "proprietary or other; got 'various'"),
        ({"names": "{col}_{row}"}, "name a tile matrix set"),
        ({"tiles": "WebMercatorQuad", "names": "{x}/{y}"}, "Tiles are called"),
        ({"accuracy": __file__}, "holds no estimates"),
        ({"providers": ["=https://a"]}, "NAME=https://ADDRESS"),
        ({"fields": ["art"]}, "Did you mean 'arts'"),
        ({"fields": ["arts"]}, "ARTS names who"),
        ({"arts": {"Notes": "x"}}, "--fields arts"),
        ({"fields": ["darts"], "outlines": False}, "--no-outlines"),
        ({"fields": ["arts"], "arts": {"UID": "x"}}, "one of RegionName, .*; got 'UID'"),
        ({"fields": ["arts"], "arts": {"BaseMapResolution": "3 m"}}, "number of metres"),
        ({"fields": ["arts"], "arts": {"RegionName": ""}}, "NAME=VALUE"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    polar: Finished, tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(CampaignError, match=told):
        polar.campaign.deliver(tmp_path / "to", **options)
    assert not (tmp_path / "to").exists()


def test_a_year_of_empty_cells_is_not_told_to_run_again(tmp_path: Path) -> None:
    plan = plan_of(1, 2, cell=64)
    output = Output(plan, tmp_path / "out")
    campaign = Campaign(plan=plan, output=output.path)
    with pytest.raises(CampaignError, match=r"No cell of .* is done.*Run the campaign first"):
        campaign.deliver(tmp_path / "to", allow_missing=True)
    output.finish({name: np.zeros_like(array) for name, array in make_pixels(plan, seed=1).items()}, plan.cells)
    with pytest.raises(CampaignError, match=r"2 cells of .* are done, and none of them has an image or valid pixel"):
        campaign.deliver(tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_other_folders_and_packages_are_left_alone(polar: Finished, agreeing: Finished, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "scene.tif").touch()
    polar.campaign.deliver(tmp_path / "to", outlines=False)
    for campaign, to, told in (
        (polar.campaign, tmp_path / "other", "something else"),
        (polar.campaign, tmp_path / "to", "outlines: there False, here True"),
        (agreeing.campaign, tmp_path / "to", "plan: there"),
        (polar.campaign, Path(polar.campaign.output), "something else"),
    ):
        before = files(to)
        with pytest.raises(OutputExistsError, match=told):
            campaign.deliver(to)
        assert files(to) == before


@pytest.mark.parametrize("content", ['{"package": "x"}', "[]", '{"package": []}', "\\xff", "{}"])
def test_a_foreign_provenance_is_refused(small: Finished, tmp_path: Path, content: str) -> None:
    (tmp_path / "provenance.json").write_text(content)
    with pytest.raises(OutputExistsError, match="is not that of a delivery"):
        small.campaign.deliver(tmp_path)


def test_a_url_with_other_objects_is_left_alone(small: Finished) -> None:
    system = fsspec.filesystem("memory")
    system.pipe_file("/shared/rts/probability/mine.tif", b"precious")
    with pytest.raises(OutputExistsError, match=r"something else than a delivery, such as probability/mine\.tif"):
        small.campaign.deliver("memory://shared/rts", outlines=False)
    assert system.find("/shared/rts") == ["/shared/rts/probability/mine.tif"]


def test_a_disk_without_room(polar: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10})()
    monkeypatch.setattr("rtsx.campaign.preflight.shutil.disk_usage", lambda _: usage)
    with pytest.raises(OutputNotWritableError, match="Free space"):
        polar.campaign.deliver(tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_plan_without_outlines(tmp_path: Path) -> None:
    plan = plan_of(1, 1, outlines=None)
    with pytest.raises(RtsxError, match="--no-outlines"):
        Campaign(plan=plan, output=str(tmp_path)).deliver(tmp_path / "to")


def test_the_command_line(polar: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_plan(polar.output.objects, polar.plan)
    given = ["campaign", "deliver", polar.campaign.output, "--year", "2024", "--to", str(tmp_path / "to")]
    for further, status, told in (
        (["--license", "CC-BY-4.0", "--provider", "We=https://example.org"], 0, "5 GeoTIFFs of each variable"),
        (["--license", "CC-BY-4.0", "--provider", "We=https://example.org"], 0, "0 files were written"),
        (["--tiles", "WebMercatorQuad"], 2, "another delivery"),
    ):
        with pytest.raises(SystemExit) as leaving:
            main([*given, *further])
        printed = capsys.readouterr()
        assert (int(leaving.value.code or 0), told in printed.out + printed.err) == (status, True), printed


def test_a_bucket_takes_the_same_package(polar: Finished, package: tuple[Path, Delivered], s3: S3) -> None:
    to = f"s3://{s3.bucket}/archive"
    polar.campaign.deliver(to, storage_options=s3.options, **OPTIONS)
    there = fsspec.filesystem("s3", **s3.options)
    found = {path.removeprefix(to[5:] + "/"): there.cat_file(path) for path in there.find(to)}
    assert found == files(package[0])
    assert polar.campaign.deliver(to, storage_options=s3.options, **OPTIONS).rewritten == ()
