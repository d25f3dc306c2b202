"""One entry of a list of scenes: a cube and its labels, or a pattern that stands for many."""

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Self

import xarray as xr
from pydantic import BeforeValidator, Field, model_validator

from rtsx.config.labels import LabelReader, Labels, LabelsConfig
from rtsx.config.opening import is_config, open_cube
from rtsx.config.pattern import filled, matches, placeholders
from rtsx.config.strict import FilePath, Names, Strict
from rtsx.errors import ConfigError, CubeError, LabelError, RtsxError, TrainingError
from rtsx.labels import Truth
from rtsx.labels.reading import without_layer
from rtsx.storage import file_name, is_url

__all__ = ["SceneConfig", "Scenes", "expanded", "opened"]

SCENE = "scene"
"""The placeholder that names a scene."""


def _text(given: object) -> object:
    return given.isoformat() if isinstance(given, date | datetime) else given


def _paths(given: object) -> object:
    return (given,) if isinstance(given, str) else given


class SceneConfig(Strict):
    """A scene, or with ``{scene}`` in its paths every scene that is there.

    Examples
    --------
    >>> scene = SceneConfig(files=("{scene}_SR.tif",), mask=("{scene}_udm2.tif", "tss-v1"), labels="{scene}.gpkg", names="a")
    >>> [(one.name, one.mask[1], one.group) for one in scene.scenes()]
    [('a', 'tss-v1', 'a')]
    """

    cube: FilePath | None = None
    """YAML of a cube, Zarr store or raster file: anything that `rtsx.open_cube` takes."""
    files: Annotated[tuple[FilePath, ...], BeforeValidator(_paths, json_schema_input_type=list[str] | str)] = ()
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
        """The scenes that this entry stands for, with names and groups; looks for paths, and opens none.

        Raises
        ------
        ConfigError
            Nothing matches, or a name stands for nothing.
        """
        if not placeholders(self.first):
            return (self._filled({}),)
        values: tuple[Mapping[str, str], ...] = tuple({SCENE: name} for name in self.names)
        return tuple(self._filled(one) for one in values or matches(self.first))

    def _filled(self, values: Mapping[str, str]) -> Self:
        told: dict[str, Any] = self.model_dump(exclude={"names"}, exclude_unset=True)
        filled_in = _mapped(told, values)
        name = filled_in.get("name") or values.get(SCENE) or "_".join(values.values()) or _stem(self.first)
        return type(self).model_validate({**filled_in, "name": name, "group": filled_in.get("group") or name})

    def open(self) -> xr.Dataset:
        """The lazy cube.

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

    def partners(self) -> Iterator[str]:
        """Local paths that have to be there, beside the first."""
        yield from self.files[1:]
        yield from () if self.mask is None else (self.mask[0],)
        if self.labels is not None:
            yield from self.labels.files
            yield from () if self.labels.raster is None else (self.labels.raster,)


def _listed(given: object) -> object:
    return (given,) if isinstance(given, Mapping | SceneConfig) else given


Scenes = Annotated[
    tuple[SceneConfig, ...],
    BeforeValidator(_listed, json_schema_input_type=list[SceneConfig] | SceneConfig),
]
"""Scenes, or one entry alone."""


def expanded(entries: tuple[SceneConfig, ...], *, labels: LabelsConfig | None, place: str) -> tuple[SceneConfig, ...]:
    """All scenes of a list, each with its own labels or those given; looks for paths, and opens none.

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
        unlabelled = [str(scene.name) for scene in scenes if scene.labels is None]
        if unlabelled:
            raise ConfigError(f"scene {unlabelled[0]} has no labels; say labels there, or once for all scenes")
        _refuse_missing(scenes)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
    return scenes


def opened(scene: SceneConfig, reader: LabelReader) -> tuple[xr.Dataset, Truth]:
    """Cube and truth of a scene; reads labels and metadata, no pixel.

    Raises
    ------
    ConfigError, CubeError, LabelError
        Something cannot be opened; the scene is named.
    """
    assert scene.labels is not None  # `expanded` has looked
    try:
        cube = scene.open()
        return cube, reader.truth(scene.labels, cube, scene=str(scene.name))
    except (ConfigError, CubeError, LabelError, TrainingError) as error:
        raise _named(error, scene) from error


def _named(error: RtsxError, scene: SceneConfig) -> RtsxError:
    return type(error)(f"Scene {scene.name}: {error}")


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


def _mapped(values: Any, names: Mapping[str, str]) -> Any:
    if isinstance(values, str):
        return filled(values, names)
    if isinstance(values, Mapping):
        return {key: _mapped(value, names) for key, value in values.items()}
    return [_mapped(value, names) for value in values] if isinstance(values, list | tuple) else values
