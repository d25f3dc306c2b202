"""`rtsx info`: what this installation can do, or what a path holds."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

import rtsx
from rtsx.cli import options
from rtsx.cli.console import show
from rtsx.cli.options import open_image
from rtsx.cli.summary import cube_rows, prediction_rows

__all__ = ["GPU_DRIVERS", "app"]

app = typer.Typer()

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
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/nvmap", "/dev/kfd", "/dev/dxg")
"""What drivers of NVIDIA, Jetson, AMD and WSL bring on Linux; without one there is no GPU that torch, which takes seconds, could
tell of."""


@app.command(epilog="Examples:\n\nrtsx info\n\nrtsx info scene.tif\n\nrtsx info map.zarr")
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
    """Tell versions, devices and extras of this installation, or grid and layers of a cube, image or map."""
    if not images:
        show("rtsx", _installation(), asked=True)
        return
    cube = open_image(
        images, layers=layers, sensor=sensor, mask=None, mask_rule=None, chunks="auto", scale=scale, nodata=nodata
    )
    is_prediction = "bundle_digest" in cube.attrs and {"probability", "binary", "valid"} <= set(cube.data_vars)
    show(" ".join(images), prediction_rows(cube) if is_prediction else cube_rows(cube), asked=True)


def _installation() -> list[tuple[str, object]]:
    devices: list[str] = []
    if sys.platform != "linux" or any(Path(driver).exists() for driver in GPU_DRIVERS):
        import torch

        devices = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [
        ("rtsx", rtsx.__version__),
        ("Python", platform.python_version()),
        *((name, _version(name)) for name in _LIBRARIES),
        ("devices", ", ".join([*devices, f"cpu ({processors} processors)"])),
        *((f"extra {name}", _version(library)) for name, library in _EXTRAS.items()),
    ]


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"
