"""From a catalog of files to a catalog of one's own."""

import json
import re
from datetime import date

import pytest
from shapely import box

from rtsx.cube.images import BandRequest, Period
from rtsx.cube.stac import StacCatalog
from rtsx.errors import OrderError
from rtsx.ordering import (
    Ledger,
    OrderEntry,
    OrderStatus,
    RemoteFile,
    StacApi,
    StacProvider,
    StaticCatalog,
    fetch_order,
    order_status,
    select_scenes,
    submit_order,
)
from rtsx.ordering.order import locked
from rtsx.storage import atomic
from tests.servers import rustac_server

REGION = box(149.2, 69.7, 150.8, 70.3)
JULY = Period(date(2024, 7, 1), date(2024, 7, 31))
WORLD = box(-180, -90, 180, 90)


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "order.ledger.json"


def fetched(provider, ledger, folder, **options):
    return fetch_order(provider, ledger, folder, collection="mine", pause=lambda seconds: None, **options)


def tree(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in sorted(folder.rglob("*"))}


def ordered(provider, ledger):
    plan = select_scenes(provider.search(REGION, JULY), REGION)
    submit_order(plan, provider, ledger, name="test")
    return plan


def test_what_is_fetched_is_read_as_a_cube_reads(make_catalog, ledger, tmp_path):
    provider = StacProvider(StaticCatalog(str(make_catalog() / "catalog.json")))
    plan = ordered(provider, ledger)
    done = fetched(provider, ledger, tmp_path / "out")
    assert set(done.scenes) == {one.scene.id for one in plan.chosen}
    images = StacCatalog(str(tmp_path / "out")).find(WORLD, JULY, [BandRequest(name="nir")])
    assert {image.id for image in images} == set(done.scenes)
    nir = images[0].bands["nir"]
    assert (nir.bands, nir.dtype, nir.nodata) == ((2,), "uint16", 0)
    assert nir.href == str(tmp_path / "out" / images[0].id / "image.tif")


def test_items_keep_their_own_words_and_get_what_was_missing(make_catalog, ledger, tmp_path):
    provider = StacProvider(StaticCatalog(str(make_catalog() / "catalog.json")))
    plan = ordered(provider, ledger)
    fetched(provider, ledger, tmp_path / "out")
    scene = plan.chosen[0].scene.id
    item = json.loads((tmp_path / "out" / scene / f"{scene}.json").read_text())
    image = item["assets"]["image"]
    assert (image["href"], image["proj:shape"], image["proj:epsg"]) == ("./image.tif", [200, 300], 4326)
    assert image["eo:bands"] == [{"name": "red"}, {"name": "nir"}]
    assert image["raster:bands"] == [{"data_type": "uint16", "nodata": 0.0}] * 2
    assert [link["rel"] for link in item["links"]] == ["license", "root", "parent", "collection"]
    assert item["collection"] == "mine"
    assert any("projection" in schema for schema in item["stac_extensions"])
    import pystac

    collection = pystac.Collection.from_file(str(tmp_path / "out" / "collection.json"))
    assert len(list(collection.get_items())) == len(plan.chosen)
    assert next(iter(collection.get_items())).get_collection().id == "mine"
    west, south, east, north = collection.extent.spatial.bboxes[0]
    assert (west, south, east, north) == box(*_bounds(plan)).bounds


def _bounds(plan):
    from shapely import union_all

    return union_all([one.scene.footprint for one in plan.chosen]).bounds


def test_only_the_assets_that_are_wanted(make_catalog, ledger, tmp_path):
    documents = StaticCatalog(str(make_catalog() / "catalog.json"))
    provider = StacProvider(documents, assets=["image"])
    scene = ordered(provider, ledger).chosen[0].scene.id
    fetched(provider, ledger, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out" / scene).iterdir()} == {"image.tif", f"{scene}.json"}
    with pytest.raises(OrderError, match=r"No item has assets \['swir'\]; s"):
        ordered(StacProvider(documents, assets=["swir"]), tmp_path / "other.json")


def test_fetching_twice_changes_nothing(make_catalog, ledger, tmp_path):
    provider = StacProvider(StaticCatalog(str(make_catalog() / "catalog.json")))
    ordered(provider, ledger)
    fetched(provider, ledger, tmp_path / "out")
    before = tree(tmp_path / "out")
    fetched(provider, ledger, tmp_path / "out")
    assert tree(tmp_path / "out") == before
    ledger.unlink()  # another machine, without the ledger
    ordered(provider, ledger)
    assert fetched(provider, ledger, tmp_path / "out").scenes == ()
    assert tree(tmp_path / "out") == before


def test_interrupted_anywhere_it_ends_the_same(make_catalog, ledger, tmp_path, file_server):
    make_catalog(folder=file_server.folder / "c", href=f"{file_server.url}/c")
    provider = StacProvider(StaticCatalog(f"{file_server.url}/c/catalog.json"))
    plan = ordered(provider, ledger)

    class Stopped(BaseException):
        pass

    for after in range(4):
        count = iter(range(after * 2, 100))

        def stop(file, size, count=count):
            if next(count) >= 6:
                raise Stopped

        with pytest.raises(Stopped):
            fetched(provider, ledger, tmp_path / "out", parallel=2, advance=stop)
        for item in (tmp_path / "out").glob("*/*.json"):
            if item.stem == item.parent.name:
                assert all((item.parent / a["href"]).exists() for a in json.loads(item.read_text())["assets"].values())
    fetched(provider, ledger, tmp_path / "out")
    assert {path.parent.name for path in (tmp_path / "out").glob("*/image.tif")} == {o.scene.id for o in plan.chosen}
    for one in plan.chosen:
        there = file_server.folder / "c" / one.scene.id / "image.tif"
        assert (tmp_path / "out" / one.scene.id / "image.tif").read_bytes() == there.read_bytes()
    assert not list((tmp_path / "out").rglob(".*"))


def test_a_scene_that_left_the_catalog_is_lost_and_told(make_catalog, ledger, tmp_path):
    folder = make_catalog()
    provider = StacProvider(StaticCatalog(str(folder / "catalog.json")))
    gone = ordered(provider, ledger).chosen[0].scene.id
    catalog = json.loads((folder / "catalog.json").read_text())
    catalog["links"] = [link for link in catalog["links"] if gone not in link["href"]]
    (folder / "catalog.json").write_text(json.dumps(catalog))
    done = fetched(StacProvider(StaticCatalog(str(folder / "catalog.json"))), ledger, tmp_path / "out")
    assert done.lost == (gone,)
    assert "no longer in the catalog" in order_status(provider, ledger).entries[0].message


def test_a_larger_plan_orders_only_what_is_new(make_catalog, ledger):
    provider = StacProvider(StaticCatalog(str(make_catalog(8) / "catalog.json")))
    scenes = provider.search(REGION, JULY)
    small = select_scenes(scenes, box(149.2, 69.7, 149.8, 70.0))
    large = select_scenes(scenes, REGION)
    submit_order(small, provider, ledger, name="test")
    after = submit_order(large, provider, ledger, name="test")
    assert set(after.entries[1].scenes) == {o.scene.id for o in large.chosen} - {o.scene.id for o in small.chosen}


def test_an_api_is_asked_like_a_catalog(make_catalog, ledger, tmp_path, file_server):
    folder = make_catalog(folder=file_server.folder / "c", href=f"{file_server.url}/c")
    items = list(StaticCatalog(str(folder / "catalog.json")).search(WORLD, JULY))
    with rustac_server(tmp_path, items, ("there",)) as url:
        provider = StacProvider(StacApi(url, ["there"]))
        plan = ordered(provider, ledger)
        assert plan == select_scenes(
            StacProvider(StaticCatalog(str(folder / "catalog.json"))).search(REGION, JULY), REGION
        )
        assert len(fetched(provider, ledger, tmp_path / "out").scenes) == len(plan.chosen)


class Odd:
    """A provider that names what it likes."""

    batch_size, can_clip = 10, False

    def __init__(self, files):
        self.files = files

    def search(self, region, period):
        return ()

    def submit(self, batch):
        return OrderStatus(order_id="1", state="success", files=self.files)

    def status(self, batch, order_id):
        return self.submit(batch)

    def describe(self, scene_id, files):
        geometry = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
        return {"id": scene_id, "geometry": geometry, "properties": {"datetime": "2024-07-01T00:00:00Z"}}


@pytest.mark.parametrize(
    ("asset", "told"),
    [
        ({"href": "file:///etc/hostname"}, "is no address on a server"),
        ({"href": "../../../../etc/hostname"}, None),
        ({"href": None}, "has no href"),
        ({"file:size": "many"}, "file:size is a number of bytes; got 'many'"),
        ({"file:size": -1}, "file:size is a number of bytes; got -1"),
        ({"file:size": True}, "file:size is a number of bytes"),
        ({"file:checksum": "zz"}, "'zz' is no checksum"),
        ({"file:checksum": 5}, "'5' is no checksum|5 is no checksum"),
        ([1], "cannot be fetched"),
        (None, "cannot be fetched"),
    ],
)
def test_an_odd_item_of_a_catalog_stops_nothing_else(make_catalog, ledger, tmp_path, file_server, asset, told):
    folder = make_catalog(folder=file_server.folder / "c", href=f"{file_server.url}/c")
    provider = StacProvider(StaticCatalog(f"{file_server.url}/c/catalog.json"))
    bad, *good = [one.scene.id for one in ordered(provider, ledger).chosen]
    path = folder / bad / f"{bad}.json"
    item = json.loads(path.read_text())
    item["assets"]["image"] = {**item["assets"]["image"], **asset} if isinstance(asset, dict) else asset
    path.write_text(json.dumps(item))
    done = fetched(provider, ledger, tmp_path / "out")
    assert set(done.scenes) == set(good)
    assert [name.split("/")[0] for name in done.failures] == [bad]
    assert told is None or re.search(told, str(*done.failures.values()))
    assert not (tmp_path / "out" / bad).exists() or not any((tmp_path / "out" / bad).glob("*host*"))
    assert Ledger.load(ledger).lost == set()  # it comes when it is mended


def test_a_login_page_concerns_one_scene_until_the_file_comes(make_catalog, ledger, tmp_path, file_server):
    folder = make_catalog(folder=file_server.folder / "c", href=f"{file_server.url}/c")
    provider = StacProvider(StaticCatalog(f"{file_server.url}/c/catalog.json"))
    bad, *good = sorted(one.scene.id for one in ordered(provider, ledger).chosen)
    for path in (folder / bad).glob("s*.json"):
        item = json.loads(path.read_text())
        del item["assets"]["image"]["file:size"], item["assets"]["image"]["file:checksum"]
        path.write_text(json.dumps(item))
    whole = (folder / bad / "image.tif").read_bytes()
    (folder / bad / "image.tif").write_bytes(b"<html>please log in</html>")
    done = fetched(provider, ledger, tmp_path / "out")
    assert (sorted(done.scenes), list(done.failures)) == (good, [f"{bad}/image.tif"])
    (tmp_path / "out" / bad / "image.tif").write_bytes(b"<html>please log in</html>")  # as an earlier rtsx left it
    (folder / bad / "image.tif").write_bytes(whole)
    assert fetched(provider, ledger, tmp_path / "out").scenes == (bad,)
    assert (tmp_path / "out" / bad / "image.tif").read_bytes() == whole


def _ledger_of(path, *scenes):
    entry = OrderEntry(name="n", scenes=dict.fromkeys(scenes, 1.0), submitted="", state="queued", order_id="1")
    Ledger((entry,)).save(path)


ODD = ["../evil", "a/b", "..", "", "a\0b", "a\nb", "\ud800", "x" * 300, "ж" * 120]


@pytest.mark.parametrize(
    ("scene", "name"), [("s", name) for name in ODD] + [(name, "n") for name in [*ODD, "collection.json"]]
)
def test_a_name_that_cannot_be_one_stops_nothing_else(ledger, tmp_path, scene, name):
    (tmp_path / "data").write_text("x")
    _ledger_of(ledger, scene, "good")
    files = [RemoteFile(scene_id=scene, asset=key, name=name, href=str(tmp_path / "data")) for key in "ab"]
    files.append(RemoteFile(scene_id="good", asset="a", name="data", href=str(tmp_path / "data")))
    done = fetched(Odd(tuple(files)), ledger, tmp_path / "out")
    assert done.scenes == ("good",)
    assert list(done.failures) == [scene]
    assert "one of these names" in str(done.failures[scene])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"good", "collection.json"}
    assert not Ledger.load(ledger).entries[0].fetched


@pytest.mark.parametrize("name", ["s.json", ".data.partial", ".data.version"])
def test_no_file_passes_for_one_of_ours(ledger, tmp_path, name):
    (tmp_path / "data").write_text("{}")
    _ledger_of(ledger, "s")
    names = {"a": "data", "b": name}
    odd = Odd(
        tuple(RemoteFile(scene_id="s", asset=key, name=one, href=str(tmp_path / "data")) for key, one in names.items())
    )
    assert fetched(odd, ledger, tmp_path / "out").scenes == ("s",)
    assert {path.name for path in (tmp_path / "out" / "s").iterdir()} == {"s.json", "data", f"asset_{name}"}


@pytest.mark.parametrize(
    "item", [{}, {"geometry": None}, {"geometry": {"type": "Polygon", "coordinates": [[[0, 0]]]}}, {"properties": [1]}]
)
def test_an_item_that_cannot_be_written_stops_nothing_else(ledger, tmp_path, item):
    (tmp_path / "data").write_text("x")
    _ledger_of(ledger, "bad", "good")
    odd = Odd(
        tuple(RemoteFile(scene_id=one, asset="a", name="data", href=str(tmp_path / "data")) for one in ("bad", "good"))
    )
    right = odd.describe
    odd.describe = lambda scene, files: (
        {**right(scene, files), **(item or {"id": None})} if scene == "bad" else right(scene, files)
    )
    if not item:
        odd.describe = lambda scene, files: {} if scene == "bad" else right(scene, files)
    done = fetched(odd, ledger, tmp_path / "out")
    assert (done.scenes, list(done.failures)) == (("good",), ["bad"])
    assert "'bad' is there, but its item cannot be written" in str(done.failures["bad"])


def test_a_ledger_comes_back_equal_and_a_damaged_one_is_no_empty_one(ledger):
    full = Ledger(
        (
            OrderEntry(
                name="n",
                scenes={"s": 1.5},
                submitted="t",
                state="partial",
                order_id="1",
                delivered=("s",),
                fetched=True,
            ),
        )
    )
    full.save(ledger)
    assert Ledger.load(ledger) == full
    assert Ledger.load(ledger.with_name("none.json")) == Ledger()
    ledger.write_text("{")
    with pytest.raises(OrderError, match="do not delete it"):
        Ledger.load(ledger)
    ledger.write_text('{"version": 9, "orders": []}')
    with pytest.raises(OrderError, match="version 9"):
        Ledger.load(ledger)


def test_two_processes_do_not_order_at_once(ledger):
    with locked(ledger), pytest.raises(OrderError, match="Another process works on"), locked(ledger):
        pass
    with locked(ledger):
        pass


def test_a_folder_of_another_collection_is_refused(make_catalog, ledger, tmp_path):
    provider = StacProvider(StaticCatalog(str(make_catalog() / "catalog.json")))
    ordered(provider, ledger)
    fetched(provider, ledger, tmp_path / "out")
    with pytest.raises(OrderError, match="holds collection 'mine'; this order's is 'yours'"):
        fetch_order(provider, ledger, tmp_path / "out", collection="yours")


@pytest.mark.parametrize("is_stopped", [False, True])
def test_of_two_collections_that_come_to_one_folder_at_once_one_has_it(make_catalog, ledger, tmp_path, is_stopped):
    provider = StacProvider(StaticCatalog(str(make_catalog() / "catalog.json")))
    other, out = tmp_path / "other.ledger.json", tmp_path / "out"
    for each in (ledger, other):
        ordered(provider, each)

    class Stop(BaseException):
        pass

    def first_file_came(file, count):
        # As the other process, which found the folder empty when it began.
        with pytest.raises(OrderError, match=r"holds collection 'mine'; this order's is 'yours'.*remove .*out/\.coll"):
            fetch_order(provider, other, out, collection="yours")
        if is_stopped:
            raise Stop

    if not is_stopped:
        assert fetched(provider, ledger, out, advance=first_file_came).scenes
        assert not (out / ".collection.json").exists()
    else:
        with pytest.raises(Stop):
            fetched(provider, ledger, out, advance=first_file_came)
        with pytest.raises(OrderError, match="holds collection 'mine'"):
            fetch_order(provider, other, out, collection="yours")


def test_of_two_collections_that_begin_at_one_moment_one_has_the_folder(make_catalog, ledger, tmp_path, monkeypatch):
    provider = StacProvider(StaticCatalog(str(make_catalog() / "catalog.json")))
    other, out, stage = tmp_path / "other.ledger.json", tmp_path / "out", atomic._locked_stage
    for each in (ledger, other):
        ordered(provider, each)

    def other_first(target):
        if target.parent == out:
            monkeypatch.undo()
            fetch_order(provider, other, out, collection="yours")
        return stage(target)

    monkeypatch.setattr(atomic, "_locked_stage", other_first)
    with pytest.raises(OrderError, match="holds collection 'yours'; this order's is 'mine'"):
        fetched(provider, ledger, out)
    assert not (out / ".collection.json").exists()
    assert json.loads((out / "collection.json").read_text())["id"] == "yours"
