"""The benchmark of the allocator runs small, and its processes get what workers get."""

import os
from pathlib import Path

import pytest

from benchmarks import allocator
from rtsx.model.allocator import KEEPING
from tests.campaign.stage import write_bundle


def test_allocator_prints_both_ways(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = []
    started = allocator.subprocess.run

    def run(command: list[str], **how: object) -> object:
        given.append(how["env"])
        return started(command, **how)  # type: ignore[call-overload]

    monkeypatch.setattr(allocator.subprocess, "run", run)
    found = allocator.run((64,), passes=1, bundle=write_bundle(tmp_path / "tiny"))
    assert set(found) == {(64, "handed back"), (64, "kept")}
    assert all(seconds > 0 for seconds in found.values())
    assert len(capsys.readouterr().out.splitlines()) == 3
    back, kept = given
    assert not KEEPING.keys() & back.keys()
    assert kept == back | KEEPING
    assert back["OMP_NUM_THREADS"] == "1"
    assert "PATH" in back or "PATH" not in os.environ
