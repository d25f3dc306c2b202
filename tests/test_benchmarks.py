"""Every benchmark runs once, small."""

import pytest
import torch

from benchmarks import memory, speed, teams


def make_little() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(10, 4, 9, padding=4), torch.nn.ReLU(), torch.nn.Conv2d(4, 1, 9, padding=4)
    )


def test_speed_prints_every_contender(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("monai", reason="needs the bench extra")  # here, because it takes as long to load as all else
    # The allocator's settings would stay for every later test of this process.
    monkeypatch.setattr(speed, "configure_malloc", lambda: True)
    monkeypatch.setattr(speed, "make_unet", make_little)  # how far it looks is measured, which takes a large one long
    speed.run(size=256, rounds=1, tiles=((128, 32),), backends=("eager",))
    printed = capsys.readouterr().out
    for name in ("a0 bare", "a1 bare", "b  rtsx Zarr to Zarr", "c  MONAI", "b  rtsx auto, eager, reach 64"):
        assert name in printed


def test_memory_prints_a_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    peaks = memory.run((256,))  # each size is a process that loads the library
    assert peaks[256] > 0
    assert "ratio of the largest" in capsys.readouterr().out


def test_teams_prints_every_number_of_threads(capsys: pytest.CaptureFixture[str]) -> None:
    found = teams.run((64,), others=(0, 1), rounds=1, passes=1)
    assert set(found) == {(64, 0), (64, 1)}
    assert all(milliseconds > 0 for milliseconds in found.values())
    assert len(capsys.readouterr().out.splitlines()) == 4
