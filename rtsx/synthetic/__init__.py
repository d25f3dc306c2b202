"""Synthetic tundra with thaw slumps, in the formats of real data: for the demo, tests and benchmarks."""

from rtsx.synthetic.demo import (
    DEMO_SEED,
    TEST_SEEDS,
    TRAINING_SEEDS,
    VALIDATION_SEEDS,
    demo_bundle_path,
    demo_spec,
)
from rtsx.synthetic.ground import Ground, make_ground
from rtsx.synthetic.scene import Scene, SceneFiles, make_scene, write_scene
from rtsx.synthetic.spec import GroundSpec, SceneSpec

__all__ = [
    "DEMO_SEED",
    "TEST_SEEDS",
    "TRAINING_SEEDS",
    "VALIDATION_SEEDS",
    "Ground",
    "GroundSpec",
    "Scene",
    "SceneFiles",
    "SceneSpec",
    "demo_bundle_path",
    "demo_spec",
    "make_ground",
    "make_scene",
    "write_scene",
]
