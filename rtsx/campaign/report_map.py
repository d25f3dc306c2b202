"""The map of a report: cells by state, with meridians, parallels and coast lines, and where on the Earth it lies."""

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any, Literal, Self

import geopandas
import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from odc.geo.crs import CRS

from rtsx.campaign.cells import Address
from rtsx.campaign.plan import CampaignPlan
from rtsx.errors import CampaignError, LabelError
from rtsx.geometry.crs import cached_transformer, longitude_period, lonlat_transformer
from rtsx.grid.grid import cell_id
from rtsx.labels.io import read_table
from rtsx.pages import render_page

_SEAM = (179.99, -89.99)
"""Longitude from which on, and latitude up to which, both ends of an edge make it one where polygons were cut, and no coast."""


@dataclass(frozen=True, eq=False)
class Coast:
    """Coast lines in longitude and latitude."""

    name: str
    """What they are, for people."""
    lonlat: NDArray[np.float64]
    """Vertices (n, 2), degrees."""
    line: NDArray[np.int64]
    """Number of the line that each belongs to."""

    @classmethod
    def installed(cls) -> Self | None:
        """Read the finest of Natural Earth that is installed; None where none is."""
        for path, name in _candidates():
            if path.is_file():
                try:
                    return cls.read(path, name=name)
                except (LabelError, CampaignError):
                    continue  # a download that was stopped is no reason to have no page
        return None

    @classmethod
    def read(cls, path: str | Path, *, name: str | None = None) -> Self:
        """Read lines, or the borders of polygons that have no neighbour, such as land.

        Parameters
        ----------
        path
            Vector file of any format and CRS.
        name
            What they are; None for the name of the file.

        Raises
        ------
        InputNotFoundError, LabelError
            The file cannot be read.
        CampaignError
            It has no CRS, or neither lines nor polygons.
        """
        table = read_table(path, what="coast lines")
        if table.crs is None:
            raise CampaignError(
                f"{path} does not say its CRS, so where its coast lines are is not known. Give a file that does."
            )
        lonlat_transformer(table.crs)  # refuses what is not on Earth
        shapes = np.asarray(table.geometry.dropna().array, object)
        dimension = shapely.get_dimensions(shapes)
        # In the file's own CRS, because polygons that hold a pole or cross 180 degrees are none in longitude and latitude.
        land = shapely.union_all(shapely.make_valid(shapes[dimension == 2]))
        lines = shapely.get_parts([*shapes[dimension == 1], shapely.boundary(land)])
        there = np.asarray(geopandas.GeoSeries(lines, crs=table.crs).to_crs(4326).array, object)
        lonlat, line = shapely.get_coordinates(there, return_index=True)
        known = np.isfinite(lonlat).all(axis=1)
        lonlat, line = lonlat[known], (line + np.cumsum(~known))[known]  # which ends a line where it leaves the earth
        if not lonlat.size:
            raise CampaignError(
                f"{path} has neither lines nor polygons, and coast lines are one of them. Give another file."
            )
        at_seam = (np.abs(lonlat[:, 0]) >= _SEAM[0]) | (lonlat[:, 1] <= _SEAM[1])
        cuts = np.append(False, at_seam[1:] & at_seam[:-1])
        return cls(name or Path(path).name, lonlat, np.asarray(line + np.cumsum(cuts), np.int64))


def _candidates() -> Iterator[tuple[Path, str]]:
    """Yield files of Natural Earth that may be there, the finest first: where cartopy keeps them, then countries that come with pyogrio."""
    shared = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    places = [Path(shared, "cartopy"), Path(sys.prefix, "share", "cartopy")]
    if "CARTOPY_DATA_DIR" in os.environ:
        places.insert(0, Path(os.environ["CARTOPY_DATA_DIR"]))
    for scale in ("10", "50", "110"):
        for place in places:
            folder = place / "shapefiles" / "natural_earth" / "physical"
            yield folder / f"ne_{scale}m_coastline.shp", f"Natural Earth, 1:{scale} million"
    beside = Path(pyogrio.__file__).parent / "tests" / "fixtures" / "naturalearth_lowres" / "naturalearth_lowres.shp"
    yield beside, "Natural Earth, 1:110 million"


Floats = NDArray[np.float64]
Lines = NDArray[np.object_]

CellState = Literal["mapped", "empty", "damaged", "running", "failed", "left"]
"""Done with a map; done, and nothing was there; done, and its record cannot be read; leased by a run; set aside; none of these."""

COLOURS: Mapping[CellState, str] = {
    "mapped": "#2a8c55",
    "empty": "#a9c8d8",
    "damaged": "#7a4fa3",
    "running": "#e0a100",
    "failed": "#c0392b",
    "left": "#dddddd",
}
"""Fill of each state."""

_MOST_SQUARES = 2500
"""Squares of a page that every browser still moves easily."""
_MAP_SIZE = (700.0, 700.0)
"""Greatest width and height of the map, in units of the picture."""
_SQUARE = 160.0
"""Greatest side of a square."""
_MARGIN = (74.0, 20.0)
"""Room for labels at the sides, and above and below."""
_LOCATOR = 200.0
"""Side of the map around it."""
_AROUND_M = 2_500_000.0
"""Ground from its middle to its sides, m, or one and a half times the map's extent; there is none where that is more than twice as much."""


@dataclass(frozen=True)
class MapSquare:
    """One square of the picture: a cell, or a block of `side` x `side` cells."""

    place: tuple[int, int]
    """Row and column of the square, in squares."""
    first: Address
    """Cell in its upper left corner, or the cell itself."""
    side: int
    """Cells along each of its sides."""
    counts: Mapping[CellState, int]
    """Cells of the campaign in it by state."""

    @property
    def state(self) -> CellState:
        """What its colour says: the state of most of its cells, but a failure always shows, and so does damage; and a map among empty ones."""
        for bad in ("failed", "damaged"):
            if bad in self.counts:
                return bad
        most = max(self.counts, key=lambda state: (self.counts[state], state))
        return "mapped" if most == "empty" and "mapped" in self.counts else most

    @property
    def opacity(self) -> float | None:
        """Of its colour; a block that is done in part is paler, because its colour stands for most of its cells only."""
        done = (self.counts.get("mapped", 0) + self.counts.get("empty", 0)) / sum(self.counts.values())
        return None if self.side == 1 or self.state != "mapped" else 0.35 + 0.65 * done

    @property
    def title(self) -> str:
        """What a pointer over it reads."""
        if self.side == 1:
            return f"{cell_id(*self.first)}: {self.state}"
        parts = ", ".join(f"{self.counts[state]:,} {state}" for state in COLOURS if state in self.counts)
        last = self.first[0] + self.side - 1, self.first[1] + self.side - 1
        return f"{cell_id(*self.first)} to {cell_id(*last)}: {parts}"


def map_squares(states: Mapping[Address, CellState], *, most: int = _MOST_SQUARES) -> list[MapSquare]:
    """Return squares that show all cells: one each, or one for a block of them where they are more than `most`.

    Examples
    --------
    >>> square, = map_squares({(4, -1): "mapped", (5, -1): "left", (5, -2): "left"}, most=1)
    >>> square.side, dict(square.counts), square.title
    (2, {'mapped': 1, 'left': 2}, 'r004c-002 to r005c-001: 1 mapped, 2 left')
    """
    if not states:
        return []
    rows, columns = np.array(list(states), np.int64).T
    side = 1  # a power of two, so that there are few enough blocks
    while len(np.unique((rows // side << 32) + columns // side)) > most:
        side *= 2
    blocks: dict[Address, Counter[CellState]] = {}
    for (row, column), state in states.items():
        blocks.setdefault((row // side, column // side), Counter())[state] += 1
    top, left = min(row for row, _ in blocks), min(column for _, column in blocks)
    return [
        MapSquare((row - top, column - left), (row * side, column * side), side, counts)
        for (row, column), counts in sorted(blocks.items())
    ]


_POLE = 90 + 1e-6
"""Greatest latitude, degrees, of what is rounded."""


def place_names(plan: CampaignPlan, cells: Iterable[Address], *, side: int = 1) -> dict[Address, str]:
    """Name the middles of cells, or of blocks of `side` x `side` cells by their first ones, as latitude and longitude."""
    addresses = [*cells]
    length = plan.grid.cell_size * plan.grid.resolution
    rows, columns = np.reshape(np.array(addresses, np.float64), (-1, 2)).T + side / 2
    x, y = plan.grid.origin[0] + columns * length, plan.grid.origin[1] - rows * length
    lon, lat = cached_transformer(plan.grid.crs, "EPSG:4326").transform(x, y)
    return {cell: place_name(*at) for cell, at in zip(addresses, np.stack([lon, lat], axis=1).tolist(), strict=True)}


def place_name(lon: float, lat: float) -> str:
    """Return latitude and longitude for people, to a hundred metres.

    Examples
    --------
    >>> place_name(-135.25, 70.0), place_name(190.0, -1.5), place_name(-180.0, 65.0)
    ('70.000° N, 135.250° W', '1.500° S, 170.000° W', '65.000° N, 180.000° E')
    """
    if not (isfinite(lon) and abs(lat) <= _POLE):
        return "a point off the Earth"
    lon = 180 - (180 - lon) % 360
    return f"{abs(lat):.3f}° {'S' if lat < 0 else 'N'}, {abs(lon):.3f}° {'W' if lon < 0 else 'E'}"


@dataclass(frozen=True, kw_only=True)
class MapFrame:
    """A rectangle of a CRS, as it is drawn."""

    crs: str
    """Anything that PROJ knows."""
    box: tuple[float, float, float, float]
    """Left, bottom, right and top, CRS units."""
    width: float
    """Of the picture."""

    @property
    def scale(self) -> float:
        """Units of the picture by those of the CRS."""
        return self.width / (self.box[2] - self.box[0])

    @property
    def height(self) -> float:
        """Of the picture."""
        return (self.box[3] - self.box[1]) * self.scale

    def lonlat(self, x: Floats, y: Floats) -> Floats:
        """Return longitude and latitude `(..., 2)` of points of the picture; infinite where they are no place on the Earth."""
        there = cached_transformer(self.crs, "EPSG:4326").transform(
            self.box[0] + x / self.scale, self.box[3] - y / self.scale
        )
        return np.stack(there, axis=-1)

    @cached_property
    def samples(self) -> Floats:
        """Longitude and latitude (n, 2) of points all over it."""
        x, y = np.meshgrid(np.linspace(0, self.width, 33), np.linspace(0, self.height, 33))
        found = self.lonlat(x.ravel(), y.ravel())
        return np.asarray(found[np.isfinite(found).all(axis=1) & (np.abs(found[:, 1]) <= _POLE)])

    @property
    def is_north_up(self) -> bool:
        """Whether north is up all over it."""
        lon, lat = self.samples.T
        # Towards the equator, because beyond a pole there is nothing.
        step = np.where(lat > 0, -1e-3, 1e-3)
        to = cached_transformer("EPSG:4326", self.crs)
        along, up = np.subtract(to.transform(lon, lat + step), to.transform(lon, lat)) / step
        return bool(len(lat) and (np.abs(along) <= 1e-6 * up).all())

    def lines(self, lonlat: Floats, line: NDArray[np.int64]) -> Lines:
        """Project lines, and keep the parts that lie in the picture, or nearly so.

        Parameters
        ----------
        lonlat
            Vertices (n, 2), degrees.
        line
            Line that each belongs to, in order.
        """
        x, y = cached_transformer("EPSG:4326", self.crs).transform(*lonlat.T)
        points = np.stack([(x - self.box[0]) * self.scale, (self.box[3] - y) * self.scale], axis=1)
        # What is far away may come to lie anywhere in a projection that is not made for it.
        usable = np.isfinite(points).all(axis=1) & self._is_near(lonlat)
        period = longitude_period(CRS(self.crs)) * self.scale
        size, most = (self.width, self.height), period / 2 or np.inf
        turns = [(turn, 0.0) for turn in ((-period, 0.0, period) if period else (0.0,))]
        return np.concatenate([_within(points + np.array(turn), usable, line, size=size, most=most) for turn in turns])

    def _is_near(self, lonlat: Floats) -> NDArray[np.bool_]:
        if not len(self.samples):
            return np.zeros(len(lonlat), bool)
        seen = _directions(self.samples)
        middle = seen.mean(axis=0)
        middle /= max(float(np.linalg.norm(middle)), 1e-9)
        least = np.arccos(np.clip(seen @ middle, -1, 1)).max()
        return np.asarray(_directions(lonlat) @ middle >= np.cos(min(least + np.radians(5), np.pi)) - 1e-9)


def _directions(lonlat: Floats) -> Floats:
    lon, lat = np.radians(lonlat).T
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def _within(
    points: Floats, usable: NDArray[np.bool_], line: NDArray[np.int64], *, size: tuple[float, float], most: float
) -> Lines:
    """Join edges whose boxes meet the picture to lines."""
    begin, end = points[:-1], points[1:]
    with np.errstate(invalid="ignore"):
        meets = (np.minimum(begin, end) <= size).all(axis=1) & (np.maximum(begin, end) >= 0).all(axis=1)
        kept = meets & usable[1:] & usable[:-1] & (line[1:] == line[:-1]) & (np.abs(end - begin)[:, 0] < most)
    edges = np.flatnonzero(kept)
    runs = np.split(edges, np.flatnonzero(np.diff(edges) != 1) + 1) if edges.size else []
    return np.array([shapely.linestrings(points[run[0] : run[-1] + 2]) for run in runs], object)


_STEPS = (30.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
"""Degrees between meridians or parallels."""


_WHOLE_TURN = 330.0
"""Degrees of longitude between samples of a frame that may go once around, as which it is taken."""


def graticule(frame: MapFrame) -> tuple[Lines, list[str]]:
    """Return meridians and parallels of a frame, each with its name, `(line,)` and `[name]`; a line may come in parts."""
    if not len(frame.samples):
        return np.empty(0, object), []
    lon, lat = frame.samples.T
    middle = float(np.degrees(np.arctan2(*_directions(frame.samples).mean(axis=0)[[1, 0]])))
    around = middle + (lon - middle + 180) % 360 - 180
    x, y = cached_transformer("EPSG:4326", frame.crs).transform([0.0, 0.0], [90.0, -90.0])
    left, bottom, right, top = frame.box
    poles = [left < px < right and bottom < py < top for px, py in zip(x, y, strict=True)]
    if any(poles) or np.ptp(around) > _WHOLE_TURN:
        around = np.array([middle - 180, middle + 180])
    south, north = (-90.0 if poles[1] else lat.min()), (90.0 if poles[0] else lat.max())
    along = np.linspace(south, north, 181), np.linspace(around.min(), around.max(), 361)
    drawn, names = [], []
    for number, (low, high) in enumerate(((around.min(), around.max()), (south, north))):
        for value in _multiples(low, high):
            lonlat = np.stack(np.broadcast_arrays(*((value, along[0]) if number == 0 else (along[1], value))), axis=1)
            degrees = 180 - (180 - value) % 360 if number == 0 else value
            below, above = (" W", "" if degrees == 180 else " E") if number == 0 else (" S", " N")
            found = frame.lines(lonlat, np.zeros(len(lonlat), np.int64))
            drawn.append(found)
            names += [f"{abs(degrees):g}°{below if degrees < 0 else above}"] * len(found)
    return np.concatenate(drawn) if drawn else np.empty(0, object), names


def _multiples(low: float, high: float) -> Iterator[float]:
    """Yield values to draw lines at: round ones, two of them at least."""
    step = next((step for step in _STEPS if (high - low) / step >= 2), _STEPS[-1])
    # Not up to the end, because once around ends where it has begun.
    for number in range(int(np.ceil(low / step)), int(np.ceil(high / step))):
        yield round(number * step, 9)


def cell_map(
    plan: CampaignPlan, states: Mapping[Address, CellState], *, reasons: Mapping[Address, str], coast: Coast | None
) -> str:
    """Return the map as HTML: its place in words, an ``<svg>`` of the cells, and one of the ground around it where it is small.

    Parameters
    ----------
    plan
        Of the year.
    states
        State of every cell of the campaign.
    reasons
        Why cells failed; shown where a square is one cell.
    coast
        Coast lines; None for none.
    """
    squares = map_squares(states)
    if not squares:
        return "<p>No cells.</p>"
    side = squares[0].side
    rows, columns = (max(square.place[axis] for square in squares) + 1 for axis in (0, 1))
    unit = min(_MAP_SIZE[0] / columns, _MAP_SIZE[1] / rows, _SQUARE)
    length = side * plan.grid.cell_size * plan.grid.resolution
    row, column = (squares[0].first[axis] // side - squares[0].place[axis] for axis in (0, 1))
    left, top = plan.grid.origin[0] + column * length, plan.grid.origin[1] - row * length
    box = (left, top - rows * length, left + columns * length, top)
    frame = MapFrame(crs=plan.grid.crs, box=box, width=columns * unit)
    corners = frame.lonlat(np.array([0.5, 0, 1, 1, 0]) * frame.width, np.array([0.5, 0, 0, 1, 1]) * frame.height)
    texts = {cell: f": {reason}" for cell, reason in reasons.items() if side == 1 and reason}
    facts = {
        "side": side,
        "counts": {state: sum(square.counts.get(state, 0) for square in squares) for state in COLOURS},
        "colours": COLOURS,
        "places": [place_name(*at) for at in corners.tolist()],
        "up": "north"
        if frame.is_north_up
        else f"the y axis of {CRS(plan.grid.crs).proj.name}, which is not north everywhere",
        "coast": None if coast is None else coast.name,
        "squares": squares,
        "unit": unit,
        "names": place_names(plan, [square.first for square in squares], side=side),
        "reasons": defaultdict(str, texts),
        "map": _picture(frame, coast, pad=_MARGIN),
        "locator": _locator(frame, coast),
    }
    return render_page("cells.svg", facts)


def _picture(frame: MapFrame, coast: Coast | None, *, pad: tuple[float, float]) -> dict[str, Any]:
    """Return what is drawn in a frame: meridians and parallels, named at its edges where there is room for it, and the coast above."""
    lines, names = graticule(frame)
    shore = np.empty(0, object) if coast is None else frame.lines(coast.lonlat, coast.line)
    return {
        "width": frame.width,
        "height": frame.height,
        "pad": pad,
        "graticule": _path(lines),
        "coast": _path(shore),
        "labels": [*_labels(frame, lines, names)] if pad[0] else [],
    }


def _path(lines: Lines) -> str:
    simple = shapely.simplify(lines, 0.3)
    coordinates, line = shapely.get_coordinates(simple, return_index=True)
    begins = np.diff(line, prepend=-1) > 0
    return "".join(
        f"{'M' if first else 'L'}{x:.1f} {y:.1f}" for first, (x, y) in zip(begins, coordinates.tolist(), strict=True)
    )


def _labels(frame: MapFrame, lines: Lines, names: Sequence[str]) -> Iterator[tuple[float, float, str, str]]:
    """Place, anchor and text of the names of lines where they leave the frame, each once for a side, none over another; within it for a closed one."""
    width, height = frame.width, frame.height
    taken: list[tuple[float, float]] = []
    for line, name in zip(shapely.clip_by_rect(lines, 0, 0, width, height), names, strict=True):
        coordinates = shapely.get_coordinates(line)
        for x, y in coordinates[[0, -1]] if len(coordinates) else ():
            distance, anchor, at = min(
                (x, "end", (-4.0, y + 4)),
                (width - x, "start", (width + 4, y + 4)),
                (y, "middle", (x, -5.0)),
                (height - y, "middle", (x, height + 13)),
            )
            if distance >= 1:  # it ends within the frame: meridians at a pole, and parallels where they have begun
                if name[-1] not in "NS":
                    continue
                anchor, at = "middle", (x, y)
            if all(abs(at[0] - other[0]) > 52 or abs(at[1] - other[1]) > 12 for other in taken):
                taken.append(at)
                yield *at, anchor, name


def _locator(frame: MapFrame, coast: Coast | None) -> dict[str, Any] | None:
    """Return the ground around a frame, with its `border`; None where there is no coast to find it by, or it is as large itself."""
    border = shapely.segmentize(shapely.box(0, 0, frame.width, frame.height), frame.width / 16)
    around = frame.lonlat(*shapely.get_coordinates(border).T)
    lon, lat = frame.lonlat(np.array(frame.width / 2), np.array(frame.height / 2)).tolist()
    if coast is None or not np.isfinite([lon, lat, *around.ravel()]).all():
        return None
    crs = f"+proj=laea +lat_0={lat:.6f} +lon_0={lon:.6f} +datum=WGS84 +units=m"
    x, y = cached_transformer("EPSG:4326", crs).transform(*around.T)
    extent = float(np.abs([x, y]).max())
    reach = max(_AROUND_M, 1.5 * extent)
    if not reach <= 2 * _AROUND_M:
        return None
    there = MapFrame(crs=crs, box=(-reach, -reach, reach, reach), width=_LOCATOR)
    border = np.stack([x + reach, reach - y], axis=1) * there.scale
    return _picture(there, coast, pad=(0.0, 0.0)) | {"border": border.tolist()}
