import geopandas
import pandas as pd
import pytest
import shapely

from rtsx.errors import LabelError
from rtsx.labels import LABEL_COLUMNS, standardise_labels, validate_labels

SQUARE = shapely.box(124, 72, 124.01, 72.01)
LABELS = standardise_labels(
    geopandas.GeoDataFrame({"image_date": ["2019", "2020"]}, geometry=[SQUARE, SQUARE], crs="EPSG:4326")
).labels


def test_the_table_has_the_documented_columns():
    assert list(LABELS.columns) == [*LABEL_COLUMNS, "geometry"]
    assert {name: str(LABELS[name].dtype) for name in LABEL_COLUMNS} == LABEL_COLUMNS
    validate_labels(LABELS)
    validate_labels(LABELS.iloc[:0])
    validate_labels(LABELS.assign(note="welcome"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (pd.DataFrame(LABELS), "not DataFrame"),
        (LABELS.drop(columns="creator"), "need the columns creator"),
        (LABELS.assign(image_date="2019"), "'image_date' of labels has dtype datetime64"),
        (LABELS.assign(area_m2="1"), "'area_m2' of labels has dtype float64"),
        (LABELS.assign(label_id="a"), "label_id 'a' is repeated"),
        (LABELS.assign(class_name=[None, "a"]), "Every label has a class_name, but row 0"),
        (LABELS.assign(class_name=["a", ""]), "Every label has a class_name, but row 1"),
        (LABELS.assign(image_date=pd.Timestamp("1900-01-01")), "not before 1930-01-01, but row 0"),
        (LABELS.assign(image_date_end=pd.Timestamp("2018-01-01")), "image_date_end is not before"),
        (LABELS.assign(area_m2=0.0), "above 0, but not in row 0"),
        (LABELS.to_crs("EPSG:3413"), "are in EPSG:4326, but these are in EPSG:3413"),
        (LABELS.set_geometry([SQUARE, shapely.Point(0, 0)], crs="EPSG:4326"), "row 1 is a Point"),
        (LABELS.set_geometry([None, SQUARE], crs="EPSG:4326"), "row 0 is nothing"),
        (LABELS.set_geometry([shapely.box(179, 0, 181, 1)] * 2, crs="EPSG:4326"), "between -180 and 180"),
    ],
)
def test_refuses(wrong, message):
    with pytest.raises(LabelError, match=message):
        validate_labels(wrong)
