"""What handing memory back to the system costs a network on a CPU: the same tiles with the C library's defaults and with what
workers are given, each in a process of its own with one thread.

Seconds that the processor was busy, because they say on a shared machine what the clock does not.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

import rtsx
from benchmarks.peak import peak_mib
from rtsx.cube.georeference import with_georeference
from rtsx.model.allocator import KEEPING
from rtsx.synthetic import demo_bundle_path

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def busy_per_megapixel(bundle: rtsx.ModelBundle, tile: int, *, passes: int) -> float:
    """Seconds of processor time for a megapixel of tiles of this side, px."""
    random = np.random.default_rng(0)
    layers = {  # such values as the bundle has learnt
        layer.name: (("y", "x"), ((random.random((tile, tile)) - layer.offset) / layer.scale).astype(np.float32))
        for layer in bundle.inputs
    }
    geobox = GeoBox((tile, tile), Affine(3, 0, 0, 0, -3, 0), "EPSG:3413")
    cube = with_georeference(layers, geobox, lattice_origin=(0.0, 0.0))
    spent = []
    for _ in range(1 + passes):  # the first loads the network and does not count
        begin = time.process_time()
        rtsx.predict_cube(
            cube, bundle, tile=tile, overlap=0, trim=0, blend="linear", backend="eager", device="cpu"
        ).load()
        spent.append(time.process_time() - begin)
    return sum(spent[1:]) / passes / (tile**2 / 1e6)


def run(tiles: tuple[int, ...], *, passes: int = 2, bundle: Path | None = None) -> dict[tuple[int, str], float]:
    """Measure each side, px, both ways, and print a table; s per megapixel by side and name.

    The bundle is by default the one that ships with rtsx.
    """
    network = str(bundle or demo_bundle_path())
    here = {name: value for name, value in os.environ.items() if name not in KEEPING} | dict.fromkeys(_THREADS, "1")
    print(f"{'tile':>6}{'memory':>12}{'busy s / megapixel':>20}{'peak MiB':>10}")
    found = {}
    for tile in tiles:
        for name, environment in (("handed back", here), ("kept", here | KEEPING)):
            command = [sys.executable, "-m", "benchmarks.allocator", network, str(tile), str(passes)]
            told = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env=environment
            ).stdout.split()
            found[tile, name] = float(told[0])
            print(f"{tile:6}{name:>12}{float(told[0]):20.2f}{float(told[1]):10.0f}", flush=True)
    return found


if __name__ == "__main__":
    network, side, times = sys.argv[1:]
    print(busy_per_megapixel(rtsx.ModelBundle.open(network, trust=True), int(side), passes=int(times)), peak_mib())
