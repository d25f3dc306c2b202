"""`rtsx view`: one interactive map in the browser, or what it shows as a picture or a page."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

import rtsx
from rtsx.cli import options
from rtsx.cli.console import Commands, serving, show, show_line

__all__ = ["app"]

app = Commands()

_LayerOption = Annotated[
    list[str] | None,
    options.Output(
        "--style",
        metavar="IMAGE=STYLE",
        help="How an image is drawn at first, such as 'cube=false colour'. Repeatable.",
    ),
]


@app.command()
def view(
    line: typer.Context,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMAGE...]", help="Maps or other images: Zarr stores, YAML files, GeoTIFFs.", show_default=False
        ),
    ] = None,
    *,
    cube: Annotated[str | None, options.Input(metavar="CUBE", help="The image below the maps.")] = None,
    footprints: Annotated[str | None, options.Input(metavar="FILE", help="Outlines that were found.")] = None,
    truth: Annotated[str | None, options.Input(metavar="FILE", help="Outlines of what is there.")] = None,
    tracks: Annotated[str | None, options.Input(metavar="FILE", help="Outlines over years.")] = None,
    campaign: Annotated[
        str | None, options.Input(metavar="CAMPAIGN", help="A campaign's YAML file or output: map, outlines, cells.")
    ] = None,
    year: Annotated[
        int | None,
        options.Input(help="Year that is seen at first; of a campaign that of its file, or its newest, if left out."),
    ] = None,
    model: Annotated[
        list[str] | None,
        options.Network("--model", "-m", metavar="MODEL", help="Predicts what is seen, on demand. Repeatable."),
    ] = None,
    trust: options.TrustOption = False,
    style: _LayerOption = None,
    bbox: Annotated[
        str | None, options.Input(metavar="WEST,SOUTH,EAST,NORTH", help="What is seen at first, degrees.")
    ] = None,
    port: Annotated[
        int | None, options.Output(help="Of this machine; a free one if left out.", min=0, max=65535)
    ] = None,
    browser: Annotated[
        bool | None,
        options.Output("--browser/--no-browser", help="Open the page in the browser, as it is if left out."),
    ] = None,
    png: Annotated[str | None, options.Output(metavar="FILE", help="Draw a picture instead of serving.")] = None,
    html: Annotated[
        str | None, options.Output("--html", metavar="FILE", help="Write a page that needs no server instead.")
    ] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Show images, maps, outlines and campaigns on one interactive map in the browser, or as a picture or page.

    The map is served on this machine until Ctrl-C; only the address that is printed, with its token, opens it.

    Examples
    --------
    rtsx view map.zarr --cube cube.yaml --footprints slumps.parquet

    rtsx view --campaign campaign.yaml --year 2024

    rtsx view map.zarr --png map.png
    """
    files = [(png, ".png", "--png"), (html, ".html", "--html")]
    for path, suffix, option in files:
        options.require_suffix(path, [suffix], option=option, overwrite=overwrite)
    if png is not None or html is not None:
        idle = options.given_of(line, "--model", "--port", "--browser")
        if idle:
            raise options.misused(idle[0], f"with --png or --html no page is served; leave out {' and '.join(idle)}.")
    options.require_there([*(images or []), cube, footprints, truth, tracks, campaign])
    if not images and cube is None and campaign is None:
        raise options.misused("IMAGE", "give a map, another image, --cube or --campaign.")
    options.require_models(model or [])
    opened = rtsx.view(
        images or None,
        cube=cube,
        footprints=footprints,
        truth=truth,
        tracks=tracks,
        campaign=campaign,
        year=year,
        model=options.open_models(model, trust=trust) if model else (),
        style=_styles(style),
        bbox=None if bbox is None else options.numbers(bbox, option="--bbox"),
    )
    if png is None and html is None:
        with serving():
            opened.serve(port=port or 0, on_start=lambda address: _started(address, browser=browser is not False))
        return
    rows: list[tuple[str, object]] = []
    if png is not None:
        rows.append(("picture", opened.save_png(Path(png), overwrite=overwrite)))
    if html is not None:
        rows.append(("page", opened.save_html(Path(html), overwrite=overwrite)))
    show("Drawn", *rows)


def _styles(given: list[str] | None) -> dict[str, str]:
    pairs = [one.partition("=") for one in given or []]
    for title, sign, style in pairs:
        if not (title and sign and style):
            raise options.misused("--style", f"expected IMAGE=STYLE; got {title + sign + style!r}.")
    return {title: style for title, _, style in pairs}


def _started(address: str, *, browser: bool) -> None:
    show_line(f"Map at {address}", asked=True)
    if address.startswith("/"):
        show_line("Open it below the address of your JupyterHub, such as https://hub.example.org/user/...", asked=True)
    elif browser and not webbrowser.open(address):
        show_line("No browser could be started here; open this address in one.", asked=True)
    show_line("Ctrl-C stops it.", asked=True)
