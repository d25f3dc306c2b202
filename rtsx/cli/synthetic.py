"""`rtsx synthetic`: training data and test regions with a known truth, in the formats of real data."""

import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from rtsx.cli import options
from rtsx.cli.console import Commands, counting, show

app = Commands(no_args_is_help=True)

_OutOption = Annotated[Path, options.Output(metavar="FOLDER", help="Where to.")]
_RegionOption = Annotated[str, typer.Option(metavar="NAME", help="Field `region` of the true outlines.")]
_DensityOption = Annotated[
    float, typer.Option("--slumps-per-km2", help="Active slumps per km²; a real, dense region has about 0.1.", min=0)
]
_LandscapeOption = Annotated[str, typer.Option(metavar="NAME", help="Kind of ground: plateau, polar-desert or yedoma.")]
_DemOption = Annotated[int, typer.Option("--dem-resolution", metavar="2|10|32", help="Pixel of the elevation, m.")]


def seed_list(given: str) -> list[int]:
    """Read seeds: numbers and ranges, separated by commas; ranges hold both ends.

    Raises
    ------
    typer.BadParameter
        Something else, or no seed.

    Examples
    --------
    >>> seed_list("7,1000-1003")
    [7, 1000, 1001, 1002, 1003]
    """
    seeds: list[int] = []
    for word in filter(None, (part.strip() for part in given.split(","))):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
        first, last = (0, -1) if match is None else (int(match[1]), int(match[2] or match[1]))
        if last < first:
            raise typer.BadParameter(f"expected numbers and ranges such as 7,1000-1003; got {given!r}.")
        seeds += range(first, last + 1)
    if not seeds:
        raise typer.BadParameter(f"expected at least one seed, such as 1000-1003; got {given!r}.")
    return list(dict.fromkeys(seeds))


@app.command()
def scenes(
    *,
    seeds: Annotated[str, typer.Option(metavar="A-B,C,...", help="One scene of its own ground per seed.")],
    out: _OutOption,
    size: Annotated[int, typer.Option(metavar="PX", help="Side of a scene, in pixels of 3 m.", min=64)] = 1024,
    slumps_per_km2: _DensityOption = 1.0,
    one_day: Annotated[
        bool,
        typer.Option(
            "--one-day", help="Day, clouds and haze of the demo's scene, instead of those that follow from each seed."
        ),
    ] = False,
    apart: Annotated[
        bool,
        typer.Option(
            "--apart", help="Side by side instead of all in one place, so that they can be divided by cross-validation."
        ),
    ] = False,
    landscape: _LandscapeOption = "plateau",
    region: _RegionOption = "Synthetic",
    dem_resolution: _DemOption = 10,
    processes: Annotated[int | None, typer.Option(help="Scenes at a time; one per core if left out.", min=1)] = None,
) -> None:
    """Write scenes: image, mask, elevation, trends, and the true outlines of slumps.

    A scene that is there is not made again, so the same command goes on where it was stopped.

    Examples
    --------
    rtsx synthetic scenes --seeds 1000-1063 --slumps-per-km2 2 --out data/training

    rtsx synthetic scenes --seeds 3000-3007 --size 2048 --one-day --out data/test
    """
    from rtsx.synthetic import SceneSpec, placed_apart, varied_spec, write_scenes  # loads what makes them

    started = time.perf_counter()
    specs = []
    for seed in seed_list(seeds):
        usual = SceneSpec(seed=seed) if one_day else varied_spec(seed)
        spec = replace(
            usual,
            size=size,
            slumps_per_km2=slumps_per_km2,
            landscape=landscape,
            region=region,
            dem_resolution_m=dem_resolution,
        )
        specs.append(placed_apart(spec) if apart else spec)
    written = write_scenes(specs, out, processes=processes or os.cpu_count() or 1)
    made = []
    with counting("making", unit="scenes") as show_made:
        show_made(0, len(specs))
        for scene in written:
            made.append(scene.was_made)
            show_made(len(made), len(specs))
    show(
        "Written",
        ("scenes", f"{len(made)}, of which {sum(made)} were made now"),
        ("images", out / "{scene}_3B_AnalyticMS_SR.tif"),
        ("masks", out / "{scene}_3B_udm2.tif"),
        ("truth", out / "{scene}_slumps.parquet"),
        since=started,
    )


@app.command()
def region(
    *,
    out: _OutOption,
    seed: Annotated[int, typer.Option(help="Seed of ground and scenes.", min=0)],
    size: Annotated[int, typer.Option(metavar="PX", help="Side of a scene, in pixels of 3 m.", min=64)] = 512,
    scenes: Annotated[int, typer.Option(help="Scenes a year.", min=1, max=50)] = 4,
    years: Annotated[str, typer.Option(metavar="A,B,...", help="Years with scenes.")] = "2024",
    slumps_per_km2: _DensityOption = 4.0,
    landscape: _LandscapeOption = "plateau",
    name: _RegionOption = "SyntheticBorder",
    dem_resolution: _DemOption = 10,
) -> None:
    """Write overlapping scenes of one ground, tiles of elevation, trends and true outlines, under a static STAC catalog.

    Examples
    --------
    rtsx synthetic region --seed 11 --scenes 4 --years 2023,2024 --out data/region
    """
    from rtsx.synthetic import RegionSpec, write_region

    started = time.perf_counter()
    spec = RegionSpec(
        seed=seed,
        size=size,
        scenes=scenes,
        years=tuple(seed_list(years)),
        slumps_per_km2=slumps_per_km2,
        landscape=landscape,
        dem_resolution_m=dem_resolution,
        region=name,
    )
    files = write_region(spec, out)
    show(
        "Written",
        ("scenes", len(files.images)),
        ("elevation", f"{len(files.dem)} tiles"),
        ("catalog", files.catalog),
        ("truth", files.truth),
        since=started,
    )
