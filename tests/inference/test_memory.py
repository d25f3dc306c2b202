"""Projected memory bounds what a small run takes."""

import json

import pytest

from tests import warm

# In processes of their own, because a peak can only be read once and would be that of other tests.
SCRIPT = """
import json, os, resource, sys
import dask.array as da
import numpy as np, torch, xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
import rtsx
from rtsx.inference import predict

def measure(size, chunk, tile):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(2, 24, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(24, 24, 3, padding=1), torch.nn.Conv2d(24, 1, 1)
    )
    bundle = rtsx.ModelBundle.from_module(network, layers=("a", "b"), mean=[0, 0], std=[1, 1], tile=tile, overlap=32, stride=1)
    geobox = GeoBox((size, size), Affine(3, 0, 0, 0, -3, 0), "EPSG:3413")
    pixels = da.ones((size, size), chunks=chunk, dtype=np.float32)
    cube = xr.Dataset({name: (("y", "x"), pixels) for name in "ab"}).assign_coords(xr_coords(geobox, always_yx=True))

    found = []
    original = predict.require_memory
    predict.require_memory = lambda *given, **more: found.append(original(*given, **more))
    options = {"tile": tile, "overlap": 32, "backend": "eager"}
    small = cube.isel(y=slice(0, 64), x=slice(0, 64))
    rtsx.predict_cube(small, bundle, **options).compute()  # loads what there is to load
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lazy = rtsx.predict_cube(cube, bundle, **options)
    lazy["probability"].data.sum().compute(num_workers=2)  # a sum, so that the answer itself is not kept
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"measured": (after - before) * 1024, "projected": found[-1].total_bytes}))

for case in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        try:
            measure(*case)
            sys.stdout.flush()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
"""
CASES = [(1024, 512, 256), (1536, 768, 512)]


@pytest.fixture(scope="module")
def peaks() -> dict[tuple[int, ...], dict[str, int]]:
    """What was measured and what was projected, of each case."""
    done = warm.run(SCRIPT, [json.dumps(CASES)])
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(CASES), done.stderr[-3000:]
    return dict(zip(CASES, found, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_projected_memory_bounds_the_measured(
    peaks: dict[tuple[int, ...], dict[str, int]], case: tuple[int, int, int]
) -> None:
    found = peaks[case]
    assert found["measured"] <= found["projected"]
    assert found["projected"] < 20 * max(found["measured"], 2**24), "a bound that is never near refuses what would work"
