"""Planet's own SDK against a server on loopback."""

import json
from datetime import date
from pathlib import Path

import certifi
import pytest
from shapely import box

pytest.importorskip("planet", reason="needs the extra order")

import planet.specs
from planet_auth import AuthException  # noqa: F401 - part of the extra

from rtsx.cube.images import BandRequest, Period
from rtsx.cube.stac import StacCatalog
from rtsx.errors import CubeError, OrderError
from rtsx.ordering import Batch, select_scenes
from rtsx.ordering.fetch import fetch_order
from rtsx.ordering.order import Ledger, order_status, submit_order
from rtsx.ordering.planet import PlanetProvider
from tests.ordering.planet_server import KEY, SPEC, PlanetServer
from tests.ordering.scenes import random_scenes

REGION = box(149.2, 69.7, 150.8, 70.3)
JULY = Period(date(2024, 7, 1), date(2024, 7, 31))
COLLECTION = "psscene"


@pytest.fixture
def server():
    running = PlanetServer(random_scenes(7, seed=1))
    yield running
    running.close()


@pytest.fixture
def pauses():
    return []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """One certificate, because reading all that there are costs a tenth of a second for each session."""
    end = "-----END CERTIFICATE-----\n"
    path = tmp_path_factory.mktemp("certificates") / "one.pem"
    path.write_text(Path(certifi.where()).read_text().split(end)[0] + end)
    return path


@pytest.fixture
def provider(server, pauses, monkeypatch, tmp_path, certificate):
    monkeypatch.setenv("PL_API_KEY", KEY)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("HOME", str(tmp_path))
    # The SDK reads the list of bundles from one fixed address, whatever the base URL; here is what it has read.
    bundles = SPEC["bundles"]
    known = {"bundles": bundles, "bundle_names": bundles.keys(), "item_types": {"PSScene"}}
    monkeypatch.setattr(planet.specs.PRODUCT_BUNDLES, "cache", known, raising=False)
    return PlanetProvider(base_url=server.url, pause=pauses.append)


@pytest.fixture(scope="module")
def plan():
    return select_scenes(random_scenes(7, seed=1), REGION, clip=True)


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "order.ledger.json"


def fetched(provider, ledger, folder, **options):
    return fetch_order(provider, ledger, folder, collection=COLLECTION, pause=lambda seconds: None, **options)


def test_a_search_goes_through_all_pages_and_keeps_to_the_season(provider, server):
    scenes = provider.search(REGION, JULY)
    assert {scene.id for scene in scenes} == {item["id"] for item in server.items}
    assert server.count("GET", "/results?_page=") == 3
    assert (scenes[0].cloud_cover, scenes[0].clear_percent, scenes[0].collection) == (25.0, 70, "PSScene")
    assert provider.search(REGION, Period(date(2023, 1, 1), date(2024, 12, 31), months=(8,))) == ()
    first = min(scene.time.date() for scene in scenes)
    assert {scene.time.date() for scene in provider.search(REGION, Period(first, first))} == {first}


def test_an_order_says_bundle_tools_and_type(provider, server, plan, ledger):
    submit_order(plan, provider, ledger, name="banks island")
    (order,) = server.orders.values()
    (product,) = order["products"]
    assert product["item_ids"] == sorted(one.scene.id for one in plan.chosen)
    assert (product["item_type"], product["product_bundle"]) == ("PSScene", "analytic_sr_udm2")
    assert [list(tool) for tool in order["tools"]] == [["clip"]]
    assert order["order_type"] == "partial"
    assert order["name"].startswith("banks-island-")


@pytest.mark.parametrize("manifest", [True, False])
def test_the_key_goes_to_planet_only(provider, server, plan, ledger, tmp_path, file_server, manifest):
    entry = submit_order(plan, provider, ledger, name="banks").entries[0]
    server.finish(manifest=manifest)
    for order in server.orders.values():
        for result in order["_links"]["results"]:
            result["location"] = f"{file_server.url}/{result['name']}"
    if manifest:
        with pytest.raises(OrderError, match=r"manifest is at 127\.0\.0\.1:\d+, not at http"):
            fetched(provider, ledger, tmp_path / "scenes")
    else:
        assert fetched(provider, ledger, tmp_path / "scenes").failures
    assert not any("Authorization" in headers for _, _, headers in file_server.asked)
    for order in server.orders.values():
        order["_links"]["results"][0]["location"] = "file:///etc/hostname"
    with pytest.raises(CubeError, match="is no address on a server"):
        provider.status(Batch(name=entry.name, scene_ids=tuple(entry.scenes)), entry.order_id)


def test_from_plan_to_a_catalog_that_cubes_read(provider, server, plan, ledger, tmp_path):
    submit_order(plan, provider, ledger, name="banks")
    folder = tmp_path / "scenes"
    assert fetched(provider, ledger, folder).waiting == 1
    assert not folder.exists()
    server.finish()
    assert order_status(provider, ledger).entries[0].state == "success"
    done = fetched(provider, ledger, folder)
    assert set(done.scenes) == {one.scene.id for one in plan.chosen}
    assert (done.failures, done.waiting, done.lost) == ({}, 0, ())
    images = StacCatalog(str(folder)).find(
        box(-180, 0, 180, 90), JULY, [BandRequest(name="nir"), BandRequest(name="udm2", asset="udm2")]
    )
    assert [image.id for image in images] == [one.scene.id for one in plan.chosen]
    nir, udm2 = images[0].bands["nir"], images[0].bands["udm2"]
    assert (nir.bands, nir.dtype, nir.nodata, nir.scale_factor) == ((4,), "uint16", 0, 1e-4)
    assert (len(udm2.bands), udm2.dtype, udm2.nodata) == (8, "uint8", None)
    assert nir.geobox.crs.epsg == 32608
    assert (images[0].cloud_cover, images[0].sun_azimuth, images[0].sun_elevation) == (25.0, 170.5, 38.25)
    assert not list(folder.rglob(".*"))


def test_fetching_again_changes_and_asks_nothing(provider, server, plan, ledger, tmp_path):
    submit_order(plan, provider, ledger, name="banks")
    server.finish()
    fetched(provider, ledger, tmp_path / "scenes")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in sorted((tmp_path / "scenes").rglob("*"))}
    asked = len(server.requests)
    assert fetched(provider, ledger, tmp_path / "scenes").scenes == ()
    assert before == {
        path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in sorted((tmp_path / "scenes").rglob("*"))
    }
    assert len(server.requests) == asked


def test_submitting_again_orders_nothing(provider, server, plan, ledger):
    submit_order(plan, provider, ledger, name="banks")
    submit_order(plan, provider, ledger, name="banks")
    assert server.count("POST", "/orders/v2") == 1


def test_an_order_whose_answer_was_lost_is_found_by_its_name(provider, server, plan, ledger, pauses):
    server.trouble.append(("POST", "/orders/v2", "lost"))
    after = submit_order(plan, provider, ledger, name="banks")
    assert len(server.orders) == 1
    assert after.entries[0].order_id in server.orders
    assert pauses == [2.0]


def test_a_crash_before_the_ledger_does_not_order_twice(provider, server, plan, ledger, monkeypatch):
    class Crash(BaseException):
        pass

    real = provider.submit

    def crash(batch):
        real(batch)
        raise Crash

    monkeypatch.setattr(provider, "submit", crash)
    with pytest.raises(Crash):
        submit_order(plan, provider, ledger, name="banks")
    assert Ledger.load(ledger).entries[0].state == "submitting"
    monkeypatch.setattr(provider, "submit", real)
    after = submit_order(plan, provider, ledger, name="banks", budget_km2=plan.cost_km2)
    assert len(server.orders) == 1
    assert (after.entries[0].state, len(after.entries)) == ("queued", 1)


def test_a_lost_ledger_does_not_order_twice(provider, server, plan, ledger):
    submit_order(plan, provider, ledger, name="banks")
    ledger.unlink()
    submit_order(plan, provider, ledger, name="banks")
    assert len(server.orders) == 1


def test_large_plans_are_several_orders(provider, server, plan, ledger):
    provider.batch_size = 2
    submit_order(plan, provider, ledger, name="banks")
    assert len(server.orders) == -(-len(plan.chosen) // 2)
    assert sorted(i for order in server.orders.values() for i in order["products"][0]["item_ids"]) == sorted(
        one.scene.id for one in plan.chosen
    )


def test_the_budget_counts_what_was_ordered_before(provider, server, plan, ledger):
    with pytest.raises(OrderError, match=r"Nothing was ordered\. Raise budget_km2"):
        submit_order(plan, provider, ledger, name="banks", budget_km2=plan.cost_km2 - 1)
    assert server.count("POST", "/orders/v2") == 0
    submit_order(plan, provider, ledger, name="banks", budget_km2=plan.cost_km2)
    assert Ledger.load(ledger).cost_km2 == pytest.approx(plan.cost_km2)


def test_a_failed_order_is_told_and_ordered_again_only_on_request(provider, server, plan, ledger, tmp_path):
    submit_order(plan, provider, ledger, name="banks")
    server.finish("failed")
    status = order_status(provider, ledger)
    assert (status.entries[0].state, status.cost_km2) == ("failed", 0)
    assert "No access to assets" in status.entries[0].message
    assert fetched(provider, ledger, tmp_path / "scenes").lost == tuple(sorted(one.scene.id for one in plan.chosen))
    submit_order(plan, provider, ledger, name="banks")
    assert len(server.orders) == 1
    again = submit_order(plan, provider, ledger, name="banks", retry=True)
    assert len(server.orders) == 2
    assert [entry.state for entry in again.entries] == ["failed", "queued"]


def test_a_partial_order_brings_what_there_is(provider, server, plan, ledger, tmp_path):
    gone = plan.chosen[0].scene.id
    submit_order(plan, provider, ledger, name="banks")
    server.finish("partial", without=(gone,))
    done = fetched(provider, ledger, tmp_path / "scenes")
    assert set(done.scenes) == {one.scene.id for one in plan.chosen[1:]}
    assert done.lost == (gone,)
    again = submit_order(plan, provider, ledger, name="banks", retry=True)
    assert tuple(again.entries[-1].scenes) == (gone,)


def test_an_order_of_another_account_is_named_and_keeps_no_other_waiting(provider, server, plan, ledger, tmp_path):
    provider.batch_size = 1
    entries = submit_order(plan, provider, ledger, name="test").entries
    del server.orders[entries[0].order_id]
    server.finish()
    with pytest.raises(
        OrderError, match=rf"Order {entries[0].name}: Planet has nothing there \(404\).*another account"
    ):
        order_status(provider, ledger)
    states = [entry.state for entry in Ledger.load(ledger).entries]
    assert states == ["queued", *["success"] * (len(entries) - 1)]
    done = fetched(provider, ledger, tmp_path)
    assert (len(done.scenes), done.waiting, [*done.failures]) == (len(entries) - 1, 1, [entries[0].name])


def test_a_cut_download_goes_on_where_it_stopped(provider, server, plan, ledger, tmp_path):
    submit_order(plan, provider, ledger, name="banks")
    server.finish()
    server.trouble.append(("GET", "AnalyticMS", "cut"))
    pieces = []
    done = fetched(provider, ledger, tmp_path / "scenes", advance=lambda file, count: pieces.append(count))
    assert done.failures == {}
    assert len(server.ranges) == 1
    assert int(server.ranges[0].removeprefix("bytes=").rstrip("-")) > 0


def test_a_damaged_file_never_gets_its_name_nor_its_scene_an_item(provider, server, plan, ledger, tmp_path):
    bad = plan.chosen[0].scene.id
    submit_order(plan, provider, ledger, name="banks")
    server.finish(damaged=f"{bad}_3B_udm2")
    folder = tmp_path / "scenes"
    done = fetched(provider, ledger, folder)
    assert list(done.failures) == [f"{bad}/{bad}_3B_udm2_clip.tif"]
    assert "its sha256 is" in str(next(iter(done.failures.values())))
    assert not (folder / bad / f"{bad}.json").exists()
    assert not (folder / bad / f"{bad}_3B_udm2_clip.tif").exists()
    assert bad not in json.dumps(json.loads((folder / "collection.json").read_text()))
    for name, data in list(server.files.items()):  # the provider repairs it
        if name.endswith(f"{bad}_3B_udm2_clip.tif"):
            server.files[name] = data[:-7] + _original(server, bad)[-7:]
    assert fetched(provider, ledger, folder).scenes == (bad,)


def _original(server, scene):
    import hashlib

    from tests.ordering.planet_server import tiff

    return tiff(8, int(hashlib.sha256(scene.encode()).hexdigest()[:4], 16) % 500, "uint8")


def test_without_a_manifest_names_tell_the_scenes(provider, server, plan, ledger, tmp_path):
    submit_order(plan, provider, ledger, name="banks")
    server.finish(manifest=False)
    assert len(fetched(provider, ledger, tmp_path / "scenes").scenes) == len(plan.chosen)


def test_too_many_requests_are_asked_again(provider, server, pauses):
    server.trouble += [("POST", "quick-search", 429), ("POST", "quick-search", 500), ("POST", "quick-search", 502)]
    assert provider.search(REGION, JULY)
    assert pauses == [2.0, 4.0, 8.0]


def test_an_order_refused_for_haste_is_placed_once(provider, server, plan, ledger, pauses):
    server.trouble += [("POST", "/orders/v2", 429), ("POST", "/orders/v2", 500)]
    submit_order(plan, provider, ledger, name="banks")
    assert len(server.orders) == 1
    assert pauses == [2.0, 4.0]


def test_a_server_that_stays_down_is_told(provider, server, pauses):
    server.trouble += [("POST", "quick-search", 500)] * 5
    with pytest.raises(
        OrderError, match=r"Planet cannot search for scenes now: .*trouble 500.*nothing is ordered twice"
    ):
        provider.search(REGION, JULY)
    assert pauses == [2.0, 4.0, 8.0, 16.0]


def test_a_wrong_key_is_told_at_once(provider, server, monkeypatch, pauses):
    monkeypatch.setenv("PL_API_KEY", "PLAK-wrong")
    with pytest.raises(OrderError, match=r"refuses the API key \(401\) to search for scenes. Check PL_API_KEY"):
        PlanetProvider(base_url=server.url, pause=pauses.append).search(REGION, JULY)
    assert pauses == []


def test_no_key_is_told_before_anything_is_asked(server, monkeypatch, tmp_path):
    monkeypatch.delenv("PL_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(OrderError, match="Set PL_API_KEY"):
        PlanetProvider(base_url=server.url)
    assert server.requests == []


def test_an_unknown_bundle_is_told_before_anything_is_ordered(provider, server, plan, ledger):
    wrong = PlanetProvider(base_url=server.url, bundle="analytic_sr_udm3")
    with pytest.raises(OrderError, match="Correct bundle or item_type"):
        submit_order(plan, wrong, ledger, name="banks")
    assert server.orders == {}


def test_a_queued_order_can_be_cancelled_and_a_running_one_not(provider, server, plan, ledger):
    entry = submit_order(plan, provider, ledger, name="banks").entries[0]
    server.orders[entry.order_id]["state"] = "running"
    with pytest.raises(OrderError, match="refuses to cancel"):
        provider.cancel(entry.order_id)
    server.orders[entry.order_id]["state"] = "queued"
    provider.cancel(entry.order_id)
    assert order_status(provider, ledger).entries[0].state == "cancelled"


def test_a_config_says_how_to_order(server, provider, tmp_path, plan, ledger):
    from rtsx.config.order import load_order_config

    (tmp_path / "order.yaml").write_text(
        f"""
name: a
region: {{bbox: [149.2, 69.7, 150.8, 70.3]}}
period: {{years: 2024}}
out: scenes
planet: {{bundle: analytic_8b_sr_udm2, fallback: analytic_sr_udm2, clip: false, harmonize: true, partial: false, base_url: "{server.url}"}}
"""
    )
    configured = load_order_config(tmp_path / "order.yaml").provider()
    assert not configured.can_clip
    submit_order(select_scenes(random_scenes(7, seed=1), REGION), configured, ledger, name="a")
    (order,) = server.orders.values()
    assert order["products"][0]["product_bundle"] == "analytic_8b_sr_udm2,analytic_sr_udm2"
    assert order["tools"] == [{"harmonize": {"target_sensor": "Sentinel-2"}}]
    assert order["order_type"] == "full"
