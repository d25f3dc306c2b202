"""`rtsx evaluate` and `rtsx cross-validate`: scores of maps, outlines and models, and of trainings on other regions."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtsx.cli import options
from rtsx.cli.console import print_info, progress, show, show_line
from rtsx.cli.options import (
    VECTORS,
    drawn_units,
    open_models,
    open_reviewed,
    open_year,
    require_device,
    require_models,
    require_there,
)
from rtsx.cli.outputs import require_absent, require_suffix
from rtsx.errors import MissingExtraError
from rtsx.storage import refuse_other_format, write_whole

if TYPE_CHECKING:
    from rtsx.evaluation import Evaluation, ObjectChoice
    from rtsx.model import ModelBundle

__all__ = ["app", "cross_validate_app"]

app = typer.Typer()

_rule = partial(typer.Option, rich_help_panel="Rule")

_EXAMPLES = """Examples:

rtsx evaluate map.zarr --truth labels.gpkg

rtsx evaluate slumps.parquet --truth labels.gpkg

rtsx evaluate evaluate.yaml --model runs/first/bundle --out report

rtsx evaluate map.zarr --truth labels.gpkg --year 2024 --choose

rtsx evaluate evaluate.yaml --model runs/first/bundle --choose --save-model chosen

rtsx evaluate --sample review --out report

rtsx evaluate --sample review --confidence-rule rule.json --precision-floor 0.6
"""
_CONFIGS = (".yaml", ".yml")


@app.command(epilog=_EXAMPLES)
def evaluate(
    evaluated: Annotated[
        str | None,
        typer.Argument(
            metavar="MAP.zarr|OUTLINES|EVALUATE.yaml",
            help="A map that `rtsx predict` wrote, outlines, or the scenes that --model is evaluated on.",
            show_default=False,
        ),
    ] = None,
    *,
    sample: Annotated[
        str | None,
        options.input_option(
            metavar="REVIEW|FILE",
            help="Instead of a truth: a review of what `rtsx sample` has drawn, or that file with the column `verdict` filled in.",
        ),
    ] = None,
    confidence_rule: Annotated[
        Path | None,
        options.output_option(
            metavar="RULE.json",
            help="With --sample, of outlines: also a class for each outline by its probability and size, for `rtsx footprints` and "
            "`rtsx campaign collect`.",
        ),
    ] = None,
    precision_floor: Annotated[
        float | None,
        _rule(help="With --confidence-rule: least precision of outlines that are accepted; 0.5 if left out."),
    ] = None,
    choose: Annotated[
        bool,
        _rule(
            "--choose",
            help="Instead of scores: the threshold and least area of outlines of the greatest object F1, for `rtsx footprints`.",
        ),
    ] = False,
    save_model: Annotated[
        str | None,
        options.output_option(
            metavar="FOLDER",
            help="With --choose: also write the --model with what was chosen, which its maps are then outlined by.",
        ),
    ] = None,
    truth: Annotated[str | None, options.input_option(metavar="FILE", help="Outlines of what is there.")] = None,
    layer: Annotated[
        str | None, options.input_option(metavar="NAME", help="Layer of a --truth that has several.")
    ] = None,
    crs: Annotated[
        str | None, options.input_option(metavar="EPSG:CODE", help="CRS of a --truth that does not say its own.")
    ] = None,
    class_name: Annotated[
        str | None, options.input_option("--class", help="Class of the map to evaluate; its only one if left out.")
    ] = None,
    year: options.YearOption = None,
    model: Annotated[
        list[str] | None,
        options.input_option(
            "--model", "-m", metavar="MODEL", help="What predicts the scenes of a YAML file; as for `rtsx predict`."
        ),
    ] = None,
    threshold: options.ThresholdOption = None,
    object_iou: Annotated[
        float | None,
        _rule(help="Least IoU of a found and a true object that are the same; 0.5, or the file's, if left out."),
    ] = None,
    boundary: Annotated[
        int | None, _rule(metavar="PX", help="Band of the boundary IoU; 3, or the file's, if left out.", min=1)
    ] = None,
    min_area_m2: Annotated[
        float | None, _rule("--min-area-m2", help="Smaller objects are left out of object scores.", min=0)
    ] = None,
    bootstrap: Annotated[
        int | None,
        _rule(help="Draws of scenes for the intervals, 0 for none; 1000, or the file's, if left out.", min=0),
    ] = None,
    out: Annotated[
        Path | None, options.output_option(metavar="FOLDER", help="Tables as CSV, and all counts as JSON.")
    ] = None,
    trust: options.TrustOption = False,
    device: options.DeviceOption = "auto",
    overwrite: options.OverwriteOption = False,
) -> None:
    """Score predictions by pixel, border and object: each scene, each region, and all together."""
    started = time.perf_counter()
    if out is not None:
        refuse_other_format(out, what="a folder of tables")
        require_absent([str(out)], overwrite=overwrite)
    options_given = {
        "threshold": threshold,
        "object_iou": object_iou,
        "boundary": boundary,
        "min_object_area_m2": min_area_m2,
        "bootstrap": bootstrap,
    }
    rule = {name: value for name, value in options_given.items() if value is not None}
    if sample is not None:
        _refuse_given(
            {"MAP.zarr|OUTLINES|EVALUATE.yaml": evaluated, "--truth": truth, "--layer": layer, "--crs": crs}
            | {
                "--class": class_name,
                "--year": year,
                "--model": model or None,
                "--threshold": threshold,
                "--object-iou": object_iou,
            }
            | {
                "--choose": choose or None,
                "--save-model": save_model,
                "--trust": trust or None,
                "--device": None if device == "auto" else device,
            }
            | {"--boundary": boundary, "--min-area-m2": min_area_m2, "--bootstrap": bootstrap},
            because="a sample was drawn of one map, and says all of it",
        )
        if precision_floor is not None and confidence_rule is None:
            raise typer.BadParameter(
                "it is for --confidence-rule RULE.json; say where to.", param_hint="--precision-floor"
            )
        if confidence_rule is not None:
            require_suffix(str(confidence_rule), (".json",), option="--confidence-rule")
            require_absent([str(confidence_rule)], overwrite=overwrite)
        floor = 0.5 if precision_floor is None else precision_floor
        _of_sample(sample, out, rule=confidence_rule, precision_floor=floor, started=started)
        return
    _refuse_given(
        {"--confidence-rule": confidence_rule, "--precision-floor": precision_floor},
        because="it is derived from a reviewed --sample of outlines",
    )
    if save_model is not None:
        if not choose or len(model or []) != 1:
            raise typer.BadParameter(
                "a model is written with what was chosen: say --choose, and one --model.", param_hint="--save-model"
            )
        refuse_other_format(save_model, what="the folder of a bundle")
        require_absent([save_model], overwrite=overwrite)
    if choose:
        _refuse_given(
            {"--threshold": threshold, "--boundary": boundary, "--bootstrap": bootstrap},
            because="--choose tries thresholds, and scores objects alone",
        )
    if evaluated is None:
        raise typer.BadParameter("name a map, outlines or a YAML file; or a reviewed sample, with --sample.")
    if evaluated.lower().endswith(_CONFIGS):
        _refuse_given(
            {"--truth": truth, "--layer": layer, "--crs": crs, "--class": class_name},
            because="the YAML file says them",
        )
        _refuse_given({"--year": year}, because=f"each scene of the YAML file says its own, as time: {year}")
        evaluation, bundles = _of_scenes(evaluated, model or [], rule=rule, device=device, trust=trust, choose=choose)
    else:
        _refuse_given(
            ({} if save_model else {"--model": model or None, "--trust": trust or None})
            | {"--device": None if device == "auto" else device},
            because="a map and outlines are predicted already; it is for YAML files",
        )
        if truth is None:
            raise typer.BadParameter("a map or outlines are evaluated by a truth: say --truth labels.gpkg.")
        if _has_outlines(evaluated):
            _refuse_given(
                {"--class": class_name, "--year": year, "--threshold": threshold, "--boundary": boundary},
                because="it is for maps, and these are outlines",
            )
            if choose:
                raise typer.BadParameter(
                    "thresholds are chosen for a map, and these are outlines.", param_hint="--choose"
                )
        bundles = [] if save_model is None else _of_map(evaluated, year, models=model or [], trust=trust)
        evaluation = _of_one(
            evaluated, truth, layer=layer, crs=crs, class_name=class_name, year=year, rule=rule, choose=choose
        )
    if save_model is not None:
        evaluation.applied_to(bundles[0]).save(save_model, overwrite=overwrite)  # type: ignore[union-attr]  # it chose
    tables = _tables(evaluation)
    if out is not None:
        for name, written in tables.items():
            write_whole(out / name, written.encode())
    show_line(str(evaluation), asked=out is None)
    rows: list[tuple[str, object]] = [
        ("report", out),
        ("model", save_model),
        ("time", f"{time.perf_counter() - started:.1f} s"),
    ]
    show("Evaluated", rows)


def _of_map(path: str, year: int | None, *, models: list[str], trust: bool) -> "list[ModelBundle]":
    """Open the model that a map was predicted with, and no other."""
    require_there([path])
    require_models(models)
    made = str(open_year(path, year).attrs.get("bundle_digest"))
    bundles = open_models(models, trust=trust)
    if made != bundles[0].digest:
        raise typer.BadParameter(
            f"{path} was predicted by {made[:12]}, and {models[0]} is {bundles[0].digest[:12]}: what is best for the one is not "
            "for the other. Name the model that made the map.",
            param_hint="--model",
        )
    return bundles


def _of_sample(path: str, out: Path | None, *, rule: Path | None, precision_floor: float, started: float) -> None:
    from rtsx.evaluation import assess_accuracy, derive_confidence_rule

    reviewed = drawn_units(open_reviewed(path))
    accuracy = assess_accuracy(reviewed)
    derived = None if rule is None else derive_confidence_rule(reviewed, precision_floor=precision_floor)
    if out is not None:
        for name in ("strata", "estimates"):
            write_whole(out / f"{name}.csv", getattr(accuracy, name).to_csv(index=False).encode())
        write_whole(out / "accuracy.json", accuracy.to_json().encode())
        try:
            accuracy.plot(out / "strata.png")
        except MissingExtraError as error:
            print_info(f"strata.png is left out. {error}")
    show_line(str(accuracy), asked=out is None)
    if derived is not None and rule is not None:
        derived.write(rule)
        show_line(str(derived), asked=out is None)
    rows: list[tuple[str, object]] = [
        ("units", f"{int(accuracy.strata['reviewed'].sum())} decided of {int(accuracy.strata['drawn'].sum())}"),
        ("rule", rule),
        ("report", out),
        ("time", f"{time.perf_counter() - started:.1f} s"),
    ]
    show("Evaluated", rows)


def _of_scenes(
    path: str, models: list[str], *, rule: dict[str, float], device: str, trust: bool, choose: bool
) -> "tuple[Evaluation | ObjectChoice, list[ModelBundle]]":
    if not models:
        raise typer.BadParameter("scenes of a YAML file are predicted first: say --model BUNDLE.", param_hint="--model")
    require_there([path])
    require_models(models)
    from rtsx.config.evaluate import load_evaluate_config  # here, because refusals do not wait for it
    from rtsx.model.allocator import configure_malloc

    configure_malloc()
    config = load_evaluate_config(path).changed(**rule)
    config.resolved()
    require_device(device)
    bundles = open_models(models, trust=trust)
    with progress("scoring"):
        return (config.choose if choose else config.evaluate)(bundles, device=device), bundles


def _of_one(
    evaluated: str,
    truth: str,
    *,
    layer: str | None,
    crs: str | None,
    class_name: str | None,
    year: int | None,
    rule: dict[str, float],
    choose: bool,
) -> "Evaluation | ObjectChoice":
    require_there([evaluated, truth])
    from rtsx.cube import class_names, geobox_of
    from rtsx.evaluation import choose_objects
    from rtsx.evaluation import evaluate as score
    from rtsx.labels import rasterize_labels, read_labels
    from rtsx.labels.io import read_table
    from rtsx.labels.standardise import NEGATIVE

    prediction = None if _has_outlines(evaluated) else open_year(evaluated, year)
    labels = read_labels(truth, layer=layer, crs=crs)
    labels = labels[labels["class_name"] != NEGATIVE]
    classes = None if class_name is None else [class_name]
    if prediction is None:
        return score(read_table(evaluated, what="outlines"), labels, **rule)  # type: ignore[arg-type]  # by name
    targets = [name for name in class_names(prediction) if name != "background"]
    known = labels if len(targets) < 2 else rasterize_labels(labels, geobox_of(prediction), classes=targets)
    with progress("scoring"):
        if choose:
            return choose_objects(prediction, known, class_name=class_name, **rule)  # type: ignore[arg-type]  # by name
        return score(prediction, known, classes=classes, **rule)  # type: ignore[arg-type]  # by name


def _has_outlines(evaluated: str) -> bool:
    return evaluated.lower().partition("|layername=")[0].endswith(VECTORS)


def _refuse_given(given: Mapping[str, object], *, because: str) -> None:
    for option, value in given.items():
        if value is not None:
            raise typer.BadParameter(f"{option} has no meaning here, because {because}.", param_hint=option)


def _tables(result: "Evaluation | ObjectChoice") -> dict[str, str]:
    from rtsx.evaluation import ObjectChoice

    if isinstance(result, ObjectChoice):
        return {"choice.csv": result.table.to_csv(index=False)}
    tables = {f"{name}.csv": getattr(result, name).to_csv(index=False) for name in ("scenes", "regions", "pooled")}
    return tables | {"evaluation.json": result.to_json()}


cross_validate_app = typer.Typer()

_CROSS_VALIDATE_EXAMPLES = """Examples:

rtsx cross-validate train.yaml --out folds

rtsx cross-validate train.yaml --out folds --folds 5

rtsx cross-validate train.yaml --out matrix --transfer
"""


@cross_validate_app.command("cross-validate", epilog=_CROSS_VALIDATE_EXAMPLES)
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
    out: Annotated[Path, options.output_option(metavar="FOLDER", help="Tables, pictures and folds.")],
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
    object_iou: Annotated[float, _rule(help="Least IoU of a found and a true object that are the same.")] = 0.5,
    min_area_m2: Annotated[
        float, _rule("--min-area-m2", help="Smaller objects are left out of object scores.", min=0)
    ] = 0.0,
    merge: Annotated[
        bool, typer.Option("--merge", help="Make one group of groups that overlap, instead of refusing them.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the draws.", min=0)] = 0,
    plot: Annotated[bool, options.output_option(help="Draw the scores.")] = True,
    device: options.DeviceOption = "auto",
) -> None:
    """Leave one region out after another, and score what the others taught on it; no group is ever divided.

    Folds that are finished are not repeated by the same command. Each of the file's seeds is a training of every fold. Objects
    are those of --min-area-m2 and the threshold by pixels, also where the file says choose: objects.
    """
    if transfer and folds is not None:
        raise typer.BadParameter("the matrix has a row for each group; leave one of both out.", param_hint="--folds")
    if held_out is not None and not transfer:
        raise typer.BadParameter("whole groups are tested without --transfer; leave it out.", param_hint="--held-out")
    refuse_other_format(out, what="the folder of a cross-validation")
    require_there([str(config)])
    from rtsx.config.training import (  # here, because they are heavy
        glance_at_training,
        load_train_config,
        training_recipes,
    )
    from rtsx.model.allocator import configure_malloc

    configure_malloc()
    started = time.perf_counter()
    glance_at_training(config)
    require_device(device)
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
