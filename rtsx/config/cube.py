"""The config of a cube, and the public `open_cube` and `build_cube` that take one."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self

import xarray as xr
import zarr
from odc.geo.geobox import GeoBox
from pydantic import Field

from rtsx.arguments import typed
from rtsx.config.layers import SOURCE_KINDS
from rtsx.config.place import GridConfig, PeriodConfig, Region, RegionConfig
from rtsx.config.source import CUBE_PRESETS, CubePreset, PresetName, SourceConfig, tcvis_window
from rtsx.config.yaml import ConfigModel, Names, map_texts, parse_yaml, read_yaml, validate_config
from rtsx.cube.build import BuildResult, build_store
from rtsx.cube.derived import derived_text, get_derived
from rtsx.cube.native import with_native_images
from rtsx.cube.open import is_store, open_source
from rtsx.cube.rasters import RasterSource
from rtsx.cube.recipe import CubeRecipe
from rtsx.cube.sensors import Sensor
from rtsx.errors import BundleError, ConfigError, CubeError, GridError, OutputExistsError, OutputNotWritableError
from rtsx.grid import Cell, lonlat_polygon
from rtsx.storage import file_system, is_url, local_path, refuse_other_format, write_whole
from rtsx.storage.diagnosis import write_failures
from rtsx.storage.zarr import BUILD, open_group, store_of

_WINDOW = "{tcvis_window}"
"""Stands in addresses for the window of the trends, such as 2000-2019."""


class CubeConfig(ConfigModel):
    """A cube: grid, ground, days and sources.

    Examples
    --------
    >>> files = {"files": "scene.tif", "layers": ["red", "nir"]}
    >>> config = CubeConfig.model_validate({"sources": {"scene": files}, "derived": ["ndvi"]})
    >>> config.recipe().sources[0].layer_names
    ('red', 'nir')
    """

    preset: PresetName | None = None
    """Published models whose preprocessing holds where nothing else is said."""
    grid: GridConfig = GridConfig()
    """The pixel grid."""
    region: Region | None = None
    """Ground of the cube; nothing where the caller names a cell."""
    period: PeriodConfig | None = None
    """Days of all sources that name none; all days if left out."""
    tcvis_window: str | None = Field(default=None, pattern=r"^\d{4}-\d{4}$")
    """What ``{tcvis_window}`` in addresses stands for; by preset and year of the period if left out."""
    sources: dict[str, SourceConfig] = Field(min_length=1)
    """Where the layers come from, by name."""
    derived: Names | None = None
    """Layers computed pixel by pixel from others, such as ndvi, or ndvi(s2_red, s2_nir) where bands have other names; the preset's if left out."""
    layers: Names | None = None
    """Variables in their order; the preset's order, else all, if left out."""
    chunk: int = Field(default=1024, gt=0)
    """Side of a chunk, px."""

    def resolved(self) -> Self:
        """Return the config with everything said: no preset, sensor or variable is left.

        Raises
        ------
        ConfigError
            Something is said nowhere, or contradicts.
        """
        preset = None if self.preset is None else CUBE_PRESETS[self.preset]
        sources = {}
        for name, source in self.sources.items():
            try:
                sources[name] = self._placed(source).resolved(preset, self.period)
            except (ConfigError, CubeError) as error:
                raise ConfigError(f"sources.{name}: {str(error).rstrip('.')}") from error
        derived, layers = self._named(sources, preset)
        return self.changed(
            preset=None, period=None, tcvis_window=None, sources=sources, derived=derived, layers=layers
        )

    def recipe(self) -> CubeRecipe:
        """Return the recipe of this config; reads the region's file and the bundles that mask clouds, and nothing else.

        Raises
        ------
        BundleError
            A bundle that masks clouds cannot be read.
        ConfigError
            Something is said nowhere, or the region cannot be read.
        CubeError
            Sources do not fit together.
        """
        config = self.resolved()
        return CubeRecipe(
            grid=config.grid.grid(),
            sources=tuple(source.recipe(name) for name, source in config.sources.items()),
            region=None if config.region is None else config.region.geometry(),
            derived=tuple(get_derived(name) for name in config.derived or ()),
            layers=config.layers,
            chunk=config.chunk,
        )

    def only(self, sources: Sequence[str], *, resolution: float | None = None) -> Self:
        """Return the resolved config of some sources, with what is derived from them alone.

        Parameters
        ----------
        sources
            Names of sources; ``trend`` and ``terrain`` stand for all that compute those. All sources if empty.
        resolution
            Side of a pixel in CRS units, instead of the grid's.

        Raises
        ------
        ConfigError
            There is no such source.
        """
        config = self.resolved()
        kinds = {
            kind: [name for name, one in config.sources.items() if getattr(one, kind)] for kind in ("trend", "terrain")
        }
        if unknown := [name for name in sources if name not in config.sources and not kinds.get(name)]:
            raise ConfigError(
                f"The cube has the sources {', '.join(config.sources)}; got {', '.join(unknown)}. Name some of these."
            )
        wanted = {one for name in sources for one in ([name] if name in config.sources else kinds[name])} or {
            *config.sources
        }
        kept = {name: one for name, one in config.sources.items() if name in wanted}
        names = {name for source in kept.values() for name in source.layer_names}
        derived = tuple(one for one in config.derived or () if set(get_derived(one).needs) <= names)
        names |= {get_derived(one).name for one in derived}
        layers = None if config.layers is None else tuple(one for one in config.layers if one in names)
        grid = config.grid if resolution is None else config.grid.changed(resolution=resolution)
        return config.changed(sources=kept, derived=derived, layers=layers or None, grid=grid)

    @property
    def cell(self) -> Cell | None:
        """The cell that the region names; None where it names none.

        Raises
        ------
        GridError
            It is no name of a cell.
        """
        name = None if self.region is None else self.region.cell
        return None if name is None else self.grid.grid().cell(name)

    @classmethod
    def from_recipe(cls, recipe: CubeRecipe, *, cell: Cell | None = None) -> Self:
        """Return the resolved config of a recipe.

        Parameters
        ----------
        recipe
            Made of parts that have names or addresses.
        cell
            Ground, instead of the recipe's region.

        Raises
        ------
        ConfigError
            A part is an object that no file can name.
        """
        region = None if recipe.region is None else RegionConfig.from_geometry(recipe.region)
        return cls(
            grid=GridConfig(**GridConfig.taken(recipe.grid)),
            region=region if cell is None else RegionConfig(cell=cell.id),
            sources={source.name: SourceConfig.from_recipe(source) for source in recipe.sources},
            derived=tuple(map(derived_text, recipe.derived)),
            layers=recipe.layers,
            chunk=recipe.chunk,
        )

    def without_secrets(self) -> Self:
        """Return the config without the headers of servers, to be stored beside an output."""
        return type(self).model_validate(_bare(self.model_dump(exclude_none=True)))

    def _placed(self, source: SourceConfig) -> SourceConfig:
        """Return a source with the window of the trends in its addresses."""
        if _WINDOW not in repr(source):
            return source
        window = self._window()
        given = source.model_dump(exclude_unset=True)
        return SourceConfig.model_validate(map_texts(given, lambda text, _: text.replace(_WINDOW, window)))

    def _window(self) -> str:
        if self.tcvis_window is not None:
            return self.tcvis_window
        if self.preset is None or self.period is None:
            raise ConfigError(
                f"{_WINDOW} follows from preset and period; give both, or tcvis_window: 2000-2019 or another"
            )
        period = self.period.period()
        windows = {
            tcvis_window(CUBE_PRESETS[self.preset], year) for year in range(period.start.year, period.end.year + 1)
        }
        if len(windows) > 1:
            raise ConfigError(
                f"{_WINDOW} goes by the year of the images, and the period {period.start} to {period.end} spans several: "
                f"{', '.join(sorted(windows))}. Say tcvis_window, or make a cube for each"
            )
        return windows.pop()

    def _named(
        self, sources: Mapping[str, SourceConfig], preset: CubePreset | None
    ) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
        """Return the derived layers, and the order of all."""
        names = {name for source in sources.values() for name in source.layer_names}
        usual = ("ndvi",) if preset is not None and set(get_derived("ndvi").needs) <= names else ()
        derived = usual if self.derived is None else self.derived
        layers = self.layers
        if layers is None and preset is not None and preset.order is not None:
            known = names | {get_derived(one).name for one in derived}
            # What the preset does not know comes last, instead of being dropped without a word.
            layers = (*(one for one in preset.order if one in known), *sorted(known - set(preset.order)))
        return derived, layers


def _bare(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _bare(value) for key, value in values.items() if key != "headers"}
    return values


def load_cube_config(path: str | PathLike[str]) -> CubeConfig:
    """Read and check the config of a cube.

    Parameters
    ----------
    path
        YAML file. ``${NAME}`` and ``${NAME:-default}`` in it are variables of the environment; relative paths count
        from its folder.

    Raises
    ------
    ConfigError
        It cannot be read, or something in it is wrong; everything that is wrong is listed, by line and key.
    """
    document = read_yaml(path)
    if isinstance(document.values, Mapping) and {"cube", "model", "output"} <= set(document.values):
        raise ConfigError(
            f"{path} is the file of a campaign, and that of a cube is expected. Give the cube's own file; rtsx view and rtsx review "
            "create take a campaign as --campaign."
        )
    config = validate_config(CubeConfig, document)
    try:
        _ = config.recipe(), config.cell
    except (BundleError, ConfigError, CubeError, GridError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return config


@typed(ConfigError)
def load_cube_recipe(path: str | PathLike[str]) -> CubeRecipe:
    """Read the config of a cube as the recipe that it means.

    Raises
    ------
    ConfigError
        See `load_cube_config`.
    """
    return load_cube_config(path).recipe()


def cube_schema() -> dict[str, Any]:
    """Return JSON schema of the config of a cube, for editors and validators."""
    return CubeConfig.json_schema()


def config_of_built_cube(path: str, options: Mapping[str, Any]) -> CubeConfig | None:
    """Return the config of a store that holds images on their own grids; None for anything else.

    Raises
    ------
    CubeError
        The store is not built to its end, or was built without a config.
    ConfigError
        The config is none, or wants a file of this machine: whoever made the store has written it, so that it is given
        no variable of the environment, and nothing that it names is read, signed or asked.
    """
    if not is_store(path):
        return None
    group = open_group(path, options)
    if BUILD not in group.attrs or "build" not in group:
        return None
    details: Any = group["build"].attrs.asdict()
    if "index" not in details:
        return None
    if not details["config"]:
        raise CubeError(
            f"{path} was built from a recipe, not from a config, so that it does not know how to be aligned. Build it from a "
            "YAML file; in Python, with_native_images(recipe, path) opens it."
        )
    document = parse_yaml(str(details["config"]), name=f"{path} (its config)", environment=None)
    return validate_config(CubeConfig, replace(document, values=_of_store_alone(document.values, path)))


def _of_store_alone(values: Any, path: str) -> Any:
    """Return the values of a stored config with the store itself in place of every source's files, catalogs and servers.

    Its images are in the store. What its author names beside them is neither looked at nor asked, signed for or expanded.
    """
    if not isinstance(values, Mapping):
        return values
    region, sources = values.get("region"), values.get("sources")
    if isinstance(region, Mapping) and "file" in region:
        raise ConfigError(
            f"{path} (its config): region.file is {region['file']}, and a store may not make its reader open other "
            "files. Build it again, which stores the region itself; in Python, with_native_images(recipe, path) opens it."
        )
    if not isinstance(sources, Mapping):
        return values
    own = {
        name: {key: None if key in SOURCE_KINDS else value for key, value in source.items()}
        | {"zarr": path, "quality": _without_model(source.get("quality"))}
        if isinstance(source, Mapping)
        else source
        for name, source in sources.items()
    }
    return {**values, "sources": own}


def _without_model(quality: Any) -> Any:
    """Return quality data that a model has computed, as data that is there."""
    if not isinstance(quality, Mapping) or quality.get("model") is None:
        return quality
    data = {} if isinstance(quality.get("rule"), str) else {"data": "sky"}
    return data | {key: value for key, value in quality.items() if key not in ("model", "inputs")}


def is_config(source: object) -> bool:
    """Test whether a source is the path of a config: by its ending.

    Examples
    --------
    >>> is_config("configs/cube.yaml"), is_config("scene.tif")
    (True, False)
    """
    return isinstance(source, str | PathLike) and Path(source).suffix.lower() in (".yaml", ".yml")


@typed(CubeError, but=("chunks",))
def open_cube(
    source: RasterSource | CubeRecipe,
    cell: Cell | GeoBox | None = None,
    *,
    layers: Sequence[str] | None = None,
    mask: tuple[str | PathLike[str] | xr.DataArray, str] | None = None,
    chunks: int | Literal["auto"] = "auto",
    sensor: str | Sensor | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Open a lazy cube: one variable per layer, as stored; asks catalogs and reads metadata, but no pixel.

    Parameters
    ----------
    source
        - The path of a YAML config (``.yaml``, ``.yml``), or a `CubeRecipe`: sources on grids of their own; each chunk of
          the cube reads and aligns what it needs.
        - A Zarr store (v2 or v3, path or URL): of layers, of a prediction, or built with images on their own grids, which
          are then aligned like those of a config.
        - Raster files that already share one grid: a path, several paths, or a mapping from layer name to the path of a
          one-band file or to a `Layer`.
    cell
        Keep what lies in this cell; tiles are then anchored to the cell's grid. A store or files have to be on that grid.
        A config fills the cell, or any raster on its grid; None takes the config's region.
    layers
        Names of the layers to keep, in this order. For raster files without band names: the names, in band order.
    mask
        Quality data and the rule that reads it, e.g. ``("udm2.tif", "tss-v1")``; see `apply_mask`.
    chunks
        Side of a chunk, px. ``"auto"``: about 1024, in whole blocks, chunks or shards of the source; a config's own.
    sensor
        What the bands of the raster files are: ``"planetscope"``, ``"sentinel2-l2a"``, ``"sentinel2-l2a-04.00"``,
        ``"landsat"``, ``"arcticdem"`` or another name of `SENSORS`, or a `Sensor`; gives names, scale, nodata and units.
    storage_options
        Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.

    Returns
    -------
    xarray.Dataset
        Dask-backed variables on (y, x) or (time, y, x), those of a prediction also with `class`, in their stored dtype,
        packing in their attributes, coordinates `y`, `x`, `spatial_ref`, the attribute `lattice_origin`; with quality data
        or `mask` the boolean variable `valid`.

    Raises
    ------
    ConfigError
        The config cannot be read, or something in it is wrong; everything that is wrong is listed, by line and key.
    CubeError
        A source is missing, damaged, unfinished, or not on the common grid; a layer is missing. A file that turns out
        to be damaged later raises it when the chunk is computed.
    """
    given: RasterSource | CubeRecipe = source
    ground = cell
    if is_config(source):
        config = load_cube_config(str(source))
        given, ground = config.recipe(), cell or config.cell
    elif isinstance(source, str | PathLike) and mask is None and sensor is None:
        stored = config_of_built_cube(str(source), storage_options or {})
        if stored is not None:
            given, ground = with_native_images(stored.recipe(), str(source)), cell or stored.cell
            storage_options = None
    return open_source(
        given, ground, layers=layers, mask=mask, chunks=chunks, sensor=sensor, storage_options=storage_options
    )


@typed(CubeError)
def build_cube(
    source: str | PathLike[str] | CubeRecipe,
    path: str | PathLike[str],
    *,
    cell: Cell | None = None,
    layout: Literal["aligned", "native"] = "aligned",
    shard: int | None = None,
    overviews: bool = True,
    overwrite: bool = False,
    only: Sequence[str] = (),
    resolution: float | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> BuildResult:
    """Build a Zarr store from a config, part by part, on the dask scheduler of the caller.

    A part is one shard of every variable. It is read, warped and written by one task, which last of all writes the part's
    commit mark with digests of its bytes. Memory is bounded by the parts that run at a time. A call on a store that was not
    finished builds the parts without a mark, from the images that were found when it began, and ends with the same bytes
    as a call that was never stopped.

    Parameters
    ----------
    source
        Path of a YAML config, or a recipe.
    path
        Local path, or a URL that fsspec knows; ends in ``.zarr``. Workers on other machines have to reach it under the same
        name. The resolved config goes into the store, and beside it under the same name with ``.yaml``; a file of that name
        that is not such a config of this store is never replaced.
    cell
        Ground; None for the config's region.
    layout
        ``"aligned"``: one group on the config's grid. ``"native"``: a copy of every image's pixels on its own grid, which
        `open_cube` aligns when it opens the store, with the same result as the images themselves.
    shard
        Side of a shard, px; None for the config's chunk.
    overviews
        Also write levels at half the resolution each; for the aligned layout.
    overwrite
        Remove a store that is there, and start again. Without it, an unfinished one is continued.
    only
        Sources of a config that are built: their names, or ``trend`` or ``terrain`` for all that compute those; all if empty.
    resolution
        Side of a pixel in CRS units; None for the grid's own. For what is coarser than the cube, such as trends of 30 m.
    storage_options
        Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.

    Returns
    -------
    BuildResult
        Path, number of parts, how many of them this call has built, and the images that were left out.

    Raises
    ------
    ConfigError
        The config cannot be read, or something in it is wrong.
    CubeError
        The store was begun from another recipe, a source finds nothing, or an image cannot be read.
    OutputExistsError
        Something else is there, or another config beside it, or another process is building it.
    OutputNotWritableError
        The name does not end in ``.zarr``, nothing can be written there, or the disk is full; what is done stays done.
    """
    if isinstance(source, CubeRecipe) and (only or resolution is not None):
        raise ConfigError(
            "A recipe is built as it is; got the names of sources or a pixel size, too. Give a YAML file, or a recipe of those sources and pixels."
        )
    if isinstance(source, CubeRecipe):
        recipe, text = source, ""
    elif is_config(source):
        config = load_cube_config(source)
        cell = cell or config.cell
        if only or resolution is not None:
            if resolution is not None and cell is not None:
                around = RegionConfig.from_geometry(lonlat_polygon(cell.geobox.extent.geom, cell.grid.crs))
                config, cell = config.changed(region=around), None
            config = config.only(only, resolution=resolution)
        recipe = config.recipe()
        resolved = config.resolved().without_secrets()
        # The ground itself instead of the file that holds it, which is not where the store may be opened.
        ground = RegionConfig.from_geometry(recipe.region) if recipe.region is not None else None
        text = resolved.changed(region=ground if cell is None else {"cell": cell.id}).to_yaml()
    else:
        raise ConfigError(f"A cube is built from a YAML file; got {source!s}. Its name ends in .yaml or .yml.")
    sidecar = f"{str(path).rstrip('/')}.yaml"
    if text:
        _require_free(sidecar, text, store=str(path), options=storage_options or {})
    build = build_store(
        recipe,
        path,
        cell=cell,
        layout=layout,
        shard=shard,
        overviews=overviews,
        overwrite=overwrite,
        config=text,
        storage_options=storage_options,
    )
    if text:
        _write(sidecar, text, options=storage_options or {})
    return build


def _require_free(sidecar: str, text: str, *, store: str, options: Mapping[str, Any]) -> None:
    """Raise unless the resolved config may be written beside a store: nothing is there, or what a build wrote."""
    refuse_other_format(store, what="a Zarr store", suffixes=(".zarr",))
    if not store.rstrip("/").endswith(".zarr"):
        raise OutputNotWritableError(
            f"A cube is built into a Zarr store, and the name of one ends in .zarr; got {store}. Use {store.rstrip('/')}.zarr."
        )
    system, path = file_system(sidecar, options)
    if not system.exists(path):
        return
    there = system.cat_file(path).decode(errors="replace") if system.isfile(path) else None
    built = ""
    with suppress(Exception):  # whatever is wrong with the store, it does not know the file
        group = zarr.open_group(store_of(store, options, read_only=True), mode="r", use_consolidated=False)
        built = str(group["build"].attrs["config"])
    if there not in (text, built or text):
        raise OutputExistsError(
            f"{sidecar} exists and holds another config than the one that is stored beside {store} under this name. Move it "
            "away, or build under another name."
        )


def _write(sidecar: str, text: str, *, options: Mapping[str, Any]) -> None:
    """Write the config, all of it or nothing."""
    if is_url(sidecar):
        system, path = file_system(sidecar, options)
        with write_failures(sidecar):
            system.pipe_file(path, text.encode())
        return
    write_whole(local_path(sidecar), text.encode())
