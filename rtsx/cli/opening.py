"""Opening what the arguments name; what holds nothing is refused before the libraries that would open it are loaded."""

import re
from collections.abc import Iterable, Sequence
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

import rtsx
from rtsx.cli.options import chunk_size, words
from rtsx.errors import BundleError, CubeError, InputNotFoundError

if TYPE_CHECKING:  # heavy, and neither `--help` nor a refusal should wait for them
    import xarray as xr

    from rtsx.model.metadata import Metadata

__all__ = [
    "described_models",
    "open_image",
    "open_models",
    "open_prediction",
    "require_device",
    "require_models",
    "require_there",
    "require_tiling",
    "require_valid_pixel",
]

# Of GDAL's drivers and virtual file systems, and of fsspec: what is there behind them only they know.
_ELSEWHERE = re.compile(r"^(/vsi|[A-Za-z][A-Za-z0-9_+]+:)")


def require_there(paths: Iterable[str]) -> None:
    """Refuse local paths that hold nothing.

    Raises
    ------
    InputNotFoundError
        One does.
    """
    for path in paths:
        if not _is_there(path):
            raise InputNotFoundError(f"{path} cannot be opened: there is no such file or folder. Check the path.")


def require_models(models: Iterable[str]) -> None:
    """Refuse local paths of models that hold nothing.

    Raises
    ------
    BundleError
        One does.
    """
    for model in models:
        if not (model == "demo" or _is_there(model)):
            raise BundleError(
                f"There is no model at {model}. Check the path; it is a bundle's folder or a file of weights."
            )


def _is_there(path: str) -> bool:
    return bool(_ELSEWHERE.match(path)) or Path(path.partition("|layername=")[0]).expanduser().exists()


def described_models(models: Sequence[str]) -> "list[Metadata]":
    """What local bundles say of themselves, without their networks; of a file of weights nothing is known so early.

    Raises
    ------
    BundleError
        One says what no bundle does.
    """
    from rtsx.model.item import ITEM_NAME, read_item

    items = [Path(_path(model)) / ITEM_NAME for model in models]
    return [read_item(item.read_bytes(), where=str(item)).metadata for item in items if item.is_file()]


def require_tiling(
    described: "Sequence[Metadata]", *, tile: int | Literal["auto", "bundle"], overlap: int | Literal["auto", "bundle"]
) -> None:
    """Refuse tiles and overlaps that bundles cannot have.

    Raises
    ------
    PlanError
        One is off the lattice of a network, or the overlap is not below the tile.
    """
    if not described or not (isinstance(tile, int) or isinstance(overlap, int)):
        return
    from rtsx.tiling import TilePlan

    first = described[0]
    stride = lcm(*(one.stride or 1 for one in described))
    shared = overlap if isinstance(overlap, int) else 0
    # A tile that is left to the plan is as large as it has to be.
    side = tile if isinstance(tile, int) else first.tile if tile == "bundle" else 2 * stride * (shared + 1)
    TilePlan(shape=(1, 1), offset=(0, 0), tile=side or 1, overlap=shared, trim=0, stride=stride)


def require_device(device: str) -> None:
    """Refuse a device that this machine does not have; loads torch, and no network.

    Raises
    ------
    BundleError
        It is unknown, or not there.
    """
    if device not in {"auto", "cpu"}:
        from rtsx.model.network import resolve_device

        resolve_device(device)


def open_image(
    paths: Sequence[str],
    *,
    layers: str | None,
    sensor: str | None,
    mask: str | None,
    mask_rule: str | None,
    chunks: str,
    scale: float | None,
) -> "xr.Dataset":
    """Open the cube of a Zarr store or of raster files, by options as they were given.

    Raises
    ------
    CubeError
        See `rtsx.open_cube`.
    """
    if (mask is None) != (mask_rule is None):
        raise typer.BadParameter(
            "--mask and --mask-rule go together: quality data can be read in more than one way.",
            param_hint="--mask" if mask is None else "--mask-rule",
        )
    side = chunk_size(chunks)
    require_there([*paths, *([] if mask is None else [mask])])
    cube = rtsx.open_cube(
        paths[0] if len(paths) == 1 else list(paths),
        layers=words(layers),
        sensor=sensor,
        mask=None if mask is None or mask_rule is None else (mask, mask_rule),
        chunks=side,
    )
    return cube if scale is None else _scaled(cube, scale)


def _scaled(cube: "xr.Dataset", scale: float) -> "xr.Dataset":
    from rtsx.cube import layer_names

    silent = [
        name for name in layer_names(cube) if cube[name].dtype.kind in "iu" and "scale_factor" not in cube[name].attrs
    ]
    if not silent:
        raise typer.BadParameter("every layer says its scale, or holds floats; leave it out.", param_hint="--scale")
    return cube.assign({name: cube[name].assign_attrs(scale_factor=scale) for name in silent})


def open_models(
    models: Sequence[str], *, trust: bool
) -> "list[rtsx.ModelBundle]":  # quoted, because the name loads torch
    """Open one bundle per name; `demo` is the one that ships with rtsx.

    Raises
    ------
    BundleError
        See `rtsx.ModelBundle.open`.
    """
    require_models(models)
    return [rtsx.ModelBundle.open(_path(model), trust=trust) for model in models]


def open_prediction(path: str) -> "xr.Dataset":
    """Open what `rtsx predict` wrote.

    Raises
    ------
    CubeError
        It is something else.
    """
    require_there([path])
    stored = rtsx.open_cube(path)
    missing = [name for name in ("probability", "binary") if name not in stored]
    if missing:
        raise CubeError(
            f"{path} is no prediction: it has {list(stored.data_vars)}, and {' and '.join(missing)} is missing. "
            "Make one with rtsx predict."
        )
    return stored


def require_valid_pixel(pred: "xr.Dataset", *, source: str) -> None:
    """Refuse an image without a valid pixel; reads as far as the first chunk that has one.

    Raises
    ------
    CubeError
        There is none.
    """
    valid = pred["valid"].data
    if not any(bool(valid.blocks[index].any()) for index in _indices(valid.numblocks)):
        raise CubeError(
            f"No pixel of {source} is valid: every one is nodata or NaN in some layer, or masked. "
            "Check nodata, the layers and --mask-rule with: rtsx info"
        )


def _indices(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    indices: list[tuple[int, ...]] = [()]
    for length in shape:
        indices = [(*index, place) for index in indices for place in range(length)]
    return indices


def _path(model: str) -> str:
    bundled = Path(rtsx.__file__).parent / "synthetic" / "bundle"
    return str(bundled) if model == "demo" and not Path(model).exists() else model
