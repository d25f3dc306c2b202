"""A season of Sentinel-2 as one image: reprocessed items, offsets and zones mixed, against every image on its own and NumPy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

import rtsx
from rtsx.cube.images import BandRequest
from rtsx.cube.mask_rules import mask_rule
from rtsx.cube.recipe import LayerRecipe, QualityRecipe, SourceRecipe
from rtsx.cube.stac import StacItems
from rtsx.cube.stac.assets import newest_processing
from rtsx.errors import CubeError
from rtsx.grid import lonlat_polygon
from tests.cube.scenes import CENTRE, CUBE, GRID, recipe

PASSES, TWICE, SIZE = 12, 8, 26
ZONES = {"07WFT": "EPSG:32607", "08WMC": "EPSG:32608", "09WVT": "EPSG:32609"}


def item(folder: Path, number: int, rng: np.random.Generator, *, anew: bool) -> dict[str, Any]:
    """A product of one pass as Planetary Computer has it; processed anew, its values are 1000 higher."""
    tile = list(ZONES)[number % 3]
    day, satellite = f"2019{7 + number // 28:02d}{1 + number % 28:02d}", "AB"[number % 2]
    baseline = "05.00" if anew or number % 4 == 0 else "02.13"
    name = f"S2{satellite}_MSIL2A_{day}T212529_R043_T{tile}_{20230101 if anew else day}T003344"
    x, y = Transformer.from_crs(GRID.crs, ZONES[tile], always_xy=True).transform(*CENTRE)
    affine = Affine(60, 0, x - SIZE * 30, 0, -60, y + SIZE * 30)
    stored = rng.integers(1, 6000, (2, SIZE, SIZE)).astype(np.uint16) + (1000 if baseline == "05.00" else 0)
    stored[:, rng.random((SIZE, SIZE)) < 0.02] = 0
    scl = rng.choice(np.array([4, 5, 9, 3, 0], np.uint8), (SIZE, SIZE), p=[0.3, 0.3, 0.2, 0.1, 0.1])
    assets = {}
    for key, pixels in (("B04", stored[0]), ("B08", stored[1]), ("SCL", scl)):
        path = folder / f"{name}_{key}.tif"
        profile = {"driver": "GTiff", "count": 1, "height": SIZE, "width": SIZE, "dtype": pixels.dtype}
        with rasterio.open(path, "w", **profile, crs=ZONES[tile], transform=affine) as file:
            file.write(pixels, 1)
        bands = [{"name": key, "common_name": {"B04": "red", "B08": "nir"}.get(key, "scl")}]
        described = [{"data_type": pixels.dtype.name, **({} if key == "SCL" else {"nodata": 0})}]
        assets[key] = {"href": str(path), "eo:bands": bands, "raster:bands": described}
    outline = lonlat_polygon(GeoBox((SIZE, SIZE), affine, ZONES[tile]).extent.geom, ZONES[tile])
    properties = {
        "datetime": f"{day[:4]}-{day[4:6]}-{day[6:]}T21:25:29Z",
        "s2:processing_baseline": baseline,
        "eo:cloud_cover": float(number % 7),
        "proj:epsg": int(ZONES[tile][5:]),
        "proj:shape": [SIZE, SIZE],
        "proj:transform": list(affine)[:6],
    }
    return {
        "type": "Feature",
        "id": name,
        "collection": "sentinel-2-l2a",
        "geometry": outline.__geo_interface__,
        "properties": properties,
        "assets": assets,
    }


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Items that count, and older ones of the same passes."""
    folder, rng = tmp_path_factory.mktemp("season"), np.random.default_rng(43)
    newest = [item(folder, number, rng, anew=number < TWICE) for number in range(PASSES)]
    older = [item(folder, number, rng, anew=False) for number in range(TWICE)]
    return newest, older


def cube_of(items: list[dict[str, Any]], *names: str, **fields: Any) -> xr.Dataset:
    layers = tuple(
        LayerRecipe(wanted=BandRequest(name=name, scale_factor=1e-4), resampling="nearest") for name in names
    )
    quality = QualityRecipe(wanted=BandRequest(name="scl", asset="SCL"), rule=mask_rule("sentinel2-scl", data=None))
    source = SourceRecipe(name="s2", images=StacItems(items), layers=layers, quality=quality, **fields)
    return rtsx.open_cube(recipe(source, chunk=128), CUBE).compute()


def test_a_season_counts_every_pass_once_and_equals_numpy(
    season: tuple[list[dict[str, Any]], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, older = season
    single = cube_of(newest, "red", group="item")
    assert single.sizes["time"] == PASSES
    used = single["quality_s2"].values == 2
    seen = used.any(axis=0)
    assert seen.mean() > 0.9
    monkeypatch.setattr("rtsx.cube.chunk_loader._STACK_BYTES", PASSES * 128 * 3 * 60)  # in two parts
    made = cube_of([*older, *newest], "red", composite="median")
    exact = np.nanmedian(np.where(used, single["red"].values, np.nan).astype(float)[:, seen], axis=0)
    np.testing.assert_array_equal(made["red"].values[seen], np.floor(exact + 0.5))
    np.testing.assert_array_equal(made["valid"].values, seen)
    assert made["red"].attrs["add_offset"] == -0.1


def test_of_57_passes_43_came_twice() -> None:
    """As in 2019 over one piece of the Arctic: every pass counts once, whatever the order of the answer."""

    def named(number: int, baseline: str) -> dict[str, Any]:
        day = f"2019{7 + number // 28:02d}{1 + number % 28:02d}"
        name = f"S2A_MSIL2A_{day}T212529_R043_T07WFT_{2023 if baseline == '05.00' else 2019}0101T003344"
        return {"id": name, "properties": {"datetime": f"{day}T212529Z", "s2:processing_baseline": baseline}}

    newest = [named(number, "05.00") for number in range(57)]
    both = [
        item for pair in zip(newest, [named(number, "02.13") for number in range(43)], strict=False) for item in pair
    ]
    assert newest_processing([*both, *newest[43:]]) == newest


def test_a_medoid_is_one_of_the_images(season: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> None:
    items = [*season[1][:9], *season[0][:9]]
    single, made = (cube_of(items, "red", "nir", **how) for how in ({"group": "item"}, {"composite": "medoid"}))
    stack = np.stack([single["red"].values, single["nir"].values], axis=-1).astype(float)
    used = single["quality_s2"].values == 2
    for y, x in ((10, 10), (47, 50), (80, 30)):
        points = stack[used[:, y, x], y, x]
        sums = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1)).sum(1)
        chosen = (points == [made["red"].values[y, x], made["nir"].values[y, x]]).all(1)
        assert sums[chosen].min() == pytest.approx(sums.min())


@pytest.mark.parametrize("composite", ["average", "p101", "p", "Median"])
def test_there_is_no_such_composite(composite: str) -> None:
    with pytest.raises(CubeError, match="first, best, mean, median, medoid, or a percentile from p0 to p100"):
        cube_of([], "red", composite=composite)
