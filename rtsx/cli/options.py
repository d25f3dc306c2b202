"""Arguments and options that several commands share, each described once."""

from typing import Annotated, Literal, get_args

import typer

__all__ = [
    "AugmentOption",
    "BackendOption",
    "BatchSizeOption",
    "BlendOption",
    "ChunksOption",
    "CogOption",
    "CubeArgument",
    "DeviceOption",
    "EdgeDistanceOption",
    "Float32Option",
    "FootprintsOption",
    "GeographicOption",
    "KeepMembersOption",
    "LayersOption",
    "MaskOption",
    "MaskRuleOption",
    "MergeOption",
    "MinAreaOption",
    "ModelOption",
    "OverlapOption",
    "OverwriteOption",
    "PrecisionOption",
    "PredictionArgument",
    "ScaleOption",
    "ScalesOption",
    "SensorOption",
    "ThresholdOption",
    "TileOption",
    "TrimOption",
    "TrustOption",
    "augmentations",
    "chunk_size",
    "numbers",
    "tile_size",
    "words",
]

Augmentation = Literal["hflip", "vflip", "rot90", "rot180", "rot270", "transpose"]
"""Turns that `--augment` takes."""

_INPUT, _TILING, _NETWORK, _OUTPUT = "Input", "Tiling", "Network", "Output"


CubeArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="CUBE|TIF...",
        help="A Zarr cube, the YAML file of one, or GeoTIFF / COG files that share one grid.",
        show_default=False,
    ),
]
PredictionArgument = Annotated[
    str, typer.Argument(metavar="PREDICTION", help="A Zarr store that `rtsx predict` wrote.", show_default=False)
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace outputs that exist.", rich_help_panel=_OUTPUT)
]

LayersOption = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...",
        help="Layers to use; for GeoTIFFs without band names, the names of the bands in their order.",
        rich_help_panel=_INPUT,
    ),
]
SensorName = Literal["planetscope", "sentinel2-l2a", "sentinel2-l2a-04.00", "arcticdem", "tcvis"]
"""Names in `rtsx.cube.SENSORS`, which loads what refusals do not wait for; a test holds one to the other."""
MaskRuleName = Literal["tss-v1", "darts-v2", "sentinel2-scl", "landsat-qa-pixel"]
"""Likewise in `rtsx.cube.MASK_RULES`."""

SensorOption = Annotated[
    SensorName | None, typer.Option(help="What the bands of the GeoTIFFs are.", rich_help_panel=_INPUT)
]
ScaleOption = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="What stored integers times this are, in layers that do not say: 0.0001 for most reflectance.",
        rich_help_panel=_INPUT,
    ),
]
MaskOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIF",
        help="Quality data on the image's pixels: a UDM2 or a scene classification.",
        rich_help_panel=_INPUT,
    ),
]
MaskRuleOption = Annotated[
    MaskRuleName | None,
    typer.Option(help="How --mask is read.", rich_help_panel=_INPUT),
]
ChunksOption = Annotated[
    str, typer.Option(metavar="auto|PX", help="Side of a chunk that is read and held at once.", rich_help_panel=_INPUT)
]

ModelOption = Annotated[
    list[str],
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="A bundle folder or URL, a checkpoint that describes itself, or 'demo' for the small model that ships with "
        "rtsx. Given several times, the answers are averaged.",
        show_default=False,
        rich_help_panel=_NETWORK,
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust", help="Read model files that can run code of their author when read.", rich_help_panel=_NETWORK
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=_NETWORK)]
PrecisionOption = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="Arithmetic; auto is bfloat16 on a GPU and float32 on a CPU.", rich_help_panel=_NETWORK),
]
BackendOption = Annotated[
    Literal["auto", "eager", "compile", "onnx", "openvino"],
    typer.Option(
        help="What runs the network; auto is the fastest that is installed and agrees with eager torch.",
        rich_help_panel=_NETWORK,
    ),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(help="Tiles per forward pass; the device's own choice if left out.", rich_help_panel=_NETWORK),
]

TileOption = Annotated[
    str,
    typer.Option(
        metavar="auto|bundle|PX",
        help="Side of a tile. auto: the cheapest that gives the right answer; bundle: as in training.",
        rich_help_panel=_TILING,
    ),
]
OverlapOption = Annotated[
    str, typer.Option(metavar="auto|bundle|PX", help="Pixels that neighbouring tiles share.", rich_help_panel=_TILING)
]
TrimOption = Annotated[
    int | None,
    typer.Option(
        metavar="PX",
        help="Pixels on each side of a tile that never count; the bundle's own if left out.",
        rich_help_panel=_TILING,
    ),
]
BlendOption = Annotated[
    Literal["linear", "hann", "gaussian", "crop", "max"],
    typer.Option(help="How neighbouring tiles are joined.", rich_help_panel=_TILING),
]
AugmentOption = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...",
        help="Turns averaged with the image as it is: hflip, vflip, rot90, rot180, rot270, transpose.",
        rich_help_panel=_TILING,
    ),
]
ScalesOption = Annotated[
    str, typer.Option(metavar="A,B,...", help="Sizes at which tiles are shown, such as 1,0.5.", rich_help_panel=_TILING)
]
MergeOption = Annotated[Literal["mean", "max"], typer.Option(help="How scales are fused.", rich_help_panel=_TILING)]
KeepMembersOption = Annotated[
    bool,
    typer.Option(
        "--keep-members", help="Also write every model's own answer and their spread.", rich_help_panel=_OUTPUT
    ),
]
Float32Option = Annotated[
    bool,
    typer.Option("--float32", help="Write probability as float32 instead of uint8 per cent.", rich_help_panel=_OUTPUT),
]
FootprintsOption = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Also outline the objects: .parquet, .gpkg or .fgb.", rich_help_panel=_OUTPUT),
]
CogOption = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Also write probability.tif and binary.tif there.", rich_help_panel=_OUTPUT),
]

MinAreaOption = Annotated[
    float, typer.Option("--min-area-m2", help="Leave out smaller objects, in m².", rich_help_panel=_OUTPUT)
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(help="Least probability (0-1) of an object; the model's own if left out.", rich_help_panel=_OUTPUT),
]
EdgeDistanceOption = Annotated[
    int,
    typer.Option(
        metavar="PX", help="Objects this near to missing data are marked touches_edge.", rich_help_panel=_OUTPUT
    ),
]
GeographicOption = Annotated[
    bool, typer.Option("--geographic", help="Write EPSG:4326 instead of the grid's CRS.", rich_help_panel=_OUTPUT)
]


def words(given: str | None) -> list[str] | None:
    """Split a comma list.

    Examples
    --------
    >>> words("blue, green,nir")
    ['blue', 'green', 'nir']
    """
    return None if given is None else [word.strip() for word in given.split(",") if word.strip()]


def augmentations(given: str | None) -> list[Augmentation]:
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
    named = words(given) or []
    unknown = [word for word in named if word not in get_args(Augmentation)]
    if unknown:
        raise typer.BadParameter(
            f"expected some of {', '.join(get_args(Augmentation))}; got {', '.join(unknown)}.", param_hint="--augment"
        )
    return [turn for turn in get_args(Augmentation) if turn in named]


def numbers(given: str, *, option: str) -> list[float]:
    """Split a comma list of numbers.

    Raises
    ------
    typer.BadParameter
        Something in it is no number.

    Examples
    --------
    >>> numbers("1,0.5", option="--scales")
    [1.0, 0.5]
    """
    try:
        return [float(word) for word in words(given) or []]
    except ValueError as error:
        raise typer.BadParameter(
            f"expected numbers separated by commas, such as 1,0.5; got {given!r}.", param_hint=option
        ) from error


def tile_size(given: str, *, option: str) -> int | Literal["auto", "bundle"]:
    """Read a number of pixels, `auto` or `bundle`.

    Raises
    ------
    typer.BadParameter
        It is none of them.

    Examples
    --------
    >>> tile_size("512", option="--tile"), tile_size("auto", option="--tile")
    (512, 'auto')
    """
    named: dict[str, Literal["auto", "bundle"]] = {"auto": "auto", "bundle": "bundle"}
    if given in named:
        return named[given]
    if not given.isdecimal():
        raise typer.BadParameter(f"expected auto, bundle or a number of pixels; got {given!r}.", param_hint=option)
    return int(given)


def chunk_size(given: str) -> int | Literal["auto"]:
    """Read a number of pixels or `auto`.

    Raises
    ------
    typer.BadParameter
        It is neither.
    """
    if given == "auto":
        return "auto"
    if not given.isdecimal():
        raise typer.BadParameter(f"expected auto or a number of pixels; got {given!r}.", param_hint="--chunks")
    return int(given)
