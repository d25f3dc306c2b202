"""Quads of a basemap in a bucket: ordered once, and counted by what is there."""

import copy
import hashlib
import json
import random
import shutil
import sqlite3
from base64 import b64encode
from contextlib import closing, suppress

import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine
from fsspec.implementations.local import LocalFileSystem
from rasterio.errors import RasterioIOError

pytest.importorskip("planet", reason="needs the extra order")

from rtsx.cube.rasterio import read_header, require_raster
from rtsx.errors import CubeError, OrderError
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


def test_a_place_is_one_however_it_is_written(planet, ordered, tmp_path):
    for prefix in ("maps/2025", "/maps//2025/", "maps/./2025", "maps/old/../2025/"):
        ordered(2, prefix=prefix)
        (tmp_path / "order.quads.sqlite").unlink()
    (order,) = planet.orders.values()
    assert order["delivery"]["destination"]["path_prefix"] == "maps/2025"
    deliver(order, tmp_path / "bucket")
    order["delivery"]["destination"]["path_prefix"] = "maps//2025"  # as an earlier version ordered it
    assert ordered(2, prefix="maps//2025/", collect=True).there == 4


def test_an_order_of_another_account_keeps_no_other_waiting(planet, ordered, tmp_path):
    ordered(2)
    foreign = planet.orders.popitem()[0]
    with pytest.raises(
        OrderError, match=rf"Order {foreign}, whose quads are not ordered again: .*404.*another account"
    ):
        ordered(3)
    (order,) = planet.orders.values()
    assert len(quads_of(order)) == 5
    deliver(order, tmp_path / "bucket")
    with pytest.warns(RuntimeWarning, match=f"Order {foreign}"):
        counts = ordered(3, collect=True)
    assert (counts.there, counts.waiting) == (5, 4)


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


def second_order(planet, **other):
    """Another order of the same quads, as of another machine at the same time."""
    (first,) = planet.orders.values()
    planet.orders["b"] = second = copy.deepcopy(first) | {"id": "b", "created_on": "2024-07-01T00:00:01.000Z"} | other
    return first, second


@pytest.mark.parametrize("how", ["cancelled", "failed", "partial"])
@pytest.mark.parametrize("is_lost", [False, True])
def test_a_quad_that_one_order_brings_is_there_whatever_became_of_another(planet, ordered, tmp_path, how, is_lost):
    ordered(2)
    first, second = second_order(planet)
    ordered(2)
    assert ordered(2, collect=True).waiting == 4
    if how == "partial":
        deliver(second, tmp_path / "bucket", state="partial", without=quads_of(second)[:1])
    else:
        second["state"] = how
    assert ordered(2, collect=True).missing == 0  # because the first one is still to come
    deliver(first, tmp_path / "bucket")
    if is_lost:
        (tmp_path / "order.quads.sqlite").unlink()
    assert ordered(2, collect=True).there == 4
    ordered(2, retry=True)
    assert len(planet.orders) == 2


def test_quads_of_a_cancelled_order_are_missing_before_the_bucket_is_looked_at(planet, ordered, tmp_path):
    ordered(2)
    (order,) = planet.orders.values()
    order |= {"state": "cancelled", "last_message": "by a user"}
    (tmp_path / "order.quads.sqlite").unlink()
    assert (ordered(2).missing, len(planet.orders)) == (4, 1)
    assert set(messages(tmp_path).values()) == {"its order has cancelled: by a user"}
    assert (ordered(2, retry=True).waiting, len(planet.orders)) == (4, 2)


@pytest.mark.parametrize("field", ["delivery", "products"])
def test_what_a_list_leaves_out_is_asked_for(planet, ordered, tmp_path, field):
    ordered(2)
    planet.unlisted_fields = (field,)
    (tmp_path / "order.quads.sqlite").unlink()
    ordered(3)
    assert sorted(map(len, map(quads_of, planet.orders.values()))) == [4, 5]


@pytest.mark.parametrize(
    "damage",
    [
        {"delivery": {"destination": "pl:destinations/ours-1"}},
        {"delivery": ["pl:destinations/ours-1"]},
        {"products": None},
        {"products": [{"mosaic_name": NAME, "quad_ids": [5]}]},
        {"products": ["quads"]},
        {"state": None, "products": None},
    ],
)
def test_a_damaged_order_is_named_and_nothing_is_ordered(planet, ordered, tmp_path, damage):
    ordered(2)
    (order,) = planet.orders.values()
    order |= damage
    (tmp_path / "order.quads.sqlite").unlink()
    with pytest.raises(OrderError, match=f"order {order['id']} lacks or garbles"):
        ordered(3)
    assert len(planet.orders) == 1


def test_orders_of_colleagues_are_seen_by_admins_and_warned_of_to_others(planet, ordered, tmp_path):
    ordered(2)
    planet.colleagues = set(planet.orders)
    (tmp_path / "order.quads.sqlite").unlink()
    ordered(2)
    assert len(planet.orders) == 1
    planet.is_admin = False
    (tmp_path / "order.quads.sqlite").unlink()
    with pytest.warns(
        RuntimeWarning, match="quads that a colleague has ordered for the same place are not seen"
    ) as told:
        ordered(2)
    assert (len(planet.orders), len(told)) == (2, 1)


@pytest.mark.parametrize("side", [2, 3])
def test_what_another_machine_orders_during_the_question_is_not_ordered_again(planet, ordered, side):
    def meanwhile(count):
        request = {
            "name": "other",
            "source_type": "basemaps",
            "delivery": {"destination": {"ref": "pl:destinations/ours-1"}},
        }
        request["delivery"]["destination"]["path_prefix"] = "maps"
        quads = [f"{x}-{y}" for x in range(X, X + 2) for y in range(Y, Y + 2)]
        planet.create(request | {"products": [{"mosaic_name": NAME, "quad_ids": quads}]})

    ordered(side, confirm=meanwhile)
    asked = quads_of(*planet.orders.values())
    assert len(asked) == len(set(asked)) == side * side


def test_a_long_run_looks_again_between_its_orders(planet, ordered, monkeypatch):
    submit = PlanetProvider.submit

    def another_too(provider, batch):
        answer = submit(provider, batch)
        if len(planet.orders) == 1:
            rest = sorted({f"{x}-{y}" for x in range(X, X + 5) for y in range(Y, Y + 5)} - set(batch.scene_ids))[:9]
            (order,) = planet.orders.values()
            planet.create(order | {"name": "other", "products": [{"mosaic_name": NAME, "quad_ids": rest}]})
        return answer

    monkeypatch.setattr(PlanetProvider, "submit", another_too)
    monkeypatch.setattr("rtsx.ordering.delivery._LOOK_AGAIN_S", 0.0)
    ordered()
    assert sorted(map(len, map(quads_of, planet.orders.values()))) == [6, 9, 10]
    assert len(set(quads_of(*planet.orders.values()))) == 25


def test_more_than_was_confirmed_is_not_ordered(planet, ordered, tmp_path):
    ordered()
    _, second, third = planet.orders.values()
    second["state"] = "failed"

    def meanwhile(count):
        assert count == 10
        third["state"] = "failed"

    with pytest.raises(OrderError, match=r"15 quads are to be ordered now, and 10 of those that were confirmed"):
        ordered(retry=True, confirm=meanwhile)
    assert len(planet.orders) == 3


def test_a_quad_that_cannot_be_opened_is_missing_by_name(planet, ordered, tmp_path):
    ordered()
    for order in planet.orders.values():
        deliver(order, tmp_path / "bucket")
    first = min(planet.orders.values(), key=lambda order: order["id"])
    quad = quads_of(first)[0]
    path = tmp_path / "bucket" / "maps" / first["id"] / NAME / f"{quad}_quad.tif"
    path.write_bytes(bytes(path.stat().st_size))
    assert ordered(collect=True).there == 24
    assert "cannot be opened as a raster" in messages(tmp_path)[quad]
    ordered(retry=True)
    assert quads_of([*planet.orders.values()][-1]) == [quad]


@pytest.fixture
def delivered(planet, ordered, tmp_path):
    """Files of an order of four quads that was delivered, sorted."""
    ordered(2)
    (order,) = planet.orders.values()
    deliver(order, tmp_path / "bucket")
    return sorted((tmp_path / "bucket").rglob("*.tif"))


def damage(path):
    path.write_bytes(bytes(path.stat().st_size))


def test_every_quad_is_opened_once_before_it_counts(delivered, ordered, tmp_path, monkeypatch):
    files = delivered
    whole = files[3].read_bytes()
    damage(files[3])
    looked = []
    monkeypatch.setattr("rtsx.cube.rasterio.read_header", lambda path: looked.append(path) or read_header(path))
    assert (ordered(2, collect=True).there, len(looked)) == (3, 4)
    assert "cannot be opened as a raster" in messages(tmp_path)[files[3].name.removesuffix("_quad.tif")]
    files[3].write_bytes(whole)
    looked.clear()
    assert ordered(2, collect=True).there == 4
    assert looked == [str(files[3])]
    looked.clear()
    assert (ordered(2, collect=True).there, len(looked)) == (4, 1)  # for what all of them have
    for path in files[1:]:
        damage(path)
    assert ordered(2, collect=True).there == 1


def test_a_quad_that_cannot_be_reached_now_is_not_ordered_again(delivered, planet, ordered, monkeypatch):
    def unreachable(path):
        if path == str(delivered[3]):
            raise CubeError(f"{path} cannot be opened") from RasterioIOError("HTTP response code: 503")
        require_raster(path)

    with monkeypatch.context() as patch:
        patch.setattr("rtsx.cube.rasterio.require_raster", unreachable)
        counts = ordered(2, collect=True)
    assert (counts.there, counts.waiting, counts.missing) == (3, 1, 0)
    assert ordered(2, collect=True).there == 4
    assert len(planet.orders) == 1


@pytest.mark.parametrize("name", ["ETag", "md5Hash"])
def test_what_the_bucket_states_the_md5_of_is_not_opened(delivered, ordered, tmp_path, monkeypatch, name):
    md5 = {str(path): hashlib.md5(path.read_bytes()) for path in delivered}
    written = {"ETag": lambda md5: f'"{md5.hexdigest()}"', "md5Hash": lambda md5: b64encode(md5.digest()).decode()}
    looked = []

    class Bucket(LocalFileSystem):
        def find(self, path, **options):
            found = super().find(path, **options)
            return {
                path: info | ({name: written[name](md5[path])} if path in md5 else {}) for path, info in found.items()
            }

    monkeypatch.setattr("rtsx.ordering.delivery.file_system", lambda url, options: (Bucket(), url))
    monkeypatch.setattr("rtsx.cube.rasterio.read_header", lambda path: looked.append(path) or read_header(path))
    assert (ordered(2, collect=True).there, len(looked)) == (4, 1)  # for what all of them have
    md5[str(delivered[3])] = hashlib.md5(b"other")
    assert ordered(2, collect=True).missing == (1 if name == "md5Hash" else 0)
    assert all("MD5 in the bucket is another" in text for text in messages(tmp_path).values())


def test_where_no_quad_can_be_opened_nothing_is_missing(planet, ordered, tmp_path, monkeypatch):
    ordered()
    for order in planet.orders.values():
        deliver(order, tmp_path / "bucket")
    for path in (tmp_path / "bucket").rglob("*.tif"):
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(
        OrderError, match=r"20 quads in .* cannot be opened, and none can.*Check that this machine may read it"
    ):
        ordered(retry=True)
    (tmp_path / "bucket" / "maps").rename(tmp_path / "gone")
    with pytest.raises(OrderError, match="check bucket and path_prefix"):
        ordered(retry=True)
    assert (len(planet.orders), ordered().missing) == (3, 0)


def test_an_order_whose_folder_has_gone_keeps_no_other_from_the_table(planet, ordered, tmp_path):
    ordered()
    orders = list(planet.orders.values())
    for order in orders:
        deliver(order, tmp_path / "bucket")
    assert ordered(collect=True).there == 25
    shutil.rmtree(tmp_path / "bucket" / "maps" / orders[1]["id"])
    with pytest.warns(RuntimeWarning, match=f"{orders[1]['id']} is empty or has gone"):
        counts = ordered(collect=True)
    assert (counts.there, counts.missing) == (15, 10)
    assert all("is empty or has gone" in text for text in messages(tmp_path).values())
    with pytest.warns(RuntimeWarning, match="has gone"):
        ordered(retry=True)
    assert quads_of([*planet.orders.values()][-1]) == quads_of(orders[1])


def test_the_quads_of_another_mosaic_of_an_order_are_left_alone(planet, ordered, tmp_path):
    ordered(2)
    (order,) = planet.orders.values()
    deliver(order, tmp_path / "bucket")
    folder, other = tmp_path / "bucket" / "maps" / order["id"], NAME.replace("q3", "q2")
    shutil.copytree(folder / NAME, folder / other)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    files += [entry | {"path": entry["path"].replace(NAME, other)} for entry in files]
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    order["products"].append(order["products"][0] | {"mosaic_name": other})
    assert ordered(2, collect=True).there == 4
    items = pq.read_table(tmp_path / NAME / "order.parquet").to_pylist()
    assert all(f"/{NAME}/" in json.loads(item["assets"])["data"]["href"] for item in items)


def test_what_was_delivered_as_an_archive_is_told_and_not_ordered_again(planet, ordered, tmp_path):
    ordered()
    orders = list(planet.orders.values())
    for order in orders:
        deliver(order, tmp_path / "bucket")
    folder = tmp_path / "bucket" / "maps" / orders[0]["id"]
    unpacked = tmp_path / "unpacked"
    folder.rename(unpacked)
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"files": [{"path": "all.zip", "size": 2}]}))
    (folder / "all.zip").write_bytes(b"PK")
    for step in ({"collect": True}, {"retry": True}):
        with pytest.warns(RuntimeWarning, match=r"as an archive, all\.zip\. Unpack it there with the manifest"):
            counts = ordered(**step)
        assert (counts.there, counts.missing, counts.waiting) == (15, 0, 10)
    assert len(planet.orders) == 3
    shutil.copytree(unpacked, folder, dirs_exist_ok=True)
    assert ordered(collect=True).there == 25


@pytest.mark.parametrize(
    "damage",
    [{"digests": {"sha256": 5}}, {"digests": {"md5": "abc"}}, {"digests": ["md5"]}, {"size": "12"}],
)
def test_an_odd_manifest_is_named_and_stops_no_other(planet, ordered, tmp_path, damage):
    ordered()
    orders = list(planet.orders.values())
    for order in orders:
        deliver(order, tmp_path / "bucket")
    path = tmp_path / "bucket" / "maps" / orders[0]["id"] / "manifest.json"
    files = json.loads(path.read_text())["files"]
    path.write_text(json.dumps({"files": [entry | damage for entry in files]}))
    with pytest.warns(RuntimeWarning, match=f"{orders[0]['id']}/manifest.json, {NAME}/.*_quad.tif"):
        counts = ordered(collect=True)
    assert (counts.there, counts.waiting) == (15, 10)


def test_a_ledger_of_an_earlier_version_may_be_deleted(planet, ordered, tmp_path):
    path = tmp_path / "order.quads.sqlite"
    with closing(sqlite3.connect(path)) as rows:
        rows.execute("CREATE TABLE purpose (mosaic TEXT, digest TEXT)")
    with pytest.raises(OrderError, match=r"is of an earlier rtsx .*Delete it and run the same command again"):
        ordered(2)
    path.unlink()
    ordered(2)
    path.unlink()
    ordered(2)
    assert len(planet.orders) == 1
    with closing(sqlite3.connect(path)) as rows:
        rows.execute("PRAGMA user_version = 99")
    with pytest.raises(OrderError, match="is of a later rtsx"):
        ordered(2)


def test_a_destination_has_its_own_reference():
    with pytest.raises(OrderError, match=r"whichever destination is the default now.*`planet destinations list`"):
        BucketDelivery(destination="pl:destinations/default", bucket="gs://b")


def test_a_bucket_is_an_address():
    with pytest.raises(OrderError, match=r"address such as gs://my-bucket was expected, got 'my-bucket'"):
        BucketDelivery(destination="pl:destinations/ours-1", bucket="my-bucket")
