"""Ten experts on the Bykovsky Peninsula: their agreement is reproduced, and predictions stand among them."""

import geopandas as gpd
import numpy as np
import pytest
import xarray as xr

import rtsx
from rtsx.cube import geobox_of
from rtsx.evaluation import annotator_agreement
from rtsx.labels import rasterize_labels, truth_array


@pytest.fixture(scope="module")
def chip(real_data):
    """One band of the Sentinel-2 chip, 251 x 251 pixels of 10 m in EPSG:32652."""
    folder = real_data / "rts_expert_s2l8" / "Bykovsky"
    return rtsx.open_cube(next(folder.glob("S2_*.tif")))


@pytest.fixture(scope="module")
def experts(real_data):
    """Outlines by expert."""
    folder = real_data / "rts_expert_s2l8" / "Bykovsky" / "experts"
    return {path.stem.split("_")[0]: gpd.read_file(path) for path in sorted(folder.glob("*.shp"))}


@pytest.fixture(scope="module")
def votes(chip, experts):
    """How many experts see a slump (y, x)."""
    geobox = geobox_of(chip)
    truths = [
        rasterize_labels(table.assign(class_name="slump"), geobox, classes=["slump"]) for table in experts.values()
    ]
    return np.sum([np.asarray(truth_array(truth, chip)) == 1 for truth in truths], axis=0)


@pytest.fixture(scope="module")
def majority(votes, experts):
    """Where at least half of them do (y, x)."""
    return votes >= len(experts) / 2


def prediction(chip, mask):
    """A prediction of a mask, certain of itself."""
    probability = np.where(mask, 90, 10).astype("uint8")
    pred = xr.Dataset(
        {
            "probability": (("y", "x"), probability, {"scale_factor": 0.01, "_FillValue": 255}),
            "binary": (("y", "x"), mask.astype("uint8"), {"_FillValue": 255}),
        },
        coords={name: chip.coords[name] for name in ("y", "x", "spatial_ref")},
    )
    return pred.chunk(y=100, x=77)


def test_the_agreement_of_the_experts_is_the_published_one(chip, experts, votes, majority):
    assert len(experts) == 10
    agreement = annotator_agreement(experts, chip)
    assert round(agreement.mean_pairwise_iou, 3) == 0.212
    assert agreement.majority_px == 887 == majority.sum()
    assert round(agreement.majority_px / agreement.counts.counted, 3) == 0.014
    # The tie of five is what decides: more than half would be another mask.
    assert (votes > 5).sum() == 699
    assert annotator_agreement(experts, chip.chunk(y=64, x=50)).to_json() == agreement.to_json()


def test_a_model_stands_among_the_experts(chip, experts, majority):
    bold, perfect = np.zeros_like(majority), majority
    bold[: majority.shape[0] // 2] = True
    given = {"perfect": prediction(chip, perfect), "bold": prediction(chip, bold)}
    table = annotator_agreement(experts, chip, models=given).table.set_index("name")
    assert table.loc["perfect", ["majority_iou", "rank"]].tolist() == [1.0, 1]
    assert table.loc["bold", "others_iou"] < table.loc["expert01", "others_iou"]
    assert table["rank"].max() <= 12


def test_scores_against_an_expert_are_those_of_his_pair(chip, experts, majority):
    """The IoU by pixels of a mask against outlines is that of two annotators who drew them."""
    pairs = annotator_agreement(experts, chip, models={"majority": prediction(chip, majority)}).pairs
    for name, outlines in experts.items():
        evaluation = rtsx.evaluate(prediction(chip, majority), outlines, bootstrap=0)
        assert evaluation.pooled["iou"].iloc[0] == pairs.loc["majority", name]


def test_outlines_of_two_experts_by_geometry_are_close_to_those_by_pixels(chip, experts):
    """Area IoU without any raster differs from that on pixels of 10 m by less than 0.02."""
    pairs = annotator_agreement(experts, chip).pairs
    for one, other in (("expert01", "expert06"), ("expert04", "expert05"), ("expert09", "expert10")):
        row = rtsx.evaluate(experts[one], experts[other].to_crs("EPSG:4326"), bootstrap=0).pooled.iloc[0]
        assert row["iou"] == pytest.approx(pairs.loc[one, other], abs=0.02)
        assert row["objects_found"] == len(experts[one])
