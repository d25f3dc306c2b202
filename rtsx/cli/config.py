"""`rtsx config`: what YAML files may say, and files of the predecessor as files of ours."""

import json
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import typer

from rtsx.cli import options
from rtsx.cli.console import print_info, show, show_line
from rtsx.cli.options import require_there
from rtsx.cli.outputs import require_absent
from rtsx.storage import refuse_other_format, write_whole

app = typer.Typer(no_args_is_help=True, help="Describes YAML files to editors, and reads those of the predecessor.")

Kind = Literal["train", "evaluate", "campaign", "cube", "order"]


_SCHEMAS: dict[Kind, tuple[str, str]] = {
    "train": ("rtsx.config.training", "training_schema"),
    "evaluate": ("rtsx.config.evaluate", "evaluation_schema"),
    "campaign": ("rtsx.config.campaign", "campaign_schema"),
    "cube": ("rtsx.config.cube", "cube_schema"),
    "order": ("rtsx.config.order", "order_schema"),
}


def schema_of(kind: Kind) -> dict[str, object]:
    """JSON schema of one kind of config; loads what the kind needs, torch only for what trains and evaluates."""
    module, name = _SCHEMAS[kind]
    schema: dict[str, object] = getattr(import_module(module), name)()
    return schema


@app.command(epilog="Examples:\n\nrtsx config schema train\n\nrtsx config schema cube --out cube.schema.json")
def schema(
    kind: Annotated[Kind, typer.Argument(metavar="train|evaluate|campaign|cube|order", show_default=False)],
    *,
    out: Annotated[
        Path | None, options.output_option(metavar="JSON", help="File; standard output if left out.")
    ] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Print the JSON schema of a kind of YAML file, for editors that complete and check it."""
    text = json.dumps(schema_of(kind), indent=2)
    if out is None:
        show_line(text, asked=True)
        return
    refuse_other_format(out, what="a JSON schema", suffixes=(".json",))
    require_absent([str(out)], overwrite=overwrite)
    write_whole(out, f"{text}\n".encode())


@app.command(
    "import",
    epilog="Example:\n\nrtsx config import config.yml --out train.yaml --labels 'labels/{scene}.shp'",
)
def import_config(
    old: Annotated[
        Path,
        typer.Argument(
            metavar="OLD.yml",
            help="Training config of thaw-slump-segmentation, or the config.yml beside its checkpoints.",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[Path, options.output_option(metavar="YAML", help="The config.")],
    cubes: Annotated[
        str, typer.Option(metavar="PATH", help="Cube of a scene, whose name stands for {scene}.")
    ] = "cubes/{scene}.zarr",
    labels: Annotated[
        str, typer.Option(metavar="PATH", help="Outlines of a scene, whose name stands for {scene}.")
    ] = "labels/{scene}.gpkg",
    overwrite: options.OverwriteOption = False,
) -> None:
    """Translate a training config of thaw-slump-segmentation; what could not be is told, and stands in the file."""
    require_there([str(old)])
    from rtsx.config.legacy import import_training

    refuse_other_format(out, what="a config", suffixes=(".yaml", ".yml"))
    require_absent([str(out)], overwrite=overwrite)
    imported = import_training(old, cubes=cubes, labels=labels)
    write_whole(out, imported.text.encode())
    for note in imported.notes:
        print_info(note)
    show("Imported", [("config", out), ("notes", len(imported.notes))])
