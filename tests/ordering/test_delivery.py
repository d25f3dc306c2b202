"""Quads of a basemap in a bucket: ordered once, and counted by what is there."""

import json
import random
from contextlib import suppress

import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine

pytest.importorskip("planet", reason="needs the extra order")

from rtsx.errors import OrderError
from rtsx.ordering import BucketDelivery, QuadCounts, collect_quads, list_quads, order_quads, quad_ledger
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

    def run(
        side: int = 5,
        *,
        collect: bool = False,
        retry: bool = False,
        mosaic: str = NAME,
        prefix: str = "maps/",
        confirm=lambda count: None,
    ) -> QuadCounts:
        delivery = BucketDelivery(
            destination="pl:destinations/ours-1",
            bucket=str(tmp_path / "bucket"),
            path_prefix=prefix,
            base_url=planet.url,
        )
        provider = PlanetProvider(mosaic=mosaic, delivery=delivery, base_url=planet.url, pause=lambda seconds: None)
        provider.batch_size = 10
        table = tmp_path / mosaic / "order.parquet"
        with quad_ledger(tmp_path / "order.quads.sqlite") as ledger:
            found = list_quads(
                api,
                ledger,
                table.parent,
                mosaic=mosaic,
                region=region(api, side),
                digest=f"{side}",
                delivery=delivery,
            )
            if collect:
                collect_quads(provider, ledger, mosaic=found, delivery=delivery, table=table)
            else:
                order_quads(
                    provider,
                    ledger,
                    name="arctic",
                    mosaic=found,
                    delivery=delivery,
                    retry=retry,
                    confirm=confirm,
                )
            return ledger.counts()

    return run


def quads_of(*orders):
    return sorted(name for order in orders for name in order["products"][0]["quad_ids"])


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

    assert ordered().missing == 6
    assert len(planet.orders) == 3
    ordered(retry=True)
    again = list(planet.orders.values())[3:]
    assert sorted(again[0]["products"][0]["quad_ids"]) == sorted(told)
    deliver(again[0], tmp_path / "bucket")
    assert ordered(collect=True) == QuadCounts(grid=25, absent=1, asked=24, there=24, missing=0, waiting=0, twice=0)
    items = pq.read_table(tmp_path / NAME / "order.parquet").to_pylist()
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


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_region_that_grows_orders_what_is_new_only(planet, ordered, tmp_path, is_lost):
    ordered(2)
    if is_lost:
        (tmp_path / "order.quads.sqlite").unlink()
    ordered(3)
    assert sorted(len(order["products"][0]["quad_ids"]) for order in planet.orders.values()) == [4, 5]


def test_what_was_not_delivered_is_ordered_again_after_a_change_of_region(planet, ordered, tmp_path):
    ordered(2)
    (first,) = planet.orders.values()
    lost = first["products"][0]["quad_ids"][0]
    deliver(first, tmp_path / "bucket", state="partial", without={lost})
    ordered(3)
    ordered(3, retry=True)
    assert len(quads_of(*planet.orders.values())) == len(set(quads_of(*planet.orders.values()))) + 1
    assert quads_of([*planet.orders.values()][-1]) == [lost]


def test_orders_are_kept_by_mosaic_and_place(planet, ordered, tmp_path):
    other = NAME.replace("q3", "q2")
    for _ in range(2):
        for mosaic in (NAME, other):
            for prefix in ("maps/", "copy"):
                assert ordered(2, mosaic=mosaic, prefix=prefix).waiting == 4
    assert len({order["name"] for order in planet.orders.values()}) == len(planet.orders) == 4
    deliver(next(iter(planet.orders.values())), tmp_path / "bucket")
    assert ordered(2, collect=True).there == 4
    assert ordered(2, prefix="copy").there == 0
    assert ordered(2, prefix="/maps", collect=True).there == 4


def test_orders_that_bring_nothing_or_something_else_count_for_nothing(planet, ordered, tmp_path):
    ordered(2)
    (first,) = planet.orders.values()
    deliver(first, tmp_path / "bucket")
    planet.orders["later"] = first | {"id": "later", "state": "failed", "created_on": "2024-07-02T00:00:00.000Z"}
    assert ordered(2, collect=True).there == 4
    strange = [{"delivery": None}, {"tools": [{"clip": {}}]}, {"products": [first["products"][0] | {"quad_ids": None}]}]
    strange.append({"delivery": {"destination": {"ref": "pl:destinations/another-1"}}})
    planet.orders = {str(number): first | {"id": str(number)} | one for number, one in enumerate(strange)}
    ordered(2)
    ordered(3)
    assert len(quads_of(*[*planet.orders.values()][4:])) == 5


def test_orders_that_are_not_listed_are_asked_for(planet, ordered, tmp_path):
    ordered(2)
    (order,) = planet.orders.values()
    deliver(order, tmp_path / "bucket")
    order["delivery"] = None
    assert ordered(2, collect=True).there == 4


def test_nothing_is_ordered_that_is_not_confirmed(planet, ordered):
    def refuse(count):
        raise OrderError(f"{count} quads are too many.")

    with pytest.raises(OrderError, match="25 quads are too many"):
        ordered(confirm=refuse)
    assert planet.orders == {}


@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_no_quad_is_bought_twice(planet, ordered, tmp_path, monkeypatch, seed):
    chance, submit = random.Random(seed), PlanetProvider.submit

    def killed(provider, batch):
        submit(provider, batch)
        raise KeyboardInterrupt

    mosaics, prefixes = (NAME, NAME.replace("q3", "q2")), ("maps", "copy")
    mosaic, prefix = NAME, "maps"
    taken: dict[tuple, str] = {}
    known: set[str] = set()
    for _ in range(16):
        step, side = chance.choice(("move", "lose", "order", "retry", "collect", "end", "crash")), chance.randint(2, 4)
        if step == "move":
            mosaic, prefix = chance.choice(mosaics), chance.choice(prefixes)
        elif step == "lose":
            (tmp_path / "order.quads.sqlite").unlink(missing_ok=True)
        elif step == "crash":
            with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
                patch.setattr(PlanetProvider, "submit", killed)
                ordered(side, mosaic=mosaic, prefix=prefix)
        elif step == "end":
            for order in planet.orders.values():
                if order["state"] == "queued" and chance.random() < 0.5:
                    state, quads = chance.choice(("success", "partial", "failed")), quads_of(order)
                    without = (
                        quads if state == "failed" else chance.sample(quads, len(quads) // 2 * (state == "partial"))
                    )
                    deliver(order, tmp_path / "bucket", state=state, without=without)
                    for quad in without:
                        del taken[order["products"][0]["mosaic_name"], order["path"], quad]
        else:
            ordered(side, mosaic=mosaic, prefix=prefix, retry=step == "retry", collect=step == "collect")
        for name, order in planet.orders.items():
            if name not in known:
                known.add(name)
                order["path"] = order["delivery"]["destination"]["path_prefix"]
                for quad in quads_of(order):
                    key = order["products"][0]["mosaic_name"], order["path"], quad
                    assert taken.setdefault(key, name) == name
    for order in planet.orders.values():
        if order["state"] == "queued":
            deliver(order, tmp_path / "bucket")
    ordered(side, mosaic=mosaic, prefix=prefix, retry=True)
    for order in planet.orders.values():
        if order["state"] == "queued":
            deliver(order, tmp_path / "bucket")
    counts = ordered(side, mosaic=mosaic, prefix=prefix, collect=True)
    assert counts.there == counts.asked == side * side


def test_a_bucket_is_an_address():
    with pytest.raises(OrderError, match=r"address such as gs://my-bucket was expected, got 'my-bucket'"):
        BucketDelivery(destination="pl:destinations/ours-1", bucket="my-bucket")
