"""Images that were copied into a store, each on its own grid: the index that the store keeps of them."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from rtsx.cube.image import AssetBands, Image, Wanted
from rtsx.cube.recipe import CubeRecipe
from rtsx.cube.source import GivenImages, ImageSource, Period
from rtsx.cube.zarr import StorageOptions, open_group
from rtsx.errors import CubeError
from rtsx.parsing import parsed_json
from rtsx.storage import absolute

__all__ = ["NativeImages", "index_of", "with_native_images"]


@dataclass(frozen=True)
class NativeImages:
    """The images of one source in a store of the native layout."""

    path: str
    """Path or URL of the store."""
    source: str
    """Name of the source."""

    def __post_init__(self) -> None:
        """Make the path mean the same in every working folder."""
        object.__setattr__(self, "path", absolute(self.path))

    def find(self, area: BaseGeometry, period: Period | None, wanted: Sequence[Wanted]) -> tuple[Image, ...]:
        """Images in the order in which they were copied; see `ImageSource`."""
        index = native_index(self.path, {})
        if self.source not in index:
            raise CubeError(f"{self.path} holds images of {sorted(index)}; {self.source!r} is not among them.")
        return GivenImages(index[self.source]).find(area, period, wanted)


_conforms: type[ImageSource] = NativeImages


def with_native_images(recipe: CubeRecipe, path: str) -> CubeRecipe:
    """The recipe with the images that a store of the native layout holds instead of those that its sources would find."""
    sources = (replace(source, images=NativeImages(path, source.name)) for source in recipe.sources)
    return replace(recipe, sources=tuple(sources))


def native_index(path: str, options: StorageOptions) -> dict[str, list[Image]]:
    """The images that a store holds, by source.

    Raises
    ------
    CubeError
        It has no images on their own grids, or what it says of them is damaged or names something outside of it.
    """
    group = open_group(path, options)
    index: Any = group["build"].attrs.get("index") if "build" in group else None
    if not isinstance(index, Mapping):
        raise CubeError(f"{path} holds no images on their own grids. Build it with layout='native', or --native.")
    what = f"{path} (its index)"
    stored = parsed_json(json.dumps(index), dict[str, list[_StoredImage]], what=what, error=CubeError)
    try:
        return {source: [_image(one, path) for one in images] for source, images in stored.items()}
    except (CRSError, ShapelyError, ValueError, TypeError, ArithmeticError) as error:
        raise CubeError(f"{what} is damaged: {error}. Build the store again.") from error


def index_of(images: Mapping[str, Iterable[Image]]) -> dict[str, list[dict[str, Any]]]:
    """What a store says of images whose bands lie in it; plain values. Hrefs are paths of groups within the store."""
    return {source: [asdict(_stored(image)) for image in found] for source, found in images.items()}


@dataclass(frozen=True, kw_only=True)
class _StoredBands:
    """Bands of an image, as the index has them."""

    group: str
    """Path of their group within the store."""
    arrays: tuple[str, ...]
    """Names of the arrays in it."""
    crs: str
    """CRS of their grid."""
    transform: tuple[float, float, float, float, float, float]
    """Its affine transform, row by row."""
    shape: tuple[int, int]
    """Height and width, px."""
    dtype: str
    """Of the stored values."""
    nodata: str | None
    """Stored value of a missing pixel, as text, because it may be NaN."""
    scale_factor: float
    """Physical units per stored unit."""
    add_offset: float
    """Physical value of stored 0."""
    asset: str
    """Asset that they come from."""

    def __post_init__(self) -> None:
        """Refuse what lies elsewhere."""
        if not re.fullmatch(r"\w[^/\\:\x00]*(/\w[^/\\:\x00]*)*", self.group):
            raise CubeError(f"{self.group!r} is no group of this store")


@dataclass(frozen=True, kw_only=True)
class _StoredImage:
    """One image, as the index has it."""

    id: str
    """Id of the image."""
    time: str | None
    """When it was taken, ISO 8601."""
    footprint: str | None
    """Outline in longitude and latitude, WKT."""
    cloud_cover: float | None
    """Percent under cloud."""
    sun: tuple[float | None, float | None]
    """Azimuth and elevation, degrees."""
    bands: dict[str, _StoredBands]
    """Where its bands lie."""


def _stored(image: Image) -> _StoredImage:
    return _StoredImage(
        id=image.id,
        time=None if image.time is None else image.time.isoformat(),
        footprint=None if image.footprint is None else shapely.to_wkt(image.footprint, rounding_precision=-1),
        cloud_cover=image.cloud_cover,
        sun=(image.sun_azimuth, image.sun_elevation),
        bands={name: _stored_bands(bands) for name, bands in image.bands.items()},
    )


def _stored_bands(bands: AssetBands) -> _StoredBands:
    a, b, c, d, e, f = (float(value) for value in tuple(bands.geobox.affine)[:6])
    return _StoredBands(
        group=bands.href,
        arrays=tuple(str(name) for name in bands.bands),
        crs=str(bands.geobox.crs),
        transform=(a, b, c, d, e, f),
        shape=(bands.geobox.shape.y, bands.geobox.shape.x),
        dtype=bands.dtype,
        nodata=None if bands.nodata is None else str(bands.nodata),
        scale_factor=bands.scale_factor,
        add_offset=bands.add_offset,
        asset=bands.asset,
    )


def _image(stored: _StoredImage, path: str) -> Image:
    bands = {
        name: AssetBands(
            href=f"{path.rstrip('/')}/{one.group}",
            bands=one.arrays,
            geobox=GeoBox(one.shape, Affine(*one.transform), one.crs),
            dtype=np.dtype(one.dtype).name,
            nodata=None if one.nodata is None else float(one.nodata),
            scale_factor=one.scale_factor,
            add_offset=one.add_offset,
            asset=one.asset,
            opener="zarr",
        )
        for name, one in stored.bands.items()
    }
    return Image(
        id=stored.id,
        bands=bands,
        time=None if stored.time is None else datetime.fromisoformat(stored.time),
        footprint=None if stored.footprint is None else shapely.from_wkt(stored.footprint),
        cloud_cover=stored.cloud_cover,
        sun_azimuth=stored.sun[0],
        sun_elevation=stored.sun[1],
    )
