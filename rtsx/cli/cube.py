"""`rtsx cube`: from a YAML file to a store, and what is in either."""

import time
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from rtsx.cli import options
from rtsx.cli.console import Commands, print_error, progress, show
from rtsx.storage import write_whole

__all__ = ["app"]

app = Commands(no_args_is_help=True)

_CubeArgument = Annotated[str, typer.Argument(metavar="CUBE", help="A YAML file, or a Zarr store.", show_default=False)]
_ConfigArgument = Annotated[
    str, typer.Argument(metavar="CUBE.yaml", help="What the cube is made of.", show_default=False)
]
_CellOption = Annotated[str | None, options.Input(metavar="rNNNcNNN", help="A cell of the grid instead of the region.")]


def _require_sound(cube: str) -> None:
    """Refuse what is not there, and a config with an error in it, before what reads images is loaded."""
    options.require_there([cube])
    options.require_known_keys(cube, "cube")
    from rtsx.config.cube import is_config, load_cube_config

    if is_config(cube):
        load_cube_config(cube)


@app.command()
def init(
    *,
    preset: Annotated[
        str,
        options.Input(
            metavar="NAME", help="Layers of a published model, tss-v1 or darts-v2, or a product such as sentinel2."
        ),
    ],
    region: Annotated[
        str, options.Input(metavar="W,S,E,N|CELL|FILE", help="Ground: degrees, a cell, or a vector file.")
    ],
    year: Annotated[int, options.Input(metavar="YYYY", help="Year of the images.", min=1972, max=9998)],
    out: Annotated[Path, options.Output(metavar="YAML", help="The file.")],
    overwrite: options.OverwriteOption = False,
) -> None:
    """Write the YAML file of a cube to start from: edit it, look at it with `info`, build it.

    Examples
    --------
    rtsx cube init --preset tss-v1 --region -139.3,69.5,-138.9,69.65 --year 2024 --out cube.yaml

    rtsx cube init --preset sentinel2 --region island.gpkg --year 2024 --out season.yaml
    """
    from rtsx.config.starter import starter_yaml  # loads the models, which `--help` does not wait for

    options.require_new(out, what="a config", suffixes=(".yaml", ".yml"), overwrite=overwrite)
    write_whole(out, starter_yaml(preset, region=region, year=year, name=str(out)).encode())
    show("Written", ("config", out), ("next", f"edit its sources, then rtsx cube info {quote(str(out))}"))


@app.command()
def build(
    config: _ConfigArgument,
    *,
    out: Annotated[str, options.Output(metavar="OUT.zarr", help="The store.")],
    cell: _CellOption = None,
    only: Annotated[
        str | None,
        options.Input(metavar="A,B,...", help="Sources to build, by name, or trend or terrain; all if left out."),
    ] = None,
    resolution: Annotated[
        float | None,
        options.Input(metavar="SIZE", help="Side of a pixel in units of the CRS; the grid's if left out.", min=0),
    ] = None,
    native: Annotated[
        bool, options.Output("--native", help="Keep every image on its own grid; aligned on opening.")
    ] = False,
    shard: Annotated[
        int | None, options.Output(metavar="PX", help="Side of a shard; the config's chunk if left out.")
    ] = None,
    overviews: Annotated[bool, options.Output(help="Also write coarser levels.")] = True,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Build a store, part by part. Run it again after whatever stopped it, and it goes on.

    Examples
    --------
    rtsx cube build cube.yaml --out cube.zarr

    rtsx cube build cube.yaml --out native.zarr --native

    rtsx cube build cube.yaml --only trend --resolution 30 --out trends.zarr
    """
    _require_sound(config)
    from rtsx.config import build_cube, load_cube_config  # loads what reads and warps, which `--help` does not wait for

    started = time.perf_counter()
    grid = load_cube_config(config).grid.grid()
    with progress("building", counts="part-"):
        made = build_cube(
            config,
            out,
            cell=None if cell is None else grid.cell(cell),
            layout="native" if native else "aligned",
            shard=shard,
            overviews=overviews,
            overwrite=overwrite,
            only=options.words(only) or (),
            resolution=resolution,
        )
    show(
        "Built",
        ("parts", f"{made.parts}, of which {made.built} were built now"),
        ("left out", "\n".join(made.gaps)),
        ("store", made.path),
        ("config", f"{made.path.rstrip('/')}.yaml"),
        since=started,
    )


@app.command()
def info(cube: _CubeArgument, *, cell: _CellOption = None) -> None:
    """Tell grid, layers, chunks, images and size of a cube; reads no pixel.

    Examples
    --------
    rtsx cube info cube.yaml

    rtsx cube info cube.zarr
    """
    _require_sound(cube)
    from rtsx.cli.cube_summary import info_rows  # loads xarray and more, which `--help` does not wait for

    show(cube, *info_rows(cube, cell=cell), asked=True)


@app.command()
def check(cube: _CubeArgument, *, cell: _CellOption = None) -> None:
    """Read all of a cube: how much of it holds data, its values, and whether the stored bytes are those written.

    Exit status 1 when something is wrong.

    Examples
    --------
    rtsx cube check cube.zarr

    rtsx cube check cube.yaml --cell r412c088
    """
    _require_sound(cube)
    from rtsx.cli.cube_summary import check_rows, opened
    from rtsx.cube.check import check_cube

    with progress("checking", counts="block_statistics"):
        found = check_cube(opened(cube, cell=cell), path=None if options.is_yaml(cube) else cube)
    show(cube, *check_rows(found), asked=True)
    for problem in found.problems:
        print_error(problem)
    if found.problems:
        raise typer.Exit(options.FAULTY)


@app.command()
def plot(
    cube: _CubeArgument,
    *,
    out: Annotated[Path, options.Output(metavar="PNG", help="The picture.")],
    layers: Annotated[str | None, options.Input(metavar="A,B,...", help="Layers to draw; all if left out.")] = None,
    size: Annotated[int, options.Output(metavar="PX", help="Pixels on the longer side.", min=16)] = 600,
    cell: _CellOption = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Draw a cube: true colour, and every layer with its values.

    Examples
    --------
    rtsx cube plot cube.zarr --out cube.png

    rtsx cube plot cube.yaml --out cube.png
    """
    if out.suffix.lower() != ".png":
        raise options.misused("--out", f"expected a picture that ends in .png; got {out.name!r}.")
    options.require_absent([out], overwrite=overwrite)
    _require_sound(cube)
    from rtsx.cli.cube_summary import small
    from rtsx.cli.picture import draw_cube  # here, because they are heavy

    with progress("drawing"):
        draw_cube(small(cube, side=size, cell=cell), out, title=Path(cube).name, layers=options.words(layers))
    show("Drawn", ("picture", out))
