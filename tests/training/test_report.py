import re
import xml.etree.ElementTree as ET
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from rtsx.training import train
from rtsx.training.report import curve, png_link, sample_tiles
from rtsx.training.tile_index import index_tiles
from tests.training.little import make_recipe, make_scene


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run")
    scene = make_scene("<three>", seed=3)
    train(make_recipe(validation=(scene,), steps_per_epoch=1), folder, device="cpu")
    return (folder / "report.html").read_text()


def test_the_page_needs_nothing_else(page: str) -> None:
    links = re.findall(r"(?:src|href)=\"([^\"]{0,30})", page)
    assert links
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert "<script" not in page


def test_the_page_is_well_formed_and_names_are_escaped(page: str) -> None:
    opened: list[str] = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in {"br", "img", "meta"}:
                opened.append(tag)

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Balance().feed(page)
    assert opened == []
    assert "&lt;three&gt;" in page
    assert "<three>" not in page


def test_the_page_says_what_matters(page: str) -> None:
    for word in ("Result", "Scores", "Curves", "Samples of the validation scenes", "Data", "Settings and provenance"):
        assert f"<h2>{word}</h2>" in page
    for word in ("Calibration error", "test: four", "recipe_digest", "EPSG:3413", "Learning rate"):
        assert word in page
    assert page.count("<svg") == 4
    assert page.count("<img") >= 6


def test_any_reader_understands_the_pictures(page: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    for link in (png_link(picture), *re.findall(r"src=\"([^\"]+)\"", page)):
        data = b64decode(link.removeprefix("data:image/png;base64,"))
        assert data.startswith(b"\x89PNG")
        with rasterio.MemoryFile(data) as file:
            with pytest.warns(NotGeoreferencedWarning):
                opened = file.open()
            with opened:
                assert opened.count == 3
                pixels = opened.read().transpose(1, 2, 0)
        assert link != png_link(picture) or np.array_equal(pixels, picture)


def test_curves_lie_where_their_numbers_are() -> None:
    drawn = ET.fromstring(curve("a < b", {"up": [(1, 0.0), (2, 5.0), (3, 10.0)]}, marked=2.0))
    line = next(part for part in drawn if part.tag == "polyline")
    places = [tuple(map(float, place.split(","))) for place in line.attrib["points"].split()]
    (x1, y1), (x2, y2), (x3, y3) = places
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)
    assert y1 > y2
    mark = next(part for part in drawn if part.attrib.get("class") == "mark")
    assert float(mark.attrib["x1"]) == pytest.approx(x2, abs=0.2)


@pytest.mark.parametrize("points", [[], [(1.0, 0.5)], [(1.0, 0.0), (2.0, 0.0)], [(1.0, float("nan"))]])
def test_few_points_make_a_diagram_too(points: list[tuple[float, float]]) -> None:
    ET.fromstring(curve("loss", {"training": points}, marked=1.0))


def test_samples_show_labels_first() -> None:
    scenes = [make_scene(name, seed=n) for n, name in enumerate(("one", "two"))]
    index = index_tiles(scenes, inputs=None, tile=16, min_valid=0.05)
    tiles = sample_tiles(index)
    labelled = [
        bool(
            (scenes[t.scene].truth.read((slice(t.start[0], t.start[0] + 16), slice(t.start[1], t.start[1] + 16)))).any()
        )
        for t in tiles
    ]
    assert labelled[:5] == [True] * 5
    assert {tile.scene for tile in tiles[:5]} == {0, 1}
