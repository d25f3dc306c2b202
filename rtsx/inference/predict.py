"""The public door: a cube and a bundle in, a lazy prediction out."""

from collections.abc import Sequence
from importlib.metadata import version

import xarray as xr

from rtsx.arguments import typed
from rtsx.cube import as_cube, as_stored, geobox_of, lattice_origin, layer_names, validate_cube
from rtsx.cube.georeference import with_pixel_centres
from rtsx.errors import PlanError
from rtsx.grid import lattice_offset
from rtsx.inference.augment import Augmentation
from rtsx.inference.choice import TileChoice, chosen_tiling
from rtsx.inference.members import (
    BundleGiven,
    check_runtime,
    check_turns,
    ensemble,
    habits_of,
    warn_of_pixel_size,
)
from rtsx.inference.memory import available_bytes, largest_tile, require_memory
from rtsx.inference.plan import AnswerType, Merge
from rtsx.inference.planes import predict_planes
from rtsx.inference.planning import needed_layers, packings_of, prediction_plan, runner_of
from rtsx.inference.prediction import prediction_dataset
from rtsx.tiling import Blend

__all__ = ["predict_cube"]


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
    augment: Sequence[Augmentation] = (),
    scales: Sequence[float] = (1.0,),
    merge: Merge = "mean",
    keep_members: bool = False,
    dtype: AnswerType = "uint8",
    layers: Sequence[str] | None = None,
) -> xr.Dataset:
    """Apply a bundle to a cube, tile by tile, without seams.

    The answer depends on data, bundle, tile, overlap, trim, blend and lattice alone: no chunking and no number of
    workers changes it.

    Parameters
    ----------
    cube
        One `(y, x)` or `(time, y, x)` variable per layer, as `open_cube` gives it; further variables are ignored. A
        variable `valid` marks what can be trusted. Or what `rioxarray.open_rasterio`, `odc.stac.load` and
        `stackstac.stack` give, a DataArray with a dimension of bands included; see `as_cube`. Where dask lies behind a
        layer nothing is computed here; NumPy in, NumPy out.
    bundle
        One bundle, or several with the same classes, whose answers are averaged; a path is opened by `ModelBundle.open`.
    tile, overlap
        Pixels; `"bundle"` for those it was trained with; `"auto"` for the cheapest plan that gives the right answer:
        the tile that a fixed share of the machine's or worker's memory holds, the same whenever it is asked, and an
        overlap that covers the network's measured reach, or the bundle's own for a network that looks at the whole tile. A reach that is not stored with the bundle is measured
        once, in some seconds.
    trim
        Pixels on each side of a tile that never count, because the network's padding spoils them. None is the bundle's
        own, an eighth of the overlap where it says nothing, or the reach where `tile` or `overlap` is `"auto"`; 0
        gives a ramp over the whole overlap.
    blend
        `"linear"`, `"hann"`, `"gaussian"`, `"crop"` (each tile answers for its middle only) or `"max"`.
    batch_size
        Tiles per forward pass; None leaves it to the device: 1 on a CPU. Halved when the device runs out of memory.
    device
        `"auto"` (the first GPU, else the CPU, of whoever computes), `"cpu"`, `"cuda"` or `"cuda:N"`.
    precision
        `"auto"` (bfloat16 autocast on a GPU, float32 on a CPU), `"float32"`, `"bfloat16"` or `"float16"`.
    backend
        `"eager"`, `"compile"`, `"onnx"`, `"openvino"`, or `"auto"` for the fastest that is installed and agrees with
        eager torch to 1e-4.
    augment
        Turns of each tile beside the picture as it is: `"hflip"`, `"vflip"`, `"rot90"`, `"rot180"`, `"rot270"`,
        `"transpose"`; their answers are averaged.
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

    Returns
    -------
    xarray.Dataset
        `probability` and `binary` (uint8: 1 where the probability reaches the bundle's threshold, or among exclusive
        classes is the greatest; 255 for nodata), dimensions `(time?, class?, y, x)`, and `valid` (bool). Coordinates,
        CRS and chunks of the cube; attributes say which bundle and plan made it.

    Raises
    ------
    BundleError
        A layer is missing, lacks the scale that the bundle relies on, is in another unit, or bundles do not go together.
        When blocks are computed: a sample of a layer's values cannot be what the bundle has learnt.
    CubeError
        The cube is not one, see `validate_cube`.
    PlanError
        Tile, overlap, trim, blend, augmentation or scales contradict each other or the bundle.
    MemoryPlanError
        The plan needs more memory than a worker has.

    Warns
    -----
    PixelSizeWarning
        The cube's pixels are not of the size on the ground that the bundle says it has learnt.
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
    packings_of(bundles, cube, layers=needed)  # before the reach is measured, which takes seconds
    check_turns(bundles, augment)
    warn_of_pixel_size(bundles, geobox_of(cube), scales=scales)
    available = available_bytes()
    tiling = chosen_tiling(
        (cube.sizes["y"], cube.sizes["x"]),
        lattice_offset(geobox_of(cube), lattice_origin(cube)),
        habits=habits_of(bundles, scales=scales, measures="auto" in (tile, overlap)),
        tile=tile,
        overlap=overlap,
        trim=trim,
        blend=blend,
        largest=largest_tile(bundles, device=device, available=available),
    )
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
    runner = runner_of(plan, bundles, cube, device=device, precision=precision, backend=backend, batch_size=batch_size)
    require_memory(runner, cube, available=available)
    return prediction_dataset(predict_planes(cube, runner=runner), cube, runner=runner, version=version("rtsx"))
