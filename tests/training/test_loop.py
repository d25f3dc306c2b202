""""""

from pathlib import Path

import pytest
import torch

from rtsx.errors import TrainingError
from rtsx.training import LogRow
from rtsx.training.loop import BestWeights, MovingAverage, TrainingCheckpoint


def make_state(value: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((2, 3), value), "count": torch.tensor(int(value))}


def test_the_average_is_that_of_the_formula() -> None:
    average = MovingAverage(make_state(1.0), decay=0.3)
    expected = 1.0
    for n, value in enumerate([5.0, 2.0, 7.0, 3.0, 8.0]):
        average.update(make_state(value))
        kept = min(0.3, (1 + n) / (10 + n))
        expected = kept * expected + (1 - kept) * value
        torch.testing.assert_close(average.state["weight"], torch.full((2, 3), expected))
        assert average.state["count"] == int(value)


def test_it_owns_its_numbers() -> None:
    state = make_state(1.0)
    average = MovingAverage(state, decay=0.9)
    state["weight"].zero_()
    assert average.state["weight"].sum() == 6


def test_it_goes_on_from_what_was_kept() -> None:
    whole = MovingAverage(make_state(1.0), decay=0.9)
    for value in (4.0, 6.0):
        whole.update(make_state(value))
    resumed = MovingAverage(make_state(0.0), decay=0.9)
    resumed.restore(whole.state, n_updates=whole.n_updates)
    for average in (whole, resumed):
        average.update(make_state(9.0))
    assert torch.equal(whole.state["weight"], resumed.state["weight"])


def make_checkpoint() -> TrainingCheckpoint:
    weights = {"a": torch.arange(3.0), "n": torch.tensor(4)}
    parameter = torch.nn.Parameter(torch.ones(2))
    optimiser = torch.optim.AdamW([parameter], lr=0.1)
    parameter.sum().backward()
    optimiser.step()
    return TrainingCheckpoint(
        recipe="abc",
        epoch=2,
        step=8,
        is_done=False,
        network=weights,
        average=None,
        n_averaged=0,
        optimiser=optimiser.state_dict(),
        scaler={},
        best=BestWeights(epoch=1, iou=0.5, state=weights),
        log=(
            LogRow(epoch=1, step=4, loss=0.5, learning_rate=0.1),
            LogRow(epoch=2, step=8, loss=0.4, learning_rate=0.1),
        ),
    )


def test_a_checkpoint_comes_back_equal(tmp_path: Path) -> None:
    kept = make_checkpoint()
    kept.save(tmp_path / "last.pt")
    found = TrainingCheckpoint.open(tmp_path / "last.pt")
    assert (found.recipe, found.epoch, found.step, found.is_done, found.log) == ("abc", 2, 8, False, kept.log)
    assert (found.best.epoch, found.best.iou) == (1, 0.5)
    torch.testing.assert_close(dict(found.network), dict(kept.network), rtol=0, atol=0)
    assert torch.equal(found.optimiser["state"][0]["exp_avg"], kept.optimiser["state"][0]["exp_avg"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt"]


def test_the_one_before_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = make_checkpoint()
    kept.save(tmp_path / "last.pt")

    def fail(content: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        kept.save(tmp_path / "last.pt")
    assert TrainingCheckpoint.open(tmp_path / "last.pt").epoch == 2


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", None])
def test_a_damaged_one_is_named(tmp_path: Path, content: bytes | None) -> None:
    make_checkpoint().save(tmp_path / "last.pt")
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(TrainingError, match=r"last\.pt cannot be read.*delete it to train from the beginning"):
        TrainingCheckpoint.open(tmp_path / "last.pt")
