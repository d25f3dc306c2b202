"""Every benchmark runs once, small."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import allocator, basemap, drift, memory, pictures, review, season, speed, teams
from rtsx.model.allocator import KEEPING
from rtsx.review import create_review
from rtsx.review.pictures import ReviewPictures
from tests.campaign.stage import write_bundle
from tests.review.reviewers import image, outlines_of


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the processes of a benchmark are given; they run here, because each would load the libraries for seconds."""
    given = []

    def run(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        python, flag, module, *words = command
        assert (python, flag) == (sys.executable, "-m")
        given.append(how)
        monkeypatch.setattr(sys, "argv", [module, *words])
        with contextlib.redirect_stdout(io.StringIO()) as said:
            # Its code alone, because the module is loaded, and Python warns when it is run a second time.
            runpy.run_path(str(sys.modules[module].__file__), run_name="__main__")
        return subprocess.CompletedProcess(command, 0, said.getvalue(), "")

    monkeypatch.setattr(subprocess, "run", run)
    return given


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


def test_memory_prints_a_ratio(capsys: pytest.CaptureFixture[str], started: list[dict[str, Any]]) -> None:
    peaks = memory.run((256,))
    assert len(started) == 2  # the prediction, and the pass over its map
    assert peaks[256] > 0
    printed = capsys.readouterr().out
    assert "Mpx/s" in printed
    assert "ratio of the largest" in printed


def test_teams_prints_every_number_of_threads(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, started: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr("benchmarks.scene.make_unet", make_little)
    found = teams.run((64,), others=(0, 1), rounds=1, passes=1)
    assert set(found) == {(64, 0), (64, 1)}
    assert all(milliseconds > 0 for milliseconds in found.values())
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_allocator_prints_both_ways(
    capsys: pytest.CaptureFixture[str], started: list[dict[str, Any]], tmp_path: Path
) -> None:
    found = allocator.run((64,), passes=1, bundle=write_bundle(tmp_path / "tiny"))
    assert set(found) == {(64, "handed back"), (64, "kept")}
    assert all(seconds > 0 for seconds in found.values())
    assert len(capsys.readouterr().out.splitlines()) == 3
    back, kept = (how["env"] for how in started)
    assert not KEEPING.keys() & back.keys()
    assert kept == back | KEEPING
    assert back["OMP_NUM_THREADS"] == "1"
    assert "PATH" in back or "PATH" not in os.environ


def test_a_simulated_reviewer_goes_through_a_map(tmp_path: Path) -> None:
    truth = outlines_of(60).query("is_slump")
    found = outlines_of(60).iloc[5:]  # of which one slump or more is missing
    made = create_review(found, str(tmp_path / "review"), cubes={"map": "map"}, opener=lambda _: image(), repeats=0.0)
    shown = ReviewPictures.open(made, opener=lambda _: image())
    merged = review.work_through(made, shown, truth=truth, seed=0)
    shown.close()
    verdicts = merged.outlines["verdict"]
    said = verdicts != "unsure"
    agreed = (verdicts[said] == "target") == merged.outlines.geometry[said].intersects(truth.union_all())
    assert merged.status.is_complete
    assert 0 < (~said).mean() < 3 * review.ERRORS
    assert 1 - 3 * review.ERRORS < agreed.mean() < 1
    assert 0 < merged.status.added <= 5


def test_basemap(capsys: pytest.CaptureFixture[str]) -> None:
    basemap.run(side=64, rows=3, cell=48, rounds=1)
    said = capsys.readouterr().out
    assert "over quads of 64 px" in said
    assert "a table of 6,144 quads" in said
    assert "a VRT of four quads" in said


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
def test_season(capsys: pytest.CaptureFixture[str]) -> None:
    season.run(count=4, side=48, chunk=48)
    said = capsys.readouterr().out
    assert said.count("median") == 3
    assert "4 images, 4 layers and their mask on 48 x 48 px" in said


def test_drift_prints_every_year(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = "offset 1000 not taken off"
    found = drift.run(size=256, scenes=1, faults=(wrong,))
    assert found[wrong].is_tripped
    assert "is the offset wrong?" in capsys.readouterr().out


def test_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    pictures.run(size=320, outlines=2, repeats=2)
    said = capsys.readouterr().out
    assert said.count("drawn: median") == 2
    assert said.count("a second") == 2
