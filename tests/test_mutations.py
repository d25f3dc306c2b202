"""Documents that were changed at one place: each is read, or refused by an error of ours that names the place."""

import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import shapely
import yaml
import zarr

from rtsx.campaign.layout import CAMPAIGN, YearLayout
from rtsx.campaign.ledger import CampaignLedger as OfYear
from rtsx.campaign.ledger import Lease, read_prices, write_prices
from rtsx.campaign.plan import read_plan, require_same_map, write_plan
from rtsx.campaign.recipe import Prices
from rtsx.campaign.records import CommitRecord, Failure, RunRecord
from rtsx.campaign.report import collect_records
from rtsx.campaign.status import campaign_status, status_of
from rtsx.config import (
    load_campaign_config,
    load_cube_config,
    load_evaluate_config,
    load_train_config,
)
from rtsx.config.order import load_order_config
from rtsx.cube.build_state import PartRecord
from rtsx.cube.chunk_loader import MissingImage
from rtsx.cube.images import BandRequest, Period
from rtsx.cube.native import NativeImages
from rtsx.cube.stac import StacCatalog
from rtsx.errors import CubeError, MissingCoverageWarning, RtsxError
from rtsx.evaluation.folds import Fold, FoldPlan
from rtsx.model.bundle_io import read_item
from rtsx.ordering.order import Ledger, OrderEntry
from rtsx.ordering.stac import StaticCatalog, scene_of
from rtsx.storage.object_store import MemoryObjects
from rtsx.storage.zarr import BUILD, COMPLETE
from rtsx.synthetic import demo_bundle_path
from tests.campaign.records import NOW, a_failure, a_lease, a_mark, a_plan, a_run
from tests.mutations import json_mutations, yaml_mutations

COUNT = int(os.environ.get("RTSX_MUTATIONS", "40"))
"""Documents of each of 15 kinds of JSON and 13 configs. RTSX_MUTATIONS=120 makes 1,800 and 1,560 of them, in a minute."""
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
AREA = shapely.box(-141, 69, -138, 71)
PLAN = a_plan(rows=2, columns=2)
ITEM: dict[str, Any] = {
    "type": "Feature", "stac_version": "1.0.0", "id": "a", "collection": "c", "links": [{"rel": "self", "href": "a.json"}],
    "geometry": {"type": "Polygon", "coordinates": [[[-140, 69], [-139, 69], [-139, 70], [-140, 70], [-140, 69]]]},
    "bbox": [-140, 69, -139, 70],
    "properties": {
        "datetime": "2024-07-15T20:00:00Z", "eo:cloud_cover": 3, "proj:epsg": 32607, "proj:shape": [100, 100],
        "proj:transform": [400, 0, 540000, 0, -1200, 7770000, 0, 0, 1], "view:sun_azimuth": 170.0, "view:sun_elevation": 40,
        "updated": "2024-08-01T00:00:00Z", "s2:processing_baseline": "05.10", "s2:product_uri": "S2A_MSIL2A_20240715.SAFE",
    },
    "assets": {
        "red": {
            "href": "red.tif", "type": "image/tiff", "roles": ["data"], "eo:bands": [{"name": "B04", "common_name": "red"}],
            "raster:bands": [{"data_type": "uint16", "nodata": 0, "scale": 0.0001, "offset": -0.1}], "file:size": 12,
            "file:checksum": "1220" + "ab" * 32,
        },
    },
}  # fmt: skip
COLLECTION: dict[str, Any] = {
    "type": "Collection", "stac_version": "1.0.0", "id": "c", "description": "", "license": "other",
    "extent": {"spatial": {"bbox": [[-180, 60, 180, 90]]}, "temporal": {"interval": [["2020-01-01T00:00:00Z", None]]}},
    "links": [{"rel": "item", "href": "./a.json"}, {"rel": "root", "href": "./catalog.json"}],
}  # fmt: skip
BANDS: dict[str, Any] = {
    "group": "images/a", "arrays": ["red"], "crs": "EPSG:32607", "transform": [10, 0, 540000, 0, -10, 7770000],
    "shape": [64, 64], "dtype": "uint16", "nodata": "0", "scale_factor": 1.0, "add_offset": 0.0, "asset": "image",
}  # fmt: skip
INDEX: dict[str, Any] = {
    "s": [{
        "id": "a", "time": "2024-07-15T20:00:00+00:00", "footprint": shapely.box(-140, 69, -139, 70).wkt,
        "cloud_cover": 3.0, "sun": [170.0, None], "bands": {"red": BANDS},
    }]
}  # fmt: skip
CUBE = {"grid": {"crs": "EPSG:3413", "resolution": 10}, "sources": {"s": {"files": "a.tif", "layers": ["red"]}}}
LAYOUT = YearLayout(PLAN.year)


def stored(key: str, content: bytes) -> MemoryObjects:
    objects = MemoryObjects()
    write_plan(objects, PLAN)
    write_prices(objects, Prices(device_hour=1.0), year=PLAN.year)
    objects.put(key, content)
    return objects


def document(key: str) -> Any:
    return json.loads(stored("x", b"").get(key) or b"")


def of_status(**records: Any) -> str:
    facts: dict[str, Any] = {"marked": {}, "leases": (), "failures": {}, "runs": ()}
    return str(status_of(PLAN, **(facts | records), prices=Prices(), now=NOW))


def of_mark(content: bytes) -> None:
    mark = CommitRecord.from_json(content)
    collect_records([mark, a_mark((0, 1))])
    for key in mark.objects:
        with suppress(OSError):
            Path(key)


def of_failure(content: bytes) -> None:
    failure = Failure.from_json(content)
    of_status(failures={failure.cell: failure})


def of_catalog(folder: Path, item: bytes, collection: bytes) -> None:
    (folder / "a.json").write_bytes(item)
    (folder / "collection.json").write_bytes(collection)
    period = Period(datetime(2024, 1, 1).date(), datetime(2024, 12, 31).date())
    StacCatalog(str(folder / "collection.json")).find(AREA, period, [BandRequest(name="red")])


def of_order(folder: Path, item: bytes, collection: bytes) -> None:
    (folder / "a.json").write_bytes(item)
    (folder / "collection.json").write_bytes(collection)
    period = Period(datetime(2024, 1, 1).date(), datetime(2024, 12, 31).date())
    for found in StaticCatalog(str(folder / "collection.json")).search(AREA, period):
        scene_of(found)


def of_store(folder: Path, attributes: dict[str, Any]) -> str:
    path = folder / "a.zarr"
    root = zarr.create_group(path, attributes={COMPLETE: True, BUILD: {"state": "complete"}}, overwrite=True)
    root.create_group("build", attributes={"index": INDEX, "config": yaml.safe_dump(CUBE)} | attributes)
    return str(path)


def of_ledger(folder: Path, content: bytes) -> None:
    (folder / "ledger.json").write_bytes(content)
    ledger = Ledger.load(folder / "ledger.json")
    assert ledger.cost_km2 is not None


def of_index(folder: Path, content: bytes) -> None:
    try:
        index = json.loads(content)
    except ValueError:
        index = content.decode(errors="replace")
    with suppress(ValueError):  # zarr itself refuses what is no JSON
        path = of_store(folder, {"index": index})
        NativeImages(path, "s").find(AREA, None, [BandRequest(name="red")])


def folds() -> str:
    return FoldPlan(folds=(Fold(name="a", trained_on="b", training=("x",), validation=(), test=("y",)),)).to_json()


def ledger() -> Any:
    return {
        "version": 1,
        "orders": [vars(OrderEntry(name="a", scenes={"s": 1.0}, submitted="2024-07-01T00:00:00+00:00"))],
    }


Reader = Callable[[Path, bytes], object]
JSON: dict[str, tuple[Any, Reader]] = {
    "mark": (json.loads(a_mark((0, 0)).to_json()), lambda _, raw: of_mark(raw)),
    "failure": (json.loads(a_failure((0, 0)).to_json()), lambda _, raw: of_failure(raw)),
    "lease": (
        json.loads(a_lease((0, 0), ends_in_s=9).to_json()),
        lambda _, raw: of_status(leases=(Lease.from_json(raw),)),
    ),
    "run": (json.loads(a_run().to_json()), lambda _, raw: of_status(runs=(RunRecord.from_json(raw), a_run()))),
    "plan": (document(LAYOUT.plan), lambda _, raw: read_plan(stored(LAYOUT.plan, raw), PLAN.year)),
    "campaign": (document(CAMPAIGN), lambda _, raw: require_same_map(stored(CAMPAIGN, raw), PLAN)),
    "prices": (
        document(f"settings/{PLAN.year}.json"),
        lambda _, raw: of_status() + str(read_prices(stored(f"settings/{PLAN.year}.json", raw), year=PLAN.year)),
    ),
    "bundle": (
        json.loads((Path(demo_bundle_path()) / "item.json").read_bytes()),
        lambda _, raw: read_item(raw, where="item.json"),
    ),
    "part": (
        json.loads(PartRecord({"a": "b"}, (MissingImage("s", "i"),)).to_json()),
        lambda _, raw: PartRecord.from_json(raw.decode(errors="replace")),
    ),
    "folds": (json.loads(folds()), lambda _, raw: FoldPlan.from_json(raw.decode(errors="replace"))),
    "orders": (ledger(), of_ledger),
    "item": (ITEM, lambda folder, raw: of_catalog(folder, raw, json.dumps(COLLECTION).encode())),
    "collection": (COLLECTION, lambda folder, raw: of_catalog(folder, json.dumps(ITEM).encode(), raw)),
    "ordered item": (ITEM, lambda folder, raw: of_order(folder, raw, json.dumps(COLLECTION).encode())),
    "index": (INDEX, of_index),
}


@pytest.fixture(autouse=True)
def _warned() -> Iterator[None]:
    """What is set aside is told by warnings, which are errors elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("kind", JSON)
def test_json(kind: str, tmp_path: Path) -> None:
    document, read = JSON[kind]
    read(tmp_path, json.dumps(document).encode())
    for raw in json_mutations(document, count=COUNT, seed=len(kind)):
        told = refusal(lambda raw=raw: read(tmp_path, raw), raw)
        assert told is None or len(told) > 20


def refusal(read: Callable[[], object], raw: bytes) -> str | None:
    """What an error of ours says; None where there is none."""
    try:
        read()
    except RtsxError as error:
        return str(error)
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__}: {error}: {raw[:3000]!r}") from error
    return None


LOADERS = {
    "campaign": load_campaign_config,
    "cube": load_cube_config,
    "order": load_order_config,
    "evaluate": load_evaluate_config,
    "train": load_train_config,
    "demo-train": load_train_config,
}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_yaml(path: Path, tmp_path: Path) -> None:
    load = next(load for name, load in LOADERS.items() if path.stem.startswith(name))
    cube = yaml.safe_load(path.read_text()).get("cube")
    if isinstance(cube, str):
        (tmp_path / cube).write_text((CONFIGS / cube).read_text())
    changed = tmp_path / path.name
    text = re.sub(r"(?m)^ *#.*\n| +#.*$", "", path.read_text())  # comments cannot be wrong
    for raw in yaml_mutations(text, count=COUNT, seed=len(path.stem)):
        changed.write_bytes(raw)
        told = refusal(lambda: load(changed), raw)
        assert told is None or str(tmp_path) in told


@pytest.mark.parametrize("group", ["../other", "/etc", "file:///etc", "a/../../b", "https://h/x", "reference::x", ""])
def test_an_index_names_nothing_outside_its_store(group: str, tmp_path: Path) -> None:
    entry = {**INDEX["s"][0], "bands": {"red": {**BANDS, "group": group}}}
    path = of_store(tmp_path, {"index": {"s": [entry]}})
    with pytest.raises(CubeError, match=r"its index.*is no group of this store"):
        NativeImages(path, "s").find(AREA, None, [BandRequest(name="red")])


def test_one_odd_item_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    odd = {**ITEM, "id": "odd", "assets": [1]}
    (tmp_path / "collection.json").write_text(json.dumps({"type": "FeatureCollection", "features": [odd, ITEM, "x"]}))
    with pytest.warns(MissingCoverageWarning) as told:
        found = StacCatalog(str(tmp_path / "collection.json")).find(AREA, None, [BandRequest(name="red")])
    assert [image.id for image in found] == ["a"]
    assert [str(one.message).split(": ")[1] for one in told] == [
        "Item odd of c has assets that are no names and values. It is left out.",
        "'x' is no STAC item. It is left out.",
    ]


def test_a_damaged_record_is_named_by_the_status_and_stops_nothing() -> None:
    objects = stored(f"{LAYOUT.failures}/r000c000.json", b'{"cell": 3}')
    objects.put(f"{LAYOUT.leases}/r000c001.000001.json", b"{")
    objects.put(f"{LAYOUT.runs}/a.json", b"[]")
    objects.put(LAYOUT.mark((0, 1)), b'{"state": 1}')
    objects.put(LAYOUT.mark((0, 0)), a_mark((0, 0)).to_json().encode())
    status = campaign_status(objects, PLAN, prices=Prices())
    assert len(status.damaged) == 3
    assert all(name in str(status) for name in ("r000c000.json", "r000c001.000001.json", "runs/a.json"))
    damaged: list[str] = []
    assert collect_records(OfYear(objects, LAYOUT).marks(damaged=damaged)).valid.sum() == a_mark((0, 0)).n_valid
    assert "r000c001" in damaged[0]
