"""What one map shows: opened from anything, drawn without a browser, predicted where it is looked at."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import rtsx
from rtsx.errors import ConfigError, CubeError, FootprintError, MissingExtraError, OutputNotWritableError, PathError
from rtsx.viewer.mapview import MapView, predict_window
from rtsx.viewer.page import MapPage
from rtsx.viewer.pyramid import Pyramid
from rtsx.viewer.render import OutlineLayer, colours_of
from tests.viewer.maps import HOSTILE, several_classes, small_image, small_map, small_outlines, tiny_bundle


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_map(tmp_path_factory.mktemp("map") / "map.zarr")


@pytest.mark.parametrize("chunk", [None, 100])
def test_what_is_looked_at_is_predicted_as_the_whole_image_is(chunk: int | None) -> None:
    image = small_image()
    image = image if chunk is None else image.chunk({"y": chunk, "x": chunk})
    model = tiny_bundle()
    *_, (done, parts, predicted) = found = [
        (number, parts, made)
        for number, parts, made in predict_window(
            Pyramid.of(image), model, box=(600, 1200, 1500, 2400), crs="EPSG:3413", select={}
        )
    ]
    assert done == parts == len(found) == (1 if chunk is None else 2)
    whole = rtsx.predict_cube(image, model).isel(y=slice(100, 200), x=slice(50, 125)).compute()
    xr.testing.assert_identical(predicted.drop_attrs(), whole.drop_attrs())
    assert len(np.unique(whole["probability"])) > 10


def test_a_prediction_is_filled_part_by_part_and_refused_if_too_large() -> None:
    image = small_image().chunk({"y": 100, "x": 100})
    box = (0, 0, 3600, 3600)
    done, parts, predicted = next(predict_window(Pyramid.of(image), tiny_bundle(), box=box, crs="EPSG:3413", select={}))
    assert (done, parts) == (1, 9)
    assert 0 < int((predicted["probability"] != 255).sum()) <= 10_000
    large = xr.Dataset({name: image[name].pad(y=(0, 4000), x=(0, 4000), constant_values=0) for name in ("red", "nir")})
    pyramid = Pyramid.of(large.assign_coords(small_image(4300).coords))
    with pytest.raises(CubeError, match=r"4,300 x 4,300 pixels; at most 16,777,216 .* Zoom in"):
        next(predict_window(pyramid, tiny_bundle(), box=pyramid.box, crs="EPSG:3413", select={}))


def test_a_prediction_that_is_stopped_goes_no_further() -> None:
    page, settle = page_of(rtsx.view(small_image().chunk({"y": 100, "x": 100}), model=tiny_bundle()))
    assert page.layout is not None
    image = next(iter(page.images.values())).cube
    computed: list[int] = []

    def parts() -> Iterator[tuple[int, int, xr.Dataset]]:
        for number in (1, 2, 3):
            computed.append(number)
            if number == 2:
                page._stop()
            yield number, 3, image

    page._show_parts(parts(), "predicted", page.wanted)
    settle()
    assert (computed, page.progress.text, "predicted" in page.images) == ([1, 2], "stopped after 2 of 3 parts", True)

    def broken() -> Iterator[tuple[int, int, xr.Dataset]]:
        yield 1, 2, image
        raise CubeError("a < b")

    page.wanted += 1
    page._show_parts(broken(), "broken", page.wanted)
    settle()
    assert (page.progress.text, "broken" in page.images) == ("a &lt; b", True)
    page.close()


def test_a_picture_shows_what_the_page_shows(stored: Path, tmp_path: Path) -> None:
    from PIL import Image

    shown = rtsx.view({"map": stored}, cube=small_image(), footprints=small_outlines(), style={"cube": "false colour"})
    picture = np.asarray(Image.open(shown.save_png(tmp_path / "map.png", size=(400, 600))).convert("RGB")).astype(int)
    assert picture.shape == (400, 600, 3)
    # The map is fitted to the height; 80 % of probability in its middle, in the colours of its legend.
    assert np.abs(picture[205, 305] - np.multiply(255, colours_of("inferno")(0.8)[:3])).max() < 5
    with pytest.raises(OutputNotWritableError, match=r"map\.png"):
        shown.save_png(tmp_path / "map.tif")


def page_of(shown: MapView) -> tuple[MapPage, Callable[[], None]]:
    """Return a page as a server has it, and a function that ends what it has to read and puts it there."""
    waiting: list[Callable[[], None]] = []
    page = MapPage(shown, size=(40, 80), run=waiting.append)
    page._changed()

    def settle() -> None:
        page.reader.submit(int).result()
        while waiting:
            waiting.pop(0)()

    return page, settle


def test_each_of_several_classes_is_drawn_and_has_its_values() -> None:
    shown = rtsx.view({"map": several_classes()})
    assert list(shown.styles["map"]) == ["probability: slump", "probability: lake", "valid"]
    page, settle = page_of(shown)
    for style, expected in (("probability: slump", (255, 0)), ("probability: lake", (0, 255))):
        page.layers[0].style.value = style
        settle()
        opacity = page.layers[0].source.data["image"][0].view(np.uint8).reshape(4, -1, 4)[..., 3]
        west, east = opacity[:, 0].max(), opacity[:, -1].max()
        assert (west, east) == expected
    page._show_values(3.0, 3594.0)
    settle()
    assert page.values.text.split("<br>")[1:] == [
        "probability: slump 0.9 (stored 90) ",
        "probability: lake 0 (stored 0) ",
        "valid True ",
    ]
    page.close()


def test_the_year_that_is_seen_is_predicted() -> None:
    image, model = small_image(20), tiny_bundle()
    years = xr.concat([image, image + 900], "time").assign_coords(time=np.array(["2019-07-01", "2024-07-01"], "M8[ns]"))
    page, settle = page_of(rtsx.view(years, model=model))
    assert page.layout is not None
    page.time.value = 0
    page._predict()
    page.predictor.join()
    settle()
    assert "all of 1 parts are done" in page.progress.text
    title = list(page.images)[-1]
    expected = rtsx.predict_cube(years.isel(time=0), model).compute()
    assert not expected["probability"].equals(rtsx.predict_cube(years.isel(time=1), model)["probability"].compute())
    xr.testing.assert_equal(page.images[title].cube["probability"], expected["probability"])
    page.close()


@pytest.mark.parametrize("times", [[2024, 2019], ["2024", "2019"], ["2024-07-01", "2019-07-01"]])
def test_years_are_seen_however_they_are_written(times: list[int | str]) -> None:
    image = small_image(20)
    written = xr.concat([image + 900, image], "time").assign_coords(time=times)
    dated = xr.concat([image, image], "time").assign_coords(time=np.array(["2018-07-01", "2020-07-01"], "M8[ns]"))
    view = rtsx.view({"written": written, "dated": dated}, year=2019)
    seen = view.images["written"].read(["blue"], view.start, size=(20, 20)).cube["blue"]
    np.testing.assert_array_equal(seen, image["blue"])
    page, _ = page_of(view)
    assert [str(time)[:4] for time in page.times] == ["2018", "2019", "2020", "2024"]
    assert str(page.times[page.time.value])[:4] == "2019"
    assert (page._select("written", page.time), page._select("dated", page.time)) == ({"time": 0}, {"time": 0})
    page.close()
    with pytest.raises(CubeError, match=r"nothing of 2021 to show.*written: 2019, 2024"):
        rtsx.view({"written": written, "dated": dated}, year=2021)


def test_times_that_mean_no_date_are_not_offered_as_one() -> None:
    page, settle = page_of(rtsx.view(xr.concat([small_image(20)] * 2, "time").assign_coords(time=[0, 1])))
    page._changed()
    settle()
    assert not page.times
    assert not page.time.visible
    assert not page.status.text
    page.close()


def test_an_image_that_cannot_be_read_leaves_the_others_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    page, settle = page_of(rtsx.view({"map": several_classes()}, cube=small_image(20)))
    draw = page._picture

    def broken(title: str, style: str, slider: object) -> object:
        if title == "cube":
            raise OSError("the disk <is> gone")
        return draw(title, style, slider)

    monkeypatch.setattr(page, "_picture", broken)
    page._changed()
    settle()
    assert page.status.text == "cube: OSError: the disk &lt;is&gt; gone"
    assert [len(layer.source.data["image"]) for layer in page.layers] == [0, 1]
    monkeypatch.setattr(page, "_values", lambda title, *_, **__: broken(title, "valid", page.time) and ["here"])
    page._show_values(3.0, 3594.0)
    settle()
    assert page.values.text == "cube: OSError: the disk &lt;is&gt; gone<br><b>map</b><br>here"
    page.close()


def test_a_page_without_a_server_holds_everything_and_no_html_of_names(stored: Path, tmp_path: Path) -> None:
    shown = rtsx.view({HOSTILE: stored}, footprints=small_outlines())
    text = shown.save_html(tmp_path / "map.html").read_text()
    assert HOSTILE not in text
    assert not re.search(r'<(script|link)[^>]*(src|href)="?https?://', text)
    assert "prob_mean" in text
    with pytest.raises(CubeError, match=r"at most 4096 px .* has 5000 x 5000.*bbox"):
        rtsx.view(small_image(5000)).save_html(tmp_path / "large.html")


def test_a_page_has_the_pixels_of_the_image_whose_crs_the_map_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes: list[tuple[int, int]] = []
    monkeypatch.setattr("rtsx.viewer.page.still_page", lambda view, *, size: sizes.append(size) or "")
    boxes = (
        GeoBox((100, 100), Affine(1e-4, 0, -135, 0, -1e-4, 69.4), "EPSG:4326"),
        GeoBox((100, 100), Affine(10, 0, 500_000, 0, -10, 7_700_000), "EPSG:32608"),
    )
    image, cube = (
        xr.Dataset({"dem": (("y", "x"), np.zeros((100, 100)))}, coords=xr_coords(box, dims=("y", "x"))) for box in boxes
    )
    rtsx.view(image, cube=cube).save_html(tmp_path / "map.html")
    assert sizes == [pytest.approx((90, 260), abs=10)]  # 1 km of the cube, in ten-thousandths of a degree
    with pytest.raises(CubeError, match=r"CRS of one of its images, \['.*Polar Stereographic North'\]; got WGS 84\."):
        MapView(title="", crs="EPSG:4326", images={"map": Pyramid.of(small_image(4))})


@pytest.mark.parametrize(
    ("bbox", "message"),
    [
        ((1, 2, 3), r"in degrees; got \[1, 2, 3\]"),
        ((-140, 60, -130, 100), "in degrees, south below north"),
        ((-140, 70, -130, 60), "in degrees, south below north"),
        ((-140, float("nan"), -130, 60), "in degrees, south below north"),
    ],
)
def test_what_is_seen_at_first_is_a_box_in_degrees(bbox: tuple[float, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rtsx.view(small_image(4), bbox=bbox)


def test_what_is_seen_at_first_shows_an_image() -> None:
    with pytest.raises(CubeError, match=r"bbox \[10, 60, 11, 61\] shows none of the images; image lies in \[134\.2"):
        rtsx.view(small_image(4), bbox=(10, 60, 11, 61))


def test_a_notebook_says_why_its_map_cannot_be_served(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("no more ports")

    monkeypatch.setattr("socket.create_server", refused)
    with pytest.raises(PathError, match="no more ports"):
        rtsx.view(small_image(4))._repr_mimebundle_()


def test_images_and_outlines_of_another_crs_lie_where_they_are(stored: Path) -> None:
    from pyproj import Transformer

    there = Transformer.from_crs("EPSG:3413", "EPSG:4326", always_xy=True)
    shown = rtsx.view(
        stored, cube=small_image(), footprints=small_outlines(), bbox=there.transform_bounds(0, 0, 3600, 3600)
    )
    assert shown.outlines[0].box == pytest.approx((1500, 600, 2760, 2100), abs=0.1)
    assert shown.start[0] < 1
    assert shown.start[2] > 3599
    beside = rtsx.view(stored, cube=small_image()[["dem"]].rio.reproject("EPSG:3995"))
    (_, moved), (_, _) = beside.draw((0, 0, 3600, 3600), size=(100, 100))
    assert moved.rgba[..., 3].mean() > 200


def test_nothing_to_show_and_strange_styles_are_refused(stored: Path) -> None:
    with pytest.raises(CubeError, match="A map needs an image"):
        rtsx.view()
    with pytest.raises(CubeError, match=r"'map.zarr' cannot be shown as 'red'.*'binary'"):
        rtsx.view(stored, style={"map.zarr": "red"})
    with pytest.raises(FootprintError, match="do not say their CRS"):
        rtsx.view(stored, footprints=small_outlines().set_crs(None, allow_override=True))


def test_a_taken_port_is_refused(stored: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PathError, match=rf"Port {port} .*Leave --port out"):
            rtsx.view(stored).serve(port=port)


def test_conditions_choose_rows_and_run_nothing() -> None:
    table = OutlineLayer.of(small_outlines(), title="slumps", crs="EPSG:3413")
    assert table.kept("prob_mean > 0.5").tolist() == [True, False]
    assert table.kept("prob_mean >= 0.3, name ~ MID").tolist() == [True, False]
    assert table.kept("name != middle").tolist() == [False, True]
    assert table.kept("").tolist() == [True, True]
    for bad in ("__import__('os')", "area > 5", "prob_mean > many"):
        with pytest.raises(FootprintError):
            table.kept(bad)
    assert table.seen((1000, 1000, 1600, 1600), np.ones(2, bool), most=10).tolist() == [0]
    assert table.seen((0, 0, 3600, 3600), np.ones(2, bool), most=1).tolist() == [0]
    assert table.colours_by("name") is table.colours_by("name")  # computed once, not at every pan
    by_number, by_text = table.colours_by("prob_mean"), table.colours_by("name")
    assert by_number.limits is not None
    assert len(set(by_number.colours)) == 2
    assert set(by_text.classes) == {"middle", HOSTILE}


def test_a_page_without_its_extra_says_what_to_install(
    stored: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shown = rtsx.view(stored)
    monkeypatch.setitem(sys.modules, "bokeh", None)
    for action in (shown.serve, lambda: shown.save_html(tmp_path / "map.html")):
        with pytest.raises(MissingExtraError, match=r"needs bokeh, .* pip install 'rtsx\[view\]'"):
            action()
    assert "rtsx[view]" in shown._repr_mimebundle_()["text/html"]
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"need matplotlib, .* pip install 'rtsx\[view\]'"):
        shown.save_png(tmp_path / "map.png")


def test_a_table_shows_what_says_something_and_the_one_that_has_rows() -> None:
    some = small_outlines()[["name", "prob_mean", "geometry"]].assign(
        date=None, area_m2=[360000.4, 3600.0], count=[1, 2]
    )
    layer = OutlineLayer.of(some, title="cells", crs="EPSG:3413")
    assert list(layer.widths) == ["name", "prob_mean", "area_m2", "count"]
    assert layer.formats == {"prob_mean": "0.0000", "area_m2": "0"}
    page, _ = page_of(rtsx.view(small_image(20), truth=some, footprints=some[:0]))
    assert page.outlines.chosen.value == "truth"
    assert [one.title for one in page.outlines.table.columns] == ["name", "prob_mean", "area_m2", "count"]
    page.close()
