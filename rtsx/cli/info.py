"""`rtsx info`: what this installation can do, or what a path holds; and the rows that commands print about cubes, maps and models."""

import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import rtsx
from rtsx.cli import options
from rtsx.cli.console import Commands, show
from rtsx.names import version_of

if TYPE_CHECKING:  # heavy, and `--help` should not wait for them
    import xarray as xr

    from rtsx.model import ModelBundle

app = Commands()

Rows = list[tuple[str, object]]

_LIBRARIES = ("torch", "segmentation-models-pytorch", "xarray", "dask", "zarr", "rasterio", "odc-geo", "geopandas")
_EXTRAS = {
    "azure": "adlfs",
    "deliver": "morecantile",
    "fast": "zarrs",
    "gateway": "dask-gateway",
    "gcs": "gcsfs",
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "order": "planet",
    "s3": "s3fs",
    "train": "lightning",
    "view": "matplotlib",
}
_ABSENT = "not installed"
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/nvmap", "/dev/kfd", "/dev/dxg")
"""What drivers of NVIDIA, Jetson, AMD and WSL bring on Linux; without one there is no GPU that torch, which takes seconds, could
tell of."""


@app.command()
def info(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CUBE|TIF...]", help="What to describe; this installation if left out.", show_default=False
        ),
    ] = None,
    *,
    sensor: options.SensorOption = None,
    scale: options.ScaleOption = None,
    nodata: options.NodataOption = None,
    layers: options.LayersOption = None,
) -> None:
    """Tell versions, devices and extras of this installation, or grid and layers of a cube, image or map.

    Examples
    --------
    rtsx info

    rtsx info scene.tif

    rtsx info map.zarr
    """
    if not images:
        show("rtsx", *_installation(), asked=True)
        return
    cube = options.open_image(
        images, layers=layers, sensor=sensor, mask=None, mask_rule=None, chunks="auto", scale=scale, nodata=nodata
    )
    is_prediction = "bundle_digest" in cube.attrs and {"probability", "binary", "valid"} <= set(cube.data_vars)
    show(" ".join(images), *(prediction_rows(cube) if is_prediction else cube_rows(cube)), asked=True)


def _installation() -> Rows:
    devices: list[str] = []
    if sys.platform != "linux" or any(Path(driver).exists() for driver in GPU_DRIVERS):
        import torch

        devices = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [
        ("rtsx", rtsx.__version__),
        ("Python", platform.python_version()),
        *((name, version_of(name) or _ABSENT) for name in _LIBRARIES),
        ("devices", ", ".join([*devices, f"cpu ({processors} processors)"])),
        *((f"extra {name}", version_of(library) or _ABSENT) for name, library in _EXTRAS.items()),
    ]


def cube_rows(cube: "xr.Dataset") -> Rows:
    """Return where a cube lies and what its layers are; reads no pixel."""
    from rtsx.cube import layer_names

    rows = _place_rows(cube)
    for name in layer_names(cube):
        layer = cube[name]
        packing = [
            f"{label} {layer.attrs[key]:g}"
            for key, label in (("scale_factor", "scale"), ("add_offset", "offset"), ("_FillValue", "nodata"))
            if key in layer.attrs
        ]
        rows.append((name, ", ".join([str(layer.dtype), *packing, str(layer.attrs.get("units", ""))]).rstrip(", ")))
    if "valid" in cube:
        rows.append(("mask", cube["valid"].attrs.get("mask_rule", "yes")))
    return rows


def prediction_rows(pred: "xr.Dataset") -> Rows:
    """Return where a stored prediction lies, what made it, and how much is valid and found; reads `valid` and `binary`."""
    from dask.base import compute

    from rtsx.cube import class_names

    valid, found = compute(pred["valid"].mean(), (pred["binary"] == 1).sum(["y", "x"]))
    n_valid = int(pred["valid"].size * float(valid))
    classes = class_names(pred) or ["target"]
    per_class = found if "time" not in found.dims else found.sum("time")
    counts = zip(classes, per_class.values.reshape(-1).tolist(), strict=True)
    return [
        *_place_rows(pred),
        ("model", f"{pred.attrs.get('bundle_id', '')} ({pred.attrs['bundle_digest'][:12]})".strip()),
        ("tiles", tiling_line(pred)),
        ("valid", f"{float(valid):.1%} of the pixels"),
        *((name, f"{count:,} px, {count / max(n_valid, 1):.2%} of the valid ones") for name, count in counts),
    ]


def bundle_rows(bundle: "ModelBundle") -> Rows:
    """Return what a bundle is and wants."""
    reach = bundle.reach
    return [
        ("id", bundle.id),
        ("digest", bundle.digest),
        ("network", f"{bundle.source.architecture}, {bundle.n_parameters:,} parameters"),
        ("layers", ", ".join(bundle.layers)),
        ("preset", bundle.preset),
        ("classes", f"{', '.join(bundle.classes)} ({bundle.activation}, threshold {bundle.threshold:g})"),
        ("outlines", "" if bundle.outlines is None else f"{bundle.outlines}, chosen by objects"),
        ("temperature", "" if bundle.temperature == 1 else f"{bundle.temperature:g}"),
        ("tile", f"{bundle.tile} px, overlap {bundle.overlap}, trim {bundle.trim}, stride {bundle.stride}"),
        ("pixel", "" if bundle.pixel_m is None else f"{bundle.pixel_m:g} m on the ground"),
        ("bn_mode", bundle.bn_mode),
        (
            "reach",
            "not measured yet; see rtsx model probe"
            if reach is None
            else reach_line(reach.radius, reach.depends_on_tile),
        ),
    ]


def scaling_rows(bundle: "ModelBundle") -> Rows:
    """Return how each channel of a bundle is made of a layer."""
    rows: Rows = [("scaling", "of physical values")]
    for layer in bundle.inputs:
        clip = "" if layer.clip is None else f", clipped to {layer.clip[0]:g} .. {layer.clip[1]:g}"
        units = f" ({layer.units})" if layer.units else ""
        rows.append((f"  {layer.name}", f"x {layer.scale:g} + {layer.offset:g}{clip}{units}"))
    return rows


def reach_line(radius: int, depends_on_tile: bool) -> str:
    """Return how far a pixel matters, in words."""
    if depends_on_tile:
        return f"{radius} px, and the answer changes with the size of the tile"
    return f"{radius} px, whatever the size of the tile"


def tiling_line(pred: "xr.Dataset") -> str:
    """Return the tiles of a stored prediction, from the plan in its attributes."""
    tiling = json.loads(pred.attrs["plan"])["tiling"]
    return f"{tiling['tile']} px, overlap {tiling['overlap']}, trim {tiling['trim']}, {tiling['blend']}"


def _place_rows(cube: "xr.Dataset") -> Rows:
    from rtsx.cube import geobox_of
    from rtsx.cube.times import years_of

    geobox = geobox_of(cube)
    rows, columns = geobox.shape
    crs = geobox.crs
    pixel = f" of {abs(geobox.affine.a):g} m" if crs is not None and crs.projected else ""
    named = "no CRS" if crs is None else f"EPSG:{crs.epsg}" if crs.epsg else crs.proj.name
    years = sorted({str(year) for year in years_of(cube) if year is not None})
    n = cube.sizes.get("time")
    times = "" if n is None else f", {n} time{'s' * (n != 1)}{' of ' * bool(years)}{', '.join(years)}"
    return [("grid", f"{rows} x {columns} px{pixel}, {named}{times}")]
