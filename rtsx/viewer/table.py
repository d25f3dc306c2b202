"""Outlines on a page: polygons and dots on its maps, and a table beside them with a filter and the column that colours them."""

import html
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import shapely
from bokeh.layouts import column, row
from bokeh.models import (
    CheckboxGroup,
    ColumnDataSource,
    CustomJS,
    DataTable,
    Div,
    HoverTool,
    NumberFormatter,
    Select,
    StringFormatter,
    TableColumn,
    TextInput,
)

from rtsx.errors import RtsxError
from rtsx.viewer.pyramid import Box
from rtsx.viewer.render import MOST_SEEN, OutlineLayer, colours_of

HIDDEN = "hidden"
"""What a choice says where nothing is drawn."""
SeenOutlines = tuple[dict[str, Any], dict[str, Any]]
"""Columns of the polygons and of the dots that are seen."""
_MOST_ROWS = 5000
"""Rows of the table, which the browser holds."""
_SMALL_PX = 4
"""Outlines that are smaller on the screen are dots."""
_GO_TO_ROW = """
if (cb_obj.indices.length == 0) { return }
const i = cb_obj.indices[0], d = table.data
const [l, b, r, t] = [d.left_[i], d.bottom_[i], d.right_[i], d.top_[i]]
mark.data = {left: [l], bottom: [b], right: [r], top: [t]}
const side = Math.max(3 * Math.max(r - l, t - b), least), w = x.end - x.start, h = y.end - y.start
const share = side / Math.min(w, h) / 2, cx = (l + r) / 2, cy = (b + t) / 2
x.setv({start: cx - w * share, end: cx + w * share})
y.setv({start: cy - h * share, end: cy + h * share})
"""
"""Go to the row that was chosen: three times as wide as it, and no nearer than `least`."""


@dataclass(eq=False, kw_only=True)
class Drawn:
    """One table of outlines on the page: polygons, and dots where they are small."""

    outlines: OutlineLayer
    polygons: ColumnDataSource
    dots: ColumnDataSource
    renderers: list[Any]


class OutlineTable:
    """Tables of outlines on a page: drawn on its maps, and one of them listed, filtered and coloured beside them."""

    def __init__(
        self,
        outlines: Sequence[OutlineLayer],
        *,
        plots: Sequence[Any],
        least: float,
        changed: Callable[[], None] | None,
    ) -> None:
        """Put outlines on plots.

        Parameters
        ----------
        outlines
            At least one table, the lowest first.
        plots
            The map, and the one beside it.
        least
            Side of the ground that a chosen row is shown in, at least; in units of the map.
        changed
            Called when other rows or colours are wanted; None where there is no server.
        """
        self.plots = plots
        self.is_served = changed is not None
        # What two tables say of one place is read side by side.
        self.drawn = [self._draw_outlines(one, side) for one, side in zip(outlines, cycle(("left", "right")))]
        self.mark = ColumnDataSource({"left": [], "bottom": [], "right": [], "top": []})
        for plot in plots:
            plot.quad(
                "left", "right", "top", "bottom", source=self.mark, fill_alpha=0, line_color="#ffe000", line_width=2, line_dash="dashed"
            )  # fmt: skip
        titles = [one.outlines.title for one in self.drawn]
        filled = [one.title for one in outlines if len(one.table)]
        self.chosen = Select(title="table", options=titles, value=(filled or titles)[-1], width=140)
        self.coloured = Select(title="coloured by", options=[], width=170)
        self.filter = TextInput(title="show where", placeholder="area_m2 > 500, prob_max >= 0.65", width=330)
        self.note = Div(text="", styles={"padding-top": "22px"})
        self.rows = ColumnDataSource()
        self.table = DataTable(
            source=self.rows,
            columns=[],
            height=200,
            sizing_mode="stretch_width",
            index_position=None,
            reorderable=False,
            autosize_mode="none",
            name="rows",
        )
        self.visible = CheckboxGroup(labels=titles, active=list(range(len(titles))))
        for number, one in enumerate(self.drawn):
            for renderer in one.renderers:
                code = "renderer.visible = cb_obj.active.includes(number)"
                self.visible.js_on_change("active", CustomJS(args={"renderer": renderer, "number": number}, code=code))
        ranges = {"x": plots[0].x_range, "y": plots[0].y_range}
        going = CustomJS(args={"table": self.rows, "mark": self.mark, "least": least, **ranges}, code=_GO_TO_ROW)
        self.rows.selected.js_on_change("indices", going)
        self._choose_table()
        if changed is not None:
            on_change(self.chosen, self._choose_table, changed)
            on_change(self.filter, self._fill_table, changed)
            on_change(self.coloured, changed)

    @property
    def layout(self) -> Any:
        """The table, with its controls where there is a server."""
        if not self.is_served:
            return column(self.table, sizing_mode="stretch_width")
        controls = row(self.chosen, self.coloured, self.filter, self.note)
        return column(controls, self.table, sizing_mode="stretch_width", height=280)

    def _draw_outlines(self, outlines: OutlineLayer, side: str) -> Drawn:
        names = [f"c{number}" for number in range(len(outlines.columns))]
        formats = {name: f"{{{text}}}" for name, text in outlines.formats.items()}
        polygons, dots = (ColumnDataSource({key: [] for key in ("xs", "ys", "colour", *names)}) for _ in range(2))
        known = zip(outlines.columns, names, strict=True)
        tips = [(name, f"@{{{key}}}{formats.get(name, '')}") for name, key in known if name in outlines.widths]
        renderers = []
        for plot in self.plots:
            shapes = plot.multi_polygons(
                "xs", "ys", source=polygons, fill_color="colour", fill_alpha=0.08, line_color="colour", line_width=2
            )
            points = plot.scatter("xs", "ys", source=dots, size=6, fill_color="colour", line_color=None)
            plot.add_tools(HoverTool(renderers=[shapes, points], tooltips=tips[:12], attachment=side))
            renderers += [shapes, points]
        return Drawn(outlines=outlines, polygons=polygons, dots=dots, renderers=renderers)

    def _choose_table(self) -> None:
        one = self._of_table
        self.table.columns = [
            # Escaped, because the table sets titles as HTML.
            TableColumn(
                field=f"c{number}",
                title=html.escape(name),
                width=one.widths[name],
                formatter=NumberFormatter(format=one.formats[name], text_align="right", null_format="", nan_format="")
                if name in one.formats
                else StringFormatter(null_format=""),
            )
            for number, name in enumerate(one.columns)
            if name in one.widths
        ]
        self.filter.value = ""
        self.coloured.options = [HIDDEN, *one.columns]
        self.coloured.value = one.best_column or HIDDEN
        self._fill_table()

    @property
    def _of_table(self) -> OutlineLayer:
        return next(one.outlines for one in self.drawn if one.outlines.title == self.chosen.value)

    def _fill_table(self) -> None:
        one = self._of_table
        try:
            kept = one.kept(self.filter.value)
        except RtsxError as error:
            self.note.text = html.escape(str(error))
            return
        rows = np.flatnonzero(kept)[:_MOST_ROWS]
        shown = f"{kept.sum():,} of {len(kept):,}"
        self.note.text = shown if kept.sum() <= _MOST_ROWS else f"the first {_MOST_ROWS:,} of {shown}"
        bounds = one.table.geometry.bounds.to_numpy()[rows]
        edges = {name: bounds[:, at].tolist() for at, name in enumerate(("left_", "bottom_", "right_", "top_"))}
        cells = {f"c{number}": values for number, values in enumerate(one.cells(rows).values())}
        self.rows.selected.indices = []
        self.rows.data = cells | edges

    def seen(self, drawn: Drawn, *, box: Box, pixel: float) -> SeenOutlines:
        """Return outlines in the window as polygons, and as dots those that are too small to be seen as such."""
        one = drawn.outlines
        is_chosen = one is self._of_table
        kept = np.ones(len(one.table), bool)
        if is_chosen and self.filter.value:
            with suppress(RtsxError):  # which the table shows
                kept = one.kept(self.filter.value)
        rows = one.seen(box, kept, most=MOST_SEEN)
        colours = one.colours_by(self.coloured.value if is_chosen else one.best_column).colours
        shapes = one.table.geometry.to_numpy()[rows]
        bounds = shapely.bounds(shapes).reshape(-1, 4)
        is_small = np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1]) < _SMALL_PX * pixel
        large, small = rows[~is_small], rows[is_small]
        middles = shapely.centroid(shapes[is_small])
        rings = [_rings(shape) for shape in shapely.simplify(shapes[~is_small], pixel / 2)]
        polygons = {"xs": [x for x, _ in rings], "ys": [y for _, y in rings], "colour": colours[large].tolist()}
        dots = {"xs": shapely.get_x(middles), "ys": shapely.get_y(middles), "colour": colours[small].tolist()}
        return tuple(  # type: ignore[return-value]
            made | {f"c{number}": values for number, values in enumerate(one.cells(some).values())}
            for made, some in ((polygons, large), (dots, small))
        )

    def legend(self) -> list[str]:
        """Return what their colours say, as HTML; every name is escaped."""
        lines = []
        for drawn in self.drawn:
            one = drawn.outlines
            by = self.coloured.value if one is self._of_table else one.best_column
            coloured = one.colours_by(by)
            of_column = f" by {html.escape(str(by))}" if coloured.limits or coloured.classes else ""
            lines.append(f"<b>{html.escape(one.title)}</b>{of_column}")
            if coloured.limits:
                lines.append(gradient("plasma", coloured.limits, ""))
            elif coloured.classes:
                lines += [chip(colour, text) for text, colour in coloured.classes.items()]
            else:
                lines.append(chip(one.colour or "#ff8c00", one.title))
        return lines


def on_change(model: Any, *functions: Callable[[], None], of: Sequence[str] = ("value",)) -> None:
    """Call functions when a model's properties change, of a control its value; Bokeh looks at the names of parameters."""

    def handle(attr: str, old: Any, new: Any) -> None:
        for function in functions:
            function()

    for name in of:
        model.on_change(name, handle)


def _rings(shape: Any) -> tuple[list[list[list[float]]], list[list[list[float]]]]:
    """Return coordinates of an outline: of each polygon, of each ring."""
    xs, ys = [], []
    for part in shapely.get_parts(shape):
        rings = [shapely.get_coordinates(ring) for ring in shapely.get_rings(part)]
        if rings:
            xs.append([ring[:, 0].tolist() for ring in rings])
            ys.append([ring[:, 1].tolist() for ring in rings])
    return xs, ys


def gradient(colours: str, limits: tuple[float, float], units: str) -> str:
    """Draw a colour map and its limits, for a legend, as HTML."""
    stops = ", ".join(
        "rgb({}, {}, {})".format(*colours_of(colours)(share, bytes=True)[:3]) for share in np.linspace(0, 1, 9)
    )
    bar = f'<span style="display:inline-block;width:120px;height:10px;background:linear-gradient(to right, {stops})"></span>'
    return f"{limits[0]:.4g} {bar} {limits[1]:.4g} {html.escape(units)}"


def chip(colour: str, text: str) -> str:
    """Draw one colour and what it means, for a legend, as HTML."""
    box = f'<span style="display:inline-block;width:12px;height:12px;border:2px solid {html.escape(colour)}"></span>'
    return f"{box} {html.escape(text)}"
