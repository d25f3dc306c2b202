"""What is settled about a source before a pixel is read: dtype and packing, time steps, position of the sun."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rtsx.cube.encoding import packing_attrs, require_nodata
from rtsx.cube.images import BandSource, Image
from rtsx.cube.recipe import LayerRecipe, SourceRecipe
from rtsx.errors import CubeError


@dataclass(frozen=True)
class LayerEncoding:
    """How one variable of a cube is stored, whatever its images say one by one."""

    recipe: LayerRecipe
    """Where it comes from and how it is warped."""
    dtype: np.dtype[Any]
    """Dtype of the variable."""
    nodata: float | None
    """Stored value of a missing pixel; None where the dtype has no value to spare."""
    scale_factor: float
    """Physical units per stored unit."""
    add_offset: float
    """Physical value of stored 0."""

    @property
    def fill(self) -> float:
        """What a missing pixel holds: nodata, else NaN, else 0, which only `valid` tells from a value."""
        return self.nodata if self.nodata is not None else (math.nan if self.dtype.kind == "f" else 0)

    @property
    def attributes(self) -> dict[str, Any]:
        """CF attributes of the variable."""
        packs = (self.scale_factor, self.add_offset) != (1.0, 0.0)
        return packing_attrs(
            self.dtype,
            scale_factor=self.scale_factor if packs else None,
            add_offset=self.add_offset if packs else None,
            nodata=self.nodata if self.dtype.kind != "f" or self.nodata is not None else math.nan,
            units=self.recipe.units,
            long_name=self.recipe.long_name,
        )

    def repacked(self, pixels: NDArray[Any], valid: NDArray[np.bool_], bands: BandSource) -> NDArray[Any]:
        """Return stored pixels of one image in the packing of the variable; Sentinel-2's offset of 2022 is why they differ."""
        if (bands.scale_factor, bands.add_offset) == (self.scale_factor, self.add_offset):
            return pixels.astype(self.dtype, copy=False)
        stored = (pixels * (bands.scale_factor / self.scale_factor)) + (
            (bands.add_offset - self.add_offset) / self.scale_factor
        )
        if self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            stored = np.clip(np.floor(stored + 0.5), limits.min, limits.max)
            if self.nodata is not None:  # a value that lands on nodata is a value all the same
                stored[stored == self.nodata] += 1
        return np.where(valid, stored, self.fill).astype(self.dtype)


def plan_encodings(source: SourceRecipe, images: Sequence[Image]) -> tuple[LayerEncoding, ...]:
    """Return the dtype and packing of every layer of a source.

    The images of a layer share a dtype. Where their offsets differ, as Sentinel-2's do from 2022, the lowest is the
    variable's, because then no stored value of the others falls below zero.

    Raises
    ------
    CubeError
        A layer is more than one band, or its images have several dtypes, scales or nodata values.
    """
    layers = []
    for recipe in source.layers:
        bands = [(image.id, image.bands[recipe.name]) for image in images]
        _, one = bands[0]
        for name, each in bands:
            if len(each.bands) != 1:
                raise CubeError(
                    f"Source {source.name!r}: layer {recipe.name!r} is one band, but image {name!r} answers with the "
                    f"{len(each.bands)} bands {list(each.bands)} of {each.asset or each.href}. Say which one it is, such as "
                    f"{recipe.name}: 1."
                )
        # Offsets may differ: they are brought to one below. Those of elevation may not, as its pieces are read as one.
        alike = ("dtype", "scale_factor", "nodata", *(("add_offset",) if source.terrain else ()))
        for what in alike:
            values = {str(getattr(each, what)): name for name, each in bands}
            if len(values) > 1:
                raise CubeError(
                    f"Source {source.name!r}: all images have to store layer {recipe.name!r} in one {what}, but they have "
                    + ", ".join(f"{value} (as {name})" for value, name in values.items())
                    + f". Say {what} in the layer where the items are wrong, else make them sources of their own."
                )
        require_nodata(recipe.wanted.nodata, np.dtype(one.dtype), layer=recipe.name)
        dtype = np.dtype(one.dtype if recipe.dtype is None else recipe.dtype)
        nodata = one.nodata
        if dtype.kind == "f":
            nodata = float("nan") if recipe.dtype is not None else nodata
        elif nodata is not None and not np.iinfo(dtype).min <= nodata <= np.iinfo(dtype).max:
            nodata = None  # no stored pixel can have it
        offset = min(each.add_offset for _, each in bands)
        layers.append(
            LayerEncoding(recipe=recipe, dtype=dtype, nodata=nodata, scale_factor=one.scale_factor, add_offset=offset)
        )
    return tuple(layers)


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
    images, so that the strip is not cut at the antimeridian either.

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
    solar = (time.astimezone(UTC) + timedelta(minutes=4 * longitude)).date()
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
