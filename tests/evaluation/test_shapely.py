"""Outlines are judged by the ground they share, wherever they lie and in whatever CRS they come."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import shapely
from pyproj import Geod

import rtsx
from rtsx.errors import EvaluationError
from rtsx.evaluation import Evaluation, JudgedScene
from tests.evaluation.scenes import make_scene


def boxes(*corners, crs="EPSG:32652"):
    """Rectangles of (west, south, east, north) in m from a place on the Bykovsky Peninsula."""
    x, y = (510_000, 7_975_000) if crs == "EPSG:32652" else (0, 0)
    return gpd.GeoDataFrame(geometry=[shapely.box(w + x, s + y, e + x, n + y) for w, s, e, n in corners], crs=crs)


def test_areas_are_those_of_the_ground_and_rows_are_objects():
    found = boxes((0, 0, 100, 100), (500, 0, 600, 100))
    true = boxes((0, 0, 100, 80), (520, 0, 600, 100), (900, 0, 950, 50))
    row = rtsx.evaluate(found, true.to_crs("EPSG:4326")).pooled.iloc[0]
    assert row["iou"] == pytest.approx(16_000 / 22_500, abs=1e-6)
    assert row["precision"] == pytest.approx(16_000 / 20_000, abs=1e-6)
    assert row["recall"] == pytest.approx(16_000 / 18_500, abs=1e-6)
    # UTM shrinks lengths by 0.9996 near its middle, so the ground is larger than the plane.
    assert row["found_m2"] == pytest.approx(20_000 / 0.9996**2, rel=1e-5)
    assert (row["objects_matched"], row["objects_found"], row["objects_true"]) == (2, 2, 3)
    assert np.isnan(row["average_precision"])
    assert np.isnan(row["boundary_iou"])


def test_ground_counts_once_but_outlines_are_objects_each():
    found = boxes((0, 0, 100, 100), (50, 0, 150, 100))
    row = rtsx.evaluate(found, boxes((0, 0, 150, 100))).pooled.iloc[0]
    assert row["iou"] == pytest.approx(1.0)
    assert (row["objects_matched"], row["objects_found"], row["objects_true"]) == (1, 2, 1)


@pytest.mark.parametrize("seed", range(4))
def test_objects_are_those_of_a_search(seed):
    random = np.random.default_rng(seed)
    corners = random.integers(0, 400, (2, 7, 2))
    tables = [boxes(*[(x, y, x + 90, y + 70) for x, y in some]) for some in corners]
    found, true = (list(table.geometry) for table in tables)
    iou = np.array([[f.intersection(t).area / f.union(t).area for t in true] for f in found])
    for threshold in (0.1, 0.3):
        row = rtsx.evaluate(*tables, object_iou=threshold).pooled.iloc[0]
        rows, columns = scipy.optimize.linear_sum_assignment(-(iou >= threshold).astype(int))
        assert row["objects_matched"] == (iou[rows, columns] >= threshold).sum()


@pytest.mark.parametrize("lon", [179.999, 15.0])
def test_the_antimeridian_is_no_border(lon):
    ring = np.array([(lon, 70.0), (lon + 0.01, 70.0), (lon + 0.01, 70.005), (lon, 70.005)])
    half = ring + np.array([0.005, 0.0])
    found, true = (
        gpd.GeoDataFrame(geometry=[shapely.Polygon(r)], crs="EPSG:4326").to_crs("EPSG:3995") for r in (ring, half)
    )
    row = rtsx.evaluate(found, true).pooled.iloc[0]
    area = abs(Geod(ellps="WGS84").polygon_area_perimeter(*ring.T)[0])
    assert row["found_m2"] == pytest.approx(area, rel=1e-4)
    assert row["iou"] == pytest.approx(1 / 3, abs=1e-4)


def test_small_outlines_are_left_out_of_the_objects():
    row = rtsx.evaluate(
        boxes((0, 0, 10, 10), (50, 0, 90, 40)), boxes((50, 0, 90, 40)), min_object_area_m2=288
    ).pooled.iloc[0]
    assert (row["objects_found"], row["objects_true"], row["object_f1"]) == (1, 1, 1.0)


def test_nothing_found():
    row = rtsx.evaluate(boxes(), boxes((0, 0, 10, 10))).pooled.iloc[0]
    assert (row["iou"], row["precision"], row["recall"], row["object_recall"]) == (0.0, 1.0, 0.0, 0.0)
    with pytest.raises(EvaluationError, match="neither found nor true outlines"):
        rtsx.evaluate(boxes(), boxes())


def test_pixels_and_outlines_do_not_add_up():
    outlines = JudgedScene(name="outlines", prediction=boxes((0, 0, 9, 9)), truth=boxes((0, 0, 9, 9)))
    with pytest.raises(EvaluationError, match=r"judged in px and 'outlines' in m2: pixels and outlines do not add up"):
        rtsx.evaluate([make_scene(1), outlines])


def test_classes_of_outlines_are_one():
    named = boxes((0, 0, 9, 9)).assign(class_name="slump")
    assert rtsx.evaluate(named, named).pooled["class"].tolist() == ["slump"]
    with pytest.raises(EvaluationError, match="are of slump, and pond is to be judged"):
        rtsx.evaluate(named, named, classes=["pond"])
    both = gpd.GeoDataFrame(pd.concat([named, boxes((20, 0, 30, 9)).assign(class_name="pond")]), crs=named.crs)
    with pytest.raises(EvaluationError, match="of the prediction of scene 'scene' are of several classes, slump, pond"):
        rtsx.evaluate(both, named)


def test_outlines_come_back_from_json():
    evaluation = rtsx.evaluate(boxes((0, 0, 9, 9)), boxes((3, 0, 9, 9)))
    assert Evaluation.from_json(evaluation.to_json()).pooled.equals(evaluation.pooled)
