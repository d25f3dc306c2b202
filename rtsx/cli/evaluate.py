"""`rtsx evaluate`, `rtsx sample` and `rtsx area`: scores of maps, outlines and models, units to review, and the area that a map expects."""

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import rtsx
from rtsx.cli import options
from rtsx.cli.console import Commands, print_info, progress, show, show_line
from rtsx.cli.truth import StatedTruth
from rtsx.errors import MissingExtraError
from rtsx.storage import staged, write_whole

if TYPE_CHECKING:
    from rtsx.evaluation import Evaluation, ObjectChoice
    from rtsx.model import ModelBundle

__all__ = ["app", "area_app", "sample_app"]

app = Commands()

_EVALUATED = "MAP.zarr|OUTLINES|EVALUATE.yaml"
_OF_TRUTH = ("--class-column", "--class-value", "--band", "--ignored")
_OF_SAMPLE = {"--sample", "--confidence-rule", "--precision-floor", "--out", "--overwrite"}
"""Options that go with a reviewed sample."""


@app.command()
def evaluate(
    line: typer.Context,
    evaluated: Annotated[
        str | None,
        typer.Argument(
            metavar=_EVALUATED,
            help="A map that `rtsx predict` wrote, outlines, or the scenes that --model is evaluated on.",
            show_default=False,
        ),
    ] = None,
    *,
    sample: Annotated[
        str | None,
        options.Input(
            metavar="REVIEW|FILE",
            help="Instead of a truth: a review of what `rtsx sample` has drawn, or that file with the column `verdict` filled in.",
        ),
    ] = None,
    confidence_rule: Annotated[
        Path | None,
        options.Output(
            metavar="RULE.json",
            help="With --sample, of outlines: also a class for each outline by its probability and size, for `rtsx footprints` and "
            "`rtsx campaign collect`.",
        ),
    ] = None,
    precision_floor: Annotated[
        float | None,
        options.Rule(help="With --confidence-rule: least precision of outlines that are accepted; 0.5 if left out."),
    ] = None,
    choose: Annotated[
        bool,
        options.Rule(
            "--choose",
            help="Instead of scores: the threshold and least area of outlines of the greatest object F1, for `rtsx footprints`.",
        ),
    ] = False,
    save_model: Annotated[
        str | None,
        options.Output(
            metavar="FOLDER",
            help="With --choose: also write the --model with what was chosen, which its maps are then outlined by.",
        ),
    ] = None,
    truth: Annotated[
        str | None,
        options.Input(
            metavar="FILE", help="What is there: outlines, or a raster of integers on the pixels of the map."
        ),
    ] = None,
    layer: Annotated[str | None, options.Input(metavar="NAME", help="Layer of a --truth that has several.")] = None,
    crs: Annotated[
        str | None, options.Input(metavar="EPSG:CODE", help="CRS of a --truth that does not say its own.")
    ] = None,
    class_column: Annotated[
        str | None,
        options.Input(metavar="NAME", help="Column of --truth that says the class, where its name is not known."),
    ] = None,
    class_value: Annotated[
        str | None,
        options.Input(
            metavar="VALUE,...",
            help="What --truth calls the class, in that column or in its pixels; its only class, or 1, if left out.",
        ),
    ] = None,
    band: Annotated[
        int | None, options.Input(metavar="N", help="Band of a --truth that is a raster; 1 if left out.", min=1)
    ] = None,
    ignored: Annotated[
        str | None,
        options.Input(
            metavar="VALUE,...",
            help="Values of a --truth that is a raster that count neither way, beside 255 and its nodata.",
        ),
    ] = None,
    map_: Annotated[
        str | None,
        options.Input(
            "--map",
            metavar="MAP.zarr|FILE",
            help="Of OUTLINES: the map that they are of, or polygons of the ground that was mapped; truth elsewhere is left out.",
        ),
    ] = None,
    class_name: Annotated[
        str | None,
        options.Input("--class", help="Class of the map or outlines to evaluate; their only one if left out."),
    ] = None,
    year: options.YearOption = None,
    model: Annotated[
        list[str] | None,
        options.Input(
            "--model", "-m", metavar="MODEL", help="What predicts the scenes of a YAML file; as for `rtsx predict`."
        ),
    ] = None,
    threshold: options.ThresholdOption = None,
    object_iou: Annotated[
        float | None,
        options.Rule(help="Least IoU of a found and a true object that are the same; 0.5, or the file's, if left out."),
    ] = None,
    boundary: Annotated[
        int | None, options.Rule(metavar="PX", help="Band of the boundary IoU; 3, or the file's, if left out.", min=1)
    ] = None,
    min_area_m2: Annotated[
        float | None, options.Rule("--min-area-m2", help="Smaller objects are left out of object scores.", min=0)
    ] = None,
    bootstrap: Annotated[
        int | None,
        options.Rule(help="Draws of scenes for the intervals, 0 for none; 1000, or the file's, if left out.", min=0),
    ] = None,
    out: Annotated[Path | None, options.Output(metavar="FOLDER", help="Tables as CSV, and all counts as JSON.")] = None,
    trust: options.TrustOption = False,
    device: options.DeviceOption = "auto",
    overwrite: options.OverwriteOption = False,
) -> None:
    """Score predictions by pixel, border and object: each scene, each region, and all together.

    Examples
    --------
    rtsx evaluate map.zarr --truth labels.gpkg

    rtsx evaluate map.zarr --truth truth.tif --class-value 2 --ignored 0

    rtsx evaluate map.zarr --truth labels.gpkg --class-column kind --class-value slump

    rtsx evaluate slumps.parquet --truth labels.gpkg --map map.zarr

    rtsx evaluate evaluate.yaml --model runs/first/bundle --out report

    rtsx evaluate map.zarr --truth labels.gpkg --year 2024 --choose

    rtsx evaluate evaluate.yaml --model runs/first/bundle --choose --save-model chosen

    rtsx evaluate --sample review --out report

    rtsx evaluate --sample review --confidence-rule rule.json --precision-floor 0.6
    """
    started = time.perf_counter()
    if out is not None:
        options.require_new(out, what="a folder of tables", overwrite=overwrite)
    asked = {"threshold": threshold, "object_iou": object_iou, "boundary": boundary, "bootstrap": bootstrap}
    asked["min_object_area_m2"] = min_area_m2
    rule = {name: value for name, value in asked.items() if value is not None}
    refuse = partial(_refuse_given, line)
    if sample is not None:
        others = {option.opts[0] for option in line.command.params if option.param_type_name == "option"} - _OF_SAMPLE
        refuse(_EVALUATED, *others, because="a sample was drawn of one map, and says all of it")
        if precision_floor is not None and confidence_rule is None:
            raise options.misused("--precision-floor", "it is for --confidence-rule RULE.json; say where to.")
        options.require_suffix(confidence_rule, (".json",), option="--confidence-rule", overwrite=overwrite)
        floor = 0.5 if precision_floor is None else precision_floor
        _of_sample(sample, out, rule=confidence_rule, precision_floor=floor, started=started)
        return
    refuse("--confidence-rule", "--precision-floor", because="it is derived from a reviewed --sample of outlines")
    if save_model is not None:
        if not choose or len(model or []) != 1:
            raise options.misused(
                "--save-model", "a model is written with what was chosen: say --choose, and one --model."
            )
        options.require_new(save_model, what="the folder of a bundle", overwrite=overwrite)
    if choose:
        refuse(
            "--threshold", "--boundary", "--bootstrap", because="--choose tries thresholds, and scores objects alone"
        )
    if evaluated is None:
        raise typer.BadParameter("name a map, outlines or a YAML file; or a reviewed sample, with --sample.")
    if options.is_yaml(evaluated):
        refuse("--truth", "--layer", "--crs", *_OF_TRUTH, "--class", because="the YAML file says them")
        refuse("--map", because="models are evaluated on whole scenes; it is for outlines")
        refuse("--year", because=f"each scene of the YAML file says its own, as time: {year}")
        evaluation, bundles = _of_scenes(evaluated, model or [], rule=rule, device=device, trust=trust, choose=choose)
    else:
        of_networks = ["--device"] if save_model else ["--model", "--trust", "--device"]
        refuse(*of_networks, because="a map and outlines are predicted already; it is for YAML files")
        if truth is None:
            raise typer.BadParameter("a map or outlines are evaluated by a truth: say --truth labels.gpkg.")
        options.require_there([evaluated, truth, map_])
        stated = StatedTruth(
            path=truth,
            layer=layer,
            crs=crs,
            class_column=class_column,
            class_values=options.words(class_value),
            band=band,
            ignored=options.words(ignored),
        )
        if _has_outlines(evaluated):
            if map_ is None or _has_outlines(map_):
                refuse("--year", because="it is for maps, and these are outlines")
            if stated.is_raster:
                raise typer.BadParameter(
                    f"{truth} is a raster, and outlines are evaluated by outlines: evaluate the map that they are of.",
                    param_hint="--truth",
                )
            refuse("--threshold", "--boundary", because="it is for maps, and these are outlines")
            if choose:
                raise options.misused("--choose", "thresholds are chosen for a map, and these are outlines.")
            evaluation = _of_outlines(evaluated, stated, mapped=map_, class_name=class_name, year=year, rule=rule)
        else:
            refuse("--map", because="a map says itself which ground is valid; it is for outlines")
            bundles = [] if save_model is None else _model_of(evaluated, year, models=model or [], trust=trust)
            evaluation = _of_map(evaluated, stated, class_name=class_name, year=year, rule=rule, choose=choose)
    if save_model is not None:
        evaluation.applied_to(bundles[0]).save(save_model, overwrite=overwrite)  # type: ignore[union-attr]  # it chose
    if out is not None:
        for name, written in _tables(evaluation).items():
            write_whole(out / name, written.encode())
    show_line(str(evaluation), asked=out is None)
    show("Evaluated", ("report", out), ("model", save_model), since=started)


def _model_of(path: str, year: int | None, *, models: list[str], trust: bool) -> "list[ModelBundle]":
    """Open the model that a map was predicted with, and no other."""
    options.require_models(models)
    made = str(options.open_year(path, year).attrs.get("bundle_digest"))
    bundles = options.open_models(models, trust=trust)
    if made != bundles[0].digest:
        raise options.misused(
            "--model",
            f"{path} was predicted by {made[:12]}, and {models[0]} is {bundles[0].digest[:12]}: what is best for the one is not "
            "for the other. Name the model that made the map.",
        )
    return bundles


def _of_sample(path: str, out: Path | None, *, rule: Path | None, precision_floor: float, started: float) -> None:
    from rtsx.evaluation import assess_accuracy, derive_confidence_rule

    reviewed = options.drawn_units(options.open_reviewed(path, needs_outlines=False))
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
    show(
        "Evaluated",
        ("units", f"{int(accuracy.strata['reviewed'].sum())} decided of {int(accuracy.strata['drawn'].sum())}"),
        ("rule", rule),
        ("report", out),
        since=started,
    )


def _of_scenes(
    path: str, models: list[str], *, rule: dict[str, float], device: str, trust: bool, choose: bool
) -> "tuple[Evaluation | ObjectChoice, list[ModelBundle]]":
    if not models:
        raise options.misused("--model", "scenes of a YAML file are predicted first: say --model BUNDLE.")
    options.require_there([path])
    options.require_models(models)
    from rtsx.config.evaluate import load_evaluate_config  # here, because refusals do not wait for it
    from rtsx.model.allocator import configure_malloc

    configure_malloc()
    config = load_evaluate_config(path).changed(**rule)
    config.resolved()
    options.require_device(device)
    bundles = options.open_models(models, trust=trust)
    with progress("scoring"):
        return (config.choose if choose else config.evaluate)(bundles, device=device), bundles


def _of_map(
    evaluated: str,
    truth: StatedTruth,
    *,
    class_name: str | None,
    year: int | None,
    rule: dict[str, float],
    choose: bool,
) -> "Evaluation | ObjectChoice":
    from rtsx.cube import class_names, geobox_of
    from rtsx.evaluation import EvaluationScene, choose_objects
    from rtsx.evaluation import evaluate as score
    from rtsx.evaluation.scoring import warn_of_other_years
    from rtsx.labels import rasterize_labels

    prediction = options.open_year(evaluated, year)
    targets = [name for name in class_names(prediction) if name != "background"] or ["target"]
    if class_name not in (None, *targets):
        raise typer.BadParameter(f"{evaluated} is of {', '.join(targets)}.", param_hint="--class")
    known: Any
    if truth.is_raster:
        known = truth.raster(prediction, classes=targets, wanted=class_name)
    else:
        known = truth.labels(targets, wanted=class_name)
        if len(targets) > 1:
            warn_of_other_years([EvaluationScene(name=evaluated, prediction=prediction, truth=known)])
            named = [class_name] if class_name is not None and class_name in {*known["class_name"]} else targets
            known = rasterize_labels(known, geobox_of(prediction), classes=named)
    classes = None if class_name is None else [class_name]
    with progress("scoring"):
        if choose:
            return choose_objects(prediction, known, class_name=class_name, **rule)  # type: ignore[arg-type]  # by name
        return score(prediction, known, classes=classes, **rule)  # type: ignore[arg-type]  # by name


def _of_outlines(
    evaluated: str,
    truth: StatedTruth,
    *,
    mapped: str | None,
    class_name: str | None,
    year: int | None,
    rule: dict[str, float],
) -> "Evaluation":
    from rtsx.evaluation import evaluate as score
    from rtsx.labels.io import read_table

    outlines = read_table(evaluated, what="outlines")
    named = [*outlines["class_name"].dropna().unique()] if "class_name" in outlines.columns else []
    if class_name not in (None, *named) or (class_name is None and len(named) > 1):
        raise typer.BadParameter(
            f"{evaluated} has outlines of {', '.join(named) or 'a class without a name'}: say which of them is evaluated, or leave it out "
            "where there is one.",
            param_hint="--class",
        )
    if class_name is not None:
        outlines = outlines[outlines["class_name"] == class_name]
    labels = truth.labels([class_name] if class_name is not None else named or ["target"], wanted=None)
    ground: Any = None
    if mapped is not None:
        ground = read_table(mapped, what="mapped ground") if _has_outlines(mapped) else options.open_year(mapped, year)
    return score(outlines, labels, mapped=ground, **rule)  # type: ignore[arg-type]  # by name


def _has_outlines(evaluated: str) -> bool:
    return evaluated.lower().partition("|layername=")[0].endswith(options.VECTORS)


def _refuse_given(line: typer.Context, *names: str, because: str) -> None:
    for name in options.given_of(line, *names):
        raise options.misused(name, f"{name} has no meaning here, because {because}.")


def _tables(result: "Evaluation | ObjectChoice") -> dict[str, str]:
    from rtsx.evaluation import ObjectChoice

    if isinstance(result, ObjectChoice):
        return {"choice.csv": result.table.to_csv(index=False)}
    tables = {f"{name}.csv": getattr(result, name).to_csv(index=False) for name in ("scenes", "regions", "pooled")}
    return tables | {"evaluation.json": result.to_json()}


sample_app = Commands()


@sample_app.command("sample")
def draw_sample(
    line: typer.Context,
    *,
    footprints: Annotated[
        str, options.Input(metavar="FILE", help="Outlines of the map, as `rtsx footprints` writes them.")
    ],
    map_: Annotated[
        str | None, options.Input("--map", metavar="MAP.zarr", help="The map that they are of; for --design ground.")
    ] = None,
    year: options.YearOption = None,
    design: Annotated[
        Literal["outlines", "ground"] | None,
        typer.Option(
            help="outlines: of each confidence and size, for precision. ground: points where something was found, near it and "
            "elsewhere, for precision, recall and area; the default with --map."
        ),
    ] = None,
    size: Annotated[int, typer.Option(help="How many to draw.", min=2)],
    out: options.OutlinesOption,
    allocation: Annotated[
        Literal["equal", "proportional"], typer.Option(help="As many from each stratum, or by its size.")
    ] = "equal",
    confidence_edges: Annotated[
        str | None,
        typer.Option(
            metavar="P,P,...", help="Greatest probabilities between strata of outlines; 0.45,0.65,0.8 if left out."
        ),
    ] = None,
    area_edges_m2: Annotated[
        str | None,
        typer.Option(
            "--area-edges-m2", metavar="M2,M2,...", help="Areas between strata of outlines; 500,2000,10000 if left out."
        ),
    ] = None,
    region: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the outlines whose values are strata, too.")
    ] = None,
    regions: Annotated[
        str | None, options.Input(metavar="FILE", help="Polygons with a column `region`: strata of the ground, too.")
    ] = None,
    near_m: Annotated[
        float | None,
        typer.Option(
            "--near-m", metavar="M", help="Ground this near to an outline is a stratum; 500 if left out.", min=0
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.", min=0)] = 0,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Draw outlines or points of the ground at random, for people to review; `rtsx evaluate --sample` says what follows.

    Whoever reviews fills the column `verdict`: target, other, or unsure.

    Examples
    --------
    rtsx sample --footprints slumps.parquet --size 300 --out sample.parquet

    rtsx sample --footprints slumps.parquet --map map.zarr --size 600 --out sample.gpkg

    rtsx evaluate --sample sample.gpkg
    """
    chosen = design or ("outlines" if map_ is None else "ground")
    of_outlines = ("--region", "--confidence-edges", "--area-edges-m2")
    others = ("--map", "--year", "--regions", "--near-m") if chosen == "outlines" else of_outlines
    for option in options.given_of(line, *others):
        raise options.misused(option, f"it has no meaning for --design {chosen}; leave it out.")
    if chosen == "ground" and map_ is None:
        raise options.misused("--map", "points of the ground are drawn from a map: say --map map.zarr.")
    edges = {}
    if confidence_edges is not None:
        edges["confidence_edges"] = options.numbers(confidence_edges, option="--confidence-edges")
    if area_edges_m2 is not None:
        edges["area_edges_m2"] = options.numbers(area_edges_m2, option="--area-edges-m2")
    options.require_suffix(out, options.FOOTPRINT_SUFFIXES, option="--out", overwrite=overwrite)
    options.require_there([footprints, map_, regions])
    from rtsx.evaluation import sample_ground, sample_outlines  # below, because help and refusals do not wait for them
    from rtsx.footprints import read_footprints
    from rtsx.labels.io import read_table, write_table

    pred = None if map_ is None else options.open_year(map_, year)
    outlines = read_footprints(footprints)
    if pred is None:
        drawn = sample_outlines(outlines, size=size, region=region, allocation=allocation, seed=seed, **edges)
    else:
        polygons = None if regions is None else read_table(regions, what="regions")
        near = {} if near_m is None else {"near_m": near_m}
        with progress("drawing"):
            drawn = sample_ground(pred, outlines, size=size, regions=polygons, allocation=allocation, seed=seed, **near)
    write_table(drawn, options.in_folder(out), overwrite=overwrite, what="sample")
    strata = drawn.groupby(["region", "stratum"], sort=True).size()
    rows: list[tuple[str, object]] = [
        (", ".join(filter(None, names)), count) for names, count in zip(strata.index, strata, strict=True)
    ]
    show("Drawn", ("sample", out), ("units", f"{len(drawn):,}{', all that there are' * (len(drawn) < size)}"), *rows)


area_app = Commands()

_AREA_SUFFIXES = (".zarr", ".tif", ".csv", ".parquet")


@area_app.command("area")
def sum_area(
    prediction: options.PredictionArgument,
    *,
    year: options.YearOption = None,
    out: Annotated[str, options.Output(metavar="FILE", help="Where to: .zarr, .tif, .csv or .parquet.")],
    cell_m: Annotated[
        float | None, typer.Option("--cell-m", metavar="M", help="Side of a cell in the map's CRS; 10000 if left out.")
    ] = None,
    cell_degrees: Annotated[
        float | None, typer.Option(metavar="DEG", help="Instead, side of a cell in longitude and latitude.")
    ] = None,
    class_name: Annotated[str | None, options.Output("--class", help="Class of several.")] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Sum probability x ground by cells: the area of the target that the map expects, without a threshold.

    Rasters have the expected area; with .zarr, and in tables, which have a row for each cell and the longitude and latitude of its
    middle, the valid ground stands beside it.

    Examples
    --------
    rtsx area map.zarr --out area.tif

    rtsx area map.zarr --cell-degrees 0.5 --out area.csv
    """
    options.require_suffix(out, _AREA_SUFFIXES, option="--out", overwrite=overwrite)
    options.require_there([prediction])
    started = time.perf_counter()
    from rtsx.cube import export_cog, geobox_of
    from rtsx.evaluation import expected_area
    from rtsx.geometry.pixels import PixelMesh

    pred = options.open_year(prediction, year)
    with progress("summing"):
        area = expected_area(pred, cell_m=cell_m, cell_degrees=cell_degrees, class_name=class_name)
    took = time.perf_counter() - started
    target = options.in_folder(out)
    if target.suffix == ".zarr":
        rtsx.write_cube(area, target, overwrite=overwrite)
    elif target.suffix == ".tif":
        renamed = area.rename(expected_area_m2=target.stem)
        export_cog(renamed, target.parent, variables=[target.stem], overwrite=overwrite)
    else:
        height, width = (area.sizes[name] for name in ("y", "x"))
        lon, lat = PixelMesh(geobox_of(area)).lonlat((slice(0, height), slice(0, width)))
        table = area.drop_vars("spatial_ref").assign(lon=(("y", "x"), lon), lat=(("y", "x"), lat)).to_dataframe()
        rows = table[table["valid_area_m2"] > 0].reset_index()
        with staged(target, overwrite=overwrite) as draft:
            rows.to_csv(draft, index=False) if target.suffix == ".csv" else rows.to_parquet(draft, index=False)
    pixels = pred.sizes["y"] * pred.sizes["x"]
    show(
        "Summed",
        ("expected area", f"{float(area['expected_area_m2'].sum()) / 1e6:.4g} km2"),
        ("valid ground", f"{float(area['valid_area_m2'].sum()) / 1e6:.6g} km2"),
        ("cells", int((area["valid_area_m2"] > 0).sum())),
        ("area", out),
        ("time", f"{took:.1f} s, {pixels / 1e6 / took:.1f} Mpx/s"),
    )
