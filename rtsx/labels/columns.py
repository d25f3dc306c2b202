"""Names of the columns of the field's inventories, and which of ours they are."""

import re
from collections.abc import Iterable, Mapping

from rtsx.errors import LabelError
from rtsx.labels.schema import LABEL_COLUMNS, nearest

__all__ = ["CENTROID_COLUMNS", "match_columns"]

_KNOWN = {
    "class_name": ("classname", "class", "trainclass", "label"),
    "region": ("region", "regionname"),
    "site": ("site", "sitename", "studysite"),
    "image_date": ("imagedate", "basemapdate", "acquisitiondate", "acquired", "acqdate", "date"),
    "image_date_end": ("imagedateend",),
    "image_ids": ("imageids", "imageid", "basemapid", "sceneids", "sceneid", "itemids", "itemid"),
    "image_source": ("imagesource", "basemapsource", "sensor", "satellite"),
    "image_resolution_m": ("imageresolutionm", "basemapresolution", "resolution"),
    "creator": ("creator", "creatorlab", "createdby", "digitizer", "digitiser", "annotator"),
    "source_id": ("sourceid", "uid", "slumpid", "rtsid", "labelid", "id", "fid", "objectid"),
}
"""Ours, and what others call it, without case and punctuation, the better one first: ARTS (`RegionName`, `CreatorLab`,
`BaseMapDate`, `BaseMapID`, `TrainClass`, `UID`, ...), Nitze et al. (`image_id`, `image_date`, `region`, `site`, `label`, `id`),
Huang et al. (`Slump_ID`, `Created_by`), Runge et al. (`label`, `id`)."""

_EXACT = frozenset(other for others in _KNOWN.values() for other in others)

CENTROID_COLUMNS = ("centroidlat", "centroidlon")
"""Latitude and longitude that a row says it lies at; nothing of ours, but they tell the order of axes."""

_DBASE = 10
"""Length that names of columns are cut to in shapefiles."""


def match_columns(names: Iterable[str], columns: Mapping[str, str | None]) -> dict[str, str]:
    """Tell which column of an inventory is which of ours.

    Parameters
    ----------
    names : iterable of str
        Its columns.
    columns : mapping
        Ours to theirs, where the choice is not left to the names; None leaves ours empty.

    Returns
    -------
    dict
        Ours to theirs; those that nothing fits are left out.

    Raises
    ------
    LabelError
        `columns` names one of ours or theirs that does not exist.

    Examples
    --------
    >>> match_columns(["Slump_ID", "BaseMapDat", "Notes"], {"region": None})
    {'image_date': 'BaseMapDat', 'source_id': 'Slump_ID'}
    """
    theirs = list(names)
    for ours, given in columns.items():
        if ours not in _KNOWN:
            raise LabelError(
                f"columns= says what the source calls one of {', '.join(_KNOWN)}; {ours!r} is none of them."
                + nearest(ours, list(_KNOWN))
            )
        if given is not None and given not in theirs:
            raise LabelError(
                f"columns= takes {ours} from the column {given!r}, which is not there; there are "
                f"{', '.join(theirs) or 'none'}." + nearest(given, theirs)
            )
    found: dict[str, str] = {}
    for ours, others in _KNOWN.items():
        if ours in columns:
            if (given := columns[ours]) is not None:
                found[ours] = given
        elif (fitting := find_column(theirs, others)) is not None and fitting not in columns.values():
            found[ours] = fitting
    assert set(found) <= set(LABEL_COLUMNS)
    return found


def find_column(names: Iterable[str], known: Iterable[str]) -> str | None:
    """The column that has the first of some names, in any spelling and perhaps cut short by a shapefile."""
    plain = {name: re.sub(r"[^a-z0-9]", "", name.lower()) for name in reversed(list(names))}
    for other in known:
        for name, spelled in plain.items():
            is_cut = len(name) == _DBASE and other.startswith(spelled) and spelled not in _EXACT
            if spelled == other or is_cut:
                return name
    return None
