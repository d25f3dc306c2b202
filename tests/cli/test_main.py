import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.transform import from_origin

import rtsx
from rtsx.cli import console, main
from rtsx.cli.app import stopped
from rtsx.storage import staged
from tests.cli.trainable import trainable, write_training_scenes
from tests.ordering.conftest import make_catalog  # noqa: F401 - a fixture

Command = Callable[..., Any]


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_version_is_that_of_the_package(rtsx_command: Command) -> None:
    outcome = rtsx_command("--version")
    assert (outcome.status, outcome.out) == (0, f"rtsx {rtsx.__version__}\n")


def test_help_names_every_command(rtsx_command: Command) -> None:
    outcome = rtsx_command("--help")
    assert outcome.status == 0
    assert all(name in outcome.out for name in ("demo", "predict", "footprints", "cog", "model", "info"))


def test_the_entry_point_is_installed() -> None:
    script = Path(sys.executable).with_name("rtsx")
    done = subprocess.run([script, "predict", "--nonsense"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "No such option" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize(("words", "status"), [(("predict", "--help"), 0), (("info", "størr → m².tif"), 2)])
def test_streams_that_are_no_utf8_cost_a_letter_not_the_work(
    encoding: str, words: tuple[str, ...], status: int
) -> None:
    script = Path(sys.executable).with_name("rtsx")
    done = subprocess.run([script, *words], capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert (done.returncode, b"defect" in done.stderr) == (status, False), done.stderr


def test_a_user_error_is_its_message_alone(rtsx_command: Command, tmp_path: Path) -> None:
    outcome = rtsx_command("info", tmp_path / "absent.tif")
    assert outcome.status == 2
    assert outcome.out == ""
    assert outcome.err.startswith("Error: ")
    assert "absent.tif" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_shows_the_traceback_wherever_it_stands(rtsx_command: Command, tmp_path: Path, place: int) -> None:
    words = ["info", str(tmp_path / "absent.tif")]
    outcome = rtsx_command(*words[:place], "--debug", *words[place:])
    assert outcome.status == 2
    assert "Traceback (most recent call last)" in outcome.err


def test_a_defect_is_one_line_and_a_hint(rtsx_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtsx, "open_cube", failing(ZeroDivisionError("by nothing")), raising=False)
    outcome = rtsx_command("info", __file__)
    assert outcome.status == 1
    assert outcome.err.startswith("Error: Unexpected ZeroDivisionError: by nothing\n")
    assert "--debug" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_ctrl_c_and_what_schedulers_and_closing_terminals_send_end_a_command_alike(
    number: signal.Signals, status: int, rtsx_command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = signal.getsignal(number)

    def end(*_: object, **__: object) -> None:
        with staged(tmp_path / "map.zarr", overwrite=False) as draft:
            draft.mkdir()
            signal.raise_signal(number)

    monkeypatch.setattr(rtsx, "open_cube", end, raising=False)
    outcome = rtsx_command("info", __file__)
    assert outcome.status == status
    assert not any(tmp_path.iterdir())
    assert signal.getsignal(number) is before
    assert outcome.err.endswith("Error: Stopped. It was only reading: nothing was written.\n")
    assert "Traceback" not in outcome.err


def test_what_would_begin_anew_does_not_go_on() -> None:
    assert stopped(["cube", "build", "c.yaml"]) == "What is built stays; the same command goes on with it."
    words = ["cube", "--debug", "build", "c.yaml", "--overwrite"]
    assert stopped(words) == "What is built stays; the same command without --overwrite goes on with it."
    assert stopped([]) == stopped(["cube"]) == stopped(["nonsense", "--help"]) == ""


def test_a_process_is_seen_to_run_and_says_how_it_was_stopped(tmp_path: Path) -> None:
    config = tmp_path / "cube.yaml"
    os.mkfifo(config)
    silent = os.open(config, os.O_RDWR)  # so whoever reads it waits for a word
    words = [Path(sys.executable).with_name("rtsx"), "cube", "build", config, "--out", tmp_path / "cube.zarr"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("rtsx cube build is running ...")
        try:
            while process.poll() is None:  # again, because a library that is being loaded may swallow one
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(5)
            last = process.stderr.read().splitlines()[-1]
        finally:
            process.kill()
    os.close(silent)
    assert process.returncode == 130
    assert last == "Error: Stopped. What is built stays; the same command goes on with it."
    assert not (tmp_path / "cube.zarr").exists()


def test_an_unknown_command_suggests_the_nearest(rtsx_command: Command) -> None:
    outcome = rtsx_command("predikt")
    assert outcome.status == 2
    assert "predict" in outcome.err


class Failing(io.StringIO):
    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def write(self, text: str) -> int:
        raise OSError(self._number, os.strerror(self._number))


@pytest.mark.parametrize(
    ("number", "status", "told"), [(errno.EPIPE, 0, ""), (errno.ENOSPC, 2, "Error: Standard output cannot be written")]
)
def test_output_that_was_asked_for_is_not_lost_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, status: int, told: str
) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(number))
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == status
    assert capsys.readouterr().err.startswith(told)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC])
def test_a_summary_that_nobody_reads_does_not_fail_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def summarised(*_: object, **__: object) -> None:
        console.show("Written", ("map", "map.zarr"))
        raise SystemExit(0)

    monkeypatch.setattr(rtsx, "open_cube", summarised, raising=False)
    monkeypatch.setattr(sys, "stdout", Failing(number))
    with pytest.raises(SystemExit) as leaving:
        main(["info", __file__])
    assert leaving.value.code == 0
    assert ("The work itself is not concerned" in capsys.readouterr().err) == (number != errno.EPIPE)


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "2>/dev/full >/dev/null", "<&- >&- 2>&-"])
def test_closed_and_full_streams_cost_words_only(closed: str) -> None:
    script = Path(sys.executable).with_name("rtsx")
    assert subprocess.run(["sh", "-c", f"exec {script} --help {closed}"]).returncode == 0


def test_a_broken_pipe_of_something_else_is_told(rtsx_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtsx, "open_cube", failing(BrokenPipeError(errno.EPIPE, "a server left")), raising=False)
    outcome = rtsx_command("info", __file__)
    assert outcome.status == 1
    assert "BrokenPipeError: [Errno 32] a server left" in outcome.err


def built(folder: Path) -> tuple[list[object], str]:
    """A cube of four parts, and what is called after each of them."""
    with rasterio.open(
        folder / "a.tif", "w", driver="GTiff", width=64, height=64, count=1, dtype="uint16", crs="EPSG:3413",
        transform=from_origin(0, 0, 10, 10),
    ) as file:  # fmt: skip
        file.write(np.arange(4096, dtype="uint16").reshape(1, 64, 64))
    values = {
        "grid": {"resolution": 10, "cell_size": 64},
        "region": {"cell": "r000c000"},
        "sources": {"a": {"files": str(folder / "a.tif"), "layers": {"red": 1}}},
        "chunk": 32,
    }
    (folder / "cube.yaml").write_text(yaml.safe_dump(values))
    return ["cube", "build", folder / "cube.yaml", "--out", folder / "out.zarr"], "rtsx.cube.build_state.write_mark"


def trained(folder: Path) -> tuple[list[object], str]:
    """A training of two epochs, likewise."""
    config = trainable(folder, write_training_scenes(folder / "scenes"), epochs=2)
    return ["train", config, "--out", folder / "out"], "rtsx.training.loop.TrainingCheckpoint.save"


def fetched(folder: Path) -> tuple[list[object], str]:
    """Files of some scenes, likewise."""
    order = folder / "order.yaml"
    period, catalog = "{years: 2024, months: [7]}", "{path: provider/catalog.json, assets: [image]}"
    region = "{bbox: [149.2, 69.7, 150.8, 70.3]}"
    order.write_text(f"name: small\nregion: {region}\nperiod: {period}\nout: out\ncatalog: {catalog}\n")
    for words in (["plan", order], ["submit", order, "--yes"]):
        with pytest.raises(SystemExit):
            main(["order", *map(str, words)])
    return ["order", "fetch", order], "rtsx.ordering.download.replace_settled"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "number", "status", "told"),
    [
        (built, signal.SIGTERM, 143, "What is built stays; the same command goes on with it."),
        (built, signal.SIGHUP, 129, "What is built stays; the same command goes on with it."),
        (trained, signal.SIGTERM, 143, "After an epoch, the same command goes on from the last one"),
        (fetched, signal.SIGHUP, 129, "What has come stays; the same command fetches the rest."),
    ],
)
def test_a_command_that_a_scheduler_or_a_closing_terminal_stops_goes_on_when_it_is_given_again(
    make: Callable[[Path], tuple[list[object], str]],
    number: signal.Signals,
    status: int,
    told: str,
    make_catalog: Any,  # noqa: F811 - the fixture
    rtsx_command: Command,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    make_catalog(4)
    words, place = make(tmp_path)
    real, calls = resolve_name(place), []

    def then_stop(*given: Any, **more: Any) -> Any:
        done = real(*given, **more)
        calls.append(given)
        if len(calls) == 1:
            os.kill(os.getpid(), number)  # to the process, whatever thread is here
        return done

    with monkeypatch.context() as patched:
        patched.setattr(place, then_stop)
        stopped = rtsx_command(*words)
    assert stopped.status == status, stopped.err
    assert f"Error: Stopped. {told}" in stopped.err
    assert "Traceback" not in stopped.err
    n_before = len(calls)
    with monkeypatch.context() as patched:
        patched.setattr(place, then_stop)
        again = rtsx_command(*words)
    assert again.status == 0, again.err
    if make is fetched:
        assert len({target for _, target in calls}) == len(calls)  # nothing twice
    elif make is built:  # by number, because a thread of the stopped command may still finish the part it is at
        parts = [given[1] for given in calls]
        assert n_before < len(calls)
        assert parts.count(parts[0]) == 1
    else:
        assert len(calls) - n_before == 1  # not from the beginning
    assert not list(tmp_path.rglob(".*.partial"))
