"""Laws of training data: only what scenes hold decides a batch, and what nobody may trust decides nothing.

Held on random cubes with invalid pixels, against the whole cube computed and sliced.
"""

import math
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rtsx.labels import IGNORED, StubLabelRaster
from rtsx.tiling import reflect_pad
from rtsx.training import AugmentationSpec, LossTerm, SamplingSpec, TrainingScene
from rtsx.training.augment import augment
from rtsx.training.dataset import TileReader
from rtsx.training.losses import build_loss
from rtsx.training.sampler import TileAddress, sample_epoch, validation_tiles
from rtsx.training.tile_index import index_tiles
from tests.training.scenes import INPUTS, make_scene, trusted, truth_of

shapes = st.tuples(st.integers(1, 100), st.integers(1, 100))


def parts(length: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Chunks of an axis, each of its own length."""
    cuts = st.sets(st.integers(1, max(length - 1, 1)), max_size=5)
    return cuts.map(lambda found: tuple(int(n) for n in np.diff([0, *sorted(found - {length}), length])))


@st.composite
def chunked(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[tuple[int, ...], ...]]:
    shape = draw(shapes)
    return shape, tuple(draw(parts(length)) for length in shape)


@settings(max_examples=12)
@given(chunked(), st.integers(0, 2**31), st.sampled_from([16, 31, 48]), st.sampled_from([0, 4_000, 10**7]), st.data())
def test_a_tile_is_a_slice_of_the_whole_whatever_the_chunks(laid_out, seed, tile, cache_bytes, data) -> None:
    shape, chunks = laid_out
    scene = make_scene(shape=shape, seed=seed, chunks=chunks)
    reader = TileReader([scene], inputs=INPUTS, tile=tile, cache_bytes=cache_bytes)
    starts = data.draw(
        st.lists(st.tuples(*(st.integers(1 - tile, length - 1) for length in shape)), min_size=1, max_size=4)
    )
    batch = reader.read([TileAddress(0, start) for start in starts])
    valid, truth = trusted(scene.cube), truth_of(scene)
    whole = np.stack([np.where(valid, scene.cube[name].values, 0) for name in ("red", "nir", "dem")]).astype(np.float32)
    for number, start in enumerate(starts):
        inside = [slice(max(first, 0), min(first + tile, length)) for first, length in zip(start, shape, strict=True)]
        y, x = (
            part.start + reflect_pad(first - part.start, first - part.start + tile, length=part.stop - part.start)
            for first, part in zip(start, inside, strict=True)
        )
        np.testing.assert_array_equal(batch.stored[number].numpy(), whole[:, y[:, None], x])
        np.testing.assert_array_equal(batch.valid[number].numpy(), valid[y[:, None], x])
        counted = np.full((tile, tile), IGNORED)
        counted[tuple(slice(p.start - f, p.stop - f) for p, f in zip(inside, start, strict=True))] = truth[
            tuple(inside)
        ]
        np.testing.assert_array_equal(batch.truth[number].numpy(), counted)


@settings(max_examples=8)
@given(chunked(), st.integers(0, 2**31), st.sampled_from([16, 31, 48]))
def test_chunks_change_no_draw(laid_out, seed, tile) -> None:
    shape, chunks = laid_out
    assume(math.prod(shape) > 1)
    truth = np.ones(shape, np.uint8)
    truth[0, 0] = 0  # of the class alone nothing is learnt, and it is refused
    cubes = [make_scene(shape=shape, seed=seed, chunks=each, with_mask=False).cube for each in (None, chunks)]
    for cube in cubes:
        cube["nir"] = xr.full_like(cube["nir"], 7)
    scenes = [TrainingScene(name="a", cube=cube[["nir"]], truth=StubLabelRaster(truth)) for cube in cubes]
    whole, lazy = (index_tiles([scene], inputs=None, tile=tile, min_valid=0.1) for scene in scenes)
    for name in ("starts", "valid", "labelled"):
        np.testing.assert_array_equal(getattr(whole.scenes[0], name), getattr(lazy.scenes[0], name))
    spec = SamplingSpec()
    assert sample_epoch(whole, sampling=spec, epoch=1, epochs=3, seed=seed) == sample_epoch(
        lazy, sampling=spec, epoch=1, epochs=3, seed=seed
    )
    assert validation_tiles(whole) == validation_tiles(lazy)


@settings(max_examples=8)
@given(st.integers(0, 2**31), st.sampled_from([None, 23]))
def test_law_4_what_hides_under_the_mask_reaches_no_network_and_no_loss(seed, chunks) -> None:
    scene = make_scene(shape=(70, 80), seed=seed, blobs=20)
    random = np.random.default_rng(seed)
    valid = trusted(scene.cube)
    hidden = ~scene.cube["valid"].values
    changed = {}
    for name in ("red", "nir", "dem"):
        values = scene.cube[name].values.copy()
        values[hidden] = random.integers(0, 60_000, hidden.sum())
        changed[name] = scene.cube[name].copy(data=values)
    # Where a single layer is missing, the others hide under it as well.
    dem = changed["dem"].values
    dem[(scene.cube["red"].values == 0)] = np.nan
    other = scene.cube.assign(changed)
    truth = truth_of(scene)
    relabelled = np.where(valid, truth, random.integers(0, 2, truth.shape)).astype(np.uint8)
    scenes = [
        scene,
        TrainingScene(name="b", cube=other, truth=StubLabelRaster(relabelled, classes=scene.truth.classes)),
    ]
    if chunks:
        scenes = [replace(each, cube=each.cube.chunk({"y": chunks, "x": chunks})) for each in scenes]
    indices = [index_tiles([each], inputs=INPUTS, tile=32, min_valid=0.1) for each in scenes]
    spec = SamplingSpec()
    drawn = [sample_epoch(index, sampling=spec, epoch=0, epochs=1, seed=seed, count=4) for index in indices]
    assert drawn[0] == drawn[1]
    steps = [AugmentationSpec(name=name) for name in ("HorizontalFlip", "Rotate", "Blur", "MultiplicativeNoise")]
    batches = [
        augment(TileReader([each], inputs=INPUTS, tile=32, cache_bytes=10**6).read(drawn[0]), steps, key=(seed,))
        for each in scenes
    ]
    channels = [batch.channels(INPUTS, fill=0.0) for batch in batches]
    assert channels[0].isfinite().all()
    assert torch.equal(channels[0], channels[1])
    assert torch.equal(batches[0].target(), batches[1].target())


@settings(max_examples=12)
@given(st.integers(0, 2**31), st.sampled_from([1, 3]))
def test_the_loss_of_a_batch_is_that_of_its_pixels_that_count(seed, classes) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn((2, classes, 5, 4), generator=random)
    target = torch.randint(0, max(classes, 2), (2, 5, 4), generator=random).to(torch.uint8)
    is_ignored = torch.rand(target.shape, generator=random) < 0.5
    point = "SoftBCEWithLogitsLoss" if classes == 1 else "SoftCrossEntropyLoss"
    names = ("JaccardLoss", "DiceLoss", "FocalLoss", "LovaszLoss", point)
    loss = build_loss([LossTerm(name=name) for name in names], classes=classes)
    ignoring = loss(logits, target.masked_fill(is_ignored, IGNORED))
    if is_ignored.all():
        assert ignoring == 0
        return
    cut_out = logits.movedim(1, -1)[~is_ignored].T[None, :, :, None]
    torch.testing.assert_close(ignoring, loss(cut_out, target[~is_ignored][None, :, None]))
