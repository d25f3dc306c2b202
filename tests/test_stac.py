"""From a config to outlines: a real STAC API on loopback, scenes in two UTM zones, elevation and trends of their own grids."""

from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr

import rtsx
from rtsx.grid import lonlat_polygon
from rtsx.synthetic import RegionFiles, RegionSpec, demo_bundle_path, region_items, write_region
from tests.servers import rustac_server

CONFIG = """
preset: tss-v1
grid: {{crs: EPSG:3413, resolution: 3}}
region: {{bbox: [{bbox}]}}
sources:
  planetscope:
    stac: {{url: "{url}", collections: planetscope, page: 2}}
    asset: ortho_analytic_4b_sr
    layers: [blue, green, red, nir]
    quality: {{asset: ortho_udm2, erode_m: 6}}
    {time}
  dem:
    stac: {{url: "{url}", collections: arcticdem-mosaic-10m, page: 1}}
    terrain: [relative_elevation, slope]
  tcvis:
    stac: {{url: "{url}", collections: tcvis}}
    layers: [tc_brightness, tc_greenness, tc_wetness]
chunk: 256
"""


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> RegionFiles:
    """Three scenes in each of two years in zones 8 and 9 over one ground."""
    spec = RegionSpec(seed=15, size=256, scenes=3, years=(2023, 2024))
    return write_region(spec, tmp_path_factory.mktemp("region"))


@pytest.fixture(scope="module")
def url(region: RegionFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A STAC API that knows the region."""
    items = region_items(region)
    names = sorted({item["collection"] for item in items})
    with rustac_server(tmp_path_factory.mktemp("api"), items, names) as address:
        yield address


def write_config(folder: Path, region: RegionFiles, url: str, *, time: str) -> Path:
    ground = region.spec.ground_spec
    side = ground.size * 3.0
    square = shapely.box(ground.left, ground.top - side, ground.left + side, ground.top).buffer(-600)
    west, south, east, north = lonlat_polygon(square, ground.crs).bounds
    path = folder / "cube.yaml"
    path.write_text(CONFIG.format(bbox=f"{west}, {south}, {east}, {north}", url=url, time=time))
    return path


def test_from_a_search_to_outlines(region: RegionFiles, url: str, tmp_path: Path) -> None:
    config = write_config(tmp_path, region, url, time="composite: best")
    cube = rtsx.open_cube(config)
    assert list(cube.data_vars)[:10] == [
        *("ndvi", "blue", "green", "red", "nir", "relative_elevation", "slope"),
        *("tc_brightness", "tc_greenness", "tc_wetness"),
    ]
    zones = {item["properties"]["proj:code"] for item in region_items(region) if item["collection"] == "planetscope"}
    assert zones == {"EPSG:32608", "EPSG:32609"}
    assert len(cube.attrs["images_planetscope"].split(",")) == 6
    assert len(cube.attrs["images_dem"].split(",")) > 1
    bundle = rtsx.ModelBundle.open(demo_bundle_path())
    rtsx.write_cube(rtsx.predict_cube(cube, bundle), tmp_path / "map.zarr")
    stored = rtsx.open_cube(tmp_path / "map.zarr")
    outlines = rtsx.extract_footprints(stored, min_area_m2=288)
    truth = gpd.read_parquet(region.truth).to_crs(outlines.crs).geometry.union_all()
    # Shifted by a pixel they would still overlap, but not mirrored, swapped or from a wrong zone.
    assert outlines.geometry.intersection(truth).area.sum() > 0.6 * outlines.geometry.area.sum() > 0
    assert outlines.crs == "EPSG:3413"
    np.testing.assert_array_equal(stored["valid"].values, cube["valid"].values)


def test_scenes_and_years_flow_through_prediction(region: RegionFiles, url: str, tmp_path: Path) -> None:
    bundle = rtsx.ModelBundle.open(demo_bundle_path())
    predicted: dict[str, xr.Dataset] = {}
    for group in ("item", "year"):
        cube = rtsx.open_cube(write_config(tmp_path, region, url, time=f"group: {group}"))
        assert cube["red"].dims == ("time", "y", "x")
        predicted[group] = rtsx.predict_cube(cube, bundle)
        assert predicted[group]["probability"].dims == ("time", "y", "x")
    assert predicted["item"].sizes["time"] == 6
    years = predicted["year"]["time"].values.astype("datetime64[Y]").astype(str).tolist()
    assert years == ["2023", "2024"]
    # One scene of the level-1 answer is the answer to that scene alone.
    single = rtsx.open_cube(write_config(tmp_path, region, url, time="group: item")).isel(time=2)
    alone = rtsx.predict_cube(single, bundle)["probability"].compute()
    np.testing.assert_array_equal(predicted["item"]["probability"].isel(time=2).values, alone.values)
