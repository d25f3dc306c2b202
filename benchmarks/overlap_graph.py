"""`python -m benchmarks.overlap_graph CHUNKS WORKERS`: one graph over a raster of so many chunks; prints its tasks, then its seconds."""

import math
import sys
import tempfile
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np

from rtsx.campaign.clusters import connect_cluster
from rtsx.campaign.recipe import ClusterSpec

SIDE = 4
"""Side of a chunk, px: small, because the pixels are not what is measured."""


def same(block: np.ndarray) -> np.ndarray:
    """Do nothing."""
    return block


def main(chunks: int, workers: int) -> None:
    """Predict nothing, chunk by chunk with a halo, into a Zarr array."""
    rows = math.isqrt(chunks)
    shape = (rows * SIDE, -(-chunks // rows) * SIDE)
    # Every chunk is stored, also those of nothing but the fill value, as a map would be.
    with (
        tempfile.TemporaryDirectory() as folder,
        connect_cluster(ClusterSpec(workers=workers)) as client,
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}),
    ):
        client.wait_for_workers(workers)
        begin = time.perf_counter()
        raster = da.ones(shape, chunks=SIDE, dtype="uint8").map_overlap(same, depth=1, boundary="none", dtype="uint8")
        stored = da.to_zarr(raster, str(Path(folder) / "map.zarr"), compute=False)
        print(len(dict(stored.__dask_graph__())), flush=True)
        dask.compute(stored)
        print(time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
