""""""

import pickle

import geopandas
import numpy as np
import pytest
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from rtsx.errors import LabelError
from rtsx.labels import RasterizedLabels, open_label_raster, rasterize_labels

RASTER = GeoBox((40, 50), Affine(30, 0, 600, 0, -30, -300), "EPSG:3413")


def labels_of(*outlines, names=None, crs="EPSG:3413"):
    table = {"class_name": list(names or ["slump"] * len(outlines))}
    return geopandas.GeoDataFrame(table, geometry=list(outlines), crs=crs)


def everything(truth):
    return truth.read((slice(0, truth.shape[0]), slice(0, truth.shape[1])))


def test_the_last_label_wins():
    below, above = shapely.box(700, -900, 1200, -500), shapely.box(900, -1000, 1500, -600)
    both = rasterize_labels(labels_of(below, above, names=["a", "b"]), RASTER, classes=["a", "b"])
    assert everything(both)[15, 15] == 2
    turned = rasterize_labels(labels_of(above, below, names=["b", "a"]), RASTER, classes=["a", "b"])
    assert everything(turned)[15, 15] == 1


def test_says_how_many_labels_meet_the_raster():
    inside, beside = shapely.box(700, -900, 800, -500), shapely.box(570, -900, 590, -800)
    far = shapely.box(90_000, -900, 90_100, -800)
    truth = rasterize_labels(labels_of(inside, beside, far), RASTER, classes=["slump"], ignore=3)
    assert truth.count == 1
    assert len(truth.outlines) == 2  # what lies beside it may have a band in it
    elsewhere = rasterize_labels(labels_of(far), RASTER, classes=["slump"])
    assert elsewhere.count == 0
    assert not everything(elsewhere).any()


def test_no_labels_are_no_error():
    truth = rasterize_labels(labels_of(), RASTER, classes=["slump"], ignore=2)
    assert truth.count == 0
    assert not everything(truth).any()


def test_is_a_value():
    truth = rasterize_labels(labels_of(shapely.box(700, -900, 1200, -500)), RASTER, classes=["slump"], ignore=1)
    assert isinstance(truth, RasterizedLabels)
    whole = everything(truth)
    again = pickle.loads(pickle.dumps(truth))
    np.testing.assert_array_equal(everything(again), whole)
    assert again.digest == truth.digest
    assert len(truth.digest) == 64


@pytest.mark.parametrize(
    "other",
    [
        {"ignore": 2},
        {"classes": ["slump", "pond"]},
        {"outline": shapely.box(700, -900, 1200, -501)},
        {"raster": GeoBox((40, 51), Affine(30, 0, 600, 0, -30, -300), "EPSG:3413")},
        {"raster": GeoBox((40, 50), Affine(30, 0, 601, 0, -30, -300), "EPSG:3413")},
    ],
)
def test_the_digest_tells_truths_apart(other):
    given = {"outline": shapely.box(700, -900, 1200, -500), "raster": RASTER, "classes": ["slump"], "ignore": 1}
    digests = {
        rasterize_labels(labels_of(one["outline"]), one["raster"], classes=one["classes"], ignore=one["ignore"]).digest
        for one in (given, given | other)
    }
    assert len(digests) == 2


def test_the_digest_knows_what_reviewers_refused():
    here, there = labels_of(shapely.box(700, -900, 1200, -500)), labels_of(shapely.box(1300, -900, 1400, -500))
    without, refused = (rasterize_labels(here, RASTER, classes=["slump"], refused=some) for some in (None, there))
    np.testing.assert_array_equal(
        everything(refused), everything(without)
    )  # which training shows more often all the same
    assert refused.digest != without.digest


def test_the_digest_does_not_know_labels_elsewhere():
    here, far = shapely.box(700, -900, 1200, -500), shapely.box(90_000, -900, 90_100, -800)
    one, two = (rasterize_labels(labels_of(*some), RASTER, classes=["slump"]) for some in ((here,), (here, far)))
    assert one.digest == two.digest


ON_THE_ANTIMERIDIAN = GeoBox((60, 60), Affine(20, 0, 0, 0, -20, 0), "EPSG:3413")


def square_across(style):
    """A label across the antimeridian in degrees, as the field writes it."""
    west, east = shapely.box(179.99, 65.0, 180, 65.01), shapely.box(-180, 65.0, -179.99, 65.01)
    return {
        "split": shapely.MultiPolygon([west, east]),
        "jumping": shapely.Polygon([(179.99, 65.0), (-179.99, 65.0), (-179.99, 65.01), (179.99, 65.01)]),
        "beyond 180": shapely.box(179.99, 65.0, 180.01, 65.01),
        "below -180": shapely.box(-180.01, 65.0, -179.99, 65.01),
    }[style]


def rasters_across():
    centre = geopandas.GeoSeries([shapely.Point(180, 65.005)], crs="EPSG:4326")
    yield from (
        pytest.param(GeoBox((90, 90), Affine(30, 0, place.x - 1350, 0, -30, place.y + 1350), crs), id=f"{crs}")
        for crs in ("EPSG:3413", "EPSG:3571", "EPSG:32601", "EPSG:32660")
        for place in [centre.to_crs(crs).iloc[0]]
    )
    yield pytest.param(
        GeoBox((60, 60), Affine(0.001, 0, 179.97, 0, -0.0005, 65.02), "EPSG:4326"), id="degrees beyond 180"
    )
    yield pytest.param(
        GeoBox((60, 60), Affine(0.001, 0, -180.03, 0, -0.0005, 65.02), "EPSG:4326"), id="degrees below -180"
    )


@pytest.mark.parametrize("style", ["split", "jumping", "beyond 180", "below -180"])
@pytest.mark.parametrize("raster", list(rasters_across()))
def test_labels_across_the_antimeridian(raster, style):
    truth = rasterize_labels(labels_of(square_across(style), crs="EPSG:4326"), raster, classes=["slump"])
    values = everything(truth)
    height, width = raster.shape.yx
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    affine = raster.affine
    x, y = affine.a * columns + affine.c, affine.e * rows + affine.f
    lonlat = geopandas.GeoSeries.from_xy(x.ravel(), y.ravel(), crs=raster.crs.to_wkt()).to_crs("EPSG:4326")
    lon, lat = lonlat.x.to_numpy() % 360, lonlat.y.to_numpy()
    expected = ((lon > 179.99) & (lon < 180.01) & (lat > 65.0) & (lat < 65.01)).reshape(values.shape)
    assert expected.any()
    assert (values != expected).sum() <= 2  # centres that lie on the border to a hundredth of a pixel
    assert truth.count == 1


def test_a_projection_that_ends_there_gets_both_halves():
    from_mercator = {}
    for name, left in (("west", 20_037_508.34 - 1500), ("east", -20_037_508.34)):
        raster = GeoBox((60, 50), Affine(30, 0, left, 0, -30, 9_609_500), "EPSG:3857")
        values = [
            everything(rasterize_labels(labels_of(square_across(style), crs="EPSG:4326"), raster, classes=["slump"]))
            for style in ("split", "jumping", "beyond 180", "below -180")
        ]
        for other in values[1:]:
            np.testing.assert_array_equal(other, values[0])
        from_mercator[name] = values[0]
    assert from_mercator["west"].any()
    assert from_mercator["east"].any()
    assert not from_mercator["west"][:, :10].any()  # 0.01 degrees are 37 px
    assert not from_mercator["east"][:, -10:].any()


def test_labels_that_a_projection_tore_apart_are_put_together():
    whole = labels_of(square_across("beyond 180"), crs="EPSG:4326")
    torn = geopandas.GeoSeries([square_across("jumping")], crs="EPSG:4326").to_crs("EPSG:3857")
    assert np.ptp(torn.total_bounds[[0, 2]]) > 4e7
    centre = geopandas.GeoSeries([shapely.Point(180, 65.005)], crs="EPSG:4326").to_crs("EPSG:3413").iloc[0]
    raster = GeoBox((90, 90), Affine(30, 0, centre.x - 1350, 0, -30, centre.y + 1350), "EPSG:3413")
    expected = everything(rasterize_labels(whole, raster, classes=["slump"]))
    found = everything(rasterize_labels(labels_of(*torn, crs="EPSG:3857"), raster, classes=["slump"]))
    np.testing.assert_array_equal(found, expected)


def test_long_edges_stay_where_they_are_on_the_ground():
    # 4 degrees along the 70th parallel are 152 km; the chord lies up to 1.25 km off the parallel.
    label = shapely.box(-137, 70, -133, 70.5)
    centre = geopandas.GeoSeries([shapely.Point(-135, 70)], crs="EPSG:4326").to_crs("EPSG:3413").iloc[0]
    raster = GeoBox((100, 100), Affine(30, 0, centre.x - 1500, 0, -30, centre.y + 1500), "EPSG:3413")
    values = everything(rasterize_labels(labels_of(label, crs="EPSG:4326"), raster, classes=["slump"]))
    rows, columns = np.mgrid[0:100, 0:100] + 0.5
    x, y = centre.x - 1500 + 30 * columns, centre.y + 1500 - 30 * rows
    latitude = geopandas.GeoSeries.from_xy(x.ravel(), y.ravel(), crs="EPSG:3413").to_crs("EPSG:4326").y.to_numpy()
    np.testing.assert_array_equal(values, (latitude >= 70).reshape(100, 100))
    assert 0 < values.mean() < 1


def test_a_raster_around_the_pole():
    raster = GeoBox((80, 80), Affine(1000, 0, -40_000, 0, -1000, 40_000), "EPSG:3413")
    cap = shapely.Polygon([*((lon, 89.8) for lon in range(-180, 181, 5)), (180, 90), (-180, 90)])
    values = everything(rasterize_labels(labels_of(cap, crs="EPSG:4326"), raster, classes=["slump"]))
    assert values[30:50, 30:50].all()
    assert not values[:5].any()


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32608", "EPSG:3857", "EPSG:3571", "ESRI:54034", "EPSG:4269"])
def test_labels_of_any_crs_lie_in_the_same_pixels(crs):
    centre = geopandas.GeoSeries([shapely.Point(-138.9, 69.6)], crs="EPSG:4326").to_crs("EPSG:3413").iloc[0]
    raster = GeoBox((60, 60), Affine(3, 0, centre.x - 90, 0, -3, centre.y + 90), "EPSG:3413")
    ring = centre.buffer(60, quad_segs=32).difference(centre.buffer(20))
    expected = everything(rasterize_labels(labels_of(ring), raster, classes=["slump"]))
    found = everything(rasterize_labels(labels_of(ring).to_crs(crs), raster, classes=["slump"]))
    assert expected.sum() > 1000
    assert (found != expected).sum() <= 2


def test_a_turned_raster():
    turned = GeoBox((40, 40), Affine(0, 30, 600, 30, 0, -1500), "EPSG:3413")
    values = everything(rasterize_labels(labels_of(shapely.box(600, -1500, 660, -900)), turned, classes=["slump"]))
    assert values[:2, :20].all()
    assert values.sum() == 40


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (labels_of(shapely.box(0, 0, 1, 1), names=["slumps"]), {}, r"none of the classes slump.*row 0 with 'slumps'.*Did you mean 'slump'"),
        (labels_of(shapely.box(0, 0, 1, 1), names=[None]), {}, "row 0 with None"),
        (labels_of(shapely.box(0, 0, 1, 1)).drop(columns="class_name"), {}, "have a column 'class_name'.*standardise_labels"),
        (labels_of(shapely.box(0, 0, 1, 1), crs=None), {}, "Labels have a CRS, but it is None.*set_crs"),
        (labels_of(shapely.Point(0, 0)), {}, "row 0: Point.*standardise_labels"),
        (labels_of(None), {}, "row 0: nothing"),
        (labels_of(shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])), {}, "row 0: Polygon: Self-intersection"),
        (labels_of(shapely.box(0, 0, 1, 1), crs="EPSG:4978"), {}, "neither geographic nor projected"),
        (labels_of(shapely.box(0, 0, 1, 1)), {"classes": []}, "1 to 254 classes"),
        (labels_of(shapely.box(0, 0, 1, 1)), {"classes": ["slump", "slump"]}, "Name each class once"),
        (labels_of(shapely.box(0, 0, 1, 1)), {"ignore": -1}, "at least 0; got -1"),
        (labels_of(shapely.box(0, 0, 1, 1)), {"ignore": 1.5}, "whole number of pixels"),
        (labels_of(shapely.box(0, 91, 1, 92), crs="EPSG:4326"), {}, "latitude of 92.0"),
    ],
)  # fmt: skip
def test_refuses(labels, options, message):
    with pytest.raises(LabelError, match=message):
        rasterize_labels(labels, RASTER, **{"classes": ["slump"]} | options)


def test_refuses_a_raster_without_crs():
    with pytest.raises(LabelError, match=r"rasters that have a CRS.*write_crs"):
        rasterize_labels(
            labels_of(shapely.box(0, 0, 1, 1)), GeoBox((2, 2), Affine(3, 0, 0, 0, -3, 0), None), classes=["slump"]
        )


COVER = xr.DataArray(np.array([[1, 2, 3, 3], [0, 3, 9, 3]], np.int16), dims=("y", "x"))
WHOLE = (slice(0, 2), slice(0, 4))


def test_codes_become_classes():
    truth = open_label_raster(COVER, classes={"low": [3], "wet": [1, 9]}, ignored=[0])
    assert truth.read(WHOLE).tolist() == [[2, 0, 1, 1], [255, 1, 2, 1]]
    assert truth.shape == (2, 4)
    assert truth.classes == ("low", "wet")


def test_what_the_raster_calls_missing_is_ignored_unless_it_is_a_class():
    told = COVER.assign_attrs(_FillValue=9)
    assert open_label_raster(told, classes={"low": [3]}).read(WHOLE)[1, 2] == 255
    assert open_label_raster(told, classes={"low": [9]}).read(WHOLE)[1, 2] == 1


def test_ignored_pixels_are_no_border():
    row = xr.DataArray(np.array([[0, 0, 9, 1, 1, 0, 0]], np.uint8), dims=("y", "x"))
    truth = open_label_raster(row, classes={"a": [1]}, ignored=[9], ignore=1)
    assert truth.read((slice(0, 1), slice(0, 7))).tolist() == [[0, 0, 255, 1, 255, 255, 0]]


def test_nothing_is_read_before_a_window_is(monkeypatch):
    dask = pytest.importorskip("dask")

    def refuse(*args, **kwargs):
        raise AssertionError("computed")

    with dask.config.set(scheduler=refuse):
        truth = open_label_raster(COVER.chunk(x=2), classes={"low": [3]}, ignore=2)
        with pytest.raises(AssertionError, match="computed"):
            truth.read(WHOLE)


def test_raster_truth_is_a_value():
    truth = open_label_raster(COVER, classes={"low": [3]})
    again = pickle.loads(pickle.dumps(truth))
    assert again.digest == truth.digest == open_label_raster(COVER.chunk(y=1), classes={"low": [3]}).digest
    assert open_label_raster(COVER, classes={"low": [2]}).digest != truth.digest
    assert open_label_raster(COVER, classes={"low": [3]}, ignore=1).digest != truth.digest
    assert open_label_raster(COVER + 1, classes={"low": [3]}).digest != truth.digest


def test_masks_of_booleans():
    assert open_label_raster(COVER == 3, classes={"low": [1]}).read(WHOLE).sum() == 4


@pytest.mark.parametrize(
    ("raster", "options", "message"),
    [
        (COVER.expand_dims("band"), {}, r"dimensions \(y, x\)"),
        (COVER.astype(float), {}, "holds float64.*raster.fillna"),
        (COVER, {"classes": {"a": []}}, "Each class has codes"),
        (COVER, {"classes": {"a": [1], "b": [1]}}, "Give each code to one"),
        (COVER, {"classes": {"a": [1]}, "ignored": [1]}, "Give each code to one"),
        (COVER, {"classes": {}}, "1 to 254 classes"),
        (COVER, {"ignore": -2}, "at least 0; got -2"),
    ],
)
def test_raster_truth_refuses(raster, options, message):
    with pytest.raises(LabelError, match=message):
        open_label_raster(raster, **{"classes": {"low": [3]}} | options)
