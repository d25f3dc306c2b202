"""`rtsx predict` and `rtsx cog`: a map from an image and a model, with outlines and GeoTIFFs beside it."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

import rtsx
from rtsx.cli import options
from rtsx.cli.console import Commands, progress, show
from rtsx.cli.footprints import write_outlines
from rtsx.cli.info import prediction_rows
from rtsx.errors import CubeError, FootprintError
from rtsx.names import bundle_path
from rtsx.storage import refuse_other_format

if TYPE_CHECKING:
    import xarray as xr

    from rtsx.model.metadata import Metadata

COG_NAMES = ("probability.tif", "binary.tif")
"""Files that `write_cogs` makes."""


@dataclass(frozen=True, kw_only=True)
class Products:
    """What `rtsx predict` makes beside the map."""

    footprints: str | None
    """Where the outlines go; None for no outlines."""
    cog: str | None
    """Folder of the GeoTIFFs; None for none."""
    min_area_m2: float | None
    """Least area of an outline, m²; None for the model's own."""

    def __post_init__(self) -> None:
        """Refuse places and formats that we do not write, and areas that are none."""
        if self.min_area_m2 is not None and not (math.isfinite(self.min_area_m2) and self.min_area_m2 >= 0):
            raise FootprintError(
                f"--min-area-m2 takes a finite area of at least 0 m²; got {self.min_area_m2}. 0 keeps everything."
            )
        # Whether it is there is asked later, of all outputs.
        options.require_suffix(self.footprints, options.FOOTPRINT_SUFFIXES, option="--footprints", overwrite=True)
        if self.cog is not None:
            options.require_local(self.cog, option="--cog")
            refuse_other_format(self.cog, what="a folder of GeoTIFFs")

    def paths(self) -> list[str]:
        """Return files that will be there."""
        cogs = [] if self.cog is None else [str(Path(self.cog) / name) for name in COG_NAMES]
        return cogs if self.footprints is None else [self.footprints, *cogs]

    def write(self, pred: "xr.Dataset", *, overwrite: bool) -> list[tuple[str, object]]:
        """Make them of a stored prediction, and return rows of the summary."""
        rows: list[tuple[str, object]] = []
        if self.footprints is not None:
            count = write_outlines(pred, self.footprints, min_area_m2=self.min_area_m2, overwrite=overwrite)
            rows.append(("outlines", f"{count} in {self.footprints}"))
        if self.cog is not None:
            rows.append(("GeoTIFFs", ", ".join(map(str, write_cogs(pred, self.cog, overwrite=overwrite)))))
        return rows


def write_cogs(pred: "xr.Dataset", folder: str, *, overwrite: bool) -> tuple[Path, ...]:
    """Write `probability.tif` and `binary.tif` into a folder."""
    with progress("GeoTIFFs"):
        return rtsx.export_cog(pred, folder, overwrite=overwrite)


AugmentationName = Literal["hflip", "vflip", "rot90", "rot180", "rot270", "transpose"]
"""Turns that `--augment` takes."""


def augmentations(given: str | None) -> list[AugmentationName]:
    """Split a comma list of turns.

    Raises
    ------
    typer.BadParameter
        One of them is unknown.

    Examples
    --------
    >>> augmentations("hflip,vflip")
    ['hflip', 'vflip']
    """
    named = options.words(given) or []
    unknown = [word for word in named if word not in get_args(AugmentationName)]
    if unknown:
        known = ", ".join(get_args(AugmentationName))
        raise options.misused("--augment", f"expected some of {known}; got {', '.join(unknown)}.")
    return [turn for turn in get_args(AugmentationName) if turn in named]


def described_models(models: Sequence[str]) -> "list[Metadata]":
    """Return what local bundles say of themselves, without their networks; of a file of weights nothing is known so early.

    Raises
    ------
    BundleError
        One says what no bundle does.
    """
    from rtsx.model.bundle_io import ITEM_NAME, read_item

    items = [Path(bundle_path(model)) / ITEM_NAME for model in models]
    return [read_item(item.read_bytes(), where=str(item)).metadata for item in items if item.is_file()]


def require_tiling(described: "Sequence[Metadata]", *, tile: options.Side, overlap: options.Side) -> None:
    """Refuse tiles and overlaps that bundles cannot have.

    Raises
    ------
    PlanError
        One is off the pixel grid of a network, or the overlap is not below the tile.
    """
    if not described or not (isinstance(tile, int) or isinstance(overlap, int)):
        return
    from rtsx.tiling import TilePlan

    first = described[0]
    stride = math.lcm(*(one.stride or 1 for one in described))
    shared = overlap if isinstance(overlap, int) else 0
    # A tile that is left to the plan is as large as it has to be.
    side = tile if isinstance(tile, int) else first.tile if tile == "bundle" else 2 * stride * (shared + 1)
    TilePlan(shape=(1, 1), offset=(0, 0), tile=side or 1, overlap=shared, trim=0, stride=stride)


app = Commands()


@app.command()
def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="CUBE|TIF...",
            help="A Zarr cube, the YAML file of one, or GeoTIFF / COG files that share one grid.",
            show_default=False,
        ),
    ],
    *,
    model: Annotated[
        list[str],
        options.Network(
            "--model",
            "-m",
            metavar="MODEL",
            help="A bundle folder or URL, a checkpoint that describes itself, or 'demo' for the small model that ships with "
            "rtsx. Given several times, the answers are averaged.",
            show_default=False,
        ),
    ],
    out: Annotated[str, options.Output(metavar="OUT.zarr", help="The map: a Zarr v3 store.")],
    sensor: options.SensorOption = None,
    scale: options.ScaleOption = None,
    nodata: options.NodataOption = None,
    layers: options.LayersOption = None,
    mask: Annotated[
        str | None,
        options.Input(metavar="TIF", help="Quality data on the image's pixels: a UDM2 or a scene classification."),
    ] = None,
    mask_rule: Annotated[options.MaskRuleName | None, options.Input(help="How --mask is read.")] = None,
    chunks: Annotated[
        str, options.Input(metavar="auto|PX", help="Side of a chunk that is read and held at once.")
    ] = "auto",
    tile: Annotated[
        str,
        options.Tiling(
            metavar="auto|bundle|PX",
            help="Side of a tile. auto: the cheapest that gives the right answer; bundle: as in training.",
        ),
    ] = "auto",
    overlap: Annotated[
        str, options.Tiling(metavar="auto|bundle|PX", help="Pixels that neighbouring tiles share.")
    ] = "auto",
    trim: Annotated[
        int | None,
        options.Tiling(
            metavar="PX", help="Pixels on each side of a tile that never count; the bundle's own if left out."
        ),
    ] = None,
    blend: Annotated[
        Literal["linear", "hann", "gaussian", "crop", "max"], options.Tiling(help="How neighbouring tiles are joined.")
    ] = "linear",
    augment: Annotated[
        str | None,
        options.Tiling(
            metavar="A,B,...",
            help="Turns averaged with the image as it is: hflip, vflip, rot90, rot180, rot270, transpose.",
        ),
    ] = None,
    scales: Annotated[
        str, options.Tiling(metavar="A,B,...", help="Sizes at which tiles are shown, such as 1,0.5.")
    ] = "1",
    merge: Annotated[Literal["mean", "max"], options.Tiling(help="How scales are fused.")] = "mean",
    trust: options.TrustOption = False,
    device: options.DeviceOption = "auto",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], options.Network(help="Arithmetic; auto is float32.")
    ] = "auto",
    backend: Annotated[
        Literal["auto", "eager", "compile", "onnx", "openvino"],
        options.Network(
            help="What runs the network; auto is the fastest that is installed and agrees with eager torch."
        ),
    ] = "auto",
    batch_size: Annotated[
        int | None, options.Network(help="Tiles per forward pass; the device's own choice if left out.")
    ] = None,
    keep_members: Annotated[
        bool, options.Output("--keep-members", help="Also write every model's own answer and their spread.")
    ] = False,
    float32: Annotated[
        bool, options.Output("--float32", help="Write probability as float32 instead of uint8 per cent.")
    ] = False,
    footprints: Annotated[
        str | None, options.Output(metavar="FILE", help="Also outline the objects: .parquet, .gpkg or .fgb.")
    ] = None,
    min_area_m2: options.MinAreaOption = None,
    cog: Annotated[
        str | None, options.Output(metavar="DIR", help="Also write probability.tif and binary.tif there.")
    ] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Map an image with a model: probability, yes or no, and which pixels are valid.

    The image is read, predicted and written chunk by chunk, so memory does not grow with it.

    Examples
    --------
    rtsx predict scene.tif --sensor planetscope --model demo --out map.zarr

    rtsx predict scene.tif --sensor planetscope --mask udm2.tif --mask-rule tss-v1 -m rts.ckpt --out map.zarr
    --footprints slumps.parquet --cog map

    rtsx predict cube.zarr -m seed1 -m seed2 -m seed3 --keep-members --augment hflip --out map.zarr
    """
    started = time.perf_counter()
    products = Products(footprints=footprints, cog=cog, min_area_m2=min_area_m2)
    refuse_other_format(out, what="a Zarr store", suffixes=(".zarr",))
    side, shared = options.side_of(tile, option="--tile"), options.side_of(overlap, option="--overlap")
    turns, sizes = augmentations(augment), options.numbers(scales, option="--scales")
    options.require_absent([out, *products.paths()], overwrite=overwrite)
    options.require_there(images)
    options.require_models(model)
    described = described_models(model)
    require_tiling(described, tile=side, overlap=shared)
    # Here and below, because refusals do not wait for heavy libraries.
    from rtsx.model.allocator import configure_malloc

    configure_malloc()
    cube = options.open_image(
        images, layers=layers, sensor=sensor, mask=mask, mask_rule=mask_rule, chunks=chunks, scale=scale, nodata=nodata
    )
    from rtsx.cube.times import years_of

    years = sorted({year for year in years_of(cube) if year is not None})
    if footprints is not None and len(years) > 1:
        raise options.misused(
            "--footprints",
            f"the image holds {', '.join(map(str, years))}, and a file of outlines is of one year: leave it out, then say "
            f"rtsx footprints {out} --year {years[0]}.",
        )
    from rtsx.cube import layer_names
    from rtsx.model.inputs import required_layers

    for one in described:
        required_layers(one.inputs or (), layer_names(cube))
    options.require_device(device)
    pred = rtsx.predict_cube(
        cube,
        options.open_models(model, trust=trust),
        tile=side,
        overlap=shared,
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
    if not options.has_valid_pixel(pred):
        raise CubeError(
            f"No pixel of {' '.join(images)} is valid: every one is nodata or NaN in some layer, or masked. "
            "Check nodata, the layers and --mask-rule with: rtsx info"
        )
    with progress("predicting", counts="tiles-"):
        rtsx.write_cube(pred, out, overwrite=overwrite)
    stored = options.open_prediction(out)
    rows = [*prediction_rows(stored), ("map", out), *products.write(stored, overwrite=overwrite)]
    show("Predicted", *rows, since=started)


cog_app = Commands()


@cog_app.command()
def cog(
    prediction: options.PredictionArgument,
    *,
    out: Annotated[str, options.Output(metavar="DIR", help="Folder of the files.")],
    overwrite: options.OverwriteOption = False,
) -> None:
    """Write probability and binary as cloud-optimised GeoTIFFs, for QGIS and GDAL.

    Examples
    --------
    rtsx cog map.zarr --out map
    """
    options.require_local(out, option="--out")
    refuse_other_format(out, what="a folder of GeoTIFFs")
    options.require_absent([str(Path(out) / name) for name in COG_NAMES], overwrite=overwrite)
    files = write_cogs(options.open_prediction(prediction), out, overwrite=overwrite)
    show("Written", *[(file.name, f"{file} ({file.stat().st_size / 1e6:.1f} MB)") for file in files])
