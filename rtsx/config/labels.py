"""What is known to be on a scene: outlines of any vector file, or a raster of codes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from typing import Annotated, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox
from pydantic import BeforeValidator, Field, model_validator

from rtsx.config.strict import FilePath, Strict
from rtsx.cube import geobox_of, layer_names
from rtsx.cube.georeference import describe_geobox
from rtsx.cube.opening import open_cube
from rtsx.errors import ConfigError
from rtsx.labels import Truth, label_truth, raster_truth, read_labels
from rtsx.labels.reading import read_table
from rtsx.labels.schema import LABEL_COLUMNS
from rtsx.labels.source import NEGATIVE

__all__ = ["ClassValues", "LabelReader", "Labels", "LabelsConfig", "Values"]


_UNSAID = "unsaid"
"""Class of labels that say none, where there are several."""
_ABSENT = ("0", "false", "False", "no", "No", "negative", "Negative")
"""Classes of outlines of what the target is not, unless a config names them."""


def _several(given: object) -> object:
    if isinstance(given, list | tuple):
        return [one.isoformat() if isinstance(one, date) else one for one in given]
    return given if given is None else _several([given])


Value = str | int
Values = Annotated[tuple[Value, ...], BeforeValidator(_several, json_schema_input_type=list[Value] | Value)]
"""One value or several."""
Paths = Annotated[tuple[FilePath, ...], BeforeValidator(_several, json_schema_input_type=list[str] | str)]
"""One path or several."""


def _by_class(given: object) -> object:
    if isinstance(given, str):
        return {given: given}
    if isinstance(given, list | tuple) and all(isinstance(name, str) for name in given):
        return {name: name for name in given}
    if isinstance(given, Mapping):
        return {name: (name,) if meant is None else meant for name, meant in given.items()}
    return given


ClassValues = Annotated[
    dict[str, Values],
    BeforeValidator(_by_class, json_schema_input_type=dict[str, list[Value] | Value | None] | list[str] | str),
]
"""Classes, or what labels call them by class."""


class LabelsConfig(Strict):
    """Outlines from vector files, or a raster."""

    files: Paths = ()
    """Vector files of any format and CRS; their labels lie on each other in this order."""
    where: dict[str, Values] = Field(default_factory=dict)
    """Values of columns that a label needs to count, such as ``{region: Peel}``."""
    class_column: str | None = None
    """Column that says the class; the usual names are tried if left out. Without one, labels are of the only class."""
    crs: str | None = None
    """CRS of files that name none."""
    layer: str | None = None
    """Layer of files that have several."""
    raster: FilePath | None = None
    """Raster of integers on the cube's pixels."""
    band: int = Field(default=1, gt=0)
    """Band of the raster, from 1."""
    ignored: tuple[int, ...] = ()
    """Values of the raster that count neither way."""
    classes: ClassValues | None = None
    """Values that these labels have for each class; the config's if left out."""

    @model_validator(mode="after")
    def _one_kind(self) -> "LabelsConfig":
        if bool(self.files) == (self.raster is not None):
            raise ValueError("labels are given by files or by a raster, by one of them")
        misplaced = {"where", "class_column", "crs", "layer"} if self.raster else {"band", "ignored"}
        fields = type(self).model_fields
        given = sorted(
            name for name in misplaced if getattr(self, name) != fields[name].get_default(call_default_factory=True)
        )
        if given:
            other = "files" if self.raster else "a raster"
            raise ValueError(f"{', '.join(given)} says something about {other}, and these labels are none")
        return self

    @property
    def source(self) -> str:
        """What messages call these labels."""
        return self.raster or ", ".join(self.files)


def _alone(given: object) -> object:
    return {"files": given} if isinstance(given, str | list | tuple) else given


Labels = Annotated[
    LabelsConfig | None, BeforeValidator(_alone, json_schema_input_type=LabelsConfig | list[str] | str | None)
]
"""Labels, or the path of vector files alone."""


@dataclass
class LabelReader:
    """Reads labels of many scenes, every file once.

    Raises
    ------
    ConfigError
        Labels have values that no class has.
    LabelError
        A file cannot be read or has no CRS, or outlines that are none.
    """

    classes: Mapping[str, Sequence[Value]]
    """What labels call each class, where they do not say it themselves."""
    ignore: int
    """Pixels on both sides of class borders that count neither way."""
    _tables: dict[str, gpd.GeoDataFrame] = field(default_factory=dict)
    _met: dict[str, list[tuple[str, int]]] = field(default_factory=dict)

    def truth(self, labels: LabelsConfig, cube: xr.Dataset, *, scene: str) -> Truth:
        """What labels say of the pixels of a cube."""
        meant = {name: (labels.classes or self.classes).get(name, ()) for name in self.classes}
        if labels.raster is not None:
            return self._raster_truth(labels, cube, meant)
        key = labels.to_yaml()
        if key not in self._tables:
            self._tables[key] = _table(labels, meant)
        table = self._tables[key]
        truth = label_truth(table, geobox_of(cube), classes=tuple(self.classes), ignore=self.ignore)
        # Files without a row are how scenes with nothing on them are said; with rows that do not count, it may be a mistake.
        if len(table) or labels.where:
            self._met.setdefault(labels.source, []).append((scene, truth.count))
        return truth

    def refuse_labels_elsewhere(self) -> None:
        """Raise where no scene that names some labels is met by any of them.

        Not by scene, because one of several scenes under one inventory may well have none.
        """
        for source, scenes in self._met.items():
            if not any(count for _, count in scenes):
                names = ", ".join(name for name, _ in scenes[:5]) + (" and others" if len(scenes) > 5 else "")
                raise ConfigError(
                    f"The labels of {source} lie outside the cube{'s' if len(scenes) > 1 else ''} of {names}, or where leaves "
                    "none of them: no pixel is met. Check the CRS of the labels, which scenes they belong to, and where."
                )

    def _raster_truth(self, labels: LabelsConfig, cube: xr.Dataset, meant: Mapping[str, Sequence[Value]]) -> Truth:
        assert labels.raster is not None  # the caller has looked
        codes = {name: tuple(value for value in values if isinstance(value, int)) for name, values in meant.items()}
        unsaid = [name for name, values in meant.items() if len(codes[name]) < max(len(values), 1)]
        if unsaid:
            raise ConfigError(
                f"{labels.raster} is a raster, whose classes are integers, but {unsaid[0]!r} is {list(meant[unsaid[0]])}. Say "
                f"classes: {{{unsaid[0]}: [1]}} or whatever the raster has."
            )
        opened = open_cube(labels.raster)
        names = layer_names(opened)
        if labels.band > len(names):
            raise ConfigError(f"{labels.raster} has {len(names)} bands; band: {labels.band} is none of them.")
        ours, theirs = geobox_of(cube), geobox_of(opened)
        if not _same_pixels(ours, theirs):
            raise ConfigError(
                f"A label raster lies on the pixels of the cube: {labels.raster} has {describe_geobox(theirs)}, the cube "
                f"{describe_geobox(ours)}. Warp it with gdalwarp -r near."
            )
        return raster_truth(opened[names[labels.band - 1]], classes=codes, ignored=labels.ignored, ignore=self.ignore)


def _same_pixels(ours: GeoBox, theirs: GeoBox) -> bool:
    drift = max(
        abs(one - other) for one, other in zip(tuple(~ours.affine @ theirs.affine)[:6], (1, 0, 0, 0, 1, 0), strict=True)
    )
    return ours.crs == theirs.crs and ours.shape == theirs.shape and drift < 1e-3


def _table(labels: LabelsConfig, meant: Mapping[str, Sequence[Value]]) -> gpd.GeoDataFrame:
    """Labels of all files in the schema, with our classes; those of what no class is are left out."""
    return pd.concat([_part(path, labels, meant) for path in labels.files], ignore_index=True)


def _part(path: str, labels: LabelsConfig, meant: Mapping[str, Sequence[Value]]) -> gpd.GeoDataFrame:
    stored = read_table(path, layer=labels.layer)
    counts = _counts(stored, labels.where, path)
    table = stored[counts]
    if not len(table):
        return gpd.GeoDataFrame({"class_name": [], "label_id": []}, geometry=[], crs="EPSG:4326")
    class_of = {str(value): name for name, values in meant.items() for value in values}
    if set(LABEL_COLUMNS) <= set(table.columns) and labels.class_column is None:
        found = read_labels(table)
    else:
        unsaid = next(iter(meant)) if len(meant) == 1 else _UNSAID
        found = _standardised(table, labels, class_of=class_of, unsaid=unsaid)
        # By the row of the file, because scenes that share a label have to be told from those that do not.
        rows = np.flatnonzero(counts.to_numpy())
        found = found.assign(label_id=[f"{path}/{rows[row]}" for row in found["source_row"]])
    found = found[(found["class_name"] != NEGATIVE) | (NEGATIVE in class_of)]
    names = found["class_name"].map({**class_of, **{name: name for name in meant}})
    if names.isna().any():
        unknown = sorted(set(found["class_name"][names.isna()]))
        if _UNSAID in unknown:
            raise ConfigError(
                f"{path} says nothing of the class of some labels, and there are several: {', '.join(meant)}. Name the column "
                "that does with class_column, or leave them out with where."
            )
        raise ConfigError(
            f"{path} has labels of the class {unknown[0]!r}, which is none of the classes {', '.join(meant)}. Say which it "
            f"means with classes: {{{next(iter(meant))}: [{unknown[0]}]}}, or leave its labels out with where."
        )
    return found.assign(class_name=names)


def _standardised(
    table: gpd.GeoDataFrame, labels: LabelsConfig, *, class_of: Mapping[str, str], unsaid: str
) -> gpd.GeoDataFrame:
    """Labels of any schema in ours; `unsaid` is the class of those that say none."""
    named: str | dict[Any, str] = unsaid
    if any(value != name for value, name in class_of.items()):
        # As a mapping, so that a class may be called 0 or 1, which by itself means that a label is none or one.
        named = {None: unsaid, **dict.fromkeys(_ABSENT, NEGATIVE), **class_of}
    columns = None if labels.class_column is None else {"class_name": labels.class_column}
    return read_labels(table, columns=columns, class_name=named, crs=labels.crs)


def _counts(table: gpd.GeoDataFrame, where: Mapping[str, Sequence[Value]], path: str) -> "pd.Series[bool]":
    """Which rows have the values that are asked for."""
    counts = pd.Series(True, index=table.index)
    for column, wanted in where.items():
        if column not in table.columns:
            near = get_close_matches(column, map(str, table.columns), n=1)
            hint = f" Is {near[0]!r} meant?" if near else ""
            raise ConfigError(f"{path} has no column {column!r}; it has {', '.join(map(str, table.columns))}.{hint}")
        # As they are and as text, because 2024 may be a number or a word, and days are given as words.
        counts &= table[column].isin(list(wanted)) | table[column].astype(str).isin([str(value) for value in wanted])
    return counts
