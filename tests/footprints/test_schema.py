import geopandas
import pytest
import shapely

from rtsx.errors import FootprintError
from rtsx.footprints import extract_footprints, validate_footprints


@pytest.fixture
def footprints(pred):
    return extract_footprints(pred)


def test_further_columns_are_welcome(footprints):
    validate_footprints(footprints.assign(water=0.1))


def test_a_table_without_geometry_is_no_footprints(footprints):
    with pytest.raises(FootprintError, match=r"GeoDataFrame, not DataFrame: read them with"):
        validate_footprints(footprints.drop(columns="geometry"))


def change(footprints, column, value):
    footprints = footprints.copy()
    footprints.loc[1, column] = value
    return footprints


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.drop(columns=["year", "area_m2"]), r"need the columns year, area_m2, which are not there"),
        (lambda f: f.astype({"n_pixels": str}), r"column 'n_pixels' of footprints has dtype int64, not object"),
        (lambda f: f.astype({"touches_edge": int}), r"column 'touches_edge' of footprints has dtype bool"),
        (lambda f: f.astype({"date": str}), r"column 'date' of footprints .*astype\({'date': 'datetime64\[ms\]'}\)"),
        (lambda f: f.assign(footprint_id="a"), r"an id of its own, but footprint_id 'a' is missing or repeated"),
        (lambda f: change(f, "footprint_id", None), r"an id of its own, but footprint_id None"),
        (lambda f: change(f, "prob_mean", 80.0), r"prob_mean of footprints is between 0 and 1, but row 1 has 80.0"),
        (lambda f: change(f, "area_m2", 0.0), r"area_m2 of footprints is above 0, but row 1 has 0.0"),
        (lambda f: f.set_crs(None, allow_override=True), r"have a CRS, but it is None: set it with"),
        (lambda f: f.set_geometry(f.centroid), r"Polygons or MultiPolygons with an area, but row 0 has Point"),
        (lambda f: f.set_geometry([None, *f.geometry[1:]], crs=f.crs), r"but row 0 has nothing"),
        (lambda f: f.set_geometry([shapely.Polygon(), *f.geometry[1:]], crs=f.crs), r"row 0 has Polygon"),
        (
            lambda f: f.set_geometry([*f.geometry[:2], shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])], crs=f.crs),
            r"that of row 2 is not \(Self-intersection",
        ),
        (lambda f: geopandas.GeoDataFrame(f.rename_geometry("shape").drop(columns="shape")), r"none is set"),
    ],
)
def test_what_is_wrong_is_said(footprints, spoil, message):
    with pytest.raises(FootprintError, match=message):
        validate_footprints(spoil(footprints))
