"""Images that were copied into a store, each on its own grid: the index that the store keeps of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from rtsx.cube.image import AssetBands, Image, Wanted
from rtsx.cube.recipe import CubeRecipe
from rtsx.cube.source import GivenImages, ImageSource, Period
from rtsx.cube.zarr import StorageOptions, open_group
from rtsx.errors import CubeError
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
        images = [_image(entry, self.path) for entry in index[self.source]]
        return GivenImages(images).find(area, period, wanted)


_conforms: type[ImageSource] = NativeImages


def with_native_images(recipe: CubeRecipe, path: str) -> CubeRecipe:
    """The recipe with the images that a store of the native layout holds instead of those that its sources would find."""
    sources = (replace(source, images=NativeImages(path, source.name)) for source in recipe.sources)
    return replace(recipe, sources=tuple(sources))


def native_index(path: str, options: StorageOptions) -> dict[str, list[dict[str, Any]]]:
    """What a store says of its images, by source.

    Raises
    ------
    CubeError
        It has no images on their own grids.
    """
    group = open_group(path, options)
    index: Any = group["build"].attrs.get("index") if "build" in group else None
    if not isinstance(index, Mapping):
        raise CubeError(f"{path} holds no images on their own grids. Build it with layout='native', or --native.")
    return {str(name): list(entries) for name, entries in index.items()}


def index_of(images: Mapping[str, Iterable[Image]]) -> dict[str, list[dict[str, Any]]]:
    """What a store says of images whose bands lie in it; plain values. Hrefs are paths of groups within the store."""
    return {source: [_entry(image) for image in found] for source, found in images.items()}


def _entry(image: Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "time": None if image.time is None else image.time.isoformat(),
        "footprint": None if image.footprint is None else shapely.to_wkt(image.footprint, rounding_precision=-1),
        "cloud_cover": image.cloud_cover,
        "sun": [image.sun_azimuth, image.sun_elevation],
        "bands": {
            name: {
                "group": bands.href,
                "arrays": list(bands.bands),
                "crs": str(bands.geobox.crs),
                "transform": [float(value) for value in tuple(bands.geobox.affine)[:6]],
                "shape": list(bands.geobox.shape.yx),
                "dtype": bands.dtype,
                "nodata": None if bands.nodata is None else str(bands.nodata),  # as text, because it may be NaN
                "scale_factor": bands.scale_factor,
                "add_offset": bands.add_offset,
                "asset": bands.asset,
            }
            for name, bands in image.bands.items()
        },
    }


def _image(entry: Mapping[str, Any], path: str) -> Image:
    bands = {
        name: AssetBands(
            href=f"{path.rstrip('/')}/{one['group']}",
            bands=tuple(one["arrays"]),
            geobox=GeoBox(tuple(one["shape"]), Affine(*one["transform"]), one["crs"]),
            dtype=one["dtype"],
            nodata=None if one["nodata"] is None else float(one["nodata"]),
            scale_factor=one["scale_factor"],
            add_offset=one["add_offset"],
            asset=one["asset"],
            opener="zarr",
        )
        for name, one in entry["bands"].items()
    }
    return Image(
        id=entry["id"],
        bands=bands,
        time=None if entry["time"] is None else datetime.fromisoformat(entry["time"]),
        footprint=None if entry["footprint"] is None else shapely.from_wkt(entry["footprint"]),
        cloud_cover=entry["cloud_cover"],
        sun_azimuth=entry["sun"][0],
        sun_elevation=entry["sun"][1],
    )
