"""`rtsx train` and `rtsx cross-validate`: a YAML file to a bundle, and to scores of trainings on other regions."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtsx.cli import options
from rtsx.cli.console import Commands, print_info, progress, show, show_line, training_progress
from rtsx.storage import refuse_other_format

if TYPE_CHECKING:
    from rtsx.scores import PixelScores
    from rtsx.training import TrainedRun

__all__ = ["app", "cross_validate_app"]

app = Commands()


@app.command()
def train(
    config: Annotated[
        Path,
        typer.Argument(metavar="TRAIN.yaml", help="What is learnt, from which scenes, and how.", show_default=False),
    ],
    *,
    out: Annotated[Path, options.Output(metavar="FOLDER", help="The run: bundle, log, report.")],
    epochs: Annotated[
        int | None, typer.Option(help="Another number of epochs than the file's, as for a trial.", min=1)
    ] = None,
    device: options.DeviceOption = "auto",
    devices: Annotated[int, options.Network(help="How many devices share each batch.", min=1)] = 1,
    workers: Annotated[
        int, typer.Option(help="Processes that read tiles; 0 reads in a thread. No result depends on it.", min=0)
    ] = 0,
    log: Annotated[str | None, options.Output(metavar="A,B", help="Also log to tensorboard, wandb, or both.")] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Train a network on cubes and labels: a bundle that `rtsx predict` runs, a log, and a report of one page.

    Run it again after whatever stopped it, and it goes on from its last epoch to the same result.

    Examples
    --------
    rtsx train train.yaml --out runs/first

    rtsx train train.yaml --out runs/trial --epochs 1
    """
    refuse_other_format(out, what="the folder of a training")
    options.require_there([str(config)])
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
    options.require_device(device)
    started = time.perf_counter()
    # As a path, because paths in it are then remembered relative to its folder, and bundles are handed on to others.
    wanted = config if epochs is None else load_train_config(config).changed(epochs=epochs)
    with training_progress() as moved:
        runs = train_bundle(
            wanted,
            out,
            overwrite=overwrite,
            device=device,
            devices=devices,
            num_workers=workers,
            loggers=loggers,
            progress=moved,
        )
    for run in runs:
        show(run.bundle.id, *_rows(run))
    show("Trained", ("config", out / "config.yaml"), since=started)
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


cross_validate_app = Commands()


@cross_validate_app.command("cross-validate")
def cross_validate(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="TRAIN.yaml",
            help="A training whose scenes have groups; all of its sets are taken.",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[Path, options.Output(metavar="FOLDER", help="Tables, pictures and folds.")],
    folds: Annotated[
        int | None, typer.Option(help="Deal groups to this many folds; one group a fold if left out.", min=2)
    ] = None,
    transfer: Annotated[
        bool, typer.Option("--transfer", help="Train on each group alone, on all others and on all, and test on each.")
    ] = False,
    held_out: Annotated[
        float | None,
        typer.Option(help="With --transfer: part of each group's scenes that is tested on; 0.3 if left out."),
    ] = None,
    validation: Annotated[
        float, typer.Option(help="Part of the training scenes that choose epoch and threshold.")
    ] = 0.2,
    object_iou: Annotated[float, options.Rule(help="Least IoU of a found and a true object that are the same.")] = 0.5,
    min_area_m2: Annotated[
        float, options.Rule("--min-area-m2", help="Smaller objects are left out of object scores.", min=0)
    ] = 0.0,
    merge: Annotated[
        bool, typer.Option("--merge", help="Make one group of groups that overlap, instead of refusing them.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the draws.", min=0)] = 0,
    plot: Annotated[bool, options.Output(help="Draw the scores.")] = True,
    device: options.DeviceOption = "auto",
) -> None:
    """Leave one region out after another, and score what the others taught on it; no group is ever divided.

    Folds that are finished are not repeated by the same command. Each of the file's seeds is a training of every fold. Objects
    are those of --min-area-m2 and the threshold by pixels, also where the file says choose: objects.

    Examples
    --------
    rtsx cross-validate train.yaml --out folds

    rtsx cross-validate train.yaml --out folds --folds 5

    rtsx cross-validate train.yaml --out matrix --transfer
    """
    if transfer and folds is not None:
        raise options.misused("--folds", "the matrix has a row for each group; leave one of both out.")
    if held_out is not None and not transfer:
        raise options.misused("--held-out", "whole groups are tested without --transfer; leave it out.")
    refuse_other_format(out, what="the folder of a cross-validation")
    options.require_there([str(config)])
    # Here, because they are heavy.
    from rtsx.config.training import glance_at_training, load_train_config, training_recipes
    from rtsx.model.allocator import configure_malloc

    configure_malloc()
    started = time.perf_counter()
    glance_at_training(config)
    options.require_device(device)
    from rtsx.evaluation import cross_validate as leave_out  # below, because they load torch
    from rtsx.evaluation import transfer_matrix

    read = load_train_config(config)
    recipe = training_recipes(read, folder=config.absolute().parent)[0]
    if read.choose == "objects":
        print_info("choose: objects is for rtsx train; here objects are of the threshold by pixels, from --min-area-m2")
    choices: dict[str, Any] = {
        "validation": validation,
        "overlapping": "merge" if merge else "refuse",
        "seeds": read.seeds,
        "seed": seed,
        "object_iou": object_iou,
        "min_object_area_m2": min_area_m2,
        "device": device,
        "plot": plot,
    }
    if held_out is not None:
        choices["held_out"] = held_out
    with progress("training and testing", counts="fold-"):
        result = transfer_matrix(recipe, out, **choices) if transfer else leave_out(recipe, out, folds=folds, **choices)
    show_line(str(result))
    rows = [
        ("folds", len(result.plan.folds)),
        ("table", out / "table.csv"),
        ("matrix", out / "matrix.csv"),
        ("pictures", "" if not plot else f"{out / 'regions.png'}\n{out / 'matrix.png'}"),
    ]
    show("Cross-validated", *rows, since=started)
