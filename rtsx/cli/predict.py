"""`rtsx predict` and `rtsx cog`: a map from an image and a model, with outlines and GeoTIFFs beside it."""

import time
from pathlib import Path
from typing import Annotated

import typer

import rtsx
from rtsx.cli import options
from rtsx.cli.console import progress, show
from rtsx.cli.options import (
    described_models,
    has_valid_pixel,
    open_image,
    open_models,
    open_prediction,
    require_device,
    require_models,
    require_there,
    require_tiling,
)
from rtsx.cli.outputs import require_absent, require_local
from rtsx.cli.products import COG_NAMES, Products, write_cogs
from rtsx.cli.summary import prediction_rows
from rtsx.errors import CubeError
from rtsx.storage import refuse_other_format

app = typer.Typer()

_EXAMPLES = """Examples:

rtsx predict scene.tif --sensor planetscope --model demo --out map.zarr

rtsx predict scene.tif --sensor planetscope --mask udm2.tif --mask-rule tss-v1 -m rts.ckpt --out map.zarr
--footprints slumps.parquet --cog map

rtsx predict cube.zarr -m seed1 -m seed2 -m seed3 --keep-members --augment hflip --out map.zarr
"""


@app.command(epilog=_EXAMPLES)
def predict(
    images: options.CubeArgument,
    *,
    model: options.ModelOption,
    out: Annotated[str, options.output_option(metavar="OUT.zarr", help="The map: a Zarr v3 store.")],
    sensor: options.SensorOption = None,
    scale: options.ScaleOption = None,
    nodata: options.NodataOption = None,
    layers: options.LayersOption = None,
    mask: options.MaskOption = None,
    mask_rule: options.MaskRuleOption = None,
    chunks: options.ChunksOption = "auto",
    tile: options.TileOption = "auto",
    overlap: options.OverlapOption = "auto",
    trim: options.TrimOption = None,
    blend: options.BlendOption = "linear",
    augment: options.AugmentOption = None,
    scales: options.ScalesOption = "1",
    merge: options.MergeOption = "mean",
    trust: options.TrustOption = False,
    device: options.DeviceOption = "auto",
    precision: options.PrecisionOption = "auto",
    backend: options.BackendOption = "auto",
    batch_size: options.BatchSizeOption = None,
    keep_members: options.KeepMembersOption = False,
    float32: options.Float32Option = False,
    footprints: options.FootprintsOption = None,
    min_area_m2: options.MinAreaOption = None,
    cog: options.CogOption = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Map an image with a model: probability, yes or no, and which pixels are valid.

    The image is read, predicted and written chunk by chunk, so memory does not grow with it.
    """
    started = time.perf_counter()
    products = Products(footprints=footprints, cog=cog, min_area_m2=min_area_m2)
    refuse_other_format(out, what="a Zarr store", suffixes=(".zarr",))
    sides = options.side_of(tile, option="--tile"), options.side_of(overlap, option="--overlap")
    turns, sizes = options.augmentations(augment), options.numbers(scales, option="--scales")
    require_absent([out, *products.paths()], overwrite=overwrite)
    require_there(images)
    require_models(model)
    described = described_models(model)
    require_tiling(described, tile=sides[0], overlap=sides[1])
    from rtsx.cube.times import years_of  # here and below, because refusals do not wait for heavy libraries
    from rtsx.model.allocator import configure_malloc

    configure_malloc()
    cube = open_image(
        images, layers=layers, sensor=sensor, mask=mask, mask_rule=mask_rule, chunks=chunks, scale=scale, nodata=nodata
    )
    years = sorted({year for year in years_of(cube) if year is not None})
    if footprints is not None and len(years) > 1:
        raise typer.BadParameter(
            f"the image holds {', '.join(map(str, years))}, and a file of outlines is of one year: leave it out, then say "
            f"rtsx footprints {out} --year {years[0]}.",
            param_hint="--footprints",
        )
    from rtsx.cube import layer_names
    from rtsx.model.inputs import required_layers

    for one in described:
        required_layers(one.inputs or (), layer_names(cube))
    require_device(device)
    pred = rtsx.predict_cube(
        cube,
        open_models(model, trust=trust),
        tile=sides[0],
        overlap=sides[1],
        trim=trim,
        blend=blend,
        batch_size=batch_size,
        device=device,
        precision=precision,
        backend=backend,
        augment=turns,
        scales=sizes,
        merge=merge,
        keep_members=keep_members,
        dtype="float32" if float32 else "uint8",
    )
    if not has_valid_pixel(pred):
        raise CubeError(
            f"No pixel of {' '.join(images)} is valid: every one is nodata or NaN in some layer, or masked. "
            "Check nodata, the layers and --mask-rule with: rtsx info"
        )
    with progress("predicting", counts="tiles-"):
        rtsx.write_cube(pred, out, overwrite=overwrite)
    stored = open_prediction(out)
    rows = [*prediction_rows(stored), ("map", out), *products.write(stored, overwrite=overwrite)]
    show("Predicted", [*rows, ("time", f"{time.perf_counter() - started:.1f} s")])


cog_app = typer.Typer()


@cog_app.command(epilog="Example:\n\nrtsx cog map.zarr --out map")
def cog(
    prediction: options.PredictionArgument,
    *,
    out: Annotated[str, options.output_option(metavar="DIR", help="Folder of the files.")],
    overwrite: options.OverwriteOption = False,
) -> None:
    """Write probability and binary as cloud-optimised GeoTIFFs, for QGIS and GDAL."""
    require_local(out, option="--out")
    refuse_other_format(out, what="a folder of GeoTIFFs")
    require_absent([str(Path(out) / name) for name in COG_NAMES], overwrite=overwrite)
    files = write_cogs(open_prediction(prediction), out, overwrite=overwrite)
    show("Written", [(file.name, f"{file} ({file.stat().st_size / 1e6:.1f} MB)") for file in files])
