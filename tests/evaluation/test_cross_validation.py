"""Folds are run once each, wherever they run, and what they found is kept."""

import json
import os
import zlib
from dataclasses import replace

import cloudpickle
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

import rtsx
from rtsx.cube import geobox_of
from rtsx.errors import EvaluationError, MissingExtraError, OutputExistsError, TrainingError
from rtsx.evaluation import CrossValidation, EvaluationScene, cross_validate, cross_validation, transfer_matrix
from rtsx.evaluation.cases import EvaluationSettings
from rtsx.evaluation.cross_validation import FoldJob, run_folds
from rtsx.evaluation.folds import ALL_OTHERS, Fold, FoldPlan, overlap_of, planned_units, transfer_plan
from rtsx.labels import rasterize_labels
from tests.evaluation.trainers import WritingTrainer, brightness_bundle
from tests.training.little import make_recipe, make_scene

RULE = EvaluationSettings(threshold=None, object_iou=0.5, boundary=2, min_object_area_m2=0.0, bootstrap=20, seed=0)


def moved(scene, number):
    """The scene on ground of its own."""
    cube = scene.cube.assign_coords(x=scene.cube.x + 10_000 * number)
    return replace(scene, cube=cube)


def scenes(**groups):
    names = [(group, number) for group, count in groups.items() for number in range(count)]
    return tuple(
        moved(make_scene(f"{group}{number}", seed=place, size=48, group=group), place)
        for place, (group, number) in enumerate(names)
    )


@pytest.fixture
def recipe():
    return make_recipe(training=scenes(lena=2, banks=2, yukon=1), validation=(), test=())


def run(plan, recipe, out, trainer, *, merge=False, **keywords):
    units = planned_units([overlap_of(scene) for scene in recipe.training], merge=merge)
    made = plan(units)
    keywords = {"rule": RULE, "seeds": None, "device": "cpu", "client": None, "plot": False} | keywords
    return run_folds(made, recipe, out, units=units, trainer=trainer, **keywords)


def leave_one_out(units):
    return FoldPlan.leave_one_out(units, validation=0.3, seed=1)


def transfer(units):
    return transfer_plan(units, held_out=0.5, validation=0.0, seed=1)


@pytest.mark.slow
def test_each_region_is_tested_by_what_the_others_taught(recipe, tmp_path):
    trainer = WritingTrainer(tmp_path)
    result = run(leave_one_out, recipe, tmp_path / "out", trainer)
    assert [r.fold.name for r in result.results] == ["lena", "banks", "yukon"]
    by_id = {line.split("|")[0]: line.split("|")[2:] for line in trainer.calls()}
    assert set(by_id) == {"little-lena-0", "little-banks-0", "little-yukon-0"}
    for name, (training, validation, test) in by_id.items():
        assert name.split("-")[1] not in training + validation
        assert validation
        assert test == ""
    # Whoever trains the stub, its scores are those of evaluating all scenes at once.
    scenes = [
        EvaluationScene(
            name=s.name,
            region=s.group,
            prediction=rtsx.predict_cube(s.cube, brightness_bundle(), tile="bundle", overlap="bundle"),
            truth=s.truth,
        )
        for s in recipe.training
    ]
    whole = rtsx.evaluate(scenes, boundary=2, bootstrap=20)
    table = result.table.set_index("region")
    assert table.index.tolist() == ["lena", "banks", "yukon", "all"]
    assert table["iou"].iloc[:3].tolist() == whole.regions["iou"].tolist()
    assert table.loc["all", "iou"] == whole.pooled["iou"].iloc[0]
    assert table.loc["all", "iou"] > 0.2
    assert result.matrix().to_numpy().tolist() == [whole.regions["iou"].tolist()]
    assert "yukon" in str(result)
    assert "objects: IoU >= 0.5, all sizes" in str(result)


def test_finished_folds_are_read_and_not_repeated(recipe, tmp_path):
    failing, trainer = WritingTrainer(tmp_path, fails_on="yukon"), WritingTrainer(tmp_path)
    with pytest.raises(EvaluationError, match=r"Fold 'yukon' with seed 0 failed: The loss is NaN"):
        run(leave_one_out, recipe, tmp_path / "out", failing)
    before = set(trainer.calls())
    result = run(leave_one_out, recipe, tmp_path / "out", trainer)
    assert len(trainer.calls()) == len(set(trainer.calls())) == 3
    assert before < set(trainer.calls())
    again = run(leave_one_out, recipe, tmp_path / "out", failing)
    assert again.to_json() == result.to_json()
    assert CrossValidation.from_json((tmp_path / "out" / "result.json").read_text()).table.equals(result.table)


def test_the_folder_belongs_to_one_recipe_and_plan(recipe, tmp_path):
    trainer = WritingTrainer(tmp_path)
    run(leave_one_out, recipe, tmp_path / "out", trainer)
    with pytest.raises(OutputExistsError, match=r"holds another cross-validation: recipe\.epochs: 2 there, 3 here"):
        run(leave_one_out, replace(recipe, epochs=3), tmp_path / "out", trainer)
    with pytest.raises(OutputExistsError, match=r"another cross-validation: plan\.folds"):
        run(transfer, recipe, tmp_path / "out", trainer)
    with pytest.raises(OutputExistsError, match=r"rule\.object_iou: 0\.5 there, 0\.3 here"):
        run(leave_one_out, recipe, tmp_path / "out", trainer, rule=replace(RULE, object_iou=0.3))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(OutputExistsError, match="is no folder of a cross-validation"):
        run(leave_one_out, recipe, tmp_path / "other", trainer)


def test_a_call_that_was_killed_while_it_wrote_its_plan_is_made_again(recipe, tmp_path):
    host = f"{zlib.crc32(os.uname().nodename.encode()):08x}"
    left = tmp_path / "out" / ".plan.json.partial" / f"{host}-0123"
    left.mkdir(parents=True)
    (left / "draft.json").write_text('{"pl')
    result = run(leave_one_out, recipe, tmp_path / "out", WritingTrainer(tmp_path))
    assert len(result.results) == 3
    assert not left.exists()


@pytest.mark.parametrize("stopped_by", [KeyboardInterrupt, TrainingError])
def test_folds_of_which_none_took_a_step_claim_no_folder(recipe, tmp_path, stopped_by):
    def trainer(fold, folder):
        if stopped_by is TrainingError:
            folder.mkdir()
            (folder / "failed-batch.npz").write_bytes(b"a batch whose loss is NaN")
        raise stopped_by

    out = tmp_path / "new" / "out"
    with pytest.raises((KeyboardInterrupt, EvaluationError)):
        run(leave_one_out, recipe, out, trainer)
    left = {path.name for path in tmp_path.rglob("*") if not path.is_dir()}
    assert left == (set() if stopped_by is KeyboardInterrupt else {"failed-batch.npz"})
    assert out.exists() == bool(left)
    # Nor is it the folder of that recipe: the cure is most often another.
    run(leave_one_out, replace(recipe, epochs=recipe.epochs + 1), out, WritingTrainer(tmp_path))


def test_a_second_call_at_the_same_time_is_refused_and_takes_nothing_from_the_first(recipe, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise EvaluationError("stopped")

    def interrupted(jobs, **named):
        monkeypatch.setattr(cross_validation, "run_jobs", stopped)
        with pytest.raises(OutputExistsError, match="by another process"):
            run(leave_one_out, recipe, tmp_path / "out", WritingTrainer(tmp_path))
        monkeypatch.undo()
        assert (tmp_path / "out" / "plan.json").is_file()
        return cross_validation.run_jobs(jobs, **named)

    monkeypatch.setattr(cross_validation, "run_jobs", interrupted)
    assert len(run(leave_one_out, recipe, tmp_path / "out", WritingTrainer(tmp_path)).results) == 3


def test_several_seeds_are_means_with_their_spread(recipe, tmp_path):
    trainer = WritingTrainer(tmp_path)
    result = run(leave_one_out, recipe, tmp_path / "out", trainer, seeds=(3, 4))
    assert [(r.fold.name, r.seed) for r in result.results][:2] == [("lena", 3), ("lena", 4)]
    assert (result.table["seeds"] == 2).all()
    # The stub learns nothing, so that seeds do not differ.
    assert (result.table["iou_std"] == 0).all()
    one = run(leave_one_out, recipe, tmp_path / "one", trainer)
    assert result.table["iou"].tolist() == one.table["iou"].tolist()
    assert one.table["iou_std"].isna().all()
    with pytest.raises(EvaluationError, match="Nothing was trained on 'lena' with seed 3"):
        result.evaluation("lena", seed=3)
    with pytest.raises(EvaluationError, match="seeds is empty"):
        run(leave_one_out, recipe, tmp_path / "none", trainer, seeds=())


def test_the_transfer_matrix_has_a_row_for_each_way_of_training(recipe, tmp_path):
    result = run(transfer, recipe, tmp_path / "out", WritingTrainer(tmp_path), plot=True)
    matrix = result.matrix("iou")
    assert matrix.index.tolist() == ["lena", "banks", "yukon", ALL_OTHERS, "pooled"]
    assert matrix.columns.tolist() == ["lena", "banks", "yukon"]
    # A group of one scene cannot be learnt from and tested at once.
    missing = matrix.isna()
    assert missing.loc["yukon", "yukon"]
    assert missing.loc["pooled", "yukon"]
    assert missing.to_numpy().sum() == 2
    # The stub is the same in every row, and all rows are tested on the same ground.
    assert all(len(set(matrix[column].dropna())) == 1 for column in matrix)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "folds", "matrix.csv", "matrix.png", "plan.json", "regions.png", "result.json", "table.csv"
    }  # fmt: skip
    written = pd.read_csv(tmp_path / "out" / "matrix.csv", index_col=0)
    np.testing.assert_allclose(written.to_numpy(), matrix.to_numpy())
    assert (tmp_path / "out" / "matrix.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(EvaluationError, match="not 'jaccard'"):
        result.matrix("jaccard")
    with pytest.raises(EvaluationError, match="The classes target were evaluated, not 'pond'"):
        result.matrix(class_name="pond")


def test_folds_run_on_the_workers_of_a_client(recipe, tmp_path):
    from distributed import Client

    trainer = WritingTrainer(tmp_path)
    here = run(leave_one_out, recipe, tmp_path / "here", trainer)
    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0") as client:
        there = run(leave_one_out, recipe, tmp_path / "there", trainer, client=client)
    assert there.to_json() == here.to_json()


def test_a_fold_that_fails_on_a_cluster_waits_for_those_that_run(recipe, tmp_path):
    from distributed import Client

    out = tmp_path / "out"

    def trainer(fold, folder):
        if "lena" in fold.id:
            raise TrainingError("The loss is NaN.")
        folder.mkdir(parents=True)
        (folder / "step").touch()
        return brightness_bundle()

    with Client(processes=False, n_workers=3, threads_per_worker=1, dashboard_address=":0") as client:
        with pytest.raises(EvaluationError, match="Fold 'lena'"):
            run(leave_one_out, recipe, out, trainer, client=client)
        assert len(list(out.rglob("step"))) == 2
        run(leave_one_out, recipe, out, WritingTrainer(tmp_path), client=client)


def test_what_cannot_work_is_refused_before_anything_is_trained(recipe, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with pytest.raises(EvaluationError, match="make 2 to 3 folds; with folds=7 one would be empty"):
        cross_validate(recipe, out, folds=7)
    alone = replace(recipe, training=scenes(lena=3))
    for door in (cross_validate, transfer_matrix):
        with pytest.raises(EvaluationError, match="all scenes are of group 'lena'"):
            door(alone, out)
        with pytest.raises(EvaluationError, match="overlapping is 'refuse' or 'merge', not 'drop'"):
            door(recipe, out, overlapping="drop")
    with pytest.raises(EvaluationError, match="Folds are made by 'group', not by 'scene'"):
        cross_validate(recipe, out, by="scene")
    one, two = scenes(lena=1, banks=1)
    same = replace(recipe, training=(one, replace(two, cube=one.cube)))
    with pytest.raises(EvaluationError, match="show the same ground: what is learnt from one would be tested"):
        cross_validate(same, out)
    patient = replace(recipe, training=scenes(lena=1, banks=1), patience=2)
    with pytest.raises(EvaluationError, match="Fold 'lena' cannot be trained: patience waits for a better validation"):
        cross_validate(patient, out)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rtsx\[view\]', or leave them out with plot=False"):
        cross_validate(recipe, out)
    assert not out.exists()


@pytest.mark.slow
def test_a_real_training_is_cross_validated(tmp_path):
    """Two steps an epoch, so that it is quick; stopped before it is evaluated, a training is not repeated."""
    recipe = make_recipe(training=scenes(lena=1, banks=2), validation=(), test=(), epochs=1)
    result = cross_validate(recipe, tmp_path / "out", device="cpu", plot=False, bootstrap=0)
    assert result.table["region"].tolist() == ["lena", "banks", "all"]
    bundles = [rtsx.ModelBundle.open(tmp_path / "out" / r.bundle) for r in result.results]
    assert [bundle.id for bundle in bundles] == ["little-lena-0", "little-banks-0"]
    log = tmp_path / "out" / "folds" / "01-lena" / "seed-0" / "run" / "log.csv"
    before = log.stat().st_mtime_ns
    (log.parent.parent / "evaluation.json").unlink()
    again = cross_validate(recipe, tmp_path / "out", device="cpu", plot=False, bootstrap=0)
    assert again.to_json() == result.to_json()
    assert log.stat().st_mtime_ns == before
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["plan"]["folds"][0]["test"] == ["lena0"]


def test_merged_groups_are_one_region(tmp_path):
    one, two, three = scenes(lena=1, banks=1, yukon=1)
    recipe = make_recipe(training=(one, replace(two, cube=one.cube), three), validation=(), test=())
    result = run(leave_one_out, recipe, tmp_path / "out", WritingTrainer(tmp_path), merge=True)
    assert result.table["region"].tolist() == ["lena+banks", "yukon", "all"]


def test_a_job_travels_to_a_worker(recipe, tmp_path):
    """Scenes whose truth is outlines and whose cube is lazy go along, and nothing is computed on the way."""
    scene = recipe.training[0]
    outline = gpd.GeoDataFrame({"class_name": ["target"], "geometry": [shapely.box(0, 0, 60, 60)]}, crs="EPSG:3413")
    truth = rasterize_labels(outline, geobox_of(scene.cube), classes=["target"])
    fold = Fold(name="one", trained_on=ALL_OTHERS, training=(scene.name,), validation=(), test=(scene.name,))
    lazy = replace(scene, truth=truth, cube=scene.cube.chunk(y=16, x=16))
    job = FoldJob(
        fold=fold, seed=0, recipe=recipe, scenes={scene.name: lazy}, rule=RULE, trainer=WritingTrainer(tmp_path),
        device="cpu", folder=tmp_path,
    )  # fmt: skip
    assert cloudpickle.loads(cloudpickle.dumps(job))() == job()
