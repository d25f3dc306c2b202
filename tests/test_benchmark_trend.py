"""The benchmark of trends runs small, and both contenders give the same slopes."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import trend


def test_trend_prints_both_contenders_whose_slopes_agree(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(contender: str, items: Path, warm: Path) -> trend.Measured:  # without a process for each
        told = trend.measure(contender, items, items.parent / "out.npy")
        return trend.Measured(told["busy"], told["fit"], told["peak"], np.load(items.parent / "out.npy"))

    monkeypatch.setattr(trend.Measured, "of", here)
    found = trend.run(side=16, scenes=(30,))
    assert "times as fast" in capsys.readouterr().out
    np.testing.assert_allclose(found["rtsx", 30].slopes, found["xarray", 30].slopes, atol=1e-5)
