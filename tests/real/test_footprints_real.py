"""Published slump outlines, drawn on the Arctic grid as a prediction, come back with their own areas."""

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio.features
import rioxarray  # noqa: F401  registers the accessor .rio
import shapely
import xarray as xr
from affine import Affine

from rtsx.footprints import extract_footprints, read_footprints, validate_footprints, write_footprints
from rtsx.footprints.pyproj import measure

RESOLUTION = 3.0


@pytest.fixture(scope="module")
def published(real_data):
    """The outlines of Herschel Island at the date that has most of them, in EPSG:3413, overlaps united."""
    outlines = geopandas.read_file(next((real_data / "rts_nitze2021").glob("*.shp")))
    outlines = outlines[outlines["region"].str.contains("Herschel")]
    outlines = outlines[outlines["image_date"] == outlines["image_date"].mode()[0]]
    united = outlines.to_crs("EPSG:3413").make_valid().union_all()
    return geopandas.GeoSeries(shapely.get_parts(united), crs="EPSG:3413")


@pytest.fixture(scope="module")
def pred(published):
    west, south, east, north = published.total_bounds
    left, top = RESOLUTION * (west // RESOLUTION - 50), RESOLUTION * (north // RESOLUTION + 50)
    width, height = int((east - left) / RESOLUTION) + 50, int((top - south) / RESOLUTION) + 50
    transform = Affine(RESOLUTION, 0, left, 0, -RESOLUTION, top)
    binary = rasterio.features.rasterize(published, (height, width), transform=transform, dtype="uint8")
    pred = xr.Dataset(
        {
            "probability": (
                ("y", "x"),
                np.where(binary, 87, 3).astype("uint8"),
                {"scale_factor": 0.01, "_FillValue": 255},
            ),
            "binary": (("y", "x"), binary, {"_FillValue": 255}),
            "valid": (("y", "x"), np.ones(binary.shape, bool)),
        },
        coords={"y": top - RESOLUTION * (np.arange(height) + 0.5), "x": left + RESOLUTION * (np.arange(width) + 0.5)},
        attrs={"lattice_origin": [0.0, 0.0], "bundle_classes": ["slump"]},
    )
    return pred.rio.write_crs("EPSG:3413")


@pytest.mark.parametrize("chunks", [None, {"y": 200, "x": 333}])
def test_published_outlines_come_back_with_their_area(published, pred, chunks):
    footprints = extract_footprints(pred if chunks is None else pred.chunk(chunks), min_area_m2=0)
    validate_footprints(footprints)
    own, _ = measure(np.asarray(published.array), published.crs)
    assert len(own) > 10
    assert footprints["area_m2"].sum() == pytest.approx(own.sum(), rel=0.01)
    hits, _ = published.sindex.query(footprints.geometry, predicate="intersects")
    assert set(hits) == set(range(len(footprints)))
    lost = published[~published.intersects(footprints.union_all())]
    assert lost.area.sum() < 0.002 * published.area.sum()
    assert not footprints["touches_edge"].any()


def test_chunks_and_files_change_nothing(pred, tmp_path):
    footprints = extract_footprints(pred)
    assert footprints.equals(extract_footprints(pred.chunk(y=100, x=77)))
    back = read_footprints(write_footprints(footprints, tmp_path / "herschel.parquet"))
    pd.testing.assert_frame_equal(pd.DataFrame(back), pd.DataFrame(footprints))


def test_longitudes_are_those_of_the_site(pred, real_data):
    sites = geopandas.read_file(real_data / "rts_nitze2021" / "study_sites.geojson")
    site = sites[sites["site"].str.contains("Herschel")].union_all().buffer(0.05)
    geographic = extract_footprints(pred, geographic=True)
    assert geographic.crs == "EPSG:4326"
    assert geographic.within(site).all()
    assert geographic["centroid_lat"].between(69.4, 69.7).all()
