"""Plans of folds: groups are never divided, and what cannot be planned is refused."""

import itertools
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr

from rtsx.cube import geobox_of
from rtsx.errors import EvaluationError
from rtsx.evaluation.folds import ALL_OTHERS, POOLED, FoldPlan, FoldUnit, overlap_of, planned_units, transfer_plan
from rtsx.labels import StubLabelRaster, rasterize_labels
from rtsx.training import TrainingScene


def units(**scenes):
    """Units of one scene each; a group's value says how many."""
    return [
        FoldUnit(group=group, scenes=(f"{group}{number}",), positives=5)
        for group, count in scenes.items()
        for number in range(count)
    ]


def group_of(scene):
    return scene.rstrip("0123456789")


@pytest.mark.parametrize("seed", range(5))
def test_each_scene_is_tested_once_by_models_that_never_saw_its_group(seed):
    random = np.random.default_rng(seed)
    sizes = {name: int(random.integers(1, 6)) for name in "abcde"}
    some = units(**sizes)
    plans = [FoldPlan.leave_one_out(some, validation=0.25, seed=seed)]
    plans += [FoldPlan.k_fold(some, folds=k, validation=0.25, seed=seed) for k in range(2, 6)]
    for plan in plans:
        tested = [scene for fold in plan.folds for scene in fold.test]
        assert sorted(tested) == sorted(scene for unit in some for scene in unit.scenes)
        for fold in plan.folds:
            assert fold.trained_on == ALL_OTHERS
            learnt = {*fold.training, *fold.validation}
            assert not {group_of(s) for s in learnt} & {group_of(s) for s in fold.test}
            assert not {*fold.training} & {*fold.validation}
            assert len(learnt) + len(fold.test) == len(tested)
            assert fold.training
            assert 1 <= len(fold.validation) <= max(1, 0.25 * len(learnt))


def test_folds_are_about_as_large():
    plan = FoldPlan.k_fold(units(a=6, b=1, c=1, d=1, e=1, f=2), folds=2, validation=0.0, seed=3)
    assert sorted(len(fold.test) for fold in plan.folds) == [6, 6]
    assert [fold.name for fold in plan.folds] == ["fold 1", "fold 2"]


def test_plans_are_seeded():
    some = units(a=4, b=4, c=4, d=4)
    one, same, other = (FoldPlan.k_fold(some, folds=2, validation=0.5, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert FoldPlan.from_json(one.to_json()) == one


def test_scenes_of_a_unit_stay_together():
    some = [
        FoldUnit(group="a", scenes=("a0", "a1", "a2"), positives=5),
        FoldUnit(group="a", scenes=("a3",), positives=5),
        *units(b=1, c=3),
    ]
    for seed, share in itertools.product(range(10), (0.1, 0.5, 0.9)):
        for fold in FoldPlan.leave_one_out(some, validation=share, seed=seed).folds:
            for part in (fold.training, fold.validation, fold.test):
                assert len({"a0", "a1", "a2"} & {*part}) in (0, 3)
            assert fold.training


def test_validation_has_labels_and_leaves_some():
    some = [FoldUnit(group=g, scenes=(f"{g}{n}",), positives=int(n == 0)) for g in "abc" for n in range(4)]
    for seed in range(10):
        for fold in FoldPlan.leave_one_out(some, validation=0.4, seed=seed).folds:
            assert any(scene.endswith("0") for scene in fold.validation)
            assert any(scene.endswith("0") for scene in fold.training)
    two = FoldPlan.leave_one_out(units(a=1, b=1), validation=0.4, seed=0)
    assert [fold.validation for fold in two.folds] == [(), ()]


def test_the_rows_of_a_transfer_matrix_are_tested_on_the_same_ground():
    plan = transfer_plan(units(a=4, b=3, c=1), held_out=0.3, validation=0.3, seed=1)
    by_name = {fold.name: fold for fold in plan.folds}
    assert [fold.trained_on for fold in plan.folds] == ["a", "b", "c", *[ALL_OTHERS] * 3, POOLED]
    tests = {group: by_name[f"all but {group}"].test for group in "abc"}
    assert tests["c"] == ("c0",)
    assert by_name["a"].test == (*tests["a"], *tests["b"], *tests["c"])
    # It cannot be divided, so it is never tested by itself.
    assert by_name["c"].test == (*tests["a"], *tests["b"])
    assert by_name["pooled"].test == (*tests["a"], *tests["b"])
    for fold in plan.folds:
        assert not {*fold.training, *fold.validation} & {*fold.test}
        for group in "ab":
            assert not {*fold.training, *fold.validation} & {*tests[group]}
    assert {group_of(scene) for scene in by_name["a"].training + by_name["a"].validation} == {"a"}
    assert {group_of(scene) for scene in by_name["all but a"].training} <= {"b", "c"}


def test_without_anything_to_divide_nothing_is_pooled():
    plan = transfer_plan(units(a=1, b=1), held_out=0.3, validation=0.0, seed=1)
    assert [fold.name for fold in plan.folds] == ["a", "b", "all but a", "all but b"]
    assert [fold.test for fold in plan.folds] == [("b0",), ("a0",), ("a0",), ("b0",)]


def test_what_cannot_be_planned_is_refused():
    with pytest.raises(EvaluationError, match="all scenes are of group 'a': say which region"):
        FoldPlan.leave_one_out(units(a=3), validation=0.2, seed=0)
    for plan in (FoldPlan.leave_one_out, transfer_plan):
        for name in ("all", "pooled", "all others"):
            taken = [*units(a=2), FoldUnit(group=name, scenes=("b",), positives=5)]
            with pytest.raises(EvaluationError, match=f"'{name}' is a row or column of the results and no name of a"):
                plan(taken, validation=0.2, seed=0, **({"held_out": 0.5} if plan is transfer_plan else {}))
    with pytest.raises(EvaluationError, match="there is no scene"):
        FoldPlan.leave_one_out([], validation=0.2, seed=0)
    with pytest.raises(EvaluationError, match=r"make 2 to 3 folds; with folds=4 one would be empty"):
        FoldPlan.k_fold(units(a=1, b=1, c=1), folds=4, validation=0.2, seed=0)
    with pytest.raises(EvaluationError, match=r"with folds=1 nothing would be left to learn from"):
        FoldPlan.k_fold(units(a=1, b=1, c=1), folds=1, validation=0.2, seed=0)
    bare = [*units(a=1, c=1), FoldUnit(group="b", scenes=("b0",), positives=0)]
    with pytest.raises(EvaluationError, match="needs a labelled pixel to be tested by, and there is none in 'b'"):
        FoldPlan.leave_one_out(bare, validation=0.2, seed=0)
    with pytest.raises(EvaluationError, match=r"from 0 to below 1; got 1\.0"):
        FoldPlan.leave_one_out(units(a=1, b=1), validation=1.0, seed=0)
    with pytest.raises(EvaluationError, match="between 0 and 1; got 0"):
        transfer_plan(units(a=1, b=1), held_out=0, validation=0.2, seed=0)


def scene(name, *, x=500_000.0, y=7_800_000.0, group="a", crs="EPSG:32608", size=60, step=10.0, labels=()):
    cube = xr.Dataset(
        {"red": (("y", "x"), np.ones((size, size), np.uint16))},
        coords={"y": y - step * (np.arange(size) + 0.5), "x": x + step * (np.arange(size) + 0.5)},
    ).rio.write_crs(crs)
    values = np.zeros((size, size), np.uint8)
    values[:2, :3], values[5] = 1, 255
    truth = StubLabelRaster(values)
    if labels:
        truth.label_ids = tuple(labels)
    return TrainingScene(name=name, cube=cube, truth=truth, group=group)


def plan(*scenes, merge=False):
    return planned_units([overlap_of(each) for each in scenes], merge=merge)


def test_positives_are_counted_without_what_is_ignored():
    assert overlap_of(scene("one")).positives == 6


def test_scenes_that_overlap_are_one_unit_and_those_that_touch_are_not():
    touching = scene("next", x=500_600.0)
    overlapping = scene("over", x=501_100.0)
    found = plan(scene("one"), touching, overlapping)
    assert [unit.scenes for unit in found] == [("one",), ("next", "over")]
    assert [unit.positives for unit in found] == [6, 12]


def test_ground_is_the_same_in_every_projection():
    """A chip in UTM zone 8 and one in zone 9 and in EPSG:3413, about the same place near the border of the zones."""
    import pyproj

    def placed(name, crs, lonlat):
        x, y = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(*lonlat)
        return scene(name, x=round(x, -1), y=round(y, -1), crs=crs)

    here, there = (-132.0, 70.0), (-132.3, 70.0)
    found = plan(placed("8", "EPSG:32608", here), placed("9", "EPSG:32609", here), placed("3413", "EPSG:3413", there))
    assert [unit.scenes for unit in found] == [("8", "9"), ("3413",)]


def test_scenes_that_share_a_label_are_one_unit():
    far = scene("far", x=590_000.0, labels=["7", "9"])
    assert [u.scenes for u in plan(scene("one", labels=["1", "7"]), far)] == [("one", "far")]


def test_labels_of_two_regions_may_be_called_alike():
    """As those of two files that were standardised one by one."""
    far = scene("far", x=700_000.0, group="b", labels=["slumps/0"])
    assert [u.scenes for u in plan(scene("one", labels=["slumps/0"]), far)] == [("one",), ("far",)]


def test_groups_that_share_ground_are_refused_or_grow_together():
    scenes = [
        scene("one", group="east"),
        scene("two", x=500_100.0, group="west"),
        scene("three", x=700_000.0, group="west"),
    ]
    with pytest.raises(EvaluationError, match="'one' of group 'east' and 'two' of group 'west' show the same ground"):
        plan(*scenes)
    found = plan(*scenes, merge=True)
    assert [(unit.group, unit.scenes) for unit in found] == [("east+west", ("one", "two")), ("east+west", ("three",))]
    shared = [scene("one", group="east", labels=["x"]), scene("far", x=590_000.0, group="west", labels=["x"])]
    with pytest.raises(EvaluationError, match="share the label 'x': what is learnt"):
        plan(*shared)


def test_names_are_their_own():
    with pytest.raises(EvaluationError, match="but one occurs more than once"):
        plan(scene("one"), scene("one", x=700_000.0))


def test_labels_know_which_of_them_lie_on_a_scene():
    one, far = scene("one"), scene("far", x=590_000.0)
    boxes = [shapely.box(500_010, 7_799_900, 500_050, 7_799_950), shapely.box(500_550, 7_799_500, 590_050, 7_799_600)]
    table = {"class_name": ["target"] * 2, "label_id": ["a", "b"], "geometry": boxes}
    labels = gpd.GeoDataFrame(table, crs="EPSG:32608")
    scenes = [replace(s, truth=rasterize_labels(labels, geobox_of(s.cube), classes=["target"])) for s in (one, far)]
    assert [overlap_of(each).labels for each in scenes] == [{"a", "b"}, {"b"}]
    assert [unit.scenes for unit in plan(*scenes)] == [("one", "far")]
    touching = scene("touching", x=500_550.0, y=7_799_660.0, size=6)
    assert rasterize_labels(labels.iloc[1:], geobox_of(touching.cube), classes=["target"]).label_ids == frozenset()
