"""Images read by stackstac: one array per image from it, masked and composited by the same kernels as ours."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import product
from typing import Any
from warnings import catch_warnings, filterwarnings

import dask.array as da
import numpy as np
import stackstac
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling as RasterioResampling
from stackstac.rio_reader import DEFAULT_GDAL_ENV, AutoParallelRioReader

from rtsx.cube.chunk_loader import ChunkLoader, LayerEncoding
from rtsx.cube.composite import Observation
from rtsx.cube.encoding import is_representable
from rtsx.cube.graph import split_outputs, token_of
from rtsx.cube.images import BandSource, Image, TimeGroup
from rtsx.cube.rasterio import read_header
from rtsx.cube.recipe import Resampling
from rtsx.cube.resample.readers import FileReader, WindowReader, open_reader
from rtsx.errors import CubeError


def band_table(images: Sequence[Image], names: Sequence[str]) -> list[dict[str, BandSource]]:
    """Return by image the bands of some names, one after the other, each alone; their keys are the same in all images.

    Raises
    ------
    CubeError
        They differ in number, dtype or nodata, or are no files of GDAL's.

    Examples
    --------
    >>> from affine import Affine
    >>> box = GeoBox((2, 2), Affine(10, 0, 0, 0, -10, 20), "EPSG:3413")
    >>> bands = BandSource(href="a.tif", bands=(4, 3), geobox=box, dtype="uint16", nodata=0)
    >>> {key: band.bands for key, band in band_table([Image(id="a", bands={"rg": bands})], ["rg"])[0].items()}
    {'rg_1': (4,), 'rg_2': (3,)}
    """
    for image in images:
        for name in names:
            file = image.bands[name]
            if file.opener != "gdal" or "?" in file.href:
                raise CubeError(
                    f"Bands {name!r} of image {image.id!r} are in {file.href}: Zarr and addresses with a query string, such as "
                    "signed ones, are for the reader 'rtsx' only."
                )
    rows = [
        {
            f"{name}_{place}": replace(image.bands[name], bands=(number,))
            for name in names
            for place, number in enumerate(image.bands[name].bands, start=1)
        }
        for image in images
    ]
    stored = {(band.dtype, repr(band.nodata)) for row in rows for band in row.values()}
    if len(stored) > 1 or len({tuple(row) for row in rows}) > 1:
        raise CubeError(
            f"Bands that are read together share number, dtype and nodata; {list(names)} have {sorted(stored)}. Read "
            "them one by one."
        )
    return rows


def _vrt(band: BandSource) -> str:
    """Return what GDAL opens to see a band alone, with the nodata value that counts."""
    nodata = "" if band.nodata is None else f"&a_nodata={band.nodata:.17g}"
    return f"vrt://{band.href}?bands={band.bands[0]}{nodata}"


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
    rows = band_table(images, names)
    one = next(iter(rows[0].values()))
    # A NumPy scalar, because a Python number is refused by stackstac.
    fill: np.generic = np.dtype(one.dtype).type(0 if one.nodata is None else one.nodata)
    epsg = None if target.crs is None else target.crs.to_epsg()
    affine = target.affine
    if epsg is None or affine.b or affine.d or affine.a <= 0 or affine.e >= 0:
        raise CubeError(
            f"stackstac reads to north-up grids with an EPSG code; got {target.crs} and {tuple(affine)[:6]}. Use the "
            "reader 'rtsx'."
        )
    height, width = target.shape
    bounds = (affine.c, affine.f + height * affine.e, affine.c + width * affine.a, affine.f)
    files = {_vrt(band): open_reader(band, any_value=any_value) for row in rows for band in row.values()}
    with catch_warnings():
        filterwarnings("ignore", category=DeprecationWarning)  # of its use of NumPy and pandas
        filterwarnings("ignore", category=FutureWarning)
        try:
            stack = stackstac.stack(
                _stackstac_items(rows),
                assets=list(rows[0]),
                epsg=epsg,
                resolution=(affine.a, -affine.e),
                bounds=bounds,
                snap_bounds=False,  # True would move the grid to a multiple of its resolution, silently
                resampling=RasterioResampling[resampling],
                chunksize=chunk,
                dtype=fill.dtype,
                fill_value=fill,
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
    return _completed(stack, rows, empty=da.full(target.shape.yx, fill, dtype=fill.dtype, chunks=chunk))


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


def _stackstac_items(rows: Sequence[Mapping[str, BandSource]]) -> list[dict[str, Any]]:
    """Return items of a minimum, because stackstac knows proj:epsg only, and one band per asset."""
    items = []
    for number, row in enumerate(rows):
        assets = {}
        for key, band in row.items():
            epsg = None if band.geobox.crs is None else band.geobox.crs.to_epsg()
            if epsg is None:
                raise CubeError(
                    f"stackstac needs EPSG codes; {_vrt(band)} is in {band.geobox.crs}. Use the reader 'rtsx'."
                )
            assets[key] = {
                "href": _vrt(band),
                "proj:epsg": epsg,
                "proj:shape": list(band.geobox.shape),
                "proj:transform": list(band.geobox.affine)[:6],
            }
        properties = {"datetime": datetime(2000, 1, 1, tzinfo=UTC).isoformat()}
        items.append({"type": "Feature", "id": str(number), "properties": properties, "assets": assets})
    return items


def _completed(stack: Any, table: Sequence[Mapping[str, BandSource]], *, empty: da.Array) -> da.Array:
    """Return all images and bands in their order: stackstac leaves out those that lie beside the grid."""
    pixels = stack.data.rechunk({2: empty.chunks[0], 3: empty.chunks[1]})
    rows, columns = (
        {str(name): number for number, name in enumerate(np.atleast_1d(stack[dim].values))} for dim in ("id", "band")
    )
    images = [
        [pixels[rows[str(number)], columns[key]] if str(number) in rows and key in columns else empty for key in row]
        for number, row in enumerate(table)
    ]
    completed: da.Array = da.stack([da.stack(bands) for bands in images])
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
    size = (max(chunks[0]), max(chunks[1]))
    token = token_of(blocks, steps, chunks, has_time)
    graph: dict[Any, Any] = {f"fuses-{token}": blocks}
    sources: list[da.Array] = []
    groups = _groups(blocks)
    reads = [(group[0].recipe.resampling, [layer.recipe.name for layer in group], False) for group in groups]
    if blocks.quality is not None:
        reads.append(("nearest", [blocks.quality.wanted.name], True))
    for place, step in enumerate(steps):
        arrays = [
            read_stackstac(step.images, names, blocks.geobox, resampling=how, chunk=size, any_value=any_value)
            for how, names, any_value in reads
        ]
        arrays = [array.rechunk({0: -1, 1: -1, 2: chunks[0], 3: chunks[1]}) for array in arrays]
        sources += arrays
        # Constants go into the function, because dask would take a tuple in a graph for a task or a key.
        task = partial(_composited, images=step.images, groups=groups, has_time=has_time)
        for iy, ix in product(*(range(len(lengths)) for lengths in chunks)):
            key = (f"block-{token}", *((place,) if has_time else ()), iy, ix)
            graph[key] = (task, f"fuses-{token}", [(array.name, 0, 0, iy, ix) for array in arrays])
    fused = HighLevelGraph.from_collections(f"blocks-{token}", graph, dependencies=sources)  # type: ignore[arg-type]  # dask.array is one
    return split_outputs(fused, blocks, token=token, chunks=chunks, steps=len(steps) if has_time else None)


def _groups(blocks: ChunkLoader) -> tuple[tuple[LayerEncoding, ...], ...]:
    """Return the layers that one call reads: one resampling each, and one dtype."""
    groups: dict[object, list[LayerEncoding]] = {}
    for layer in blocks.layers:
        bands = blocks.images[0].bands[layer.recipe.name]
        groups.setdefault((layer.recipe.resampling, bands.dtype, str(bands.nodata)), []).append(layer)
    return tuple(map(tuple, groups.values()))


def _composited(
    blocks: ChunkLoader,
    arrays: list[NDArray[Any]],
    *,
    images: tuple[Image, ...],
    groups: tuple[tuple[LayerEncoding, ...], ...],
    has_time: bool,
) -> tuple[NDArray[Any], ...]:
    """Yield composite arrays (image, band, y, x) of one chunk, one for each group of layers, and last quality data if there are any."""

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
            yield blocks.masked_and_ranked(
                [layers[layer.recipe.name] for layer in blocks.layers], valid, data, image=image
            )

    made = blocks.composited(pieces, count=len(images), shape=arrays[0].shape[2:])
    return tuple(array[None] for array in made) if has_time else made
