"""One inventory as it came, and what its rows say besides their outline."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import geopandas
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.errors import LabelError
from rtsx.labels.columns import CENTROID_COLUMNS, find_column, match_columns
from rtsx.labels.dates import Days, read_days
from rtsx.labels.pyproj import crs_text
from rtsx.labels.schema import LABEL_COLUMNS

__all__ = ["NEGATIVE", "LabelSource"]

NEGATIVE = "negative"
"""Class of outlines of what the target is not, as ARTS has them."""

_PRESENT = ("", "1", "true", "yes", "positive")
_ABSENT = ("0", "false", "no", "negative")


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelSource:
    """A table with columns of any name, its CRS, and what holds for all of its rows."""

    name: str
    """File name, or what a table in memory is called."""
    table: geopandas.GeoDataFrame
    """Rows numbered from 0."""
    crs: CRS
    """Horizontal part of its CRS."""
    columns: Mapping[str, str]
    """Which of its columns is which of ours (ours: theirs)."""

    @classmethod
    def of(
        cls, name: str, table: geopandas.GeoDataFrame, *, columns: Mapping[str, str | None], crs: str | None
    ) -> "LabelSource":
        """Look at a table.

        Raises
        ------
        LabelError
            It has no geometry, no CRS or one that is no place on Earth, or `columns` names what is not there.
        """
        try:
            geometry = table.geometry
        except AttributeError as error:
            raise LabelError(f"{name} has no geometry column. Set it with set_geometry(...).") from error
        names = [str(column) for column in table.columns if column != geometry.name]
        plain = table.rename(columns=str).reset_index(drop=True)
        return cls(name=name, table=plain, crs=_crs(name, table, crs), columns=match_columns(names, columns))

    @property
    def unused(self) -> tuple[str, ...]:
        """Columns that have no place in the schema."""
        used = {*self.columns.values(), self.table.geometry.name, *self._centroids, *LABEL_COLUMNS}
        return tuple(name for name in self.table.columns if name not in used)

    def texts(self, ours: str) -> list[str | None]:
        """One of our columns as strings; None where a row says nothing."""
        theirs = self.columns.get(ours)
        return [None] * len(self.table) if theirs is None else [_text(value) for value in self.table[theirs]]

    def numbers(self, ours: str) -> NDArray[np.float64]:
        """One of our columns as numbers; NaN where a row says nothing or no number."""
        return self._floats(self.columns.get(ours))

    def told_centroids(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Latitudes and longitudes that rows say they lie at; NaN where they do not."""
        lat, lon = (
            find_column(map(str, self.table.columns), (one, f"{one[:8]}_{one[8:]}")) for one in CENTROID_COLUMNS
        )
        return self._floats(lat), self._floats(lon)

    def days(self, *, today: date) -> Days:
        """Days of the imagery."""
        theirs, ends = self.columns.get("image_date"), self.columns.get("image_date_end")
        values = [None] * len(self.table) if theirs is None else list(self.table[theirs])
        return read_days(values, None if ends is None else list(self.table[ends]), today=today)

    def classes(self, class_name: str | Mapping[Any, str] | None, *, default: str) -> list[str]:
        """Class of each row.

        Raises
        ------
        LabelError
            `class_name` is a mapping that lacks a value of the column.
        """
        found = self.texts("class_name")
        if isinstance(class_name, Mapping):
            named = {_text(value) or "": name for value, name in class_name.items()}
            unknown = sorted({text or "" for text in found} - set(named))
            if unknown:
                raise LabelError(
                    f"{self.name} has the class {unknown[0]!r}, which class_name does not name; it names "
                    f"{', '.join(map(repr, named))}. Add it."
                )
            return [named[text or ""] for text in found]
        target = default if class_name is None else class_name
        plain = [(text or "").strip().lower() for text in found]
        return [
            target if one in _PRESENT else NEGATIVE if one in _ABSENT else str(text)
            for one, text in zip(plain, found, strict=True)
        ]

    @property
    def _centroids(self) -> set[str | None]:
        return {find_column(map(str, self.table.columns), (one,)) for one in CENTROID_COLUMNS}

    def _floats(self, theirs: str | None) -> NDArray[np.float64]:
        if theirs is None:
            return np.full(len(self.table), np.nan)
        return np.asarray(pd.to_numeric(self.table[theirs], errors="coerce"), np.float64)


def _crs(name: str, table: geopandas.GeoDataFrame, given: str | None) -> CRS:
    if table.crs is None and given is None:
        west, south, east, north = table.total_bounds if len(table) else (np.nan,) * 4
        is_degrees = max(abs(west), abs(east)) <= 360 and max(abs(south), abs(north)) <= 360
        hint = " They look like degrees: perhaps EPSG:4326." if is_degrees else ""
        raise LabelError(
            f"{name} does not say in which CRS its coordinates are (x from {west:.6g} to {east:.6g}, y from {south:.6g} to "
            f"{north:.6g}).{hint} Ask who made it, then say crs='EPSG:...' (--crs)."
        )
    if table.crs is not None and given is not None and not CRS.from_user_input(given).equals(CRS(table.crs)):
        raise LabelError(
            f"{name} says that it is in {crs_text(CRS(table.crs))}, and crs= says {given}. crs= is for sources that do not "
            "say. If the source is wrong, read it with geopandas and correct it: table.set_crs(..., allow_override=True)."
        )
    try:
        crs = CRS.from_user_input(table.crs if given is None else given)
    except Exception as error:  # pyproj has several, of no common kind
        raise LabelError(f"crs={given!r} is no CRS that pyproj knows ({error}). Write it like 'EPSG:32608'.") from error
    while crs.is_bound or crs.is_compound:
        inner = crs.source_crs if crs.is_bound else crs.sub_crs_list[0]
        assert inner is not None  # a bound CRS is one that is bound
        crs = inner
    if not (crs.is_geographic or crs.is_projected or crs.is_geocentric):
        raise LabelError(
            f"{name} lies in {crs_text(crs)}, a {crs.type_name}, which has no longitude and latitude. Ask who made it for a "
            "file with a CRS."
        )
    return crs


def _text(value: object) -> str | None:
    """A value as text; None where it says nothing, whole numbers without a point."""
    if value is None or value is pd.NaT or (isinstance(value, float) and np.isnan(value)) or value is pd.NA:
        return None
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value).strip() or None
