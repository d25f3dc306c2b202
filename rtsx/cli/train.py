"""`rtsx train`: a YAML file to a bundle."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtsx.cli import options
from rtsx.cli.console import print_info, show, training_progress
from rtsx.cli.options import require_device, require_there
from rtsx.storage import refuse_other_format

if TYPE_CHECKING:
    from rtsx.scores import PixelScores
    from rtsx.training import TrainedRun

__all__ = ["app"]

app = typer.Typer()

_EXAMPLES = """Examples:

rtsx train train.yaml --out runs/first

rtsx train train.yaml --out runs/trial --epochs 1
"""


@app.command(epilog=_EXAMPLES)
def train(
    config: Annotated[
        Path,
        typer.Argument(metavar="TRAIN.yaml", help="What is learnt, from which scenes, and how.", show_default=False),
    ],
    *,
    out: Annotated[Path, options.output_option(metavar="FOLDER", help="The run: bundle, log, report.")],
    epochs: Annotated[
        int | None, typer.Option(help="Another number of epochs than the file's, as for a trial.", min=1)
    ] = None,
    device: options.DeviceOption = "auto",
    devices: Annotated[int, options.network_option(help="How many devices share each batch.", min=1)] = 1,
    workers: Annotated[
        int, typer.Option(help="Processes that read tiles; 0 reads in a thread. No result depends on it.", min=0)
    ] = 0,
    log: Annotated[
        str | None, options.output_option(metavar="A,B", help="Also log to tensorboard, wandb, or both.")
    ] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Train a network on cubes and labels: a bundle that `rtsx predict` runs, a log, and a report of one page.

    Run it again after whatever stopped it, and it goes on from its last epoch to the same result.
    """
    refuse_other_format(out, what="the folder of a training")
    require_there([str(config)])
    from rtsx.config.training import glance_at_training, load_train_config, train_bundle  # here, because they are heavy
    from rtsx.model.allocator import configure_malloc
    from rtsx.training.run_folder import RunFolder
    from rtsx.training.run_log import check_loggers

    configure_malloc()
    loggers: Any = options.words(log) or ()  # unknown ones are refused
    check_loggers(loggers)
    glanced = glance_at_training(config)
    if len(glanced.seeds) == 1:
        RunFolder(out).require_free(overwrite=overwrite)
    require_device(device)
    started = time.perf_counter()
    # As a path, because paths in it are then remembered relative to its folder, and bundles are handed on to others.
    wanted = config if epochs is None else load_train_config(config).changed(epochs=epochs)
    with training_progress() as progress:
        runs = train_bundle(
            wanted,
            out,
            overwrite=overwrite,
            device=device,
            devices=devices,
            num_workers=workers,
            loggers=loggers,
            progress=progress,
        )
    for run in runs:
        show(run.bundle.id, _rows(run))
    show("Trained", [("config", out / "config.yaml"), ("time", f"{time.perf_counter() - started:.1f} s")])
    if not any(run.validation for run in runs):
        print_info(
            "Nothing was validated: the last epoch is kept, with threshold 0.5. Name validation scenes, or a split."
        )


def _rows(run: "TrainedRun") -> list[tuple[str, object]]:
    bundle = run.bundle
    return [
        ("epochs", f"{run.epochs}, of which number {run.best_epoch} is kept"),
        ("validation", "" if run.validation is None else _scores(run.validation)),
        *((f"test {name}", _scores(scores)) for name, scores in run.test.items()),
        ("threshold", f"{bundle.threshold:g}"),
        ("outlines", "" if bundle.outlines is None else bundle.outlines),
        ("temperature", f"{bundle.temperature:g}"),
        ("parameters", f"{bundle.n_parameters:,}"),
        ("digest", bundle.digest),
        ("bundle", run.folder / "bundle"),
        ("report", run.folder / "report.html"),
    ]


def _scores(scores: "PixelScores") -> str:
    return f"IoU {scores.iou:.3f}, precision {scores.precision:.3f}, recall {scores.recall:.3f}"
