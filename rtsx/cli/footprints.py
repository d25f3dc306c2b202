"""`rtsx footprints`: a stored prediction to outlines."""

from typing import Annotated

import typer

from rtsx.cli import options
from rtsx.cli.cleanup import MAX_WATER, CleanUp
from rtsx.cli.console import show
from rtsx.cli.opening import open_prediction
from rtsx.cli.outputs import require_free, require_suffix
from rtsx.cli.products import FOOTPRINT_SUFFIXES, write_outlines

__all__ = ["app"]

app = typer.Typer()

_EXAMPLES = """Examples:

rtsx footprints map.zarr --out slumps.parquet

rtsx footprints map.zarr --out slumps.gpkg --threshold 0.7 --min-area-m2 1000 --geographic

rtsx footprints map.zarr --out slumps.gpkg --flags --water lakes.gpkg --simplify-m 3
"""


@app.command(epilog=_EXAMPLES)
def footprints(
    prediction: options.PredictionArgument,
    *,
    out: Annotated[
        str, typer.Option(metavar="FILE", help="Where to: .parquet, .gpkg or .fgb.", rich_help_panel="Output")
    ],
    min_area_m2: options.MinAreaOption = 288.0,
    threshold: options.ThresholdOption = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Outline this class only.", rich_help_panel="Output")
    ] = None,
    edge_distance: options.EdgeDistanceOption = 10,
    drop_edge: Annotated[
        bool, typer.Option("--drop-edge", help="Leave out what touches missing data.", rich_help_panel="Output")
    ] = False,
    geographic: options.GeographicOption = False,
    flags: Annotated[
        bool,
        typer.Option(
            "--flags",
            help="Keep small objects too, and write what speaks against each: small, edge, water, weak.",
            rich_help_panel="Clean-up",
        ),
    ] = False,
    drop: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Leave out outlines with these flags.", rich_help_panel="Clean-up"),
    ] = None,
    water: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Water: a raster in the CRS of the map, 1 on water, or polygons. Outlines on it are flagged.",
            rich_help_panel="Clean-up",
        ),
    ] = None,
    max_water: Annotated[
        float | None,
        typer.Option(
            help=f"Part of an outline (0-1) that may be water; {MAX_WATER} if left out.", rich_help_panel="Clean-up"
        ),
    ] = None,
    min_prob_mean: Annotated[
        float,
        typer.Option(help="Flag outlines of a lower mean probability (0-1) as weak.", rich_help_panel="Clean-up"),
    ] = 0.0,
    simplify_m: Annotated[
        float | None,
        typer.Option(
            "--simplify-m",
            metavar="M",
            help="Take corners out; a pixel's width smooths the steps of pixels.",
            rich_help_panel="Clean-up",
        ),
    ] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Outline the objects of a map, with area, perimeter, place and probability of each.

    Objects that cross chunks are one outline, however the map is stored.
    """
    cleanup = CleanUp(
        flags=flags,
        drop=tuple(options.words(drop) or ()),
        water=water,
        max_water=max_water,
        min_prob_mean=min_prob_mean,
        simplify_m=simplify_m,
    )
    require_suffix(out, FOOTPRINT_SUFFIXES, option="--out")
    require_free([out], overwrite=overwrite)
    count = write_outlines(
        open_prediction(prediction),
        out,
        min_area_m2=min_area_m2,
        threshold=threshold,
        class_name=class_name,
        edge_distance=edge_distance,
        drop_edge=drop_edge,
        geographic=geographic,
        cleanup=cleanup,
        overwrite=overwrite,
    )
    show("Outlined", [("objects", count), ("outlines", out)])
