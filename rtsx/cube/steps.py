"""Which images make one time step of a cube, and in which order they are looked at."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from rtsx.cube.image import Image
from rtsx.errors import CubeError

__all__ = ["Step", "time_steps"]


@dataclass(frozen=True)
class Step:
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


def time_steps(
    images: Sequence[Image],
    *,
    group: Literal["all", "item", "day", "year"],
    order: Literal["cloud", "newest"],
    longitude: float,
    source: str,
) -> tuple[Step, ...]:
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
        ``"cloud"``: least cloudy first, then newest; ``"newest"``: newest first. The id decides between equals, so that
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
        return (Step(_ordered(images, order), None),) if images else ()
    groups: dict[tuple[datetime, str], list[Image]] = {}
    for image in images:
        if image.time is None:
            raise CubeError(
                f"Source {source!r} is grouped by {group}, but image {image.id!r} has no time. "
                "Give its item a datetime, or use group='all'."
            )
        groups.setdefault(_label(image, image.time, group=group, longitude=longitude), []).append(image)
    labels = sorted(groups)
    return tuple(Step(_ordered(groups[label], order), label[0]) for label in labels)


def _label(image: Image, time: datetime, *, group: str, longitude: float) -> tuple[datetime, str]:
    """Time of the step, and what else tells it from others of that time."""
    if group == "item":
        return time.astimezone(UTC), image.id
    solar = (time.astimezone(UTC) + timedelta(minutes=4 * longitude)).date()
    return datetime(solar.year, *((solar.month, solar.day) if group == "day" else (1, 1)), tzinfo=UTC), ""


def _ordered(images: Iterable[Image], order: str) -> tuple[Image, ...]:
    def rank(image: Image) -> tuple[float, float, str]:
        newest = -image.time.timestamp() if image.time is not None else 0.0
        cloud = image.cloud_cover if image.cloud_cover is not None else 100.0
        return (cloud if order == "cloud" else 0.0, newest, image.id)

    return tuple(sorted(images, key=rank))
