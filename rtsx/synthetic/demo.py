"""The scene and the bundle of the demo, and the seeds that keep it honest."""

from importlib import resources
from pathlib import Path

from rtsx.synthetic.spec import SceneSpec

__all__ = ["DEMO_SEED", "TEST_SEEDS", "TRAINING_SEEDS", "VALIDATION_SEEDS", "demo_bundle_path", "demo_spec"]

DEMO_SEED = 7
"""Seed of the demo's scene; no training, no choice of a threshold has seen it."""
TRAINING_SEEDS = tuple(range(1000, 1064))
"""Seeds that the demo's bundle was trained on."""
VALIDATION_SEEDS = tuple(range(2000, 2012))
"""Seeds that chose its epoch and threshold."""
TEST_SEEDS = tuple(range(3000, 3008))
"""Seeds that only measured it, once it was done."""


def demo_spec(*, size: int = 2048, seed: int = DEMO_SEED) -> SceneSpec:
    """Return the demo's scene: 37 km² of tundra, ten times as many slumps as in a dense real region.

    Examples
    --------
    >>> demo_spec().seed in TRAINING_SEEDS + VALIDATION_SEEDS + TEST_SEEDS
    False
    """
    return SceneSpec(seed=seed, size=size)


def demo_bundle_path() -> Path:
    """Folder of the small bundle that ships with rtsx, trained by `python -m rtsx.cli.train_demo`.

    Examples
    --------
    >>> demo_bundle_path().name
    'bundle'
    """
    return Path(str(resources.files("rtsx.synthetic"))) / "bundle"
