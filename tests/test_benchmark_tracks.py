"""The benchmark of tracks runs small, and its tracks are the slumps it made."""

import pytest

from benchmarks import tracks


def test_tracks_prints_a_line_per_number(capsys: pytest.CaptureFixture[str]) -> None:
    timings = tracks.run((100, 200))
    assert len(capsys.readouterr().out.splitlines()) == 3
    for count, timing in timings.items():
        assert 0.9 * count <= timing.tracks <= 1.1 * count
        assert timing.outlines > 4.5 * count
