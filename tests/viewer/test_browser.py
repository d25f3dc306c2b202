"""The page in a real browser: what is seen is what the data says, a pan reads what is seen, names are never HTML.

`RTSX_SCREENSHOTS=docs/images pytest tests/viewer/test_browser.py` draws the pictures of the docs anew.
"""

import asyncio
import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

import rtsx
from rtsx.campaign import Campaign
from rtsx.campaign.cell_task import cell_job
from rtsx.cli.demo import demo_config
from rtsx.cli.review import _image as review_image
from rtsx.config.yaml import dump_yaml
from rtsx.cube.zarr_cube import StoredPixels
from rtsx.review import create_review, serve_review
from rtsx.synthetic import demo_bundle_path, demo_spec, write_demo_scene
from rtsx.viewer.mapview import MapView
from rtsx.viewer.render import colours_of, physical
from tests.campaign.small_campaign import make_recipe, write_country
from tests.viewer.maps import HOSTILE, small_image, small_map, small_outlines

pytest.importorskip("bokeh", reason="the page needs the extra `view`")
playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright drives a browser here")

BROWSER = which("chromium") or which("chromium-browser") or which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
SCREENSHOTS = os.environ.get("RTSX_SCREENSHOTS")

PLACE = """([x, y, name]) => {
  const plot = Bokeh.documents[0].get_model_by_name(name), view = Bokeh.index.find_one(plot)
  const at = view.canvas_view.el.getBoundingClientRect()
  return [at.left + view.frame.x_scale.compute(x), at.top + view.frame.y_scale.compute(y)]
}"""
"""Place on the screen of a place on the map."""
SHOW = """([left, bottom, right, top]) => { const p = Bokeh.documents[0].get_model_by_name("map")
  p.x_range.setv({start: left, end: right}); p.y_range.setv({start: bottom, end: top}) }"""
SEEN = "() => { const p = Bokeh.documents[0].get_model_by_name('map'); return [p.x_range.start, p.y_range.start, p.x_range.end, p.y_range.end] }"
IMAGES = "Bokeh.documents[0].get_model_by_name('map').renderers.filter(r => r.data_source.data.image?.length)"
Open = Callable[[str], Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens an address, and waits until everything is drawn; nothing may come from anywhere but the server."""
    pages = []

    def opened(address: str, images: int = 2) -> Any:
        page = browser.new_page(viewport={"width": 1300, "height": 850})
        pages.append(page)
        page.route("**", lambda route: route.continue_() if "127.0.0.1" in route.request.url else route.abort())
        page.goto(address)
        page.wait_for_function("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle", timeout=60_000)
        settled(page, f"{IMAGES}.length == {images}")
        return page

    yield opened
    for page in pages:
        page.close()


def served(shown: MapView) -> str:
    """Serve a map by a thread, and return its address."""
    ready, found = threading.Event(), []

    def start(address: str) -> None:
        found.append(address)
        ready.set()

    threading.Thread(target=shown.serve, kwargs={"on_start": start}, daemon=True).start()
    assert ready.wait(60)
    return found[0]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small map with names as nobody should give them, over an image of two years."""
    path = small_map(tmp_path_factory.mktemp("map") / "map.zarr")
    image = small_image()[["blue", "green", "red"]]
    return served(rtsx.view({HOSTILE: path}, cube=_years(image), footprints=small_outlines()))


def _years(image: xr.Dataset) -> xr.Dataset:
    """Red rises to the east in 2019, and to the west in 2024."""
    later = image.copy()
    later["red"] = image["red"].copy(data=image["red"].values[:, ::-1])
    times = np.array(["2019-07-01", "2024-07-01"], "M8[ns]")
    return xr.concat([image, later], "time").assign_coords(time=times)


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `rtsx demo` writes, of a small scene."""
    out = tmp_path_factory.mktemp("demo")
    made = write_demo_scene(demo_spec(size=1024 if SCREENSHOTS else 320), out / "scene")
    (out / "cube.yaml").write_bytes(dump_yaml(demo_config(made)).encode())
    bundle = rtsx.ModelBundle.open(demo_bundle_path())
    pred = rtsx.predict_cube(
        rtsx.open_cube(out / "cube.yaml"), bundle, tile="bundle", overlap="bundle", backend="eager"
    )
    rtsx.write_cube(pred, out / "map.zarr")
    rtsx.extract_footprints(rtsx.open_cube(out / "map.zarr")).to_parquet(out / "slumps.parquet")
    return out


@pytest.fixture(scope="module")
def demo(products: Path) -> str:
    (truth,) = (products / "scene").glob("*_slumps.parquet")
    return served(
        rtsx.view(
            products / "map.zarr", cube=products / "cube.yaml", footprints=products / "slumps.parquet", truth=truth, model=demo_bundle_path()
        )
    )  # fmt: skip


def settled(page: Any, want: str) -> None:
    """Wait until something is so on the page, and nothing is being read."""
    read = "Bokeh.documents[0].get_model_by_name('status').text != 'reading ...' && Bokeh.documents[0].is_idle"
    page.wait_for_function(f"({want}) && {read}", timeout=60_000)


def eventually(page: Any, check: Callable[[], object]) -> None:
    """Look again until something is seen."""
    for _ in range(200):
        if check():
            return
        page.wait_for_timeout(100)
    raise AssertionError("it is never seen")


def pixels(page: Any, x: Any, y: Any, *, plot: str = "map") -> NDArray[np.int64]:
    """Colours on the screen of places on the map, as soon as they are on it: a page takes its time to find its shape."""
    x, y = np.broadcast_arrays(x, y)
    found: list[NDArray[np.int64]] = []

    def look_there() -> bool:
        first, last = (page.evaluate(PLACE, [float(a), float(b), plot]) for a, b in ((0.0, 0.0), (1000.0, 1000.0)))
        column = (first[0] + x / 1000 * (last[0] - first[0])).astype(int)
        row = (first[1] + y / 1000 * (last[1] - first[1])).astype(int)
        picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
        height, width, _ = picture.shape
        is_there = row.min() >= 0 and row.max() < height and column.min() >= 0 and column.max() < width
        found[:] = [picture[row, column]] if is_there else []
        return bool(is_there)

    eventually(page, look_there)
    return found[0]


def look(page: Any, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Show a box, and return the one that is then seen, which has the shape of the screen."""
    page.evaluate(SHOW, list(box))
    page.wait_for_timeout(0)
    settled(page, f"Math.abs({IMAGES}[0].data_source.data.x[0] - {box[0]}) < 100")
    return tuple(page.evaluate(SEEN))


def press(page: Any, slider: str, key: str, times: int = 1) -> None:
    """Move a slider by the keyboard; the whole of its length with Home and End."""
    handle = page.locator(".bk-Slider", has_text=slider).locator(".noUi-handle").first
    for _ in range(times):
        handle.press(key)


def over(ground: NDArray[Any], rgba: NDArray[Any]) -> NDArray[Any]:
    """A picture over another."""
    alpha = rgba[..., 3:]
    return ground * (1 - alpha) + 255 * rgba[..., :3] * alpha


def test_the_demo_has_the_colours_that_its_data_says_and_is_predicted_as_it_is(
    open_page: Open, demo: str, products: Path
) -> None:
    page = open_page(demo)
    for name in ("truth", "footprints"):
        page.get_by_label(name, exact=True).uncheck()
    cube, pred = (rtsx.open_cube(products / name) for name in ("cube.yaml", "map.zarr"))
    found = gpd.read_parquet(products / "slumps.parquet").to_crs("EPSG:3413")
    left, bottom, right, top = found.geometry[found.area.idxmax()].bounds
    seen = look(page, (left - 30, bottom - 20, right + 30, top + 20))
    inside = cube.sel(x=slice(seen[0], seen[2]), y=slice(seen[3], seen[1]))
    ground = inside.compute()
    valid = ground["valid"].values
    bands = []
    for name in ("red", "green", "blue"):
        values = physical(ground[name])
        low, high = np.percentile(values[np.isfinite(values) & valid], (1, 99))
        bands.append(255 * np.clip((values - low) / (high - low), 0, 1) ** 0.8)
    expected = np.where(np.isfinite(bands[0])[..., None], np.stack(bands, -1), 244.0)
    x, y = np.meshgrid(ground["x"].values, ground["y"].values)

    def differs(expected: NDArray[Any]) -> float:
        off = np.abs(pixels(page, x, y) - expected).max(axis=-1)
        return float(
            (off[2:-2, 2:-2] > 12).mean()
        )  # the scale bar hides some, and the screen's percentiles are of a pixel more

    def drawn(map_of: xr.Dataset) -> NDArray[Any]:
        values = physical(map_of["probability"].sel(x=ground["x"], y=ground["y"]).compute())
        rgba = colours_of("inferno")(values)
        rgba[..., 3] = np.where(np.isfinite(values), np.clip(3 * values, 0, 1), 0)
        return rgba

    assert differs(over(expected, drawn(pred))) < 0.05 < 0.2 < differs(expected)
    page.get_by_label("map.zarr", exact=True).select_option("hidden")
    settled(page, f"{IMAGES}.length == 1")
    assert differs(expected) < 0.05
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("parts are done").wait_for(timeout=60_000)
    settled(page, f"{IMAGES}.length == 2")
    again = drawn(rtsx.predict_cube(cube, rtsx.ModelBundle.open(demo_bundle_path())))
    again[..., 3] *= 0.8
    assert differs(over(expected, again)) < 0.05 < 0.2 < differs(expected)


def test_a_row_of_the_demo_s_table_is_gone_to_and_hover_and_click_tell_it(
    open_page: Open, demo: str, products: Path
) -> None:
    page = open_page(demo)
    found = gpd.read_parquet(products / "slumps.parquet").to_crs("EPSG:3413")
    row = found.loc[found.area.idxmax()]
    page.get_by_label("table").select_option("footprints")
    page.get_by_label("show where").fill(f"area_m2 >= {row['area_m2'] - 1}")
    page.get_by_label("show where").press("Enter")
    page.get_by_text(f"1 of {len(found)}").wait_for()
    page.get_by_text(row["footprint_id"]).first.click()
    left, _, right, _ = row.geometry.bounds
    settled(
        page,
        f"(() => {{ const [l, b, r, t] = ({SEEN})(); return Math.abs((l + r) / 2 - {(left + right) / 2}) < 5 && r - l < {5 * (right - left) + 800} }})()",
    )
    place = row.geometry.representative_point()
    at = page.evaluate(PLACE, [place.x, place.y, "map"])
    page.mouse.move(at[0] - 5, at[1] - 5)
    page.mouse.move(*at)
    page.get_by_text("prob_mean:").first.wait_for()
    page.get_by_text(f"{row['prob_mean']:.4f}").first.wait_for()
    page.get_by_text("° N").first.wait_for()
    page.mouse.click(*at)
    pred = rtsx.open_cube(products / "map.zarr")
    value = float(physical(pred["probability"].sel(x=[place.x], y=[place.y], method="nearest").compute())[0, 0])
    page.get_by_text(f"probability {value:.6g} (stored").first.wait_for()
    if SCREENSHOTS:
        page.get_by_label("show where").fill("")
        page.get_by_label("show where").press("Enter")
        page.get_by_label("compare").select_option("swipe")
        page.get_by_label("with", exact=True).select_option("cube: false colour")
        page.mouse.move(*at)
        page.wait_for_timeout(2000)
        save(page.screenshot(), "view.png")


def test_the_demo_s_outlines_are_reviewed_on_its_cube(browser: Any, products: Path, tmp_path: Path) -> None:
    outlines = gpd.read_parquet(products / "slumps.parquet")
    sources = {"2024": str(products / "cube.yaml"), "map": str(products / "map.zarr")}
    review = create_review(outlines, str(tmp_path / "review"), cubes=sources, opener=rtsx.open_cube, repeats=0.0)
    page = browser.new_page(viewport={"width": 1400, "height": 640})
    with serve_review(review, opener=review_image) as address:
        page.goto(f"{address}?token={review.admit('ada')}")
        for picture in ('svg[data-view="wide"][data-ready]', 'svg[data-image="1"][data-ready]'):
            page.wait_for_selector(picture, timeout=60_000)
        picture = page.screenshot()
        canvas = page.locator('svg[data-image="1"]').bounding_box()
        page.close()
    # The map beside it: probable where the outline is, and nothing at the rim.
    shown = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))[:, :, 0]
    x, y, side = int(canvas["x"]), int(canvas["y"]), int(canvas["width"])
    assert shown[y + side // 2, x + side // 2] > 150 > 80 > np.median(shown[y + 5 : y + side - 5, x + 5])
    if SCREENSHOTS:
        save(picture, "review.png")


def is_coloured(colours: NDArray[np.int64]) -> bool:
    """Neither grey nor a light fill, somewhere."""
    return bool((colours.max(axis=1) - colours.min(axis=1) > 60).any())


def test_a_campaign_shows_its_map_and_its_cells_by_state(open_page: Open, tmp_path: Path) -> None:
    recipe = make_recipe(write_country(tmp_path), str(tmp_path / "out"))
    campaign = Campaign.create(recipe)
    job = cell_job(recipe, campaign.plan)
    for cell in [*campaign.plan.cells][:2]:
        assert job(cell, 1, "run").state == "done"
    page = open_page(served(rtsx.view(campaign=campaign)), images=1)
    legend = "Bokeh.documents[0].get_model_by_name('legend').text"
    settled(page, f"{legend}.includes(' left') && {legend}.includes(' mapped')")
    cells = campaign.cells()
    for _, cell in cells.iterrows():
        left, bottom, right, top = cell.geometry.bounds
        places = np.linspace(left, right, 60)[5:-5], (top + bottom) / 2
        is_mapped = cell["state"] == "mapped"
        eventually(page, lambda places=places, is_mapped=is_mapped: is_coloured(pixels(page, *places)) == is_mapped)
    assert set(cells["state"]) == {"mapped", "left"}


def test_what_is_seen_is_what_the_data_says_and_names_stay_text(open_page: Open, address: str) -> None:
    page = open_page(address)
    # Over the image: 80 % in the middle of the map is opaque, in the colours of the legend.
    expected = [round(255 * share) for share in colours_of("inferno")(0.8)[:3]]
    assert np.abs(pixels(page, 1650, 1650) - expected).max() < 40  # under the light fill of the outline
    # Where the map has no data, the image shows.
    west, east = pixels(page, np.array([300, 900]), 3300)[:, 0]
    assert west > east  # 2024
    page.get_by_text("middle").first.wait_for()
    assert page.get_by_text(HOSTILE).count() > 0
    assert page.title() != "taken"


def test_years_are_slid_through_compared_and_swiped_and_images_fade(open_page: Open, address: str) -> None:
    page = open_page(address)
    places = np.array([300, 900])
    red = lambda plot="map": np.diff(pixels(page, places, 3300, plot=plot)[:, 0])[0]  # noqa: E731
    assert red() < 0
    press(page, "time: 2024-07-01", "Home")
    eventually(page, lambda: red() > 0)
    page.get_by_label("compare").select_option("side by side")
    page.get_by_label("with").select_option("cube: true colour")
    eventually(page, lambda: red("other") < 0 < red())
    page.get_by_label("compare").select_option("swipe")
    settled(page, f"{IMAGES}.length == 3")
    y = 2000  # where the map is transparent, on both sides of the middle
    west_east = lambda: np.diff(pixels(page, np.array([900, 1200, 2400, 2700]), y)[:, 0])[::2]  # noqa: E731
    eventually(page, lambda: west_east()[0] > 0 > west_east()[1])
    press(page, "swipe", "End")
    eventually(page, lambda: (west_east() > 0).all())
    page.get_by_label("compare").select_option("one map")
    settled(page, f"{IMAGES}.length == 2")
    assert not page.get_by_label("with").is_visible()
    press(page, "opacity", "Home")  # of the image, the first
    eventually(page, lambda: (pixels(page, places, 3300) == 244).all())


def test_a_pan_reads_the_chunks_that_are_seen_and_no_other(
    open_page: Open, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page(address)
    read: list[tuple[int, ...]] = []
    get = StoredPixels.__getitem__

    def noted(self: Any, key: Any) -> Any:
        if self.name == "probability" and key[0].stop > key[0].start:
            read.append(tuple(edge for part in key for edge in (part.start, part.stop)))
        return get(self, key)

    monkeypatch.setattr(StoredPixels, "__getitem__", noted)
    # 800 m wide, in the south-east: finer than the screen, so at full resolution.
    page.evaluate(SHOW, [2750, 100, 3550, 500])
    settled(page, f"{IMAGES}.slice(-1)[0].data_source.data.x[0] > 2000")
    # Of pixels of 3 m; what was read before is of the moment between the two ranges.
    assert read[-1] == (1033, 1167, 916, 1184)


def test_a_map_shows_itself_below_the_address_of_a_hub(
    open_page: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/")
    address = served(rtsx.view(small_image(60)))
    assert address.startswith("/user/ada/proxy/")
    port = int(address.split("/")[4])
    with Proxy(f"/user/ada/proxy/{port}", port) as outside:
        page = open_page(f"http://127.0.0.1:{outside}{address}", images=1)
        page.get_by_label("image").select_option("relief")
        settled(page, "Bokeh.documents[0].get_model_by_name('legend').text.endsWith(': relief')")


class Proxy:
    """What a hub does: hands on what is asked below a prefix, without it, WebSockets too."""

    def __init__(self, prefix: str, port: int) -> None:
        self.prefix, self.port = prefix.encode(), port

    def __enter__(self) -> int:
        ready = threading.Event()

        async def run() -> None:
            self.loop, self.stop = asyncio.get_running_loop(), asyncio.Event()
            server = await asyncio.start_server(self.connected, "127.0.0.1", 0)
            self.outside = server.sockets[0].getsockname()[1]
            ready.set()
            await self.stop.wait()
            server.close()

        self.thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
        self.thread.start()
        assert ready.wait(30)
        return self.outside

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(10)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked, _, rest = head.partition(b"\r\n")
        if b" " + self.prefix not in asked:
            writer.close()
            return
        if b"upgrade: websocket" not in rest.lower():  # one request a connection, because each has the prefix
            rest = rest.replace(b"Connection: keep-alive", b"Connection: close")
        inner, outer = await asyncio.open_connection("127.0.0.1", self.port)
        outer.write(asked.replace(self.prefix, b"", 1) + b"\r\n" + rest)

        async def hand_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            try:
                while content := await source.read(1 << 16):
                    target.write(content)
            finally:
                target.close()

        await asyncio.gather(hand_on(reader, outer), hand_on(inner, writer), return_exceptions=True)


def test_without_the_token_nothing_is_shown(address: str) -> None:
    import urllib.error
    import urllib.request

    for other in (address.partition("?")[0], address[:-1] + ("a" if address[-1] != "a" else "b")):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(other)


def save(picture: bytes, name: str) -> None:
    """Keep a picture for the docs, in 256 colours."""
    assert SCREENSHOTS is not None
    Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(256).save(Path(SCREENSHOTS) / name, optimize=True)
