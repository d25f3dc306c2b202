"""The commands of `rtsx`, each loaded when it is called, so that help and errors come at once; and the entry point that runs one."""

import logging
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

import rtsx
from rtsx.cli.console import ConsoleStream, print_error, show_line, streams, warn
from rtsx.errors import RtsxError
from rtsx.progress import Line
from rtsx.redaction import redacted
from rtsx.storage import local_path


@dataclass(frozen=True)
class Entry:
    """One line in the list of commands, and where the command is."""

    module: str
    """Module of the command, in `rtsx.cli`."""
    help: str
    """What the list says of it: the first sentence of a command's own help, or the help of a group."""
    stopped: str | Mapping[str, str]
    """What is true after Ctrl-C, of the command or of each of its own commands."""
    app: str = "app"
    """The name of the `app` in its module."""

    @property
    def is_group(self) -> bool:
        """Whether it has commands of its own."""
        return not isinstance(self.stopped, str)


class CommandGroup(TyperGroup):
    """Lists its commands where a line names one that it lacks; typer itself says at most which is near."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that a line names."""
        name = args[0]
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(name, self.commands, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {name!r}.{hint} Commands of {ctx.command_path} are {', '.join(self.commands)}.")
        return super().resolve_command(ctx, args)


class LazyGroup(CommandGroup):
    """Lists `COMMANDS` by what is said of them, and loads one when it is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=entry.help) for name, entry in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that a line names; the one moment at which it has to be there."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, None if listed is None else self.load(str(name)), rest

    def load(self, name: str) -> Any:
        """Import a command."""
        entry = COMMANDS[name]
        # Within another app, because a command on its own would offer to install completion.
        around = typer.Typer(add_completion=False)
        loaded = getattr(import_module(f"rtsx.cli.{entry.module}"), entry.app)
        if entry.is_group:
            around.add_typer(loaded, name=name, help=entry.help, cls=CommandGroup)
        else:
            around.add_typer(loaded)
        return _once(typer.main.get_group(around).commands[name])


def _once(command: Any) -> Any:
    """Return the command, which refuses an option that takes one value and is given twice; click keeps the last without a word."""
    for child in getattr(command, "commands", {}).values():
        _once(child)
    parse = command.parse_args

    def parse_args(ctx: Any, args: list[str]) -> Any:
        if not ctx.resilient_parsing:
            _, _, given = command.make_parser(ctx).parse_args(args=list(args))
            for option in given:
                takes_one = isinstance(option, TyperOption) and not (option.multiple or option.count)
                if takes_one and given.count(option) > 1 and (not option.is_flag or option.secondary_opts):
                    # typer's, because it brings a click of its own, which knows no errors of another.
                    raise typer.BadParameter(
                        f"it takes one value and was given {given.count(option)} times; give it once.",
                        ctx=ctx,
                        param_hint=option.opts[-1],
                    )
        return parse(ctx, args)

    command.parse_args = parse_args
    return command


# With {again}, where it is "the same command", or what that would be.
_WHOLE = "Outputs appear when they are complete, so what is there is whole; the one under way is gone."
_READ = "It was only reading: nothing was written."
_CELLS = "Cells that are done stay; {again} goes on with the rest."
_MADE = "Scenes that are done stay; {again} makes the rest."

COMMANDS = {
    "demo": Entry(
        "demo",
        "Make a tundra scene with thaw slumps, map it, score the map against the truth and draw both.",
        stopped="The folder of the demo is not complete; make it anew with --overwrite.",
    ),
    "predict": Entry(
        "predict", "Map an image with a model: probability, yes or no, and which pixels are valid.", stopped=_WHOLE
    ),
    "footprints": Entry(
        "footprints",
        "Outline the objects of a map, with area, perimeter, place and probability of each.",
        stopped=_WHOLE,
    ),
    "merge": Entry(
        "footprints",
        "Unite outlines that meet: of cells and overlapping scenes of one day, or of all images of a year.",
        app="merge_app",
        stopped=_WHOLE,
    ),
    "track": Entry(
        "footprints",
        "Follow objects over years: growth, first and last sighting, what became of each.",
        app="track_app",
        stopped=_WHOLE,
    ),
    "cog": Entry(
        "predict",
        "Write probability and binary as cloud-optimised GeoTIFFs, for QGIS and GDAL.",
        app="cog_app",
        stopped=_WHOLE,
    ),
    "model": Entry(
        "model",
        "Describe models, measure their reach, turn files into bundles and back.",
        stopped={"info": _READ, "probe": _WHOLE, "export": _WHOLE, "import": _WHOLE},
    ),
    "cube": Entry(
        "cube",
        "Builds cubes from YAML files, and looks into them.",
        stopped={
            "init": _WHOLE,
            "build": "What is built stays; {again} goes on with it.",
            "info": _READ,
            "check": _READ,
            "plot": _WHOLE,
        },
    ),
    "order": Entry(
        "order",
        "Choose scenes for a region, order them once, fetch them.",
        stopped={
            "plan": _WHOLE,
            "submit": "What was ordered is noted; {again} orders the rest, and nothing twice.",
            "status": _WHOLE,
            "fetch": "What has come stays; {again} fetches the rest.",
        },
    ),
    "labels": Entry(
        "labels",
        "Checks inventories of outlines, and makes one table of them.",
        stopped={"validate": _READ, "standardise": _WHOLE},
    ),
    "train": Entry(
        "train",
        "Train a network on cubes and labels: a bundle that `rtsx predict` runs, a log, and a report of one page.",
        stopped="After an epoch, {again} goes on from the last one; before the first is done, nothing is kept.",
    ),
    "evaluate": Entry(
        "evaluate",
        "Score predictions by pixel, border and object: each scene, each region, and all together.",
        stopped=_WHOLE,
    ),
    "sample": Entry(
        "evaluate",
        "Draw outlines or points of the ground at random, for people to review; `rtsx evaluate --sample` says what follows.",
        app="sample_app",
        stopped=_WHOLE,
    ),
    "area": Entry(
        "evaluate",
        "Sum probability x ground by cells: the area of the target that the map expects, without a threshold.",
        app="area_app",
        stopped=_WHOLE,
    ),
    "cross-validate": Entry(
        "train",
        "Leave one region out after another, and score what the others taught on it; no group is ever divided.",
        app="cross_validate_app",
        stopped="Folds and epochs that are done stay; {again} goes on with the rest.",
    ),
    "campaign": Entry(
        "campaign",
        "Maps a region of any size, cell by cell, on machines that may fail.",
        stopped={
            "plan": _WHOLE,
            "run": _CELLS,
            "work": _CELLS,
            "submit": "What was submitted stays so.",
            "update": _CELLS,
            "status": _READ,
            "watch": "What was sent is not sent again; {again} goes on.",
            "retry": "Cells freed so far stay free; {again} frees the rest.",
            "verify": _READ,
            "report": _WHOLE,
            "collect": "Products that are written stay; {again} makes the rest.",
            "copy": "What is copied stays, and no cell is half there; {again} copies the rest.",
            "deliver": "Files that are written stay; {again} makes the rest.",
            "check": _WHOLE,
            "fetch": "What has come stays; {again} fetches the rest.",
        },
    ),
    "review": Entry(
        "review",
        "People review outlines in a browser; what they say becomes a verified map and better labels.",
        stopped={
            "create": "Nothing is there before the review is whole; {again} makes it.",
            "serve": "Verdicts that were sent are kept, and the page keeps the others; {again} goes on.",
            "status": _READ,
            "merge": _WHOLE,
        },
    ),
    "config": Entry(
        "config",
        "Writes YAML files to start from, describes them to editors, and reads those of the predecessor.",
        stopped={"schema": _WHOLE, "example": _WHOLE, "import": _WHOLE},
    ),
    "synthetic": Entry(
        "synthetic",
        "Makes tundra with thaw slumps and their true outlines, in real formats.",
        stopped={"scenes": _MADE, "region": _MADE},
    ),
    "view": Entry(
        "view",
        "Show images, maps, outlines and campaigns on one interactive map in the browser, or as a picture or page.",
        stopped="The map was closed; nothing was written.",
    ),
    "info": Entry(
        "info",
        "Tell versions, devices and extras of this installation, or grid and layers of a cube, image or map.",
        stopped=_READ,
    ),
}
"""Every command by its name, in the order of the list; a test holds what is said here to what the commands say."""

app = typer.Typer(
    name="rtsx",
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # instead, `main` turns exceptions into messages and exit codes
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Maps retrogressive thaw slumps, or any other object, over satellite data cubes of any size.",
    epilog="Start with: rtsx demo\n\nExit status: 0 done; 2 the message tells the cure; 1 a defect of ours; 130 Ctrl-C.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        show_line(f"rtsx {rtsx.__version__}", asked=True)
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


DEFECT = 1
"""Exit status of an error that is ours."""
USER_ERROR = 2
"""Exit status of an error that the user can cure; typer gives it to wrong options too."""

STOPPED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave by `SystemExit`: 0 done, 2 the user can cure it, 1 a defect, 130 Ctrl-C.

    SIGTERM and SIGHUP, which schedulers and closing terminals send, do what Ctrl-C does, and the status is 143 or 129.

    Parameters
    ----------
    arguments
        What follows the word `rtsx`; None for the process's own.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Taken from anywhere, because it is wanted when a long line has just failed, at whose end it is easiest to add.
    debug = "--debug" in given
    if debug:
        logging.getLogger("rtsx").setLevel(logging.DEBUG)  # workers on this machine then say what dask does, too
    else:
        # Without the line of code that Python adds: whoever reads it here has not written it.
        warnings.showwarning = lambda message, *_, **__: warn(_advice(str(message), given))
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of futures that dask forgets when it is stopped
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Because a log in ASCII, a Windows pipe or a file name that is no UTF-8 should cost a letter, not the work.
            stream.reconfigure(errors="backslashreplace")
    with _signals() as caught, streams() as out:
        _run(given, out, caught=caught, debug=debug)


def _run(given: list[str], out: ConsoleStream, *, caught: list[int], debug: bool) -> None:
    try:
        with Line(f"{' '.join(['rtsx', *_command(given)])} is running", in_place=False):
            get_command(app).main(args=[_named(word) for word in given if word != "--debug"], prog_name="rtsx")
    except SystemExit as leaving:
        if out.failure is not None and not isinstance(out.failure, BrokenPipeError):
            warn(f"Not all could be printed to standard output: {out.failure}. The work itself is not concerned.")
        behind = leaving.__context__
        if isinstance(behind, OSError):  # a pipe that is none of ours; click leaves without a word
            _leave(DEFECT, _defect(behind), debug=debug)
        if leaving.code == STOPPED:
            with suppress(OSError):  # the terminal may be gone
                print_error(f"Stopped. {stopped(given)}")
            leaving.code = 128 + caught[0] if caught else STOPPED
        raise
    except RtsxError as error:
        _leave(USER_ERROR, _advice(str(error), given, error=error), debug=debug)
    except Exception as error:
        _leave(DEFECT, _defect(error), debug=debug)


def _advice(message: str, given: Sequence[str], *, error: RtsxError | None = None) -> str:
    from rtsx.cli.advice import in_command_words  # here, because what goes well needs no YAML

    return in_command_words(message, given, error=error)


def _command(given: Sequence[str]) -> list[str]:
    """Return the words by which a line names its command."""
    words = [word for word in given if not word.startswith("-")]
    entry = COMMANDS.get(words[0]) if words else None
    return words[: 0 if entry is None else 2 if entry.is_group else 1]


def stopped(given: Sequence[str]) -> str:
    """Return what is true after Ctrl-C."""
    name, *own = _command(given) or [""]
    said = COMMANDS[name].stopped if name else ""
    text = said if isinstance(said, str) else said.get("".join(own), "")
    # With it, the same command would begin anew.
    return text.format(again=f"the same command{' without --overwrite' if '--overwrite' in given else ''}")


def _defect(error: Exception) -> str:
    return (
        f"Unexpected {type(error).__name__}: {error}\nThis is a defect of rtsx. Run the command again with --debug "
        "to see where it happened, and report it."
    )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Turn SIGTERM and SIGHUP into Ctrl-C within the block; the list tells which one came, once it has."""
    caught: list[int] = []

    def stop(number: int, _: object) -> None:
        if not caught:  # a second one does not stop the cleaning up
            caught.append(number)
            raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()  # others cannot set handlers
    ours = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if is_main and signal.getsignal(number) is signal.SIG_DFL  # nohup has SIGHUP ignored
    ]
    for number in ours:
        signal.signal(number, stop)
    try:
        yield caught
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _named(word: str) -> str:
    """Return a word of the command line with ``~`` and ``file://`` made a path, as a shell does in some places only."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    is_name = value == "~" or value.startswith(("~/", "file:/"))
    return f"{option}{equals}{local_path(value)}" if is_name else word


def _leave(status: int, message: str, *, debug: bool) -> None:
    if debug:
        sys.stderr.write(redacted(traceback.format_exc()))
    print_error(message)
    sys.exit(status)
