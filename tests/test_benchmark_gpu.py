"""The run for a GPU, dry: every step is done, one fails and one has no time, and the table has them all."""

import re
import subprocess
import time
from pathlib import Path
from typing import TextIO

import pytest

from benchmarks import gpu


def test_every_step_is_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_tests", lambda row, report: row.update(result="12 passed"))

    def fails(*given: object, **how: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(gpu, "_trace", fails)
    table = gpu.run(tmp_path, minutes=5, size=96, networks=(("Unet", "mobilenet_v2", 1),)).read_text()
    assert "tests/gpu | 12 passed" in table
    assert "network alone, float32 | Mpx/s of tiles, by batch: " in table
    assert table.count("Mpx/s of map") == 2
    assert "trace | failed: RuntimeError: CUDA error: an illegal memory access" in table
    assert "illegal memory access" in (tmp_path / "errors.txt").read_text()


def test_no_step_begins_when_the_time_is_over(tmp_path: Path) -> None:
    table = gpu.run(tmp_path, minutes=0, size=96, networks=(("Unet", "mobilenet_v2", 1),)).read_text()
    assert table.count("no time left") == 6


def test_tests_that_are_stopped_have_said_what_they_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(command: list[str], *, stdout: TextIO, timeout: float, **_: object) -> None:
        stdout.write("test_one PASSED\ntest_two ")
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr("benchmarks.gpu.subprocess.run", stopped)
    report = gpu.Report(tmp_path, "a card", time.monotonic() + 600)
    with report.step("tests/gpu") as row:
        gpu._tests(row, report=report)
    assert re.search(r"\| tests/gpu \| stopped after (199|200) s: test_two \|", report.table.read_text())
    assert "test_one PASSED" in (tmp_path / "tests.txt").read_text()
