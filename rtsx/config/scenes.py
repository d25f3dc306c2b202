"""Scenes of a config: cubes and their labels, alone or by pattern, in their sets."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Self

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from pydantic import BeforeValidator, Field, model_validator

from rtsx.config.cube import is_config, open_cube
from rtsx.config.inputs import SplitConfig, split_scenes
from rtsx.config.yaml import ConfigModel, FilePath, Names, alone, format_path, glob_paths, map_texts, placeholders
from rtsx.cube import geobox_of
from rtsx.cube.file_images import time_in
from rtsx.cube.times import image_years
from rtsx.errors import (
    ConfigError,
    CubeError,
    InputNotFoundError,
    LabelDateWarning,
    LabelError,
    ReviewError,
    TrainingError,
)
from rtsx.footprints.schema import years_by_row
from rtsx.labels import LabelRaster, open_label_raster, rasterize_labels, read_labels
from rtsx.labels.io import read_table, without_layer
from rtsx.labels.label_rasters import RasterizedLabels, read_label_raster
from rtsx.labels.schema import LABEL_COLUMNS
from rtsx.labels.standardise import NEGATIVE
from rtsx.parsing import Several
from rtsx.review import MergedReview, merge_review, open_review
from rtsx.storage import file_name, is_url

_UNSAID = "unsaid"
"""Class of labels that say none, where there are several."""
_ABSENT = ("0", "false", "False", "no", "No", "negative", "Negative")
"""Classes of outlines of what the target is not, unless a config names them."""


def _several(given: object) -> object:
    if isinstance(given, list | tuple):
        return [one.isoformat() if isinstance(one, date) else one for one in given]
    return given if given is None else _several([given])


YamlValue = str | int
YamlValues = Annotated[
    tuple[YamlValue, ...], BeforeValidator(_several, json_schema_input_type=list[YamlValue] | YamlValue)
]
"""One value or several."""


def _by_class(given: object) -> object:
    if isinstance(given, str):
        return {given: given}
    if isinstance(given, list | tuple) and all(isinstance(name, str) for name in given):
        return {name: name for name in given}
    if isinstance(given, Mapping):
        return {name: (name,) if meant is None else meant for name, meant in given.items()}
    return given


ClassValues = Annotated[
    dict[str, YamlValues],
    BeforeValidator(_by_class, json_schema_input_type=dict[str, list[YamlValue] | YamlValue | None] | list[str] | str),
]
"""Classes, or what labels call them by class."""


class LabelsConfig(ConfigModel):
    """Outlines from vector files, a raster, or a review."""

    files: Several[FilePath] = ()
    """Vector files of any format and CRS; their labels lie on each other in this order."""
    where: dict[str, YamlValues] = Field(default_factory=dict)
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
    review: FilePath | None = None
    """Review of outlines, as ``rtsx review create`` made it. What reviewers confirmed, corrected or added is the class; what they
    refused is a negative that training shows more often; what is unsure or not reviewed yet counts neither way."""
    classes: ClassValues | None = None
    """Values that these labels have for each class; the config's if left out."""

    @model_validator(mode="after")
    def _one_kind(self) -> "LabelsConfig":
        if bool(self.files) + (self.raster is not None) + (self.review is not None) != 1:
            raise ValueError("labels are given by files, by a raster or by a review, by one of them")
        of_files, of_raster = {"where", "class_column", "crs", "layer"}, {"band", "ignored"}
        misplaced = of_files if self.raster else of_raster if self.files else of_files | of_raster
        fields = type(self).model_fields
        given = sorted(
            name for name in misplaced if getattr(self, name) != fields[name].get_default(call_default_factory=True)
        )
        if given:
            other = "files" if self.raster else "a raster" if self.files else "files or a raster"
            raise ValueError(f"only {other} can have {', '.join(given)}, and these labels are none")
        return self

    @property
    def source(self) -> str:
        """What messages call these labels."""
        return self.raster or self.review or ", ".join(self.files)


Labels = Annotated[
    LabelsConfig | None,
    BeforeValidator(alone("files", str, list, tuple), json_schema_input_type=LabelsConfig | list[str] | str | None),
]
"""Labels, or the path of vector files alone."""


_YEARS_APART = 1
"""Years between a label and images on which nobody is warned."""


@dataclass(frozen=True)
class _DatedLabels:
    """Labels on a scene of which the years are known, as those of its images."""

    source: str
    scene: str
    years: Sequence[int]
    n_labels: int
    n_beyond: int
    others: Sequence[int]
    """Years of those beyond, sorted."""


def _span(years: Sequence[int]) -> str:
    return str(years[0]) if years[0] == years[-1] else f"{years[0]} to {years[-1]}"


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

    classes: Mapping[str, Sequence[YamlValue]]
    """What labels call each class, where they do not say it themselves."""
    ignore: int
    """Pixels on both sides of class borders that count neither way."""
    _tables: dict[str, gpd.GeoDataFrame] = field(default_factory=dict)
    _met: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    _reviews: dict[str, MergedReview] = field(default_factory=dict)
    _reviewed: dict[str, frozenset[str]] = field(default_factory=dict)
    _dated: list["_DatedLabels"] = field(default_factory=list)

    def truth(self, labels: LabelsConfig, cube: xr.Dataset, *, scene: str) -> LabelRaster:
        """Return what labels say of the pixels of a cube."""
        meant = {name: (labels.classes or self.classes).get(name, ()) for name in self.classes}
        if labels.raster is not None:
            return self._raster_truth(labels, cube, meant)
        if labels.review is not None:
            return self._review_truth(labels.review, cube, meant, scene=scene)
        key = labels.to_yaml()
        if key not in self._tables:
            parts = [_part(path, labels, meant) for path in labels.files]
            self._tables[key] = pd.concat(parts, ignore_index=True)
        table = self._tables[key]
        truth = rasterize_labels(table, geobox_of(cube), classes=tuple(self.classes), ignore=self.ignore)
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

    def refuse_divided_reviews(self, sets: Mapping[str, Sequence[str]]) -> None:
        """Raise where scenes of two sets show one outline of a review: what is learnt from cannot evaluate.

        Parameters
        ----------
        sets
            Names of the scenes of each set.
        """
        seen: dict[str, tuple[str, str]] = {}
        for name, scenes in sets.items():
            for scene in scenes:
                for outline in sorted(self._reviewed.get(scene, ())):
                    other, first = seen.setdefault(outline, (name, scene))
                    if other != name:
                        raise ConfigError(
                            f"Scene {first} of {other} and scene {scene} of {name} show one outline of a review, {outline!r}: what "
                            "is learnt from cannot evaluate. Keep both scenes in one set; for a random split, give them one group."
                        )

    def compare_years(self, labels: LabelsConfig, truth: LabelRaster, *, scene: str, years: Sequence[int]) -> None:
        """Remember which labels on a scene are of other years than its images, where both are known."""
        if not years or not isinstance(truth, RasterizedLabels):
            return
        if labels.review is not None:
            table = self._reviews[labels.review].table
            table = table[table["verdict"].isin(("target", "other"))]
            ids = pd.Series([f"{labels.review}/{one}" for one in table.index], table.index)
            first = last = years_by_row(table)
        else:
            table = self._tables[labels.to_yaml()]
            if "image_date" not in table.columns:  # where no label counts
                return
            ids = table["label_id"]
            first, last = (pd.to_datetime(table[name]).dt.year for name in ("image_date", "image_date_end"))
            last = last.fillna(first)
        on_scene = first.notna() & ids.isin(truth.label_ids)
        beyond = on_scene & ((first > years[-1] + _YEARS_APART) | (last < years[0] - _YEARS_APART))
        others = sorted({*first[beyond].astype(int), *last[beyond].astype(int)})
        self._dated.append(_DatedLabels(labels.source, scene, years, int(on_scene.sum()), int(beyond.sum()), others))

    def warn_of_other_years(self) -> None:
        """Warn where labels of some years lie on images of others: what has grown or healed between is learnt and scored wrong."""
        beyond = [one for one in self._dated if one.n_beyond]
        if beyond:
            worst = max(beyond, key=lambda one: one.n_beyond)
            labels, images = (_span(years) for years in (worst.others, worst.years))
            warnings.warn(
                f"{sum(one.n_beyond for one in beyond)} of {sum(one.n_labels for one in self._dated)} labels with dates, on {len(beyond)} of "
                f"{len(self._dated)} scenes, are more than a year from the images they lie on, such as those of {worst.source} of {labels} on "
                f"{worst.scene} of {images}: what has changed between is learnt, and counts, as wrong. Take images of the years of the labels, or "
                "leave such labels out, of files with where.",
                LabelDateWarning,
                stacklevel=3,
            )

    def _review_truth(
        self, path: str, cube: xr.Dataset, meant: Mapping[str, Sequence[YamlValue]], *, scene: str
    ) -> LabelRaster:
        if path not in self._reviews:
            try:
                self._reviews[path] = merge_review(open_review(path))
            except (ReviewError, InputNotFoundError) as error:
                raise ConfigError(f"labels of {scene}: {error}") from error
        merged = self._reviews[path]
        if not merged.outlines.geom_type.isin(["Polygon", "MultiPolygon"]).all():
            raise ConfigError(
                f"{path} is a review of points, which have no outline to learn; rtsx evaluate --sample {path} estimates with it. "
                "Name a review of footprints."
            )
        table = merged.table
        asked = merged.class_name
        name = next((one for one, values in meant.items() if asked == one or asked in map(str, values)), None)
        if name is None:
            raise ConfigError(
                f"{path} is a review of {asked!r}, which is none of the classes {', '.join(meant)}. Say which it means with "
                f"classes: {{{next(iter(meant))}: [{asked}]}}."
            )
        rows = gpd.GeoDataFrame(
            {"class_name": name, "label_id": [f"{path}/{one}" for one in table.index]},
            geometry=table.geometry.to_numpy(),
            crs=table.crs,
        )
        verdict = table["verdict"].to_numpy()
        truth = rasterize_labels(
            rows[verdict == "target"],
            geobox_of(cube),
            classes=tuple(self.classes),
            ignore=self.ignore,
            unsure=rows[(verdict != "target") & (verdict != "other")],
            refused=rows[verdict == "other"],
        )
        self._met.setdefault(path, []).append((scene, truth.count))
        self._reviewed[scene] = truth.label_ids
        return truth

    def _raster_truth(
        self, labels: LabelsConfig, cube: xr.Dataset, meant: Mapping[str, Sequence[YamlValue]]
    ) -> LabelRaster:
        assert labels.raster is not None  # the caller has looked
        codes = {name: tuple(value for value in values if isinstance(value, int)) for name, values in meant.items()}
        if unsaid := [name for name, values in meant.items() if len(codes[name]) < max(len(values), 1)]:
            raise ConfigError(
                f"{labels.raster} is a raster, whose classes are integers, but {unsaid[0]!r} is {list(meant[unsaid[0]])}. Say "
                f"classes: {{{unsaid[0]}: [1]}} or whatever the raster has."
            )
        codes_of_pixels = read_label_raster(labels.raster, geobox_of(cube), band=labels.band)
        return open_label_raster(codes_of_pixels, classes=codes, ignored=labels.ignored, ignore=self.ignore)


def _part(path: str, labels: LabelsConfig, meant: Mapping[str, Sequence[YamlValue]]) -> gpd.GeoDataFrame:
    stored = read_table(path, layer=labels.layer)
    counts = _counts(stored, labels.where, path)
    table = stored[counts]
    if not len(table):
        return gpd.GeoDataFrame({"class_name": [], "label_id": []}, geometry=[], crs="EPSG:4326")
    class_of = {str(value): name for name, values in meant.items() for value in values}
    in_schema = set(LABEL_COLUMNS) <= set(table.columns) and labels.class_column is None
    unsaid = next(iter(meant)) if len(meant) == 1 else _UNSAID
    try:
        found = read_labels(table) if in_schema else _standardised(table, labels, class_of=class_of, unsaid=unsaid)
    except LabelError as error:  # a table has no name
        text = (
            str(error)
            .replace("table 0", path)
            .replace("class_name does not name; it names", "no class means; classes mean")
        )
        raise LabelError(text.replace(". Add it.", ". Add it, or leave such labels out with where.")) from error
    if not in_schema:
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
    """Return labels of any schema in ours; `unsaid` is the class of those that say none."""
    named: str | dict[Any, str] = unsaid
    if any(value != name for value, name in class_of.items()):
        # As a mapping, so that a class may be called 0 or 1, which by itself means that a label is none or one.
        named = {None: unsaid, **dict.fromkeys(_ABSENT, NEGATIVE), **class_of}
    columns = None if labels.class_column is None else {"class_name": labels.class_column}
    return read_labels(table, columns=columns, class_name=named, crs=labels.crs)


def _counts(table: gpd.GeoDataFrame, where: Mapping[str, Sequence[YamlValue]], path: str) -> "pd.Series[bool]":
    """Return which rows have the values that are asked for."""
    counts = pd.Series(True, index=table.index)
    for column, wanted in where.items():
        if column not in table.columns:
            near = get_close_matches(column, map(str, table.columns), n=1)
            hint = f" Is {near[0]!r} meant?" if near else ""
            raise ConfigError(f"{path} has no column {column!r}; it has {', '.join(map(str, table.columns))}.{hint}")
        # As they are and as text, because 2024 may be a number or a word, and days are given as words.
        words, given = [str(value) for value in wanted], table[column]
        is_dated = pd.api.types.is_datetime64_any_dtype(given)  # whose times of day nobody asks for
        has = given.astype(str).isin(words)
        has |= given.dt.strftime("%Y-%m-%d").isin(words) if is_dated else given.isin(list(wanted))
        counts &= has
    return counts


SCENE = "scene"
"""The placeholder that names a scene."""


def _text(given: object) -> object:
    return given.isoformat() if isinstance(given, date | datetime) else given


class SceneConfig(ConfigModel):
    """A scene, or with ``{scene}`` in its paths every scene that is there.

    Examples
    --------
    >>> scene = SceneConfig(files=("{scene}_SR.tif",), mask=("{scene}_udm2.tif", "tss-v1"), labels="{scene}.gpkg", names="a")
    >>> [(one.name, one.mask[1], one.group) for one in scene.scenes()]
    [('a', 'tss-v1', 'a')]
    """

    cube: FilePath | None = None
    """YAML of a cube, Zarr store or raster file: anything that `rtsx.open_cube` takes."""
    files: Several[FilePath] = ()
    """Raster files that share one grid, instead of a cube."""
    sensor: str | None = None
    """What the bands of the files are, such as planetscope; for files that do not say it themselves."""
    layers: Names | None = None
    """Layers to keep; names of the bands, in order, for files without band names."""
    mask: tuple[FilePath, str] | None = None
    """Quality data on the cube's pixels, and the rule that reads it, such as ``[udm2.tif, tss-v1]``."""
    time: Annotated[str | None, BeforeValidator(_text, json_schema_input_type=str | None)] = None
    """Day or moment of a cube that has several, such as 2024-07-21."""
    chunk: int | None = Field(default=None, gt=0)
    """Side of a chunk that is read at once, px; the source's own if left out."""
    labels: Labels = None
    """What is known to be there; those of the whole config if left out."""
    name: str | None = None
    """Name of the scene; what ``{scene}`` stands for, else the name of the cube or of the first file, if left out."""
    group: str | None = None
    """Region, or whatever else is never divided between training and test; the scene itself if left out."""
    names: Names = ()
    """Scenes that ``{scene}`` stands for; all that are there if left out."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.cube is None) != bool(self.files):
            raise ValueError("a scene has a cube or files, one of them")
        if self.names and placeholders(self.first) != (SCENE,):
            raise ValueError(f"names say what {{scene}} stands for, and {self.first} has no placeholder but that")
        if "*" in self.first:
            raise ValueError(f"a part of a path that differs is written {{scene}}, not *; got {self.first}")
        return self

    @property
    def first(self) -> str:
        """The path that placeholders get their values from."""
        return self.cube if self.cube is not None else self.files[0]

    def scenes(self) -> tuple[Self, ...]:
        """Return the scenes that this entry stands for, with names and groups; looks for paths, and opens none.

        Raises
        ------
        ConfigError
            Nothing matches, or a name stands for nothing.
        """
        if not placeholders(self.first):
            return (self._filled({}),)
        values: tuple[Mapping[str, str], ...] = tuple({SCENE: name} for name in self.names)
        return tuple(self._filled(one) for one in values or glob_paths(self.first))

    def _filled(self, values: Mapping[str, str]) -> Self:
        given: dict[str, Any] = self.model_dump(exclude={"names"}, exclude_unset=True)
        filled_in = map_texts(given, lambda text, _: format_path(text, values))
        name = filled_in.get("name") or values.get(SCENE) or "_".join(values.values()) or _stem(self.first)
        return type(self).model_validate({**filled_in, "name": name, "group": filled_in.get("group") or name})

    def open(self) -> xr.Dataset:
        """Return the lazy cube.

        Raises
        ------
        CubeError
            A source is missing or damaged, or `time` picks not exactly one of several times.
        ConfigError
            The cube is a YAML file in which something is wrong, or one that mask or sensor do not go with.
        """
        if is_config(self.first) and (self.mask or self.sensor):
            raise ConfigError(f"{self.first} says itself what its bands and masks are; leave mask and sensor out here.")
        cube = open_cube(
            self.cube if self.cube is not None else list(self.files),
            layers=self.layers,
            mask=self.mask,
            chunks=self.chunk or "auto",
            sensor=self.sensor,
        )
        return cube if "time" not in cube.dims else _at_time(cube, self.time)

    def years(self, cube: xr.Dataset) -> list[int]:
        """Return the years of the images, as `time`, the cube, or the dates in names state them; none where nothing does."""
        if self.time is not None:
            cube = xr.Dataset(coords={"time": [self.time]})
        # Of cubes of earlier versions, which state nothing but ids; where one has no date, others may be of terrain.
        ids = [one for name, ids in cube.attrs.items() if name.startswith("images_") for one in str(ids).split(",")]
        times = [time_in(name) for name in ids or [file_name(self.first)]]
        return image_years(cube) or sorted({time.year for time in times if time is not None and None not in times})

    def partners(self) -> Iterator[str]:
        """Local paths that have to be there, beside the first."""
        yield from self.files[1:]
        yield from () if self.mask is None else (self.mask[0],)
        if self.labels is not None:
            yield from self.labels.files
            yield from (one for one in (self.labels.raster, self.labels.review) if one is not None)


def _listed(given: object) -> object:
    return (given,) if isinstance(given, Mapping | SceneConfig) else given


Scenes = Annotated[
    tuple[SceneConfig, ...], BeforeValidator(_listed, json_schema_input_type=list[SceneConfig] | SceneConfig)
]
"""Scenes, or one entry alone."""


def expand_scenes(
    entries: tuple[SceneConfig, ...], *, labels: LabelsConfig | None, place: str
) -> tuple[SceneConfig, ...]:
    """Return all scenes of a list, each with its own labels or those given; looks for paths, and opens none.

    Parameters
    ----------
    entries
        As listed.
    labels
        Of scenes that name none.
    place
        Key of the list, for messages.

    Raises
    ------
    ConfigError
        A pattern matches nothing, files are missing, or labels are said nowhere.
    """
    given = entries if labels is None else tuple(one if one.labels else one.changed(labels=labels) for one in entries)
    try:
        scenes = tuple(scene for entry in given for scene in entry.scenes())
        if unlabelled := [str(scene.name) for scene in scenes if scene.labels is None]:
            raise ConfigError(f"scene {unlabelled[0]} has no labels; say labels there, or once for all scenes")
        _refuse_missing(scenes)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
    return scenes


def open_scene(scene: SceneConfig, reader: LabelReader) -> tuple[xr.Dataset, LabelRaster]:
    """Return cube and truth of a scene; reads labels and metadata, no pixel.

    Raises
    ------
    ConfigError, CubeError, LabelError
        Something cannot be opened; the scene is named.
    """
    assert scene.labels is not None  # `expand_scenes` has looked
    try:
        cube = scene.open()
        truth = reader.truth(scene.labels, cube, scene=str(scene.name))
        reader.compare_years(scene.labels, truth, scene=str(scene.name), years=scene.years(cube))
        return cube, truth
    except (ConfigError, CubeError, LabelError, TrainingError) as error:
        raise type(error)(f"Scene {scene.name}: {error}") from error


def _refuse_missing(scenes: tuple[SceneConfig, ...]) -> None:
    missing = [
        f"{path} of {scene.name}"
        for scene in scenes
        for path in (scene.first, *scene.partners())
        if not (is_url(path) or path.startswith("/vsi") or Path(without_layer(path)[0]).exists())
    ]
    if missing:
        listed = "; ".join(missing[:10]) + (f"; and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise ConfigError(f"{len(missing)} files are missing: {listed}")


def _at_time(cube: xr.Dataset, time: str | None) -> xr.Dataset:
    times = [str(one)[:19] for one in cube["time"].values]
    listed = ", ".join(times[:10]) + (f" and {len(times) - 10} more" if len(times) > 10 else "")
    if time is None:
        raise CubeError(
            f"The cube has {len(times)} times, and a scene has one. Say time: {times[0][:10]}, or another of {listed}."
        )
    found = [place for place, one in enumerate(times) if one.startswith(time.replace(" ", "T"))]
    if len(found) != 1:
        raise CubeError(f"time: {time} picks {len(found)} of the cube's times, which are {listed}. Say one of them.")
    return cube.isel(time=found[0], drop=True)


def _stem(path: str) -> str:
    name = file_name(path)
    return name.split(".")[0] or name


class ScenesConfig(ConfigModel):
    """What is learnt from, chosen by and tested on."""

    training: Scenes
    """What is learnt from."""
    validation: Scenes = ()
    """What chooses epoch, threshold and temperature; without any, the last epoch is kept."""
    test: Scenes = ()
    """What measures the result, once."""
    split: SplitConfig | None = None
    """Parts of the training scenes that are held out instead."""

    @model_validator(mode="after")
    def _stated_once(self) -> Self:
        if not self.training:
            raise ValueError("training needs at least one scene")
        if self.split is not None and (self.validation or self.test):
            raise ValueError("scenes are split, or validation and test are listed; leave one of them out")
        return self

    def resolved(self, *, labels: LabelsConfig | None) -> Self:
        """Return scenes one by one, each with name, group and labels; looks for paths, and opens none.

        Raises
        ------
        ConfigError
            Scenes are missing or have no labels, two have one name, or a group stands in two sets.
        """
        training, validation, test = (
            expand_scenes(listed, labels=labels, place=f"scenes.{name}")
            for name, listed in (("training", self.training), ("validation", self.validation), ("test", self.test))
        )
        if self.split is not None:
            parts = split_scenes([str(scene.group) for scene in training], self.split)
            training, validation, test = (tuple(training[place] for place in part) for part in parts)
        _refuse_doubles({"training": training, "validation": validation, "test": test})
        return self.changed(training=training, validation=validation, test=test, split=None)


def _refuse_doubles(sets: dict[str, tuple[SceneConfig, ...]]) -> None:
    groups: dict[str, str] = {}
    names: set[str] = set()
    for label, scenes in sets.items():
        for scene in scenes:
            name, group = str(scene.name), str(scene.group)
            if groups.setdefault(group, label) != label:
                raise ConfigError(
                    f"scenes: {group} stands in {groups[group]} and in {label}, and what a network has learnt from says "
                    "nothing about it elsewhere. Move the scenes of a group into one set, or give them other groups"
                )
            if name in names:
                raise ConfigError(f"scenes: two scenes are called {name}; give them names of their own with name:")
            names.add(name)
