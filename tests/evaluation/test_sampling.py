"""Samples are random, the same for the same seed whatever the chunks, and what follows from them holds the truth."""

import re
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  registers .rio
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

import rtsx
from rtsx.errors import EvaluationError, FootprintError
from rtsx.evaluation import assess_accuracy, evaluate, expected_area, sample_ground, sample_outlines
from rtsx.evaluation.sampling import SAMPLE_COLUMNS, _DrawPixels
from rtsx.footprints import extract_footprints
from rtsx.geometry.pixels import PixelMesh
from rtsx.labels import StubLabelRaster
from rtsx.scores.estimates import StratumCounts, estimate_area, estimate_precision, estimate_recall

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "accuracy.md"


def make_map(seed=0, *, objects=30, size=240):
    rng = np.random.default_rng(seed)
    level = np.zeros((size, size), np.uint8)
    for _ in range(objects):
        y, x = rng.integers(12, size - 20, 2)
        side = rng.integers(3, 14)
        level[y : y + side, x : x + side] = rng.integers(50, 99)
    level[:10] = 255
    return xr.Dataset(
        {"probability": (("y", "x"), level, {"scale_factor": 0.01, "_FillValue": 255})},
        coords={"y": 4e6 - 3 * np.arange(size), "x": 5e5 + 3 * np.arange(size)},
    ).rio.write_crs("EPSG:32608")


@pytest.fixture(scope="module")
def pred():
    return make_map()


@pytest.fixture(scope="module")
def footprints(pred):
    return extract_footprints(pred, threshold=0.5, min_area_m2=0)


def pixels_of(sample):
    column = ((sample.geometry.x - 5e5) / 3).round().astype(int)
    row = ((4e6 - sample.geometry.y) / 3).round().astype(int)
    return row.to_numpy(), column.to_numpy()


def reviewed(sample, truth):
    return sample.assign(verdict=np.where(truth[pixels_of(sample)], "target", "other"))


def test_points_lie_in_their_strata_on_valid_ground(pred, footprints):
    sample = sample_ground(pred, footprints, size=90, near_m=30, seed=1)
    assert list(sample.columns[: len(SAMPLE_COLUMNS)]) == list(SAMPLE_COLUMNS)
    assert sample["stratum"].value_counts().to_dict() == {"found": 30, "near": 30, "elsewhere": 30}
    level = pred["probability"].values
    assert (level[pixels_of(sample)] != 255).all()
    found = level[pixels_of(sample)] >= 50
    assert (found == (sample["stratum"] == "found")).all()
    assert (sample["mapped"] == found).all()
    distance = sample.geometry.distance(footprints.union_all())
    assert (distance[sample["stratum"] == "near"] <= 31).all()
    assert (distance[sample["stratum"] == "elsewhere"] > 29).all()
    assert not sample.geometry.duplicated().any()
    sizes = sample.drop_duplicates("stratum").set_index("stratum")["stratum_size"]
    assert sizes.sum() == pytest.approx((level != 255).sum() * 9, rel=0.01)
    assert sizes["found"] == pytest.approx(footprints["area_m2"].sum(), rel=1e-6)


@pytest.mark.parametrize("chunks", [(77, 133), (240, 31)])
def test_chunks_change_no_point(pred, footprints, chunks):
    whole = sample_ground(pred, footprints, size=60, near_m=30, seed=2)
    lazy = sample_ground(pred.chunk(y=chunks[0], x=chunks[1]), footprints, size=60, near_m=30, seed=2)
    pd.testing.assert_frame_equal(lazy, whole, rtol=1e-12)
    other = sample_ground(pred, footprints, size=60, near_m=30, seed=3)
    assert not other.geometry.isin(whole.geometry).all()


def test_regions_have_strata_of_their_own(pred, footprints):
    west, east = (shapely.box(5e5 + a, 3.99e6, 5e5 + b, 4.01e6) for a, b in ((-10, 300), (300, 600)))
    regions = gpd.GeoDataFrame({"region": ["west", "east"]}, geometry=[west, east], crs="EPSG:32608")
    sample = sample_ground(pred, footprints, size=60, near_m=30, regions=regions.to_crs("EPSG:4326"), seed=1)
    assert sample["region"].value_counts().to_dict() == {"west": 30, "east": 30}
    x = sample.geometry.x - 5e5
    assert (x[sample["region"] == "west"] < 302).all()
    assert x[sample["region"] == "east"].between(298, 602).all()
    truth = pred["probability"].values >= 70
    accuracy = assess_accuracy(reviewed(sample, truth))
    assert accuracy.estimates["region"].unique().tolist() == ["east", "west", "all"]


def test_estimates_of_200_samples_hold_the_truth():
    """Of the kernel itself, because strata need not be painted 200 times."""
    rng = np.random.default_rng(3)
    size, units = 150, 80
    strata = np.zeros((size, size), np.uint8)
    strata[40:80, 40:110], strata[50:70, 60:90] = 1, 2
    truth = rng.random((size, size)) < np.choose(strata, [0.01, 0.1, 0.8])
    areas = PixelMesh(GeoBox((size, size), Affine(3, 0, 5e5, 0, -3, 4e6), "EPSG:32608"))
    window = (slice(0, size), slice(0, size))
    pixel, found = areas.areas_m2(window), strata == 2
    hits, total = pixel[truth & found].sum(), pixel[truth].sum()
    truths = (hits / pixel[found].sum(), hits / total, total)
    held = np.zeros(3)
    for seed in range(200):
        kernel = _DrawPixels(mesh=areas, found=StubLabelRaster(strata), regions=None, strata=3, size=units, seed=seed)
        drawn = kernel(np.ones((1, size, size), bool), window)
        right = truth[drawn.pixels["row"], drawn.pixels["column"]]
        counts = [
            StratumCounts(
                mapped=number == 2,
                size=drawn.area_m2[number],
                reviewed=units,
                target=int(right[drawn.pixels["stratum"] == number].sum()),
                finite=False,
            )
            for number in range(3)
        ]
        estimates = (estimate_precision(counts), estimate_recall(counts), estimate_area(counts))
        held += [each.low <= value <= each.high for each, value in zip(estimates, truths, strict=True)]
    assert ((held >= 180) & (held <= 198)).all(), held


@pytest.mark.parametrize("allocation", ["equal", "proportional"])
def test_outlines_are_drawn_from_each_stratum(footprints, allocation):
    sample = sample_outlines(
        footprints, size=16, confidence_edges=[0.75], area_edges_m2=[600], allocation=allocation, seed=4
    )
    assert len(sample) == 16
    assert sample["footprint_id"].is_unique
    for (stratum,), units in sample.groupby(["stratum"]):
        confident, large = "from 0.75" in stratum, "from 600" in stratum
        alike = footprints[(footprints["prob_max"] >= 0.75) == confident]
        alike = alike[(alike["area_m2"] >= 600) == large]
        assert (units["stratum_size"] == len(alike)).all()
        assert units["footprint_id"].isin(alike["footprint_id"]).all()
        assert units["inclusion_probability"].iloc[0] == len(units) / len(alike)
        assert len(units) >= min(2, len(alike))
    again = sample_outlines(
        footprints.sample(frac=1, random_state=1),
        size=16,
        confidence_edges=[0.75],
        area_edges_m2=[600],
        allocation=allocation,
        seed=4,
    )
    pd.testing.assert_frame_equal(again, sample)


def test_a_sample_of_all_outlines_is_certain(footprints):
    sample = sample_outlines(footprints, size=1000)
    assert len(sample) == len(footprints)
    verdicts = np.where(sample["prob_max"] > 0.7, "target", "other")
    estimate = assess_accuracy(sample.assign(verdict=verdicts)).estimates.iloc[0]
    assert estimate["low"] == pytest.approx(estimate["value"]) == pytest.approx(estimate["high"])
    assert estimate["value"] == pytest.approx((footprints["prob_max"] > 0.7).mean())


def test_what_cannot_be_drawn_is_refused(pred, footprints):
    with pytest.raises(EvaluationError, match="at least 2; got 1"):
        sample_outlines(footprints, size=1)
    with pytest.raises(EvaluationError, match="seed is a whole number from 0; got -1"):
        sample_ground(pred, footprints, size=9, seed=-1)
    with pytest.raises(EvaluationError, match=r"near_m is a distance from 0 to 10000000 m; got 1000000000000.0"):
        sample_ground(pred, footprints, size=9, near_m=1e12)
    with pytest.raises(EvaluationError, match=r"a cell is at least that of a pixel, here .*; got 0.001"):
        expected_area(pred, cell_m=0.001)
    with pytest.raises(
        FootprintError, match="edge_distance is a whole number of pixels from 0 to 4096, not 1000000000"
    ):
        extract_footprints(pred, edge_distance=10**9)
    with pytest.raises(EvaluationError, match="boundary is a whole number of pixels from 1 to 4096, not 1000000000"):
        evaluate(pred, truth=footprints, boundary=10**9)
    with pytest.raises(EvaluationError, match="confidence_edges ascend"):
        sample_outlines(footprints, size=9, confidence_edges=[0.5, 0.4])
    with pytest.raises(EvaluationError, match="region names a column"):
        sample_outlines(footprints, size=9, region="place")
    with pytest.raises(EvaluationError, match="there is none"):
        sample_outlines(footprints.iloc[:0], size=9)
    mixed = footprints.assign(class_name=["pond", *["slump"] * (len(footprints) - 1)])
    with pytest.raises(EvaluationError, match="are of pond, slump"):
        sample_outlines(mixed, size=9)
    elsewhere = footprints.set_geometry(footprints.translate(1e5))
    with pytest.raises(EvaluationError, match="No outline meets the map"):
        sample_ground(pred, elsewhere, size=9)
    with pytest.raises(EvaluationError, match="column 'region'"):
        sample_ground(pred, footprints, size=9, regions=footprints)
    blind = pred.assign(probability=pred["probability"] * 0 + np.uint8(255))
    blind["probability"].attrs = pred["probability"].attrs
    with pytest.raises(EvaluationError, match="no valid pixel"):
        sample_ground(blind, footprints, size=9)


def test_outlines_of_another_year_than_the_map_are_refused(pred, footprints):
    dated = pred.assign_coords(time=2024)
    with pytest.raises(
        EvaluationError, match=r"The map is of 2024, and outlines are of 2023: .* Give the outlines of its year"
    ):
        sample_ground(dated, footprints.assign(year=[2023, *[2024] * (len(footprints) - 1)]), size=30)
    assert len(sample_ground(dated, footprints.assign(year=2024), size=30)) == 30


def test_the_page_runs(pred, footprints, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made = pred.assign(binary=(pred["probability"] >= 50).astype("uint8")).assign_attrs(bundle_digest="0" * 64)
    rtsx.write_cube(made, "map.zarr")
    footprints = footprints.assign(bundle_digest="0" * 64)
    footprints.to_parquet("slumps.parquet")
    footprints[footprints["prob_max"] > 0.6].to_parquet("truth.parquet")
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(block, PAGE.name, "exec"), names)
    printed = capsys.readouterr().out
    assert "area, km2" in printed
    assert "precision at least 0.6" in printed
    assert "confidence_class" in printed
