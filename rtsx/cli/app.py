"""The commands under one name."""

from typing import Annotated

import typer

import rtsx
from rtsx.cli import cog, cube, demo, footprints, info, model, order, predict, synthetic
from rtsx.cli.console import show_line

__all__ = ["app"]

app = typer.Typer(
    name="rtsx",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # instead, `main` turns exceptions into messages and exit codes
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Maps retrogressive thaw slumps, or any other object, over satellite data cubes of any size.",
    epilog="Start with: rtsx demo\n\nExit status: 0 done; 2 the message tells the cure; 1 a defect of ours; 130 Ctrl-C.",
)
for part in (demo, predict, footprints, cog):
    app.add_typer(part.app)
app.add_typer(model.app, name="model")
app.add_typer(cube.app, name="cube")
app.add_typer(order.app, name="order")
app.add_typer(synthetic.app, name="synthetic")
app.add_typer(info.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        show_line(f"rtsx {rtsx.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks of errors; understood anywhere on the line.")
    ] = False,
) -> None:
    """Take the options of every command; `main` acts on them."""
