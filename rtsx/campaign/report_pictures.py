"""Pictures of a report: cells finished over the time that a campaign ran, and probability around the largest and the surest outlines.

Pauses between runs are no part of that time, and pixels come from the campaign's own map alone.
"""

import io
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from rtsx.campaign.ledger import map_in_threads
from rtsx.campaign.products.coarse import greatest, probability_png
from rtsx.campaign.products.collect import footprint_keys
from rtsx.campaign.products.rasters import MapReader
from rtsx.campaign.products.tables import CellStates
from rtsx.campaign.records import RunRecord
from rtsx.campaign.report_map import place_name
from rtsx.errors import CampaignError
from rtsx.grid.grid import cell_id
from rtsx.pages import figure, render_page
from rtsx.storage.object_store import ObjectStore

if TYPE_CHECKING:
    from rtsx.campaign.campaign import Campaign

Floats = NDArray[np.float64]

_UNITS = (("minute", 60.0, 7200.0), ("hour", 3600.0, 5 * 86400.0), ("day", 86400.0, inf))
"""Intervals, their length, s, and the running time up to which they are taken, s."""
_SHORTEST_S = 1.0
"""Running time of whatever ran."""


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Cells finished by intervals of running time.

    Examples
    --------
    Two runs of a minute, a day apart:

    >>> runs = np.array([[0.0, 60.0], [86400.0, 86460.0]])
    >>> found = Throughput.of(np.array([10.0, 59.0, 86430.0]), runs)
    >>> found.unit, found.counts, found.per_hour.tolist(), found.running_s
    ('minute', (2, 1), [120.0, 60.0], 120.0)
    >>> found.moment(90.0).isoformat()
    '1970-01-02T00:00:30+00:00'
    """

    unit: str
    """Name of the interval: minute, hour or day."""
    edges: Floats
    """Ends of the intervals, s of running time, one more than there are; the last one holds what is left over."""
    counts: tuple[int, ...]
    """Cells finished in each."""
    stretches: Floats
    """Begin and end `(stretch, 2)` of each stretch without a pause, s since 1970, UTC."""

    @classmethod
    def of(cls, finished: Floats, running: Floats) -> Self | None:
        """Count cells; None without one.

        Parameters
        ----------
        finished
            When, s since 1970; each within a stretch of running.
        running
            Begin and end `(n, 2)` of what ran, likewise, in any order; they may overlap.
        """
        if not finished.size:
            return None
        stretches = _merged(running)
        total = max(float(np.diff(stretches).sum()), _SHORTEST_S)
        unit, length = next((name, length) for name, length, most in _UNITS if total <= most)
        n = max(round(total / length), 1)
        edges = np.append(np.arange(n) * length, total)
        place = np.searchsorted(stretches[:, 0], finished, side="right") - 1
        ran = _ran_before(stretches)[place] + finished - stretches[place, 0]
        counts = np.bincount(np.minimum((ran // length).astype(np.int64), n - 1), minlength=n)
        return cls(unit=unit, edges=edges, counts=tuple(counts.tolist()), stretches=stretches)

    @property
    def running_s(self) -> float:
        """Time that it ran, s."""
        return float(self.edges[-1])

    @property
    def per_hour(self) -> Floats:
        """Cells an hour in each interval."""
        return np.asarray(self.counts / np.diff(self.edges) * 3600)

    @property
    def mean_per_hour(self) -> float:
        """Cells an hour over all of it."""
        return sum(self.counts) / self.running_s * 3600

    @property
    def pauses(self) -> list[tuple[float, float]]:
        """Pauses of at least an interval: after how many seconds of running, and how long they were, s."""
        ends = _ran_before(self.stretches)[1:]
        lengths = self.stretches[1:, 0] - self.stretches[:-1, 1]
        least = next(length for name, length, _ in _UNITS if name == self.unit)
        return [(float(at), float(length)) for at, length in zip(ends, lengths, strict=True) if length >= least]

    def moment(self, ran_s: float) -> datetime:
        """Return the time, UTC, at which it had run for so many seconds."""
        before = _ran_before(self.stretches)
        place = int(np.searchsorted(before, ran_s, side="right")) - 1
        return datetime.fromtimestamp(float(self.stretches[place, 0] + ran_s - before[place]), UTC)


def running_spans(runs: Iterable[RunRecord], cells: Floats) -> Floats:
    """Begin and end `(n, 2)` of all that ran, s since 1970: runs until they last wrote their records, and cells, whose run may have left none."""
    spans = [[datetime.fromisoformat(moment).timestamp() for moment in (run.started, run.written)] for run in runs]
    return np.sort(np.concatenate([np.reshape(spans, (-1, 2)), cells]), axis=1)


def _merged(spans: Floats) -> Floats:
    spans = spans[np.argsort(spans[:, 0])]
    ends = np.maximum.accumulate(spans[:, 1])
    first = np.flatnonzero(np.append(True, spans[1:, 0] > ends[:-1]))
    return np.stack([spans[first, 0], ends[np.append(first[1:], len(spans)) - 1]], axis=1)


def _ran_before(stretches: Floats) -> Floats:
    """Return the running time before each stretch, s."""
    return np.asarray(np.append(0.0, np.cumsum(np.diff(stretches)[:-1])))


_WIDTH, _HEIGHT = 900, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 14, 34
_TICKS = 5


def throughput_chart(found: Throughput) -> str:
    """Draw an ``<svg>`` element: bars over running time, cells an hour upwards, a dashed line for each pause."""
    rates, edges = found.per_hour, found.edges
    most, right, bottom = float(rates.max()), _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def across(ran_s: Any) -> Any:
        return _LEFT + ran_s / edges[-1] * (right - _LEFT)

    def up(share: Any) -> Any:
        return bottom - share * (bottom - _TOP)

    def moment(ran_s: float) -> str:
        return f"{found.moment(ran_s):%Y-%m-%d %H:%M:%S}"

    moments, x = [moment(edge) for edge in edges], across(edges)
    heights = up(rates / most if most else np.zeros(len(rates)))
    facts = {
        "found": found,
        "figure": figure,
        "duration": duration,
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _LEFT,
        "right": right,
        "top": _TOP,
        "bottom": bottom,
        "levels": [(up(share), most * share) for share in (0.0, 0.5, 1.0)],
        "bars": [*zip(x[:-1], heights, np.diff(x) - 0.8, moments[:-1], moments[1:], found.counts, rates, strict=True)],
        "pauses": [(across(ran), length) for ran, length in found.pauses],
        "ticks": [(across(share * edges[-1]), moment(share * edges[-1])) for share in np.linspace(0, 1, _TICKS)],
    }
    return render_page("throughput.svg", facts)


def duration(seconds: float) -> str:
    """Return a length of time in the unit that suits it.

    Examples
    --------
    >>> duration(45), duration(5400), duration(106_444_800)
    ('45 s', '1.5 hours', '1,232 days')
    """
    for name, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{figure(seconds / length, 3)} {name}"
    return f"{seconds:,.0f} s"


_LARGEST = 3
"""Outlines that are shown for their area; and as many of the larger half for their probability."""
_LEAST_WINDOW, _LARGEST_WINDOW = 48, 4096
"""Side of what is shown, px of the map."""
_PICTURE = 256
"""Greatest side of a picture, px."""
_LOOK_WIDTH = 200
_COLUMNS = ("area_m2", "prob_mean", "prob_max", "class_name", "centroid_lon", "centroid_lat", "geometry")


@dataclass(frozen=True, kw_only=True)
class Quicklook:
    """One outline, and the probability around it."""

    title: str
    """What it is, in words."""
    outline: shapely.Geometry
    """In pixels of the window, y down."""
    side: int
    """Of the window, px of the map."""
    picture: bytes
    """PNG of the probability."""

    @property
    def html(self) -> str:
        """Draw a ``<figure>`` that needs nothing else."""
        rings = map(shapely.get_coordinates, shapely.get_rings(shapely.get_parts(self.outline)))
        picture = b64encode(self.picture).decode()
        return render_page("look.svg", {"look": self, "width": _LOOK_WIDTH, "rings": rings, "picture": picture})


def make_quicklooks(campaign: "Campaign", *, states: CellStates, damaged: list[str]) -> list[Quicklook]:
    """Draw the largest outlines of a year and the surest of the larger half, collected ones where they are those of the map of now.

    Parameters
    ----------
    campaign
        Whose output is read.
    states
        Finished cells.
    damaged
        Receives what is wrong with outlines and pixels that cannot be read; the others are drawn.

    Raises
    ------
    CampaignError, FootprintError
        There is no such year in the map, or the rule of confidence cannot be read.
    """
    objects, plan = campaign.objects, campaign.plan
    keys = footprint_keys(objects, plan, states)

    def measures(key: str) -> NDArray[np.float64]:
        """Return two columns and no geometry, because those of a whole year do not fit into memory; no row of what is damaged."""
        try:
            table = _read(objects, key, _COLUMNS[:2])
        except CampaignError as error:
            damaged.append(str(error))
            return np.empty((0, 2))
        return np.stack([table[name].to_numpy() for name in _COLUMNS[:2]], axis=1)

    looks = []
    reader = MapReader.of(campaign.output, plan, "probability", options=campaign.storage_options, finished=states)
    for number, row in _chosen([*map_in_threads(measures, keys)]):
        try:
            table = _read(objects, keys[number], _COLUMNS)
            looks.append(_drawn(table.slice(row, 1).to_pylist()[0], reader))
        except CampaignError as error:
            damaged.append(str(error))
    return looks


def _read(objects: ObjectStore, key: str, columns: Sequence[str]) -> pa.Table:
    content = objects.get(key)
    if content is None:
        raise CampaignError(f"{key} is missing, and holds outlines. Verify the campaign.")
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        return file.read(columns=[*columns]).select([*columns])
    except (OSError, ValueError, KeyError) as error:
        raise CampaignError(f"{key} cannot be read as outlines ({error}). Verify the campaign.") from error


def _chosen(tables: Sequence[NDArray[np.float64]]) -> list[tuple[int, int]]:
    """Return the number of the table and of its row for the largest outlines, and the surest of the larger half."""
    values = np.concatenate([np.empty((0, 2)), *tables])
    table_of = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    first = np.cumsum([0, *map(len, tables)])
    by_size = np.argsort(-values[:, 0], kind="stable")
    half = by_size[_LARGEST : max(-(-len(by_size) // 2), 2 * _LARGEST)]
    picked = [*by_size[:_LARGEST], *half[np.argsort(-values[half, 1], kind="stable")][:_LARGEST]]
    return [(int(table_of[row]), int(row - first[table_of[row]])) for row in picked]


def _drawn(row: Mapping[str, Any], reader: MapReader) -> Quicklook:
    plan = reader.plan
    (height, width), resolution = plan.shape, plan.grid.resolution
    left, top = plan.geobox.affine * (0, 0)
    outline = shapely.transform(
        shapely.from_wkb(row["geometry"]), lambda at: (at - (left, top)) / (resolution, -resolution)
    )
    west, north, east, south = outline.bounds
    side = int(np.clip(1.6 * max(east - west, south - north), _LEAST_WINDOW, min(_LARGEST_WINDOW, height, width)))
    y, x = (
        int(np.clip((low + high - side) // 2, 0, length - side))
        for low, high, length in ((north, south, height), (west, east, width))
    )
    classes = plan.prediction.classes
    band = classes.index(row["class_name"]) if row["class_name"] in classes else 0
    cell = (
        plan.rows[0] + int((north + south) / 2 // plan.grid.cell_size),
        plan.columns[0] + int((west + east) / 2 // plan.grid.cell_size),
    )
    try:
        pixels = reader.read(slice(y, y + side), slice(x, x + side))[band]
    except (OSError, ValueError, RuntimeError) as error:  # what codecs raise of damaged shards
        raise CampaignError(
            f"An outline in {cell_id(*cell)} has no picture, because the map cannot be read there: {error}. Verify the campaign."
        ) from error
    kind = f"{row['class_name']}, " if len(classes) > 1 else ""
    return Quicklook(
        title=f"{kind}{row['area_m2']:,.0f} m², mean probability {row['prob_mean']:.2f}, at "
        f"{place_name(row['centroid_lon'], row['centroid_lat'])}, in {cell_id(*cell)}; {side:,} px across",
        outline=shapely.transform(outline, lambda at: at - (x, y)),
        side=side,
        picture=probability_png(greatest(pixels, -(-side // _PICTURE))),
    )
