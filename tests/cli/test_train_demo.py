"""The bundle that ships: small, honest about its making, and good on ground it has never seen."""

import json

import pytest

from rtsx.cli.demo_examples import INPUTS, Example
from rtsx.cli.demo_training import Trained, TrainingPlan, build_network, count_pixels
from rtsx.cli.train_demo import make_bundle
from rtsx.model import ModelBundle
from rtsx.synthetic import (
    DEMO_SEED,
    TEST_SEEDS,
    TRAINING_SEEDS,
    VALIDATION_SEEDS,
    SceneSpec,
    demo_bundle_path,
    make_scene,
)


def test_no_seed_serves_twice():
    sets = [set(TRAINING_SEEDS), set(VALIDATION_SEEDS), set(TEST_SEEDS), {DEMO_SEED}]
    assert sum(map(len, sets)) == len(set.union(*sets))


def test_the_shipped_bundle_is_small_and_says_how_it_was_made():
    files = list(demo_bundle_path().iterdir())
    assert sum(file.stat().st_size for file in files) < 8_000_000
    bundle = ModelBundle.open(demo_bundle_path())
    assert bundle.layers == ("blue", "green", "red", "nir", "ndvi")
    assert bundle.inputs == INPUTS
    assert bundle.classes == ("slump",)
    made = json.loads(json.dumps(dict(bundle.provenance)))
    assert made["command"].startswith("python -m rtsx.cli.train_demo")
    assert made["plan"]["training_seeds"] == list(TRAINING_SEEDS)
    assert made["validation_iou"] > 0.7
    assert set(made["test_iou"]) == {str(seed) for seed in TEST_SEEDS}
    assert min(made["test_iou"].values()) > 0.6


def test_the_shipped_bundle_finds_slumps_on_unseen_ground():
    bundle = ModelBundle.open(demo_bundle_path())
    network = bundle.source.load_module()
    scenes = [make_scene(SceneSpec(seed=seed, size=640, slumps_per_km2=2.0)) for seed in (51, 52)]
    counts = count_pixels(network, [Example.from_scene(scene) for scene in scenes], thresholds=[bundle.threshold])
    hit, found, true = counts.sum(axis=(0, 1))
    assert true > 5_000
    assert hit / (found + true - hit) > 0.6


def test_a_bundle_keeps_plan_and_scores(tmp_path):
    plan = TrainingPlan(steps=100)
    trained = Trained(network=build_network(plan).eval(), threshold=0.45, iou=0.81234)
    bundle = make_bundle(trained, plan=plan, provenance={"command": "here"})
    bundle.save(tmp_path / "bundle")
    opened = ModelBundle.open(tmp_path / "bundle")
    assert opened.threshold == 0.45
    assert opened.stride == 16
    assert opened.provenance["validation_iou"] == pytest.approx(0.8123)
    assert opened.provenance["plan"]["steps"] == 100
