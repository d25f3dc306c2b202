"""The alignment benchmark runs small, and says what it is for."""

import pytest

from benchmarks import alignment


def test_alignment_prints_every_pair(capsys: pytest.CaptureFixture[str]) -> None:
    table = alignment.run(size=64, rounds=1)
    printed = capsys.readouterr().out
    for label in ("rough surface     3413 to 32608", "rough surface    32608 to 32652", "odc-geo"):
        assert label in printed
    assert len(table) >= 12
    for found in table.values():
        assert found["rtsx"][0] < min(0.01, found["rasterio"][0])
