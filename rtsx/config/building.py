"""`build_cube` for configs: the resolved YAML is stored in the store and beside it."""

from collections.abc import Mapping
from contextlib import suppress
from os import PathLike
from typing import Any, Literal

import zarr

from rtsx.arguments import typed
from rtsx.config.files import load_cube_config
from rtsx.config.opening import is_config
from rtsx.config.place import RegionConfig
from rtsx.cube import building
from rtsx.cube.recipe import CubeRecipe
from rtsx.cube.zarr import file_system, store_of
from rtsx.errors import ConfigError, CubeError, OutputExistsError, OutputNotWritableError
from rtsx.grid import Cell
from rtsx.storage import is_url, local_path, staged

__all__ = ["Build", "build_cube"]

Build = building.Build


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
    storage_options: Mapping[str, Any] | None = None,
) -> Build:
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
        `open_cube` aligns when it opens the store, with the same answer as the images themselves.
    shard
        Side of a shard, px; None for the config's chunk.
    overviews
        Also write levels at half the resolution each; for the aligned layout.
    overwrite
        Remove a store that is there, and start again. Without it, an unfinished one is continued.
    storage_options
        For fsspec, where `path` is a URL.

    Returns
    -------
    Build
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
    if isinstance(source, CubeRecipe):
        recipe, text = source, ""
    elif is_config(source):
        config = load_cube_config(source)
        cell = cell or config.cell
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
    build = building.build_cube(
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
        system.pipe_file(path, text.encode())
        return
    with staged(local_path(sidecar), overwrite=True) as stage:
        stage.write_text(text, encoding="utf-8")
