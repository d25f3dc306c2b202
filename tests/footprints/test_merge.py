import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely

from rtsx.errors import FootprintError
from rtsx.footprints import clean_footprints, extract_footprints, merge_footprints, validate_footprints


@pytest.fixture
def whole(pred):
    return extract_footprints(pred)


def halves(pred, at, *, halo=10):
    """A map cut at a column, each half with its halo."""
    left = extract_footprints(pred.isel(x=slice(None, at + halo)), halo=(0, 0, 0, halo))
    right = extract_footprints(pred.isel(x=slice(at - halo, None)), halo=(0, 0, halo, 0))
    return left, right


@pytest.mark.parametrize("at", [30, 33, 62, 40])
def test_halves_merge_to_the_whole(pred, whole, at):
    left, right = halves(pred, at)
    assert merge_footprints([right, left]).equals(whole)


def test_a_halo_says_what_is_cut(pred):
    left, right = halves(pred, 33)
    assert left["cut"].tolist() == [True, False]
    assert left["prob_counts"].tolist() == ["100;80:24", None]
    validate_footprints(left)
    assert right["cut"].tolist() == [True, False]
    assert not left["touches_edge"][0]


def test_small_parts_are_kept_until_they_are_whole(pred):
    left, right = halves(pred, 31)
    assert left["n_pixels"].tolist()[0] == 8  # of at least 32 that an object needs
    assert merge_footprints([left, right])["n_pixels"].tolist()[0] == 80
    lost = merge_footprints([left], min_area_m2=288)
    assert 8 not in lost["n_pixels"].tolist()
    kept = merge_footprints([left], min_area_m2=288, complete=False)
    assert 8 in kept["n_pixels"].tolist()
    assert "cut" in kept.columns


def test_halves_without_a_halo_are_united_too(pred, whole):
    parts = [extract_footprints(pred.isel(x=part), min_area_m2=0) for part in (slice(0, 33), slice(33, None))]
    merged = merge_footprints(parts)
    assert shapely.equals(merged.geometry.array, whole.geometry.array).all()
    for name in ("footprint_id", "n_pixels", "prob_min", "prob_max"):
        assert merged[name].tolist() == whole[name].tolist()
    for name in ("prob_mean", "prob_std", "area_m2", "prob_median"):
        assert merged[name].tolist() == pytest.approx(whole[name].tolist())
    assert merged["touches_edge"][0]
    assert not whole["touches_edge"][0]


def test_coordinates_that_differ_in_their_last_bits_still_meet(pred):
    step = 0.1
    odd = pred.assign_coords(x=step * (np.arange(80) + 0.5), y=-step * (np.arange(60) + 0.5))
    one = extract_footprints(odd.isel(x=slice(0, 43)), halo=(0, 0, 0, 10), min_area_m2=0)
    moved = odd.isel(x=slice(23, None)).assign_coords(x=odd["x"].values[23:] + 1e-9)
    other = extract_footprints(moved, halo=(0, 0, 10, 0), min_area_m2=0)
    merged = merge_footprints([one, other])
    whole = extract_footprints(odd, min_area_m2=0)
    assert len(merged) == len(whole)
    assert (
        shapely.get_num_coordinates(merged.geometry.array).tolist()
        == shapely.get_num_coordinates(whole.geometry.array).tolist()
    )
    assert shapely.is_valid(merged.geometry.array).all()


def test_scenes_that_overlap_are_united_and_the_whole_one_has_no_edge(pred, whole):
    day = np.datetime64("2024-07-01T20:00", "ns")
    scene = pred.assign_coords(time=day, scene_id="b").expand_dims("time")
    cut = pred.isel(x=slice(0, 36)).assign_coords(time=day + np.timedelta64(9, "m"), scene_id="a").expand_dims("time")
    merged = merge_footprints([extract_footprints(scene), extract_footprints(cut)])
    assert len(merged) == 3
    assert merged["scene_id"].tolist() == ["a,b", "b", "a,b"]
    assert merged["date"].eq(pd.Timestamp(day)).all()
    # The part in the cut scene touches its edge, but lies on the outline of the other.
    assert merged["touches_edge"].tolist() == [False, False, True]
    assert merged["n_pixels"].tolist() == whole["n_pixels"].tolist()
    other_day = cut.assign_coords(time=[day + np.timedelta64(1, "D")])
    assert len(merge_footprints([extract_footprints(scene), extract_footprints(other_day)])) == 5


def test_classes_stay_apart(predict, level):
    several = predict(np.stack([level, level])[None]).assign_coords({"class": ["slump", "scar"]})
    footprints = extract_footprints(several)
    assert len(merge_footprints([footprints])) == 6


def test_the_same_twice_counts_once_and_flags_are_taken_off(whole):
    flagged = clean_footprints(whole)
    assert merge_footprints([flagged, whole, flagged.iloc[::-1]]).equals(whole)


def test_a_single_table_and_empty_ones(whole):
    assert merge_footprints([whole.iloc[:0], whole, whole.iloc[:0]]).equals(whole)
    assert len(merge_footprints([whole.iloc[:0]])) == 0


def test_further_columns_keep_what_parts_agree_on(pred):
    left, right = (
        table.assign(region="Herschel", note=note) for table, note in zip(halves(pred, 33), "ab", strict=True)
    )
    merged = merge_footprints([left, right])
    assert merged["region"].tolist() == ["Herschel"] * 3
    assert merged["note"].tolist() == [None, "b", "a"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: [], r"merged from at least one table, but none came"),
        (lambda f: [f, f.to_crs(4326)], r"table 0 is in .*Polar.* and table 1 in 'WGS 84': convert them"),
        (lambda f: [f, f.drop(columns="year")], r"table 1 of those to merge: footprints need the columns year"),
        (
            lambda f: [f, f.set_geometry(f.translate(1e5))],
            r"footprint_id '.*' stands for outlines that do not meet: when merging",
        ),
    ],
)
def test_what_cannot_be_merged_is_refused(whole, spoil, message):
    with pytest.raises(FootprintError, match=message):
        merge_footprints(spoil(whole))


def test_a_least_area_is_an_area(whole):
    with pytest.raises(FootprintError, match=r"min_area_m2 is a finite area of at least 0 m², not -1"):
        merge_footprints([whole], min_area_m2=-1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"halo": 5}, r"at least as wide as edge_distance = 10 pixels, but one of 5 came"),
        (
            {"halo": (0, 0, 10)},
            r"halo is a number of pixels, or four for top, bottom, left and right, not \(0, 0, 10\)",
        ),
        ({"halo": -10}, r"halo is a number of pixels, .* not -10"),
        ({"halo": 30}, r"a halo of \(30, 30, 30, 30\) pixels leaves nothing of a prediction of \(60, 80\) pixels"),
        ({"halo": 10, "drop_edge": True}, r"drop_edge is for whole outlines, but with a halo some are cut: merge"),
    ],
)
def test_halos_that_cannot_be_are_refused(pred, options, message):
    with pytest.raises(FootprintError, match=message):
        extract_footprints(pred, **options)


def test_geographic_parts_merge_too(pred):
    left, right = (table.to_crs(4326) for table in halves(pred, 33))
    merged = merge_footprints([left, right])
    assert len(merged) == 3
    assert isinstance(merged, geopandas.GeoDataFrame)


@pytest.mark.parametrize("size", [7, 19, 60])
def test_chunks_change_nothing_under_a_halo(pred, size):
    water = pred["valid"].copy(data=np.indices(pred["valid"].shape).sum(0) % 3 == 0)
    options = {"halo": (0, 20, 10, 45), "water": water, "min_area_m2": 0}
    found = extract_footprints(pred.chunk(y=size, x=size), **options)
    assert found.equals(extract_footprints(pred, **options))
    assert found["cut"].any()
