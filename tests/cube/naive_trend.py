"""Trends in the plainest way: one pixel after the other, by `numpy.polyfit` and by the median of all slopes; and stacks of scenes to try them on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry import mapping

from rtsx.grid import lonlat_polygon

BANDS = ("blue", "green", "red", "nir08", "swir16", "swir22")
MATRIX = np.array(
    [
        [0.2043, 0.4158, 0.5524, 0.5741, 0.3124, 0.2303],
        [-0.1603, -0.2819, -0.4934, 0.7940, -0.0002, -0.1446],
        [0.0315, 0.2021, 0.3102, 0.1594, -0.6806, -0.6109],
    ]
)
SLOPE = np.array([0.9785, 0.9542, 0.9825, 1.0073, 1.0171, 0.9949])
INTERCEPT = np.array([-0.0095, -0.0016, -0.0022, -0.0021, -0.0030, 0.0029])
CLEAR, CLOUD, SNOW, FILL = 21824, 22280, 30048, 1


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Scenes on one grid."""

    dn: NDArray[np.uint16]
    """(time, band, y, x)."""
    qa: NDArray[np.uint16]
    """(time, y, x)."""
    times: Sequence[datetime]
    satellites: Sequence[int]
    geobox: GeoBox = field(default_factory=lambda: GeoBox((1, 1), Affine(30, 0, 565005, 0, -30, 7725015), "EPSG:32607"))

    @property
    def here(self) -> GeoBox:
        """Raster of every scene."""
        return GeoBox(self.dn.shape[2:], self.geobox.affine, self.geobox.crs)


def random_stack(shape: tuple[int, int], count: int, *, seed: int, clear: float = 0.6, **fields: Any) -> Stack:
    """Series with gaps, clouds, some that nobody flagged, and pixels that nobody ever saw."""
    rng = np.random.default_rng(seed)
    times = sorted(
        datetime(2000 + int(rng.integers(0, 20)), 7, 1, 20, tzinfo=UTC) + timedelta(days=float(rng.integers(0, 62)))
        for _ in range(count)
    )
    ground = rng.uniform(0.03, 0.3, (6, *shape))
    change = rng.normal(0, 0.04, (6, *shape))
    years = np.array([(time - datetime(2010, 1, 1, tzinfo=UTC)).days / 3650 for time in times])
    seen = ground + change * years[:, None, None, None] + rng.normal(0, 0.01, (count, 6, *shape))
    seen[(rng.random((count, *shape)) < 0.04)[:, None].repeat(6, axis=1)] += 0.5
    dn = np.clip(np.rint((seen + 0.2) / 2.75e-5), 1, 65535).astype(np.uint16)
    qa = rng.choice([CLEAR, CLOUD, SNOW, FILL], (count, *shape), p=[clear, *np.array([0.5, 0.25, 0.25]) * (1 - clear)])
    dn[(qa == FILL)[:, None].repeat(6, axis=1)] = 0
    qa[:, 0, : shape[1] // 2] = CLOUD
    qa[4:, -1, : shape[1] // 2] = CLOUD
    satellites = rng.choice([5, 7, 8, 9], count).tolist()
    return Stack(dn=dn, qa=qa.astype(np.uint16), times=times, satellites=satellites, **fields)


def slopes_of(stack: Stack, y: int, x: int, *, method: str = "linear") -> tuple[int, NDArray[np.float64] | None]:
    """Number of observations and slopes a decade of the three indices; no slopes of fewer than five."""
    seen = stack.qa[:, y, x] == CLEAR
    reflectance = stack.dn[seen, :, y, x] * 2.75e-5 - 0.2
    oli = np.array(stack.satellites)[seen] >= 8
    reflectance[oli] = (reflectance[oli] - INTERCEPT) / SLOPE
    if not len(reflectance):
        return 0, None
    judged = reflectance[:, :4]
    keep = (np.abs(judged - judged.mean(axis=0)) <= 3 * judged.std(axis=0)).all(axis=1)
    decades = np.array([time.timestamp() for time in stack.times])[seen][keep] / 86400 / 3650
    indices = reflectance[keep] @ MATRIX.T
    if len(indices) < 5 or np.ptp(decades) == 0:
        return len(indices), None
    if method == "linear":
        return len(indices), np.polyfit(decades - decades.mean(), indices, 1)[0]
    pairs = [(a, b) for a, b in combinations(range(len(indices)), 2) if decades[a] != decades[b]]
    found = [(indices[a] - indices[b]) / (decades[a] - decades[b]) for a, b in pairs]
    return len(indices), np.median(found, axis=0)


def trends_of(stack: Stack, *, method: str = "linear") -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(y, x) numbers of observations and (3, y, x) slopes, NaN where there is none."""
    shape = stack.dn.shape[2:]
    number, slopes = np.zeros(shape, np.int64), np.full((3, *shape), np.nan)
    for y, x in np.ndindex(*shape):
        number[y, x], found = slopes_of(stack, y, x, method=method)
        slopes[:, y, x] = np.nan if found is None else found
    return number, slopes


def published(slopes: NDArray[np.float64]) -> NDArray[np.uint8]:
    """-0.12 to 0.12 a decade on 0 to 255; 0 where there is no slope."""
    return np.nan_to_num(np.clip(np.rint((slopes + 0.12) / 0.24 * 255), 0, 255)).astype(np.uint8)


def write_items(stack: Stack, folder: Path, *, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Write every scene as one file and describe it as an item of Landsat Collection 2."""
    folder.mkdir(parents=True, exist_ok=True)
    geobox = stack.here
    outline = lonlat_polygon(geobox.extent.geom, str(geobox.crs))
    packed = {"data_type": "uint16", "nodata": 0, "scale": 2.75e-5, "offset": -0.2}
    items = []
    for place, (dn, qa, time, satellite) in enumerate(
        zip(stack.dn, stack.qa, stack.times, stack.satellites, strict=True)
    ):
        name = (
            names[place] if names else f"L{'TE'[satellite == 7] if satellite < 8 else 'C'}0{satellite}_L2SP_{place:06}"
        )
        bands, quality = folder / f"{name}_SR.tif", folder / f"{name}_QA.tif"
        profile: dict[str, Any] = {
            "driver": "GTiff", "height": geobox.shape.y, "width": geobox.shape.x, "dtype": "uint16",
            "crs": str(geobox.crs), "transform": geobox.affine, "tiled": True, "blockxsize": 16, "blockysize": 16,
        }  # fmt: skip
        with rasterio.open(bands, "w", count=6, nodata=0, **profile) as file:
            file.write(dn)
        with rasterio.open(quality, "w", count=1, **profile) as file:
            file.write(qa[None])
        items.append(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": name,
                "collection": "landsat-c2-l2",
                "geometry": mapping(outline),
                "bbox": list(outline.bounds),
                "links": [],
                "properties": {
                    "datetime": time.isoformat(),
                    "platform": f"landsat-{satellite}",
                    "eo:cloud_cover": 20.0,
                    "proj:code": str(geobox.crs),
                    "proj:shape": list(geobox.shape.yx),
                    "proj:transform": list(geobox.affine)[:6],
                },
                "assets": {
                    "sr": {
                        "href": str(bands),
                        "eo:bands": [{"name": band, "common_name": band} for band in BANDS],
                        "raster:bands": [packed] * 6,
                    },
                    "qa_pixel": {"href": str(quality), "raster:bands": [{"data_type": "uint16", "nodata": 1}]},
                },
            }
        )
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return items
