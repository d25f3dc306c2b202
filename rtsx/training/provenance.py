"""Where a bundle comes from: libraries, code and machine."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

import rtsx

__all__ = ["git_revision", "library_versions", "machine"]

_LIBRARIES = ("kornia", "lightning", "numpy", "scipy", "segmentation-models-pytorch", "timm", "torch", "xarray")
"""Libraries whose versions the weights may depend on."""


def library_versions() -> dict[str, str]:
    """Versions by name, Python's and our own among them."""
    found = {"python": platform.python_version(), "rtsx": rtsx.__version__}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # an optional one
            continue
    return found


def git_revision(folder: Path) -> str | None:
    """Commit that a working directory is at, with ``+changes`` where files differ from it; None where there is no git."""
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(folder), *command], check=True, capture_output=True, text=True, timeout=30
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+changes" if changes else commit


def machine(device: torch.device, *, devices: int) -> dict[str, object]:
    """What a training ran on: sums are rounded as the device and the number of threads have it."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": device.type, "name": name, "devices": devices, "threads": torch.get_num_threads()}
