"""`rtsx model`: describe models, make bundles from other people's files, and export networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import rtsx
from rtsx.cli import options
from rtsx.cli.console import Commands, print_info, show
from rtsx.cli.info import bundle_rows, reach_line, scaling_rows
from rtsx.errors import BundleError
from rtsx.storage import write_whole

if TYPE_CHECKING:
    from rtsx.model import ModelBundle

__all__ = ["app", "network_file"]


def network_file(bundle: "ModelBundle", *, kind: Literal["onnx", "pt2"]) -> bytes:
    """Export the network alone, without scaling and activation, for any number of tiles of any size it can take.

    Raises
    ------
    BundleError
        The network cannot be exported so.
    MissingExtraError
        ONNX needs the extra `onnx`.
    """
    # Here, because they load torch, which `--help` should not wait for.
    from rtsx.model.exported import export_module
    from rtsx.model.onnx import exported_onnx

    if bundle.bn_mode != "eval":
        raise BundleError(
            f"{bundle.id} takes the statistics of each tile (bn_mode='batch'), which no file can say. "
            "Import it with --bn-mode eval first."
        )
    if bundle.source.framework == "onnx" and kind == "onnx":
        return bundle.source.onnx_path().read_bytes()
    module = bundle.source.load_module()
    if kind == "onnx":
        return exported_onnx(module, n_layers=len(bundle.inputs), tile=bundle.tile)
    return export_module(module, n_layers=len(bundle.inputs), tile=bundle.tile, stride=bundle.stride)


app = Commands(no_args_is_help=True)

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A bundle folder or URL, a checkpoint that describes itself, or 'demo' for the model that ships with rtsx.",
        show_default=False,
    ),
]
OutOption = Annotated[str, options.Output(metavar="FOLDER", help="Folder or URL of the new bundle.")]


@app.command()
def info(model: ModelArgument, *, trust: options.TrustOption = False) -> None:
    """Tell what a model finds, which layers it wants and how it scales them.

    Examples
    --------
    rtsx model info demo

    rtsx model info runs/7/checkpoints/30.pt
    """
    (bundle,) = options.open_models([model], trust=trust)
    history = [
        # Recipes and configs are pages long.
        (f"  {name}", f"{len(value)} entries, in item.json" if isinstance(value, dict | list) else value)
        for name, value in (bundle.provenance or {}).items()
    ]
    show(
        model,
        *bundle_rows(bundle),
        *scaling_rows(bundle),
        *([("provenance", " "), *history] if history else []),
        asked=True,
    )


@app.command()
def probe(
    model: ModelArgument,
    *,
    save: Annotated[bool, typer.Option("--save", help="Keep the result in the bundle's folder.")] = False,
    trust: options.TrustOption = False,
) -> None:
    """Measure how far a changed pixel moves the answer, which is what --tile auto plans by.

    Some seconds to a minute. Predictions measure it themselves where it is not stored with the bundle.

    Examples
    --------
    rtsx model probe demo

    rtsx model probe my-bundle --save
    """
    options.require_models([model])
    if save and not (Path(model).is_dir()):
        raise BundleError(f"--save writes into a bundle's folder; {model} is none. Make one with rtsx model import.")
    (bundle,) = options.open_models([model], trust=trust)
    from rtsx.model.backend_choice import receptive_field_of  # loads torch, which `--help` does not wait for

    print_info("measuring ...")
    reach = receptive_field_of(bundle)
    if save:
        bundle.with_reach(reach).save(model, overwrite=True)
    rows = [("reach", reach_line(reach.radius, reach.depends_on_tile)), ("stride", f"{reach.stride} px")]
    show(model, *rows, asked=not save)


@app.command()
def export(
    model: ModelArgument,
    *,
    out: Annotated[str, options.Output(metavar="FILE", help=".onnx or .pt2 for other software, else a bundle folder.")],
    trust: options.TrustOption = False,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Write a model as ONNX or as a torch.export program for other software, or as a bundle.

    The two files hold the network alone: they take scaled channels and give what the activation is applied to.

    Examples
    --------
    rtsx model export rts-bundle --out rts.onnx

    rtsx model export demo --out demo-bundle
    """
    options.require_new(out, what="the folder of a bundle", suffixes=(".onnx", ".pt2"), overwrite=overwrite)
    (bundle,) = options.open_models([model], trust=trust)
    if not out.endswith((".onnx", ".pt2")):
        bundle.save(out, overwrite=overwrite)
        show("Exported", *bundle_rows(bundle), ("bundle", out))
        return
    options.require_local(out, option="--out")
    write_whole(Path(out), network_file(bundle, kind="onnx" if out.endswith(".onnx") else "pt2"))
    show("Exported", *bundle_rows(bundle), *scaling_rows(bundle), ("to apply", bundle.activation), ("file", out))


@app.command(name="import")
def import_model(
    model: Annotated[
        str, typer.Argument(metavar="FILE", help="Checkpoint, ONNX, TorchScript or .pt2.", show_default=False)
    ],
    *,
    out: OutOption,
    layers: Annotated[str | None, typer.Option(metavar="A,B,...", help="Names of the channels, in order.")] = None,
    mean: Annotated[str | None, typer.Option(metavar="A,B,...", help="Mean per layer, in physical units.")] = None,
    std: Annotated[str | None, typer.Option(metavar="A,B,...", help="Deviation per layer, in physical units.")] = None,
    preset: Annotated[str | None, typer.Option(help="Scaling by name instead: tss-v1 or darts-v2.")] = None,
    classes: Annotated[str | None, typer.Option(metavar="A,B,...", help="Names of the answers, in order.")] = None,
    activation: Annotated[
        Literal["sigmoid", "softmax", "none"] | None, typer.Option(help="none if the file returns probabilities.")
    ] = None,
    tile: Annotated[int | None, typer.Option(metavar="PX", help="Side of a tile.")] = None,
    overlap: Annotated[int | None, typer.Option(metavar="PX", help="Pixels that neighbouring tiles share.")] = None,
    trim: Annotated[int | None, typer.Option(metavar="PX", help="Pixels on each side that never count.")] = None,
    stride: Annotated[int | None, typer.Option(metavar="PX", help="Total down-sampling of the network.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Least probability that counts as found.")] = None,
    fill: Annotated[float | None, typer.Option(help="Channel value of an invalid pixel.")] = None,
    pixel_m: Annotated[
        float | None, typer.Option(metavar="M", help="Ground length of a pixel that the network has learnt.")
    ] = None,
    bn_mode: Annotated[
        Literal["eval", "batch"] | None, typer.Option(help="batch reproduces DARTS v1; eval is right.")
    ] = None,
    name: Annotated[str | None, typer.Option("--id", help="Name of the model; the file's if left out.")] = None,
    architecture: Annotated[
        str | None, typer.Option(help="For a checkpoint that does not say it: such as Unet.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="For a checkpoint that does not say it: such as resnet34.")
    ] = None,
    trust: options.TrustOption = False,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Turn a file of weights into a bundle: a folder that says everything about the model.

    Checkpoints of thaw-slump-segmentation and darts-nextgen describe themselves; other files need --layers, --mean and
    --std or --preset, --classes, --tile and --overlap. What is given here counts more than what the file says.

    Examples
    --------
    rtsx model import runs/7/checkpoints/30.pt --out rts-bundle

    rtsx model import net.onnx --layers blue,green,red,nir --mean 0.1,0.1,0.1,0.2 --std 0.05,0.05,0.05,0.1 --classes clear,cloud,shadow --tile 256 --overlap 64 --out clouds
    """
    options.require_new(out, what="the folder of a bundle", overwrite=overwrite)
    options.require_models([model])
    bundle = rtsx.ModelBundle.open(
        model,
        layers=options.words(layers),
        mean=None if mean is None else options.numbers(mean, option="--mean"),
        std=None if std is None else options.numbers(std, option="--std"),
        preset=preset,
        classes=options.words(classes),
        activation=activation,
        tile=tile,
        overlap=overlap,
        trim=trim,
        stride=stride,
        threshold=threshold,
        fill=fill,
        pixel_m=pixel_m,
        bn_mode=bn_mode,
        id=name,
        architecture=architecture,
        encoder=encoder,
        trust=trust,
    )
    bundle.save(out, overwrite=overwrite)
    show("Imported", *bundle_rows(bundle), ("bundle", out))
