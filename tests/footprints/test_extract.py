import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from pyproj import Geod

from rtsx.errors import FootprintError
from rtsx.footprints import extract_footprints, validate_footprints
from rtsx.footprints.schema import COLUMNS


def test_attributes_of_known_objects(pred):
    footprints = extract_footprints(pred)
    validate_footprints(footprints)
    assert footprints["footprint_id"].tolist() == ["y-980x-666636", "y-970x-666606", "y-960x-666666"]
    assert footprints["n_pixels"].tolist() == [80, 56, 40]
    assert footprints["prob_median"].tolist() == [0.8, 0.6, 0.9]
    assert footprints["touches_edge"].tolist() == [False, False, True]
    assert set(footprints["class_name"]) == {"slump"}
    assert set(footprints["bundle_id"]) == {"demo"}
    assert set(footprints["bundle_digest"]) == {"0" * 64}
    assert footprints["year"].isna().all()
    assert footprints.geometry[0].equals(shapely.box(-1_999_908, 2916, -1_999_878, 2940))
    assert len(footprints.geometry[1].interiors) == 1
    assert footprints.crs == "EPSG:3413"


def test_areas_by_probability(predict):
    level = np.zeros((60, 60))
    level[20:30, 20:40] = 50
    level[20:30, 20:30] = 65
    level[20:30, 20:22] = 80
    (found,) = extract_footprints(predict(level)).to_dict("records")
    areas = [found[f"area_m2_t{at}"] for at in (45, 65, 80)]
    assert areas == [found["area_m2"], 0.5 * found["area_m2"], 0.1 * found["area_m2"]]
    # Of eight bits of another scale, too: 163 of 250 is 65.2 per cent, and 162 is 64.8.
    finer = predict(level)
    finer["probability"] = finer["probability"].copy(
        data=np.where(level == 65, 162, np.where(level == 80, 163, level * 2.5)).astype("uint8")
    )
    finer["probability"].attrs["scale_factor"] = 1 / 250
    (found,) = extract_footprints(finer, area_thresholds=[0.65]).to_dict("records")
    assert found["area_m2_t65"] == 0.1 * found["area_m2"]
    assert "area_m2_t65" not in extract_footprints(finer, area_thresholds=[])
    for wrong in ([0.455], [0], [45], ["much"]):
        with pytest.raises(FootprintError, match="area_thresholds are"):
            extract_footprints(finer, area_thresholds=wrong)


def test_areas_are_those_of_the_ground_not_of_the_map(pred):
    """At 71.6 N the scale of EPSG:3413 differs from one: the map's area is wrong by a known share."""
    footprints = extract_footprints(pred)
    geod = Geod(ellps="WGS84")
    for _, row in footprints.to_crs(4326).iterrows():
        area, _ = geod.geometry_area_perimeter(row.geometry)
        inner = sum(geod.geometry_length(ring) for ring in row.geometry.interiors)
        assert row["area_m2"] == pytest.approx(abs(area), rel=1e-6)
        assert row["perimeter_m"] == pytest.approx(geod.geometry_length(row.geometry.exterior) + inner, rel=1e-6)
        assert row["centroid_lat"] == pytest.approx(row.geometry.centroid.y, abs=1e-6)
        assert row["centroid_lon"] == pytest.approx(row.geometry.centroid.x, abs=1e-6)
    share = footprints["area_m2"] / footprints.area
    assert (np.abs(share - 1) > 0.005).all()


def test_the_smallest_area_is_geodesic(pred):
    areas = sorted(extract_footprints(pred, min_area_m2=0)["area_m2"])
    assert len(extract_footprints(pred, min_area_m2=areas[1])) == 2
    assert len(extract_footprints(pred, min_area_m2=np.nextafter(areas[1], np.inf))) == 1


def test_pixels_are_dropped_early_only_where_no_projection_could_save_them(predict):
    """In EPSG:3413 a pixel of 3 m covers less than 9 m² of ground in the south, and more near the pole."""
    level = np.zeros((40, 40))
    level[12:18, 12:18] = 90
    far_south = predict(level, corner=(-3_999_999.0, -3000.0))
    area = extract_footprints(far_south, min_area_m2=0)["area_m2"].item()
    assert area < 36 * 9 * 0.95
    assert len(extract_footprints(far_south, min_area_m2=area)) == 1
    near_pole = predict(level, corner=(-300_000.0, -3000.0))
    area = extract_footprints(near_pole, min_area_m2=0)["area_m2"].item()
    assert area > 36 * 9 * 1.03
    assert len(extract_footprints(near_pole, min_area_m2=area)) == 1


def test_edges_can_be_dropped_and_their_distance_chosen(pred):
    assert extract_footprints(pred, drop_edge=True)["n_pixels"].tolist() == [80, 56]
    assert extract_footprints(pred, edge_distance=14)["touches_edge"].tolist() == [False, False, True]
    assert extract_footprints(pred, edge_distance=15)["touches_edge"].tolist() == [False, True, True]
    assert not extract_footprints(pred, edge_distance=0)["touches_edge"].any()


def test_an_object_beside_an_invalid_area_touches_the_edge(predict, level):
    valid = np.ones(level.shape, bool)
    valid[18:24, 50:52] = False  # ten pixels of ground between it and the first object, columns 30 to 39
    assert extract_footprints(predict(level, valid=valid))["touches_edge"].tolist()[0] is False
    valid[18:24, 49] = False
    assert extract_footprints(predict(level, valid=valid))["touches_edge"].tolist()[0] is True


def test_a_threshold_replaces_the_binary_map(pred):
    assert extract_footprints(pred, threshold=0.61)["n_pixels"].tolist() == [80, 40]
    assert extract_footprints(pred.drop_vars("binary"), threshold=0.8)["n_pixels"].tolist() == [80, 40]


def test_float_and_decoded_predictions_give_the_same(pred):
    expected = extract_footprints(pred)
    decoded = xr.decode_cf(pred, mask_and_scale=True, decode_coords="all")
    assert decoded["probability"].dtype.kind == "f"
    pd.testing.assert_frame_equal(extract_footprints(decoded), expected)
    as_float = pred.assign(probability=(pred["probability"] / 100).astype("float32"))
    pd.testing.assert_frame_equal(extract_footprints(as_float), expected)


def test_times_and_scenes_are_told(predict, level):
    pred = predict(np.stack([level, np.zeros_like(level), np.roll(level, 3, axis=1)]))
    dated = pred.assign_coords(
        time=np.array(["2023-08-01", "2023-08-09", "2024-07-05T01:02:03"], "M8[ns]"), id=("time", ["a", "b", "c"])
    )
    footprints = extract_footprints(dated)
    assert footprints["year"].tolist() == [2023, 2023, 2023, 2024, 2024, 2024]
    assert footprints["scene_id"].tolist() == ["a", "a", "a", "c", "c", "c"]
    assert footprints["date"].iloc[3] == pd.Timestamp("2024-07-05T01:02:03")
    assert footprints["footprint_id"].iloc[0] == "2023-08-01_y-980x-666636"
    yearly = extract_footprints(pred.assign_coords(time=[2021, 2022, 2023]))
    assert yearly["year"].tolist() == [2021, 2021, 2021, 2023, 2023, 2023]
    assert yearly["date"].isna().all()


def test_one_time_left_over_is_still_told(predict, level):
    pred = predict(level).assign_coords(time=pd.Timestamp("2024-07-05"))
    footprints = extract_footprints(pred.assign_attrs(item_ids=["p", "q"]))
    assert footprints["year"].tolist() == [2024] * 3
    assert footprints["scene_id"].tolist() == ["p,q"] * 3


def test_the_same_time_twice_is_refused(predict, level):
    pred = predict(np.stack([level, level])).assign_coords(time=[2021, 2021])
    with pytest.raises(FootprintError, match=r"holds the same time twice.*'2021_y-980x-666636'.*isel"):
        extract_footprints(pred)


def test_classes_are_outlined_one_by_one_or_alone(predict, level):
    pred = predict(np.stack([level, 100 - level])[None]).isel(time=0).assign_coords({"class": ["slump", "rest"]})
    both = extract_footprints(pred)
    assert both["class_name"].value_counts().to_dict() == {"slump": 3, "rest": 1}
    assert both["footprint_id"].is_unique
    alone = extract_footprints(pred, class_name="slump")
    pd.testing.assert_frame_equal(alone, both[both["class_name"] == "slump"])
    with pytest.raises(FootprintError, match=r"classes \['slump', 'rest'\], not 'slumps': did you mean 'slump'"):
        extract_footprints(pred, class_name="slumps")
    # The background is no object, unless somebody asks for it.
    pred = pred.assign_coords({"class": ["slump", "background"]})
    assert set(extract_footprints(pred)["class_name"]) == {"slump"}
    assert len(extract_footprints(pred, class_name="background")) == 1


def test_ids_depend_on_the_lattice_alone(pred):
    """A part of a prediction names an object like the whole."""
    pred = pred.assign_attrs(lattice_origin=[-1_999_998.0, 3000.0])
    whole, part = extract_footprints(pred), extract_footprints(pred.isel(y=slice(15, 35), x=slice(20, 50)))
    assert whole["footprint_id"].iloc[0] == part["footprint_id"].iloc[0] == "y20x30"


@pytest.mark.parametrize("step", [(3.0, 3.0), (2.0, -5.0)])
def test_grids_that_are_upside_down_or_not_square(predict, level, step):
    footprints = extract_footprints(predict(level, step=step), min_area_m2=0)
    assert sorted(footprints["n_pixels"]) == [40, 56, 80]
    np.testing.assert_allclose(footprints.area, footprints["n_pixels"] * abs(step[0] * step[1]))
    assert footprints.is_valid.all()


def test_a_geographic_grid_is_measured_on_the_ellipsoid(predict, level):
    pred = predict(level, crs="EPSG:4326", corner=(-139.0, 69.6), step=(1e-4, -1e-4))
    footprints = extract_footprints(pred)
    metric = extract_footprints(pred).to_crs("EPSG:6931")  # equal-area
    np.testing.assert_allclose(footprints["area_m2"], metric.area, rtol=1e-4)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("geographic", [False, True])
def test_no_objects_are_a_typed_table(predict, lazy, geographic):
    pred = predict(np.zeros((20, 30)), valid=np.zeros((20, 30), bool))
    footprints = extract_footprints(pred.chunk(y=7) if lazy else pred, geographic=geographic)
    validate_footprints(footprints)
    assert len(footprints) == 0
    assert footprints.crs == ("EPSG:4326" if geographic else "EPSG:3413")
    assert {name: str(footprints[name].dtype) for name in COLUMNS} == COLUMNS


def test_dtypes_are_the_same_with_objects(pred):
    footprints = extract_footprints(pred)
    assert {name: str(footprints[name].dtype) for name in COLUMNS} == COLUMNS


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"min_area_m2": -1.0}, r"finite area of at least 0 m², not -1.0"),
        ({"min_area_m2": float("nan")}, r"finite area of at least 0 m², not nan"),
        ({"threshold": "0.5"}, r"takes `threshold` as a number or None; got the text '0.5'"),
        ({"threshold": 50}, r"from 0 to 1, not 50: for 50 per cent give 0.5"),
        ({"edge_distance": -3}, r"whole number of pixels from 0 to 4096, not -3"),
        ({"class_name": "lake"}, r"classes \['slump'\], not 'lake'"),
    ],
)
def test_numbers_out_of_range_are_refused(pred, keywords, message):
    with pytest.raises(FootprintError, match=message):
        extract_footprints(pred, **keywords)
