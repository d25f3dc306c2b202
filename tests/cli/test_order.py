"""The commands of an order, from plan to fetch, over a catalog of files."""

import csv
import json
from pathlib import Path

import pytest
import typer

from rtsx.cube.images import BandRequest
from rtsx.cube.stac import StacCatalog
from rtsx.ordering import Ledger, OrderPlan, quad_ledger
from tests.ordering.basemap_server import KEY, NAME, BasemapServer, deliver
from tests.ordering.conftest import make_catalog  # noqa: F401 - a fixture
from tests.ordering.planet_server import PlanetServer

ORDER = """
name: small
region: {{bbox: [149.2, 69.7, 150.8, 70.3]}}
period: {{years: 2024, months: [7]}}
out: scenes
catalog: {{path: provider/catalog.json, assets: [image]}}
{more}
"""


@pytest.fixture
def order(make_catalog, tmp_path):  # noqa: F811 - the fixture
    """Write an order over a catalog: ``order(more) -> path``."""
    make_catalog(6)

    def write(more: str = "") -> Path:
        path = tmp_path / "order.yaml"
        path.write_text(ORDER.format(more=more))
        return path

    return write


def test_plan_submit_status_fetch(order, rtsx_command, tmp_path):
    config = order()
    planned = rtsx_command("order", "plan", config)
    assert planned.status == 0, planned.err
    plan = OrderPlan.from_json(json.loads((tmp_path / "order.plan.json").read_text())["plan"])
    for one in plan.chosen:
        assert one.scene.id in planned.out
    assert (
        f"covered     {plan.coverage:.2%} of {plan.region_km2:,.1f} km²".split()
        == _line(planned.out, "covered").split()
    )
    assert _line(planned.out, "cost").split()[1] == f"{plan.cost_km2:,.1f}"
    kinds = {f["properties"]["kind"] for f in json.loads((tmp_path / "order.plan.geojson").read_text())["features"]}
    assert kinds >= {"scene", "region"}
    assert not (tmp_path / "order.ledger.json").exists()

    submitted = rtsx_command("order", "submit", config, "--yes")
    assert submitted.status == 0, submitted.err
    assert Ledger.load(tmp_path / "order.ledger.json").ordered == {one.scene.id for one in plan.chosen}
    assert "success" in rtsx_command("order", "status", config).out

    fetched = rtsx_command("order", "fetch", config)
    assert fetched.status == 0, fetched.err
    images = StacCatalog(str(tmp_path / "scenes")).find(plan.region, None, [BandRequest(name="red")])
    assert {image.id for image in images} == {one.scene.id for one in plan.chosen}
    assert rtsx_command("order", "fetch", config).status == 0
    assert "Everything planned has been ordered" in rtsx_command("order", "submit", config).err


def _line(out: str, name: str) -> str:
    return next(line for line in out.splitlines() if line.startswith(name + " "))


def test_submit_needs_a_plan_of_this_config(order, rtsx_command):
    config = order()
    missing = rtsx_command("order", "submit", config, "--yes")
    assert (missing.status, "Run rtsx order plan" in missing.err) == (2, True)
    rtsx_command("order", "plan", config)
    changed = rtsx_command("order", "submit", order("limits: {max_cloud: 40}"), "--yes")
    assert (changed.status, "has changed since it was planned" in changed.err) == (2, True)


def test_a_budget_below_what_was_planned_is_refused(order, rtsx_command, tmp_path):
    rtsx_command("order", "plan", order())
    refused = rtsx_command("order", "submit", order("limits: {budget_km2: 10}"), "--yes")
    assert (refused.status, "Nothing was ordered. Raise budget_km2" in refused.err) == (2, True)
    assert not (tmp_path / "order.ledger.json").exists()


def test_submit_asks_first(order, rtsx_command, tmp_path, monkeypatch):
    config = order()
    rtsx_command("order", "plan", config)
    deaf = rtsx_command("order", "submit", config)
    assert (deaf.status, "Pass --yes" in deaf.err) == (2, True)
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "confirm", lambda question, err: asked.append(question))
    declined = rtsx_command("order", "submit", config)
    assert (declined.status, "nothing was ordered" in declined.err) == (2, True)
    assert "km²?" in asked[0]
    assert not (tmp_path / "order.ledger.json").exists()


def test_nothing_found_is_told(order, rtsx_command, tmp_path):
    config = order()
    config.write_text(config.read_text().replace("[7]", "[1]"))
    nothing = rtsx_command("order", "plan", config)
    assert (nothing.status, "0 were found" in nothing.err) == (2, True)


def test_status_and_fetch_before_submit_are_told(order, rtsx_command):
    config = order()
    for command in ("status", "fetch"):
        early = rtsx_command("order", command, config)
        assert (early.status, "Nothing has been ordered yet" in early.err) == (2, True)


def test_what_cannot_be_fetched_makes_the_exit_status_fail(order, rtsx_command, tmp_path):
    config = order()
    rtsx_command("order", "plan", config)
    rtsx_command("order", "submit", config, "--yes")
    scene = sorted(Ledger.load(tmp_path / "order.ledger.json").ordered)[0]
    (tmp_path / "provider" / scene / "image.tif").rename(tmp_path / "hidden.tif")
    failed = rtsx_command("order", "fetch", config)
    assert (failed.status, f"image.tif of scene {scene} cannot be fetched" in failed.err) == (2, True)
    (tmp_path / "hidden.tif").rename(tmp_path / "provider" / scene / "image.tif")
    assert rtsx_command("order", "fetch", config).status == 0


BASEMAP = """
name: basemap
region: {{bbox: {bbox}}}
out: quads
basemap: {{mosaic: {mosaic}, base_url: {url}}}
"""


def test_quads_of_a_basemap_from_plan_to_fetch(rtsx_command, tmp_path, monkeypatch):
    pytest.importorskip("planet", reason="needs the extra order")
    monkeypatch.setenv("PL_API_KEY", KEY)
    server, path = BasemapServer(), tmp_path / "order.yaml"
    path.write_text(BASEMAP.format(bbox=[-100, 69.2, -99.8, 69.3], mosaic=NAME, url=server.url))
    assert f"Run rtsx order plan {path} first" in rtsx_command("order", "status", path).err
    planned = rtsx_command("order", "plan", path)
    assert planned.status == 0, planned.err
    asked = int(_line(planned.out, "asked for").split()[-1])
    quad = next(csv.DictReader((tmp_path / "order.quads.csv").read_text().splitlines()))["quad"]
    assert "rtsx order fetch" in rtsx_command("order", "submit", path).err
    server.refused, server.words = {quad}, KEY  # as a server may do that repeats what it was asked
    fetched = rtsx_command("order", "fetch", path)
    assert fetched.status == 2
    assert f"1 of {asked} quads are missing" in fetched.err
    assert f"{quad}: " in fetched.err
    assert KEY not in fetched.out + fetched.err
    assert not [file for file in tmp_path.rglob("*.*") if file.is_file() and KEY.encode() in file.read_bytes()]
    assert _line(fetched.out, "there").split() == ["there", str(asked - 1)]
    server.refused = set()
    assert rtsx_command("order", "fetch", path).status == 0
    with quad_ledger(tmp_path / "order.quads.sqlite"):  # as of another process that fetches
        assert _line(rtsx_command("order", "status", path).out, "there").split() == ["there", str(asked)]
        assert "Another process works on" in rtsx_command("order", "fetch", path).err
    server.close()
    for more, told in (
        ("period: {years: 2025}", "leave period out"),
        ("catalog: {path: x}", "got catalog and basemap"),
    ):
        path.write_text(BASEMAP.format(bbox=[-100, 69.2, -99.8, 69.3], mosaic=NAME, url=server.url) + more)
        assert told in rtsx_command("order", "plan", path).err


def test_quads_of_a_basemap_in_a_bucket(rtsx_command, tmp_path, monkeypatch):
    pytest.importorskip("planet", reason="needs the extra order")
    monkeypatch.setenv("PL_API_KEY", KEY)
    server, planet, path = BasemapServer(), PlanetServer([]), tmp_path / "order.yaml"
    delivery = f"{{destination: pl:destinations/a-1, bucket: {tmp_path}/bucket, base_url: {planet.url}}}"
    path.write_text(
        BASEMAP.format(bbox=[-100, 69.2, -99.8, 69.3], mosaic=NAME, url=f"{server.url}, delivery: {delivery}")
    )
    assert "Pass --yes" in rtsx_command("order", "submit", path).err
    assert planet.orders == {}
    submitted = rtsx_command("order", "submit", path, "--yes")
    assert _line(submitted.out, "orders").split() == ["orders", "1", "queued"], submitted.err
    assert "are not delivered yet" in rtsx_command("order", "fetch", path).err
    (cancelled,) = planet.orders.values()
    cancelled["state"] = "cancelled"
    count = len(cancelled["products"][0]["quad_ids"])
    again = f"{count} quads were ordered and are missing; --retry orders them again"
    assert again in rtsx_command("order", "submit", path, "--yes").err
    rtsx_command("order", "submit", path, "--yes", "--retry")
    *_, order = planet.orders.values()
    deliver(order, tmp_path / "bucket")
    fetched = rtsx_command("order", "fetch", path)
    assert (fetched.status, _line(fetched.out, "orders").split()[1:]) == (0, ["1", "cancelled,", "1", "success"]), (
        fetched.err
    )
    assert _line(rtsx_command("order", "status", path).out, "waiting").split() == ["waiting", "0"]
    server.close()
    planet.close()
