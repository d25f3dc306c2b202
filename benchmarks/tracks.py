"""Seconds of tracking outlines over five years, by their number; and what a track costs as the number grows.

The outlines are made here, from a seed: blobs of 48 corners on a field of 400 m squares, log-normal in size, that drift by
some metres, grow by 3 per cent of their radius and change their rims every year. One in twenty is missed every year.
"""

import time
from dataclasses import dataclass

import geopandas
import numpy as np
import shapely

import rtsx
from rtsx.footprints import track_summary
from rtsx.footprints.geometry import measure

YEARS = 5
CORNERS = 48
MISSED = 0.05
"""Part of the outlines that a year's map does not have."""


def make_years(count: int, *, seed: int = 0) -> dict[int, geopandas.GeoDataFrame]:
    """Outlines of every year, `count` slumps of which some are missed, with the areas that footprints have."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(count**0.5))
    place = np.stack(np.divmod(np.arange(count), side)[::-1], axis=1) * 400.0 + rng.uniform(-100, 100, (count, 2))
    radius = rng.lognormal(np.log(50), 0.5, count).clip(15, 180)
    angle = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    around = np.stack((np.cos(angle), np.sin(angle)), axis=-1)
    years = {}
    for number in range(YEARS):
        place = place + rng.normal(0, 2, (count, 2))
        rim = (
            1 + 0.2 * rng.standard_normal((count, 1)) * np.sin(3 * angle) + 0.05 * rng.standard_normal((count, CORNERS))
        )
        length = (radius * 1.03**number)[:, None] * rim.clip(0.3)
        outlines = shapely.polygons(place[:, None] + length[..., None] * around)
        seen = np.flatnonzero(rng.random(count) >= MISSED)
        table = geopandas.GeoDataFrame(
            {"footprint_id": [f"y{slump}x0" for slump in seen]}, geometry=outlines[seen], crs="EPSG:3413"
        )
        table["area_m2"], _ = measure(outlines[seen], table.crs)
        years[2020 + number] = table
    return years


@dataclass(frozen=True)
class Timing:
    """What one run took."""

    outlines: int
    """Outlines of all years."""
    tracks: int
    """Tracks that they make."""
    clock: float
    """Seconds on the clock for tracks and summary."""
    busy: float
    """Seconds of all processors together."""


def run(counts: tuple[int, ...]) -> dict[int, Timing]:
    """Measure and print a table, one line per number of slumps."""
    print(f"{'slumps':>9}{'outlines':>10}{'tracks':>9}{'clock s':>9}{'busy s':>9}{'clock ms / outline':>20}")
    timings = {}
    for count in counts:
        years = make_years(count)
        begin, busy = time.perf_counter(), time.process_time()
        tracks = rtsx.track_footprints(years)
        summary = track_summary(tracks)
        took = Timing(len(tracks), len(summary), time.perf_counter() - begin, time.process_time() - busy)
        timings[count] = took
        print(
            f"{count:9}{took.outlines:10}{took.tracks:9}{took.clock:9.1f}{took.busy:9.1f}"
            f"{1000 * took.clock / took.outlines:20.3f}",
            flush=True,
        )
    return timings
