"""Planet's basemaps: a mosaic by its name, the quads that a region needs, and what the Basemaps API lists of them."""

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from shapely import box
from shapely.geometry.base import BaseGeometry

from rtsx.cube.stac.assets import absolute_href
from rtsx.cube.stac.client import is_same_host
from rtsx.errors import OrderError
from rtsx.names import did_you_mean
from rtsx.ordering.download import HttpError, Patience, open_http
from rtsx.parsing import json_value, wrap_damage

_BASE_URL = "https://api.planet.com/basemaps/v1"
_WORLD_M = 2 * math.pi * 6378137
"""Side of the square that EPSG:3857 shows of the world, m."""
_RANGE = 64
"""Quads of a side that are listed together, so that what a crash costs is bounded."""
QUAD_ID = re.compile(r"(?:L\d+-)?(\d+)E?-(\d+)N?")
"""Id of a quad, with its column and row."""
_EDGE = 1e-9
"""Share of a quad by which ground may reach into the next one without meaning it."""


@dataclass(frozen=True, order=True)
class QuadRange:
    """A rectangle of quads; columns count from the west, rows from the south, and the last ones are not in it."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def count(self) -> int:
        """Number of quads."""
        return (self.y1 - self.y0) * (self.x1 - self.x0)

    def __contains__(self, place: tuple[int, int]) -> bool:
        x, y = place
        return self.x0 <= x < self.x1 and self.y0 <= y < self.y1


@dataclass(frozen=True, kw_only=True)
class Mosaic:
    """One basemap: of one time, in quads of one grid.

    Raises
    ------
    OrderError
        Its quads are not those of a grid of EPSG:3857.
    """

    id: str
    """Id that the API knows it by."""
    name: str
    """Name, such as ``global_quarterly_2025q3_mosaic``."""
    start: datetime
    """Beginning of the time that it shows, aware."""
    end: datetime
    """End of it."""
    quad_size: int
    """Side of a quad, px."""
    resolution: float
    """Side of a pixel in units of EPSG:3857."""

    def __post_init__(self) -> None:
        """Check the grid once."""
        across = _WORLD_M / (self.quad_size * self.resolution)
        if across < 1 or abs(across - round(across)) > 1e-4:
            raise OrderError(
                f"Mosaic {self.name} has quads of {self.quad_size} px of {self.resolution} m, and the width of EPSG:3857 is a "
                "whole number of quads only in a grid of tiles. Name another mosaic."
            )

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Mosaic":
        """Return the mosaic that the API describes.

        Raises
        ------
        OrderError
            Its quads cannot be downloaded, or not as a grid of tiles.
        """
        name = document["name"]
        if document.get("coordinate_system", "EPSG:3857") != "EPSG:3857":
            raise OrderError(
                f"Mosaic {name} is in {document['coordinate_system']}; EPSG:3857 was expected. Name another mosaic."
            )
        if document.get("quad_download") is False:
            raise OrderError(
                f"Your account may look at mosaic {name}, and not download its quads. Ask Planet for that, or name another mosaic."
            )
        grid = document["grid"]
        start, end = (datetime.fromisoformat(document[key]) for key in ("first_acquired", "last_acquired"))
        return cls(
            id=str(document["id"]),
            name=str(name),
            start=start,
            end=end,
            quad_size=int(grid["quad_size"]),
            resolution=float(grid["resolution"]),
        )

    @property
    def across(self) -> int:
        """Quads around the world, which are as many from its south to its north."""
        return round(_WORLD_M / (self.quad_size * self.resolution))

    def bounds(self, area: QuadRange, *, inset: float = 0.0) -> tuple[float, float, float, float]:
        """Return west, south, east and north in degrees, or so much of a quad within them."""
        west, south, east, north = area.x0 + inset, area.y0 + inset, area.x1 - inset, area.y1 - inset
        return self._lon(west), self._lat(south), self._lon(east), self._lat(north)

    def quad_at(self, easting: float, northing: float) -> tuple[int, int]:
        """Return the column and row of the quad at a place in EPSG:3857."""
        side = _WORLD_M / self.across
        return math.floor((easting + _WORLD_M / 2) / side), math.floor((northing + _WORLD_M / 2) / side)

    def transform(self, y: int, x: int) -> list[float]:
        """Return coefficients of the affine map of the quad in a row and column, from pixels to EPSG:3857."""
        side = _WORLD_M / self.across
        step = side / self.quad_size
        return [step, 0.0, x * side - _WORLD_M / 2, 0.0, -step, (y + 1) * side - _WORLD_M / 2]

    def ranges(self, region: BaseGeometry) -> tuple[QuadRange, ...]:
        """Return the quads that show ground of a region (longitude and latitude), each in one range; pure.

        Raises
        ------
        OrderError
            There are none, as at the poles.

        Examples
        --------
        >>> start = datetime.fromisoformat("2025-07-01T00:00:00Z")
        >>> mosaic = Mosaic(id="", name="", start=start, end=start, quad_size=4096, resolution=4.777314267823516)
        >>> mosaic.ranges(box(-100, 40, -99.9, 40.1))
        (QuadRange(y0=1272, x0=455, y1=1274, x1=456),)
        """
        south, north = region.bounds[1], region.bounds[3]
        found: list[QuadRange] = []
        open_: dict[tuple[int, int], QuadRange] = {}
        rows = math.floor(self._row(south) + _EDGE), math.ceil(self._row(north) - _EDGE)
        for y in range(max(0, rows[0]), min(self.across, rows[1])):
            runs = self._runs(region, y)
            # What the row below has as well grows by a row, so that a box is one range.
            found += [area for run, area in open_.items() if run not in runs]
            open_ = {
                (x0, x1): QuadRange(open_[x0, x1].y0 if (x0, x1) in open_ else y, x0, y + 1, x1) for x0, x1 in runs
            }
        found += open_.values()
        pieces = tuple(sorted(piece for area in found for piece in _pieces(area)))
        if not pieces:
            raise OrderError(
                f"No quad of {self.name} shows ground of the region, which reaches from {south:.4f} to {north:.4f} degrees north. "
                "Basemaps end at 85.05 degrees; correct the region."
            )
        return pieces

    def _runs(self, region: BaseGeometry, y: int) -> list[tuple[int, int]]:
        """Return columns of a row that the region touches, as runs of neighbours."""
        row = region.intersection(box(-180, self._lat(y), 180, self._lat(y + 1)))
        runs: list[tuple[int, int]] = []
        # A connected piece of a row meets every column between its west and its east.
        spans = sorted((part.bounds[0], part.bounds[2]) for part in getattr(row, "geoms", [row]) if part.area > 0)
        for west, east in spans:
            x0, x1 = math.floor(self._column(west) + _EDGE), math.ceil(self._column(east) - _EDGE)
            if runs and x0 <= runs[-1][1]:
                runs[-1] = (runs[-1][0], max(runs[-1][1], x1))
            elif x1 > x0:
                runs.append((x0, x1))
        return runs

    def _column(self, lon: float) -> float:
        return (lon + 180) / 360 * self.across

    def _row(self, lat: float) -> float:
        if abs(lat) >= 89.9:
            return self.across + 1 if lat > 0 else -1
        return (math.asinh(math.tan(math.radians(lat))) / math.pi + 1) / 2 * self.across

    def _lon(self, x: float) -> float:
        return x / self.across * 360 - 180

    def _lat(self, y: float) -> float:
        return math.degrees(math.atan(math.sinh((2 * y / self.across - 1) * math.pi)))


def _pieces(area: QuadRange) -> Iterator[QuadRange]:
    """Yield the range in pieces that are listed at once."""
    for y in range(area.y0, area.y1, _RANGE):
        for x in range(area.x0, area.x1, _RANGE):
            yield QuadRange(y, x, min(y + _RANGE, area.y1), min(x + _RANGE, area.x1))


@dataclass(frozen=True, kw_only=True)
class Quad:
    """One quad as the API lists it."""

    id: str
    """Id, such as ``455-1273``."""
    x: int
    """Column from the west."""
    y: int
    """Row from the south."""
    href: str
    """Where it is downloaded from, without a key."""
    percent_covered: float | None
    """Percent of it that shows ground; None where the API does not say."""


class BasemapApi:
    """Planet's Basemaps API.

    Parameters
    ----------
    headers
        Credentials for a request of an address of Planet's own, such as ``Authorization``; asked for each time, because tokens run out.
    base_url
        Address of the API; None for Planet's.
    pause
        Waits between attempts.
    """

    def __init__(
        self,
        headers: Callable[[str], Mapping[str, str]],
        *,
        base_url: str | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._headers = headers
        self._url = (base_url or _BASE_URL).rstrip("/")
        self._pause = pause

    def mosaic(self, name: str) -> Mosaic:
        """Return the mosaic of that name.

        Raises
        ------
        OrderError
            There is none that this account may see; names that are near are given.
        """
        found = self._get(f"{self._url}/mosaics?{urlencode({'name__is': name})}").get("mosaics") or ()
        document = next((one for one in found if one.get("name") == name), None)
        if document is None:
            raise OrderError(f"There is no mosaic {name!r} that your account may see.{self._near(name)}")
        with wrap_damage(f"What {self._url} says of mosaic {name}", OrderError):
            return Mosaic.from_json(document)

    def quads(self, mosaic: Mosaic, area: QuadRange) -> Iterator[Quad]:
        """Yield quads of a range that the mosaic has, page by page; one that the API lists twice comes twice."""
        # Inset, because a box that ends at an edge finds the neighbours, too.
        bbox = ",".join(f"{corner:.9f}" for corner in mosaic.bounds(area, inset=0.25))
        address = f"{self._url}/mosaics/{mosaic.id}/quads?{urlencode({'bbox': bbox}, safe=',')}"
        for page in self._pages(address):
            with wrap_damage(f"The list of quads of {mosaic.name}", OrderError):
                quads = [self._quad(mosaic, document) for document in page.get("items") or ()]
            yield from (quad for quad in quads if (quad.x, quad.y) in area)

    def headers_for(self, href: str) -> Mapping[str, str]:
        """Return credentials for an address of the API's own host; none for another's."""
        return self._headers(href) if is_same_host(self._url, href) else {}

    def _quad(self, mosaic: Mosaic, document: Mapping[str, Any]) -> Quad:
        name = str(document["id"])
        match = QUAD_ID.fullmatch(name)
        if match is None:
            raise OrderError(f"{mosaic.name} lists a quad {name!r}; an id such as 455-1273 was expected. Report it.")
        links = document.get("_links") or {}
        href = links.get("download") or f"{self._url}/mosaics/{mosaic.id}/quads/{name}/full"
        percent = document.get("percent_covered")
        return Quad(
            id=name,
            x=int(match[1]),
            y=int(match[2]),
            href=_without_key(absolute_href(str(href), f"{self._url}/")),
            percent_covered=None if percent is None else float(percent),
        )

    def _near(self, name: str) -> str:
        """Return a sentence on mosaics that are called alike."""
        stem = re.split(r"_?\d", name, maxsplit=1)[0] or name[:6]
        for part in dict.fromkeys((stem, stem.rsplit("_", 1)[0], "_".join(stem.split("_")[:1]))):
            query = urlencode({"name__contains": part})
            names = [
                str(one.get("name")) for page in self._pages(f"{self._url}/mosaics?{query}") for one in page["mosaics"]
            ]
            if names:
                near = did_you_mean(name, names)
                return f"{near} {len(names)} are called {part!r} and more; the last ones are {', '.join(sorted(names)[-3:])}."
        return " Correct its name, or ask Planet whether your account has it."

    def _pages(self, href: str) -> Iterator[Mapping[str, Any]]:
        seen = set[str]()
        while href and href not in seen:
            seen.add(href)
            page = self._get(href)
            yield page
            after = (page.get("_links") or {}).get("_next")
            href = absolute_href(str(after), href) if after else ""

    def _get(self, href: str) -> Mapping[str, Any]:
        patience = Patience(self._pause)
        shown = href.split("?")[0]
        while True:
            try:
                with open_http(href, headers=self.headers_for(href), start=0, version="") as stream:
                    text = b"".join(stream.chunks)
                break
            except HttpError as error:
                if not patience.retry_after(error):
                    raise OrderError(f"Planet cannot be asked: {error}. {cure_of(error)}") from error
        content = json_value(text, what=f"The answer of {shown}", error=OrderError)
        if not isinstance(content, Mapping):
            raise OrderError(
                f"{shown} answers {json.dumps(content)[:80]}; an object of JSON was expected. Check base_url."
            )
        return content


def cure_of(error: HttpError) -> str:
    """Return what helps against an answer of Planet's."""
    if error.status == 401:
        return "The API key is refused: check PL_API_KEY."
    if error.is_quota:
        return (
            "The quota is used up: raise it with Planet, or wait until it is renewed, then run the same command again."
        )
    if error.wait_s is not None:
        return f"The server asks to wait {error.wait_s:,.0f} s: run the same command again then."
    if error.status == 403:
        return "Your account does not allow it: check your contract."
    return "Run the same command again later."


def _without_key(href: str) -> str:
    """Return an address without the key that the API puts into it."""
    parts = urlsplit(href)
    query = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "api_key"]
    return urlunsplit(parts._replace(query=urlencode(query)))
