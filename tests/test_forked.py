"""Tests that run in forked processes are reported as if they had run in one, and a process that ends is one failure."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = """
import os, warnings
import pytest

@pytest.fixture(scope="session", autouse=True)
def server(request):
    yield
    open(request.config.rootpath / f"ended-{os.getpid()}", "w").close()

def test_fails():
    print("said")
    assert [1] == [2]

def test_ends():
    os._exit(0)

@pytest.mark.parametrize("number", range(9))
def test_passes(number, tmp_path):
    (tmp_path / "file").touch()

def test_warns():
    warnings.warn("shaky")

@pytest.fixture
def broken():
    yield
    raise ValueError

def test_is_torn_down(broken):
    pass
"""


HALF_A_MESSAGE = """
import os, signal, struct

def test_ends(request):
    pipe = request.config.pluginmanager.getplugin("terminalreporter")._connection.fileno()
    if not (forked := os.fork()):
        os.closerange(0, pipe)
        os.closerange(pipe + 1, 99)
        signal.pause()
    open(request.config.rootpath / f"forked-{forked}", "w").close()
    os.write(pipe, struct.pack("!i", 99) + b"half")
    os._exit(3)
"""


def run(folder: Path, *options: str, tests: str = TESTS) -> "subprocess.CompletedProcess[str]":
    for name in ("test_a.py", "test_b.py"):
        (folder / name).write_text(tests)
    command = [sys.executable, "-m", "pytest", "-p", "tests.forked", "--processes", "3", "-ra", f"--rootdir={folder}"]
    return subprocess.run(
        [*command, "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *options, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,  # instead of waiting for ever
    )


def test_all_is_reported_and_what_ended_a_process_is_named(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 1
    assert "4 failed, 22 passed, 2 warnings, 2 errors" in done.stdout
    for said in (
        "assert [1] == [2]",
        "Captured stdout call",
        "ended with exit code 0",
        "ValueError",
        "UserWarning: shaky",
    ):
        assert done.stdout.count(said) >= 2
    for name in ("test_a.py", "test_b.py"):
        assert f"{name}::test_fails" in done.stdout
        assert f"{name}::test_ends" in done.stdout
        assert f"{name}::test_is_torn_down" in done.stdout
    assert [*tmp_path.glob("ended-*")]


def test_the_first_failure_stops_all(tmp_path: Path) -> None:
    done = run(tmp_path, "--exitfirst", "-k", "not test_ends")
    assert done.returncode == 1
    assert re.search("stopping after [12] failures", done.stdout)  # of two processes
    assert len([*tmp_path.glob("ended-*")]) == 2


def test_a_process_that_ends_in_the_middle_of_a_message_is_named_though_what_it_forked_lives(tmp_path: Path) -> None:
    try:
        done = run(tmp_path, tests=HALF_A_MESSAGE)
    finally:
        for file in tmp_path.glob("forked-*"):
            os.kill(int(file.name.removeprefix("forked-")), signal.SIGKILL)
    assert done.returncode == 1
    assert done.stdout.count("ended with exit code 3") >= 2
