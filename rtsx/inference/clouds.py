"""Cloud masks by a model: quality data of every image that a bundle computes from the image's own bands, when it is read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Self

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from rtsx.cube.images import BandRequest, BandSource, GivenImages, Image, ImageSource, Period
from rtsx.cube.load import load_recipe
from rtsx.cube.mask_rules import SKY_CLASSES
from rtsx.cube.recipe import CubeRecipe, LayerRecipe, SourceRecipe
from rtsx.cube.resample.readers import WindowReader
from rtsx.errors import BundleError, CubeError
from rtsx.grid import Grid
from rtsx.inference.device import CPU
from rtsx.inference.predict import predict_cube
from rtsx.inference.runner import forward_bytes_per_pixel
from rtsx.model import ModelBundle
from rtsx.model.backend_choice import reference_backend
from rtsx.storage import absolute

_NAMES = {"cloud_shadow": "shadow", "cloud shadow": "shadow", "clouds": "cloud", "shadows": "shadow"}
"""What bundles call classes beside the names of `SKY_CLASSES`."""


@dataclass(frozen=True)
class CloudMasked:
    """Images of another source with one band more: the class that a bundle gives each of their pixels.

    The bundle is opened to say which it is, and runs when a window of the band is read: tile by tile on the image's
    own grid, so that neither the cube's grid nor its chunks change a result.

    Raises
    ------
    BundleError
        There is no bundle, or it has no classes clear and cloud.
    """

    images: ImageSource
    """Where the images come from."""
    model: str
    """Path or URL of the bundle; it has the classes clear and cloud, and may have shadow and others."""
    name: str
    """What the band is called."""
    known: tuple[BandRequest, ...] = ()
    """Where the images have the layers that the bundle may need; others are found by their names."""
    digest: str = ""
    """Digest of the bundle, so that another one at the same path is another recipe; that of the bundle that is there if left out."""

    def __post_init__(self) -> None:
        """Make the path mean the same in every working folder, and say which bundle it is."""
        object.__setattr__(self, "model", absolute(self.model))
        object.__setattr__(self, "digest", self.digest or _open(self.model).digest)

    def find(self, area: BaseGeometry, period: Period | None, wanted: Sequence[BandRequest]) -> tuple[Image, ...]:
        """Return the images with their mask; see `ImageSource`.

        Raises
        ------
        CubeError
            The images cannot be found, or lack a layer of the bundle.
        BundleError
            There is no bundle at the path any more, or another one.
        """
        bundle = _bundle(self.model, self.digest)
        own = {one.name: one for one in self.known} | {one.name: one for one in wanted if one.name != self.name}
        inputs = [own.get(layer) or BandRequest(name=layer) for layer in bundle.layers]
        asked = {one.name: one for one in wanted if one.name != self.name} | {one.name: one for one in inputs}
        found = self.images.find(area, period, tuple(asked.values()))
        return tuple(self._masked(image, bundle) for image in found)

    def _masked(self, image: Image, bundle: ModelBundle) -> Image:
        inputs = tuple((layer, image.bands[layer]) for layer in bundle.layers)
        grid = inputs[0][1].geobox
        if grid.affine.b or grid.affine.d:
            raise CubeError(
                f"The mask of image {image.id!r} is computed on its own grid, which is turned against its CRS. Warp it first, or "
                "take a mask that comes with it."
            )
        mask = BandSource(
            href=self.model,
            bands=(1,),
            geobox=grid,
            dtype="uint8",
            nodata=None,
            asset=self.name,
            opener="model",
            stamp=f"model={bundle.digest}",  # its bands are in the image, too, and have their own
            reader=CloudReader(model=self.model, digest=self.digest, inputs=inputs),
        )
        return replace(image, bands={**image.bands, self.name: mask})


_source_conforms: type[ImageSource] = CloudMasked


@dataclass(frozen=True)
class CloudReader:
    """Reads what a bundle makes of an image: the number of a class of `SKY_CLASSES` for each pixel, 0 where there is no data."""

    model: str
    """Path or URL of the bundle."""
    digest: str
    """Digest of the bundle."""
    inputs: tuple[tuple[str, BandSource], ...]
    """Its layers by name, in its order; the grid of the first is that of the result."""
    count: ClassVar[int] = 1
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.uint8)
    nodata: ClassVar[float | None] = None
    """What 0 means is for the rule to say."""

    @property
    def geobox(self) -> GeoBox:
        """CRS, transform and shape."""
        return self.inputs[0][1].geobox

    @property
    def network_bytes(self) -> int:
        """Of one forward pass of the bundle, on a tile as it was trained."""
        bundle = _bundle(self.model, self.digest)
        return forward_bytes_per_pixel(bundle, CPU, precision="auto") * bundle.tile**2

    def overview_for(self, factor: float) -> Self:
        """Return itself: a network has learnt pixels of one size."""
        return self

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Return classes (1, y, x) of a window.

        Raises
        ------
        CubeError
            A band cannot be read.
        BundleError
            There is no bundle at the path any more, or another one.
        """
        bundle = _bundle(self.model, self.digest)
        predicted = predict_cube(
            _native(self),
            bundle,
            tile="bundle",  # as it was trained, whatever memory this machine has
            overlap="bundle",
            window=(rows, columns),
            device="cpu",
            backend=reference_backend(bundle),
            dtype="float32",
        )
        numbers = np.array([_number_of(name) for name in bundle.classes], np.uint8)

        def classes(probability: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
            return np.where(valid, numbers[np.argmax(np.nan_to_num(probability, nan=-1.0), axis=0)], np.uint8(0))

        # Chunk by chunk, because probabilities of a whole window are many times what it is read as.
        found = da.map_blocks(
            classes, predicted["probability"].data, predicted["valid"].data, drop_axis=0, dtype=np.uint8
        )
        pixels: NDArray[np.uint8] = found.compute(scheduler="synchronous")
        return pixels[None]


_reader_conforms: type[WindowReader] = CloudReader


def _number_of(name: str) -> int:
    """Return the number of a class; that of the last, which is trusted nowhere, for one that is not known."""
    plain = _NAMES.get(name.strip().lower(), name.strip().lower())
    return SKY_CLASSES.index(plain) if plain in SKY_CLASSES else len(SKY_CLASSES) - 1


@lru_cache(maxsize=4)
def _bundle(model: str, digest: str) -> ModelBundle:
    bundle = _open(model)
    if bundle.digest != digest:
        raise BundleError(
            f"The bundle {model} is not the one that this work was begun with: expected the digest {digest[:12]}, got "
            f"{bundle.digest[:12]}. Put the old one back, or begin again with the new one, to another output."
        )
    return bundle


def _open(model: str) -> ModelBundle:
    bundle = ModelBundle.open(model)
    numbers = {_number_of(name) for name in bundle.classes}
    if not {SKY_CLASSES.index("clear"), SKY_CLASSES.index("cloud")} <= numbers:
        raise BundleError(
            f"A model that masks clouds tells clear from cloud, and may know shadow; {model} has the classes "
            f"{', '.join(bundle.classes)}. Name its classes so, or take another bundle."
        )
    return bundle


@lru_cache(maxsize=16)  # each is a graph of the whole image, which many windows share
def _native(reader: CloudReader) -> xr.Dataset:
    """Return the layers of an image on its own grid, lazily."""
    grid = reader.geobox
    corner = (float(grid.affine.c), float(grid.affine.f))
    layers = tuple(LayerRecipe(wanted=BandRequest(name=name)) for name, _ in reader.inputs)
    image = GivenImages([Image(id=reader.inputs[0][1].href, bands=dict(reader.inputs))])
    source = SourceRecipe(name="image", images=image, layers=layers)
    own = Grid(str(grid.crs), abs(float(grid.affine.a)), origin=corner)
    return load_recipe(CubeRecipe(grid=own, sources=(source,)), grid, anchor=corner)
