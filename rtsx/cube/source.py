"""Where images come from: the one question that a cube asks a catalog, a folder or a table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from shapely.geometry.base import BaseGeometry

from rtsx.cube.image import Image, Wanted
from rtsx.errors import CubeError

__all__ = ["GivenImages", "ImageSource", "Period"]


@dataclass(frozen=True)
class Period:
    """Days that an image may be of, both ends included.

    Raises
    ------
    CubeError
        It ends before it begins, or a month is not one.

    Examples
    --------
    >>> summers = Period(date(2022, 1, 1), date(2024, 12, 31), months=(7, 8))
    >>> date(2023, 7, 14) in summers, date(2023, 9, 1) in summers
    (True, False)
    """

    start: date
    """First day."""
    end: date
    """Last day."""
    months: tuple[int, ...] = ()
    """Months of every year that count, 1-12; empty for all."""

    def __post_init__(self) -> None:
        """Check the order and the months."""
        if self.end < self.start:
            raise CubeError(
                f"A period ends on or after the day it starts; got {self.start} to {self.end}. Swap the two."
            )
        if not set(self.months) <= set(range(1, 13)):
            raise CubeError(f"Months are numbers from 1 to 12; got {list(self.months)}.")

    def __contains__(self, day: date) -> bool:
        day = day.date() if isinstance(day, datetime) else day
        return self.start <= day <= self.end and (not self.months or day.month in self.months)


class ImageSource(Protocol):
    """Anything that knows images: a STAC API, a static catalog, a table of items, files.

    Frozen values that pickle; `find` may go to the network, but reads no pixel.
    """

    def find(self, area: BaseGeometry, period: Period | None, wanted: Sequence[Wanted]) -> tuple[Image, ...]:
        """Images that meet an area within a period, in a fixed order.

        Parameters
        ----------
        area
            Longitude and latitude, split at the antimeridian.
        period
            Days that count; None for all, and for images without a time.
        wanted
            What each image has to hold.

        Returns
        -------
        tuple
            Empty where nothing was found: what that means is the caller's business.

        Raises
        ------
        CubeError
            The source cannot be asked, or an item lacks what is wanted; item and asset are named.
        """


@dataclass(frozen=True)
class GivenImages:
    """Images that are at hand already; `find` picks those that meet area and period."""

    images: tuple[Image, ...]
    """All of them."""

    def __init__(self, images: Iterable[Image]) -> None:
        object.__setattr__(self, "images", tuple(images))

    def find(self, area: BaseGeometry, period: Period | None, wanted: Sequence[Wanted]) -> tuple[Image, ...]:
        """Images in their given order; see `ImageSource`."""
        found = []
        for image in self.images:
            missing = [one.name for one in wanted if one.name not in image.bands]
            if missing:
                raise CubeError(f"Image {image.id!r} has {sorted(image.bands)}; {missing} are wanted too. Add them.")
            if period is not None and image.time is not None and image.time not in period:
                continue
            if image.footprint is None or image.footprint.intersects(area):
                found.append(image)
        return tuple(found)


_conforms: type[ImageSource] = GivenImages
