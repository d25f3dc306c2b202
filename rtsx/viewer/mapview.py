"""What one map shows, as a value: images, outlines, models, and how each is drawn; as a picture, a page, or in a notebook. And the window that somebody looks at, predicted part by part."""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
import xarray as xr
from pyproj import CRS, Transformer

from rtsx.cube import geobox_of
from rtsx.errors import CubeError, MissingExtraError, require_extra
from rtsx.geometry.crs import WGS84
from rtsx.storage import refuse_other_format, staged
from rtsx.viewer.pyramid import Box, Pyramid
from rtsx.viewer.render import MOST_SEEN, NO_PICTURES, OutlineLayer, Picture, Style, draw_window, styles_of

if TYPE_CHECKING:
    from rtsx.model import ModelBundle

_LARGEST_PAGE = 4096
"""Pixels along a side of the region that a page without a server holds."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One image as the map shows it."""

    image: str
    """Its title."""
    style: str | None
    """How it is drawn, of `styles_of`; None where it is not."""
    opacity: float = 1.0
    """0 to 1."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MapView:
    """One map of images, predictions and outlines; shows itself in a notebook.

    Made by `rtsx.view`.
    """

    title: str
    """Of the page."""
    crs: str
    """Of the map, that of one of its images; those of another are drawn where they lie on it."""
    images: Mapping[str, Pyramid]
    """By title, the lowest first."""
    outlines: Sequence[OutlineLayer] = ()
    """Tables, the lowest first."""
    models: Mapping[str, "ModelBundle"] = field(default_factory=dict)
    """Bundles by title, that predict what is seen of the first image."""
    shown: tuple[Shown, ...] = ()
    """How images are drawn at first; the best style of each if left out."""
    box: Box | None = None
    """What is seen at first, in `crs`; all of the lowest image if left out."""

    def __post_init__(self) -> None:
        if not self.images:
            raise CubeError("A map needs an image: a cube, a map or a raster. Give one, as rtsx.view('map.zarr').")
        if not any(_is_in(image, self.crs) for image in self.images.values()):
            names = sorted({CRS(image.crs).name for image in self.images.values()})
            raise CubeError(f"A map is in the CRS of one of its images, {names}; got {CRS(self.crs).name}.")
        known = {name: list(self.styles[name]) for name in self.images}
        for one in self.shown:
            if one.image not in known or (one.style is not None and one.style not in known[one.image]):
                raise CubeError(f"{one.image!r} cannot be shown as {one.style!r}; images and their styles are {known}.")

    @cached_property
    def styles(self) -> dict[str, dict[str, Style]]:
        """Styles of each image by name."""
        return {title: styles_of(image.cube) for title, image in self.images.items()}

    @cached_property
    def first(self) -> tuple[Shown, ...]:
        """How every image is drawn at first."""
        best = {title: Shown(image=title, style=next(iter(styles), None)) for title, styles in self.styles.items()}
        return tuple((best | {one.image: one for one in self.shown}).values())

    @cached_property
    def start(self) -> Box:
        """What is seen at first."""
        if self.box is not None:
            return self.box
        image = next(iter(self.images.values()))
        there = Transformer.from_crs(image.crs, self.crs, always_xy=True)
        left, bottom, right, top = there.transform_bounds(*image.box)
        return left, bottom, right, top

    def draw(
        self, box: Box, *, size: tuple[int, int], shown: Sequence[Shown] | None = None
    ) -> list[tuple[Shown, Picture]]:
        """Draw what is seen of every image that is shown, the lowest first."""
        drawn = []
        for one in self.first if shown is None else shown:
            if one.style is not None:
                style = self.styles[one.image][one.style]
                drawn.append((one, draw_window(self.images[one.image], box, size=size, style=style, crs=self.crs)))
        return drawn

    def save_png(self, path: str | Path, *, size: tuple[int, int] = (900, 1200), overwrite: bool = False) -> Path:
        """Draw what the page shows at first into a PNG file, without a browser.

        Parameters
        ----------
        path
            Ends in ``.png``.
        size
            Height and width, px.
        overwrite
            Replace a file that is there.
        """
        target = Path(path)
        refuse_other_format(target, what="a picture", suffixes=(".png",))
        with require_extra(NO_PICTURES):
            from matplotlib.collections import PatchCollection
            from matplotlib.figure import Figure  # without pyplot, which opens a window system
            from matplotlib.patches import PathPatch
            from matplotlib.path import Path as Outline
        height, width = size
        box = fitted(self.start, size)
        figure = Figure(figsize=(width / 100, height / 100), dpi=100)
        axis = figure.add_axes((0, 0, 1, 1))
        for one, picture in self.draw(box, size=size):
            left, bottom, right, top = picture.box
            if picture.rgba.size:
                axis.imshow(picture.rgba, extent=(left, right, bottom, top), alpha=one.opacity, interpolation="nearest")
        for outlines in self.outlines:
            rows = outlines.seen(box, np.ones(len(outlines.table), bool), most=MOST_SEEN)
            colours = outlines.colours_by(outlines.best_column).colours[rows]
            paths = [
                [Outline(shapely.get_coordinates(ring)) for ring in shapely.get_rings(shape)]
                for shape in outlines.table.geometry.to_numpy()[rows]
            ]
            patches = [PathPatch(Outline.make_compound_path(*rings)) for rings in paths]
            axis.add_collection(PatchCollection(patches, facecolors="none", edgecolors=list(colours), linewidths=1.5))
        axis.set_xlim(box[0], box[2])
        axis.set_ylim(box[1], box[3])
        axis.set_axis_off()
        width_m = (box[2] - box[0]) * ground_scale(self.crs, box)
        length, label = scale_length(width_m)
        x, y, share = 0.03, 0.04, length / width_m
        axis.plot([x, x + share], [y, y], color="black", linewidth=4, transform=axis.transAxes)
        axis.text(x, y + 0.01, label, transform=axis.transAxes, backgroundcolor=(1, 1, 1, 0.7))
        with staged(target, overwrite=overwrite) as draft:
            figure.savefig(draft, format="png", metadata={"Software": "rtsx"})
        return target

    def save_html(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the page as one file that opens without a server or a network, for a region of limited size.

        Raises
        ------
        CubeError
            What is seen at first is larger than 4096 px along a side.
        """
        target = Path(path)
        refuse_other_format(target, what="a page", suffixes=(".html",))
        left, bottom, right, top = self.start
        pixel = next(image.levels[0].pixel for image in self.images.values() if _is_in(image, self.crs))
        size = (max(1, round((top - bottom) / pixel)), max(1, round((right - left) / pixel)))
        if max(size) > _LARGEST_PAGE:
            raise CubeError(
                f"A page without a server holds at most {_LARGEST_PAGE} px along a side; this region has {size[1]} x {size[0]}. "
                "Give a smaller one: bbox=(west, south, east, north)."
            )
        page = _page_module().still_page(self, size=size)
        with staged(target, overwrite=overwrite) as draft:
            Path(draft).write_text(page, encoding="utf-8")
        return target

    def serve(self, *, port: int = 0, on_start: Any = None) -> None:
        """Serve the page on this machine until it is stopped; see `rtsx view`."""
        _server_module().serve(self, port=port, on_start=on_start)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Show the page in a notebook's cell, from a server in this process."""
        try:
            address = _server_module().address_in_notebook(self)
        except MissingExtraError as error:
            return {"text/plain": repr(self), "text/html": f"<p>{html.escape(str(error))}</p>"}
        frame = f'<iframe src="{html.escape(address)}" style="width:100%;height:640px;border:0"></iframe>'
        return {"text/plain": repr(self), "text/html": frame}

    def __repr__(self) -> str:
        tables = ", ".join(f"{len(one.table)} {one.title}" for one in self.outlines)
        return f"MapView({', '.join(self.images)}{'; ' if tables else ''}{tables}; {CRS(self.crs).name})"


def _page_module() -> Any:
    with require_extra(
        "An interactive map needs bokeh, which is not installed: pip install 'rtsx[view]'. A picture needs matplotlib "
        "alone: rtsx view ... --png out.png"
    ):
        import bokeh  # noqa: F401
    from rtsx.viewer import page

    return page


def _server_module() -> Any:
    _page_module()
    from rtsx.viewer import server

    return server


def _is_in(image: Pyramid, crs: str) -> bool:
    return bool(CRS(image.crs) == CRS(crs))


def fitted(box: Box, size: tuple[int, int]) -> Box:
    """Widen a box to the shape of a screen, so that pixels are square.

    Examples
    --------
    >>> fitted((0, 0, 10, 10), (100, 200))
    (-5.0, 0.0, 15.0, 10.0)
    """
    pixel = max((box[2] - box[0]) / size[1], (box[3] - box[1]) / size[0])
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    dx, dy = pixel * size[1] / 2, pixel * size[0] / 2
    return x - dx, y - dy, x + dx, y + dy


def ground_scale(crs: str, box: Box) -> float:
    """Return metres on the ground of one unit of a CRS along x, in the middle of a box; 1 where that is beyond the Earth."""
    y, width = (box[1] + box[3]) / 2, (box[2] - box[0]) / 100
    x = (box[0] + box[2]) / 2
    there = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    lon, lat = there.transform([x - width / 2, x + width / 2], [y, y])
    if not np.isfinite([*lon, *lat]).all():
        return 1.0
    return float(WGS84.inv(lon[0], lat[0], lon[1], lat[1])[2]) / width


def scale_length(width_m: float) -> tuple[float, str]:
    """Return the length of a scale bar for a map of some width, and what it says.

    Examples
    --------
    >>> scale_length(3000.0), scale_length(90_000.0)
    ((500.0, '500 m'), (20000.0, '20 km'))
    """
    power = 10 ** np.floor(np.log10(max(width_m, 1e-3) / 4))
    length = float(max(step for step in (1, 2, 5) if step * power <= width_m / 4) * power)
    return length, f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"


_LARGEST = 1 << 24
"""Pixels of a window that is predicted at once: some seconds to some minutes of a CPU."""


def predict_window(
    image: Pyramid, bundle: "ModelBundle", *, box: Box, crs: str, select: Mapping[str, int]
) -> Iterator[tuple[int, int, xr.Dataset]]:
    """Predict one window of an image part by part, with the numbers that `predict_cube` gives of the whole image.

    Tiles lie where they would, and the ground around the window is read.

    Parameters
    ----------
    image
        Is predicted at full resolution.
    bundle
        The model.
    box
        What is seen; what is beyond the image is left out.
    crs
        Of the box.
    select
        Place along `time`, such as ``{"time": 0}``; the last if left out.

    Yields
    ------
    done, parts : int
        Parts that are done, and all of them.
    predicted : xarray.Dataset
        The window, in memory, filled further each time; nodata where it is not done yet.

    Raises
    ------
    CubeError
        The window lies beside the image, or is too large.
    """
    from rtsx.inference import predict_cube  # torch, which those who only look do not wait for

    cube = image.cube
    if "time" in cube.dims:
        cube = cube.isel(time=select.get("time", -1))
    rows, columns = _window(cube, Transformer.from_crs(crs, image.crs, always_xy=True).transform_bounds(*box))
    predicted = predict_cube(cube, bundle).isel(y=rows, x=columns)
    result = _blank(predicted)
    parts = list(_parts(predicted))
    for number, (y, x) in enumerate(parts, start=1):
        done = predicted.isel(y=y, x=x).compute()
        for name, values in done.data_vars.items():
            result[name].values[..., y, x] = values.values
        yield number, len(parts), result


def _window(cube: xr.Dataset, box: Box) -> tuple[slice, slice]:
    """Return the rows and columns of a cube that lie in a box of its CRS."""
    geobox = geobox_of(cube)
    (left, top), (right, bottom) = (~geobox.affine * corner for corner in ((box[0], box[3]), (box[2], box[1])))
    rows = slice(max(0, math.floor(top)), min(geobox.shape[0], math.ceil(bottom)))
    columns = slice(max(0, math.floor(left)), min(geobox.shape[1], math.ceil(right)))
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if height <= 0 or width <= 0:
        raise CubeError("Nothing of the image is in this window. Move the map over it.")
    if height * width > _LARGEST:
        raise CubeError(
            f"This window has {height:,} x {width:,} pixels; at most {_LARGEST:,} are predicted at once. Zoom in, or predict all "
            "of it with rtsx predict."
        )
    return rows, columns


def _blank(predicted: xr.Dataset) -> xr.Dataset:
    """Return room for a prediction, in which nothing is known yet."""
    made = {}
    for name, layer in predicted.data_vars.items():
        fill = False if layer.dtype.kind == "b" else layer.attrs.get("_FillValue", np.nan)
        made[name] = layer.copy(data=np.full(layer.shape, fill, layer.dtype))
    return predicted.assign(made)


def _parts(predicted: xr.Dataset) -> Iterator[tuple[slice, slice]]:
    """Yield windows of its chunks, so that each is shown when it is done."""
    lengths = [predicted.chunksizes.get(dim, (predicted.sizes[dim],)) for dim in ("y", "x")]
    spans = [[slice(sum(sizes[:place]), sum(sizes[: place + 1])) for place in range(len(sizes))] for sizes in lengths]
    for y in spans[0]:
        for x in spans[1]:
            yield y, x
