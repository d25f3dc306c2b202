"""What is refused before the first cell: sources without images, and disks and workers without room."""

import os
import shutil

from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.recipe import CampaignRecipe
from rtsx.campaign.sampling import opened_sample
from rtsx.errors import CampaignError, OutputNotWritableError
from rtsx.inference.planning import packings_of
from rtsx.storage import is_url, local_path

__all__ = ["require_fixed_sun", "require_sources", "require_space", "require_untimed"]

_GB = 1e9


def require_untimed(recipe: CampaignRecipe) -> None:
    """Refuse sources with time steps: a campaign maps one year.

    Raises
    ------
    CampaignError
        A source groups its images by time.
    """
    timed = [source.name for source in recipe.cube.sources if source.group != "all"]
    if timed:
        raise CampaignError(
            f"A campaign maps one year, and sources {timed} have time steps of their own. Take group='all' and a period "
            "within the year."
        )


def require_fixed_sun(recipe: CampaignRecipe) -> None:
    """Refuse a hillshade whose sun is that of the images near each cell: it would change from cell to cell.

    Raises
    ------
    CampaignError
        A source says `sun_of`.
    """
    moving = [source.name for source in recipe.cube.sources if source.sun_of is not None]
    if moving:
        raise CampaignError(
            f"Sources {moving} take the sun of hillshade from the images near each cell (sun_of), so that the map would have "
            "seams where cells meet. Leave sun_of out, for the fixed sun that is the same everywhere."
        )


def require_sources(recipe: CampaignRecipe, plan: CampaignPlan) -> None:
    """Refuse sources that have nothing to offer; asks for the metadata of single cells, spread over all of them.

    Parameters
    ----------
    recipe
        Whose sources are asked.
    plan
        Whose cells are looked at.

    Raises
    ------
    CampaignError
        No cell that was looked at has images of every required source, a source has time steps, or a sun that moves.
    CubeError
        A source cannot be asked.
    BundleError
        A layer is missing, or lacks the scale that a bundle relies on.
    """
    require_untimed(recipe)
    require_fixed_sun(recipe)
    packings_of(recipe.bundles, opened_sample(recipe.cube, plan.cells), layers=plan.prediction.layers)


def require_space(output: str, n_bytes: int) -> None:
    """Refuse a disk that has no room; of an object store nobody knows.

    Parameters
    ----------
    output
        Folder, which need not be there yet, or URL.
    n_bytes
        Bytes that are needed in any case.

    Raises
    ------
    OutputNotWritableError
        The disk has less, or the folder cannot be written.
    """
    if is_url(output):
        return
    folder = local_path(output)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise OutputNotWritableError(
            f"{output} cannot be written: {there} is no folder that you may write to. Choose another output."
        )
    free = shutil.disk_usage(there).free
    if free < n_bytes:
        raise OutputNotWritableError(
            f"{output} needs {n_bytes / _GB:,.1f} GB, and its disk has {free / _GB:,.1f} GB left. Free space, or choose "
            "another output."
        )
