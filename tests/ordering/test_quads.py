"""Quads of a basemap: asked for once, counted exactly, and read as a cube."""

import csv
import json
import random
import shutil
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from shapely import MultiPolygon, Point, box, unary_union

from rtsx.errors import OrderError
from rtsx.ordering import BasemapApi, QuadCounts, QuadLedger, fetch_quads, list_quads, quad_ledger
from rtsx.ordering.basemap import QuadRange
from rtsx.ordering.order import locked
from rtsx.ordering.quads import MOSAIC_FILE
from rtsx.storage import atomic
from tests.ordering.basemap_server import ACROSS, KEY, NAME, BasemapServer, quad_bytes, red_of

X, Y = 460, 1600
"""South-west corner of the region, in quads."""


@pytest.fixture
def server():
    running = BasemapServer()
    yield running
    running.close()


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def api(server, pauses):
    return BasemapApi(lambda href: {"Authorization": f"api-key {KEY}"}, base_url=server.url, pause=pauses.append)


@pytest.fixture
def fetched(api, pauses, tmp_path):
    """Fetch a square of quads: ``fetched(side) -> counts``."""

    def fetch(side: int = 4, advance=lambda there, asked: None) -> QuadCounts:
        with quad_ledger(tmp_path / "order.quads.sqlite") as ledger:
            mosaic = list_quads(
                api, ledger, tmp_path / "quads", mosaic=NAME, region=region(api, side), digest=f"{side}"
            )
            table = tmp_path / "quads" / "order.parquet"
            return fetch_quads(
                api, ledger, table.parent, mosaic=mosaic, table=table, advance=advance, pause=pauses.append
            )

    return fetch


def region(api: BasemapApi, side: int):
    return box(*api.mosaic(NAME).bounds(QuadRange(Y, X, Y + side, X + side)))


def counted(folder: Path) -> QuadCounts:
    with quad_ledger(folder / "order.quads.sqlite") as ledger:
        return ledger.counts()


def named(folder: Path, state: str) -> dict[str, str]:
    with quad_ledger(folder / "order.quads.sqlite") as ledger:
        ledger.write_table(folder / "quads.csv")
        return ledger.named(state, 9)


@pytest.mark.parametrize("seed", range(4))
def test_every_quad_of_a_region_is_in_one_range(api, seed):
    chance = random.Random(seed)
    places = [(chance.uniform(-179, 178), chance.uniform(-80, 80), chance.uniform(0.01, 0.9)) for _ in range(5)]
    ground = unary_union([Point(x, y).buffer(r, quad_segs=4) for x, y, r in places] + [box(-180, 70, -179.8, 70.3)])
    mosaic = api.mosaic(NAME)
    ranges = mosaic.ranges(ground)
    quads = [(x, y) for area in ranges for y in range(area.y0, area.y1) for x in range(area.x0, area.x1)]
    assert len(quads) == len(set(quads)) == sum(area.count for area in ranges)
    near = {(x + i, y + j) for x, y in quads for i in (-1, 0, 1) for j in (-1, 0, 1)}
    meets = {
        (x, y)
        for x, y in near
        if ground.intersection(box(*mosaic.bounds(QuadRange(y, x, y + 1, x + 1)))).area > 0 and 0 <= x < ACROSS
    }
    assert set(quads) == meets
    (one,) = mosaic.ranges(box(*mosaic.bounds(QuadRange(5, 7, 25, 47))))
    assert one == QuadRange(5, 7, 25, 47)


def test_interrupted_ten_times_and_limited_it_ends_with_exact_counts(server, fetched, pauses, tmp_path, monkeypatch):
    side = 8
    names = [f"{x}-{y}" for y in range(Y, Y + side) for x in range(X, X + side)]
    missing, absent, corrupt = names[5:8], names[50:52], names[33]
    server.refused, server.not_there, server.twice = set(missing), set(absent), set(names[60:61])
    server.damaged = {corrupt: quad_bytes(X + 1, Y + 4)[:-4] + b"gone"}
    server.cut, server.limited_every = set(names[40:44]), 7

    class Killed(BaseException):
        pass

    dead, settle = [], QuadLedger.settle

    def settle_alive(ledger, results):
        if dead:
            raise Killed
        settle(ledger, results)

    monkeypatch.setattr(QuadLedger, "settle", settle_alive)
    monkeypatch.setattr("rtsx.ordering.quad_download._SETTLED_TOGETHER", 5)
    for _ in range(10):
        dead.clear()
        arrived = []

        def advance(there, asked, arrived=arrived):
            arrived.append(there)
            if len(arrived) == 6:
                dead.append(True)
                raise Killed

        with pytest.raises(Killed):
            fetched(side, advance)
    dead.clear()
    counts = fetched(side)
    assert counts == QuadCounts(grid=64, absent=2, asked=62, there=58, missing=4, waiting=0, twice=1)
    told = named(tmp_path, "missing")
    assert list(told) == [*missing, corrupt]
    assert list(named(tmp_path, "absent")) == absent
    assert "404 Not Found" in told[missing[0]]
    assert "its md5 is" in told[corrupt]
    there = set(names) - {*missing, *absent, corrupt}
    assert {path.stem for path in (tmp_path / "quads").glob("*.tif")} == there
    for name in there:
        assert (tmp_path / "quads" / f"{name}.tif").read_bytes() == quad_bytes(*map(int, name.split("-")))
    # What was there when a process ended is not asked for again.
    assert {name for name in there if server.downloads[name] != 1} <= set(names[40:44])
    assert set(pauses) >= {90.0}
    assert server.keys_elsewhere == []
    assert KEY.encode() not in (tmp_path / "order.quads.sqlite").read_bytes()
    rows = list(csv.DictReader((tmp_path / "quads.csv").read_text().splitlines()))
    assert len(rows) == 64
    assert {row["quad"] for row in rows if row["state"] == "there" and row["checksum"].startswith("1220")} == there
    before = sum(server.downloads.values())
    assert fetched(side).missing == 4
    assert sum(server.downloads.values()) == before + 1  # five times in one run, and then once
    told = named(tmp_path, "missing")[corrupt]
    assert "arrived again, but its md5 is" in told
    assert told.endswith("report it there. The next run asks for it once.")
    server.refused, server.damaged = set(), {}
    assert fetched(side).missing == 0
    assert sum(server.downloads.values()) == before + 5


def test_a_quad_that_came_damaged_is_asked_for_once_after_a_change_of_region(server, fetched):
    name = f"{X}-{Y}"
    server.damaged = {name: quad_bytes(X, Y)[:-4] + b"gone"}
    fetched(1)
    assert server.downloads[name] == 5
    fetched(3)
    assert server.downloads[name] == 6
    server.quota = 0  # passes, and is no second chance
    with pytest.raises(OrderError, match="QUOTA"):
        fetched(2)
    server.quota = 9
    fetched(2)
    assert server.downloads[name] == 7
    server.damaged = {}
    assert fetched(2).there == 4


def test_a_lost_quad_is_settled_at_once(server, fetched, monkeypatch):
    settled = []
    settle = QuadLedger.settle
    monkeypatch.setattr(
        QuadLedger, "settle", lambda ledger, results: settled.append(len(results)) or settle(ledger, results)
    )
    name = f"{X}-{Y}"
    server.refused = {name}
    fetched(3)
    assert settled[0] < 9


def test_a_used_up_quota_stops_and_loses_nothing(server, fetched, tmp_path):
    server.quota = 10
    with pytest.raises(OrderError, match=r"exceeded QUOTA.*What is there is kept") as told:
        fetched(8)
    assert "signature" not in str(told.value)
    counts = counted(tmp_path)
    assert (counts.there, counts.waiting, counts.missing) == (10, 54, 0)
    assert sum("/full" in path for path in server.requests) <= 10 + 8  # what was under way, and nothing more
    assert pq.read_table(tmp_path / "quads" / "order.parquet").num_rows == 10
    server.quota = 54
    assert fetched(8).there == 64
    assert set(server.downloads.values()) == {1}


def test_a_wrong_key_stops_at_once(server, api, fetched, tmp_path):
    fetched(2)
    asked = len(server.requests)
    api._headers = lambda href: {"Authorization": "api-key wrong"}
    with pytest.raises(OrderError, match=r"401 Unauthorized.*check PL_API_KEY"):
        fetched(3)
    assert len(server.requests) == asked + 1


def test_an_account_that_may_have_no_quad_is_not_asked_for_each(server, fetched, tmp_path):
    server.has_contract = False
    with pytest.raises(OrderError, match=r"403.*check your contract.*What is there is kept"):
        fetched(8)
    assert sum("/full" in path for path in server.requests) <= 20 + 8


def test_a_sliver_beyond_a_row_or_column_is_none_of_the_next(api):
    mosaic = api.mosaic(NAME)
    west, south, east, north = mosaic.bounds(QuadRange(Y, X, Y + 2, X + 2))
    sliver = 1e-12
    wider = box(west - sliver, south - sliver, east + sliver, north + sliver)
    assert mosaic.ranges(wider) == (QuadRange(Y, X, Y + 2, X + 2),)


@pytest.mark.parametrize("how", ["halved", "other"])
def test_half_a_quad_and_one_of_other_ground_are_missing(server, fetched, tmp_path, how):
    name = f"{X}-{Y}"
    if how == "halved":
        server.halved = {name}
    else:
        server.halved, server.damaged = {name}, {name: quad_bytes(X + 5, Y)}
    counts = fetched()
    assert (counts.there, counts.missing) == (15, 1)
    assert ("no whole raster" if how == "halved" else "shows other ground") in named(tmp_path, "missing")[name]
    assert not (tmp_path / "quads" / f"{name}.tif").exists()


def test_a_file_that_has_gone_or_shrunk_is_fetched_again(server, fetched, tmp_path):
    fetched()
    (tmp_path / "quads" / f"{X}-{Y}.tif").unlink()
    (tmp_path / "quads" / f"{X + 1}-{Y}.tif").write_bytes(b"half")
    assert fetched().there == 16
    assert sum(server.downloads.values()) == 18


@pytest.mark.parametrize("clock_off_s", [0, 86400, -86400])
def test_a_server_may_ask_to_wait_until_a_time_on_its_clock(server, fetched, pauses, clock_off_s):
    until = datetime.now(UTC) + timedelta(seconds=clock_off_s + 1200)
    server.limited_every, server.retry_after = 9, format_datetime(until, usegmt=True)
    server.clock_off_s = clock_off_s
    assert fetched().there == 16
    assert 1100 < max(pauses) <= 1200
    server.retry_after = "86400"
    with pytest.raises(OrderError, match=r"asks to wait 86,400 s"):
        fetched(6)


def test_an_address_that_has_expired_is_asked_for_again(server, fetched):
    server.expired = {f"{X}-{Y}"}
    assert fetched(1).there == 1


def test_a_full_disk_stops_and_loses_nothing(server, fetched, tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=10)
    with monkeypatch.context() as patch:
        patch.setattr("rtsx.ordering.download.shutil.disk_usage", lambda path: full)
        with pytest.raises(OrderError, match=r"10 are free.*What is there is kept"):
            fetched(5)
    assert (counted(tmp_path).missing, counted(tmp_path).waiting) == (0, 25)
    assert len(server.downloads) < 20
    assert fetched(5).there == 25


def test_orders_share_a_folder_one_after_the_other(server, api, fetched, tmp_path):
    folder = tmp_path / "quads"
    fetched(2)
    with quad_ledger(tmp_path / "other.sqlite") as ledger:
        mosaic = list_quads(api, ledger, folder, mosaic=NAME, region=region(api, 3), digest="")
        with locked(folder / MOSAIC_FILE), pytest.raises(OrderError, match="Another process works on"):
            fetch_quads(api, ledger, folder, mosaic=mosaic, table=folder / "other.parquet")
        assert fetch_quads(api, ledger, folder, mosaic=mosaic, table=folder / "other.parquet").there == 9
    assert set(server.downloads.values()) == {1}
    assert [pq.read_table(folder / f"{name}.parquet").num_rows for name in ("order", "other")] == [4, 9]


def test_of_two_mosaics_that_come_to_one_folder_at_once_one_has_it(api, tmp_path, monkeypatch):
    def listed(name, mosaic):
        with quad_ledger(tmp_path / f"{name}.quads.sqlite") as ledger:
            list_quads(api, ledger, tmp_path / "quads", mosaic=mosaic, region=region(api, 2), digest=name)

    stage, other = atomic._locked_stage, NAME.replace("q3", "q2")

    def other_first(target):
        monkeypatch.undo()
        listed("other", other)
        return stage(target)

    monkeypatch.setattr(atomic, "_locked_stage", other_first)
    with pytest.raises(OrderError, match=f"holds quads of {other}"):
        listed("first", NAME)


def test_an_unknown_mosaic_is_told_with_those_that_are_near(api):
    with pytest.raises(
        OrderError, match=r"no mosaic 'global_quarterly_2025q5_mosaic'.*Did you mean 'global_quarterly_2025q"
    ):
        api.mosaic("global_quarterly_2025q5_mosaic")
    with pytest.raises(OrderError, match=r"no mosaic 'vienna'.*Correct its name"):
        api.mosaic("vienna")


def test_ground_without_quads_and_folders_of_others_are_refused(server, api, fetched, tmp_path):
    with pytest.raises(OrderError, match="Basemaps end at 85"):
        api.mosaic(NAME).ranges(box(0, 86, 10, 90))
    fetched(1)
    with (
        quad_ledger(tmp_path / "other.sqlite") as ledger,
        pytest.raises(OrderError, match="holds quads of global_quarterly_2025q3"),
    ):
        list_quads(api, ledger, tmp_path / "quads", mosaic=NAME.replace("q3", "q2"), region=region(api, 1), digest="")
    server.mosaics[0] |= {"coordinate_system": "EPSG:4326"}
    server.mosaics[1] |= {"quad_download": False}
    with pytest.raises(OrderError, match="is in EPSG:4326"):
        api.mosaic("global_quarterly_2024q1_mosaic")
    with pytest.raises(OrderError, match="not download its quads"):
        api.mosaic("global_quarterly_2024q2_mosaic")


def test_listing_that_was_stopped_goes_on(server, api, tmp_path):
    ground = region(api, 66)  # four ranges
    with quad_ledger(tmp_path / "order.quads.sqlite") as ledger:

        def stop(done, count):
            assert count == 4
            if done == 3:
                raise KeyboardInterrupt

        arguments = {"mosaic": NAME, "region": ground, "digest": ""}
        with pytest.raises(KeyboardInterrupt):
            list_quads(api, ledger, tmp_path / "quads", advance=stop, **arguments)
        server.requests.clear()
        list_quads(api, ledger, tmp_path / "quads", **arguments)
        assert len({path.split("bbox=")[1].split("&")[0] for path in server.requests if "/quads?" in path}) == 1
        assert ledger.counts().asked == 66 * 66
        server.requests.clear()
        list_quads(api, ledger, tmp_path / "quads", **arguments)
        assert not any("/quads?" in path for path in server.requests)


def test_a_damaged_ledger_is_told(tmp_path):
    (tmp_path / "order.quads.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(OrderError, match="delete it and plan again"):
        QuadLedger(tmp_path / "order.quads.sqlite")


def test_a_ledger_of_a_plan_that_never_had_an_answer_has_no_orders(tmp_path):
    with quad_ledger(tmp_path / "order.quads.sqlite") as ledger:
        assert (ledger.orders(), ledger.orders_open(), list(ledger.orders_delivered())) == ({}, set(), [])
        assert ledger.counts().grid == 0


def test_a_full_disk_is_no_damaged_ledger(tmp_path):
    with quad_ledger(tmp_path / "order.quads.sqlite") as ledger:
        (pages,) = ledger._rows.execute("PRAGMA page_count").fetchone()
        ledger._rows.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OrderError, match=r"is full\. Free space"):
            ledger.begin("mosaic", "", tuple(QuadRange(y, 0, y + 1, 1) for y in range(1000)))


def test_a_ledger_can_be_looked_at_while_quads_are_listed(tmp_path):
    with quad_ledger(tmp_path / "order.quads.sqlite") as ledger, ledger._transaction():
        other = QuadLedger(tmp_path / "order.quads.sqlite")
        assert other.counts().grid == 0
        other.close()


def test_a_cube_reads_the_quads_of_its_ground_only(server, api, fetched, tmp_path, monkeypatch):
    from rtsx.config.cube import load_cube_config
    from rtsx.cube import open_source
    from rtsx.cube.stac import ItemTable

    server.not_there = {f"{X + 2}-{Y + 1}"}
    fetched(5)
    west, south, east, north = api.mosaic(NAME).bounds(QuadRange(Y + 1, X + 1, Y + 3, X + 3))
    inside = [west + 1e-6, south + 1e-6, east - 1e-6, north - 1e-6]
    path = tmp_path / "cube.yaml"
    side = json.loads((tmp_path / "quads" / "mosaic.json").read_text())["resolution"]
    path.write_text(
        f"region: {{bbox: {inside}}}\nperiod: {{years: 2025, months: [7, 8]}}\n"
        f"grid: {{crs: EPSG:3857, resolution: {side!r}, origin: [{-20037508.342789244}, {-20037508.342789244}]}}\n"
        "sources: {basemap: {sensor: planet-basemap, items: quads/order.parquet, required: false, layers: "
        "{red: {resampling: nearest}, green: {resampling: nearest}}}}\n"
    )
    cube = open_source(load_cube_config(path).recipe()).compute()
    red = cube["red"].values
    assert red.shape == (32, 32)
    assert np.unique(red[:16, :16]) == red_of(X + 1, Y + 2)
    assert np.unique(red[:16, 16:]) == red_of(X + 2, Y + 2)
    assert np.unique(red[16:, :16]) == red_of(X + 1, Y + 1)
    assert {int(value) for value in np.unique(cube["green"].values[:, :16])} == {80}
    found = ItemTable(str(tmp_path / "quads" / "order.parquet")).found_items(box(*inside), None)
    assert {item["id"] for item in found} >= {f"{X + 1}-{Y + 1}", f"{X + 1}-{Y + 2}", f"{X + 2}-{Y + 2}"}


def test_multipolygons_are_listed_piece_by_piece(server, api):
    mosaic = api.mosaic(NAME)
    far = MultiPolygon([box(-179.99, 70, -179.9, 70.01), box(179.9, 70, 179.99, 70.01)])
    ranges = mosaic.ranges(far)
    assert {area.x0 for area in ranges} == {0, ACROSS - 1}
    assert sum(area.count for area in ranges) == len([quad for area in ranges for quad in api.quads(mosaic, area)])
