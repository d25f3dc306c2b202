"""Opening what the arguments name."""

from collections.abc import Sequence
from pathlib import Path

import typer
import xarray as xr

import rtsx
from rtsx.cli.options import chunk_size, words
from rtsx.errors import CubeError
from rtsx.synthetic import demo_bundle_path

__all__ = ["open_image", "open_models", "open_prediction", "require_valid_pixel"]


def open_image(
    paths: Sequence[str],
    *,
    layers: str | None,
    sensor: str | None,
    mask: str | None,
    mask_rule: str | None,
    chunks: str,
) -> xr.Dataset:
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
    return rtsx.open_cube(
        paths[0] if len(paths) == 1 else list(paths),
        layers=words(layers),
        sensor=sensor,
        mask=None if mask is None or mask_rule is None else (mask, mask_rule),
        chunks=chunk_size(chunks),
    )


def open_models(
    models: Sequence[str], *, trust: bool
) -> "list[rtsx.ModelBundle]":  # quoted, because the name loads torch
    """Open one bundle per name; `demo` is the one that ships with rtsx.

    Raises
    ------
    BundleError
        See `rtsx.ModelBundle.open`.
    """
    return [rtsx.ModelBundle.open(_path(model), trust=trust) for model in models]


def open_prediction(path: str) -> xr.Dataset:
    """Open what `rtsx predict` wrote.

    Raises
    ------
    CubeError
        It is something else.
    """
    stored = rtsx.open_cube(path)
    missing = [name for name in ("probability", "binary") if name not in stored]
    if missing:
        raise CubeError(
            f"{path} is no prediction: it has {list(stored.data_vars)}, and {' and '.join(missing)} is missing. "
            "Make one with rtsx predict."
        )
    return stored


def require_valid_pixel(pred: xr.Dataset, *, source: str) -> None:
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
    return str(demo_bundle_path()) if model == "demo" and not Path(model).exists() else model
