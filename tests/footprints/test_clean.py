""""""

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from pyproj import CRS

from rtsx.errors import FootprintError
from rtsx.footprints import (
    clean_footprints,
    extract_footprints,
    read_footprints,
    simplify_footprints,
    validate_footprints,
    write_footprints,
)
from rtsx.footprints.clean import overlap_fraction
from tests.footprints.conftest import make_prediction


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


def water_map(values, *, corner, step, crs="EPSG:3413"):
    height, width = values.shape
    return xr.DataArray(
        values,
        dims=("y", "x"),
        coords={
            "y": corner[1] + step[1] * (np.arange(height) + 0.5),
            "x": corner[0] + step[0] * (np.arange(width) + 0.5),
        },
    ).rio.write_crs(crs)


def brute_force(pred, water):
    """The part of each object on water, by the water pixel that each centre lies in."""
    fractions = []
    for row in extract_footprints(pred).itertuples():
        y, x = np.nonzero(shapely.contains_xy(row.geometry, *np.meshgrid(pred["x"].values, pred["y"].values)))
        centres = pred["y"].values[y], pred["x"].values[x]
        step_y, step_x = (float(water[axis][1] - water[axis][0]) for axis in ("y", "x"))
        i = np.floor((centres[0] - (float(water["y"][0]) - step_y / 2)) / step_y).astype(int)
        j = np.floor((centres[1] - (float(water["x"][0]) - step_x / 2)) / step_x).astype(int)
        inside = (i >= 0) & (i < water.sizes["y"]) & (j >= 0) & (j < water.sizes["x"])
        values = water.values[np.where(inside, i, 0), np.where(inside, j, 0)]
        fractions.append(((values == 1) & inside).mean())
    return fractions


@pytest.mark.parametrize("step", [(3.0, -3.0), (10.0, -10.0), (1.0, 1.0), (-7.0, -4.5)])
@pytest.mark.parametrize("chunks", [None, 11])
def test_water_on_any_upright_grid(pred, step, chunks):
    rng = np.random.default_rng(5)
    corner = (-1_999_998.0 + (40 if step[0] > 0 else 200), 3000.0 - (25 if step[1] < 0 else 160))
    water = water_map(rng.choice(np.array([0, 1, 255], "uint8"), (160, 200)), corner=corner, step=step)
    expected = brute_force(pred, water)
    assert 0 < max(expected) < 1
    lazy = water if chunks is None else water.chunk(y=chunks, x=chunks)
    found = extract_footprints(pred if chunks is None else pred.chunk(y=17, x=23), water=lazy)
    assert found["water_fraction"].tolist() == pytest.approx(expected)


def test_chunks_of_water_are_computed_once(pred):
    import dask.array as da

    runs = []

    def answer(block, block_info):
        runs.append(block_info[0]["chunk-location"])
        return block

    values = da.map_blocks(
        answer, da.zeros(pred["valid"].shape, dtype="uint8", chunks=30), dtype="uint8", meta=np.empty((0, 0), "uint8")
    )
    extract_footprints(pred.chunk(y=30, x=30), water=pred["valid"].copy(data=values))
    assert len(runs) == len(set(runs)) == 6


def test_polygons_of_water_in_any_crs(pred):
    footprints = extract_footprints(pred)
    west, south, east, north = footprints.geometry[0].bounds
    half = shapely.box(west, south, (west + east) / 2, north)
    lakes = geopandas.GeoSeries([half, half, shapely.box(0, 0, 1, 1), None, shapely.Polygon()], crs=pred.rio.crs)
    for given in (lakes, geopandas.GeoDataFrame(geometry=lakes), lakes.to_crs(4326)):
        found = extract_footprints(pred, water=given)["water_fraction"]
        assert found.tolist() == pytest.approx([0.5, 0, 0], abs=1e-5)
    assert extract_footprints(pred, water=lakes.iloc[:0])["water_fraction"].tolist() == [0, 0, 0]


def test_water_of_another_place_is_warned_of(pred):
    lakes = geopandas.GeoSeries([shapely.box(10, 60, 11, 61)], crs=4326)
    with pytest.warns(RuntimeWarning, match="No polygon of water lies anywhere in the box around all outlines"):
        extract_footprints(pred, water=lakes)
    away = xr.DataArray(np.ones((2, 2), bool), {"y": [1.5, 0.5], "x": [0.5, 1.5]}, ("y", "x")).rio.write_crs(
        pred.rio.crs
    )
    with pytest.warns(RuntimeWarning, match="The map of water lies beside the map"):
        assert extract_footprints(pred, water=away)["water_fraction"].eq(0).all()


def test_water_of_the_whole_world(level):
    """Most of it has no place in UTM, and one polygon reaches around the map and far beyond."""
    here = make_prediction(level, crs="EPSG:32608", corner=(500_000.0, 7_800_000.0))
    lon, lat = (axis.ravel() for axis in np.meshgrid(np.arange(-179, 179, 2), np.arange(-88, 88, 2)))
    for world in (shapely.box(lon, lat, lon + 2, lat + 2), [shapely.box(-179, -60, 179, 89)]):
        found = extract_footprints(here, water=geopandas.GeoSeries(world, crs=4326))
        assert found["water_fraction"].tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("turn", [-360, 0, 360])
def test_water_from_0_to_360_degrees(pred, turn):
    footprints = extract_footprints(pred)
    lake = footprints.geometry.iloc[[0]].to_crs(4326)
    found = extract_footprints(pred, water=lake.translate(turn))["water_fraction"]
    assert found.tolist() == pytest.approx([1, 0, 0], abs=1e-5)
    swapped = geopandas.GeoSeries(shapely.transform(lake.array, lambda xy: xy[:, ::-1]), crs=4326)
    with pytest.raises(FootprintError, match="with longitude first"):
        extract_footprints(pred, water=swapped)


def test_water_elsewhere_is_looked_at_by_its_box_alone(pred, monkeypatch):
    outlines = extract_footprints(pred).geometry
    elsewhere = shapely.box(np.arange(-180, 180), -60, np.arange(-179, 181), -59)
    world = geopandas.GeoSeries([*elsewhere, *outlines.iloc[[0]].to_crs(4326)], crs=4326)
    moved, transform = [], shapely.transform
    monkeypatch.setattr(shapely, "transform", lambda some, by: moved.append(len(some)) or transform(some, by))
    found = overlap_fraction(np.asarray(outlines.array, object), world, crs=CRS(outlines.crs))
    assert found.tolist() == pytest.approx([1, 0, 0], abs=1e-5)
    assert max(moved) == 1


def test_water_that_has_no_place_is_refused():
    lost = np.array([shapely.box(1e9, 1e9, 1e9 + 1, 1e9 + 1)])
    equator = geopandas.GeoSeries(shapely.box(np.arange(-180, 180), 0, np.arange(-179, 181), 1), crs=4326)
    with pytest.raises(FootprintError, match=r"no place: cut them to the surroundings of the map"):
        overlap_fraction(lost, equator, crs=CRS.from_epsg(32608))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda water: water.expand_dims(time=1), r"dimensions \(y, x\), but came with \(time, y, x\)"),
        (lambda water: water.astype(float), r"is bool or integer, 1 on water, but came as float64"),
        (lambda water: water.drop_vars("x"), r"does not say where it lies: .*coordinates 'y' and 'x'"),
        (lambda water: water.rio.write_crs("EPSG:32608"), r"in the CRS of the prediction, .* but came in .*zone 8N"),
    ],
)
def test_water_that_cannot_be_laid_on_the_map_is_refused(pred, spoil, message):
    water = water_map(np.zeros((40, 50), "uint8"), corner=(-1_999_998.0, 3000.0), step=(3.0, -3.0))
    with pytest.raises(FootprintError, match=message):
        extract_footprints(pred, water=spoil(water))


def test_polygons_that_are_none_are_refused(pred):
    with pytest.raises(FootprintError, match="polygons of water have a CRS, but it is None"):
        extract_footprints(pred, water=geopandas.GeoSeries([shapely.box(0, 0, 1, 1)]))
    with pytest.raises(FootprintError, match="water is given as polygons, but row 0 has Point"):
        extract_footprints(pred, water=geopandas.GeoSeries([shapely.Point(0, 0)], crs=3413))
