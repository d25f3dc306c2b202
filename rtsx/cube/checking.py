"""Whether a cube is what it should be: its bytes, its gaps and its contents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr
import zarr

from rtsx.cube.marks import differing_keys, read_marks
from rtsx.cube.statistics import LayerStatistics, cube_statistics
from rtsx.cube.zarr import BUILD, COMPLETE, store_of
from rtsx.errors import CubeError

__all__ = ["BuildState", "CubeCheck", "build_state", "check_cube"]


@dataclass(frozen=True, kw_only=True)
class BuildState:
    """How far a store is that was built part by part."""

    parts: int
    """All parts."""
    done: int
    """Those that have their mark."""
    is_complete: bool
    """Whether the store says that it is."""
    gaps: tuple[str, ...]
    """Images that were left out, as ``source/id``."""
    images: Mapping[str, Sequence[str]]
    """Ids of its images, by source."""
    config: str
    """Text that was stored beside the data."""
    layout: str
    """``aligned`` or ``native``."""


@dataclass(frozen=True, kw_only=True)
class CubeCheck:
    """What a check has found."""

    layers: Mapping[str, LayerStatistics]
    """Statistics of every layer, and of `valid`."""
    build: BuildState | None
    """How far it is built; None for what was not built part by part."""
    damaged: tuple[str, ...]
    """Files or objects that are not what was written."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, in words; empty where nothing is."""
        found = []
        if self.build is not None:
            if self.build.done < self.build.parts:
                found.append(f"{self.build.parts - self.build.done} of {self.build.parts} parts are not built")
            elif not self.build.is_complete:
                found.append("the build has not ended: run it again")
            found += [f"image {gap} was left out" for gap in self.build.gaps]
        found += [f"{key} is missing or damaged" for key in self.damaged]
        for name, layer in self.layers.items():
            if name == "valid" and not layer.mean > 0:
                found.append("no pixel is valid")
            elif not layer.count:
                found.append(f"layer {name} holds no data")
        return tuple(found)


def build_state(path: str, options: Mapping[str, Any]) -> BuildState | None:
    """How far a store is built; None for a store that was not built part by part.

    Raises
    ------
    CubeError
        Building has hardly begun.
    """
    group = _root(path, options)
    if group is None or BUILD not in group.attrs:
        return None
    state: Any = group.attrs[BUILD]
    if state["state"] == "preparing":
        raise CubeError(f"{path} was stopped before anything was in it. Run its build again.")
    details: Any = group["build"].attrs.asdict()
    marks = read_marks(group)
    return BuildState(
        parts=int(details["parts"]),
        done=len(marks),
        is_complete=group.attrs.get(COMPLETE) is True,
        gaps=tuple(sorted({f"{gap.source}/{gap.image}" for mark in marks.values() for gap in mark.gaps})),
        images=details["images"],
        config=str(details["config"]),
        layout=str(details["recipe"]["layout"]),
    )


def check_cube(cube: xr.Dataset, *, path: str | None = None, options: Mapping[str, Any] | None = None) -> CubeCheck:
    """Check a cube; computes every chunk once, and reads every stored byte.

    Parameters
    ----------
    cube
        What to look at.
    path
        The store that it comes from; None for a cube that is nowhere yet.
    options
        For fsspec.
    """
    build: BuildState | None = None
    damaged: tuple[str, ...] = ()
    if path is not None:
        build = build_state(path, options or {})
        if build is not None:
            store = store_of(path, options or {}, read_only=True)
            damaged = tuple(differing_keys(store, read_marks(zarr.open_group(store, mode="r")).values()))
    return CubeCheck(layers=cube_statistics(cube), build=build, damaged=damaged)


def _root(path: str, options: Mapping[str, Any]) -> zarr.Group | None:
    try:
        return zarr.open_group(store_of(path, options, read_only=True), mode="r", use_consolidated=False)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
