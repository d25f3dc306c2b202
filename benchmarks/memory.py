"""Peak memory of a whole prediction, and of one pass over the map that it makes, at two sizes, each in a process of its own."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import rtsx
from benchmarks.peak import peak_mib
from benchmarks.scene import make_bundle, write_scene
from rtsx.evaluation import expected_area

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


def sum_area(out: Path) -> tuple[float, float]:
    """Expected area of a map by cells; returns the peak resident memory of this process in MiB, and megapixels per second."""
    pred = rtsx.open_cube(out)
    started = time.perf_counter()
    expected_area(pred, cell_m=1000)
    return peak_mib(), pred.sizes["y"] * pred.sizes["x"] / 1e6 / (time.perf_counter() - started)


def run(sizes: tuple[int, ...]) -> dict[int, float]:
    """Measure each size in a fresh process and print the table."""
    peaks: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        for size in sizes:
            store = write_scene(Path(name), size, layers=_LAYERS)
            out = Path(name) / f"out-{size}.zarr"
            peaks[size] = float(_measured(store, out))
            print(f"{size:6} x {size}: peak {peaks[size]:8.0f} MiB", flush=True)
            peak, speed = map(float, _measured(out).split())
            print(f"       expected area: peak {peak:8.0f} MiB, {speed:.1f} Mpx/s", flush=True)
    print(f"ratio of the largest to the smallest cube's peak: {peaks[sizes[-1]] / peaks[sizes[0]]:.3f}")
    return peaks


def _measured(*paths: Path) -> str:
    command = [sys.executable, "-m", "benchmarks.memory", *map(str, paths)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(predict(Path(sys.argv[1]), Path(sys.argv[2])))
    else:
        print(*sum_area(Path(sys.argv[1])))
