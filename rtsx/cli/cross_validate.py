"""`rtsx cross-validate`: what a training is worth on regions that it has not learnt from."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from rtsx.cli import options
from rtsx.cli.console import show, show_line
from rtsx.cli.opening import require_device, require_there
from rtsx.cli.progress import progress

__all__ = ["app"]

app = typer.Typer()

_EXAMPLES = """Examples:

rtsx cross-validate train.yaml --out folds

rtsx cross-validate train.yaml --out folds --folds 5

rtsx cross-validate train.yaml --out matrix --transfer
"""


@app.command("cross-validate", epilog=_EXAMPLES)
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
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Tables, pictures and folds.", rich_help_panel="Output")],
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
    object_iou: Annotated[
        float, typer.Option(help="Least IoU of a found and a true object that are the same.", rich_help_panel="Rule")
    ] = 0.5,
    min_area_m2: Annotated[
        float,
        typer.Option(
            "--min-area-m2", help="Smaller objects are left out of object scores.", min=0, rich_help_panel="Rule"
        ),
    ] = 0.0,
    merge: Annotated[
        bool, typer.Option("--merge", help="Make one group of groups that overlap, instead of refusing them.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the draws.", min=0)] = 0,
    plot: Annotated[bool, typer.Option(help="Draw the scores.", rich_help_panel="Output")] = True,
    device: options.DeviceOption = "auto",
) -> None:
    """Leave one region out after another, and score what the others taught on it; no group is ever divided.

    Folds that are finished are not repeated by the same command. Each of the file's seeds is a training of every fold.
    """
    if transfer and folds is not None:
        raise typer.BadParameter("the matrix has a row for each group; leave one of both out.", param_hint="--folds")
    if held_out is not None and not transfer:
        raise typer.BadParameter("whole groups are tested without --transfer; leave it out.", param_hint="--held-out")
    require_there([str(config)])
    from rtsx.config.training import (  # here, because they are heavy
        glance_at_training,
        load_train_config,
        training_recipes,
    )
    from rtsx.model.allocator import keep_freed_memory

    keep_freed_memory()
    started = time.perf_counter()
    glance_at_training(config)
    require_device(device)
    from rtsx.evaluation import cross_validate as leave_out  # below, because they load torch
    from rtsx.evaluation import transfer_matrix

    read = load_train_config(config)
    recipe = training_recipes(read, folder=config.absolute().parent)[0]
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
    with progress("training and testing", counts="fold-"):
        if transfer:
            if held_out is not None:
                choices["held_out"] = held_out
            result = transfer_matrix(recipe, out, **choices)
        else:
            result = leave_out(recipe, out, folds=folds, **choices)
    show_line(str(result))
    rows: list[tuple[str, object]] = [
        ("folds", len(result.plan.folds)),
        ("table", out / "table.csv"),
        ("matrix", out / "matrix.csv"),
        ("pictures", "" if not plot else f"{out / 'regions.png'}\n{out / 'matrix.png'}"),
        ("time", f"{time.perf_counter() - started:.1f} s"),
    ]
    show("Cross-validated", rows)
