"""One inventory in the one schema, step by step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.errors import LabelError
from rtsx.labels.axes import axis_order
from rtsx.labels.dates import Days
from rtsx.labels.geocentric import Hemisphere, from_geocentric
from rtsx.labels.geographic import on_earth, to_geographic
from rtsx.labels.pyproj import areas_m2
from rtsx.labels.reading import LabelInput, read_table
from rtsx.labels.report import Finding
from rtsx.labels.schema import LABEL_COLUMNS, conform
from rtsx.labels.shapely import only_polygons, repaired
from rtsx.labels.source import LabelSource

__all__ = ["DEFAULT_CLASS", "Facts", "Standardised", "standardise"]

DEFAULT_CLASS = "rts"
"""Class of labels whose source does not say what they are: retrogressive thaw slumps."""

_LONLAT = CRS.from_epsg(4326)


@dataclass(frozen=True, kw_only=True, eq=False)
class Facts:
    """What the caller says of all sources."""

    columns: Mapping[str, str | None]
    """Ours to theirs, where names are not enough."""
    class_name: str | Mapping[Any, str] | None
    """Class of the target, or a class for each value."""
    fill: Mapping[str, str]
    """By our columns: what holds for rows that say nothing."""
    days: tuple[np.datetime64, np.datetime64] | None
    """First and last day of the imagery of rows that say nothing."""
    crs: str | None
    """CRS of sources that say none."""
    hemisphere: Hemisphere | None
    """Where geocentric outlines without Z lie."""
    layer: str | None
    """Layer of files that have several."""
    today: date
    """No image is younger."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Standardised:
    """One source in the schema."""

    source: LabelSource
    """As it came."""
    labels: geopandas.GeoDataFrame
    """In EPSG:4326; a source that is in the schema already keeps its ids and where they are from."""
    rows: NDArray[np.int64]
    """Number of the row in the source that each label is, `(label,)`."""
    findings: list[Finding]
    """By row."""
    notes: list[str]
    """Doubts about the source."""


def standardise(given: LabelInput, facts: Facts, *, number: int, is_alone: bool) -> Standardised:
    """Bring one source into the schema.

    Parameters
    ----------
    given : str, pathlib.Path or geopandas.GeoDataFrame
        The source.
    facts : Facts
        What holds for it.
    number : int
        Tells tables in memory, which have no name, apart.
    is_alone : bool
        Whether there is no other source, which could have the columns that this one lacks.

    Raises
    ------
    LabelError
        It cannot be read, or no row of it could be a label.
    """
    name = f"table {number}" if isinstance(given, geopandas.GeoDataFrame) else Path(given).name
    table = given if isinstance(given, geopandas.GeoDataFrame) else read_table(given, layer=facts.layer)
    wanted = {ours: one for ours, one in facts.columns.items() if is_alone or one is None or one in table.columns}
    source = LabelSource.of(name, table, columns=wanted, crs=facts.crs)
    outlines, findings, notes = _outlines(source, facts)
    days = source.days(today=facts.today)
    kept = np.flatnonzero(shapely.is_geometry(outlines)).tolist()
    columns: dict[str, object] = {
        name: [values[row] for row in kept] for name, values in _attributes(source, days, facts).items()
    }
    columns["area_m2"] = areas_m2(outlines[kept])
    columns["centroid_lon"], columns["centroid_lat"] = shapely.get_coordinates(shapely.centroid(outlines[kept])).T
    columns |= {
        "label_id": [f"{Path(name).stem}/{row}" for row in kept],
        "source_file": [name] * len(kept),
        "source_row": kept,
    }
    if set(LABEL_COLUMNS) <= set(source.table.columns):
        columns |= {ours: source.table[ours].to_numpy()[kept] for ours in ("label_id", "source_file", "source_row")}
    labels = conform(columns, geopandas.GeoSeries(outlines[kept], crs=_LONLAT))
    findings += [one for one in days.findings if outlines[one.row] is not None]
    ids = source.texts("source_id")
    named = [replace(one, source=name, source_id=ids[one.row]) for one in sorted(findings, key=lambda one: one.row)]
    return Standardised(source=source, labels=labels, rows=np.array(kept, np.int64), findings=named, notes=notes)


def _outlines(source: LabelSource, facts: Facts) -> tuple[NDArray[np.object_], list[Finding], list[str]]:
    """Outlines in EPSG:4326, `(row,)`, None where there is none; and what was found on the way."""
    outlines, findings = only_polygons(np.array(source.table.geometry.array, np.object_))
    if len(outlines) and not shapely.is_geometry(outlines).any():
        raise LabelError(
            f"None of the {len(outlines)} rows of {source.name} can be a label; the first {findings[0].detail}. Labels are "
            "polygons: give the file that has them."
        )
    crs = source.crs
    if crs.is_geocentric:
        outlines, more = from_geocentric(outlines, crs, hemisphere=facts.hemisphere)
        findings, crs = [*findings, *more], _LONLAT
    order = axis_order(shapely.force_2d(outlines), crs, told=source.told_centroids())
    outlines, placed = on_earth(order.outlines, crs)
    if len(outlines) and not shapely.is_geometry(outlines).any():
        raise LabelError(f"No row of {source.name} has a place on Earth; the first: {[*findings, *placed][0].detail}")
    outlines, mended = repaired(outlines, crs)
    outlines, moved = to_geographic(outlines, crs)
    outlines, mended_again = repaired(outlines, _LONLAT)
    notes = [] if order.doubt is None else [f"{source.name}: {order.doubt}"]
    return outlines, [*findings, *order.findings, *placed, *mended, *moved, *mended_again], notes


def _attributes(source: LabelSource, days: Days, facts: Facts) -> dict[str, Sequence[Any]]:
    """Columns of the schema that do not depend on outlines, `(row,)` each."""
    columns: dict[str, Sequence[Any]] = {
        name: [facts.fill.get(name) if value is None else value for value in source.texts(name)]
        for name in ("region", "site", "image_ids", "image_source", "creator", "source_id")
    }
    first, last = days.first.copy(), days.last.copy()
    if facts.days is not None:
        silent = np.isnat(first)
        silent[[one.row for one in days.findings]] = False  # their date was wrong, not missing
        first[silent], last[silent] = facts.days
    numbers = {"image_resolution_m": source.numbers("image_resolution_m"), "image_date": first, "image_date_end": last}
    return columns | {
        **{name: list(values) for name, values in numbers.items()},
        "class_name": source.classes(facts.class_name, default=DEFAULT_CLASS),
    }
