"""A recipe whose images are settled: what a build and its resumption, and every part of it, have in common."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from rtsx.cube.image import Image, Wanted
from rtsx.cube.image_stamp import image_stamp, remote_state
from rtsx.cube.recipe import CubeRecipe
from rtsx.cube.region import search_area
from rtsx.cube.source import ImageSource, Period
from rtsx.errors import CubeError

__all__ = ["PinnedImages", "image_ids", "image_stamps", "pinned", "require_unchanged"]

_THREADS = 16
"""Servers that are asked at a time."""

Stamps = Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class PinnedImages:
    """Images that all count, wherever one looks.

    A part of a cube sees the images of the whole, because dtype, packing, time steps and the sun follow from all of them;
    which of them meet the part is found out when it is planned.
    """

    images: tuple[Image, ...]
    """All of them, in order."""

    def find(self, area: BaseGeometry, period: Period | None, wanted: Sequence[Wanted]) -> tuple[Image, ...]:
        """All images; see `ImageSource`."""
        return self.images


_conforms: type[ImageSource] = PinnedImages


def pinned(recipe: CubeRecipe, geobox: GeoBox, *, ids: Mapping[str, Sequence[str]] | None) -> CubeRecipe:
    """The recipe with the images that its sources find now, or found when a build began.

    Parameters
    ----------
    recipe
        Its sources are asked, once.
    geobox
        Raster of the cube.
    ids
        Ids of the images by source, as `image_ids` gave them when the build began; what catalogs have received since is
        left out. None takes all that is found.

    Raises
    ------
    CubeError
        An image of `ids` is not found any more.
    """
    sources = []
    for source in recipe.sources:
        area = search_area(geobox, margin_m=source.reach_m)
        images = source.images.find(area, source.period, source.wanted)
        if ids is not None:
            known = ids[source.name]
            missing = sorted(set(known) - {image.id for image in images})
            if missing:
                raise CubeError(
                    f"Source {source.name!r} had {len(known)} images when this build began; {missing[:5]} are not found "
                    "any more. Bring them back, or start again with overwrite."
                )
            images = tuple(image for image in images if image.id in set(known))
        sources.append(replace(source, images=PinnedImages(images)))
    return replace(recipe, sources=tuple(sources))


def image_ids(recipe: CubeRecipe) -> dict[str, list[str]]:
    """Ids of the images of a pinned recipe, by source."""
    return {
        source.name: [image.id for image in source.images.images]
        for source in recipe.sources
        if isinstance(source.images, PinnedImages)
    }


def image_stamps(recipe: CubeRecipe) -> dict[str, dict[str, list[str]]]:
    """Stamp and remote state of the images of a pinned recipe, by source and id."""
    with ThreadPoolExecutor(_THREADS, "rtsx-stamp") as threads:
        return {
            source.name: {
                image.id: list(pair)
                for image, pair in zip(
                    source.images.images,
                    threads.map(lambda one: (image_stamp(one), remote_state(one)), source.images.images),
                    strict=True,
                )
            }
            for source in recipe.sources
            if isinstance(source.images, PinnedImages)
        }


def require_unchanged(recipe: CubeRecipe, begun: Stamps, *, target: str) -> None:
    """Refuse to build one store from two states of its images.

    Parameters
    ----------
    recipe
        Pinned.
    begun
        `image_stamps` when the build began; what it does not know passes.
    target
        The store, for the message.

    Raises
    ------
    CubeError
        An image was rewritten since.
    """
    changed = [
        f"{source}/{name}"
        for source, images in image_stamps(recipe).items()
        for name, (stamp, state) in images.items()
        if (then := begun.get(source, {}).get(name)) is not None
        and (then[0] != stamp or (then[1] and state and then[1] != state))
    ]
    if changed:
        raise CubeError(
            f"{len(changed)} images have changed since the build of {target} began, such as {changed[:3]}; its parts would be "
            "of two states. Bring the images back as they were, or start again with overwrite."
        )
