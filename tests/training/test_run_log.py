""""""

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from rtsx.errors import MissingExtraError, TrainingError
from rtsx.training import LogRow, train
from rtsx.training.run_log import open_loggers, write_log
from tests.training.little import make_recipe, read_log

ROWS = (
    LogRow(epoch=1, step=3, loss=0.1 + 0.2, learning_rate=1e-3),
    LogRow(epoch=2, step=6, loss=0.25, learning_rate=1e-4, threshold=0.3, iou=0.5, precision=0.5, recall=1.0, f1=2 / 3),
)


def test_a_log_comes_back_equal(tmp_path: Path) -> None:
    write_log(tmp_path / "log.csv", ROWS)
    assert read_log(tmp_path / "log.csv") == ROWS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv"]


def test_any_program_can_read_it(tmp_path: Path) -> None:
    write_log(tmp_path / "log.csv", ROWS[:1])
    assert (tmp_path / "log.csv").read_text() == (
        "epoch,step,loss,learning_rate,threshold,iou,precision,recall,f1,average_precision\n"
        "1,3,0.30000000000000004,0.001,,,,,,\n"
    )


ROW = LogRow(epoch=2, step=6, loss=0.25, learning_rate=1e-4, iou=0.5)


class FakeRun:
    """Remembers what it is told."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.settings = settings | {"arguments": arguments}
        self.told: list[object] = []

    def log(self, values: dict[str, float], *, step: int) -> None:
        self.told.append((values, step))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.told.append((name, value, step))

    def flush(self) -> None:
        self.told.append("flush")

    def close(self) -> None:
        self.told.append("close")

    finish = close


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """Runs that the two libraries, which need not be installed, were asked to begin."""
    made: list[FakeRun] = []

    def begin(*arguments: Any, **settings: Any) -> FakeRun:
        made.append(FakeRun(*arguments, **settings))
        return made[-1]

    wandb = types.ModuleType("wandb")
    wandb.init = begin  # type: ignore[attr-defined]
    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = begin  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    return made


def test_rows_go_to_both(tmp_path: Path, runs: list[FakeRun]) -> None:
    logs = open_loggers(["tensorboard", "wandb"], tmp_path, id="little", record={"seed": 0}, digest="ab" * 32)
    for log in logs:
        log.log(ROW)
        log.close()
    board, wandb = runs
    assert board.settings["arguments"] == (str(tmp_path / "tensorboard"),)
    assert board.told == [("loss", 0.25, 2), ("learning_rate", 1e-4, 2), ("iou", 0.5, 2), "flush", "close"]
    assert (wandb.settings["name"], wandb.settings["resume"], wandb.settings["config"]) == (
        "little",
        "allow",
        {"seed": 0},
    )
    assert wandb.told == [({"loss": 0.25, "learning_rate": 1e-4, "iou": 0.5}, 2), "close"]


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_what_is_not_installed_is_refused(tmp_path, monkeypatch, name, package) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"pip install {name}"):
        open_loggers([name], tmp_path, id="little", record={}, digest="ab" * 32)


def test_an_unknown_logger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"There is no logger 'tensorbord'\. Did you mean 'tensorboard'"):
        open_loggers(["tensorbord"], tmp_path, id="little", record={}, digest="ab" * 32)  # type: ignore[list-item]


def test_a_training_tells_its_loggers_every_epoch(tmp_path: Path, runs: list[FakeRun]) -> None:
    train(make_recipe(steps_per_epoch=1, test=()), tmp_path / "run", device="cpu", loggers=["wandb"])
    (wandb,) = runs
    assert [told[1] for told in wandb.told[:-1]] == [1, 2]  # type: ignore[index]
    assert wandb.told[-1] == "close"


def test_what_is_missing_is_told_before_anything_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match="There is no logger 'tensorbord'"):
        train(make_recipe(), tmp_path / "run", device="cpu", loggers=["tensorbord"])  # type: ignore[list-item]
    monkeypatch.setitem(sys.modules, "rtsx.training.engine", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rtsx\[train\]'"):
        train(make_recipe(), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
