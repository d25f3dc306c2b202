"""Tables of outlines on a map: what of them is seen, what a filter keeps, and the colours of a column."""

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from rtsx.errors import FootprintError
from rtsx.viewer.pyramid import Box
from rtsx.viewer.render import colours_of, limits_of

__all__ = ["ColumnColours", "OutlineLayer"]

MOST_SEEN = 4000
"""Outlines that are drawn at once, the largest; every browser still moves so many."""
_COMPARISONS = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
_CONDITION = re.compile(r"\s*(?P<column>.+?)\s*(?P<sign><=|>=|!=|<|>|=|~)\s*(?P<value>.*?)\s*")
_MOST_CLASSES = 20
"""Values of a column of text that get a colour each."""
_OTHERS = "#999999"
_PREFERRED = ("prob_mean", "prob_max", "state", "fate", "class_name")
"""Columns to colour by, the first that is there."""


@dataclass(frozen=True)
class ColumnColours:
    """Colours of a column, one for each row, and what they say."""

    colours: NDArray[np.str_]
    """``#rrggbb`` of each row."""
    limits: tuple[float, float] | None
    """Values of the first and the last colour; None where each value has a colour of its own."""
    classes: Mapping[str, str]
    """Colour of each value, where there are limits none."""


@dataclass(frozen=True, eq=False, kw_only=True)
class OutlineLayer:
    """A table of outlines in the CRS of the map."""

    title: str
    """What its rows are, such as `footprints`."""
    table: geopandas.GeoDataFrame
    """Numbered from 0, in the CRS of the map, without empty geometries."""
    colour: str | None = None
    """One colour for all, such as of the truth; None for those of a column."""
    colours: Mapping[str, str] | None = None
    """Colours of known values of a column of text."""
    _coloured: dict[str | None, ColumnColours] = field(default_factory=dict, init=False, repr=False)
    """What `colours_by` has found, because every pan asks again."""

    @classmethod
    def of(
        cls,
        table: geopandas.GeoDataFrame,
        *,
        title: str,
        crs: str,
        colour: str | None = None,
        colours: Mapping[str, str] | None = None,
    ) -> "OutlineLayer":
        """Bring a table of any CRS onto the map.

        Raises
        ------
        FootprintError
            It is none, or does not say its CRS.
        """
        if not isinstance(table, geopandas.GeoDataFrame):
            raise FootprintError(f"{title} are a GeoDataFrame or the path of one; got {type(table).__name__}.")
        if table.crs is None:
            raise FootprintError(f"The {title} do not say their CRS. Write it with table.set_crs('EPSG:...').")
        known = table[~(table.geometry.is_empty | table.geometry.isna())].to_crs(crs)
        finite = np.isfinite(known.geometry.bounds.to_numpy()).all(axis=1)
        return cls(title=title, table=known[finite].reset_index(drop=True), colour=colour, colours=colours)

    @property
    def columns(self) -> list[str]:
        """Names of the columns beside the geometry, those that hold single values."""
        return [str(name) for name in self.table.columns if name != self.table.geometry.name]

    @cached_property
    def told(self) -> dict[str, int]:
        """Columns that say something of any row, and how wide a table shows them, px."""
        filled = [name for name in self.columns if self.table[name].notna().any()]
        texts = {name: self.table[name].astype(str).str.len().max() for name in filled if name not in self.formats}
        return {name: 24 + 7 * min(max(len(name), texts.get(name, 8)), 24) for name in filled}

    @cached_property
    def formats(self) -> dict[str, str]:
        """Numerals of columns of fractions, as a browser has them: four decimals, none from 1000 on."""
        numbers = self.table[self.columns].select_dtypes("float")
        largest = numbers.abs().max()
        return {str(name): "0" if largest[name] >= 1000 else "0.0000" for name in numbers}

    @property
    def box(self) -> Box | None:
        """Edges of all of them; None where there is none."""
        if self.table.empty:
            return None
        left, bottom, right, top = (float(edge) for edge in self.table.total_bounds)
        return left, bottom, right, top

    @cached_property
    def best_column(self) -> str | None:
        """Column to colour by at first."""
        return next((name for name in _PREFERRED if name in self.columns), None)

    def seen(self, box: Box, kept: NDArray[np.bool_], *, most: int) -> NDArray[np.intp]:
        """Numbers of the rows that meet a box; the largest `most` of them, in the order of the table."""
        found = np.sort(self.table.sindex.query(shapely.box(*box)))
        found = found[kept[found]]
        if len(found) > most:
            areas = shapely.area(self.table.geometry.to_numpy()[found])
            found = np.sort(found[np.argsort(-areas, kind="stable")[:most]])
        return found

    def kept(self, conditions: str) -> NDArray[np.bool_]:
        """Rows that conditions keep, such as ``max_probability >= 0.65, area_m2 > 500, region ~ yukon``.

        Signs are ``< <= > >= = !=`` and ``~`` for "contains"; a comma is "and".

        Raises
        ------
        FootprintError
            A condition cannot be read, names no column, or compares text by size.
        """
        kept = np.ones(len(self.table), bool)
        for condition in filter(str.strip, conditions.split(",")):
            found = _CONDITION.fullmatch(condition)
            if found is None or found["column"] not in self.columns:
                raise FootprintError(
                    f"{condition.strip()!r} is no condition. Write a column, one of < <= > >= = != ~ and a value, such as "
                    f"'area_m2 > 500'; columns are {', '.join(self.columns)}."
                )
            values, sign, wanted = self.table[found["column"]], found["sign"], found["value"]
            if sign == "~":
                kept &= values.astype(str).str.contains(wanted, case=False, regex=False).to_numpy(bool)
            elif is_numeric_dtype(values) and not is_bool_dtype(values):
                try:
                    kept &= np.asarray(_COMPARISONS[sign](values.to_numpy(float, na_value=np.nan), float(wanted)), bool)
                except ValueError as error:
                    raise FootprintError(f"{found['column']} holds numbers; {wanted!r} is none.") from error
            else:
                # Dates as ISO 8601, which are in order as text.
                kept &= np.asarray(_COMPARISONS[sign](values.astype(str).to_numpy(), wanted), bool)
        return kept

    def colours_by(self, column: str | None) -> ColumnColours:
        """Colour every row by a column: numbers by size, text by value."""
        if column not in self._coloured:
            self._coloured[column] = self._colours_by(column)
        return self._coloured[column]

    def _colours_by(self, column: str | None) -> ColumnColours:
        count = len(self.table)
        if self.colour is not None or column not in self.columns:
            return ColumnColours(np.full(count, self.colour or "#ff8c00"), None, {})
        values = self.table[column]
        if is_numeric_dtype(values) and not is_bool_dtype(values):
            numbers = values.to_numpy(float, na_value=np.nan)
            low, high = limits_of(numbers)
            shares = np.nan_to_num(np.clip((numbers - low) / (high - low), 0, 1), nan=0.0)
            rgba = colours_of("plasma")(shares, bytes=True)
            hexed = np.array([f"#{r:02x}{g:02x}{b:02x}" for r, g, b, _ in rgba], dtype="<U7")
            return ColumnColours(np.where(np.isfinite(numbers), hexed, _OTHERS), (low, high), {})
        texts = values.astype(str)
        palette = colours_of("tab20")
        classes = {}
        for number, text in enumerate(texts.value_counts().index[:_MOST_CLASSES]):
            r, g, b, _ = palette(number, bytes=True)
            classes[str(text)] = (self.colours or {}).get(str(text), f"#{r:02x}{g:02x}{b:02x}")
        return ColumnColours(
            texts.map(classes).fillna(_OTHERS).to_numpy("<U7") if count else np.empty(0, "<U7"), None, classes
        )

    def cells(self, rows: Sequence[int] | NDArray[np.intp]) -> dict[str, list[Any]]:
        """Values of rows by column, as a browser can show them: numbers, and text for the rest."""
        part = self.table.iloc[rows]
        return {name: _plain(part[name]) for name in self.columns}


def _plain(values: pd.Series) -> list[Any]:
    if is_bool_dtype(values) or not is_numeric_dtype(values):
        return [None if value is None or value is pd.NaT else str(value) for value in values]
    return [None if pd.isna(value) else value for value in values.tolist()]
