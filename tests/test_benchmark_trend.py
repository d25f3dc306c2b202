"""The benchmark of trends runs small, and both contenders give the same slopes."""

import numpy as np
import pytest

from benchmarks import trend


def test_trend_prints_both_contenders_whose_slopes_agree(
    capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(contender: str, items, warm) -> trend.Measured:  # without a process for each
        return trend.Measured(1.0, 1.0, trend._CONTENDERS[contender](items))

    monkeypatch.setattr(trend.Measured, "of", here)
    found = trend.run(side=16, scenes=(12,))
    assert "times as fast" in capsys.readouterr().out
    np.testing.assert_allclose(found["rtsx", 12].slopes, found["xarray", 12].slopes, atol=1e-5)
