import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from rtsx.errors import TrainingError
from rtsx.model import InputLayer
from rtsx.training import LossTerm, Progress, train
from tests.training.little import make_recipe, make_scene, read_log

slow = pytest.mark.skipif(
    "RTSX_TEST_DEVICES" not in os.environ,
    reason="new processes import everything again; set RTSX_TEST_DEVICES=1 to run it",
)


@slow
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
    # The second is set by Lightning as soon as it is imported.
    others = {"PYTEST_CURRENT_TEST", "PYTORCH_NVML_BASED_CUDA_CHECK"}
    assert {name: value for name, value in os.environ.items() if name not in others} == {
        name: value for name, value in environment.items() if name not in others
    }
    assert capfd.readouterr().out == ""


@slow
@pytest.mark.filterwarnings("ignore::rtsx.errors.LayerValuesWarning")
def test_what_one_process_raises_is_raised_here(tmp_path: Path) -> None:
    scene = make_scene("one", seed=1)
    extreme = scene.cube.assign({name: scene.cube[name].astype("float32") * 0 + 3e38 for name in ("red", "nir")})
    inputs = InputLayer(name="red", scale=1e30), InputLayer(name="nir")
    recipe = make_recipe(
        training=(replace(scene, cube=extreme),),
        validation=(),
        test=(),
        inputs=inputs,
        losses=(LossTerm(name="FocalLoss"),),
    )
    with pytest.raises(TrainingError, match=r"^The loss is nan in epoch 1, step 1"):
        train(recipe, tmp_path, device="cpu", devices=2)
    with np.load(tmp_path / "failed-batch.npz") as kept:
        assert len(kept["stored"]) == len(kept["starts"]) == recipe.batch_size // 2
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.is_file()) == [".npz"]


@slow
def test_a_progress_that_fails_stops_all_processes(tmp_path: Path) -> None:
    def stop(moment: Progress) -> None:
        raise KeyError("enough")

    recipe = make_recipe(epochs=500, steps_per_epoch=1, validation=(), test=())
    with pytest.raises(KeyError, match="enough"):
        train(recipe, tmp_path, device="cpu", devices=2, progress=stop)
    log = tmp_path / "log.csv"
    assert not log.exists() or len(read_log(log)) < recipe.epochs


def test_lightning_may_speak_again_afterwards(tmp_path: Path) -> None:
    pytest.importorskip("lightning.fabric")  # sets its level when it is loaded, which may be only now
    logger = logging.getLogger("lightning.fabric")
    before = logger.level
    train(make_recipe(steps_per_epoch=1, epochs=1, test=(), validation=()), tmp_path, device="cpu")
    assert logger.level == before


def test_processes_that_train_together_are_reached_from_this_machine_only(tmp_path: Path) -> None:
    pytest.importorskip("lightning.fabric")
    import torch
    from lightning.fabric.accelerators.cpu import CPUAccelerator
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment

    from rtsx.training.engine import _LocalDDP, _same_environment

    strategy = _LocalDDP(str(tmp_path / "meeting"))
    strategy.cluster_environment = LightningEnvironment()
    strategy.accelerator, strategy.parallel_devices = CPUAccelerator(), [torch.device("cpu")]
    before = listening()
    with _same_environment():
        strategy.setup_environment()
        try:
            assert {ip for ip, _ in listening() - before} == {"127.0.0.1"}
        finally:
            torch.distributed.destroy_process_group()


def listening() -> set[tuple[str, int]]:
    return {tuple(one.laddr) for one in psutil.Process().net_connections() if one.status == psutil.CONN_LISTEN}
