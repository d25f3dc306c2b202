"""`python -m benchmarks`: time and memory of predictions, reading, basemaps, seasons, trends and tracks, what the host costs around a device, what a device waits for, what handing memory back and idle threads cost, errors of warps, what training reaches on real data, what a review teaches a model, what a campaign's driver costs, how workers without a scheduler share cells, what a drift check finds, and how soon commands answer, as tables."""

import argparse
from pathlib import Path

from benchmarks import (
    alignment,
    allocator,
    basemap,
    campaign,
    drift,
    feed,
    gpu,
    host,
    learning,
    memory,
    reading,
    review,
    season,
    speed,
    start,
    teams,
    tracks,
    trend,
    work,
)


def main() -> None:
    """Parse the command line and run what it asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    everything = [
        "speed",
        "host",
        "feed",
        "memory",
        "reading",
        "basemap",
        "season",
        "alignment",
        "tracks",
        "trend",
        "learning",
        "review",
        "campaign",
        "allocator",
        "teams",
        "start",
        "work",
        "drift",
    ]
    parser.add_argument("what", nargs="*", choices=[*everything, "gpu"], help="all but gpu, if none is named")
    parser.add_argument(
        "--size",
        type=int,
        default=4096,
        help="side of the cube for speed, host and feed, and of the quads of basemap, px",
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often every contender runs")
    parser.add_argument(
        "--tiles", type=int, nargs="*", default=[256, 512, 1024], help="tiles, each with a quarter overlap"
    )
    parser.add_argument("--backends", nargs="*", default=["eager", "auto"], help="backends for tile='auto'")
    parser.add_argument("--sizes", type=int, nargs="*", default=[4096, 12288], help="sides of the cube for memory, px")
    parser.add_argument("--scene", type=int, default=3072, help="side of the scene for reading, px")
    parser.add_argument("--images", type=int, default=60, help="images of a season")
    parser.add_argument("--rasters", type=Path, nargs="*", default=[], help="further files for the codecs of reading")
    parser.add_argument(
        "--chunk",
        type=int,
        default=1024,
        help="side of a chunk for reading and alignment, and of the cell of basemap, px",
    )
    parser.add_argument(
        "--slumps", type=int, nargs="*", default=[10_000, 25_000, 50_000], help="outlines per year for tracks"
    )
    parser.add_argument("--stack", type=int, default=256, help="side of the scenes for trend, px")
    parser.add_argument("--scenes", type=int, nargs="*", default=[100, 400], help="numbers of scenes for trend")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of 25 batches for learning")
    parser.add_argument("--cells", type=int, default=100_000, help="cells of the largest campaign")
    parser.add_argument(
        "--workers", type=int, nargs="*", default=[1, 4, 16, 64], help="simulated workers of a campaign"
    )
    parser.add_argument("--kills", action="store_true", help="kill the workers of work, instead of measuring them")
    parser.add_argument(
        "--sides", type=int, nargs="*", default=[512, 3264], help="sides of tiles for the allocator, px"
    )
    parser.add_argument("--limit", type=float, default=600, help="longest time of one graph beside a campaign, s")
    parser.add_argument("--rates", type=float, nargs="*", default=[5, 10, 20, 50], help="of the device of feed, Mpx/s")
    parser.add_argument("--minutes", type=float, default=8, help="after which no step of gpu begins")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder for the table and the trace of gpu")
    given = parser.parse_args()
    given.what = given.what or everything  # not as the default, which Python 3.11 holds against the choices
    if "speed" in given.what:
        tiles = tuple((tile, tile // 4) for tile in given.tiles)
        speed.run(size=given.size, rounds=given.rounds, tiles=tiles, backends=tuple(given.backends))
    if "gpu" in given.what:
        gpu.run(given.out, minutes=given.minutes, size=given.size)
    if "host" in given.what:
        host.run(size=given.size, rounds=given.rounds)
    if "feed" in given.what:
        feed.run(size=given.size, rounds=given.rounds, rates=given.rates)
    if "memory" in given.what:
        memory.run(tuple(given.sizes))
    if "reading" in given.what:
        reading.run(size=given.scene, chunk=given.chunk, rounds=given.rounds, rasters=given.rasters)
    if "basemap" in given.what:
        basemap.run(side=given.size, rows=150, cell=given.chunk, rounds=given.rounds)
    if "season" in given.what:
        season.run(count=given.images, side=given.chunk, chunk=given.chunk)
    if "alignment" in given.what:
        alignment.run(size=given.chunk, rounds=given.rounds)
    if "tracks" in given.what:
        tracks.run(tuple(given.slumps))
    if "trend" in given.what:
        trend.run(side=given.stack, scenes=tuple(given.scenes))
    if "learning" in given.what:
        learning.run(epochs=given.epochs)
    if "review" in given.what:
        review.run(seeds=(0,))
    if "campaign" in given.what:
        campaign.run(given.cells, simulated=tuple(given.workers), limit_s=given.limit)
    if "allocator" in given.what:
        allocator.run(tuple(given.sides))
    if "teams" in given.what:
        teams.run(tuple(given.tiles))
    if "start" in given.what:
        start.run(rounds=given.rounds)
    if "work" in given.what and given.kills:
        work.kills()
    elif "work" in given.what:
        work.run(tuple(given.workers))
    if "drift" in given.what:
        drift.run()


if __name__ == "__main__":  # worker processes import this file once more
    main()
