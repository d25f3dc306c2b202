"""Predict a cube with a bundle, lazily."""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rtsx.arguments import typed
from rtsx.cube import GRID_MAPPING, as_cube, as_stored, geobox_of, lattice_origin, layer_names, validate_cube
from rtsx.cube.georeference import with_pixel_centres
from rtsx.cube.zarr_cube import stored_pixels
from rtsx.errors import PlanError
from rtsx.grid import grid_offset
from rtsx.inference.dask import predict_lazily
from rtsx.inference.device import Hardware, Pending
from rtsx.inference.ensemble import (
    BundleGiven,
    bundle_ids,
    check_runtime,
    check_test_time_augmentations,
    ensemble,
    tiling_needs_of,
    warn_of_choices,
    warn_of_pixel_size,
)
from rtsx.inference.kernel import NODATA, BlockInput, TileSums, crop, finished
from rtsx.inference.memory import available_bytes, largest_tile, plane_chunks, planned_hardware, require_memory
from rtsx.inference.plan import (
    Merge,
    PredictionDtype,
    Region,
    TestTimeAugmentation,
    TileChoice,
    choose_tiling,
    direct_chunks,
    input_window,
    region_within,
)
from rtsx.inference.runner import Runner, needed_layers, packings_of, prediction_plan
from rtsx.tiling import Blend

_LONG_NAMES = {
    "probability": "probability of the target",
    "binary": "target found",
    "probability_member": "probability of the target by ensemble member",
    "spread": "standard deviation of probability among ensemble members",
    "valid": "pixel can be trusted",
}


def prediction_dataset(outputs: Mapping[str, Any], cube: xr.Dataset, *, runner: Runner, version: str) -> xr.Dataset:
    """Wrap outputs in the cube's coordinates.

    Parameters
    ----------
    outputs
        Arrays `(time?, member?, class?, y, x)` by name; NumPy or dask.
    cube
        Where they belong.
    runner
        The runner that computed them.
    version
        Of rtsx.
    """
    plan = runner.plan
    timed = "time" in cube.dims
    # Other coordinates than of pixels and times belong to layers that are not here.
    result = xr.Dataset(coords={name: one for name, one in cube.coords.items() if {*one.dims} <= {"time", "y", "x"}})
    for name, array in outputs.items():
        dims = _dims(name, several=len(plan.classes) > 1, timed=timed)
        result[name] = (dims, array, variable_attrs(name, array.dtype.name))
        result[name].encoding |= GRID_MAPPING
    if len(plan.classes) > 1:
        result = result.assign_coords({"class": list(plan.classes)})
    if plan.keep_members:
        result = result.assign_coords(member=[bundle.id for bundle in runner.bundles])
    return result.assign_attrs(
        lattice_origin=list(lattice_origin(cube)),
        Conventions="CF-1.11",
        bundle_id=bundle_ids(runner.bundles),
        bundle_classes=json.dumps(plan.classes),  # text, because NetCDF 3 has no lists of it
        **plan.attrs,
        plan=plan.to_json(),
        rtsx_version=version,
    )


def _dims(name: str, *, several: bool, timed: bool) -> Sequence[str]:
    leading = ["time"] if timed else []
    if name == "probability_member":
        leading.append("member")
    if several and name != "valid":
        leading.append("class")
    return [*leading, "y", "x"]


def variable_attrs(name: str, dtype: str) -> dict[str, Any]:
    """Return the CF attributes of one variable of a prediction, such as `probability`, that is stored as `dtype`."""
    attributes: dict[str, Any] = {"long_name": _LONG_NAMES[name]}
    if dtype == "uint8":
        attributes["_FillValue"] = NODATA
    if name.startswith("probability") or name == "spread":
        attributes |= {"units": "1"} | ({"scale_factor": 0.01} if dtype == "uint8" else {})
    if name == "binary":
        attributes |= {"flag_values": [0, 1], "flag_meanings": "absent present"}
    return attributes


@typed(PlanError, but=("cube", "bundle"))
def predict_cube(
    cube: xr.Dataset | xr.DataArray,
    bundle: BundleGiven | Sequence[BundleGiven],
    *,
    tile: TileChoice = "auto",
    overlap: TileChoice = "auto",
    trim: int | None = None,
    blend: Blend = "linear",
    batch_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    backend: str = "auto",
    augment: Sequence[TestTimeAugmentation] = (),
    scales: Sequence[float] = (1.0,),
    merge: Merge = "mean",
    keep_members: bool = False,
    dtype: PredictionDtype = "uint8",
    layers: Sequence[str] | None = None,
    window: tuple[slice, slice] | None = None,
) -> xr.Dataset:
    """Apply a bundle to a cube, tile by tile, without seams.

    The output depends on data, bundle, tile, overlap, trim, blend and alignment alone: no chunking and no number of
    workers changes it.

    Parameters
    ----------
    cube
        One `(y, x)` or `(time, y, x)` variable per layer, as `open_cube` gives it; further variables are ignored. A
        variable `valid` marks what can be trusted. Or what `rioxarray.open_rasterio`, `odc.stac.load` and
        `stackstac.stack` give, a DataArray with a dimension of bands included; see `as_cube`. Where dask lies behind a
        layer nothing is computed here; NumPy in, NumPy out.
    bundle
        One bundle, or several with the same classes, whose outputs are averaged; a path is opened by `ModelBundle.open`.
    tile, overlap
        Pixels; `"bundle"` for those it was trained with; `"auto"` for the cheapest plan that gives the right result:
        the tile that a fixed share of the machine's or worker's memory holds, the same whenever it is asked, and an
        overlap that covers the network's measured reach, or the bundle's own for a network that looks at the whole tile. A reach that is not stored with the bundle is measured
        once, in some seconds.
    trim
        Pixels on each side of a tile that never count, because the network's padding spoils them. None is the bundle's
        own, an eighth of the overlap where it says nothing, or the reach where `tile` or `overlap` is `"auto"`; 0
        gives a ramp over the whole overlap.
    blend
        `"linear"`, `"hann"`, `"gaussian"`, `"crop"` (each tile gives its middle only) or `"max"`.
    batch_size
        Tiles per forward pass; None leaves it to the device: 1 on a CPU, what fits 4 million pixels on a GPU. Every batch has
        just so many, filled across chunks and at the end with tiles that nobody reads, because on a GPU libraries choose
        their arithmetic by it: with one number of tiles, and one kind of card, chunks change no bit. It is halved, with a
        warning, where the device has no memory for it even when nothing else is there; from then on the last bits of
        probabilities may be others, and with them now and then the last digit of a per cent.
    device
        `"auto"` (the first GPU, else the CPU, of whoever computes; the CPU for ONNX and OpenVINO where they cannot use a
        GPU, with a `RuntimeWarning`), `"cpu"`, `"cuda"` or `"cuda:N"`.
    precision
        `"auto"` and `"float32"` (without TF32); `"bfloat16"` or `"float16"`, which torch takes by autocast: faster on a GPU, and
        other by a per cent or more at some pixels.
    backend
        `"eager"`, `"compile"`, `"onnx"`, `"openvino"`, or `"auto"` for the fastest that is installed and agrees with
        eager torch to 1e-4.
    augment
        Turns of each tile beside the picture as it is: `"hflip"`, `"vflip"`, `"rot90"`, `"rot180"`, `"rot270"`,
        `"transpose"`; their outputs are averaged.
    scales
        Sizes at which a tile is shown, 1 for its own and 0.5 for half of it; fused by `merge`.
    merge
        `"mean"` or `"max"` over `scales`.
    keep_members
        True adds `probability_member`, with a `member` dimension, and `spread`, the members' standard deviation.
    dtype
        `"uint8"`: per cent, CF `scale_factor` 0.01, 255 for nodata. `"float32"`: 0 to 1 and NaN.
    layers
        Names of the layers in the order of the bands, for an array whose bands have only numbers; None takes the names
        that are there.
    window
        Rows and columns of the cube to predict, to look at a part of it; None for all. Pixels around it are read as context. With the
        same numbers for `tile`, `overlap` and `trim`, it is what `isel` would cut from the whole prediction; `"auto"` takes
        the tile that is cheapest for this window, where a window of a lazy prediction of the whole runs the large tiles that are
        cheapest for the whole.

    Returns
    -------
    xarray.Dataset
        `probability` and `binary` (uint8: 1 where the probability reaches the bundle's threshold, or among exclusive
        classes is the greatest; 255 for nodata), dimensions `(time?, class?, y, x)`, and `valid` (bool). Coordinates,
        CRS and chunks of the cube; attributes name its bundle and plan. As stored: for means and pictures,
        `xr.decode_cf(pred)` has fractions, and NaN instead of 255.

    Raises
    ------
    BundleError
        A layer is missing, lacks the scale that the bundle relies on, is in another unit, or bundles do not go together; or
        there is no such device here, nor a client whose workers are asked.
        When blocks are computed: a sample of a layer's values cannot be what the bundle has learnt.
    CubeError
        The cube is not one, see `validate_cube`.
    PlanError
        Tile, overlap, trim, blend, augmentation or scales contradict each other or the bundle.
    MemoryPlanError
        The plan needs more memory than a worker has, or than its GPU.
    ClusterError
        Workers have several kinds of devices, or not the one that is asked for; also when blocks are computed.

    Warns
    -----
    EnsembleWarning
        Members of an ensemble have chosen other thresholds or outlines than the first, whose choice counts.
    PixelSizeWarning
        The cube's pixels are not of the size that the bundle was trained with.
    LayerValuesWarning
        When blocks are computed: values are likely to be scaled in another way, or to hold undeclared nodata.
    """
    check_runtime(device=device, precision=precision, backend=backend, batch_size=batch_size, scales=scales)
    cube = as_cube(cube, layers=layers)
    validate_cube(cube)
    cube = with_pixel_centres(cube)
    bundles = ensemble(bundle)
    needed = needed_layers(bundles, layer_names(cube))
    cube = as_stored(cube, needed)
    packings = packings_of(bundles, cube, layers=needed)  # before the reach is measured, which takes seconds
    check_test_time_augmentations(bundles, augment)
    warn_of_choices(bundles)
    warn_of_pixel_size(bundles, geobox_of(cube), scales=scales)
    available = available_bytes()
    planned = planned_hardware(bundles, device=device, backend=backend)
    region = within = None if window is None else _region(window, (cube.sizes["y"], cube.sizes["x"]))
    tiling = choose_tiling(
        (cube.sizes["y"], cube.sizes["x"]),
        grid_offset(geobox_of(cube), lattice_origin(cube)),
        needs=tiling_needs_of(bundles, scales=scales, measures="auto" in (tile, overlap)),
        tile=tile,
        overlap=overlap,
        trim=trim,
        blend=blend,
        largest=largest_tile(bundles, hardware=planned, precision=precision, available=available),
        cost=None if region is None else lambda plan: len(plan.tiles_covering(region)) * plan.tile**2,
    )
    if region is not None:
        read = rows, columns = input_window(tiling, region)
        cube = cube.assign_attrs(lattice_origin=list(lattice_origin(cube))).isel(y=rows, x=columns)
        offset = (tiling.offset[0] + rows.start, tiling.offset[1] + columns.start)
        tiling = replace(tiling, shape=(cube.sizes["y"], cube.sizes["x"]), offset=offset)
        within = region_within(region, read)
    plan = prediction_plan(
        bundles,
        layers=needed,
        tiling=tiling,
        augment=augment,
        scales=scales,
        merge=merge,
        keep_members=keep_members,
        dtype=dtype,
    )
    runner = Runner(
        plan=plan,
        bundles=bundles,
        packings=packings,
        device=device,
        precision=precision,
        backend=backend,
        batch_size=batch_size,
        planned=planned,
        region=within,
    )
    require_memory(runner, cube, available=available)
    result = prediction_dataset(predict_planes(cube, runner=runner), cube, runner=runner, version=version("rtsx"))
    return result if within is None else _cut(result, within)


def _cut(result: xr.Dataset, region: Region) -> xr.Dataset:
    """Cut a region out of a prediction, with the transform that is its own."""
    part = result.isel(y=region[0], x=region[1])
    mapping = part.coords.get(GRID_MAPPING["grid_mapping"])
    if mapping is None or "GeoTransform" not in mapping.attrs:
        return part
    transform = geobox_of(result)[region].affine.to_gdal()
    return part.assign_coords({mapping.name: mapping.assign_attrs(GeoTransform=" ".join(map(str, transform)))})


def _region(window: tuple[slice, slice], shape: tuple[int, int]) -> Region:
    """Return rows and columns as pixels of the raster, from its first to its last at most."""
    steps = [part.step for part in window if part.step not in (None, 1)]
    spans = [part.indices(length) for part, length in zip(window, shape, strict=True)]
    if steps or any(start >= stop for start, stop, _ in spans):
        raise PlanError(
            f"window is rows and columns of the cube, which has {shape[0]} x {shape[1]} px, in steps of one; got "
            f"{window[0]} and {window[1]}. Give two slices of at least one pixel, such as slice(0, 400) for both."
        )
    (top, bottom, _), (left, right, _) = spans
    return slice(top, bottom), slice(left, right)


_Array = NDArray[Any] | da.Array
_Chunks = tuple[tuple[int, ...], tuple[int, ...]]


def predict_planes(cube: xr.Dataset, *, runner: Runner) -> dict[str, Any]:
    """Predict every time step: outputs by name, `valid` among them, with a leading time axis where the cube has one.

    Each time is predicted on its own; a layer without time serves them all.
    """
    names = [*runner.plan.layers, *(["valid"] if "valid" in cube else [])]
    chunks = plane_chunks(cube, runner.plan.layers)
    arrays = {name: _in_chunks(cube[name].data, chunks) for name in names}
    if "time" not in cube.dims:
        return _plane(arrays, runner)
    shared = frozenset(name for name, array in arrays.items() if array.ndim == 2)
    planes = [
        _plane({name: array if name in shared else _at(array, step) for name, array in arrays.items()}, runner, shared)
        for step in range(cube.sizes["time"])
    ]
    stack = np.stack if chunks is None else da.stack
    return {name: stack([plane[name] for plane in planes]) for name in planes[0]}


def _at(array: _Array, step: int) -> _Array:
    """Return a plane of a stack; of one in a store another that is in it, which dask would not say of a part."""
    plane: _Array = array[step]
    if isinstance(array, da.Array) and (pixels := stored_pixels(array)) is not None:
        like = np.empty((0, 0), array.dtype)
        plane = da.from_array(pixels.at(step), chunks=array.chunks[1:], name=f"{array.name}-{step}", meta=like)
    return plane


def _in_chunks(array: _Array, chunks: _Chunks | None) -> _Array:
    if chunks is None:
        return np.asarray(array)
    leading = (1,) if array.ndim == 3 else ()
    lazy = array if isinstance(array, da.Array) else da.from_array(array)
    rechunked: da.Array = lazy.rechunk((*leading, *chunks))
    return rechunked


def _plane(arrays: dict[str, Any], runner: Runner, shared: frozenset[str] = frozenset()) -> dict[str, Any]:
    layers = {name: array for name, array in arrays.items() if name != "valid"}
    mask = arrays.get("valid")
    if isinstance(next(iter(layers.values())), da.Array):
        return dict(predict_lazily(layers, mask, runner=runner, shared=shared))
    return dict(predict_arrays(layers, mask, runner=runner))


def predict_arrays(
    layers: Mapping[str, NDArray[Any]], mask: NDArray[np.bool_] | None, *, runner: Runner
) -> dict[str, NDArray[Any]]:
    """Predict arrays in memory: outputs by name (see `quantise`) and `valid`, each over the whole plane (y, x) of the layers."""
    valid = runner.valid(layers, mask)
    blocks = runner.blocks(direct_chunks(runner.plan.tiling.shape))
    ahead = runner.tiles_ahead(Hardware.of(runner.where))
    running: deque[tuple[slice, int, list[Pending[TileSums]]]] = deque()
    waiting: list[TileSums] = []
    rows: list[dict[str, NDArray[Any]]] = []
    for number, row in enumerate(blocks.rows(), start=1):
        outputs = []
        for block in row:
            if block.read is None:
                continue
            window = BlockInput(
                region=block.read,
                stored={name: layer[block.read] for name, layer in layers.items()},
                packings=runner.packings,
                valid=valid[block.read],
            )
            outputs.append(runner.submit(window, block.tiles))
        running.append((row[0].region[0], sum(len(block.tiles) for block in row), outputs))
        # A row is waited for when those below it have enough tiles to fill the last batch.
        while running and (
            number == len(blocks.chunks[0]) or sum(each[1] for each in running) - running[0][1] >= ahead
        ):
            here, _, outputs = running.popleft()
            waiting += [output.result() for output in outputs]
            band = (here, slice(0, valid.shape[1]))
            rows.append(finished(waiting, band, valid[band], plan=runner.plan))
            # What lies wholly above the next band is done with.
            below = (slice(here.stop, valid.shape[0]), band[1])
            waiting = [crop(output, below) for output in waiting if output.region[0].stop > here.stop]
    return {name: np.concatenate([row[name] for row in rows], axis=-2) for name in rows[0]} | {"valid": valid}
