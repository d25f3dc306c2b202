"""A look at single cells before all of them are run: what their layers are called and how they are stored."""

from collections.abc import Iterator

import xarray as xr

from rtsx.campaign.cell_table import Address, CellTable
from rtsx.cube import CubeRecipe, open_cube
from rtsx.errors import CampaignError, NoImageError

__all__ = ["opened_sample", "sampled"]

MOST = 64
"""Cells that are looked at before a region counts as one without images."""


def sampled(cells: CellTable, *, most: int = MOST) -> Iterator[Address]:
    """Some cells, spread over all of them, each once; far ones first, because neighbours tell the same.

    Examples
    --------
    >>> import numpy as np
    >>> list(sampled(CellTable(np.array([[0, 0], [0, 1], [0, 2], [0, 3]], np.int32)), most=3))
    [(0, 2), (0, 1), (0, 3)]
    """
    count = len(cells)
    seen: set[int] = set()
    parts = 2
    while len(seen) < min(most, count):
        for number in range(1, parts, 2):
            place = count * number // parts
            if place not in seen and len(seen) < most:
                seen.add(place)
                iy, ix = cells.addresses[place].tolist()
                yield iy, ix
        parts *= 2


def opened_sample(recipe: CubeRecipe, cells: CellTable, *, most: int = MOST) -> xr.Dataset:
    """Lazy cube of the first of some sampled cells whose sources all have images; reads no pixel.

    Parameters
    ----------
    recipe
        Layers, and the grid of the cells.
    cells
        Cells of the campaign.
    most
        Cells that are tried.

    Raises
    ------
    CampaignError
        A required source has no image of any of them.
    CubeError
        A source cannot be asked, or its images do not fit together.
    """
    missing: NoImageError | None = None
    for iy, ix in sampled(cells, most=most):
        try:
            return open_cube(recipe, recipe.grid[iy, ix])
        except NoImageError as error:
            missing = error
    tried = min(most, len(cells))
    raise CampaignError(
        f"None of {tried} of the campaign's {len(cells)} cells, spread over all of them, has images of every required "
        f"source. The last answer was: {missing} Look at the year and the dates, or narrow the region to the ground of the images."
    ) from missing
