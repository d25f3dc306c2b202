"""YAML files of cubes to start from: the layers of a published model, or one product of a public catalog."""

import re
import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import yaml

from rtsx.config.cube import CubeConfig
from rtsx.config.validate import validate_config
from rtsx.config.yaml import parse_yaml
from rtsx.errors import ConfigError
from rtsx.storage import absolute
from rtsx.suggest import did_you_mean

_SCENES = """\
  planetscope:
    sensor: planetscope
    # The folder that `rtsx order fetch` has put scenes into, or any STAC catalog of yours.
    catalog: {path: planetscope, max_cloud_cover: %(cloud)s, prefer_local: true}
    quality: {%(quality)s}
"""

_TRENDS = """\
  tcvis:
    # Computed from every scene of Landsat in the window: once, by `rtsx cube build %(name)s --only trend --resolution 30 --out trends.zarr`;
    # then `zarr: trends.zarr` with `layers: [tc_brightness, tc_greenness, tc_wetness]` stands in place of these three lines.
    sensor: landsat
    stac: {query: {"landsat:collection_category": {eq: T1}}}
    trend: "{tcvis_window}"
"""

_MODELS: Mapping[str, str] = MappingProxyType(
    {
        "tss-v1": _SCENES % {"cloud": 20, "quality": "erode_m: 30"}
        + "  dem:\n    sensor: arcticdem\n    terrain: [relative_elevation, slope]\n",
        "darts-v2": _SCENES % {"cloud": 60, "quality": "keep_low: false"}
        + "    group: day\n"
        + "  dem:\n    sensor: arcticdem\n    terrain: [relative_elevation, slope, aspect, hillshade, curvature]\n"
        + "    keep_dem: true\n",
    }
)
"""Sources of the published models, as YAML, before those of trends."""

_PIXEL_M = {"sentinel2": 10, "sentinel1-rtc": 10, "landsat": 30, "hls": 30, "arcticdem": 10}
"""Pixels of the products that public catalogs have, m."""

STARTERS = (*_MODELS, *_PIXEL_M)
"""What a file can be started from."""


_NORTHERN = (*_MODELS, "arcticdem")
"""What takes elevation from ArcticDEM, which ends in the north."""


def starter_yaml(preset: str, *, region: str, year: int, name: str = "cube.yaml") -> str:
    """Return the YAML text of a cube to start from; it opens as it stands, once the scenes that it names are there.

    Parameters
    ----------
    preset
        One of `STARTERS`: a published model, or a product of a public catalog.
    region
        West, south, east and north in degrees with commas or spaces between, the name of a cell such as ``r412c088``, or the path of a
        vector file or raster.
    year
        Of the images: July and August for tss-v1, July to September else.
    name
        File that it is going to be, for the commands in it.

    Raises
    ------
    ConfigError
        There is no such preset, the region is none, or it is in the south, where there is no ArcticDEM.

    Notes
    -----
    The grid is polar stereographic: EPSG:3413, or EPSG:3031 where the middle of the region is south of the equator.

    Examples
    --------
    >>> print(starter_yaml("sentinel2", region="-139.3,69.5,-138.9,69.65", year=2024))
    grid: {crs: 'EPSG:3413', resolution: 10}
    region: {bbox: [-139.3, 69.5, -138.9, 69.65]}
    period: {years: 2024, months: [7, 8, 9]}
    sources:
      sentinel2: {sensor: sentinel2}
    <BLANKLINE>
    """
    if preset not in STARTERS:
        raise ConfigError(
            f"A cube is started from one of {', '.join(STARTERS)}; got {preset!r}.{did_you_mean(preset, STARTERS)}"
        )
    is_model = preset in _MODELS
    months = [7, 8] if preset == "tss-v1" else [7, 8, 9]
    head = {
        **({"preset": preset} if is_model else {}),
        "grid": {"crs": "EPSG:3413", "resolution": 3 if is_model else _PIXEL_M[preset]},
        "region": _region(region),
        "period": {"years": year, "months": months},
    }
    lines = [f"{key}: {_flow(value)}\n" for key, value in head.items()]
    product = f"  {preset}: {{sensor: {preset}}}\n"
    sources = _MODELS[preset] + _TRENDS % {"name": shlex.quote(name)} if is_model else product
    text = "".join(lines) + "sources:\n" + sources
    ground = _config(text).region
    outline = None if ground is None else ground.geometry()
    if outline is not None and outline.bounds[1] + outline.bounds[3] < 0:
        if preset in _NORTHERN:
            raise ConfigError(
                f"{preset} takes elevation from ArcticDEM, which has none south of the equator; got {region!r}. Start from another "
                "product, such as sentinel2."
            )
        text = text.replace("EPSG:3413", "EPSG:3031", 1)
    _config(text).recipe()
    return text


def _config(text: str) -> CubeConfig:
    return validate_config(CubeConfig, parse_yaml(text, name="The cube to start from"))


def _region(text: str) -> dict[str, Any]:
    """Return the region of a config that a text names."""
    parts = text.replace(",", " ").split()
    try:
        bbox = [float(part) for part in parts]
    except ValueError:
        return {"cell": text} if re.fullmatch(r"r-?\d+c-?\d+", text) else {"file": absolute(text)}
    if len(bbox) != 4:
        raise ConfigError(f"A region is west,south,east,north in degrees, a cell, or the path of a file; got {text!r}.")
    return {"bbox": bbox}


def _flow(value: object) -> str:
    """Return a value as YAML on one line."""
    return str(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)).split("\n")[0]
