"""Quads of a basemap in a bucket: ordered once, and counted by what is there."""

import json

import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine

pytest.importorskip("planet", reason="needs the extra order")

from rtsx.errors import OrderError
from rtsx.ordering import BucketDelivery, QuadCounts, collect_quads, list_quads, order_quads, quad_ledger
from rtsx.ordering.basemap import QuadRange
from rtsx.ordering.planet import PlanetProvider
from tests.ordering.basemap_server import KEY, NAME, deliver, quad_bytes, red_of
from tests.ordering.planet_server import PlanetServer
from tests.ordering.test_quads import X, Y, api, pauses, region, server  # noqa: F401 - fixtures


@pytest.fixture
def planet(monkeypatch):
    monkeypatch.setenv("PL_API_KEY", KEY)
    running = PlanetServer([])
    yield running
    running.close()


@pytest.fixture
def ordered(planet, api, tmp_path):  # noqa: F811
    """Order the quads of a square of five in tens, or look for them: ``ordered() -> counts``."""
    delivery = BucketDelivery(
        destination="pl:destinations/ours-1", bucket=str(tmp_path / "bucket"), path_prefix="maps/", base_url=planet.url
    )

    def run(side: int = 5, *, collect: bool = False, retry: bool = False) -> QuadCounts:
        provider = PlanetProvider(mosaic=NAME, delivery=delivery, base_url=planet.url, pause=lambda seconds: None)
        provider.batch_size = 10
        table = tmp_path / "out" / "order.parquet"
        with quad_ledger(tmp_path / "order.quads.sqlite") as ledger:
            mosaic = list_quads(api, ledger, table.parent, mosaic=NAME, region=region(api, side), digest=f"{side}")
            if collect:
                collect_quads(provider, ledger, mosaic=mosaic, delivery=delivery, table=table)
            else:
                order_quads(provider, ledger, name="arctic", retry=retry)
            return ledger.counts()

    return run


def messages(tmp_path):
    with quad_ledger(tmp_path / "order.quads.sqlite") as ledger:
        return ledger.named("missing", 99)


def test_quads_are_ordered_once_and_counted_where_they_arrive(planet, server, ordered, tmp_path):  # noqa: F811
    server.not_there = {f"{X}-{Y}"}
    planet.trouble = [("POST", "orders", "lost"), ("POST", "orders", 503)]
    ordered()
    ordered()
    (tmp_path / "order.quads.sqlite").unlink()
    assert ordered().waiting == 24
    first, second, third = planet.orders.values()  # a lost answer, a busy server and a lost ledger order nothing twice
    names = {f"{x}-{y}" for y in range(Y, Y + 5) for x in range(X, X + 5)}
    asked = [name for order in planet.orders.values() for name in order["products"][0]["quad_ids"]]
    assert sorted(asked) == sorted(names - server.not_there)
    assert first["source_type"] == "basemaps"
    assert first["order_type"] == "partial"
    assert first["delivery"] == {"destination": {"ref": "pl:destinations/ours-1", "path_prefix": "maps/"}}

    absent, halved = second["products"][0]["quad_ids"][:2]
    deliver(second, tmp_path / "bucket", state="partial", without={absent}, halved={halved})
    deliver(third, tmp_path / "bucket", state="failed")
    assert ordered(collect=True) == QuadCounts(grid=25, absent=1, asked=24, there=8, missing=6, waiting=10, twice=0)
    told = messages(tmp_path)
    assert "was not delivered: Order has partial" in told[absent]
    assert f"bucket has {len(quad_bytes(X, Y)) // 2} of its" in told[halved]
    assert {name for name, text in told.items() if "order has failed" in text} == set(third["products"][0]["quad_ids"])
    deliver(first, tmp_path / "bucket")
    assert ordered(collect=True).there == 18

    ordered()
    assert len(planet.orders) == 3
    ordered(retry=True)
    again = list(planet.orders.values())[3:]
    assert sorted(again[0]["products"][0]["quad_ids"]) == sorted(told)
    deliver(again[0], tmp_path / "bucket")
    assert ordered(collect=True) == QuadCounts(grid=25, absent=1, asked=24, there=24, missing=0, waiting=0, twice=0)
    items = pq.read_table(tmp_path / "out" / "order.parquet").to_pylist()
    assert len(items) == 24
    for item in items:  # as a cube reads them, which opens no file to find what it needs
        asset = json.loads(item["assets"])["data"]
        x, y = map(int, item["id"].split("-"))
        with rasterio.open(asset["href"]) as file:
            assert file.transform.almost_equals(Affine(*asset["proj:transform"]))
            assert list(file.shape) == asset["proj:shape"]
            assert file.read(1).max() == red_of(x, y)
        assert [band["name"] for band in asset["eo:bands"]] == ["red", "green", "blue", "alpha"]


def test_a_bucket_that_cannot_be_read_loses_nothing(planet, ordered, tmp_path):
    ordered()
    orders = list(planet.orders.values())
    deliver(orders[0], tmp_path / "bucket", with_manifest=False)
    with pytest.raises(OrderError, match=r"manifest\.json cannot be read.*check bucket and path_prefix"):
        ordered(collect=True)
    folder = tmp_path / "bucket" / "maps" / orders[0]["id"]
    (folder / "manifest.json").write_text(json.dumps({"files": [{"size": 1}]}))
    with pytest.raises(OrderError, match=r"manifest\.json"):
        ordered(collect=True)
    assert len(planet.orders) == 3


def test_a_region_that_grows_orders_what_is_new_only(planet, ordered):
    ordered(2)
    ordered(3)
    assert sorted(len(order["products"][0]["quad_ids"]) for order in planet.orders.values()) == [4, 5]


def test_orders_of_another_mosaic_have_other_names(tmp_path):
    names = set()
    for mosaic in ("spring", "summer"):
        with quad_ledger(tmp_path / f"{mosaic}.quads.sqlite") as ledger:
            ledger.begin(mosaic, "one", (QuadRange(0, 0, 1, 1),))
            ledger._rows.execute("INSERT INTO quads (y, x, id, state) VALUES (0, 0, '0-0', 'waiting')")
            ledger.gather("arctic", size=10, retry=False)
            names |= {batch.name for batch in ledger.batches("submitting")}
    assert len(names) == 2


def test_a_bucket_is_an_address():
    with pytest.raises(OrderError, match=r"address such as gs://my-bucket was expected, got 'my-bucket'"):
        BucketDelivery(destination="pl:destinations/ours-1", bucket="my-bucket")
