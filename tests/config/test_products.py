"""Products that open by name: items as each provider writes them, over a STAC API, become the layers with their values and masks."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from odc.geo.geobox import GeoBox
from typer.testing import CliRunner

import rtsx
from rtsx.config import CubeConfig, load_cube_config
from rtsx.config.layers import SensorConfig
from rtsx.config.starter import STARTERS, starter_yaml
from rtsx.cube.build_state import describe_recipe
from rtsx.cube.sensors import SENSORS
from rtsx.cube.stac import StacSearch
from rtsx.errors import ConfigError, CubeError
from rtsx.grid import Grid, lonlat_polygon
from tests.servers import rustac_server

CRS, SIZE, CORNER = "EPSG:32607", 12, (558_000.0, 7_720_000.0)
GRID = Grid(CRS, 10.0, cell_size=64)
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
GROUND = GeoBox((SIZE, SIZE), Affine(10, 0, CORNER[0], 0, -10, CORNER[1]), CRS)
CLOUDY = (slice(0, 4), slice(0, 4))


def raster(folder: Path, name: str, pixels: Any, *, nodata: float | None) -> str:
    path = folder / f"{name}.tif"
    bands = pixels[None] if np.ndim(pixels) == 2 else pixels
    profile = {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    with rasterio.open(
        path, "w", **profile, dtype=bands.dtype, crs=CRS, transform=GROUND.affine, nodata=nodata
    ) as file:
        file.write(bands)
    return str(path)


def bands_of(sensor: str, stored: Mapping[str, float]) -> dict[str, Any]:
    """Layers of constant stored values."""
    dtype = {"hls": np.int16, "sentinel1-rtc": np.float32, "arcticdem": np.float32}.get(sensor, np.uint16)
    return {layer: np.full((SIZE, SIZE), value, dtype) for layer, value in stored.items()}


def masks(clear: int, cloudy: int, dtype: Any) -> Any:
    quality = np.full((SIZE, SIZE), clear, dtype)
    quality[CLOUDY] = cloudy
    return quality


GRIDDED = {"proj:shape": [SIZE, SIZE], "proj:transform": list(GROUND.affine)[:6]}


def item(name: str, collection: str, properties: Mapping[str, Any], assets: Mapping[str, Any]) -> dict[str, Any]:
    outline = lonlat_polygon(GROUND.extent.geom, CRS)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": collection,
        "geometry": outline.__geo_interface__,
        "bbox": list(outline.bounds),
        "properties": {"datetime": "2023-07-21T21:25:29Z", "eo:cloud_cover": 11.0, **properties},
        "links": [],
        "assets": dict(assets),
    }


S2 = {"blue": 1400, "green": 1600, "red": 1800, "nir": 4000}
S2_BANDS = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08"}
LANDSAT = {"blue": 9000, "green": 9500, "red": 10000, "nir": 18000, "swir16": 15000, "swir22": 12000}
HLS = {"blue": 400, "green": 600, "red": 800, "nir": 3000, "swir16": 2000, "swir22": 1000}
L30 = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B05", "swir16": "B06", "swir22": "B07"}
S30 = L30 | {"nir": "B8A", "swir16": "B11", "swir22": "B12"}
PRODUCT = "S2B_MSIL2A_20230721T212529_N0509_R043_T07WFT_20230721T230158"


def element84_sentinel2(folder: Path) -> list[dict[str, Any]]:
    """COGs whose offset is gone, although each band still states it; the original JP2 beside each."""
    stored = {layer: value - 1000 for layer, value in S2.items()}
    assets: dict[str, Any] = {}
    for layer, pixels in bands_of("sentinel2", stored).items():
        eo = [{"name": layer, "common_name": layer}]
        packed = [{"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": -0.1}]
        href = raster(folder, f"e84_{layer}", pixels, nodata=0)
        assets[layer] = {"href": href, "type": COG, "eo:bands": eo, "raster:bands": packed, "gsd": 10, **GRIDDED}
        assets[f"{layer}-jp2"] = assets[layer] | {"href": "s3://sentinel-s2-l2a/B.jp2", "type": "image/jp2"}
    scl = raster(folder, "e84_scl", masks(4, 9, np.uint8), nodata=0)
    assets["scl"] = {"href": scl, "type": COG, "raster:bands": [{"nodata": 0, "data_type": "uint8"}], **GRIDDED}
    properties = {
        "proj:epsg": 32607,
        "s2:processing_baseline": "05.09",
        "s2:product_uri": f"{PRODUCT}.SAFE",
        "earthsearch:boa_offset_applied": True,
    }
    return [item("S2B_7WFT_20230721_0_L2A", "sentinel-2-l2a", properties, assets)]


def planetary_computer_sentinel2(folder: Path) -> list[dict[str, Any]]:
    """Band names alone: dtype and nodata are in the files, the offset follows from the baseline."""
    assets = {
        S2_BANDS[layer]: {
            "href": raster(folder, f"pc_{layer}", pixels, nodata=None),
            "type": COG,
            "roles": ["data"],
            "eo:bands": [{"name": S2_BANDS[layer], "common_name": layer}],
            **GRIDDED,
        }
        for layer, pixels in bands_of("sentinel2", S2).items()
    }
    # Its red edge and narrow near infrared all have one common name.
    assets["B8A"] = assets["B08"] | {"eo:bands": [{"name": "B8A", "common_name": "rededge"}]}
    assets["SCL"] = {"href": raster(folder, "pc_scl", masks(5, 3, np.uint8), nodata=None), "type": COG, **GRIDDED}
    properties = {"proj:epsg": 32607, "s2:processing_baseline": "05.09", "s2:product_uri": f"{PRODUCT}.SAFE"}
    return [item(PRODUCT.replace("_N0509", ""), "sentinel-2-l2a", properties, assets)]


def cdse_sentinel2(folder: Path) -> list[dict[str, Any]]:
    """STAC 1.1, each band in several sizes."""
    assets: dict[str, Any] = {}
    for layer, pixels in bands_of("sentinel2", S2).items():
        band = S2_BANDS[layer]
        assets[f"{band}_10m"] = {
            "href": raster(folder, f"cdse_{layer}", pixels, nodata=None),
            "type": "image/jp2",
            "bands": [{"name": band, "eo:common_name": layer}],
            "nodata": 0,
            "data_type": "uint16",
            "raster:scale": 0.0001,
            "raster:offset": -0.1,
            "proj:code": CRS,
            **GRIDDED,
        }
        assets[f"{band}_20m"] = assets[f"{band}_10m"] | {"href": "s3://eodata/missing.jp2"}
    scl = raster(folder, "cdse_scl", masks(6, 8, np.uint8), nodata=None)
    assets["SCL_20m"] = {
        "href": scl,
        "type": "image/jp2",
        "nodata": 0,
        "data_type": "uint8",
        "proj:code": CRS,
    } | GRIDDED
    properties = {"proj:code": CRS, "processing:version": "05.09", "gsd": 10}
    return [item(PRODUCT, "sentinel-2-l2a", properties, assets) | {"stac_version": "1.1.0"}]


def landsat(folder: Path) -> list[dict[str, Any]]:
    """Element 84 and Planetary Computer write them with one package."""
    packed = [{"nodata": 0, "data_type": "uint16", "scale": 2.75e-05, "offset": -0.2}]
    common = {"nir": "nir08"}
    assets = {
        common.get(layer, layer): {
            "href": raster(folder, f"landsat_{layer}", pixels, nodata=0),
            "type": COG,
            "eo:bands": [{"name": f"SR_{layer}", "common_name": common.get(layer, layer)}],
            "raster:bands": packed,
            "roles": ["reflectance"],
        }
        for layer, pixels in bands_of("landsat", LANDSAT).items()
    }
    qa = raster(folder, "landsat_qa", masks(1 << 6, 1 << 3, np.uint16), nodata=1)
    assets["qa_pixel"] = {
        "href": qa,
        "type": COG,
        "raster:bands": [{"data_type": "uint16", "unit": "bit index"}],
        "roles": ["cloud"],
    }
    properties = {"proj:epsg": 32607, **GRIDDED, "platform": "landsat-8", "landsat:collection_category": "T1"}
    return [item("LC08_L2SP_066011_20230721_02_T1", "landsat-c2-l2", properties, assets)]


def hls(folder: Path, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Both halves; the numbers of their bands mean other things, and the items say nothing of either."""
    items = []
    for half, bands in (("S30", S30), ("L30", L30)):
        assets = {
            bands[layer]: {"href": raster(folder, f"{half}_{layer}", pixels, nodata=-9999), "type": COG}
            for layer, pixels in bands_of("hls", HLS).items()
        }
        # Bands of other meaning under the numbers of the other half.
        for key in {*S30.values(), *L30.values(), "B10"} - set(assets):
            wrong = np.full((SIZE, SIZE), 9999, np.int16)
            assets[key] = {"href": raster(folder, f"{half}_{key}", wrong, nodata=-9999), "type": COG}
        assets["Fmask"] = {"href": raster(folder, f"{half}_Fmask", masks(64, 2, np.uint8), nodata=255), "type": COG}
        items.append(item(f"HLS.{half}.T07WFT.2023202T212529.v2.0", names[half], {}, assets))
    return items


def sentinel1(folder: Path) -> list[dict[str, Any]]:
    """Float power; a scene of one polarisation only is there too."""
    assets = {
        name: {
            "href": raster(folder, f"s1_{name}", pixels, nodata=-32768),
            "type": COG,
            "raster:bands": [{"nodata": -32768, "data_type": "float32", "spatial_resolution": 10.0}],
        }
        for name, pixels in bands_of("sentinel1-rtc", {"vv": 0.09, "vh": 0.02}).items()
    }
    grid = {"proj:epsg": 32607, **GRIDDED}
    both = item("S1A_IW_GRDH_1SDV_rtc", "sentinel-1-rtc", {**grid, "sar:polarizations": ["VV", "VH"]}, assets)
    ice = item("S1A_IW_GRDH_1SDH_rtc", "sentinel-1-rtc", {**grid, "sar:polarizations": ["HH"]}, {"hh": assets["vv"]})
    for one in (both, ice):
        del one["properties"]["eo:cloud_cover"]
    return [both, ice]


def arcticdem(folder: Path) -> list[dict[str, Any]]:
    """Elevation among other rasters, with the dates of its strips instead of one."""
    dem = raster(folder, "dem", bands_of("arcticdem", {"dem": 41.5})["dem"], nodata=-9999)
    assets = {
        "dem": {"href": dem, "type": COG, "raster:bands": [{"data_type": "float32", "nodata": -9999}], **GRIDDED},
        "count": {"href": dem, "type": COG, **GRIDDED},
    }
    properties = {"datetime": "2011-03-04T00:00:00Z", "proj:code": CRS, "gsd": 10}
    found = item("42_18_10m_v4.1", "arcticdem-mosaics-v4.1-10m", properties, assets)
    del found["properties"]["eo:cloud_cover"]
    return [found]


REFLECTANCE = {layer: value / 10_000 - 0.1 for layer, value in S2.items()}
KELVINLESS = {layer: value * 2.75e-5 - 0.2 for layer, value in LANDSAT.items()}
CASES = {
    ("sentinel2", "element84"): (element84_sentinel2, REFLECTANCE),
    ("sentinel2", "planetary-computer"): (planetary_computer_sentinel2, REFLECTANCE),
    ("sentinel2", "cdse"): (cdse_sentinel2, REFLECTANCE),
    ("landsat", "planetary-computer"): (landsat, KELVINLESS),
    ("landsat", "element84"): (landsat, KELVINLESS),
    ("hls", "planetary-computer"): (
        lambda folder: hls(folder, {"S30": "hls2-s30", "L30": "hls2-l30"}),
        {layer: value / 10_000 for layer, value in HLS.items()},
    ),
    ("hls", "nasa"): (
        lambda folder: hls(folder, {"S30": "HLSS30_2.0", "L30": "HLSL30_2.0"}),
        {layer: value / 10_000 for layer, value in HLS.items()},
    ),
    ("sentinel1-rtc", "planetary-computer"): (sentinel1, {"vv": 0.09, "vh": 0.02}),
    ("arcticdem", "pgc"): (arcticdem, {"dem": 41.5}),
}


def opened(source: Mapping[str, Any], **rest: Any) -> Any:
    config = CubeConfig.model_validate(
        {"grid": {"crs": CRS, "resolution": 10}, "period": {"years": 2023}, "sources": {"scene": source}, **rest}
    )
    return rtsx.open_cube(config.recipe(), GROUND)


def test_every_catalog_that_is_searched_has_a_case() -> None:
    searched = {(name, who) for name, one in SENSORS.items() for who, at in one.catalogs.items() if at.url}
    assert searched == set(CASES)


@pytest.mark.parametrize("case", CASES, ids=":".join)
def test_a_product_opens_by_name(case: tuple[str, str], tmp_path: Path) -> None:
    (name, provider), (items_of, expected) = case, CASES[case]
    items = items_of(tmp_path)
    with rustac_server(tmp_path, items, sorted({one["collection"] for one in items})) as url:
        cube = opened({"sensor": {"name": name, "provider": provider}, "stac": {"url": url}}).compute()
    assert set(expected) <= set(cube.data_vars)
    seen = cube["valid"].values
    for layer, value in expected.items():
        stored, packing = cube[layer].values, cube[layer].attrs
        physical = stored * packing.get("scale_factor", 1.0) + packing.get("add_offset", 0.0)
        np.testing.assert_allclose(physical[seen], value, atol=1e-6)
    if SENSORS[name].quality is not None:
        assert not seen[CLOUDY].any()
        assert seen[5:, 5:].all()


def test_one_line_is_a_source() -> None:
    source = CubeConfig.model_validate({"sources": {"season": {"sensor": "sentinel2"}}}).recipe().sources[0]
    assert source.images == StacSearch(
        "https://earth-search.aws.element84.com/v1", ("sentinel-2-l2a",), max_cloud_cover=70
    )
    assert (source.composite, source.quality.rule.name) == ("median", "sentinel2-scl")  # type: ignore[union-attr]


def test_what_is_said_goes_first() -> None:
    source = {
        "sensor": {"name": "landsat", "provider": "element84"},
        "stac": {"max_cloud_cover": 10, "query": {"platform": {"eq": "landsat-7"}}},
        "layers": {"red": None, "haze": {"asset": "atmos_opacity"}},
        "quality": {"erode_m": 60},
        "composite": "first",
    }
    recipe = CubeConfig.model_validate({"sources": {"s": source}}).recipe().sources[0]
    assert recipe.images.max_cloud_cover == 10  # type: ignore[attr-defined]
    assert [layer.wanted.asset for layer in recipe.layers] == [None, "atmos_opacity"]  # an asset called like the layer
    assert recipe.layers[1].wanted.scale_factor is None
    assert (recipe.quality.erode_m, recipe.quality.wanted.asset) == (60, "qa_pixel")  # type: ignore[union-attr]
    assert recipe.composite == "first"
    bare = CubeConfig.model_validate({"sources": {"s": {"sensor": "landsat", "quality": None}}}).recipe().sources[0]
    assert bare.quality is None


@pytest.mark.parametrize(
    "source",
    [
        {"sensor": "landsat", "quality": None},
        {"sensor": "landsat", "stac": {"max_cloud_cover": None}},
        {"sensor": "landsat", "quality": {"rule": None, "erode_m": 30}},
        {"sensor": "arcticdem", "period": None},
        {"sensor": "sentinel1-rtc", "stac": {"query": None, "sign": None}},
        {"sensor": {"name": "sentinel2", "provider": "cdse"}, "quality": {"model": "clouds"}, "composite": "first"},
    ],
    ids=str,
)
def test_null_is_kept_where_the_sensor_would_fill_it_in(source: dict[str, Any]) -> None:
    config = CubeConfig.model_validate({"sources": {"s": source}, "period": {"years": 2023}})
    assert CubeConfig.model_validate(yaml.safe_load(config.to_yaml())) == config
    assert config.without_secrets() == config


def test_what_ran_before_products_had_catalogs_is_described_as_then() -> None:
    bare = {"stac": {"url": "https://mine.example.org", "collections": ["x"]}, "period": "any"}
    dem = {"nodata": -9999.0, "units": "m", "scale_factor": 1.0, "add_offset": 0.0}
    stated = {**bare, "terrain": ["slope"], "layers": {"dem": dem}}
    named = {**bare, "terrain": ["slope"], "sensor": "arcticdem"}
    found = [CubeConfig.model_validate({"sources": {"s": one}}).recipe() for one in (stated, named)]
    assert describe_recipe(found[0]) == describe_recipe(found[1])
    search = {"url": "https://mine.example.org", "collections": ["sentinel-2-l2a"]}
    for sensor in ("sentinel2-l2a", "sentinel2-l2a-04.00"):
        CubeConfig.model_validate({"sources": {"s": {"sensor": sensor, "layers": ["red"], "stac": search}}}).recipe()


@pytest.mark.parametrize(
    ("layers", "asked"),
    [
        (None, ["VV", "VH"]),
        (["vv"], ["VV", "VH"]),
        (["hh", "hv"], ["HH", "HV"]),
        ({"ice": {"asset": "hh"}}, ["HH", "HV"]),
    ],
)
def test_layers_say_which_polarisations_are_searched_for(layers: Any, asked: list[str]) -> None:
    source = {"sensor": "sentinel1-rtc"} | ({} if layers is None else {"layers": layers})
    images: Any = CubeConfig.model_validate({"sources": {"s": source}}).recipe().sources[0].images
    assert images.query == {"sar:polarizations": {"eq": asked}}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"sensor": {"name": "sentinel2", "bands": 12}}, "leave bands out, or name the one asset"),
        ({"sensor": {"name": "planetscope", "bands": 8}, "catalog": "x"}, "leave bands out, or name the one asset"),
        (
            {"sensor": "sentinel2", "stac": {"collections": "landsat-c2-l2"}},
            "'landsat-c2-l2' holds landsat, and the sensor is",
        ),
        (
            {"sensor": "sentinel2", "stac": {"collections": "sentinel-2-l1c"}},
            "sentinel-2-l2a, sentinel-2-c1-l2a of element84",
        ),
        (
            {"sensor": "landsat", "stac": {"url": "https://mine.example.org", "collections": ["hls2-l30"]}},
            "'hls2-l30' holds hls",
        ),
        ({"sensor": "arcticdem", "catalog": {"path": "x", "collections": "sentinel-1-rtc"}}, "holds sentinel1-rtc"),
        ({"sensor": {"name": "landsat", "provider": "pgc"}}, "had from planetary-computer, element84; got 'pgc'"),
        (
            {
                "sensor": {"name": "sentinel2", "provider": "cdse"},
                "stac": {"url": "https://earth-search.aws.element84.com/v1/"},
            },
            "the address is that of element84",
        ),
        ({"sensor": "planetscope"}, "ordered and not searched for: add catalog"),
        ({"sensor": "planet-basemap"}, "ordered and not searched for: add catalog"),
        ({"sensor": "sentinel2", "files": "x.tif"}, "sentinel2-l2a or sentinel2-l2a-04.00"),
        ({"sensor": "sentinel2", "stac": {"max_cloud": 20}}, "max_cloud"),
    ],
)
def test_product_and_collection_that_do_not_fit(source: dict[str, Any], text: str, tmp_path: Path) -> None:
    path = tmp_path / "cube.yaml"
    path.write_text(yaml.safe_dump({"sources": {"s": source}}))
    with pytest.raises(ConfigError, match=r"cube\.yaml: line") as caught:
        load_cube_config(path)
    assert text in str(caught.value)


def test_items_of_another_product_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, landsat(tmp_path))
    with pytest.raises(CubeError, match=r"no asset 'scl'\. Its assets and bands are: blue"):
        opened({"sensor": "sentinel2", "catalog": path, "layers": ["red"]})
    with pytest.raises(CubeError, match=r"named for the collections \['hls2-s30', 'hls2-l30'\]"):
        opened({"sensor": {"name": "hls", "provider": "planetary-computer"}, "catalog": path, "layers": ["nir"]})


def save(folder: Path, items: list[dict[str, Any]]) -> str:
    path = folder / "catalog.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return str(path)


def planetscope(folder: Path) -> list[dict[str, Any]]:
    """A delivery as Planet describes it: both kinds of assets, by type."""
    names = ("Blue", "Green", "Red", "Near-Infrared")
    stored = np.stack([np.full((SIZE, SIZE), value, np.uint16) for value in (500, 700, 900, 2500)])
    udm2 = np.zeros((8, SIZE, SIZE), np.uint8)
    udm2[0] = 1
    udm2[0][CLOUDY], udm2[5][CLOUDY] = 0, 1
    assets = {
        "20230721_211519_70_24ad_3B_AnalyticMS_SR": {
            "href": raster(folder, "sr", stored, nodata=0),
            "pl:asset_type": "ortho_analytic_4b_sr",
            "type": COG,
            "eo:bands": [{"name": name} for name in names],
            "raster:bands": [{"data_type": "uint16", "nodata": 0, "scale": 0.0001}] * 4,
        },
        "20230721_211519_70_24ad_3B_udm2": {
            "href": raster(folder, "udm2", udm2, nodata=None),
            "pl:asset_type": "ortho_udm2",
            "type": COG,
        },
    }
    return [item("20230721_211519_70_24ad", "PSScene", {"proj:epsg": 32607, **GRIDDED}, assets)]


@pytest.mark.parametrize("preset", [None, "tss-v1", "darts-v2"])
def test_scenes_of_an_order_open_by_name(preset: str | None, tmp_path: Path) -> None:
    source = {"sensor": "planetscope", "catalog": save(tmp_path, planetscope(tmp_path))}
    cube = opened(source, preset=preset).compute()
    assert {"blue", "green", "red", "nir"} <= set(cube.data_vars)
    assert cube["nir"].values[8, 8] == 2500
    assert not cube["valid"].values[CLOUDY].any()
    assert cube["valid"].values[5:, 5:].all()
    # A rule with low quality tells clouds from missing ground.
    assert cube["quality_scene"].values[0, 0] == (1 if preset == "darts-v2" else 0)


@pytest.mark.parametrize("has_names", [True, False])
def test_scenes_of_eight_bands_open_by_the_same_line(has_names: bool, tmp_path: Path) -> None:
    (scene,) = planetscope(tmp_path)
    names = ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir")
    stored = np.stack([np.full((SIZE, SIZE), value, np.uint16) for value in range(1, 9)])
    key, _ = scene["assets"]
    asset = {"href": raster(tmp_path, "sr8", stored, nodata=0), "pl:asset_type": "ortho_analytic_8b_sr", "type": COG}
    if has_names:  # two of one common name
        asset["eo:bands"] = [{"name": one.title(), "common_name": one.removesuffix("_i")} for one in names]
    scene["assets"][key] = asset
    cube = opened({"sensor": "planetscope", "catalog": save(tmp_path, [scene])}).compute()
    assert [int(cube[layer].values[8, 8]) for layer in ("blue", "green", "red", "nir")] == [2, 4, 6, 8]
    assert not cube["valid"].values[CLOUDY].any()


def test_quads_of_a_basemap_open_by_name(tmp_path: Path) -> None:
    quad = np.stack([np.full((SIZE, SIZE), value, np.uint8) for value in (60, 80, 100, 255)])
    quad[3][CLOUDY] = 0
    path = tmp_path / "L15-0252E-1672N.tif"
    profile = {"driver": "GTiff", "count": 4, "height": SIZE, "width": SIZE, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, crs=CRS, transform=GROUND.affine, photometric="RGB", alpha="yes") as file:
        file.write(quad)
    bands = [{"name": name, "common_name": name} for name in ("red", "green", "blue")]
    assets = {"data": {"href": str(path), "type": COG, "eo:bands": [*bands, {"name": "alpha"}]}}
    quads = [item("L15-0252E-1672N", "global_quarterly_2023q3_mosaic", {}, assets)]
    for source in ({"catalog": save(tmp_path, quads)}, {"files": str(path), "period": "any"}):
        cube = opened({"sensor": "planet-basemap", **source}).compute()
        assert [int(cube[layer].values[8, 8]) for layer in ("red", "green", "blue")] == [60, 80, 100]
        assert not cube["valid"].values[CLOUDY].any()
        assert cube["valid"].values[4:, 4:].all()


@pytest.mark.parametrize("preset", STARTERS)
def test_a_file_to_start_from_opens_as_written(preset: str, tmp_path: Path) -> None:
    path = tmp_path / "cube.yaml"
    path.write_text(starter_yaml(preset, region="-139.3,69.5,-138.9,69.65", year=2024))
    recipe = load_cube_config(path).recipe()
    assert recipe.region is not None
    if preset == "tss-v1":
        assert recipe.layers == (
            *("ndvi", "blue", "green", "red", "nir", "relative_elevation", "slope"),
            *("tc_brightness", "tc_greenness", "tc_wetness"),
        )


@pytest.mark.parametrize(
    ("region", "crs"),
    [("-139.3,69.5,-138.9,69.65", "EPSG:3413"), ("-58.6,-62.3,-58.2,-62.1", "EPSG:3031"), ("r412c088", "EPSG:3413")],
)
def test_the_grid_is_that_of_the_hemisphere(region: str, crs: str) -> None:
    assert f"crs: '{crs}'" in starter_yaml("sentinel2", region=region, year=2024)


def test_the_command_writes_it_once(tmp_path: Path) -> None:
    from rtsx.cli.cube import app

    path = tmp_path / "cube.yaml"
    arguments = [
        "init",
        "--preset",
        "tss-v1",
        "--region",
        "-139.3,69.5,-138.9,69.65",
        "--year",
        "2024",
        "--out",
        str(path),
    ]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert load_cube_config(path).recipe().layers is not None
    assert f"`rtsx cube build {path} --only trend " in path.read_text()
    assert CliRunner().invoke(app, arguments).exit_code != 0


@pytest.mark.parametrize(
    ("preset", "region", "text"),
    [
        ("tss", "1,2,3,4", "Did you mean 'tss-v1'"),
        ("tss-v1", "1,2,3", "west,south,east,north"),
        ("tss-v1", "1,2,3,99", "south below north"),
        ("tss-v1", "nowhere.gpkg", "nowhere.gpkg"),
        ("tss-v1", "-58.6,-62.3,-58.2,-62.1", "has none south of the equator"),
    ],
)
def test_what_no_cube_is_started_from(preset: str, region: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        starter_yaml(preset, region=region, year=2024)
    assert text in str(caught.value)


def test_a_trend_has_a_cloud_cover_of_its_own() -> None:
    source = {"sensor": "landsat", "trend": {"window": "2005-2024", "max_cloud_cover": 95}, "layers": ["tc_greenness"]}
    filled = SensorConfig(name="landsat").filled({**source, "stac": {}})
    assert "max_cloud_cover" not in filled["stac"]
    assert SensorConfig(name="landsat").filled({"layers": ["red"], "stac": {}})["stac"]["max_cloud_cover"] == 70
