"""`rtsx cog`: a stored prediction to GeoTIFFs."""

from pathlib import Path
from typing import Annotated

import typer

from rtsx.cli import options
from rtsx.cli.console import show
from rtsx.cli.opening import open_prediction
from rtsx.cli.outputs import require_free, require_local
from rtsx.cli.products import COG_NAMES, write_cogs
from rtsx.storage import refuse_other_format

__all__ = ["app"]

app = typer.Typer()


@app.command(epilog="Example:\n\nrtsx cog map.zarr --out map")
def cog(
    prediction: options.PredictionArgument,
    *,
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder of the files.", rich_help_panel="Output")],
    overwrite: options.OverwriteOption = False,
) -> None:
    """Write probability and binary as cloud-optimised GeoTIFFs, for QGIS and GDAL."""
    require_local(out, option="--out")
    refuse_other_format(out, what="a folder of GeoTIFFs")
    require_free([str(Path(out) / name) for name in COG_NAMES], overwrite=overwrite)
    files = write_cogs(open_prediction(prediction), out, overwrite=overwrite)
    show("Written", [(file.name, f"{file} ({file.stat().st_size / 1e6:.1f} MB)") for file in files])
