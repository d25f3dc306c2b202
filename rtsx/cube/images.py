"""One image, where images come from (what every catalog, folder and table is turned into), and how they become time steps."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from shapely.geometry.base import BaseGeometry

from rtsx.errors import CubeError

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from rtsx.cube.rasterio import RasterHeader
    from rtsx.cube.resample.readers import WindowReader


@dataclass(frozen=True, kw_only=True)
class BandRequest:
    """What a source is asked for under one name: a layer, or quality data."""

    name: str
    """Name of the layer, such as ``red``, or of quality data, such as ``udm2``."""
    asset: str | Mapping[str, str] | None = None
    """Key of the asset in an item, or keys by collection; None finds the asset by the name of the band. Files have no assets."""
    bands: tuple[int | str, ...] = ()
    """Numbers (from 1) or names of the bands; empty takes the band called `name`, else all bands of `asset`."""
    nodata: float | None = None
    """Stored value of a missing pixel; None takes what item or file declares."""
    names: tuple[str, ...] = ()
    """Of quality data of which all bands are taken: their names in the order of its rule; empty takes them as they come."""
    scale_factor: float | None = None
    """Physical units per stored unit; None takes what item or file declares."""
    add_offset: float | None = None
    """Physical value of stored 0; None takes what item or file declares."""

    def __hash__(self) -> int:
        return hash((self.name, self.bands))

    @property
    def stated(self) -> dict[str, float]:
        """Those of `nodata`, `scale_factor` and `add_offset` that were stated with a wish: they overrule item and file."""
        values = {"nodata": self.nodata, "scale_factor": self.scale_factor, "add_offset": self.add_offset}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class BandSource:
    """Bands of one file on its own grid; everything about them but the pixels."""

    href: str
    """Path or URL of the file; for Zarr that of the group."""
    bands: tuple[int | str, ...]
    """Numbers of the bands, from 1; for Zarr the names of the arrays."""
    geobox: "GeoBox"
    """CRS, transform and shape of the file, north-up or not."""
    dtype: str
    """NumPy dtype that the bands are stored in."""
    nodata: float | None
    """Stored value of a missing pixel; None where every stored value counts."""
    scale_factor: float = 1.0
    """Physical units per stored unit."""
    add_offset: float = 0.0
    """Physical value of stored 0, for example -0.1 for Sentinel-2 from processing baseline 04.00."""
    asset: str = ""
    """Key of the asset in its item, for messages; empty for plain files."""
    opener: Literal["gdal", "zarr", "model"] = "gdal"
    """What reads the file; a model computes pixels from other bands."""
    settled: frozenset[str] = frozenset()
    """Which of `nodata`, `scale_factor` and `add_offset` the caller stated, or the file: others have to agree with the file."""
    stamp: str = ""
    """What the item says of the file's content: a checksum, an ETag, or when it was changed; empty where it says nothing."""
    like: "RasterHeader | None" = None
    """Header of another file that answered for this one, which has to say the same of what is left in it: names of bands, and their packing
    where there are `scales`; None where none did."""
    units: str = ""
    """Physical unit that the file, store or item states; empty where none does."""
    has_classes: bool = False
    """Whether its file, store or item says that its numbers stand for classes, so that none between two of them means anything."""
    alone: tuple[str, ...] = ()
    """Names of the band where the item lists no other: of several in its file, which has to be one of these; empty where a number was asked for."""
    names: tuple[str, ...] = ()
    """What the rule of quality data calls the bands, where its item does not and the header of another file answered for this one."""
    step: int | None = None
    """Place along the axis `time` of arrays in a Zarr group; None where they have no more than one."""
    reader: "WindowReader | None" = None
    """Of what is computed; None where `opener` reads a file."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """What was seen at one time, or a piece of a mosaic without one.

    Raises
    ------
    CubeError
        There is no band in it, or its time does not say its zone.
    """

    id: str
    """Id of the item, or name of the file; goes into a cube's coordinates and every error."""
    bands: Mapping[str, BandSource]
    """File bands by the name that was `BandRequest`."""
    time: datetime | None = None
    """When it was taken, in UTC, aware; None for what has no date, such as a terrain mosaic."""
    footprint: BaseGeometry | None = None
    """Ground that holds data, in longitude and latitude, split at the antimeridian; None: all of its rasters."""
    cloud_cover: float | None = None
    """Percent of the image under cloud, as its item says."""
    platform: str | None = None
    """Satellite, as its item says, such as ``landsat-8``."""
    sun_azimuth: float | None = None
    """Degrees clockwise from true north."""
    sun_elevation: float | None = None
    """Degrees above the horizon."""
    stamp: str = ""
    """By which a copy is known for the image that it was made of; empty for images themselves, whose files tell."""

    def __post_init__(self) -> None:
        """Refuse an image of nothing, and close the mapping against change."""
        if not self.bands:
            raise CubeError(f"Image {self.id!r} has to have at least one band; it has none.")
        if self.time is not None and self.time.tzinfo is None:
            raise CubeError(
                f"The time of image {self.id!r} has to say its zone; got {self.time.isoformat()}. Write "
                "time.replace(tzinfo=UTC) if it is UTC."
            )
        object.__setattr__(self, "bands", MappingProxyType(dict(self.bands)))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the mapping as a dict, because a proxy cannot be pickled."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return partial(Image, **fields | {"bands": dict(self.bands)}), ()


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

    def find(self, area: BaseGeometry, period: Period | None, wanted: Sequence[BandRequest]) -> tuple[Image, ...]:
        """Return images that meet an area within a period, in a fixed order.

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

    def __init__(self, images: Iterable[Image]) -> None:
        object.__setattr__(self, "images", tuple(images))

    def find(self, area: BaseGeometry, period: Period | None, wanted: Sequence[BandRequest]) -> tuple[Image, ...]:
        """Return images in their given order; see `ImageSource`."""
        found = []
        for image in self.images:
            if missing := [one.name for one in wanted if one.name not in image.bands]:
                raise CubeError(f"Image {image.id!r} has {sorted(image.bands)}; {missing} are wanted too. Add them.")
            if period is not None and image.time is not None and image.time not in period:
                continue
            if image.footprint is None or image.footprint.intersects(area):
                found.append(image)
        return tuple(found)


_conforms: type[ImageSource] = GivenImages


@dataclass(frozen=True)
class TimeGroup:
    """Images that become one step, best first."""

    images: tuple[Image, ...]
    """In the order in which they are looked at."""
    time: datetime | None
    """In UTC: when the image was taken; midnight of the solar day at the middle of the cube; the first of January. It does
    not depend on which images happen to meet a cell. None where the cube has no time dimension."""

    @property
    def item_ids(self) -> str:
        """Ids of the images, sorted, with commas between; the coordinate that says what a step is made of."""
        return ",".join(sorted(image.id for image in self.images))


def group_images(
    images: Sequence[Image],
    *,
    group: Literal["all", "item", "day", "year"],
    order: Literal["cloud", "newest", "oldest"],
    longitude: float,
    source: str,
) -> tuple[TimeGroup, ...]:
    """Group images into steps, by rising time.

    A day is a solar day: the day in UTC of the time plus four minutes for every degree of longitude, so that a strip
    which was flown in one go is not cut in two at midnight in Greenwich. The longitude is that of the cube, one for all
    images, so that the strip is not cut at the antimeridian either. A time of midnight sharp is a date without an hour, and stays that day.

    Parameters
    ----------
    images
        What was found.
    group
        What they have in common; see `rtsx.cube.recipe.Grouping`.
    order
        ``"cloud"``: least cloudy first, then newest; ``"newest"`` or ``"oldest"`` first. The id decides between equals, so that
        the order in which a server answers changes nothing.
    longitude
        Of the cube's middle, degrees.
    source
        Name of the source, for messages.

    Raises
    ------
    CubeError
        Time steps are wanted, and an image has no time.
    """
    if group == "all":
        return (TimeGroup(_ordered(images, order), None),) if images else ()
    groups: dict[tuple[datetime, str], list[Image]] = {}
    for image in images:
        if image.time is None:
            raise CubeError(
                f"Source {source!r} is grouped by {group}, but image {image.id!r} has no time. "
                "Give its item a datetime, or use group='all'."
            )
        groups.setdefault(_label(image, image.time, group=group, longitude=longitude), []).append(image)
    labels = sorted(groups)
    return tuple(TimeGroup(_ordered(groups[label], order), label[0]) for label in labels)


def _label(image: Image, time: datetime, *, group: str, longitude: float) -> tuple[datetime, str]:
    """Return the time of the step, and what else tells it from others of that time."""
    if group == "item":
        return time.astimezone(UTC), image.id
    moment = time.astimezone(UTC)
    # Of an item or file name that says no hour: a day of the place already.
    is_date = moment.time() == moment.min.time()
    solar = (moment + timedelta(minutes=0 if is_date else 4 * longitude)).date()
    return datetime(solar.year, *((solar.month, solar.day) if group == "day" else (1, 1)), tzinfo=UTC), ""


def _ordered(images: Iterable[Image], order: str) -> tuple[Image, ...]:
    def rank(image: Image) -> tuple[float, float, str]:
        newest = -image.time.timestamp() if image.time is not None else 0.0
        cloud = image.cloud_cover if image.cloud_cover is not None else 100.0
        return (cloud if order == "cloud" else 0.0, -newest if order == "oldest" else newest, image.id)

    return tuple(sorted(images, key=rank))


def mean_sun(images: Sequence[Image], source: str) -> tuple[float, float]:
    """Return the azimuth (clockwise from true north) and elevation of the mean direction towards the sun, degrees.

    Parameters
    ----------
    images
        Images that say where the sun stood; those that do not are left out.
    source
        Name of their source, for messages.

    Raises
    ------
    CubeError
        None of them says.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> at = lambda azimuth: SimpleNamespace(sun_azimuth=azimuth, sun_elevation=30.0)
    >>> [round(angle, 2) for angle in mean_sun([at(350.0), at(30.0)], "planetscope")]
    [10.0, 31.57]
    """
    angles = [
        (image.sun_azimuth, image.sun_elevation)
        for image in images
        if image.sun_azimuth is not None and image.sun_elevation is not None
    ]
    if not angles:
        raise CubeError(
            f"Hillshade takes the sun from source {source!r}, but none of its {len(images)} images says where it stood. "
            "Leave sun_of out for the fixed sun of 225 and 25 degrees."
        )
    azimuth, elevation = np.radians(np.array(angles, float)).T
    # The mean of unit vectors, because the mean of 350 and 10 degrees is 0 and not 180.
    east, north, up = (
        float(part.mean())
        for part in (np.sin(azimuth) * np.cos(elevation), np.cos(azimuth) * np.cos(elevation), np.sin(elevation))
    )
    return float(np.degrees(np.arctan2(east, north)) % 360), float(np.degrees(np.arctan2(up, np.hypot(east, north))))
