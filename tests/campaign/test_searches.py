"""Searches that a year sends once: the images of a cell are those that the server would give, and hardly anybody is asked."""

import io
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from shapely import box, from_wkb, get_num_coordinates
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from rtsx.campaign import searches
from rtsx.campaign.campaign import Campaign
from rtsx.campaign.cell_input import cell_geobox, input_stamps
from rtsx.campaign.cell_task import cell_job
from rtsx.campaign.cells import CellTable, hilbert_order
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.recipe import CampaignRecipe
from rtsx.campaign.run import CellUpdate
from rtsx.campaign.searches import AnsweredSearch, ItemBlock, ask_searches, ask_searches_again, with_answers
from rtsx.cube import CubeRecipe, LayerRecipe, SourceRecipe
from rtsx.cube.images import BandRequest, Image, ImageSource, Period
from rtsx.cube.load import search_area
from rtsx.cube.stac import HttpAccess, StacSearch
from rtsx.cube.stac.client import HostSession
from rtsx.errors import CampaignError
from rtsx.geometry.antimeridian import lonlat_polygon
from rtsx.storage.object_store import MemoryObjects, ObjectStore, open_object_store
from tests.campaign.plans import GRID, LAYERS, make_plan
from tests.campaign.small_campaign import make_recipe, objects_below, rewrite_east, write_country
from tests.meanwhile import Meanwhile
from tests.ordering.file_server import FileServer
from tests.servers import ScriptedServer, rustac_server

LAYOUT = YearLayout(2024)


def item(
    name: str, bounds: tuple[float, ...], *, shape: tuple[int, int], href: str, **properties: Any
) -> dict[str, Any]:
    """An item of a raster of the grid, with two bands."""
    left, bottom, right, top = bounds
    outline = lonlat_polygon(box(*bounds), GRID.crs)
    bands = [{"name": name} for name in LAYERS]
    asset = {
        "href": href,
        "type": "image/tiff; application=geotiff",
        "eo:bands": bands,
        "raster:bands": [{"data_type": "uint16", "nodata": 0}] * 2,
        "proj:transform": [(right - left) / shape[1], 0, left, 0, (bottom - top) / shape[0], top],
        "proj:shape": list(shape),
    }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "scenes",
        "geometry": mapping(outline),
        "bbox": list(outline.bounds),
        "properties": {"datetime": "2024-07-01T00:00:00Z", "proj:epsg": 3413} | properties,
        "links": [],
        "assets": {"image": asset},
    }


def searching(url: str, **changes: Any) -> CubeRecipe:
    """The recipe of the files, searched."""
    layers = tuple(
        LayerRecipe(wanted=BandRequest(name=name, asset="image", bands=(number,)))
        for number, name in enumerate(LAYERS, start=1)
    )
    search = StacSearch(url, ("scenes",), **changes)
    return CubeRecipe(grid=GRID, sources=(SourceRecipe(name="images", images=search, layers=layers),))


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A server that answers by a script."""
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that searches were sent to."""
    sent: list[str] = []
    send = HostSession.send
    monkeypatch.setattr(
        HostSession, "send", lambda self, request, **kwargs: sent.append(request.url) or send(self, request, **kwargs)
    )
    return sent


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with items of all sizes over a thousand cells, and around them."""
    random = np.random.default_rng(5)
    items = []
    for number in range(120):
        left, top = random.uniform((-140000, -228000), (-105000, -193000))
        side = float(random.choice([300, 2500, 9000]))
        cover = float(random.integers(0, 100))
        day = f"2024-0{random.integers(6, 10)}-11T00:00:00Z"
        bounds = (left, top - side, left + side, top)
        found = item(f"{number:03d}", bounds, shape=(50, 50), href=f"https://example.org/{number}.tif", datetime=day)
        found["properties"]["eo:cloud_cover"] = cover
        items.append(found)
    with rustac_server(tmp_path_factory.mktemp("many"), items, ["scenes"]) as url:
        yield url


def thousand() -> Any:
    """A plan of 40 by 25 cells."""
    rows, columns = (310, 350), (-210, -185)
    cells = np.array([(y, x) for y in range(*rows) for x in range(*columns)], np.int32)
    plan = make_plan()
    tiling = replace(plan.prediction.tiling, shape=(40 * 64, 25 * 64))
    prediction = replace(plan.prediction, tiling=tiling)
    return replace(plan, rows=rows, columns=columns, cells=CellTable(cells), prediction=prediction)


def scattered() -> Any:
    """A plan of 150 cells anywhere around the pole, which are four searches."""
    plan, random = make_plan(), np.random.default_rng(1)
    cells = np.unique(random.integers(-300, 300, (150, 2)), axis=0).astype(np.int32)
    tiling = replace(plan.prediction.tiling, shape=(600 * 64,) * 2, offset=(-300 * 64,) * 2)
    prediction = replace(plan.prediction, tiling=tiling)
    table = CellTable(cells[hilbert_order(cells)])
    return replace(plan, cells=table, rows=(-300, 300), columns=(-300, 300), prediction=prediction)


@pytest.mark.parametrize("changes", [{"outline": False, "page": 10}, {"max_cloud_cover": 60, "page": 10}])
def test_a_cell_gets_the_images_that_the_server_would_give(
    many: str, changes: dict[str, Any], asked: list[str]
) -> None:
    plan, objects, cube = thousand(), MemoryObjects(), searching(many, **changes)
    ask_searches(objects, plan, cube)
    (source,), (answered,) = cube.sources, with_answers(objects, LAYOUT, cube).sources
    assert isinstance(answered.images, AnsweredSearch)
    counts = []
    for cell in [(310, -210), (349, -186), (330, -200), (320, -190), (349, -210)]:
        area = search_area(cell_geobox(plan, cell), margin_m=0)
        asked.clear()
        found = answered.images.find(area, None, source.wanted)
        assert not asked
        assert found == source.images.find(area, None, source.wanted)
        counts.append(len(found))
    assert min(counts) >= 0 < max(counts)
    elsewhere = search_area(GRID[(310, -150)].geobox, margin_m=0)
    asked.clear()
    assert answered.images.find(elsewhere, None, source.wanted) == source.images.find(elsewhere, None, source.wanted)
    assert len(asked) >= 4  # both of them ask where no table holds the ground


@dataclass(frozen=True)
class Renamed:
    """Images of another source that add to what it finds, as masks by a model do."""

    images: ImageSource

    def find(self, area: BaseGeometry, period: Period | None, wanted: Sequence[BandRequest]) -> tuple[Image, ...]:
        return tuple(replace(image, id=f"my {image.id}") for image in self.images.find(area, period, wanted))


def test_a_search_below_a_mask_is_answered_too(many: str, asked: list[str]) -> None:
    plan, objects, cube = thousand(), MemoryObjects(), searching(many)
    (plain,) = cube.sources
    cube = replace(cube, sources=(replace(plain, images=Renamed(plain.images)),))
    ask_searches(objects, plan, cube)
    (answered,) = with_answers(objects, LAYOUT, cube).sources
    area = search_area(cell_geobox(plan, (330, -200)), margin_m=0)
    asked.clear()
    found = answered.images.find(area, None, plain.wanted)
    assert not asked
    assert [image.id for image in found] == [f"my {one.id}" for one in plain.images.find(area, None, plain.wanted)]
    assert found


def test_a_thousand_cells_send_a_handful_of_requests(many: str, asked: list[str]) -> None:
    plan, objects, cube = thousand(), MemoryObjects(), searching(many)
    ask_searches(objects, plan, cube)
    assert 2 <= len(asked) <= 4
    (answered,) = with_answers(objects, LAYOUT, cube).sources
    assert isinstance(answered.images, AnsweredSearch)
    assert sum(block.items for block in answered.images.blocks) > 60
    edge = [cell for cell in plan.cells if cell[0] in (310, 349) or cell[1] in (-210, -186)]
    areas = [search_area(cell_geobox(plan, cell), margin_m=0) for cell in (*edge, *list(plan.cells)[::31])]
    assert all(map(answered.images.holding, areas))


@pytest.fixture
def country(tmp_path: Path) -> Iterator[tuple[tuple[Path, Path], Callable[..., list[dict[str, Any]]]]]:
    """Two files on a server, and their items."""
    files = write_country(tmp_path)
    server = FileServer(tmp_path)

    def items(**properties: Any) -> list[dict[str, Any]]:
        found = []
        for path in files:
            with rasterio.open(path) as file:
                found.append(
                    item(path.stem, file.bounds, shape=file.shape, href=f"{server.url}/{path.name}", **properties)
                )
        return found

    yield files, items
    server.close()


def answer(server: ScriptedServer, items: list[dict[str, Any]]) -> None:
    """Give these items to every search."""
    server.landing_page()
    server.searches({"type": "FeatureCollection", "features": items, "links": []})


def test_a_campaign_of_tables_writes_the_bytes_of_one_that_asks_and_an_update_sees_what_changed(
    country: tuple[tuple[Path, Path], Callable[..., list[dict[str, Any]]]],
    tmp_path: Path,
    scripted: ScriptedServer,
) -> None:
    files, items = country
    answer(scripted, items())

    def made(name: str) -> tuple[CampaignRecipe, Campaign]:
        cube = searching(scripted.url, access=HttpAccess(headers={"X-Key": "hidden-4711"}))
        recipe = make_recipe(files, str(tmp_path / name), cube=cube)
        return recipe, Campaign.create(recipe)

    def run(recipe: CampaignRecipe, campaign: Campaign) -> dict[str, bytes]:
        job = cell_job(recipe, campaign.plan)
        assert [job(cell, 1, "run").state for cell in campaign.plan.cells] == ["done"] * 6
        return {name: one for name, one in objects_below(Path(recipe.output)).items() if name != LAYOUT.searches}

    asking, direct = made("asking")
    (tmp_path / "asking" / LAYOUT.searches).unlink()  # as before there were tables
    scripted.asked.clear()
    expected = run(asking, direct)
    assert len(scripted.asked) == 2 * 6
    scripted.asked.clear()
    recipe, campaign = made("tables")
    assert len(scripted.asked) <= 4
    scripted.asked.clear()
    assert run(recipe, campaign).items() >= {k: v for k, v in expected.items() if "/items/" not in k}.items()
    assert Campaign.create(recipe).plan == campaign.plan
    assert campaign.estimate().cells == 6  # as each worker estimates before its first cell
    assert not scripted.asked
    stored = [path for path in (tmp_path / "tables").rglob("*") if path.is_file()]
    assert not any(b"hidden-4711" in path.read_bytes() for path in stored)

    update = CellUpdate(recipe=recipe, plan=campaign.plan)
    rewrite_east(files[1])
    changed = [items()[0], *items(updated="2025-01-01T00:00:00Z")[1:]]
    answer(scripted, changed)
    cells = list(campaign.plan.cells)
    ask_searches(campaign.objects, campaign.plan, recipe.cube)
    assert {update(cell, 1, "run").state for cell in cells} == {"done", "skipped"}
    assert 0 < sum(mark.cell[1] == -210 for mark in campaign.ledger.marks()) == len(list(campaign.ledger.marks()))


def test_what_is_signed_already_or_damaged_is_asked_again(
    country: tuple[tuple[Path, Path], Callable[..., list[dict[str, Any]]]], scripted: ScriptedServer
) -> None:
    _, items = country
    plan, objects, cube = make_plan(), MemoryObjects(), searching(scripted.url)
    answer(scripted, items())
    ask_searches(objects, plan, cube)
    (key,) = (found.key for found in objects.list(LAYOUT.items))
    objects.put(key, b"other")
    scripted.asked.clear()
    assert input_stamps(with_answers(objects, LAYOUT, cube), cell_geobox(plan, (310, -210)))
    assert len(scripted.asked) == 2
    other = searching(scripted.url, query={"platform": {"eq": "a"}})
    assert with_answers(objects, LAYOUT, other) == other

    signed = items()
    signed[0]["assets"]["image"]["href"] += "?sig=aB3%2FxYz0123456789abcdef%3D"
    answer(scripted, signed)
    with pytest.warns(RuntimeWarning, match="source 'images' themselves.*secrets"):
        ask_searches(objects, plan, cube)
    assert with_answers(objects, LAYOUT, cube) == cube
    assert b"aB3" not in b"".join(objects.get(found.key) or b"" for found in objects.list(LAYOUT.root))
    objects.put(LAYOUT.searches, json.dumps({"images": 1}).encode())
    with pytest.raises(CampaignError, match="searches"):
        with_answers(objects, LAYOUT, cube)


WORD = "aB3xYz0123456789abcdef"


def _linked(found: dict[str, Any]) -> None:
    """As servers that give back the token of a request."""
    found["links"] = [{"rel": "self", "href": f"https://example.org/items/a?token={WORD}"}]
    found["links"] += [{"rel": "preview", "href": f"https://example.org/a.png?sig={WORD}"}]


def _described(found: dict[str, Any]) -> None:
    """As Planetary Computer has it, where the name of an item is a parameter."""
    viewed = (
        f"https://example.org/api/data/v1/item/preview.png?collection=scenes&item=S2B_{WORD}&asset_bidx=visual%7C1%2C2"
    )
    found["assets"]["rendered_preview"] = {"href": viewed}


def _alternate(found: dict[str, Any]) -> None:
    found["assets"]["image"]["alternate"] = {"https": {"href": f"https://example.org/a.tif?sig={WORD}"}}


def _with_options(found: dict[str, Any]) -> None:
    found["assets"]["image"]["xarray:storage_options"] = {"account_key": WORD}


@pytest.mark.parametrize("change", [_linked, _described])
def test_an_item_is_stored_without_its_links_and_with_the_names_of_items_in_addresses(
    change: Callable[[dict[str, Any]], None], scripted: ScriptedServer
) -> None:
    plan, objects, cube = make_plan(), MemoryObjects(), searching(scripted.url)
    found = item("a", GRID[310, -210].bounds, shape=(64, 64), href="image.tif")
    found["links"] = [{"rel": "self", "href": "https://example.org/items/a"}]
    change(found)
    answer(scripted, [found])
    ask_searches(objects, plan, cube)
    (source,), (answered,) = cube.sources, with_answers(objects, LAYOUT, cube).sources
    area = search_area(cell_geobox(plan, (310, -210)), margin_m=0)
    (image,) = answered.images.find(area, None, source.wanted)
    assert isinstance(answered.images, AnsweredSearch)
    assert (image,) == source.images.find(area, None, source.wanted)
    (stored,) = (objects.get(block.table) for block in answered.images.blocks)
    text = str(pq.read_table(io.BytesIO(stored or b""))["item"].to_pylist())
    assert (WORD in text) == (change is _described)


@pytest.mark.parametrize("change", [_alternate, _with_options])
def test_an_item_that_holds_a_secret_anywhere_is_not_stored(
    change: Callable[[dict[str, Any]], None], scripted: ScriptedServer
) -> None:
    plan, objects, cube = scattered(), MemoryObjects(), searching(scripted.url)
    found = item("a", GRID[310, -210].bounds, shape=(64, 64), href="https://example.org/a.tif")
    change(found)
    answer(scripted, [found])
    with pytest.warns(RuntimeWarning, match="secrets") as warned:
        ask_searches(objects, plan, cube)
    assert len(warned) == 1
    assert len([one for one in scripted.asked if one[1] == "/search"]) == 1
    assert with_answers(objects, LAYOUT, cube) == cube
    assert not list(objects.list(LAYOUT.root))


def test_scattered_cells_ask_for_their_own_ground_with_few_corners(scripted: ScriptedServer) -> None:
    plan, objects, cube = scattered(), MemoryObjects(), searching(scripted.url)
    answer(scripted, [])
    ask_searches(objects, plan, cube)
    bodies = [body for _, path, _, body in scripted.asked if path == "/search"]
    assert len(bodies) == 4
    grounds = [shape(body["intersects"]) for body in bodies]
    assert max(map(get_num_coordinates, grounds)) < 500
    (answered,) = with_answers(objects, LAYOUT, cube).sources
    assert isinstance(answered.images, AnsweredSearch)
    areas = [search_area(cell_geobox(plan, cell), margin_m=0) for cell in list(plan.cells)[::5]]
    assert all(map(answered.images.holding, areas))
    asked = sum(from_wkb(block.area).area for block in answered.images.blocks)
    assert asked < 8 * 5 * sum(area.area for area in areas)  # margins are a third of these small cells on each side


class _Full(MemoryObjects):
    """A store that has room for one table."""

    def put(self, key: str, content: bytes) -> None:
        if key.endswith(".parquet") and list(self.list(LAYOUT.items)):
            raise OSError("full")
        super().put(key, content)


def test_what_is_interrupted_goes_on_within_a_day(scripted: ScriptedServer) -> None:
    plan, cube = scattered(), searching(scripted.url)
    answer(scripted, [])

    def searches() -> int:
        return len([one for one in scripted.asked if one[1] == "/search"])

    def interrupted() -> MemoryObjects:
        full = _Full()
        for number in range(2):  # a table of its own for each search
            found = item(str(number), GRID[310, -210].bounds, shape=(64, 64), href="https://example.org/a.tif")
            page = {"type": "FeatureCollection", "features": [found], "links": []}
            scripted.answers["/search"][number:number] = [(200, json.dumps(page).encode())]
        with pytest.raises(OSError, match="full"):
            ask_searches(full, plan, cube)
        left = MemoryObjects()
        for one in full.list(LAYOUT.root):
            left.put(one.key, full.get(one.key) or b"")
        scripted.asked.clear()
        return left

    left = interrupted()
    ask_searches(left, plan, cube)
    assert searches() == 3
    assert left.get(LAYOUT.searches_begun) is None
    (answered,) = with_answers(left, LAYOUT, cube).sources
    assert isinstance(answered.images, AnsweredSearch)
    assert [block.items for block in answered.images.blocks] == [1, 0, 0, 0]
    left = interrupted()
    begun = json.loads(left.get(LAYOUT.searches_begun) or b"")
    left.put(LAYOUT.searches_begun, json.dumps(begun | {"began": "2020-01-01T00:00:00Z"}).encode())
    ask_searches(left, plan, cube)
    assert searches() == 4


def test_cells_ask_where_a_server_does_not_answer_for_many(scripted: ScriptedServer) -> None:
    plan, objects, cube = scattered(), MemoryObjects(), searching(scripted.url)
    scripted.landing_page()
    empty = {"type": "FeatureCollection", "features": [], "links": []}
    scripted.searches(empty, (413, b"too large"), empty)
    with pytest.warns(RuntimeWarning, match="'images' themselves.*does not answer 1 searches.*413"):
        ask_searches(objects, plan, cube)
    (answered,) = with_answers(objects, LAYOUT, cube).sources
    assert isinstance(answered.images, AnsweredSearch)
    areas = [search_area(cell_geobox(plan, cell), margin_m=0) for cell in list(plan.cells)[::5]]
    held = [answered.images.holding(area) is not None for area in areas]
    assert any(held)
    assert not all(held)
    scripted.searches((413, b"too large"))
    scripted.asked.clear()
    with pytest.warns(RuntimeWarning, match="3 searches"):
        ask_searches(objects, plan, cube)
    assert with_answers(objects, LAYOUT, cube) == cube


def test_two_that_ask_at_once_leave_the_tables_that_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(objects: ObjectStore, layout: YearLayout, source: SourceRecipe, **_: object) -> ItemBlock:
        digest = uuid.uuid4().hex  # as of a server that has more each time
        objects.put(key := layout.item_table(source.name, digest), b"")
        return ItemBlock(area="", table=key, digest=digest, items=0)

    monkeypatch.setattr(searches, "_asked", asked)
    plan = make_plan()
    for n in range(20):
        output = f"memory://asked/{n}"
        recipe = make_recipe((tmp_path / "none.tif",), output, cube=searching("https://example.org"))
        objects = open_object_store(output, {})
        meanwhile = Meanwhile(n, partial(ask_searches_again, objects, plan, recipe))
        with meanwhile.happening():
            ask_searches_again(objects, plan, recipe)
        stored = json.loads(objects.get(LAYOUT.searches) or b"")
        assert all(objects.get(block["table"]) is not None for one in stored.values() for block in one["blocks"])
        if not meanwhile.has_happened:
            assert n > 2, "there were writes to come between"
            return
    raise AssertionError("never ended")
