"""The entry point: runs a command, and turns what goes wrong into an exit code and one message."""

import logging
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper

from typer.main import get_command

from rtsx.cli.app import COMMANDS, app
from rtsx.cli.console import ConsoleStream, print_error, streams, warn
from rtsx.errors import RtsxError
from rtsx.progress import Line
from rtsx.redaction import redacted
from rtsx.storage import local_path

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
    """The words by which a line names its command."""
    words = [word for word in given if not word.startswith("-")]
    entry = COMMANDS.get(words[0]) if words else None
    return words[: 0 if entry is None else 2 if entry.is_group else 1]


def stopped(given: Sequence[str]) -> str:
    """What is true after Ctrl-C."""
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
    """A word of the command line with ``~`` and ``file://`` made a path, as a shell does in some places only."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    is_name = value == "~" or value.startswith(("~/", "file:/"))
    return f"{option}{equals}{local_path(value)}" if is_name else word


def _leave(status: int, message: str, *, debug: bool) -> None:
    if debug:
        sys.stderr.write(redacted(traceback.format_exc()))
    print_error(message)
    sys.exit(status)
