""""""

import os
import random as python_random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rtsx
from rtsx.errors import OutputExistsError, TrainingError
from rtsx.model import InputLayer, ModelBundle
from rtsx.model.metadata import QUANTILES
from rtsx.training import (
    AugmentationSpec,
    LossTerm,
    NetworkSpec,
    OptimisationSpec,
    Progress,
    TrainedRun,
    TrainingRecipe,
    read_run,
    train,
)
from rtsx.training.dataset import TileReader
from rtsx.training.run import (
    MEASURED_TILES,
    git_revision,
    library_versions,
    machine,
    measured_distributions,
    measured_inputs,
    measured_tiles,
)
from rtsx.training.scene_arrays import every_layer
from rtsx.training.tile_index import index_tiles
from tests.training.little import ENCODER, NETWORK, make_recipe, make_scene, read_log


class Stopped(Exception):
    """What a user's interruption stands for."""


def stop_at(step: int) -> Callable[[Progress], None]:
    def show(moment: Progress) -> None:
        if moment.step == step and moment.row is None:
            raise Stopped

    return show


def make_lively_recipe() -> TrainingRecipe:
    """Everything that has a state or is random: averages, a schedule, dropout, augmentation, jitter, measured scaling."""
    return make_recipe(
        inputs=None,
        test=(make_scene("four", seed=4, size=128),),
        epochs=3,
        augmentations=(
            AugmentationSpec(name="HorizontalFlip"),
            AugmentationSpec(name="Rotate", probability=1.0),
            AugmentationSpec(name="MultiplicativeNoise", probability=1.0),
        ),
        network=NetworkSpec(
            architecture="FPN",
            encoder=ENCODER,
            options={"decoder_pyramid_channels": 16, "decoder_segmentation_channels": 32, "decoder_dropout": 0.5},
        ),
        tile=64,
        overlap=32,
        optimisation=OptimisationSpec(learning_rate=3e-3, warmup=0.3, ema=0.9, gradient_clip=1.0),
    )


DEATHS = {"step": python_random.Random(0).randint(1, 6), "writing": 3}
"""Steps that are done, and files that are written, when a training is killed."""


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A training that nobody stopped; beside it is what was on disk when it could have been killed."""
    folder, written = tmp_path_factory.mktemp("runs"), 0

    def keep(place: str, count: int) -> None:
        if count == DEATHS[place] and not (folder / place).exists():
            shutil.copytree(folder / "whole", folder / place)

    def synced(_: int) -> None:
        nonlocal written
        keep("writing", written)
        written += 1

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", synced)
        return train(
            make_lively_recipe(), folder / "whole", device="cpu", progress=lambda moment: keep("step", moment.step)
        )


def same_run(one: TrainedRun, other: TrainedRun) -> bool:
    logs = [(run.folder / "log.csv").read_bytes() for run in (one, other)]
    return (one.bundle.digest, one.validation, one.test, one.best_epoch, logs[0]) == (
        other.bundle.digest,
        other.validation,
        other.test,
        other.best_epoch,
        logs[1],
    )


def test_one_seed_gives_one_bundle(lively: TrainedRun, tmp_path: Path) -> None:
    assert same_run(train(make_lively_recipe(), tmp_path / "again", device="cpu"), lively)


@pytest.mark.parametrize("step", [1, 4])
def test_a_training_that_was_stopped_equals_one_that_was_not(lively: TrainedRun, tmp_path: Path, step: int) -> None:
    with pytest.raises(Stopped):
        train(make_lively_recipe(), tmp_path / "run", device="cpu", progress=stop_at(step))
    torch.rand(3)  # numbers of the caller must not matter
    assert same_run(train(make_lively_recipe(), tmp_path / "run", device="cpu"), lively)


@pytest.mark.parametrize("place", DEATHS)
def test_a_killed_training_equals_one_that_was_not(lively: TrainedRun, place: str) -> None:
    killed = lively.folder.with_name(place)
    assert not (killed / "result.json").exists()
    assert same_run(train(make_lively_recipe(), killed, device="cpu"), lively)


def test_a_stop_while_finishing_costs_no_epoch(
    lively: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr("rtsx.training.run.write_training_report", fail)
        with pytest.raises(Stopped):
            train(make_lively_recipe(), tmp_path / "run", device="cpu")
    moments: list[Progress] = []
    assert same_run(train(make_lively_recipe(), tmp_path / "run", device="cpu", progress=moments.append), lively)
    assert moments == []


def test_what_a_run_leaves(lively: TrainedRun) -> None:
    held = {path.name for path in lively.folder.iterdir()}
    assert held == {"bundle", "checkpoints", "log.csv", "recipe.json", "report.html", "result.json"}
    opened = ModelBundle.open(lively.folder / "bundle")
    assert opened == lively.bundle
    assert opened.digest == lively.bundle.digest
    assert read_run(lively.folder) == lively
    assert lively.epochs == 3
    rows = read_log(lively.folder / "log.csv")
    assert [(row.epoch, row.step) for row in rows] == [(1, 2), (2, 4), (3, 6)]
    best = max(rows, key=lambda row: (row.iou or 0, -row.epoch))
    assert best.epoch == lively.best_epoch
    assert all(row.average_precision is not None for row in rows)


def test_the_bundle_says_all_that_inference_needs(lively: TrainedRun) -> None:
    bundle = lively.bundle
    assert (bundle.id, bundle.classes, bundle.activation) == ("little", ("target",), "sigmoid")
    assert (bundle.tile, bundle.overlap, bundle.stride, bundle.fill) == (64, 32, 32, 0.0)
    assert bundle.layers == ("red", "nir")
    assert bundle.pixel_m == pytest.approx(3, rel=0.1)
    assert bundle.temperature != 1
    assert 0 < bundle.threshold < 1
    said = bundle.provenance
    assert said is not None
    assert said["recipe"]["seed"] == 0  # type: ignore[index]
    assert {"torch", "rtsx", "lightning"} <= set(said["versions"])  # type: ignore[call-overload]
    assert {"recipe_digest", "git_revision", "machine", "best_epoch"} <= set(said)
    assert set(said["layer_distributions"]) == {"red", "nir"}  # type: ignore[call-overload]


def test_the_scores_are_those_of_the_map_that_the_bundle_makes(lively: TrainedRun) -> None:
    scene = make_lively_recipe().test[0]
    bundle = lively.bundle
    # As it is validated: tile beside tile.
    pred = rtsx.predict_cube(
        scene.cube, bundle, tile="bundle", overlap=0, trim=0, device="cpu", dtype="float32", backend="eager"
    )
    found = (pred["probability"].values >= bundle.threshold) & pred["valid"].values
    true = (scene.truth.read((slice(0, 128), slice(0, 128))) == 1) & pred["valid"].values
    scores = lively.test["four"]
    assert scores.hits + scores.misses == true.sum()
    # Nearly, because scores count probabilities in steps of 1/10000 and a map does not.
    assert scores.hits == pytest.approx((found & true).sum(), rel=2e-3)
    assert scores.false_alarms == pytest.approx((found & ~true).sum(), rel=2e-3)


def test_a_finished_run_is_kept(lively: TrainedRun) -> None:
    with pytest.raises(OutputExistsError, match="holds a finished training"):
        train(make_lively_recipe(), lively.folder, device="cpu")


def test_a_run_of_another_recipe_is_refused_and_overwritten_on_request(tmp_path: Path) -> None:
    recipe = make_recipe(epochs=2, steps_per_epoch=1)
    with pytest.raises(Stopped):
        train(recipe, tmp_path, device="cpu", progress=stop_at(2))
    other = replace(recipe, seed=4)
    with pytest.raises(TrainingError, match=r"another recipe: seed: 0 there, 4 here"):
        train(other, tmp_path, device="cpu")
    assert train(other, tmp_path, device="cpu", overwrite=True).epochs == 2


def test_without_validation_the_last_epoch_is_kept(tmp_path: Path) -> None:
    run = train(make_recipe(validation=(), test=()), tmp_path, device="cpu")
    assert (run.best_epoch, run.validation, run.test) == (2, None, {})
    assert (run.bundle.threshold, run.bundle.temperature) == (0.5, 1.0)
    assert all(row.iou is None for row in read_log(tmp_path / "log.csv"))
    page = (tmp_path / "report.html").read_text()
    assert "the last, because nothing validates" in page
    assert read_run(tmp_path) == run


def test_several_classes_are_learnt_with_their_background(tmp_path: Path) -> None:
    classes = ("slump", "lake")
    scenes = [make_scene(name, seed=n, classes=classes) for n, name in enumerate(("one", "three", "four"))]
    recipe = make_recipe(
        classes=classes, training=(scenes[0],), validation=(scenes[1],), test=(scenes[2],), epochs=1, steps_per_epoch=3
    )
    run = train(recipe, tmp_path, device="cpu")
    assert run.bundle.classes == ("background", "slump", "lake")
    assert (run.bundle.activation, run.bundle.threshold) == ("softmax", 0.5)
    assert run.bundle.temperature != 1
    pred = rtsx.predict_cube(scenes[2].cube, run.bundle, tile="bundle", device="cpu")
    assert pred["probability"].dims == ("class", "y", "x")
    assert (tmp_path / "report.html").read_text().count("<td>lake</td>") == 2


def test_patience_ends_a_training_that_does_not_get_better(tmp_path: Path) -> None:
    recipe = make_recipe(
        epochs=9, patience=2, steps_per_epoch=1, optimisation=OptimisationSpec(learning_rate=1e-12, schedule="constant")
    )
    run = train(recipe, tmp_path, device="cpu")
    assert run.epochs < 9
    assert run.epochs - run.best_epoch == 2


@pytest.mark.filterwarnings("ignore::rtsx.errors.LayerValuesWarning")
def test_a_loss_that_is_no_number_keeps_its_batch(tmp_path: Path) -> None:
    scene = make_scene("one")
    scene.cube["red"] = scene.cube["red"].astype(np.float32)
    scene.cube["red"].values[40:] = 3e38  # finite where it is stored, and not in the network
    recipe = make_recipe(
        training=(scene,),
        inputs=(InputLayer(name="red", scale=1e30), InputLayer(name="nir")),
        losses=(LossTerm(name="FocalLoss"),),
    )
    with pytest.raises(
        TrainingError, match=r"The loss is nan in epoch 1, step 1, on tiles of one at \(\d+, \d+\), .*failed-batch"
    ):
        train(recipe, tmp_path, device="cpu")
    with np.load(tmp_path / "failed-batch.npz") as kept:
        assert kept["stored"].shape == (4, 2, 32, 32)
        assert (kept["truth"].shape, kept["starts"].shape) == ((4, 32, 32), (4, 2))
        assert list(kept["scenes"]) == ["one"] * 4
        assert (int(kept["epoch"]), int(kept["step"])) == (1, 1)
        assert not np.isfinite(kept["loss"])


def test_the_settings_of_the_caller_stay(tmp_path: Path) -> None:
    def settings() -> tuple[object, ...]:
        return (
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.benchmark,
            torch.get_default_dtype(),
            torch.random.get_rng_state().tolist(),
            np.random.mtrand._rand.get_state()[1].tolist(),  # type: ignore[attr-defined]
            python_random.getstate(),
            {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        )

    before = settings()
    train(make_recipe(epochs=1, steps_per_epoch=1, test=()), tmp_path, device="cpu")
    assert settings() == before


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(make_recipe(epochs=1, steps_per_epoch=1, test=()), tmp_path, device="cpu")
    assert capfd.readouterr() == ("", "")


def test_bfloat16_and_every_optimiser_train(tmp_path: Path) -> None:
    for name, precision in (("SGD", "bfloat16"), ("Adam", "float32")):
        optimisation = OptimisationSpec(optimiser=name, precision=precision, learning_rate=1e-3)
        recipe = make_recipe(optimisation=optimisation, epochs=1, steps_per_epoch=1, validation=(), test=())
        assert train(recipe, tmp_path / name, device="cpu").epochs == 1


def test_epochs_show_each_positive_tile_by_default(tmp_path: Path) -> None:
    moments: list[Progress] = []
    recipe = make_recipe(steps_per_epoch=None, epochs=1, validation=(), test=())
    train(recipe, tmp_path, device="cpu", progress=moments.append)
    from rtsx.training.tile_index import index_tiles

    index = index_tiles(recipe.training, inputs=recipe.inputs, tile=32, min_valid=recipe.sampling.min_valid)
    n_tiles = index.n_positive + min(index.n_positive, index.n_positive)
    assert moments[-1].step == moments[-1].steps == n_tiles // 4


def test_scenes_that_cannot_be_scored_are_named(tmp_path: Path) -> None:
    from rtsx.labels import StubLabelRaster

    empty = replace(make_scene("three"), truth=StubLabelRaster(np.zeros((96, 96), np.uint8)))
    with pytest.raises(
        TrainingError, match=r"The validation scenes cannot be scored.*no label lies within them.*three"
    ):
        train(make_recipe(validation=(empty,)), tmp_path, device="cpu")


def test_an_unfinished_and_a_missing_run_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no training"):
        read_run(tmp_path)
    with pytest.raises(Stopped):
        train(make_recipe(epochs=2, steps_per_epoch=1), tmp_path, device="cpu", progress=stop_at(2))
    with pytest.raises(TrainingError, match=r"is not finished\. Call train"):
        read_run(tmp_path)


def test_a_network_of_convolutions_learns_from_one_tile(tmp_path: Path) -> None:
    assert (
        train(make_recipe(network=NETWORK, batch_size=1, epochs=1, tile=64, test=()), tmp_path, device="cpu").epochs
        == 1
    )


def test_versions_are_those_that_run() -> None:
    found = library_versions()
    assert found["rtsx"] == rtsx.__version__
    assert found["torch"] == str(torch.__version__).split("+")[0] or found["torch"] == str(torch.__version__)
    assert {"python", "numpy", "segmentation-models-pytorch"} <= set(found)


def test_a_revision_says_whether_files_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_revision(tmp_path) is None
    person = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("one")
    for command in (["init", "-q"], ["add", "file"], [*person, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    clean = git_revision(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "file").write_text("two")
    assert git_revision(tmp_path) == f"{clean}+changes"


def test_the_machine_is_described() -> None:
    said = machine(torch.device("cpu"), devices=2)
    assert (said["device"], said["devices"], said["threads"]) == ("cpu", 2, torch.get_num_threads())


def measure(scenes, *, tile=32):  # type: ignore[no-untyped-def]
    inputs = every_layer(scenes[0])
    index = index_tiles(scenes, inputs=inputs, tile=tile, min_valid=0.05)
    reader = TileReader(scenes, inputs=inputs, tile=tile, cache_bytes=0)
    return measured_inputs(reader, measured_tiles(index), names=["red", "nir"])


def test_mean_and_deviation_are_those_of_the_valid_pixels() -> None:
    scene = make_scene(size=64)
    valid = (scene.cube["red"] != 0).values & (scene.cube["nir"] != 0).values
    layers = measure([scene], tile=64)
    for layer in layers:
        physical = scene.cube[layer.name].values[valid].astype(np.float64) * 1e-4
        assert 1 / layer.scale == pytest.approx(physical.std(), rel=1e-6)
        assert -layer.offset / layer.scale == pytest.approx(physical.mean(), rel=1e-6)


def test_distributions_are_those_of_the_valid_pixels() -> None:
    scene = make_scene(size=64)
    inputs = every_layer(scene)
    tiles = measured_tiles(index_tiles([scene], inputs=inputs, tile=64, min_valid=0.05))
    found = measured_distributions(TileReader([scene], inputs=inputs, tile=64, cache_bytes=0), tiles)
    valid = (scene.cube["red"] != 0).values & (scene.cube["nir"] != 0).values
    physical = scene.cube["nir"].values[valid].astype(np.float64) * 1e-4
    assert found["nir"].mean == pytest.approx(physical.mean(), rel=1e-6)
    assert found["nir"].quantiles == pytest.approx(np.quantile(physical, QUANTILES), rel=1e-6)


def test_what_hides_under_invalid_pixels_changes_nothing() -> None:
    scene = make_scene(size=64)
    before = measure([scene])
    hidden = (scene.cube["red"] == 0).values
    scene.cube["nir"].values[hidden] = 60_000
    assert measure([scene]) == before


def test_a_layer_with_one_value_is_refused() -> None:
    scene = make_scene(size=64)
    scene.cube["red"].values[:] = 700
    with pytest.raises(TrainingError, match=r"Layers \['red'\] have one value.*Leave them out, or say inputs="):
        measure([scene])


def test_large_regions_are_measured_on_some_tiles() -> None:
    scenes = [make_scene(name, size=200) for name in ("one", "two")]
    index = index_tiles(scenes, inputs=None, tile=16, min_valid=0.05)
    tiles = measured_tiles(index)
    assert len(tiles) == len(set(tiles)) == MEASURED_TILES
    assert {tile.scene for tile in tiles} == {0, 1}
