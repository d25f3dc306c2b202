"""Images of Sentinel-2 that were processed anew count once."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from shapely import box
from shapely.geometry import mapping

from rtsx.cube.images import Period, Wanted
from rtsx.cube.open import open_cube
from rtsx.cube.recipe import CubeRecipe, LayerRecipe, SourceRecipe
from rtsx.cube.stac import StacItems
from rtsx.cube.stac.assets import newest_processing
from rtsx.grid import Grid
from rtsx.ordering import StacProvider, StaticCatalog

OLD = "S2B_MSIL2A_20210721T212529_N0301_R043_T07WFT_20210722T003344"
NEW = "S2B_MSIL2A_20210721T212529_N0500_R043_T07WFT_20230215T112233"
OTHER_DAY = "S2B_MSIL2A_20210724T213529_N0301_R086_T07WFT_20210725T003344"
OTHER_TILE = "S2B_MSIL2A_20210721T212529_N0301_R043_T07WET_20210722T003344"


def item(name: str, ground: Any = None, **properties: Any) -> dict[str, Any]:
    date = datetime.strptime(name.split("_")[2][:8], "%Y%m%d").replace(tzinfo=UTC)
    return {
        "type": "Feature",
        "id": name,
        "geometry": None if ground is None else mapping(ground),
        "bbox": None if ground is None else list(ground.bounds),
        "properties": {"datetime": date.isoformat()} | properties,
        "assets": {},
    }


def kept(*items: dict[str, Any]) -> list[str]:
    return [str(one["id"]) for one in newest_processing(items)]


WHOLE = box(-139, 69, -138, 70)


@pytest.mark.parametrize("ground", [None, WHOLE])
def test_the_highest_baseline_of_a_pass_counts(ground: Any) -> None:
    names = OLD, NEW, OTHER_DAY, OTHER_TILE
    assert kept(*(item(name, ground) for name in names)) == [NEW, OTHER_DAY, OTHER_TILE]
    assert kept(*(item(name, ground) for name in reversed(names))) == [OTHER_TILE, OTHER_DAY, NEW]


@pytest.mark.parametrize("stated", ["s2:processing_baseline", "processing:version"])
def test_ids_of_earth_search(stated: str) -> None:
    first, second = "S2A_52WDV_20210721_0_L2A", "S2A_52WDV_20210721_1_L2A"
    for baselines, expected in ((("03.01", "05.00"), second), (("05.00", "03.01"), first)):
        items = [item(name, WHOLE, **{stated: one}) for name, one in zip((first, second), baselines, strict=True)]
        assert kept(*items) == [expected]


def test_ids_without_a_baseline_and_other_sensors() -> None:
    planetary = [NEW.replace("_N0500", ""), OLD.replace("_N0301", "")]
    stated = [
        item(name, WHOLE, **{"s2:processing_baseline": one})
        for name, one in zip(planetary, ("05.00", "03.01"), strict=True)
    ]
    assert kept(*stated) == [planetary[0]]
    landsat = item("LC08_L2SP_20210721_02_T1", WHOLE)
    assert kept(landsat, landsat) == [landsat["id"]] * 2


def test_two_strips_of_one_tile_both_count() -> None:
    west, east = box(-139, 69, -138.5, 70), box(-138.6, 69, -138, 70)
    again = NEW.replace("20230215T112233", "20230215T112244")
    assert kept(item(NEW, west), item(again, east)) == [NEW, again]
    assert kept(item(NEW, WHOLE), item(again, WHOLE)) == [again]
    assert kept(item(OLD, WHOLE), item(NEW, west)) == [OLD, NEW]
    assert kept(item(OLD, WHOLE), item(NEW, west), item(again, east)) == [NEW, again]


def _cube(tmp_path: Path, **source: Any) -> Any:
    grid = Grid("EPSG:32607", 10.0, cell_size=32, origin=(500_000.0, 7_700_000.0))
    items = []
    for cloud_cover, (name, value) in enumerate(((OLD, 2000), (NEW, 6000), (OTHER_DAY, 4000))):
        path = tmp_path / f"{name}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", height=32, width=32, count=1, dtype="uint16", crs="EPSG:32607", nodata=0,
            transform=Affine(10, 0, 500_000, 0, -10, 7_700_000),
        ) as file:  # fmt: skip
            file.write(np.full((1, 32, 32), value, np.uint16))
        items.append(
            item(name, **{"eo:cloud_cover": cloud_cover})
            | {"assets": {"B04": {"href": str(path), "eo:bands": [{"name": "B04"}]}}}
        )
    layers = (LayerRecipe(wanted=Wanted(name="red", asset="B04")),)
    recipe = SourceRecipe(name="s2", images=StacItems(items), layers=layers, **source)
    return open_cube(CubeRecipe(grid=grid, sources=(recipe,)), grid[0, 0]).compute()


def _reflectances(layer: Any) -> list[float]:
    values = layer.values.reshape(-1, 32 * 32)[:, 0] * layer.attrs["scale_factor"] + layer.attrs["add_offset"]
    return np.round(values, 4).tolist()


def test_composites_and_series_count_a_pass_once(tmp_path: Path) -> None:
    # 0.5 of the new processing, with its offset, and 0.4 of another day; the old one of the first day says 0.2.
    assert _reflectances(_cube(tmp_path, composite="first").red) == [0.5]
    assert _reflectances(_cube(tmp_path, composite="median").red) == [0.45]
    assert _reflectances(_cube(tmp_path, composite="mean").red) == [0.45]
    series = _cube(tmp_path, group="day")
    assert _reflectances(series.red) == [0.5, 0.4]
    assert series.item_ids.values.tolist() == [NEW, OTHER_DAY]


def test_an_order_takes_a_pass_once(tmp_path: Path) -> None:
    names = OLD, NEW, OTHER_DAY
    for name in names:
        (tmp_path / f"{name}.json").write_text(json.dumps(item(name, WHOLE) | {"stac_version": "1.0.0"}))
    links = [{"rel": "item", "href": f"./{name}.json"} for name in names]
    (tmp_path / "catalog.json").write_text(json.dumps({"type": "Catalog", "id": "s2", "links": links}))
    provider = StacProvider(StaticCatalog(str(tmp_path / "catalog.json")))
    scenes = provider.search(WHOLE, Period(date(2021, 7, 1), date(2021, 7, 31)))
    assert [scene.id for scene in scenes] == [NEW, OTHER_DAY]
