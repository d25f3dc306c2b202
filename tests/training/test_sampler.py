from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from rtsx.errors import TrainingError
from rtsx.labels import IGNORED, StubLabelRaster
from rtsx.training import SamplingSpec, TrainingScene
from rtsx.training.run_folder import RunFolder
from rtsx.training.sampler import (
    TileAddress,
    TrainingPlan,
    negatives_per_positive,
    sample_epoch,
    tiles_of_epoch,
    validation_tiles,
)
from rtsx.training.tile_index import TileIndex, index_tiles
from tests.training.little import make_recipe
from tests.training.scenes import INPUTS, make_cube, make_scene, trusted, truth_of

TILE = 32
SCENES = [make_scene("a", blobs=3, shape=(200, 220)), make_scene("b", shape=(150, 160), seed=1, blobs=2)]
INDEX = index_tiles(SCENES, inputs=INPUTS, tile=TILE, min_valid=0.3)
PLAIN = SamplingSpec(jitter=False)


def labelled(address: TileAddress) -> int:
    scene = SCENES[address.scene]
    y, x = address.start
    truth, valid = truth_of(scene), trusted(scene.cube)
    window = np.s_[y : y + TILE, x : x + TILE]
    assert valid[window].shape == (TILE, TILE), "a tile lies within its scene"
    assert valid[window].mean() >= 0.3
    return int((valid & (truth != 0) & (truth != IGNORED))[window].sum())


def draw(**changes):
    arguments = {"sampling": PLAIN, "epoch": 0, "epochs": 3, "seed": 0} | changes
    return sample_epoch(INDEX, **arguments)


def test_an_epoch_shows_each_positive_once_and_negatives_by_their_ratio():
    drawn = draw(sampling=SamplingSpec(negatives=0.5, jitter=False))
    positives = [address for address in drawn if labelled(address)]
    assert len(set(positives)) == len(positives) == INDEX.n_positive
    assert len(drawn) - len(positives) == round(0.5 * INDEX.n_positive)
    assert {address.scene for address in drawn} == {0, 1}


def test_a_draw_is_a_function_of_seed_and_epoch():
    assert draw() == draw()
    assert len({draw(), draw(epoch=1), draw(seed=1), draw(epoch=1, seed=1)}) == 4


def test_a_count_is_kept_and_every_tile_gets_its_turn():
    drawn = draw(count=30, sampling=SamplingSpec(negatives=2, jitter=False))
    assert len(drawn) == 30
    assert sum(labelled(address) > 0 for address in drawn) == 10
    many = draw(count=3 * INDEX.n_positive, sampling=SamplingSpec(negatives=0, jitter=False))
    assert set(Counter(many).values()) == {3}


def test_negatives_grow_geometrically():
    spec = SamplingSpec(negatives=1, final_negatives=20)
    ratios = [negatives_per_positive(spec, epoch=epoch, epochs=5) for epoch in range(5)]
    assert ratios[0] == 1
    assert ratios[-1] == pytest.approx(20)
    np.testing.assert_allclose(np.diff(np.log(ratios)), np.log(20) / 4)
    assert negatives_per_positive(spec, epoch=0, epochs=1) == 1
    counts = [
        Counter(labelled(address) > 0 for address in draw(sampling=spec, epoch=epoch, epochs=2)) for epoch in (0, 1)
    ]
    assert counts[0][False] == counts[0][True]
    assert counts[1][False] == 20 * counts[1][True]


def test_jitter_moves_tiles_and_keeps_what_they_are():
    spec = SamplingSpec(negatives=1, jitter=True)
    unmoved = {(number, tuple(start)) for number, scene in enumerate(INDEX.scenes) for start in scene.starts.tolist()}
    seen = set()
    for epoch in range(10):
        drawn = draw(sampling=spec, epoch=epoch)
        # Every tile is checked by `labelled` to be within its scene and valid enough.
        assert sum(labelled(address) > 0 for address in drawn) == INDEX.n_positive
        seen |= {(address.scene, address.start) for address in drawn}
    assert len(seen - unmoved) > len(seen & unmoved)
    starts = np.array([start for _, start in seen])
    assert len(np.unique(starts % 16, axis=0)) > 50, "tiles move by single pixels"


def test_positives_are_mixed_with_negatives_and_scenes_with_each_other():
    drawn = draw(sampling=SamplingSpec(negatives=1, jitter=False))
    first = drawn[: len(drawn) // 2]
    assert 0.3 < np.mean([labelled(address) > 0 for address in first]) < 0.7
    assert {address.scene for address in first} == {0, 1}


def test_scenes_without_negatives_are_drawn_from_all_the_same():
    index = index_tiles([make_scene(shape=(32, 32), blobs=20)], inputs=INPUTS, tile=32, min_valid=0.05)
    assert index.n_negative == 0
    assert len(sample_epoch(index, sampling=PLAIN, epoch=0, epochs=1, seed=0)) == 1
    assert len(sample_epoch(index, sampling=PLAIN, epoch=0, epochs=1, seed=0, count=8)) == 8


def test_an_index_without_positives_is_refused():
    scene = replace(INDEX.scenes[0], labelled=np.zeros_like(INDEX.scenes[0].labelled))
    nothing = TileIndex(tile=32, min_valid=0.05, scenes=(scene,))
    with pytest.raises(TrainingError, match="No tile with a label is left to draw"):
        sample_epoch(nothing, sampling=PLAIN, epoch=0, epochs=1, seed=0)


def test_a_scene_smaller_than_a_tile_has_one():
    index = index_tiles([make_scene(shape=(20, 50), blobs=20)], inputs=INPUTS, tile=32, min_valid=0.05)
    drawn = sample_epoch(index, sampling=SamplingSpec(negatives=0), epoch=0, epochs=1, seed=0)
    assert {address.start[0] for address in drawn} == {0}
    assert {address.start[1] for address in drawn} <= set(range(19))


@pytest.mark.parametrize("tile", [32, 33, 256])
def test_validation_counts_every_valid_pixel_once(tile):
    index = index_tiles(SCENES, inputs=INPUTS, tile=tile, min_valid=0.3)
    addresses = validation_tiles(index)
    assert len(set(addresses)) == len(addresses)
    for number, scene in enumerate(SCENES):
        counted = np.zeros(scene.truth.shape, int)
        for address in addresses:
            if address.scene == number:
                (y, x), (skip_y, skip_x) = address.start, address.skipped
                assert y + tile <= counted.shape[0] or y == 0
                counted[y + skip_y : y + tile, x + skip_x : x + tile] += 1
        assert (counted[trusted(scene.cube)] == 1).all()
        assert counted.max() == 1


def far(count, **changes):
    """An epoch over two scenes of 20 by 20 blocks, of which every fourth has labels."""
    truth = np.zeros((1280, 1280), np.uint8)
    truth[:, 8::256] = 1
    cube = make_cube((1280, 1280), with_mask=False, layers=("nir",))
    scenes = [TrainingScene(name=name, cube=cube, truth=StubLabelRaster(truth)) for name in "ab"]
    index = index_tiles(scenes, inputs=None, tile=8, min_valid=0.05)
    spec = SamplingSpec(jitter=False, **changes)
    drawn = sample_epoch(index, sampling=spec, epoch=0, epochs=1, seed=0, count=count)
    blocks = [(address.scene, address.start[0] // 64, address.start[1] // 64) for address in drawn]
    has_label = [truth[y : y + 8, x : x + 8].any() for y, x in (address.start for address in drawn)]
    return drawn, blocks, np.array(has_label)


def test_blocks_at_once_keep_neighbours_together_and_labels_apart():
    plain, _, _ = far(3000)
    drawn, blocks, has_label = far(3000, blocks_at_once=4)
    assert sorted(drawn, key=str) == sorted(plain, key=str), "the same tiles in another order"
    first = {block: blocks.index(block) for block in blocks}
    last = {block: len(blocks) - 1 - blocks[::-1].index(block) for block in blocks}
    open_at = [sum(first[block] <= place <= last[block] for block in first) for place in range(0, 3000, 50)]
    assert max(open_at) <= 4
    parts = has_label.reshape(10, 300).mean(1)
    assert parts.min() > 0.25
    assert parts.max() < 0.75
    assert {address.scene for address in drawn[:300]} == {0, 1}


def test_validation_goes_block_by_block():
    index = index_tiles(SCENES, inputs=INPUTS, tile=8, min_valid=0.3)
    blocks = [(one.scene, one.start[0] // 64, one.start[1] // 64) for one in validation_tiles(index)]
    assert blocks == sorted(blocks)
    assert len(set(blocks)) > 20


def test_at_least_one_block_is_shown_at_once():
    with pytest.raises(TrainingError, match="blocks_at_once is at least 1; got 0"):
        SamplingSpec(blocks_at_once=0)


def test_tiles_drawn_by_pixel_come_as_often_as_they_have_labelled_pixels():
    drawn = Counter(draw(count=6000, sampling=SamplingSpec(negatives=0, jitter=False, drawn_by="pixel")))
    pixels = {address: labelled(address) for address in drawn}
    most, least = max(drawn, key=pixels.__getitem__), sorted(drawn, key=pixels.__getitem__)[len(drawn) // 4]
    total = sum(scene.labelled.sum() for scene in INDEX.scenes)
    for address in (most, least):
        assert drawn[address] / 6000 == pytest.approx(pixels[address] / total, rel=0.35)


def test_unknown_ways_to_draw_are_refused():
    with pytest.raises(TrainingError, match="drawn_by 'tile' or 'pixel'; got 'area'"):
        SamplingSpec(drawn_by="area")


@pytest.mark.parametrize("count", [None, 1, 7, 30])
@pytest.mark.parametrize("negatives", [0, 0.5, 3])
def test_an_epoch_has_as_many_tiles_as_are_counted_beforehand(negatives: float, count: int | None):
    sampling = SamplingSpec(negatives=negatives, jitter=False)
    drawn = draw(sampling=sampling, count=count)
    positives = sum(labelled(address) > 0 for address in drawn)
    there = (INDEX.n_positive, INDEX.n_negative)
    counted = tiles_of_epoch(there, sampling=sampling, epoch=0, epochs=3, count=count)
    assert counted == (positives, len(drawn) - positives)


def test_planning_draws_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr("rtsx.training.sampler.sample_epoch", None)
    recipe = make_recipe(steps_per_epoch=None, epochs=3, sampling=SamplingSpec(negatives=1, final_negatives=4))
    plan = TrainingPlan(
        recipe=recipe,
        digest="",
        inputs=recipe.inputs,
        index=INDEX,
        validation=(),
        folder=RunFolder.at(tmp_path),
        num_workers=0,
    )
    n = INDEX.n_positive
    assert plan.steps_of_epoch == tuple((n + n * ratio) // recipe.batch_size for ratio in (1, 2, 4))
