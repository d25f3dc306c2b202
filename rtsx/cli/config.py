"""`rtsx config`: YAML files to start from, what such files may say, and files of the predecessor as files of ours."""

import json
import re
import shlex
from importlib import import_module, resources
from pathlib import Path
from typing import Annotated, Literal

import typer

from rtsx.cli import options
from rtsx.cli.console import Commands, print_info, show, show_line
from rtsx.errors import InputNotFoundError
from rtsx.names import suggest
from rtsx.storage import local_path, write_whole

app = Commands(no_args_is_help=True)

Kind = Literal["train", "evaluate", "campaign", "cube", "order"]


_EXAMPLES = Path(str(resources.files("rtsx.config"))) / "examples"
_SCHEMAS: dict[Kind, tuple[str, str]] = {
    "train": ("rtsx.config.training", "training_schema"),
    "evaluate": ("rtsx.config.evaluate", "evaluation_schema"),
    "campaign": ("rtsx.config.campaign", "campaign_schema"),
    "cube": ("rtsx.config.cube", "cube_schema"),
    "order": ("rtsx.config.order", "order_schema"),
}


def schema_of(kind: Kind) -> dict[str, object]:
    """Return JSON schema of one kind of config; loads what the kind needs, torch only for what trains and evaluates."""
    module, name = _SCHEMAS[kind]
    schema: dict[str, object] = getattr(import_module(module), name)()
    return schema


@app.command()
def schema(
    kind: Annotated[Kind, typer.Argument(metavar="train|evaluate|campaign|cube|order", show_default=False)],
    *,
    out: Annotated[Path | None, options.Output(metavar="JSON", help="File; standard output if left out.")] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Print the JSON schema of a kind of YAML file, for editors that complete and check it.

    Examples
    --------
    rtsx config schema train

    rtsx config schema cube --out cube.schema.json
    """
    text = json.dumps(schema_of(kind), indent=2)
    if out is None:
        show_line(text, asked=True)
        return
    options.require_new(out, what="a JSON schema", suffixes=(".json",), overwrite=overwrite)
    write_whole(out, f"{text}\n".encode())
    show("Written", ("schema", out))


@app.command()
def example(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Of an example; all are listed if left out.", show_default=False),
    ] = None,
    *,
    out: Annotated[Path | None, options.Output(metavar="YAML", help="File; standard output if left out.")] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Write a YAML file to start from; its first lines say what it is for, and which commands use it.

    Data that other commands of the example make is looked for below the working directory, wherever the file is written.

    Examples
    --------
    rtsx config example

    rtsx config example cube-demo --out cube.yaml
    """
    examples = {path.stem: path.read_text() for path in sorted(_EXAMPLES.glob("*.yaml"))}
    if name is None:
        show("Examples of YAML files", *[(each, _purpose(text)) for each, text in examples.items()], asked=True)
        return
    if name not in examples:
        raise InputNotFoundError(f"There is no example {name!r}.{suggest(name, examples)}")
    file = out or Path(f"{name}.yaml")
    text = examples[name].replace(f"configs/{name}.yaml", shlex.quote(str(file)))
    text = text.replace("../", _way_to_working_directory(local_path(file).absolute()))
    if out is None:
        show_line(text.rstrip(), asked=True)
        return
    options.require_new(out, what="a config", suffixes=(".yaml", ".yml"), overwrite=overwrite)
    write_whole(out, text.encode())
    show("Written", ("config", out))


def _purpose(text: str) -> str:
    """Return first sentence of the comment that an example begins with."""
    comment = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    words = " ".join(line for line in comment if not line.startswith("yaml-language-server"))
    return re.split(r"(?<=\.) |:  |: rtsx ", words)[0]


def _way_to_working_directory(file: Path) -> str:
    """Return what a path has to begin with that is in the working directory and counts from the folder of `file`."""
    here = Path.cwd()
    return "../" * (len(file.relative_to(here).parts) - 1) if file.is_relative_to(here) else ""


@app.command("import")
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
    out: Annotated[Path, options.Output(metavar="YAML", help="The config.")],
    cubes: Annotated[
        str, typer.Option(metavar="PATH", help="Cube of a scene, whose name stands for {scene}.")
    ] = "cubes/{scene}.zarr",
    labels: Annotated[
        str, typer.Option(metavar="PATH", help="Outlines of a scene, whose name stands for {scene}.")
    ] = "labels/{scene}.gpkg",
    overwrite: options.OverwriteOption = False,
) -> None:
    """Translate a training config of thaw-slump-segmentation; what could not be is listed, and stands in the file.

    Examples
    --------
    rtsx config import config.yml --out train.yaml --labels 'labels/{scene}.shp'
    """
    options.require_there([str(old)])
    from rtsx.config.starter import import_training

    options.require_new(out, what="a config", suffixes=(".yaml", ".yml"), overwrite=overwrite)
    imported = import_training(old, cubes=cubes, labels=labels)
    write_whole(out, imported.text.encode())
    for note in imported.notes:
        print_info(note)
    show("Imported", ("config", out), ("notes", len(imported.notes)))
