"""`view`: images, maps, outlines and campaigns, given as paths or as values, on one interactive map."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import geopandas
import numpy as np
import pyproj
import xarray as xr

from rtsx.arguments import typed
from rtsx.campaign import Campaign
from rtsx.campaign.layout import MAP
from rtsx.config.campaign import load_campaign_config
from rtsx.config.cube import is_config, load_cube_config
from rtsx.config.place import RegionConfig
from rtsx.config.yaml import Document, validate_config
from rtsx.cube import CubeRecipe
from rtsx.errors import ConfigError, CubeError
from rtsx.labels.io import read_table
from rtsx.storage import file_name
from rtsx.viewer.mapview import MapView, Shown
from rtsx.viewer.pyramid import Box, Pyramid
from rtsx.viewer.render import OutlineLayer

if TYPE_CHECKING:
    from rtsx.model import ModelBundle

__all__ = ["view"]

ImageGiven = str | PathLike[str] | xr.Dataset | xr.DataArray | CubeRecipe
OutlinesGiven: TypeAlias = str | PathLike[str] | geopandas.GeoDataFrame
CampaignGiven = str | PathLike[str] | Campaign
_TRUTH = "#1f77ff"
_STATES = {"mapped": "#2a8c55", "empty": "#a9c8d8", "running": "#e0a100", "failed": "#c0392b", "left": "#999999"}


@typed(CubeError, but=("image", "cube"))
def view(
    image: ImageGiven | Sequence[ImageGiven] | Mapping[str, ImageGiven] | None = None,
    *,
    cube: ImageGiven | None = None,
    footprints: OutlinesGiven | None = None,
    truth: OutlinesGiven | None = None,
    tracks: OutlinesGiven | None = None,
    campaign: CampaignGiven | None = None,
    year: int | None = None,
    model: object = (),
    style: Mapping[str, str] | None = None,
    bbox: Sequence[float] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> MapView:
    """Show images, maps and outlines on one interactive map, in the CRS of the first image.

    In a notebook the map shows itself in the cell; `MapView.save_png` and `MapView.save_html` write it. Nothing is read but what
    is seen, at the coarsest overview that shows each pixel of the screen.

    Parameters
    ----------
    image
        A map or another image: a path or URL of a Zarr store, of a raster file or of a YAML config, or a lazy cube. Several,
        such as maps of two years, are compared side by side or swiped; a mapping gives their titles.
    cube
        The image below them, that the maps were made from.
    footprints, truth, tracks
        Outlines in any CRS: paths of vector files or tables. Coloured by a column, with a table beside the map.
    campaign
        A campaign, the folder of its output or its YAML config: its map, its outlines, and its cells by state.
    year
        What is seen at first of images of several years, and of a campaign: the last time that is not after it. That of the campaign
        if left out, else the last time of all.
    model
        Bundle that predicts what is seen, on demand, or several: a `ModelBundle` or its path, as `ModelBundle.open` takes it.
    style
        How images are drawn at first, by title, such as ``{"cube": "false colour"}``.
    bbox
        What is seen at first: west, south, east and north, degrees. All of the cube if left out, or of the first image where there is
        none.
    storage_options
        Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.

    Returns
    -------
    MapView
        The map; nothing of it is drawn yet.

    Raises
    ------
    ConfigError, CubeError, FootprintError, LabelError, CampaignError, BundleError
        Something cannot be opened, there is nothing to show, or nothing of the year.
    """
    opened = None if campaign is None else _campaign(campaign, year)
    given = dict(_titled(image))
    if opened is not None:
        given["map"] = f"{opened.output.rstrip('/')}/{MAP}"
    images = {"cube": _image(cube, storage_options)} if cube is not None else {}
    options = storage_options if opened is None else {**opened.storage_options, **(storage_options or {})}
    images |= {title: _image(one, options) for title, one in given.items()}
    if not images:
        raise CubeError("A map needs an image: give a map, an image or a campaign; got none of them.")
    year = year if opened is None else opened.plan.year
    if year is not None:
        _require_year(images if opened is None else {"map": images["map"]}, year)
    images = {title: replace(one, year=year) for title, one in images.items()}
    crs = images[next(iter(given), "cube")].crs
    tables = []
    if opened is not None:
        tables.append(OutlineLayer.of(opened.cells(), title="cells", crs=crs, colours=_STATES))
        if footprints is None:
            tables.append(OutlineLayer.of(opened.outlines(), title="footprints", crs=crs))
    for title, table, colour in (("truth", truth, _TRUTH), ("tracks", tracks, None), ("footprints", footprints, None)):
        if table is not None:
            known = table if isinstance(table, geopandas.GeoDataFrame) else read_table(fspath(table), what=title)
            tables.append(OutlineLayer.of(known, title=title, crs=crs, colour=colour))
    return MapView(
        title=f"{next(iter(given), 'cube')} - rtsx",
        crs=crs,
        images=images,
        outlines=tables,
        models=_bundles([*model] if isinstance(model, list | tuple) else [model]),
        shown=tuple(Shown(image=title, style=name) for title, name in (style or {}).items()),
        box=None if bbox is None else _box(bbox, images, crs=crs),
    )


def _titled(image: Any) -> list[tuple[str, ImageGiven]]:
    if image is None:
        return []
    if isinstance(image, Mapping) and not isinstance(image, xr.Dataset):
        return [(str(title), one) for title, one in image.items()]
    given = [*image] if isinstance(image, list | tuple) else [image]
    names = [Path(file_name(fspath(one))).name if isinstance(one, str | PathLike) else "image" for one in given]
    return [
        (name if names.count(name) == 1 else f"{name} {number}", one)
        for number, (name, one) in enumerate(zip(names, given, strict=True), start=1)
    ]


def _image(given: ImageGiven, options: Mapping[str, Any] | None) -> Pyramid:
    if not isinstance(given, str | PathLike | xr.Dataset | xr.DataArray | CubeRecipe):
        raise CubeError(
            f"An image is a path, a cube in memory or a recipe; got {type(given).__name__}. Several are a list, or a mapping by title."
        )
    if is_config(given):
        config = load_cube_config(str(given))
        return Pyramid.of(config.recipe(), cell=config.cell)
    return Pyramid.of(given, storage_options=options)


def _campaign(given: CampaignGiven, year: int | None) -> Campaign:
    if isinstance(given, Campaign):
        if year in (None, given.plan.year):
            return given
        return Campaign.open(given.output, year=year, storage_options=given.storage_options)
    if is_config(given):
        config = load_campaign_config(given, year=year).resolved()
        return Campaign.open(config.output, year=config.year, storage_options=config.storage_options)
    return Campaign.open(fspath(given), year=year)


def _require_year(images: Mapping[str, Pyramid], year: int) -> None:
    if not any(year in image.years for image in images.values()):
        there = "; ".join(f"{title}: {', '.join(map(str, one.years)) or 'no dates'}" for title, one in images.items())
        raise CubeError(
            f"There is nothing of {year} to show. Years of the images are: {there}. Give one of these years."
        )


def _bundles(given: Sequence[Any]) -> "dict[str, ModelBundle]":
    if not given:
        return {}
    from rtsx.model import ModelBundle as Bundle  # torch, which maps without models do not wait for

    made: dict[str, ModelBundle] = {}
    for one in given:
        bundle = one if isinstance(one, Bundle) else Bundle.open(one)
        made[bundle.id if bundle.id not in made else f"{bundle.id} {len(made) + 1}"] = bundle
    return made


def _box(bbox: Sequence[float], images: Mapping[str, Pyramid], *, crs: str) -> Box:
    if len(bbox) != 4:
        raise ConfigError(f"bbox is [west, south, east, north] in degrees; got {list(bbox)}.")
    region = validate_config(RegionConfig, Document("bbox", {"bbox": [float(edge) for edge in bbox]}, {}, ()))
    assert region.bbox is not None  # as given
    there = pyproj.Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    left, bottom, right, top = there.transform_bounds(*region.bbox)
    if not np.isfinite((left, bottom, right, top)).all():
        raise CubeError(
            f"bbox {list(bbox)} cannot be shown on a map in {pyproj.CRS(crs).name}. Give a smaller one, or one nearer to the images."
        )
    boxes = [
        pyproj.Transformer.from_crs(image.crs, crs, always_xy=True).transform_bounds(*image.box)
        for image in images.values()
    ]
    if all(box[0] > right or box[2] < left or box[1] > top or box[3] < bottom for box in boxes):
        back = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
        first = [round(edge, 4) for edge in back.transform_bounds(*boxes[0])]
        raise CubeError(f"bbox {list(bbox)} shows none of the images; {next(iter(images))} lies in {first}.")
    return left, bottom, right, top
