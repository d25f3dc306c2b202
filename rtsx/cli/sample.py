"""`rtsx sample` and `rtsx area`: units of a map for people to review, and the area that it expects."""

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

import rtsx
from rtsx.cli import options
from rtsx.cli.console import progress, show
from rtsx.cli.options import numbers, open_year, require_there
from rtsx.cli.outputs import require_absent, require_suffix
from rtsx.cli.products import FOOTPRINT_SUFFIXES
from rtsx.storage import staged

app = typer.Typer()

_EXAMPLES = """Examples:

rtsx sample --footprints slumps.parquet --size 300 --out sample.parquet

rtsx sample --footprints slumps.parquet --map map.zarr --size 600 --out sample.gpkg

rtsx evaluate --sample sample.gpkg
"""


@app.command("sample", epilog=_EXAMPLES)
def draw_sample(
    *,
    footprints: Annotated[
        str, options.input_option(metavar="FILE", help="Outlines of the map, as `rtsx footprints` writes them.")
    ],
    map_: Annotated[
        str | None,
        options.input_option("--map", metavar="MAP.zarr", help="The map that they are of; for --design ground."),
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
    out: Annotated[str, options.output_option(metavar="FILE", help="Where to: .parquet, .gpkg or .fgb.")],
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
        str | None,
        options.input_option(metavar="FILE", help="Polygons with a column `region`: strata of the ground, too."),
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
    """
    chosen = design or ("outlines" if map_ is None else "ground")
    wrong = (
        {"--map": map_, "--year": year, "--regions": regions, "--near-m": near_m}
        if chosen == "outlines"
        else {"--region": region, "--confidence-edges": confidence_edges, "--area-edges-m2": area_edges_m2}
    )
    for option, value in wrong.items():
        if value is not None:
            raise typer.BadParameter(f"it has no meaning for --design {chosen}; leave it out.", param_hint=option)
    if chosen == "ground" and map_ is None:
        raise typer.BadParameter("points of the ground are drawn from a map: say --map map.zarr.", param_hint="--map")
    edges = {
        name: numbers(given, option=option)
        for name, option, given in (
            ("confidence_edges", "--confidence-edges", confidence_edges),
            ("area_edges_m2", "--area-edges-m2", area_edges_m2),
        )
        if given is not None
    }
    require_suffix(out, FOOTPRINT_SUFFIXES, option="--out")
    require_absent([out], overwrite=overwrite)
    require_there([path for path in (footprints, map_, regions) if path is not None])
    from rtsx.evaluation import sample_ground, sample_outlines  # below, because help and refusals do not wait for them
    from rtsx.footprints import read_footprints
    from rtsx.labels.io import read_table, write_table

    pred = None if map_ is None else open_year(map_, year)
    outlines = read_footprints(footprints)
    if pred is None:
        drawn = sample_outlines(outlines, size=size, region=region, allocation=allocation, seed=seed, **edges)
    else:
        polygons = None if regions is None else read_table(regions, what="regions")
        near = {} if near_m is None else {"near_m": near_m}
        with progress("drawing"):
            drawn = sample_ground(pred, outlines, size=size, regions=polygons, allocation=allocation, seed=seed, **near)
    Path(out).absolute().parent.mkdir(parents=True, exist_ok=True)
    write_table(drawn, Path(out), overwrite=overwrite, what="sample")
    strata = drawn.groupby(["region", "stratum"], sort=True).size()
    rows: list[tuple[str, object]] = [
        (", ".join(filter(None, names)), count) for names, count in zip(strata.index, strata, strict=True)
    ]
    show("Drawn", [("sample", out), ("units", f"{len(drawn):,}{', all that there are' * (len(drawn) < size)}"), *rows])


area_app = typer.Typer()

_AREA_SUFFIXES = (".zarr", ".tif", ".csv", ".parquet")


@area_app.command(
    "area",
    epilog="Examples:\n\nrtsx area map.zarr --out area.tif\n\nrtsx area map.zarr --cell-degrees 0.5 --out area.csv",
)
def sum_area(
    prediction: options.PredictionArgument,
    *,
    year: options.YearOption = None,
    out: Annotated[str, options.output_option(metavar="FILE", help="Where to: .zarr, .tif, .csv or .parquet.")],
    cell_m: Annotated[
        float | None, typer.Option("--cell-m", metavar="M", help="Side of a cell in the map's CRS; 10000 if left out.")
    ] = None,
    cell_degrees: Annotated[
        float | None, typer.Option(metavar="DEG", help="Instead, side of a cell in longitude and latitude.")
    ] = None,
    class_name: Annotated[str | None, options.output_option("--class", help="Class of several.")] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Sum probability x ground by cells: the area of the target that the map expects, without a threshold.

    Rasters have the expected area; with .zarr, and in tables, which have a row for each cell and the longitude and latitude of its
    middle, the valid ground stands beside it.
    """
    require_suffix(out, _AREA_SUFFIXES, option="--out")
    require_absent([out], overwrite=overwrite)
    require_there([prediction])
    started = time.perf_counter()
    from rtsx.cube import export_cog, geobox_of
    from rtsx.evaluation import expected_area
    from rtsx.geometry.pixels import PixelMesh

    pred = open_year(prediction, year)
    with progress("summing"):
        area = expected_area(pred, cell_m=cell_m, cell_degrees=cell_degrees, class_name=class_name)
    took = time.perf_counter() - started
    target = Path(out)
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
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
        [
            ("expected area", f"{float(area['expected_area_m2'].sum()) / 1e6:.4g} km2"),
            ("valid ground", f"{float(area['valid_area_m2'].sum()) / 1e6:.6g} km2"),
            ("cells", int((area["valid_area_m2"] > 0).sum())),
            ("area", out),
            ("time", f"{took:.1f} s, {pixels / 1e6 / took:.1f} Mpx/s"),
        ],
    )
