"""Static catalogs."""

import json
import pickle
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from shapely import box

from rtsx.cube.images import Period, Wanted
from rtsx.cube.stac import Access, StacCatalog
from rtsx.errors import CubeError
from tests.servers import ScriptedServer, collection_of

Make = Callable[..., dict[str, Any]]
RED = [Wanted(name="red")]
AREA = box(10.2, 60.2, 10.4, 60.4)
SUMMER = Period(date(2023, 6, 1), date(2023, 8, 31))


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def catalog_of(*links: tuple[str, str]) -> dict[str, Any]:
    return {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "root",
        "description": "d",
        "links": [{"rel": rel, "href": href} for rel, href in links],
    }


def collection(name: str, *items: str, bbox: Any = None, interval: Any = None) -> dict[str, Any]:
    found = collection_of(name, links=[{"rel": "item", "href": href} for href in items])
    found["extent"]["spatial"]["bbox"] = bbox or [[-180, -90, 180, 90]]
    found["extent"]["temporal"]["interval"] = interval or [[None, None]]
    return found


@pytest.fixture
def tree(tmp_path: Path, make_item: Make) -> Path:
    """A catalog of two collections with two items, one of them with a relative href."""
    relative = make_item("a", collection="one")
    relative["assets"]["red"]["href"] = "../files/red.tif"
    relative["links"] = [{"rel": "self", "href": "https://published.example.org/one/a.json"}]
    write(tmp_path / "one" / "a.json", relative)
    write(tmp_path / "two" / "b.json", make_item("b", collection="two"))
    write(tmp_path / "one" / "collection.json", collection("one", "a.json"))
    write(tmp_path / "two" / "collection.json", collection("two", "./b.json"))
    return write(
        tmp_path / "catalog.json", catalog_of(("child", "one/collection.json"), ("child", "two/collection.json"))
    )


def found(path: Path | str, period: Period | None = None, **options: Any) -> list[str]:
    return [image.id for image in StacCatalog(str(path), **options).find(AREA, period, RED)]


def test_a_tree_is_walked_from_any_of_its_documents(tree: Path) -> None:
    assert found(tree) == found(tree.parent) == ["a", "b"]
    assert found(tree.parent / "one") == found(tree.parent / "one" / "collection.json") == ["a"]
    assert found(tree.parent / "one" / "a.json") == ["a"]
    assert found(f"file://{tree}") == ["a", "b"]


def test_hrefs_count_from_where_the_item_was_found(tree: Path) -> None:
    (image,) = StacCatalog(str(tree), collections=("one",)).find(AREA, None, RED)
    assert image.bands["red"].href == str(tree.parent / "files" / "red.tif")


def test_only_the_named_collections_count_also_inside_others(tree: Path) -> None:
    assert found(tree, collections=("two",)) == ["b"]
    outer = collection("outer")
    outer["links"] += [{"rel": "child", "href": "one/collection.json"}, {"rel": "item", "href": "missing.json"}]
    assert found(write(tree.parent / "outer.json", outer), collections=("one",)) == ["a"]


@pytest.mark.parametrize(
    ("extent", "is_read"),
    [
        ({"bbox": [[20, 60, 30, 70]]}, False),
        ({"bbox": [[0, 50, 30, 70], [10.3, 60, 11, 61]]}, True),
        ({"bbox": [[170, 60, -170, 61]]}, False),
        ({"bbox": [[5, 60, 0, 20, 61, 9]]}, True),
        ({"interval": [["2020-01-01T00:00:00Z", "2022-12-31T00:00:00Z"]]}, False),
        ({"interval": [["2023-08-31T23:00:00Z", None]]}, True),
        ({"interval": [[None, "2023-06-01T00:00:00Z"]]}, True),
        ({"interval": [["not a date", None]]}, True),
    ],
)
def test_a_collection_elsewhere_is_not_read(tmp_path: Path, extent: dict[str, Any], is_read: bool) -> None:
    path = write(tmp_path / "collection.json", collection("far", "missing.json", **extent))
    if is_read:
        with pytest.raises(CubeError, match=r"The STAC document .*missing\.json cannot be read"):
            found(path, SUMMER)
    else:
        assert found(path, SUMMER) == []


def test_a_list_of_items_and_a_folder_of_items(tmp_path: Path, make_item: Make) -> None:
    features = [make_item("a"), make_item("far", at=(50, 0))]
    assert found(write(tmp_path / "items.json", {"type": "FeatureCollection", "features": features})) == ["a"]
    write(tmp_path / "deep" / "b.json", make_item("b"))
    write(tmp_path / "deep" / "scene_metadata.json", {"cloud": 1})
    (tmp_path / "deep" / "broken.json").write_text("{")
    assert found(tmp_path) == ["a", "b"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CubeError, match=r"empty holds no STAC item"):
        found(empty)


def test_circles_of_links_end(tmp_path: Path, make_item: Make) -> None:
    write(tmp_path / "a.json", make_item("a"))
    inner = catalog_of(("child", "catalog.json"), ("item", "a.json"), ("item", "./a.json"))
    write(tmp_path / "inner.json", inner)
    assert found(write(tmp_path / "catalog.json", catalog_of(("child", "inner.json")))) == ["a"]


def test_files_beside_their_items(tmp_path: Path, make_item: Make) -> None:
    path = write(tmp_path / "a.json", make_item("a"))
    (tmp_path / "red.tif").touch()

    def href(**options: Any) -> str:
        (image,) = StacCatalog(str(path), **options).find(AREA, None, RED)
        return image.bands["red"].href

    assert href(prefer_local=True) == str(tmp_path / "red.tif")
    assert href() == "https://example.org/a/red.tif"


def test_what_is_no_catalog_is_named(tmp_path: Path) -> None:
    with pytest.raises(CubeError, match=r"nowhere\.json cannot be read"):
        found(tmp_path / "nowhere.json")
    with pytest.raises(CubeError, match=r"no STAC document: its type is None"):
        found(write(tmp_path / "x.json", {"a": 1}))
    with pytest.raises(CubeError, match=r"holds a JSON list"):
        found(write(tmp_path / "y.json", [1]))
    (tmp_path / "z.json").write_text("<html>")
    with pytest.raises(CubeError, match=r"z\.json is no JSON"):
        found(tmp_path / "z.json")
    api = catalog_of(("search", "search")) | {"conformsTo": []}
    with pytest.raises(CubeError, match=r"is a STAC API, not a static catalog\. Use StacSearch"):
        found(write(tmp_path / "api.json", api))


def test_over_http_with_a_key_for_the_own_host_only(scripted: ScriptedServer, make_item: Make, tmp_path: Path) -> None:
    other = scripted.url.replace("127.0.0.1", "localhost")
    item = make_item("a")
    item["assets"]["red"]["href"] = "red.tif"
    scripted.answers["/catalog.json"] = [
        (200, json.dumps(catalog_of(("item", "a.json"), ("item", f"{other}/b.json"))).encode())
    ]
    scripted.answers["/a.json"] = [(500, b"busy"), (200, json.dumps(item).encode())]
    scripted.answers["/b.json"] = [(200, json.dumps(make_item("b")).encode())]
    source = StacCatalog(f"{scripted.url}/catalog.json", access=Access(headers=(("X-Key", "secret"),)))
    first, second = source.find(AREA, None, RED)
    assert first.bands["red"].href == f"{scripted.url}/red.tif"
    assert second.id == "b"
    keys = {path: headers.get("X-Key") for _, path, headers, _ in scripted.asked}
    assert keys == {"/catalog.json": "secret", "/a.json": "secret", "/b.json": None}
    assert pickle.loads(pickle.dumps(source)) == source


def test_http_failures(scripted: ScriptedServer) -> None:
    scripted.answers["/c.json"] = [(403, b"no key")]
    with pytest.raises(CubeError, match=r"/c\.json refuses access \(HTTP 403\): no key\. Give credentials in headers="):
        found(f"{scripted.url}/c.json")
    with pytest.raises(CubeError, match=r"/d\.json answers HTTP 404: no such page\. Check the address"):
        found(f"{scripted.url}/d.json")
