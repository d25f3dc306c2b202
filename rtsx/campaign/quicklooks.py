"""Small pictures of what a campaign has found: probability around the largest and the surest outlines, from its own map alone."""

import html
import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from rtsx.campaign.cell_map import place_name
from rtsx.campaign.ledger import map_in_threads
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.products.coarse import probability_png
from rtsx.campaign.products.collect import footprint_keys
from rtsx.campaign.products.rasters import MapReader
from rtsx.campaign.products.tables import CellStates
from rtsx.errors import CampaignError
from rtsx.grid.grid import cell_id
from rtsx.storage.object_store import ObjectStore

_LARGEST = 3
"""Outlines that are shown for their area; and as many of the larger half for their probability."""
_LEAST_WINDOW, _LARGEST_WINDOW = 48, 4096
"""Side of what is shown, px of the map."""
_PICTURE = 256
"""Greatest side of a picture, px."""
_WIDTH = 200
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
        rings = shapely.get_rings(shapely.get_parts(self.outline))
        path = "".join(
            "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in shapely.get_coordinates(ring).tolist()) + "Z"
            for ring in rings
        )
        title = html.escape(self.title)
        return (
            f'<figure><svg class="look" role="img" aria-label="{title}" width="{_WIDTH}" viewBox="0 0 {self.side} {self.side}">'
            f'<image width="{self.side}" height="{self.side}" href="data:image/png;base64,{b64encode(self.picture).decode()}"/>'
            f'<path class="outline" d="{path}"/></svg><figcaption>{title}</figcaption></figure>'
        )


def make_quicklooks(
    objects: ObjectStore,
    plan: CampaignPlan,
    *,
    output: str,
    storage_options: Mapping[str, Any],
    states: CellStates,
    damaged: list[str],
) -> list[Quicklook]:
    """Draw the largest outlines of a year and the surest of the larger half, collected ones where they are those of the map of now.

    Parameters
    ----------
    objects, plan, output, storage_options
        Of the campaign.
    states
        Finished cells.
    damaged
        Receives what is wrong with outlines and pixels that cannot be read; the others are drawn.

    Raises
    ------
    CampaignError, FootprintError
        There is no such year in the map, or the rule of confidence cannot be read.
    """
    keys = footprint_keys(objects, plan, states)

    def measures(key: str) -> NDArray[np.float64]:
        """Two columns and no geometry, because those of a whole year do not fit into memory; no row of what is damaged."""
        try:
            table = _read(objects, key, _COLUMNS[:2])
        except CampaignError as error:
            damaged.append(str(error))
            return np.empty((0, 2))
        return np.stack([table[name].to_numpy() for name in _COLUMNS[:2]], axis=1)

    looks = []
    reader = MapReader.of(output, plan, "probability", options=storage_options, finished=states)
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
    """Number of the table and of its row for the largest outlines, and the surest of the larger half."""
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
        picture=probability_png(_shrunk(pixels)),
    )


def _shrunk(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Take the greatest of blocks of pixels, so that few enough are left; what is outside is missing."""
    step = -(-len(pixels) // _PICTURE)
    side = -(-len(pixels) // step)
    padded = np.pad(
        pixels + np.uint8(1), (0, side * step - len(pixels))
    )  # 255 is missing, and one more makes it the least
    return np.asarray(padded.reshape(side, step, side, step).max(axis=(1, 3)) - np.uint8(1))
