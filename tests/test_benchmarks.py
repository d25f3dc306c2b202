"""Every benchmark runs once, small."""

import pytest

pytest.importorskip("monai", reason="needs the bench extra")

from benchmarks import memory, speed


def test_speed_prints_every_contender(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # The allocator's settings would stay for every later test of this process.
    monkeypatch.setattr(speed, "keep_freed_memory", lambda: True)
    speed.run(size=256, rounds=1, tiles=((128, 32),), backends=("eager",))
    printed = capsys.readouterr().out
    for name in ("a0 bare", "a1 bare", "b  rtsx Zarr to Zarr", "c  MONAI", "b  rtsx auto, eager, reach 64"):
        assert name in printed


def test_memory_prints_a_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    peaks = memory.run((256,))  # each size is a process that loads the library
    assert peaks[256] > 0
    assert "ratio of the largest" in capsys.readouterr().out
