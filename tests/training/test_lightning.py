import logging
import os
from pathlib import Path

import pytest

from rtsx.training import Progress, train
from rtsx.training.log import read_log
from tests.training.little import make_recipe, make_scene


@pytest.mark.skipif(
    "RTSX_TEST_DEVICES" not in os.environ,
    reason="new processes import everything again; set RTSX_TEST_DEVICES=1 to run it",
)
def test_two_processes_share_each_batch(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    moments: list[Progress] = []
    environment = dict(os.environ)
    recipe = make_recipe(steps_per_epoch=2, epochs=1, test=(), validation=(make_scene("three", seed=3, size=70),))
    run = train(recipe, tmp_path / "two", device="cpu", devices=2, progress=moments.append)
    assert [moment.step for moment in moments] == [1, 2, 2]
    assert read_log(tmp_path / "two" / "log.csv")[0].step == 2
    # Every valid pixel of the validation was counted by one process or the other, once.
    assert run.validation is not None
    assert moments[-1].row is not None
    alone = train(recipe, tmp_path / "one", device="cpu")
    assert alone.validation is not None
    assert run.validation.hits + run.validation.misses == alone.validation.hits + alone.validation.misses
    assert {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"} == {
        name: value for name, value in environment.items() if name != "PYTEST_CURRENT_TEST"
    }
    assert capfd.readouterr().out == ""


def test_lightning_may_speak_again_afterwards(tmp_path: Path) -> None:
    logger = logging.getLogger("lightning.fabric")
    before = logger.level
    train(make_recipe(steps_per_epoch=1, epochs=1, test=(), validation=()), tmp_path, device="cpu")
    assert logger.level == before
