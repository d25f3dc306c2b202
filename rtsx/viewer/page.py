"""The page of a map in Bokeh: images read as they are seen, comparison, values under a click, prediction on demand."""

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from threading import Thread
from typing import Any, TypeVar

import numpy as np
import pyproj
import xarray as xr
from bokeh.core.property.descriptors import UnsetValueError
from bokeh.document import Document
from bokeh.embed import file_html
from bokeh.events import ButtonClick, Tap
from bokeh.layouts import column, row
from bokeh.models import (
    BoxZoomTool,
    Button,
    ColumnDataSource,
    CustomJS,
    Div,
    Metric,
    PanTool,
    Range1d,
    ResetTool,
    ScaleBar,
    Select,
    Slider,
    WheelZoomTool,
)
from bokeh.plotting import figure
from bokeh.resources import INLINE
from bokeh.util.callback_manager import EventCallback

from rtsx.cube import packing
from rtsx.cube.times import times_of
from rtsx.errors import RtsxError
from rtsx.viewer.mapview import MapView, Shown, fitted, ground_scale, predict_window
from rtsx.viewer.pyramid import Box, Pyramid
from rtsx.viewer.render import Picture, draw_window, physical, styles_of
from rtsx.viewer.table import HIDDEN, OutlineTable, SeenOutlines, chip, gradient, on_change

_NODES = 17
"""Nodes along each side of the lattice from which the browser tells longitude and latitude."""
_Read = TypeVar("_Read")
_OFF, _BESIDE, _SWIPE = "one map", "side by side", "swipe"

_LONLAT = """
const [left, bottom, right, top, n] = grid.tags, d = grid.data
const u = (cb_obj.x - left) / (right - left) * (n - 1), v = (cb_obj.y - bottom) / (top - bottom) * (n - 1)
if (!(u >= 0 && v >= 0 && u <= n - 1 && v <= n - 1)) { out.text = ""; return }
const i = Math.min(Math.floor(u), n - 2), j = Math.min(Math.floor(v), n - 2), s = u - i, t = v - j
const at = (a) => (1 - t) * ((1 - s) * a[j * n + i] + s * a[j * n + i + 1]) + t * ((1 - s) * a[j * n + n + i] + s * a[j * n + n + i + 1])
const [x, y, z] = [at(d.x), at(d.y), at(d.z)], r = Math.hypot(x, y, z)
const lon = Math.atan2(y, x) * 180 / Math.PI, lat = Math.asin(z / r) * 180 / Math.PI
out.text = isNaN(lon) ? "" : `${Math.abs(lat).toFixed(5)}° ${lat < 0 ? "S" : "N"}, ${Math.abs(lon).toFixed(5)}° ${lon < 0 ? "W" : "E"}`
"""
"""Longitude and latitude under the pointer, between directions from the centre of the Earth, which no meridian cuts."""


@dataclass(eq=False, kw_only=True)
class _Layer:
    """One image on the page."""

    title: str
    style: Select
    opacity: Slider
    source: ColumnDataSource


@dataclass(frozen=True)
class _Look:
    """What was read of one window."""

    count: int
    """Of the change that asked for it."""
    pictures: Sequence[Picture | None]
    """Of each layer; None where it is hidden or cannot be read."""
    second: Picture | None
    """For comparison."""
    outlines: Sequence[SeenOutlines | None]
    """Of each table, polygons and dots; None where they cannot be drawn."""
    problem: str = ""
    """Which images cannot be read, and why, a line each."""


class MapPage:
    """One page, of one reader.

    Every change of the window is read by one thread, the newest only; what it has read is put on the page by the thread of the
    document.
    """

    def __init__(
        self, view: MapView, *, size: tuple[int, int], run: Callable[[Callable[[], None]], None] | None = None
    ) -> None:
        self.view = view
        self.images: dict[str, Pyramid] = dict(view.images)
        self.styles = {title: dict(styles) for title, styles in view.styles.items()}
        self.box: Box = fitted(view.start, size)
        self.size = size
        self.count = 0
        """Changes so far; what was read for an earlier one is dropped."""
        self.run = run
        """Runs a function in the thread of the document; None where there is no server, and everything is read at once."""
        self.reader = ThreadPoolExecutor(1, thread_name_prefix="rtsx-view")
        self.predictor: Thread | None = None
        self.wanted, self.stopped = 0, -1
        """Predictions that were asked for or stopped; what an earlier one still makes is dropped."""
        self.second: Picture | None = None
        self.ground = Range1d(0, 1)
        left, bottom, right, top = self.box
        self.plot = self._plot(Range1d(left, right), Range1d(bottom, top))
        self.plot.name = "map"
        self.other = self._plot(self.plot.x_range, self.plot.y_range)
        self.other.name, self.other.visible = "other", False
        self.legend, self.values, self.status = Div(text="", name="legend"), Div(text=""), Div(text="", name="status")
        self.lonlat, self.lattice = Div(text="", height=20), ColumnDataSource({"x": [], "y": [], "z": []})
        self.images_box = column(sizing_mode="stretch_width")
        self.layers: list[_Layer] = []
        for one in view.first:
            self._add_layer(one)
        self.times = self._times()
        self.time = self._time_slider("time")
        self.other_time = self._time_slider("time of the second")
        self.compare = Select(title="compare", options=[_OFF, _BESIDE, _SWIPE], value=_OFF)
        last = list(self.images)[-1]
        best = next(name for name, (title, _) in self.choices.items() if title == last)
        self.other_style = Select(title="with", options=list(self.choices), value=best)
        self.swipe = Slider(title="swipe", start=0, end=1, step=0.01, value=0.5, visible=False, width=250)
        self.other_layer = self._image(self.other)
        self.swiped = self._image(self.plot)
        self.outlines = None
        if view.outlines:
            least = 250 / ground_scale(view.crs, view.start)
            changed = None if run is None else self._changed
            self.outlines = OutlineTable(view.outlines, plots=(self.plot, self.other), least=least, changed=changed)
        self.plot.js_on_event("mousemove", CustomJS(args={"grid": self.lattice, "out": self.lonlat}, code=_LONLAT))
        if run is None:
            self._read(self.count)
            return
        for layer in self.layers:
            on_change(layer.style, self._changed)
        for control in (self.time, self.other_time, self.compare, self.other_style):
            on_change(control, self._changed)
        on_change(self.swipe, self._put_second)
        for axis in (self.plot.x_range, self.plot.y_range):
            on_change(axis, self._moved, of=("start", "end"))
        self.plot.on_event(Tap, _event(self._tapped))
        on_change(self.plot, self._resized, of=("inner_width", "inner_height"))

    # What the page is made of.

    @property
    def layout(self) -> Any:
        """The whole page."""
        controls: list[Any] = [self.images_box]
        if self.run is not None:
            controls += [self.time, self.compare, self.other_style, self.other_time, self.swipe]
        if self.outlines is not None:
            controls.append(self.outlines.visible)
        if self.run is not None and self.view.models:
            controls += self._prediction_controls()
        controls += [self.legend, self.lonlat, self.values, self.status]
        side = column(*controls, width=290, sizing_mode="stretch_height", styles={"overflow-y": "auto"})
        maps = row(self.plot, self.other, sizing_mode="stretch_both")
        parts = [maps] if self.outlines is None else [maps, self.outlines.layout]
        return row(
            side, column(*parts, sizing_mode="stretch_both"), sizing_mode="stretch_both", styles={"height": "97vh"}
        )

    def _plot(self, x: Range1d, y: Range1d) -> Any:
        wheel = WheelZoomTool(zoom_on_axis=False)
        plot = figure(
            x_range=x, y_range=y, tools=[PanTool(), wheel, BoxZoomTool(match_aspect=True), ResetTool()], active_scroll=wheel,
            sizing_mode="stretch_both", min_height=300, toolbar_location="above", background_fill_color="#f4f4f4", min_border=4,
        )  # fmt: skip
        plot.toolbar.logo = None
        plot.axis.visible = False
        plot.grid.visible = False
        # In metres on the ground, of which the map's own are only nearly as many.
        plot.add_layout(
            ScaleBar(
                range=self.ground,
                unit="m",
                dimensional=Metric(base_unit="m", include=["m", "km"]),
                location="bottom_left",
                bar_length=0.1,
                background_fill_alpha=0.7,
            )
        )
        return plot

    def _image(self, plot: Any) -> ColumnDataSource:
        source = ColumnDataSource({"image": [], "x": [], "y": [], "dw": [], "dh": []})
        plot.image_rgba("image", "x", "y", "dw", "dh", source=source, level="image")
        return source

    def _add_layer(self, shown: Shown) -> None:
        styles = list(self.styles[shown.image])
        source = self._image(self.plot)
        opacity = Slider(title="opacity", start=0, end=1, step=0.05, value=shown.opacity, height=40, width=250)
        glyph = self.plot.renderers[-1].glyph
        glyph.global_alpha = shown.opacity
        opacity.js_link("value", glyph, "global_alpha")
        choice = Select(
            title=shown.image, options=[HIDDEN, *styles], value=shown.style or HIDDEN, name=f"style of {shown.image}"
        )
        self.layers.append(_Layer(title=shown.image, style=choice, opacity=opacity, source=source))
        parts = [choice, opacity] if self.run is not None else [Div(text=html.escape(shown.image)), opacity]
        self.images_box.children = [*self.images_box.children, *parts]

    @property
    def choices(self) -> dict[str, tuple[str, str]]:
        """Images and styles that can be compared with, by what the page calls them."""
        return {f"{title}: {style}": (title, style) for title in list(self.images) for style in self.styles[title]}

    def _times(self) -> list[np.datetime64]:
        images = [image.cube for image in self.images.values() if "time" in image.cube.dims]
        return sorted({date for cube in images for date in _dates(cube)})

    def _time_slider(self, title: str) -> Slider:
        last = max(1, len(self.times) - 1)
        years = [image.year for image in self.view.images.values() if image.year is not None]
        # Of the whole year, whose times may be the last.
        first = last if not years else max(0, sum(time < np.datetime64(f"{max(years) + 1}") for time in self.times) - 1)
        return Slider(
            title=title,
            start=0,
            end=last,
            step=1,
            value=first,
            visible=len(self.times) > 1,
            show_value=False,
            width=250,
        )

    def _prediction_controls(self) -> list[Any]:
        self.model = Select(
            title="predict what is seen with", options=list(self.view.models), value=next(iter(self.view.models))
        )
        start, stop = Button(label="Predict", button_type="primary", width=90), Button(label="Stop", width=70)
        self.progress = Div(text="")
        start.on_event(ButtonClick, _event(lambda _: self._predict()))
        stop.on_event(ButtonClick, _event(lambda _: self._stop()))
        return [self.model, row(start, stop), self.progress]

    # What happens.

    def _resized(self) -> None:
        try:
            self.size = (int(self.plot.inner_height), int(self.plot.inner_width))
        except UnsetValueError:  # the browser tells one after the other
            return
        self.box = fitted(self.box, self.size)
        self.plot.x_range.update(start=self.box[0], end=self.box[2])
        self.plot.y_range.update(start=self.box[1], end=self.box[3])
        self._changed()

    def _moved(self) -> None:
        x, y = self.plot.x_range, self.plot.y_range
        self.box = (x.start, y.start, x.end, y.end)
        self._changed()

    def _changed(self) -> None:
        """Read anew what is seen; of several changes in a row only the last is read."""
        self.count += 1
        assert self.run is not None
        self.status.text = "reading ..."
        self.other.visible = self.compare.value == _BESIDE
        self.swipe.visible = self.compare.value == _SWIPE
        self.other_style.visible = self.compare.value != _OFF
        self.other_time.visible = self.compare.value != _OFF and len(self.times) > 1
        self.reader.submit(self._read, self.count)

    def _shown(self) -> list[Shown]:
        return [
            Shown(image=layer.title, style=None if layer.style.value == HIDDEN else layer.style.value)
            for layer in self.layers
        ]

    def _select(self, title: str, slider: Slider) -> Mapping[str, int]:
        """Return the place of the last time of an image that is not after the chosen one."""
        cube = self.images[title].cube
        dates = _dates(cube)
        if "time" not in cube.dims or not dates or len(self.times) < 2:
            return {}
        chosen = self.times[min(int(slider.value), len(self.times) - 1)]
        return {"time": max(0, int(np.searchsorted(dates, chosen, side="right")) - 1)}

    def _picture(self, title: str, style: str, slider: Slider) -> Picture:
        return draw_window(
            self.images[title], self.box, size=self.size, style=self.styles[title][style], crs=self.view.crs,
            select=self._select(title, slider),
        )  # fmt: skip

    def _read(self, count: int) -> None:
        """Read what is seen and put it on the page; in the reader's thread."""
        if count != self.count:
            return
        wanted = [(one.image, one.style, self.time) for one in self._shown()]
        if self.compare.value != _OFF:
            wanted.append((*self.choices[self.other_style.value], self.other_time))
        problems: list[str] = []

        def attempt(title: str, function: Callable[[], _Read]) -> _Read | None:
            try:
                return function()
            # Of whatever reads the image: shown to the reader, whose page goes on with the others.
            except Exception as error:
                problems.append(f"{title}: {_reason(error)}")
                return None

        pictures: list[Picture | None] = []
        for title, style, slider in wanted:
            pictures.append(None if style is None else attempt(title, partial(self._picture, title, style, slider)))
            if count != self.count:
                return
        second = pictures.pop() if self.compare.value != _OFF else None
        outlines: list[SeenOutlines | None] = []
        if self.outlines is not None:
            pixel = (self.box[2] - self.box[0]) / self.size[1]
            look_at = partial(self.outlines.seen, box=self.box, pixel=pixel)
            outlines = [attempt(one.outlines.title, partial(look_at, one)) for one in self.outlines.drawn]
        look = _Look(count, pictures, second, outlines, "\n".join(dict.fromkeys(problems)))
        if self.run is None:
            self._put(look)
        else:
            self.run(partial(self._put, look))

    def _put(self, look: _Look) -> None:
        if look.count != self.count:
            return
        self.status.text = html.escape(look.problem).replace("\n", "<br>")
        for layer, picture in zip(self.layers, look.pictures, strict=False):  # which a prediction may have added to
            layer.source.data = _data(picture)
        self.second = look.second
        self._put_second()
        for one, seen in zip([] if self.outlines is None else self.outlines.drawn, look.outlines, strict=True):
            if seen is not None:
                one.polygons.data, one.dots.data = seen
        self.legend.text = self._legend(look.pictures)
        self._put_place()

    def _put_second(self) -> None:
        """Show the second picture: on the other map, or on the right of the swipe."""
        self.other_layer.data = _data(self.second if self.compare.value == _BESIDE else None)
        picture = self.second if self.compare.value == _SWIPE else None
        if picture is not None and picture.rgba.size:
            left, _, right, _ = picture.box
            at = self.box[0] + self.swipe.value * (self.box[2] - self.box[0])
            rgba = picture.rgba.copy()
            rgba[:, : max(0, round((at - left) / (right - left) * rgba.shape[1]))] = 0
            picture = replace(picture, rgba=rgba)
        self.swiped.data = _data(picture)

    def _put_place(self) -> None:
        left, bottom, right, top = self.box
        scale = ground_scale(self.view.crs, self.box)
        self.ground.update(start=0, end=max((right - left) * scale, 1e-6))
        x, y = np.meshgrid(np.linspace(left, right, _NODES), np.linspace(bottom, top, _NODES))
        there = pyproj.Transformer.from_crs(self.view.crs, "OGC:CRS84", always_xy=True)
        lon, lat = np.radians(there.transform(x.ravel(), y.ravel()))
        beyond = ~np.isfinite(lon + lat)
        lon, lat = np.where(beyond, np.nan, lon), np.where(beyond, np.nan, lat)
        self.lattice.tags = [left, bottom, right, top, _NODES]
        self.lattice.data = {"x": np.cos(lat) * np.cos(lon), "y": np.cos(lat) * np.sin(lon), "z": np.sin(lat)}
        for slider in (self.time, self.other_time):
            if len(self.times) > 1:
                day = np.datetime_as_string(self.times[min(int(slider.value), len(self.times) - 1)], unit="D")
                slider.title = f"{str(slider.title).partition(':')[0]}: {day}"

    def _legend(self, pictures: Sequence[Picture | None]) -> str:
        """Return what the colours of the map say, as HTML; every name is escaped."""
        lines = []
        for layer, picture in zip(self.layers, pictures, strict=False):
            if picture is None:
                continue
            lines.append(f"<b>{html.escape(layer.title)}</b>: {html.escape(layer.style.value)}")
            if picture.style.kind == "map" and picture.style.limits:
                units = str(self.images[layer.title].cube[picture.style.layers[0]].attrs.get("units", ""))
                lines.append(gradient(picture.style.colours, picture.style.limits[0], units if units != "1" else ""))
            elif picture.style.kind == "found":
                lines.append(chip("#ff8c00", "found"))
            elif picture.style.kind == "missing":
                lines.append(chip("#5a5a5a", "not valid"))
        lines += [] if self.outlines is None else self.outlines.legend()
        return "<br>".join(lines)

    def _tapped(self, event: Any) -> None:
        """Show the values of all images under a click."""
        self.reader.submit(self._show_values, float(event.x), float(event.y))

    def _show_values(self, x: float, y: float) -> None:
        lines = []
        for title, image in list(self.images.items()):  # copied, because a prediction may add its own
            try:
                values = self._values(title, image, x=x, y=y)
            except Exception as error:  # of whatever reads the image, as above
                lines.append(html.escape(f"{title}: {_reason(error)}"))
                continue
            lines += [f"<b>{html.escape(title)}</b>", *values] if values else []
        text = "<br>".join(lines)

        def put() -> None:
            self.values.text = text

        if self.run is not None:
            self.run(put)

    def _values(self, title: str, image: Pyramid, *, x: float, y: float) -> list[str]:
        """Return values of every layer and class of an image at a place, as HTML; none beyond it."""
        # Of what is seen, because the image may have other units than the map.
        half = (self.box[2] - self.box[0]) * 1e-9
        named = {name: style for name, style in self.styles[title].items() if style.kind not in ("composite", "relief")}
        found: dict[str, Any] = {}
        for place in dict.fromkeys(style.place for style in named.values()):
            some = {name: style.layers[0] for name, style in named.items() if style.place == place}
            read = image.read(
                [*some.values()], (x - half, y - half, x + half, y + half), size=(1, 1), crs=self.view.crs,
                select={**self._select(title, self.time), **dict(place)},
            )  # fmt: skip
            if not read.known.any():
                return []
            found |= {name: read.cube[layer] for name, layer in some.items()}
        lines = []
        for name in named:
            units = str(found[name].attrs.get("units", ""))
            lines.append(f"{html.escape(name)} {_number(found[name])} {html.escape(units if units != '1' else '')}")
        return lines

    def _predict(self) -> None:
        """Predict what is seen of the first image with the chosen model, and show it as an image of its own."""
        self.wanted += 1
        name, (below, source) = self.model.value, next(iter(self.images.items()))
        select = self._select(below, self.time)
        parts = predict_window(source, self.view.models[name], box=self.box, crs=self.view.crs, select=select)
        self.progress.text = "begins"
        work = partial(self._show_parts, parts, f"predicted by {name}", self.wanted)
        self.predictor = Thread(target=work, name="rtsx-predict", daemon=True)
        self.predictor.start()

    def _stop(self) -> None:
        """Stop a prediction after the part under way."""
        self.stopped = self.wanted

    def _show_parts(self, parts: Iterator[tuple[int, int, xr.Dataset]], title: str, wanted: int) -> None:
        """Show a prediction part by part, until it is stopped or another is asked for; in a thread of its own."""
        assert self.run is not None

        def put(text: str, predicted: xr.Dataset | None) -> None:
            if wanted == self.wanted:
                self.progress.text = html.escape(text)
                if predicted is not None:
                    self._show_prediction(title, predicted)

        try:
            for done, n_parts, predicted in parts:
                state = f"{done} of {n_parts} parts" if done < n_parts else f"all of {n_parts} parts are done"
                ends = self.stopped == wanted and done < n_parts
                self.run(partial(put, f"stopped after {state}" if ends else state, predicted))
                if ends or wanted != self.wanted:
                    return
        except Exception as error:  # of torch and of whatever reads the image: shown to the reader, whose page goes on
            self.run(partial(put, _reason(error), None))

    def _show_prediction(self, title: str, predicted: xr.Dataset) -> None:
        self.styles[title] = styles_of(predicted)
        self.images[title] = Pyramid.of(predicted)
        if all(layer.title != title for layer in self.layers):
            self._add_layer(Shown(image=title, style=next(iter(self.styles[title])), opacity=0.8))
            on_change(self.layers[-1].style, self._changed)
            self.other_style.options = list(self.choices)
        self._changed()

    def close(self) -> None:
        """Stop what is being read and predicted for a reader who has left."""
        self.count += 1
        self.wanted += 1
        self.reader.shutdown(wait=False, cancel_futures=True)


def open_page(view: MapView, document: Document) -> MapPage:
    """Put a page on a document of a server."""

    def run(function: Callable[[], None]) -> None:
        document.add_next_tick_callback(function)

    page = MapPage(view, size=(600, 900), run=run)
    document.title = view.title
    document.add_root(page.layout)
    document.on_session_destroyed(lambda _: page.close())
    page._changed()
    return page


def still_page(view: MapView, *, size: tuple[int, int]) -> str:
    """Return a page that needs no server: pictures of one region, outlines with their table, opacity and hover."""
    page = MapPage(view, size=size)
    page.close()
    return str(file_html(page.layout, INLINE, title=view.title))


def _dates(cube: xr.Dataset) -> list[np.datetime64]:
    """Return dates of the times of an image, in their order; none where one of them means none."""
    times = times_of(cube)
    return [] if any(map(np.isnat, times)) else [time.astype("datetime64[ns]") for time in times]


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, RtsxError) else f"{type(error).__name__}: {error}"


def _event(function: Callable[[Any], Any]) -> EventCallback:
    """Return a handler of events; Bokeh looks at the signature of what it is given."""

    def handle(event: Any) -> None:
        function(event)

    return handle


def _data(picture: Picture | None) -> dict[str, Any]:
    if picture is None or not picture.rgba.size:
        return {"image": [], "x": [], "y": [], "dw": [], "dh": []}
    left, bottom, right, top = picture.box
    # Bokeh draws from the bottom, and takes a pixel as one number of 32 bits.
    flipped = np.ascontiguousarray(picture.rgba[::-1]).view(np.uint32)[..., 0]
    return {"image": [flipped], "x": [left], "y": [bottom], "dw": [right - left], "dh": [top - bottom]}


def _number(layer: Any) -> str:
    stored = layer.values.ravel()[0]
    if layer.dtype.kind == "b":
        return str(bool(stored))
    value = float(physical(layer).ravel()[0])
    scaled = packing(layer)["is_declared"]
    return "no data" if np.isnan(value) else f"{value:.6g}" + (f" (stored {stored:g})" if scaled else "")
