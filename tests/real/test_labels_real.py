"""Published inventories in one table: nothing lost, in the right place, and the same on a raster as with GDAL."""

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from rtsx.errors import LabelError
from rtsx.labels import rasterize_labels, read_labels, standardise_labels, validate_labels, write_labels

GEOD = pyproj.Geod(ellps="WGS84")

INVENTORIES = {
    "rts_nitze2021/GT_Set_Nitze_etal_2021_TrainingSet_RTS.shp": 2182,
    "rts_nitze2021/study_sites.geojson": 9,
    "rts_arts_raw/huang2022/Banks_Island_slumps.shp": 262,
    "rts_arts_raw/huang2022/HotWeatherCreek_slumps.shp": 162,
    "rts_arts_raw/huang2022/Willow_River_Thaw_Slumps.shp": 197,
    "rts_arts_raw/runge2022_odd_crs/170315_2018-07-11_RE1_3A_Analytic_clip.shp": 23,
    "rts_arts_raw/runge2022_odd_crs/170315_2018-07-11_RE1_3A_Analytic_clip_3571.shp": 23,
    "rts_arts_raw/runge2022_odd_crs/170315_2018-07-11_RE1_3A_Analytic_clip_3857.shp": 23,
    "rts_arts_raw/runge2022_odd_crs/269112_2017-07-20_RE1_3A_Analytic_clip_epsg54034.shp": 41,
    **{
        f"rts_expert_s2l8/Bykovsky/experts/expert{number:02}_Bykovsky.shp": count
        for number, count in {1: 6, 2: 6, 3: 11, 4: 1, 5: 2, 6: 4, 9: 1, 10: 1, 11: 5, 12: 1}.items()
    },
    "rts_expert_s2l8/Bykovsky/Bykovsky_AOI_2500.geojson": 1,
}
RUNGE = "rts_arts_raw/runge2022_odd_crs"


def apart_m(one, other):
    """Greatest distance between vertices of the same number, m."""
    first, second = (shapely.get_coordinates(labels.geometry.array) for labels in (one, other))
    assert first.shape == second.shape
    return max(GEOD.inv(*first.T, *second.T)[2])


@pytest.mark.parametrize(("path", "count"), INVENTORIES.items())
def test_every_row_of_every_inventory_is_a_label(real_data, tmp_path, path, count):
    inventory = standardise_labels(real_data / path)
    validate_labels(inventory.labels)
    assert (len(inventory.labels), inventory.report.dropped, inventory.report.notes) == (count, (), ())
    assert inventory.report.is_clean == ("GT_Set" not in path)
    again = read_labels(write_labels(inventory.labels, tmp_path / "labels.parquet"))
    assert again.geometry.geom_equals(inventory.labels.geometry).all()
    raw = geopandas.read_file(real_data / path).to_crs(4326)
    ground = shapely.union_all(raw.geometry.make_valid())
    assert shapely.intersects(ground, np.asarray(inventory.labels.representative_point())).all()


class TestNitze:
    @pytest.fixture(scope="class")
    @classmethod
    def inventory(cls, real_data):
        return standardise_labels(real_data / "rts_nitze2021/GT_Set_Nitze_etal_2021_TrainingSet_RTS.shp")

    def test_the_four_invalid_outlines_are_repaired_and_told(self, inventory):
        findings = inventory.report.findings
        assert [(one.row, one.problem, one.action) for one in findings] == [
            (row, "invalid geometry", "repaired") for row in (482, 541, 674, 1924)
        ]
        assert "area 57387.9 m², now 57387.7 m² (-0.2 m²)" in findings[0].detail

    def test_a_slump_on_several_dates_is_no_duplicate(self, inventory):
        labels = inventory.labels
        assert len(labels) == 2182
        later, earlier = shapely.STRtree(labels.geometry.array).query(labels.geometry.array, predicate="intersects")
        pairs = earlier < later
        one, other = (np.asarray(labels.geometry.array)[side[pairs]] for side in (later, earlier))
        shared = shapely.area(shapely.intersection(one, other))
        overlap = shared / (shapely.area(one) + shapely.area(other) - shared)
        assert (overlap > 0.95).sum() == 1592  # on another image each

    def test_what_it_says_is_where_it_belongs(self, inventory):
        labels = inventory.labels
        assert labels["region"].value_counts().to_dict() == {
            "Banks_Island": 552, "Horton": 534, "Tuktoyaktuk": 391, "Kolguev": 319, "Lena": 238, "Herschel": 148,
        }  # fmt: skip
        assert labels["image_ids"].nunique() == 142
        assert labels["image_date"].notna().all()
        assert labels["class_name"].unique().tolist() == ["rts"]
        assert labels["site"].notna().all()

    def test_areas_are_those_that_are_published(self, inventory):
        areas = inventory.labels["area_m2"]
        assert areas.max() == pytest.approx(0.87e6, rel=0.02)
        assert (areas < 0.25e6).mean() >= 0.99


class TestOddProjections:
    def standardised(self, real_data, ending, **options):
        (path,) = (real_data / RUNGE).glob(f"*{ending}")
        return standardise_labels(path, **options)

    @pytest.mark.parametrize("code", ["3571", "3857"])
    def test_agree_with_degrees(self, real_data, code):
        original = self.standardised(real_data, "clip.shp").labels
        assert apart_m(original, self.standardised(real_data, f"_{code}.shp").labels) < 0.001

    def test_geocentric_without_z_is_refused_because_a_hemisphere_is_missing(self, real_data):
        with pytest.raises(LabelError, match=r"41 of 41 labels lie in EPSG:4978, which is geocentric.*Z is missing"):
            self.standardised(real_data, "4978.gpkg")

    def test_geocentric_agrees_with_the_cylinder_once_the_hemisphere_is_told(self, real_data):
        cylinder = self.standardised(real_data, "54034.shp").labels
        found = self.standardised(real_data, "4978.gpkg", hemisphere="north")
        assert apart_m(cylinder, found.labels) < 0.001
        assert [one.problem for one in found.report.findings] == ["height missing"] * 41

    @pytest.mark.parametrize("ending", ["clip.shp", "_3571.shp", "_3857.shp", "54034.shp"])
    def test_areas_are_those_that_the_files_state(self, real_data, ending):
        (path,) = (real_data / RUNGE).glob(f"*{ending}")
        stated = geopandas.read_file(path)["Area (m2)"]
        np.testing.assert_allclose(standardise_labels(path).labels["area_m2"], stated, rtol=2e-5)

    def test_the_same_outlines_in_several_files_are_one(self, real_data):
        paths = sorted((real_data / RUNGE).glob("170315*.shp"))
        inventory = standardise_labels(paths, image_date="2018-07-11")
        assert (len(inventory.labels), len(inventory.report.dropped)) == (23, 46)


def test_huang_and_arts_agree_on_the_centre(real_data):
    labels = standardise_labels(real_data / "rts_arts_raw/huang2022/Banks_Island_slumps.shp").labels
    # The first row of the published ARTS table, in which this inventory is.
    assert labels.loc[0, ["centroid_lat", "centroid_lon"]].tolist() == pytest.approx(
        [71.89659414, -120.66907384], abs=2e-7
    )


def test_willow_river_knows_who_made_it(real_data):
    labels = standardise_labels(real_data / "rts_arts_raw/huang2022/Willow_River_Thaw_Slumps.shp").labels
    assert labels["creator"].notna().any()
    assert (labels.geom_type == "MultiPolygon").sum() == 6


def test_experts_on_the_chip_are_as_gdal_draws_them(real_data):
    folder = real_data / "rts_expert_s2l8/Bykovsky"
    with rasterio.open(next(folder.glob("S2_*.tif"))) as chip:
        raster = GeoBox(chip.shape, chip.transform, chip.crs.to_wkt())
    votes = np.zeros(raster.shape.yx, int)
    for path in sorted(folder.glob("experts/*.shp")):
        truth = rasterize_labels(read_labels(path), raster, classes=["rts"])
        found = truth.read((slice(0, truth.shape[0]), slice(0, truth.shape[1])))
        shapes = geopandas.read_file(path).to_crs(raster.crs.to_wkt()).geometry
        drawn = rasterio.features.rasterize(shapes, raster.shape.yx, transform=raster.affine, dtype="uint8")
        assert (found != drawn).sum() == 0
        votes += found
    assert (votes >= 5).sum() == 887  # half of the ten


def test_nitze_on_the_arctic_grid_is_as_gdal_draws_it(real_data):
    labels = read_labels(real_data / "rts_nitze2021/GT_Set_Nitze_etal_2021_TrainingSet_RTS.shp")
    lena = labels[
        (labels["region"] == "Lena")
        & (labels["image_date"] == labels.loc[labels["region"] == "Lena", "image_date"].iloc[0])
    ]
    projected = lena.to_crs("EPSG:3413")
    west, south, east, north = projected.total_bounds
    raster = GeoBox(
        (int((north - south) / 3) + 20, int((east - west) / 3) + 20),
        Affine(3, 0, west - 30, 0, -3, north + 30),
        "EPSG:3413",
    )
    truth = rasterize_labels(lena, raster, classes=["rts"])
    assert truth.count == len(lena)
    for geometry in projected.geometry:
        left, bottom, right, top = geometry.bounds
        rows = slice(int((north + 30 - top) / 3), int((north + 30 - bottom) / 3) + 2)
        columns = slice(int((left - west + 30) / 3), int((right - west + 30) / 3) + 2)
        inside = raster[rows, columns]
        drawn = rasterio.features.rasterize(projected.geometry, inside.shape.yx, transform=inside.affine, dtype="uint8")
        assert (truth.read((rows, columns)) != drawn).sum() == 0
