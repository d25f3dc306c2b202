"""What tells that an input changed: one stamp per image, from what the item or the file says of itself. No pixel is read."""

from odc.geo.geobox import GeoBox

from rtsx.campaign.mark import InputStamp
from rtsx.cube import CubeRecipe
from rtsx.cube.image_stamp import image_stamp
from rtsx.cube.pinning import PinnedImages, pinned

__all__ = ["input_stamps", "stamps_of"]


def input_stamps(recipe: CubeRecipe, geobox: GeoBox) -> tuple[InputStamp, ...]:
    """Images that a recipe finds on a ground, as they are now.

    Parameters
    ----------
    recipe
        Its sources are asked.
    geobox
        Raster of the ground, such as `cell_geobox`.

    Returns
    -------
    tuple
        Sorted; equal to an earlier answer where no image came, went or changed. Of a file it counts what its item says
        (checksum or ETag); where it has neither, also when the item was updated, size and time of change of a local file, and
        the digest of the root metadata of a Zarr store. A file behind a URL of which nobody says anything counts as unchanged.

    Raises
    ------
    CubeError
        A source cannot be asked.
    """
    return stamps_of(pinned(recipe, geobox, ids=None))


def stamps_of(recipe: CubeRecipe) -> tuple[InputStamp, ...]:
    """Stamps of the images of a pinned recipe, sorted."""
    return tuple(
        sorted(
            InputStamp(source=source.name, image=image.id, stamp=image_stamp(image))
            for source in recipe.sources
            if isinstance(source.images, PinnedImages)
            for image in source.images.images
        )
    )
