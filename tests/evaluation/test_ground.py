"""Scenes that show the same ground or the same labels are never divided."""

from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr

from rtsx.cube import geobox_of
from rtsx.errors import EvaluationError
from rtsx.evaluation.folds import ground_of, planned_units
from rtsx.labels import StubTruth, label_truth
from rtsx.training import TrainingScene


def scene(name, *, x=500_000.0, y=7_800_000.0, group="a", crs="EPSG:32608", size=60, step=10.0, labels=()):
    cube = xr.Dataset(
        {"red": (("y", "x"), np.ones((size, size), np.uint16))},
        coords={"y": y - step * (np.arange(size) + 0.5), "x": x + step * (np.arange(size) + 0.5)},
    ).rio.write_crs(crs)
    values = np.zeros((size, size), np.uint8)
    values[:2, :3], values[5] = 1, 255
    truth = StubTruth(values)
    if labels:
        truth.label_ids = tuple(labels)
    return TrainingScene(name=name, cube=cube, truth=truth, group=group)


def plan(*scenes, merge=False):
    return planned_units([ground_of(each) for each in scenes], merge=merge)


def test_positives_are_counted_without_what_is_ignored():
    assert ground_of(scene("one")).positives == 6


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
    scenes = [replace(s, truth=label_truth(labels, geobox_of(s.cube), classes=["target"])) for s in (one, far)]
    assert [ground_of(each).labels for each in scenes] == [{"a", "b"}, {"b"}]
    assert [unit.scenes for unit in plan(*scenes)] == [("one", "far")]
    touching = scene("touching", x=500_550.0, y=7_799_660.0, size=6)
    assert label_truth(labels.iloc[1:], geobox_of(touching.cube), classes=["target"]).label_ids == frozenset()
