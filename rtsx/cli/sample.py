"""`rtsx sample`: units of a map for people to review, drawn at random."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from rtsx.cli import options
from rtsx.cli.console import progress, show
from rtsx.cli.options import numbers, open_prediction, require_there
from rtsx.cli.outputs import require_absent, require_suffix
from rtsx.cli.products import FOOTPRINT_SUFFIXES

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
        {"--map": map_, "--regions": regions, "--near-m": near_m}
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

    outlines = read_footprints(footprints)
    if map_ is None:
        drawn = sample_outlines(outlines, size=size, region=region, allocation=allocation, seed=seed, **edges)
    else:
        polygons = None if regions is None else read_table(regions, what="regions")
        near = {} if near_m is None else {"near_m": near_m}
        with progress("drawing"):
            drawn = sample_ground(
                open_prediction(map_), outlines, size=size, regions=polygons, allocation=allocation, seed=seed, **near
            )
    Path(out).absolute().parent.mkdir(parents=True, exist_ok=True)
    write_table(drawn, Path(out), overwrite=overwrite, what="sample")
    strata = drawn.groupby(["region", "stratum"], sort=True).size()
    rows: list[tuple[str, object]] = [
        (", ".join(filter(None, names)), count) for names, count in zip(strata.index, strata, strict=True)
    ]
    show("Drawn", [("sample", out), ("units", len(drawn)), *rows])
