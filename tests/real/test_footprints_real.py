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

from rtsx.footprints import (
    extract_footprints,
    level2_footprints,
    read_footprints,
    track_footprints,
    track_summary,
    validate_footprints,
    write_footprints,
)
from rtsx.footprints.geometry import centroids, measure
from rtsx.footprints.schema import COLUMNS, coerce

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
    assert footprints.equals(extract_footprints(pred.chunk(y=400, x=333)))
    back = read_footprints(write_footprints(footprints, tmp_path / "herschel.parquet"))
    pd.testing.assert_frame_equal(pd.DataFrame(back), pd.DataFrame(footprints))


def test_longitudes_are_those_of_the_site(pred, real_data):
    sites = geopandas.read_file(real_data / "rts_nitze2021" / "study_sites.geojson")
    site = sites[sites["site"].str.contains("Herschel")].union_all().buffer(0.05)
    geographic = extract_footprints(pred, geographic=True)
    assert geographic.crs == "EPSG:4326"
    assert geographic.within(site).all()
    assert geographic["centroid_lat"].between(69.4, 69.7).all()


@pytest.fixture(scope="module")
def level1(real_data):
    """All published outlines, as footprints of their images; those of one image that overlap united first."""
    outlines = geopandas.read_file(next((real_data / "rts_nitze2021").glob("*.shp"))).to_crs("EPSG:3413")
    outlines["geometry"] = outlines.make_valid()
    geometry = geopandas.GeoSeries(outlines.geometry.to_numpy(), crs=outlines.crs)
    area, perimeter = measure(np.asarray(geometry.array), geometry.crs)
    lat, lon = centroids(np.asarray(geometry.array), geometry.crs)
    dates = pd.to_datetime(outlines["image_date"]).to_numpy()
    table = dict.fromkeys(COLUMNS) | {
        "footprint_id": [f"o{number}" for number in range(len(outlines))],
        "class_name": "slump",
        "date": dates,
        "year": pd.DatetimeIndex(dates).year,
        "scene_id": outlines["image_id"].astype(str).to_numpy(),
        "area_m2": area,
        "perimeter_m": perimeter,
        "centroid_lat": lat,
        "centroid_lon": lon,
        "n_pixels": np.maximum(area // 9, 1),
        "touches_edge": False,
    }
    table |= {name: 1.0 for name in COLUMNS if name.startswith("prob_")} | {"prob_std": 0.0}
    return coerce(table, geometry)


def test_published_outlines_of_many_images_become_yearly_sets(level1):
    years = level2_footprints([level1])
    assert list(years) == [2018, 2019]
    for year, table in years.items():
        validate_footprints(table)
        images = level1[level1["year"] == year]
        assert len(table) < len(images)
        assert table.union_all().area == pytest.approx(images.union_all().area, rel=1e-7)
        # What a year shows is one layer: nothing in it overlaps.
        assert table.area.sum() == pytest.approx(table.union_all().area, rel=1e-7)
        assert table["n_images"].max() > 5
        shown = {scene for listed in table["scene_id"] for scene in listed.split(",")}
        assert shown == set(images["scene_id"])


def test_published_slumps_are_followed_from_year_to_year(level1):
    years = level2_footprints([level1])
    tracks = track_footprints(years)
    summary = track_summary(tracks).set_index("track_id")
    assert len(tracks) == sum(map(len, years.values()))
    for year, table in years.items():
        assert tracks.loc[tracks["year"] == year, "area_m2"].sum() == pytest.approx(table["area_m2"].sum())
    assert {"growing", "gone", "new"} <= set(summary["status"])
    followed = summary[summary["n_years"] == 2]
    assert len(followed) > 50
    # What is linked lies on common ground, and what is new in 2019 on none of 2018, or on a little of it.
    before = years[2018].union_all()
    new = tracks[(tracks["event"] == "new") & (tracks["year"] == 2019)]
    assert (new.intersection(before).area <= 0.2 * new.area).all()
    linked = tracks[(tracks["event"] != "new") & (tracks["year"] == 2019)]
    assert (linked.intersection(before).area > 0).all()
