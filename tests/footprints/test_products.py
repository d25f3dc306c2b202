import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely

from rtsx.errors import FootprintError
from rtsx.footprints import extract_footprints, level1_footprints, level2_footprints, validate_footprints

DATES = ("2023-07-01T21:00", "2023-08-10T20:00", "2024-07-03T21:30")


@pytest.fixture
def extracted(predict):
    """Three images: the first two show one object twice, the second one more, the third one what has grown."""
    level = np.full((3, 40, 60), 10)
    level[0, 10:18, 10:20] = 80
    level[1, 12:20, 14:24] = 60
    level[1, 30:34, 40:50] = 70
    level[2, 10:22, 10:26] = 90
    pred = predict(level).assign_coords(
        time=np.array(DATES, "datetime64[ns]"), scene_id=("time", ["early", "late", "next"])
    )
    return extract_footprints(pred, min_area_m2=0, edge_distance=2)


def test_level_1_is_one_set_per_image_with_its_time(extracted):
    images = level1_footprints(extracted)
    assert list(images) == ["early", "late", "next"]
    assert [len(table) for table in images.values()] == [1, 2, 1]
    assert images["late"]["date"].eq(pd.Timestamp(DATES[1])).all()
    validate_footprints(images["early"])


def test_images_without_a_name_are_told_apart_by_their_time(extracted):
    assert [len(table) for table in level1_footprints(extracted.assign(scene_id=None)).values()] == [1, 2, 1]


def test_level_2_unites_what_overlaps_in_a_year(extracted):
    images = geopandas.GeoDataFrame(
        {"date": pd.to_datetime([*DATES, DATES[1]])},
        geometry=[shapely.box(*extracted.total_bounds)] * 3 + [shapely.box(0, 0, 1, 1)],
        crs=extracted.crs,
    )
    years = level2_footprints(level1_footprints(extracted), images=images)
    assert list(years) == [2023, 2024]
    for year, table in years.items():
        validate_footprints(table)
        assert table["year"].eq(year).all()
        assert table["date"].isna().all()
    first, second = years[2023].to_dict("records")
    assert (first["scene_id"], second["scene_id"]) == ("early,late", "late")
    assert (first["n_images"], second["n_images"]) == (2, 1)
    assert years[2023]["n_images_possible"].tolist() == [2, 2]
    assert years[2024]["n_images_possible"].tolist() == [1]
    assert first["first_date"] == pd.Timestamp(DATES[0])
    assert first["last_date"] == pd.Timestamp(DATES[1])
    # 80 pixels of each, 36 of them common.
    assert first["n_pixels"] == 80 + 80 - 36
    assert first["geometry"].area == 9 * 124
    assert (first["prob_min"], first["prob_max"]) == (0.6, 0.8)
    assert first["prob_mean"] == pytest.approx(0.7)
    assert first["prob_std"] == pytest.approx(0.1)


def test_the_order_of_images_means_nothing(extracted):
    images = list(level1_footprints(extracted).values())
    one, other = level2_footprints(images), level2_footprints(images[::-1])
    for year in one:
        pd.testing.assert_frame_equal(pd.DataFrame(one[year]), pd.DataFrame(other[year]))


def test_images_without_a_name_are_counted_by_date(extracted):
    years = level2_footprints([extracted.assign(scene_id=None)])
    assert years[2023]["n_images"].tolist() == [2, 1]
    assert years[2023]["n_images_possible"].isna().all()
    assert years[2023]["scene_id"].isna().all()


def test_years_serve_where_there_are_no_dates(extracted):
    only_years = extracted.assign(date=pd.Series(pd.NaT, extracted.index, dtype="datetime64[ms]"))
    assert [len(table) for table in level2_footprints([only_years]).values()] == [2, 1]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.assign(date=pd.NaT, year=pd.array([pd.NA] * 4, "Int32")), r"neither a date nor a year: set"),
        (lambda f: f.to_crs(4326).assign(footprint_id=["a", "a", "b", "c"]), r"table 0 of those to merge: .*'a'"),
    ],
)
def test_level_2_says_what_is_wrong(extracted, spoil, message):
    with pytest.raises(FootprintError, match=message):
        level2_footprints([spoil(extracted)])


def test_images_that_do_not_lie_on_outlines_are_doubted(extracted):
    ground = shapely.box(*extracted.total_bounds).buffer(90)
    images = geopandas.GeoDataFrame(
        {"scene_id": ["early", "late"], "date": DATES[:2]}, geometry=[ground] * 2, crs=extracted.crs
    )
    twice = pd.concat([images, images])
    extracted = extracted[extracted["year"] == 2023]
    assert level2_footprints([extracted], images=twice)[2023]["n_images_possible"].tolist() == [2, 2]
    degrees = images.to_crs(4326)
    swapped = degrees.set_geometry(shapely.transform(degrees.geometry.array, lambda xy: xy[:, ::-1]), crs=4326)
    for wrong in (swapped, images.set_geometry(images.translate(1e6)), images.assign(date=["2019-07-01"] * 2)):
        with pytest.warns(RuntimeWarning, match=r"2 of 2 outlines were found in more images than lie on them"):
            assert level2_footprints([extracted], images=wrong)[2023]["n_images_possible"].tolist() == [2, 1]
    with pytest.raises(FootprintError, match="row 1 of images has none"):
        level2_footprints([extracted], images=images.assign(date=["2023-07-01", "summer"]))
    with pytest.raises(FootprintError, match=r"with the CRS EPSG:\d+ and the columns scene_id, geometry"):
        level2_footprints([extracted], images=images.drop(columns="date"))


def test_level_2_refuses_images_without_time_or_crs(extracted):
    ground = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=extracted.crs)
    with pytest.raises(FootprintError, match=r"have a CRS and a column 'date' or 'year', but came with .* geometry"):
        level2_footprints([extracted], images=ground)
    with pytest.raises(FootprintError, match="row 0 of images has none"):
        level2_footprints([extracted], images=ground.assign(year=None))


def test_level_1_refuses_images_without_or_with_several_times(extracted):
    undated = extracted.assign(date=extracted["date"].mask(extracted.index == 2))
    with pytest.raises(FootprintError, match=r"row 2 has no date: predict on a cube with the coordinate 'time'"):
        level1_footprints(undated)
    with pytest.raises(FootprintError, match=r"one time, but 'same' has 2023-07-01 21:00:00 and 2024-07-03"):
        level1_footprints(extracted.assign(scene_id="same"))
