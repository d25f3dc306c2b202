"""`python -m benchmarks NAME ...`: time, memory and quality of what rtsx does, beside other ways to do the same, as tables."""

import argparse
from collections.abc import Callable
from pathlib import Path
from sys import modules

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
    pictures,
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


def _speed(given: argparse.Namespace) -> None:
    tiles = tuple((tile, tile // 4) for tile in given.tiles)
    speed.run(size=given.size, rounds=given.rounds, tiles=tiles, backends=tuple(given.backends))


def _reading(given: argparse.Namespace) -> None:
    reading.run(size=given.scene, chunk=given.chunk, rounds=given.rounds, rasters=given.rasters)


def _campaign(given: argparse.Namespace) -> None:
    campaign.run(given.cells, simulated=tuple(given.workers), limit_s=given.limit)


RUNS: dict[str, Callable[[argparse.Namespace], object]] = {
    "speed": _speed,
    "host": lambda given: host.run(size=given.size, rounds=given.rounds),
    "feed": lambda given: feed.run(size=given.size, rounds=given.rounds, rates=given.rates),
    "memory": lambda given: memory.run(tuple(given.sizes)),
    "reading": _reading,
    "basemap": lambda given: basemap.run(side=given.size, rows=150, cell=given.chunk, rounds=given.rounds),
    "season": lambda given: season.run(count=given.images, side=given.chunk, chunk=given.chunk),
    "alignment": lambda given: alignment.run(size=given.chunk, rounds=given.rounds),
    "tracks": lambda given: tracks.run(tuple(given.slumps)),
    "trend": lambda given: trend.run(side=given.stack, scenes=tuple(given.scenes)),
    "learning": lambda given: learning.run(epochs=given.epochs),
    "review": lambda _: review.run(seeds=(0, 1, 2)),
    "pictures": lambda _: pictures.run(size=2048, outlines=20, repeats=50),
    "campaign": _campaign,
    "allocator": lambda given: allocator.run(tuple(given.sides)),
    "teams": lambda given: teams.run(tuple(given.tiles)),
    "start": lambda given: start.run(rounds=given.rounds),
    "work": lambda given: work.kills() if given.kills else work.run(tuple(given.workers)),
    "drift": lambda _: drift.run(),
    "gpu": lambda given: gpu.run(given.out, minutes=given.minutes, size=given.size),
}
"""What can be measured, in the order in which all is."""


def main() -> None:
    """Parse the command line and run what it asks for."""
    told = [f"{name:11}{str(modules[f'benchmarks.{name}'].__doc__).splitlines()[0]}" for name in RUNS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="\n".join(told),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def several(option: str, *usual: object, kind: type = int, tells: str) -> None:
        parser.add_argument(option, type=kind, nargs="*", default=list(usual), help=tells)

    def one(option: str, usual: object, *, tells: str) -> None:
        parser.add_argument(option, type=type(usual), default=usual, help=tells)

    parser.add_argument("what", nargs="*", choices=RUNS, help="all but gpu, if none is named")
    one("--size", 4096, tells="side of the cube for speed, host and feed, and of the quads of basemap, px")
    one("--rounds", 3, tells="how often every contender runs")
    several("--tiles", 256, 512, 1024, tells="tiles, each with a quarter overlap")
    several("--backends", "eager", "auto", kind=str, tells="backends for tile='auto'")
    several("--sizes", 4096, 12288, tells="sides of the cube for memory, px")
    one("--scene", 3072, tells="side of the scene for reading, px")
    one("--images", 60, tells="images of a season")
    several("--rasters", kind=Path, tells="further files for the codecs of reading")
    one("--chunk", 1024, tells="side of a chunk for reading and alignment, and of the cell of basemap, px")
    several("--slumps", 10_000, 25_000, 50_000, tells="outlines per year for tracks")
    one("--stack", 256, tells="side of the scenes for trend, px")
    several("--scenes", 100, 400, tells="numbers of scenes for trend")
    one("--epochs", 8, tells="epochs of 25 batches for learning")
    one("--cells", 100_000, tells="cells of the largest campaign")
    several("--workers", 1, 4, 16, 64, tells="simulated workers of a campaign")
    parser.add_argument("--kills", action="store_true", help="kill the workers of work, instead of measuring them")
    several("--sides", 512, 3264, tells="sides of tiles for the allocator, px")
    one("--limit", 600.0, tells="longest time of one graph beside a campaign, s")
    several("--rates", 5.0, 10.0, 20.0, 50.0, kind=float, tells="of the device of feed, Mpx/s")
    one("--minutes", 8.0, tells="after which no step of gpu begins")
    one("--out", Path("gpu"), tells="folder for the table and the trace of gpu")
    given = parser.parse_args()
    # Not as the default, which Python 3.11 holds against the choices.
    for name in given.what or [name for name in RUNS if name != "gpu"]:
        RUNS[name](given)


if __name__ == "__main__":  # worker processes import this file once more
    main()
