from pathlib import Path

from rtsx.training import LogRow
from rtsx.training.run_log import write_log
from tests.training.little import read_log

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
