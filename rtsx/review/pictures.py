"""Pictures of the ground around an outline, close and wide, drawn when they are asked for and kept in memory."""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BytesIO
from threading import Lock
from typing import Any, Literal, get_args

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image as PillowImage
from pyproj import CRS

from rtsx.errors import ReviewError
from rtsx.geometry.crs import WGS84, lonlat_transformer, transformed
from rtsx.review.store import Review, placed_in, year_of_image
from rtsx.viewer import Box, Pyramid, Style, draw_window, styles_of

View = Literal["close", "wide"]
"""Two looks at an outline: 3 times its size, at least 250 m; 10 times, at least 1.5 km."""

_VIEWS: Mapping[str, tuple[float, float]] = {"close": (3.0, 250.0), "wide": (10.0, 1500.0)}
_SCREEN = 512
"""Side of a picture, px, at least."""
_KEPT_BYTES = 512 << 20
"""Bytes of pictures in memory."""
_MOST_NEAR = 20
"""Other outlines that are drawn around one, the nearest, because a browser keeps about 5 MB of a batch."""


@dataclass(frozen=True)
class EncodedPicture:
    """A picture as it is sent."""

    png: bytes
    box: Box
    """Left, bottom, right and top of its edges, in the CRS of the first image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReviewPictures:
    """Pictures of all outlines of a review, in the CRS of its first image."""

    review: Review
    images: tuple[tuple[str, Pyramid], ...]
    """Name and image, the newest first."""
    _kept: "OrderedDict[tuple[int, str, int, str], Future[EncodedPicture]]" = field(
        default_factory=OrderedDict, repr=False
    )
    _lock: Any = field(default_factory=Lock, repr=False)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "rtsx-pictures"), repr=False)

    @classmethod
    def open(cls, review: Review, *, opener: Callable[[str], Any]) -> "ReviewPictures":
        """Open the images of a review lazily, and check that its outlines lie in them.

        Parameters
        ----------
        review
            The review.
        opener
            Makes of the source of an image what `Pyramid.of` takes, or a `Pyramid`.

        Raises
        ------
        ReviewError
            Outlines lie elsewhere.

        Warns
        -----
        RuntimeWarning
            Nothing states which year of an image is meant, as in reviews made before that was asked: its last is shown.
        """
        opened = ((name, opener(source)) for name, source in review.settings.cubes)
        pyramids = ((name, one if isinstance(one, Pyramid) else Pyramid.of(one)) for name, one in opened)
        images = tuple((name, replace(one, year=_year(one, review, name=name))) for name, one in pyramids)
        made = cls(review=review, images=images)
        assert len(made.places) == len(review.outlines)  # and so they are checked
        return made

    @cached_property
    def styles(self) -> tuple[dict[str, Style], ...]:
        """Ways of drawing each image, by name."""
        return tuple(styles_of(image.cube) for _, image in self.images)

    @cached_property
    def crs(self) -> CRS:
        """Of the first image, in which everything is drawn."""
        return CRS.from_user_input(self.images[0][1].crs)

    @cached_property
    def places(self) -> NDArray[np.object_]:
        """Outlines in the CRS of the first image, by row."""
        name, image = self.images[0]
        return np.asarray(placed_in(self.review.outlines, image.geobox, name=name).array, np.object_)

    def box(self, row: int, view: View) -> Box:
        """Return what is seen of an outline: a square on the ground around it."""
        left, bottom, right, top = self.places[row].bounds
        unit_x, unit_y = self._units[row]
        half = self.side_m(row, view) / 2
        x, y = (left + right) / 2, (bottom + top) / 2
        return x - half / unit_x, y - half / unit_y, x + half / unit_x, y + half / unit_y

    def side_m(self, row: int, view: View) -> float:
        """Return the side of what is seen of an outline, m."""
        left, bottom, right, top = self.places[row].bounds
        unit_x, unit_y = self._units[row]
        times, least = _VIEWS[view]
        return float(max(times * max((right - left) * unit_x, (top - bottom) * unit_y), least))

    def near(self, row: int) -> list[int]:
        """Return rows of other outlines that are seen in the wide picture, the nearest of many."""
        found = self._tree.query(shapely.box(*self.box(row, "wide")), predicate="intersects")
        others = np.sort(found[found != row])
        if len(others) > _MOST_NEAR:
            distances = shapely.distance(self.places[row], self._middles[others])
            others = others[np.argsort(distances, kind="stable")[:_MOST_NEAR]]
        return [int(other) for other in others]

    def rings(self, row: int) -> list[list[list[float]]]:
        """Return rings of an outline in the CRS of the first image, to half of its pixel; a point is a ring of one place."""
        place = self.places[row]
        digits = max(0, int(np.ceil(-np.log10(self._pixel / 10))))
        if place.geom_type == "Point":
            return [[[round(place.x, digits), round(place.y, digits)]]]
        rings = shapely.get_rings(shapely.get_parts(shapely.simplify(place, self._pixel / 2)))
        return [shapely.get_coordinates(ring).round(digits).tolist() for ring in rings]

    def to_outline(self, ring: Sequence[tuple[float, float]]) -> str:
        """Return WKT in the CRS of the table of what was drawn in that of the first image.

        Raises
        ------
        ReviewError
            It has fewer than three corners, or no area.
        """
        drawn = shapely.Polygon(ring) if len(ring) > 2 else shapely.Polygon()
        # Repaired instead of refused, because a reviewer who has gone on cannot draw it again.
        mended = drawn if drawn.is_valid else shapely.make_valid(drawn, method="structure", keep_collapsed=False)
        if mended.is_empty or mended.geom_type not in ("Polygon", "MultiPolygon"):
            raise ReviewError(
                f"An outline has at least three corners and an area; got {len(ring)} corners. Draw it again."
            )
        target = CRS.from_user_input(self.review.outlines.crs)
        (moved,) = transformed(np.array([mended], np.object_), self.crs, target)
        return str(shapely.to_wkt(moved, rounding_precision=9))

    def picture(self, row: int, view: View, *, image: int, style: str) -> "Future[EncodedPicture]":
        """Return a picture, at once where it was drawn before; two that ask for one share the work.

        Raises
        ------
        ReviewError
            There is no such outline, view, image or style.
        """
        if not 0 <= row < len(self.places) or view not in get_args(View) or not 0 <= image < len(self.images):
            raise ReviewError("There is no such picture. Reload the page.")
        styles = self.styles[image]
        if style not in styles:
            style = next(iter(styles))  # another year may lack a band
        key = (row, view, image, style)
        with self._lock:
            there = self._kept.get(key)
            made = there or self._pool.submit(self._drawn, row, view, image=image, style=styles[style])
            self._kept[key] = made
            self._kept.move_to_end(key)
        if there is None:
            made.add_done_callback(lambda done: self._limit(key, done))  # without the lock, because it may run at once
        return made

    def close(self) -> None:
        """End the threads that draw."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _drawn(self, row: int, view: View, *, image: int, style: Style) -> EncodedPicture:
        picture = draw_window(
            self.images[image][1],
            self.box(row, view),
            size=(_SCREEN, _SCREEN),
            style=style,
            crs=None if image == 0 else self.images[0][1].crs,
        )
        rgba = picture.rgba if picture.rgba.size else np.zeros((1, 1, 4), np.uint8)
        buffer = BytesIO()
        PillowImage.fromarray(rgba).save(buffer, "PNG", compress_level=1)
        return EncodedPicture(buffer.getvalue(), picture.box)

    def _limit(self, key: tuple[int, str, int, str], done: "Future[EncodedPicture]") -> None:
        """Forget a picture that could not be drawn, and the oldest ones beyond the memory that they may take."""
        with self._lock:
            if done.cancelled() or done.exception():
                self._kept.pop(key, None)
                return
            drawn = ((one, made) for one, made in self._kept.items() if made.done() and not made.cancelled())
            sizes = {one: len(made.result().png) for one, made in drawn if not made.exception()}
            excess = sum(sizes.values()) - _KEPT_BYTES
            for oldest, size in sizes.items():
                if excess <= 0:
                    break
                del self._kept[oldest]
                excess -= size

    @cached_property
    def _middles(self) -> NDArray[np.object_]:
        middles: NDArray[np.object_] = shapely.centroid(self.places)
        return middles

    @cached_property
    def _pixel(self) -> float:
        """Side of a pixel of the first image, in units of its CRS."""
        return abs(float(self.images[0][1].geobox.affine.a))

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.places)

    @cached_property
    def _units(self) -> NDArray[np.float64]:
        """Metres on the ground of a unit of the CRS along x and y, at each outline (outline, 2): a map may stretch them."""
        middle = shapely.get_coordinates(self._middles)
        half = self._pixel / 2
        units: NDArray[np.float64] = np.empty_like(middle)
        for axis in (0, 1):
            ends = [middle + half * sign * np.eye(2)[axis] for sign in (-1, 1)]
            lonlat = [lonlat_transformer(self.crs).transform(*end.T) for end in ends]
            units[:, axis] = WGS84.inv(*lonlat[0], *lonlat[1])[2] / (2 * half)
        return units


def _year(image: Pyramid, review: Review, *, name: str) -> int | None:
    """Return the year in which an image is shown; None for its last, with a warning where nothing states one."""
    try:
        return year_of_image(image.cube, review.outlines, name=name)
    except ReviewError as error:
        warnings.warn(
            f"{error} This review is made already: the last time of {name!r} is shown, as it always was.",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
