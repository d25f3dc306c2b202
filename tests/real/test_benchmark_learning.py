"""The benchmark of learning runs once, with hardly any learning."""

from pathlib import Path

import pytest

from benchmarks import learning
from tests.training.little import NETWORK


def test_learning_prints_scores_of_what_was_left_out(
    real_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTSX_REAL_DATA", str(real_data))
    monkeypatch.setattr(learning, "LAYER_SETS", {"4 bands": range(4)})
    monkeypatch.setattr(learning, "STEPS", 1)
    monkeypatch.setattr(learning, "NetworkSpec", lambda **_: NETWORK)  # a large one learns no more in one step
    learning.run(epochs=1)
    printed = capsys.readouterr().out
    assert "4 bands" in printed
    assert printed.count("mean IoU of two annotators") == 2
    assert "model" in printed
