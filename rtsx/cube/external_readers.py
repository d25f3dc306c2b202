"""Images read by stackstac: one array per image from it, masked and composited by the same kernels as ours."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import product
from typing import Any
from warnings import catch_warnings, filterwarnings

import dask.array as da
import numpy as np
import stackstac
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling as RasterioResampling
from stackstac.rio_reader import DEFAULT_GDAL_ENV, AutoParallelRioReader

from rtsx.cube.chunk_loader import ChunkLoader, LayerEncoding
from rtsx.cube.composite import Observation
from rtsx.cube.graph import split_outputs
from rtsx.cube.images import BandSource, Image, TimeGroup
from rtsx.cube.rasterio import read_header
from rtsx.cube.resample.dtype import Resampling, is_representable
from rtsx.cube.resample.readers import FileReader, WindowReader, open_reader
from rtsx.errors import CubeError


@dataclass(frozen=True, kw_only=True)
class SingleBand:
    """One band of one file."""

    key: str
    """Name that is unique within the image and the same in all images."""
    href: str
    """What GDAL opens to see this band alone, with the nodata value that counts."""
    file: BandSource
    """The file with all its bands."""
    geobox: GeoBox
    """Grid of the file."""
    epsg: int | None
    """Code of its CRS; None for one without."""


@dataclass(frozen=True, kw_only=True)
class BandTable:
    """The bands of several images that are read together."""

    rows: tuple[tuple[SingleBand, ...], ...]
    """Bands by image; all rows have the same keys."""
    dtype: np.dtype[Any]
    """Dtype that they are stored in."""
    nodata: float | None
    """Stored value of a missing pixel; None where every stored value counts."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the bands, in order."""
        return tuple(band.key for band in self.rows[0])

    @property
    def fill(self) -> np.generic:
        """What pixels outside a file get, as NumPy scalar, because a Python number is refused by stackstac."""
        fill: np.generic = self.dtype.type(0 if self.nodata is None else self.nodata)
        return fill


def band_table(images: Sequence[Image], names: Sequence[str]) -> BandTable:
    """Return the bands of some names, one after the other, of all images.

    Raises
    ------
    CubeError
        There are none, they differ in dtype or nodata, or are no files of GDAL's.

    Examples
    --------
    >>> from affine import Affine
    >>> box = GeoBox((2, 2), Affine(10, 0, 0, 0, -10, 20), "EPSG:3413")
    >>> bands = BandSource(href="a.tif", bands=(4, 3), geobox=box, dtype="uint16", nodata=0)
    >>> [band.href for band in band_table([Image(id="a", bands={"rg": bands})], ["rg"]).rows[0]]
    ['vrt://a.tif?bands=4&a_nodata=0', 'vrt://a.tif?bands=3&a_nodata=0']
    """
    if not images or not names:
        raise CubeError(f"At least one image and one band have to be read; got {len(images)} and {list(names)}.")
    rows = []
    for image in images:
        missing = [name for name in names if name not in image.bands]
        if missing:
            raise CubeError(f"Image {image.id!r} has {sorted(image.bands)}; {missing} are wanted too.")
        rows.append(tuple(band for name in names for band in _single_bands(name, image.bands[name], image.id)))
    files = [image.bands[name] for image in images for name in names]
    stored = {(file.dtype, repr(file.nodata)) for file in files}
    if len(stored) > 1 or len({tuple(band.key for band in row) for row in rows}) > 1:
        raise CubeError(
            f"Bands that are read together share number, dtype and nodata; {list(names)} have {sorted(stored)}. Read "
            "them one by one."
        )
    return BandTable(rows=tuple(rows), dtype=np.dtype(files[0].dtype), nodata=files[0].nodata)


def _single_bands(name: str, file: BandSource, image: str) -> list[SingleBand]:
    if file.opener != "gdal" or "?" in file.href:
        raise CubeError(
            f"Bands {name!r} of image {image!r} are in {file.href}: Zarr and addresses with a query string, such as signed "
            "ones, are for the reader 'rtsx' only."
        )
    nodata = "" if file.nodata is None else f"&a_nodata={file.nodata:.17g}"
    epsg = None if file.geobox.crs is None else file.geobox.crs.to_epsg()
    return [
        SingleBand(
            key=f"{name}_{position}",
            href=f"vrt://{file.href}?bands={number}{nodata}",
            file=file,
            geobox=file.geobox,
            epsg=epsg,
        )
        for position, number in enumerate(file.bands, start=1)
    ]


_ENV = DEFAULT_GDAL_ENV.updated(open_vrt={"VSI_CACHE": True})
"""stackstac's, with an `Env` of its own for each of two that it nests: one that is entered twice stays with the thread."""


def read_stackstac(
    images: Sequence[Image],
    names: Sequence[str],
    target: GeoBox,
    *,
    resampling: Resampling,
    chunk: tuple[int, int],
    any_value: bool,
) -> da.Array:
    """Return stored values of some bands of images on a grid, lazily, as stackstac and GDAL's warp give them.

    Parameters
    ----------
    images
        What to read; each has all names.
    names
        Names of bands; several bands of one name come one after the other.
    target
        North-up grid in a CRS with an EPSG code.
    resampling
        How pixels of the images become pixels of the grid.
    chunk
        Height and width of a chunk, px.
    any_value
        Whether every stored value is data whatever the file declares missing, as in quality data.

    Returns
    -------
    dask array
        (image, band, y, x) in the stored dtype; the nodata value where an image has no pixel, 0 where it has none.

    Raises
    ------
    CubeError
        Grid or images are not what stackstac can take; when computed, also a file that has a mask or is not what its item says.
    """
    table = band_table(images, names)
    epsg = None if target.crs is None else target.crs.to_epsg()
    affine = target.affine
    if epsg is None or affine.b or affine.d or affine.a <= 0 or affine.e >= 0:
        raise CubeError(
            f"stackstac reads to north-up grids with an EPSG code; got {target.crs} and {tuple(affine)[:6]}. Use the "
            "reader 'rtsx'."
        )
    height, width = target.shape
    bounds = (affine.c, affine.f + height * affine.e, affine.c + width * affine.a, affine.f)
    files = {band.href: open_reader(band.file, any_value=any_value) for row in table.rows for band in row}
    with catch_warnings():
        filterwarnings("ignore", category=DeprecationWarning)  # of its use of NumPy and pandas
        filterwarnings("ignore", category=FutureWarning)
        try:
            stack = stackstac.stack(
                _stackstac_items(table),
                assets=list(table.keys),
                epsg=epsg,
                resolution=(affine.a, -affine.e),
                bounds=bounds,
                snap_bounds=False,  # True would move the grid to a multiple of its resolution, silently
                resampling=RasterioResampling[resampling],
                chunksize=chunk,
                dtype=table.dtype,
                fill_value=table.fill,
                rescale=False,
                sortby_date=False,
                xy_coords=False,
                properties=False,
                band_coords=False,
                gdal_env=_ENV,
                reader=partial(_CheckedReader, files=files),
                errors_as_nodata=(),  # a file that is missing is an error, not missing ground
            )
        except ValueError as error:
            raise CubeError(f"stackstac cannot read {[image.id for image in images][:5]}: {error}") from error
    return _completed(stack, table, shape=(height, width), chunk=chunk)


class _CheckedReader(AutoParallelRioReader):  # type: ignore[misc]  # stackstac has no types
    """stackstac's reader of a file that is what its item says and has no mask, which would be lost."""

    def __init__(self, *, files: Mapping[str, WindowReader], **given: Any) -> None:
        super().__init__(**given)
        self.files = files

    def _open(self) -> Any:
        file = self.files[self.url]
        assert isinstance(file, FileReader)  # `band_table` has refused others
        header = read_header(file.path)
        file.check(header)
        if set(header.masked) & set(file.bands):
            raise CubeError(
                f"Missing pixels of {file.path} are marked by a mask or an alpha band, which stackstac loses. Use the reader "
                "'rtsx', the default: remove `reader: stackstac` from the source."
            )
        return super()._open()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "files": self.files}


def _stackstac_items(table: BandTable) -> list[dict[str, Any]]:
    """Return items of a minimum, because stackstac knows proj:epsg only, and one band per asset."""
    items = []
    for number, row in enumerate(table.rows):
        assets = {}
        for band in row:
            if band.epsg is None:
                raise CubeError(
                    f"stackstac needs EPSG codes; {band.href} is in {band.geobox.crs}. Use the reader 'rtsx'."
                )
            assets[band.key] = {
                "href": band.href,
                "proj:epsg": band.epsg,
                "proj:shape": list(band.geobox.shape),
                "proj:transform": list(band.geobox.affine)[:6],
            }
        properties = {"datetime": datetime(2000, 1, 1, tzinfo=UTC).isoformat()}
        items.append({"type": "Feature", "id": str(number), "properties": properties, "assets": assets})
    return items


def _completed(stack: Any, table: BandTable, *, shape: tuple[int, int], chunk: tuple[int, int]) -> da.Array:
    """Return all images and bands in their order: stackstac leaves out those that lie beside the grid."""
    pixels = stack.data.rechunk({2: chunk[0], 3: chunk[1]})
    rows = {str(name): number for number, name in enumerate(np.atleast_1d(stack["id"].values))}
    columns = {str(name): number for number, name in enumerate(np.atleast_1d(stack["band"].values))}
    empty = da.full(shape, table.fill, dtype=table.dtype, chunks=chunk)
    completed: da.Array = da.stack(
        [
            da.stack(
                [
                    pixels[rows[str(number)], columns[key]] if str(number) in rows and key in columns else empty
                    for key in table.keys
                ]
            )
            for number in range(len(table.rows))
        ]
    )
    return completed


def lazy_stacks(
    blocks: ChunkLoader, steps: Sequence[TimeGroup], *, chunks: tuple[tuple[int, ...], tuple[int, ...]], has_time: bool
) -> dict[str, da.Array]:
    """Return what `lazy_blocks` gives, from arrays that stackstac makes.

    The graph has what stackstac's has, for every image and chunk, and one task per step and chunk that fuses.

    Parameters
    ----------
    blocks
        How images are masked and composited.
    steps
        Their time steps.
    chunks
        Lengths of the chunks along y and x.
    has_time
        Whether the arrays have a time dimension.
    """
    size = (chunks[0][0], chunks[1][0])
    token = tokenize(blocks, steps, chunks, has_time)
    graph: dict[Any, Any] = {f"fuses-{token}": blocks}
    sources: list[da.Array] = []
    indices = list(product(*(range(len(lengths)) for lengths in chunks)))
    for place, step in enumerate(steps):
        groups = _groups(blocks)
        arrays = [
            read_stackstac(
                step.images,
                [layer.recipe.name for layer in group],
                blocks.geobox,
                resampling=resampling,
                chunk=size,
                any_value=False,
            )
            for resampling, group in groups
        ]
        if blocks.quality is not None:
            name = blocks.quality.wanted.name
            arrays.append(
                read_stackstac(step.images, [name], blocks.geobox, resampling="nearest", chunk=size, any_value=True)
            )
        arrays = [array.rechunk({0: -1, 1: -1, 2: chunks[0], 3: chunks[1]}) for array in arrays]
        sources += arrays
        # Constants go into the function, because dask would take a tuple in a graph for a task or a key.
        read = tuple(tuple(group) for _, group in groups)
        task = partial(_composited, images=step.images, groups=read, has_time=has_time)
        for iy, ix in indices:
            key = (f"block-{token}", *((place,) if has_time else ()), iy, ix)
            graph[key] = (task, f"fuses-{token}", [(array.name, 0, 0, iy, ix) for array in arrays])
    fused = HighLevelGraph.from_collections(f"blocks-{token}", graph, dependencies=sources)  # type: ignore[arg-type]  # dask.array is one
    return split_outputs(fused, blocks, token=token, chunks=chunks, steps=len(steps) if has_time else None)


def _groups(blocks: ChunkLoader) -> list[tuple[Any, list[LayerEncoding]]]:
    """Return the layers that one call reads: one resampling each, and one dtype."""
    groups: dict[object, list[LayerEncoding]] = {}
    for layer in blocks.layers:
        bands = blocks.images[0].bands[layer.recipe.name]
        groups.setdefault((layer.recipe.resampling, bands.dtype, str(bands.nodata)), []).append(layer)
    return [(group[0].recipe.resampling, group) for group in groups.values()]


def _composited(
    blocks: ChunkLoader,
    arrays: list[NDArray[Any]],
    *,
    images: tuple[Image, ...],
    groups: tuple[tuple[LayerEncoding, ...], ...],
    has_time: bool,
) -> tuple[NDArray[Any], ...]:
    """Composite arrays (image, band, y, x) of one chunk, one for each group of layers, and last quality data if there are any."""

    def pieces(rows: slice) -> Iterator[Observation]:
        for place, image in enumerate(images):
            layers: dict[str, NDArray[Any]] = {}
            valid = np.ones(arrays[0][place, 0, rows].shape, bool)
            for group, array in zip(groups, arrays, strict=False):
                for layer, pixels in zip(group, array[place, :, rows], strict=True):
                    bands = image.bands[layer.recipe.name]
                    seen = is_representable(pixels, bands.nodata)
                    layers[layer.recipe.name] = layer.repacked(pixels, seen, bands)
                    valid &= seen
            data = arrays[-1][place, :, rows] if blocks.quality is not None else None
            yield blocks.masked_and_ranked([layers[layer.recipe.name] for layer in blocks.layers], valid, data)

    made = blocks.composited(pieces, count=len(images), shape=arrays[0].shape[2:])
    return tuple(array[None] for array in made) if has_time else made
