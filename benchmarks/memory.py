"""Peak memory of a whole prediction at two sizes of the cube, each in a process of its own."""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import rtsx
from benchmarks.peak import peak_mib
from benchmarks.scene import make_bundle, write_scene

_LAYERS = ("red", "nir")


def small_network() -> torch.nn.Module:
    """Three convolutions: the cube is the burden, not the network."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 1, 1),
    )


def predict(store: Path, out: Path) -> float:
    """Zarr to Zarr; returns the peak resident memory of this process in MiB."""
    bundle = make_bundle(small_network(), layers=_LAYERS, stride=1)
    cube = rtsx.open_cube(store)
    rtsx.write_cube(rtsx.predict_cube(cube, bundle, tile=512, overlap=64, backend="eager"), out, overviews=False)
    return peak_mib()


def run(sizes: tuple[int, ...]) -> dict[int, float]:
    """Measure each size in a fresh process and print the table."""
    peaks: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        for size in sizes:
            store = write_scene(Path(name), size, layers=_LAYERS)
            command = [sys.executable, "-m", "benchmarks.memory", str(store), str(Path(name) / f"out-{size}.zarr")]
            peaks[size] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"{size:6} x {size}: peak {peaks[size]:8.0f} MiB", flush=True)
    print(f"ratio of the largest to the smallest cube's peak: {peaks[sizes[-1]] / peaks[sizes[0]]:.3f}")
    return peaks


if __name__ == "__main__":
    print(predict(Path(sys.argv[1]), Path(sys.argv[2])))
