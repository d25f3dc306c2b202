"""Training sees what inference will see: same scaling, same mask, nothing from under it."""

import numpy as np
import pytest
import torch

from rtsx.cli.demo_examples import INPUTS, PACKINGS, Example, cut, make_examples, varied_spec
from rtsx.model.inputs import prepare, valid_pixels
from rtsx.synthetic import SceneSpec, make_scene


@pytest.fixture(scope="module")
def scene():
    return make_scene(SceneSpec(seed=41, size=320, slumps_per_km2=6.0))


@pytest.fixture(scope="module")
def example(scene):
    return Example.from_scene(scene)


def test_channels_are_those_of_inference(scene, example):
    stored = dict(zip(("blue", "green", "red", "nir"), scene.image, strict=True))
    valid = valid_pixels(stored, packings=PACKINGS, mask=scene.good_mask())
    np.testing.assert_array_equal(example.valid.numpy(), valid)
    tensors = {name: torch.from_numpy(layer.astype(np.float32)) for name, layer in stored.items()}
    expected = prepare(tensors, torch.from_numpy(valid), inputs=INPUTS, packings=PACKINGS, fill=0.0)
    torch.testing.assert_close(example.channels(), expected)


def test_nothing_shows_from_under_the_mask(example):
    hidden = torch.where(example.valid, example.stored, torch.tensor(9_999, dtype=torch.int16))
    other = Example(stored=hidden, valid=example.valid, truth=example.truth)
    assert not torch.equal(hidden, example.stored)
    assert torch.equal(other.channels(), example.channels())


def test_a_crop_is_repeatable_and_often_holds_a_slump(example):
    first = [cut(example, crop=64, rng=np.random.default_rng(3)) for _ in range(2)]
    for one, two in zip(*first, strict=True):
        assert torch.equal(one, two)
    rng = np.random.default_rng(4)
    crops = [cut(example, crop=64, rng=rng) for _ in range(60)]
    assert {tuple(channels.shape) for channels, _, _ in crops} == {(5, 64, 64)}
    assert np.mean([bool((truth & valid).any()) for _, truth, valid in crops]) > 0.5
    assert all((channels[:, ~valid] == 0).all() for channels, _, valid in crops)


def test_scenes_of_a_set_differ_in_date_and_sky():
    specs = [varied_spec(seed, slumps_per_km2=1.0) for seed in range(1000, 1010)]
    assert len({spec.date for spec in specs}) > 5
    assert len({spec.cloud_cover for spec in specs}) == 10
    assert varied_spec(1000, slumps_per_km2=1.0) == specs[0]


def test_processes_make_the_same_examples(scene, example):
    (made,) = make_examples([scene.spec], label="scene", processes=1)
    for name in ("stored", "valid", "truth"):
        assert torch.equal(getattr(made, name), getattr(example, name))
