"""The page in a real browser: what is seen is what the data says, a pan reads what is seen, names are never HTML."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtsx
from rtsx.cube.zarr_cube import StoredPixels
from rtsx.viewer.mapview import MapView
from rtsx.viewer.render import colours_of
from tests.viewer.maps import HOSTILE, small_image, small_map, small_outlines, tiny_bundle

pytest.importorskip("bokeh", reason="the page needs the extra `view`")
playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright drives a browser here")
from shutil import which  # noqa: E402

BROWSER = which("chromium") or which("chromium-browser") or which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")

PLACE = """([x, y]) => {
  const plot = Bokeh.documents[0].get_model_by_name("map"), view = Bokeh.index.find_one(plot)
  const at = view.canvas_view.el.getBoundingClientRect()
  return [at.left + view.frame.x_scale.compute(x), at.top + view.frame.y_scale.compute(y)]
}"""
"""Place on the screen of a place on the map."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[MapView, str]:
    folder = tmp_path_factory.mktemp("map")
    path = small_map(folder / "map.zarr")
    made = rtsx.view({HOSTILE: path}, cube=small_image(), footprints=small_outlines(), model=tiny_bundle())
    ready, found = threading.Event(), []

    def start(address: str) -> None:
        found.append(address)
        ready.set()

    threading.Thread(target=made.serve, kwargs={"on_start": start}, daemon=True).start()
    assert ready.wait(60)
    return made, found[0]


@pytest.fixture
def page(shown: tuple[MapView, str]) -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1300, "height": 850})
        # Nothing may come from anywhere but the server.
        opened.route("**", lambda route: route.continue_() if "127.0.0.1" in route.request.url else route.abort())
        opened.goto(shown[1])
        opened.wait_for_function("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle", timeout=60_000)
        yield opened
        browser.close()


def settled(page: Any, want: str) -> None:
    page.wait_for_function(want, timeout=60_000)


def pixel(page: Any, x: float, y: float) -> tuple[int, ...]:
    from PIL import Image

    left, top = page.evaluate(PLACE, [x, y])
    picture = Image.open(io.BytesIO(page.screenshot(clip={"x": left - 1, "y": top - 1, "width": 3, "height": 3})))
    return picture.convert("RGB").getpixel((1, 1))


IMAGES = "Bokeh.documents[0].get_model_by_name('map').renderers.filter(r => r.data_source.data.image?.length)"


def test_what_is_seen_is_what_the_data_says(page: Any, shown: tuple[MapView, str]) -> None:
    settled(page, f"{IMAGES}.length == 2")
    # Over the image: 80 % in the middle of the map is opaque, in the colours of the legend.
    expected = [round(255 * share) for share in colours_of("inferno")(0.8)[:3]]
    seen = pixel(page, 1650, 1650)
    assert np.abs(np.subtract(seen, expected)).max() < 40  # under the light fill of the outline
    # Where the map has no data, the image shows: its red rises to the east.
    assert pixel(page, 300, 3300)[0] < pixel(page, 900, 3300)[0]
    assert page.title() != "taken"
    page.get_by_text("middle").first.wait_for()
    assert page.get_by_text(HOSTILE).count() > 0


def test_what_is_looked_at_is_predicted_on_the_page(page: Any, tmp_path: Path) -> None:
    settled(page, f"{IMAGES}.length == 2")
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("predicted by tiny").first.wait_for(timeout=60_000)
    page.get_by_text("parts are done").wait_for(timeout=60_000)
    settled(page, f"{IMAGES}.length == 3")
    page.screenshot(path=tmp_path / "view.png")


def test_a_pan_reads_the_chunks_that_are_seen_and_no_other(
    page: Any, shown: tuple[MapView, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(page, f"{IMAGES}.length == 2")
    read: list[tuple[int, ...]] = []
    get = StoredPixels.__getitem__

    def noted(self: Any, key: Any) -> Any:
        if self.name == "probability" and key[0].stop > key[0].start:
            read.append(tuple(edge for part in key for edge in (part.start, part.stop)))
        return get(self, key)

    monkeypatch.setattr(StoredPixels, "__getitem__", noted)
    # 800 m wide, in the south-east: finer than the screen, so at full resolution.
    page.evaluate(
        "() => { const p = Bokeh.documents[0].get_model_by_name('map'); p.x_range.setv({start: 2750, end: 3550}); "
        "p.y_range.setv({start: 100, end: 500}) }"
    )
    settled(page, f"{IMAGES}.slice(-1)[0].data_source.data.x[0] > 2000")
    # Of pixels of 3 m; what was read before is of the moment between the two ranges.
    assert read[-1] == (1033, 1167, 916, 1184)


def test_a_row_of_the_table_is_flown_to_and_hover_tells_it(page: Any) -> None:
    settled(page, f"{IMAGES}.length == 2")
    page.get_by_text("middle").first.click()
    settled(
        page,
        "(() => { const p = Bokeh.documents[0].get_model_by_name('map'); return p.x_range.end - p.x_range.start < 6000 && "
        "Math.abs((p.x_range.end + p.x_range.start) / 2 - 1800) < 5 })()",
    )
    settled(page, f"{IMAGES}.length == 2")
    left, top = page.evaluate(PLACE, [1800, 1800])
    page.mouse.move(left - 5, top - 5)
    page.mouse.move(left, top)
    page.get_by_text("prob_mean:").first.wait_for()
    page.get_by_text("° N").first.wait_for()
    page.mouse.click(left, top)
    page.get_by_text("probability 0.8").first.wait_for()
    assert page.title() != "taken"


def test_without_the_token_nothing_is_shown(shown: tuple[MapView, str]) -> None:
    import urllib.error
    import urllib.request

    for address in (shown[1].partition("?")[0], shown[1][:-1] + ("a" if shown[1][-1] != "a" else "b")):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(address)
