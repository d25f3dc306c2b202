import numpy as np
import pandas as pd
import pytest
import shapely

from rtsx.errors import FootprintError
from rtsx.footprints import (
    clean_footprints,
    extract_footprints,
    read_footprints,
    simplify_footprints,
    validate_footprints,
    write_footprints,
)


@pytest.fixture
def footprints(pred):
    """Blocks of 80 pixels at 0.8, 56 at 0.6 with water on half of it, and 40 at 0.9 that touch the edge."""
    water = pred["valid"].copy(data=np.zeros(pred["valid"].shape, bool))
    water[30:35, 60:66] = True
    return extract_footprints(pred, water=water)


def test_rules_flag_and_delete_nothing(footprints):
    flagged = clean_footprints(footprints, min_area_m2=400, min_prob_mean=0.7)
    assert flagged["flags"].tolist() == ["", "water,weak", "small,edge"]
    assert flagged.drop(columns="flags").equals(footprints)
    validate_footprints(flagged)
    assert "flags" not in footprints.columns


@pytest.mark.parametrize(
    ("rules", "flags"),
    [
        ({}, ["", "water", "edge"]),
        ({"edge": False}, ["", "water", ""]),
        ({"max_water": None}, ["", "", "edge"]),
        ({"max_water": 0.5}, ["", "", "edge"]),
        ({"max_water": 0.0, "min_pixels": 60}, ["", "small,water", "small,edge"]),
        ({"min_prob_max": 0.85, "max_water": None}, ["weak", "weak", "edge"]),
    ],
)
def test_each_rule_can_be_set(footprints, rules, flags):
    assert clean_footprints(footprints, **rules)["flags"].tolist() == flags


def test_what_stays_is_asked_for(footprints):
    assert clean_footprints(footprints, keep=())["flags"].tolist() == [""]
    assert clean_footprints(footprints, keep=("edge", "small"))["flags"].tolist() == ["", "edge"]
    assert clean_footprints(footprints, keep=["water"]).index.tolist() == [0, 1]


def test_cleaning_again_makes_flags_anew(footprints):
    strict = clean_footprints(footprints, min_area_m2=1e6)
    assert clean_footprints(strict)["flags"].tolist() == ["", "water", "edge"]


def test_without_water_there_is_no_such_rule(pred):
    assert clean_footprints(extract_footprints(pred))["flags"].tolist() == ["", "", "edge"]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"min_area_m2": -1}, r"min_area_m2 is a finite area of at least 0 m², not -1"),
        ({"min_pixels": 0.5}, r"min_pixels is a whole number of pixels from 0, not 0.5"),
        ({"max_water": 20}, r"max_water is a part from 0 to 1, not 20: for 20 per cent give 0.2"),
        ({"min_prob_mean": 70}, r"min_prob_mean is a part from 0 to 1, not 70"),
        ({"keep": ["lake"]}, r"keep lists flags, some of small, edge, water, weak, but \['lake'\] came"),
        ({"keep": "edge"}, r"keep lists flags.*, but 'edge' came: give a tuple such as \('edge',\)"),
    ],
)
def test_rules_that_cannot_be_are_refused(footprints, rules, message):
    with pytest.raises(FootprintError, match=message):
        clean_footprints(footprints, **rules)


@pytest.mark.parametrize("ending", ["parquet", "gpkg", "fgb"])
def test_flags_and_water_come_back_from_files(footprints, tmp_path, ending):
    flagged = simplify_footprints(clean_footprints(footprints), tolerance_m=3)
    back = read_footprints(write_footprints(flagged, tmp_path / f"slumps.{ending}"))
    back = back.sort_values("footprint_id", ignore_index=True)
    expected = flagged.sort_values("footprint_id", ignore_index=True)
    pd.testing.assert_frame_equal(
        pd.DataFrame(back)[expected.columns.drop("geometry")], pd.DataFrame(expected.drop(columns="geometry"))
    )


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("flags", "lake", r"flags of footprints are some of small, edge, water, weak, .* row 1 has 'lake'"),
        ("flags", None, r"or empty, but row 1 has None"),
        ("water_fraction", 1.5, r"water_fraction of footprints is between 0 and 1, but row 1 has 1.5"),
        ("water_fraction", np.nan, r"water_fraction of footprints is between 0 and 1, but row 1 has nan"),
        ("area_outlined_m2", 0.0, r"area_outlined_m2 of footprints is above 0, but row 1 has 0.0"),
        (
            "n_images_possible",
            1,
            r"n_images of footprints is at least 1 and at most n_images_possible, but row 1 has 2",
        ),
        ("n_images", 0, r"n_images of footprints is at least 1 .* row 1 has 0"),
    ],
)
def test_columns_of_cleaning_and_levels_are_checked(footprints, column, value, message):
    full = clean_footprints(footprints).assign(
        area_outlined_m2=1.0, n_images=pd.array([2] * 3, "Int32"), n_images_possible=pd.array([2, 3, None], "Int32")
    )
    validate_footprints(full)
    full.loc[1, column] = value
    with pytest.raises(FootprintError, match=message):
        validate_footprints(full)


def test_simplified_outlines_say_their_area_before_and_after(footprints):
    smooth = simplify_footprints(footprints, tolerance_m=6)
    assert smooth["area_outlined_m2"].tolist() == pytest.approx(footprints["area_m2"])
    again = simplify_footprints(smooth, tolerance_m=12)
    assert again["area_outlined_m2"].tolist() == smooth["area_outlined_m2"].tolist()
    assert again["n_pixels"].tolist() == footprints["n_pixels"].tolist()
    assert len(simplify_footprints(footprints.iloc[:0], tolerance_m=6)) == 0


@pytest.mark.parametrize("tolerance", [0, -3, np.inf, np.nan])
def test_a_tolerance_is_a_length(footprints, tolerance):
    with pytest.raises(FootprintError, match=r"tolerance_m is a length above 0 m, not"):
        simplify_footprints(footprints, tolerance_m=tolerance)


def test_a_tolerance_is_in_metres_in_degrees_too(footprints):
    wide = footprints.to_crs(4326)
    one, other = (simplify_footprints(table, tolerance_m=30)["area_m2"] for table in (footprints, wide))
    assert one.tolist() == pytest.approx(other.tolist(), rel=0.01)
    assert shapely.is_valid(simplify_footprints(wide, tolerance_m=300).geometry.array).all()
