"""Real STAC documents: Sentinel-2 at the antimeridian, PlanetScope in two editions, Landsat of Greenland."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely import box

from rtsx.config import CubeConfig
from rtsx.cube.images import BandRequest, Period
from rtsx.cube.rasterio import RasterHeader, read_header, read_window
from rtsx.cube.stac import StacCatalog, StacItems, images_of
from rtsx.cube.stac.assets import packing_of, select_asset
from rtsx.errors import CubeError
from rtsx.redaction import has_secret

WORLD = box(-180, -90, 180, 90)


@pytest.fixture(scope="session")
def documents(real_data: Path) -> Path:
    """Folder of STAC documents."""
    return real_data / "stac_json"


def item(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.fixture
def offline(tmp_path: Path) -> Callable[[str], RasterHeader]:
    """Reader of headers for items whose files are far away: each says that it holds uint16 with nodata 0."""
    file = tmp_path / "any.tif"
    profile = {"driver": "GTiff", "count": 1, "height": 2, "width": 2, "dtype": "uint16", "nodata": 0}
    with rasterio.open(file, "w", crs="EPSG:4326", transform=Affine(0.1, 0, 0, 0, -0.1, 1), **profile) as made:
        made.write(np.zeros((1, 2, 2), np.uint16))
    header = read_header(file)
    return lambda path: replace(header, path=path)


SENTINEL2 = {
    "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157.json": (32601, 5.09, -0.1),
    "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022158.json": (32601, 5.09, -0.1),
    "S2B_MSIL2A_20200914T231559_N0500_R087_T01VCG_20230315T224658.json": (32601, 5.0, -0.1),
    "odc_S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json": (32606, 2.12, 0.0),
    "odc_S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531_raster_ext.json": (32606, 2.12, 0.0),
    "pc_sentinel-2-item.json": (32624, 4.0, -0.1),
}


def test_no_published_item_passes_for_signed(documents: Path) -> None:
    items = [one for one in map(item, documents.rglob("*.json")) if isinstance(one, dict) and "assets" in one]
    assert any("tilejson" in one["assets"] for one in items)
    assert not [asset["href"] for one in items for asset in one["assets"].values() if has_secret(asset["href"])]


@pytest.mark.parametrize("name", SENTINEL2)
def test_sentinel2(documents: Path, name: str, offline: Callable[[str], RasterHeader]) -> None:
    epsg, baseline, offset = SENTINEL2[name]
    stated = item(documents / "sentinel2_arctic" / name)
    assert float(stated["properties"]["s2:processing_baseline"]) == baseline
    wanted = [BandRequest(name=band) for band in ("blue", "green", "red", "nir", "B8A", "scl")]
    (image,) = images_of([stated], wanted, read_header=offline)
    sizes = {name: bands.geobox.shape[0] for name, bands in image.bands.items()}
    assert sizes == {"blue": 10980, "green": 10980, "red": 10980, "nir": 10980, "B8A": 5490, "scl": 5490}
    for layer in ("blue", "green", "red", "nir", "B8A"):
        bands = image.bands[layer]
        assert (bands.geobox.crs.epsg, bands.scale_factor, bands.dtype) == (epsg, 1e-4, "uint16")
        assert bands.add_offset == pytest.approx(offset)
        assert bands.nodata == 0
    assert (image.bands["scl"].scale_factor, image.bands["scl"].add_offset) == (1, 0)
    assert image.time is not None
    assert image.time.tzinfo is UTC
    assert image.cloud_cover == stated["properties"]["eo:cloud_cover"]
    says_sun = {"view:sun_azimuth", "s2:mean_solar_azimuth"} & set(stated["properties"])
    assert (image.sun_azimuth is not None, image.sun_elevation is not None) == (bool(says_sun), bool(says_sun))
    assert image.footprint is not None
    # The footprint has the size of a scene, and not of the way around the world.
    assert image.footprint.area < 10


def test_a_folder_of_sentinel2_at_the_antimeridian(documents: Path) -> None:
    scenes = [item(file) for file in sorted((documents / "sentinel2_arctic").glob("S2*.json"))]
    source = StacItems(scenes)
    red = [BandRequest(name="red")]
    for area in (box(179.8, 66, 179.9, 66.1), box(-179.9, 66, -179.8, 66.1)):
        (image,) = source.find(area, None, red)  # two files describe one scene
        assert image.id.startswith("S2A_T01WCP")
    (sliver,) = source.find(box(-179.5, 60.2, -179.4, 60.3), Period(date(2020, 9, 1), date(2020, 9, 30)), red)
    assert "S2RP" in sliver.id
    assert source.find(box(0, 66, 1, 67), None, red) == ()


def test_planetscope_with_all_metadata(documents: Path, real_data: Path) -> None:
    catalog = StacCatalog(str(documents / "planet_open_stac/stac/education/bloom/collection.json"))
    layers = ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir")
    wanted = [BandRequest(name=name, asset="ortho_analytic_8b_sr", bands=(name,)) for name in layers[1:]]
    wanted += [BandRequest(name="coastal", asset="analytic_8b_sr"), BandRequest(name="udm2")]
    first, second = catalog.find(WORLD, None, [wish for wish in wanted if wish.name != "nir"])
    assert (first.id, second.id) == ("20220221_145102_07_2457", "20220310_154305_84_2402")
    assert [first.bands[name].bands for name in layers[1:-1]] == [(number,) for number in range(2, 8)]
    assert first.bands["coastal"].bands == (1,)
    assert first.bands["udm2"].bands == tuple(range(1, 9))
    assert (first.bands["red"].scale_factor, first.bands["red"].nodata) == (1e-4, 0)
    assert (first.bands["udm2"].dtype, first.bands["udm2"].nodata) == ("uint8", None)
    assert second.bands["red"].geobox.shape == (8994, 12706)
    # Planet calls it Near-Infrared, with nir as the common name: both find band 8, also without the asset's name.
    for name in ("nir", "Near-Infrared"):
        (image, _) = catalog.find(WORLD, None, [BandRequest(name=name)])
        assert image.bands[name].bands == (8,)


def test_planetscope_without_metadata_needs_its_files(documents: Path, offline: Callable[[str], RasterHeader]) -> None:
    path = documents / "planet_open_stac/stac/open-canada/ft-mckay/psscene/20250801_190510_06_2522"
    stated = item(next(path.glob("*.json")))
    with pytest.raises(
        CubeError, match=r"has no band 'red'\. Its assets and bands are: metadata; sr; udm; xml-metadata"
    ):
        images_of([stated], [BandRequest(name="red")], read_header=offline)
    asked: list[str] = []

    def header(path: str) -> RasterHeader:
        asked.append(path)
        names = ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir")
        grid = GeoBox.from_bbox((400000, 6340000, 440000, 6380000), "EPSG:32612", resolution=3)
        eight: dict[str, Any] = {"scales": (1.0,) * 8, "offsets": (0.0,) * 8, "units": (None,) * 8}
        return replace(offline(path), geobox=grid, dtypes=("uint16",) * 8, nodata=(0,) * 8, descriptions=names, **eight)

    (image,) = images_of(
        [stated], [BandRequest(name="red", asset="sr"), BandRequest(name="udm2", asset="udm")], read_header=header
    )
    assert image.bands["red"].bands == (6,)
    assert image.bands["udm2"].bands == tuple(range(1, 9))
    assert [path.rsplit("_", 2)[-2:] for path in sorted(asked)] == [["SR", "8b.tif"], ["3B", "udm2.tif"]]


def test_every_item_of_planets_catalog_that_states_its_grid(
    documents: Path, offline: Callable[[str], RasterHeader]
) -> None:
    """One of them states a zone in which its ground does not lie: only there a file would be opened."""
    opened: list[str] = []

    def header(path: str) -> RasterHeader:
        opened.append(path)
        return offline(path)

    described = []
    for file in sorted((documents / "planet_open_stac").rglob("*.json")):
        stated = item(file)
        for key, asset in (stated.get("assets") or {}).items():
            if stated.get("type") == "Feature" and asset.get("raster:bands") and asset.get("eo:bands"):
                described.append((stated, key))
    assert len(described) >= 10
    for stated, key in described:
        (image,) = images_of([stated], [BandRequest(name="x", asset=key, bands=(1,))], read_header=header)
        assert image.footprint is not None
    assert {Path(path).name for path in opened} == {"2024-08-13_analysis_ready_ps_sr.tiff"}


def test_landsat_of_2020_with_its_files(documents: Path) -> None:
    folder = documents / "landsat_greenland"
    source = StacCatalog(str(folder), prefer_local=True)
    wanted = [
        BandRequest(name="red"),
        BandRequest(name="nir08"),
        BandRequest(name="qa", asset="QA_PIXEL.TIF"),
        BandRequest(name="SR_B2"),
    ]
    (image,) = source.find(box(-39.5, 72, -39, 72.3), Period(date(2015, 7, 10), date(2015, 7, 10)), wanted)
    assert image.id == "LC08_L2SP_005009_20150710_20200908_02_T2"
    assert image.time == datetime(2015, 7, 10, tzinfo=UTC)
    assert image.cloud_cover == 54.65
    assert image.sun_azimuth == pytest.approx(177.88, abs=0.01)
    assert image.sun_elevation == pytest.approx(40.0, abs=0.01)
    for name, ending in (("red", "SR_B4"), ("nir08", "SR_B5"), ("qa", "QA_PIXEL"), ("SR_B2", "SR_B2")):
        bands = image.bands[name]
        assert Path(bands.href).name.endswith(f"{ending}.TIF")
        assert Path(bands.href).parent == folder
        assert bands.geobox == read_header(bands.href).geobox
        assert bands.dtype == "uint16"
    assert (image.bands["red"].nodata, image.bands["qa"].nodata) == (0, None)
    pixels = read_window(image.bands["red"].href, (slice(0, 512), slice(0, 512)), bands=image.bands["red"].bands)
    assert np.count_nonzero(pixels) > 100_000
    assert source.find(box(0, 0, 1, 1), None, wanted) == ()
    with pytest.raises(CubeError, match=r"no band 'nir'\. Its assets and bands are: .*SR_B5\.TIF \(SR_B5 nir08\)"):
        source.find(WORLD, None, [BandRequest(name="nir")])


S2_LAYERS = (
    "coastal",
    "blue",
    "green",
    "red",
    "rededge1",
    "rededge2",
    "rededge3",
    "nir",
    "nir08",
    "nir09",
    "swir16",
    "swir22",
)
S2_KEYS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12", "SCL")


@pytest.mark.parametrize(
    ("document", "source", "expected"),
    [
        (
            "sentinel2_arctic/pc_sentinel-2-item.json",
            {"sensor": {"name": "sentinel2", "provider": "planetary-computer"}, "layers": list(S2_LAYERS)},
            S2_KEYS,
        ),
        (
            "sentinel2_arctic/odc_S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json",
            {"sensor": {"name": "sentinel2", "provider": "planetary-computer"}, "layers": list(S2_LAYERS)},
            S2_KEYS,
        ),
        (
            "sentinel2_arctic/S2B_MSIL2A_20200914T231559_N0500_R087_T01VCG_20230315T224658.json",
            {"sensor": {"name": "sentinel2", "provider": "element84"}, "layers": list(S2_LAYERS)},
            (*S2_LAYERS, "scl"),
        ),
        (
            "landsat_greenland/LC08_L2SP_005009_20150710_20200908_02_T2_SR_stac.json",
            {"sensor": "landsat", "catalog": "x", "quality": {"asset": "QA_PIXEL.TIF"}},
            (*(f"SR_B{band}.TIF" for band in range(2, 8)), "QA_PIXEL.TIF"),
        ),
        (
            "planet_open_stac/stac/education/bloom/20220221_145102_07_2457/20220221_145102_07_2457.json",
            {"sensor": "planetscope", "catalog": "x", "asset": "ortho_analytic_8b_sr"},
            (*["20220221_145102_07_2457_3B_AnalyticMS_SR_8b_tif"] * 4, "20220221_145102_07_2457_3B_udm2_tif"),
        ),
    ],
)
def test_products_by_name_find_their_assets_in_real_items(
    documents: Path, document: str, source: dict[str, Any], expected: tuple[str, ...]
) -> None:
    found = item(documents / document)
    wanted = CubeConfig.model_validate({"sources": {"scene": source}}).recipe().sources[0].wanted
    chosen = [select_asset(found, one) for one in wanted]
    assert tuple(one.asset for one in chosen) == expected
    if "sentinel2" in document:
        offsets = {packing_of(found, one.asset, band=one.bands[0]).offset for one in chosen[:-1] if one.bands}
        assert offsets == {0.0 if "2019" in document else -0.1}
