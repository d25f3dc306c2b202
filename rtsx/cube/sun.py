"""Where the sun stood over the images of a source."""

from collections.abc import Sequence

import numpy as np

from rtsx.cube.image import Image
from rtsx.errors import CubeError

__all__ = ["mean_sun"]


def mean_sun(images: Sequence[Image], source: str) -> tuple[float, float]:
    """Azimuth (clockwise from true north) and elevation of the mean direction towards the sun, degrees.

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
