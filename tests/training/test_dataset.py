""""""

import json
import pickle
import threading

import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr

from rtsx import ModelBundle, predict_cube
from rtsx.errors import TrainingError
from rtsx.inference.plan import PredictionPlan
from rtsx.labels import IGNORED
from rtsx.model import InputLayer, Packing
from rtsx.tiling import reflect_pad
from rtsx.training import TrainingScene
from rtsx.training.dataset import ReadAhead, TileReader
from rtsx.training.sampler import TileAddress
from rtsx.training.scene_arrays import ChunkCache, PixelArrays
from tests import warm
from tests.training.little import make_recipe
from tests.training.little import make_scene as make_scene_of_loader
from tests.training.scenes import INPUTS, make_cube, make_scene, trusted, truth_of

TILE = 32


def reader_of(*scenes, inputs=INPUTS, tile=TILE, cache_bytes=10**7):
    return TileReader(scenes, inputs=inputs, tile=tile, cache_bytes=cache_bytes)


@pytest.mark.parametrize("chunks", [None, 17, ((40, 50), (32, 88))])
def test_a_tile_is_a_slice_of_the_computed_cube(chunks):
    scene = make_scene(chunks=chunks)
    reader = reader_of(scene)
    starts = [(0, 0), (58, 88), (13, 31), (30, 64)]
    batch = reader.read([TileAddress(0, start) for start in starts])
    assert batch.layers == ("red", "nir", "dem")
    assert (batch.stored.dtype, batch.valid.dtype, batch.truth.dtype) == (torch.float32, torch.bool, torch.uint8)
    valid, truth = trusted(scene.cube), truth_of(scene)
    for tile, (y, x) in enumerate(starts):
        window = np.s_[y : y + TILE, x : x + TILE]
        np.testing.assert_array_equal(batch.valid[tile].numpy(), valid[window])
        np.testing.assert_array_equal(batch.truth[tile].numpy(), truth[window])
        for number, name in enumerate(batch.layers):
            expected = np.where(valid[window], scene.cube[name].values[window], 0)
            np.testing.assert_array_equal(batch.stored[tile, number].numpy(), expected.astype(np.float32))


def test_tiles_of_several_scenes_come_in_the_order_asked_for():
    scenes = [make_scene("a"), make_scene("b", seed=1, chunks=50)]
    addresses = [TileAddress(1, (3, 4)), TileAddress(0, (3, 4)), TileAddress(1, (50, 60))]
    together = reader_of(*scenes).read(addresses)
    for place, address in enumerate(addresses):
        alone = reader_of(scenes[address.scene]).read([TileAddress(0, address.start)])
        assert torch.equal(together.stored[place], alone.stored[0])
        assert torch.equal(together.truth[place], alone.truth[0])


@pytest.mark.parametrize(
    ("shape", "start"), [((20, 50), (0, 9)), ((20, 11), (0, 0)), ((90, 120), (-20, 100)), ((1, 50), (0, 0))]
)
def test_beyond_the_scene_it_is_mirrored_and_no_pixel_counts_twice(shape, start):
    scene = make_scene(shape=shape, chunks=8)
    batch = reader_of(scene).read([TileAddress(0, start)])
    parts = [slice(max(first, 0), min(first + TILE, length)) for first, length in zip(start, shape, strict=True)]
    y, x = (
        part.start + reflect_pad(first - part.start, first - part.start + TILE, length=part.stop - part.start)
        for first, part in zip(start, parts, strict=True)
    )
    valid = trusted(scene.cube)
    np.testing.assert_array_equal(batch.valid[0].numpy(), valid[np.ix_(y, x)])
    red = np.where(valid, scene.cube["red"].values, 0).astype(np.float32)
    np.testing.assert_array_equal(batch.stored[0, 0].numpy(), red[np.ix_(y, x)])
    counted = np.bincount(batch.truth[0].numpy().ravel(), minlength=256)
    expected = np.bincount(truth_of(scene)[tuple(parts)].ravel(), minlength=256)
    np.testing.assert_array_equal(counted[:IGNORED], expected[:IGNORED])


def test_skipped_rows_and_columns_are_shown_and_not_counted():
    scene = make_scene(ignored=0.0)
    whole, part = reader_of(scene).read([TileAddress(0, (8, 9)), TileAddress(0, (8, 9), (5, 20))]).truth
    assert (part[:5] == IGNORED).all()
    assert (part[:, :20] == IGNORED).all()
    assert torch.equal(part[5:, 20:], whole[5:, 20:])


def watched_scene(counter, *, chunks=30):
    scene = make_scene(chunks=chunks)

    def counting(block):
        counter.append(block.shape)
        return block

    red = da.map_blocks(counting, scene.cube["red"].data, dtype=np.uint16, meta=np.empty((0, 0), np.uint16))
    cube = scene.cube.assign(red=scene.cube["red"].copy(data=red))
    return TrainingScene(name="a", cube=cube, truth=scene.truth)


def test_a_chunk_is_computed_once_while_the_cache_holds_it():
    computed = []
    reader = reader_of(watched_scene(computed))
    assert computed == [], "nothing is read before tiles are asked for"
    for _ in range(3):
        reader.read([TileAddress(0, (0, 0)), TileAddress(0, (20, 20))])
    assert len(computed) == 4


def test_the_cache_never_holds_more_than_it_may():
    computed = []
    one = 30 * 30 * (2 + 2 + 4 + 1 + 1)
    reader = reader_of(watched_scene(computed), cache_bytes=2 * one + 100, tile=20)
    for _ in range(2):
        for start in ((0, 0), (0, 35), (0, 65)):
            reader.read([TileAddress(0, start)])
            assert reader._cache.n_bytes <= 2 * one + 100
    assert len(computed) == 6, "three chunks in turn do not fit two places"
    reader.read([TileAddress(0, (0, 65)), TileAddress(0, (0, 36))])
    assert len(computed) == 6


def test_what_was_used_last_is_kept():
    cache = ChunkCache(20)
    pixels = PixelArrays(stored={}, valid=np.ones((1, 5), bool), truth=np.zeros((1, 5), np.uint8))
    for key in "abab":
        cache.get(key, lambda: pixels)
    cache.get("c", lambda: pixels)
    cache.get("b", lambda: pixels)
    assert (cache.n_computed, cache.n_bytes) == (3, 20)


def test_a_chunk_larger_than_the_cache_is_read_all_the_same():
    computed = []
    reader = reader_of(watched_scene(computed), cache_bytes=10)
    first = reader.read([TileAddress(0, (0, 0))])
    second = reader.read([TileAddress(0, (0, 0))])
    assert torch.equal(first.stored, second.stored)
    assert len(computed) == 8


def test_a_chunk_larger_than_the_cache_stays_until_another_is_wanted():
    pixels = PixelArrays(stored={}, valid=np.ones((1, 5), bool), truth=np.zeros((1, 5), np.uint8))
    cache = ChunkCache(4)

    def compute():
        assert cache.n_bytes == 0, "never two that do not fit"
        return pixels

    for key in "aaabba":
        cache.get(key, compute)
    assert (cache.n_computed, cache.n_bytes) == (3, 10)


def test_a_reader_travels_without_its_chunks():
    reader = reader_of(make_scene(chunks=30))
    batch = reader.read([TileAddress(0, (7, 7))])
    there = pickle.loads(pickle.dumps(reader))
    assert there._cache.n_bytes == 0 < reader._cache.n_bytes
    assert torch.equal(there.read([TileAddress(0, (7, 7))]).stored, batch.stored)


def physical(cube: xr.Dataset) -> xr.Dataset:
    """The same ground, stored as float reflectance with NaN where nothing is known."""
    bands = {}
    for name in ("red", "nir"):
        values = cube[name].values
        bands[name] = (("y", "x"), np.where(values == 0, np.nan, values * 1e-4).astype(np.float32))
    return cube.assign(bands)


@pytest.mark.parametrize("first", ["uint16", "float"])
def test_scenes_that_store_the_same_differently_give_the_same_channels(first):
    scene = make_scene(seed=3)
    other = TrainingScene(name="b", cube=physical(scene.cube), truth=scene.truth)
    scenes = [scene, other] if first == "uint16" else [other, scene]
    batch = reader_of(*scenes).read([TileAddress(0, (20, 30)), TileAddress(1, (20, 30))])
    assert torch.equal(batch.valid[0], batch.valid[1])
    channels = batch.channels(INPUTS, fill=0.0)
    np.testing.assert_allclose(channels[0], channels[1], rtol=1e-5, atol=1e-6)
    assert batch.packings["red"].scale_factor == (1e-4 if first == "uint16" else 1.0)


def test_another_offset_is_converted_and_the_first_scene_stays_as_stored():
    scene = make_scene(seed=3)
    shifted = make_cube((90, 120), seed=3)
    valid = shifted["red"].values != 0
    moved = np.where(valid, shifted["red"].values + 1000, 0).astype(np.uint16)
    shifted["red"] = (("y", "x"), moved, {"scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": 0})
    other = TrainingScene(name="b", cube=shifted, truth=scene.truth)
    batch = reader_of(scene, other).read([TileAddress(0, (20, 30)), TileAddress(1, (20, 30))])
    np.testing.assert_allclose(batch.stored[0], batch.stored[1], rtol=1e-6, atol=1e-3)
    alone = reader_of(scene).read([TileAddress(0, (20, 30))])
    assert torch.equal(batch.stored[0], alone.stored[0])


def test_scales_that_cannot_be_told_are_refused():
    scene, raw = make_scene(), make_cube((90, 120))
    raw["red"].attrs = {"_FillValue": 0}
    unsure = TrainingScene(name="b", cube=raw, truth=scene.truth)
    with pytest.raises(
        TrainingError, match=r"'red' is stored as uint16 with scale 0.0001 in scene 'a' and as uint16 with"
    ):
        reader_of(scene, unsure)
    wanted = [InputLayer(name="red", units="reflectance")]
    with pytest.raises(
        TrainingError, match=r"'b' cannot be learnt from.*'red' as reflectance, but the cube holds integers"
    ):
        reader_of(unsure, inputs=wanted)


def test_an_ndvi_that_only_some_scenes_store_is_refused():
    scene = make_scene()
    stored = scene.cube.assign(ndvi=(("y", "x"), np.zeros((90, 120), np.float32)))
    other = TrainingScene(name="b", cube=stored, truth=scene.truth)
    with pytest.raises(
        TrainingError, match=r"store the same layers; 'a' has .*'b' has \['red', 'nir', 'ndvi', 'dem'\]"
    ):
        reader_of(scene, other)


def test_mistakes_are_told():
    scene = make_scene()
    with pytest.raises(TrainingError, match=r"Scene 'a' cannot be learnt from.*missing \['slope'\]"):
        reader_of(scene, inputs=[InputLayer(name="slope")])
    with pytest.raises(TrainingError, match=r"A tile at \(200, 0\) lies beyond scene 'a' of \(90, 120\) px"):
        reader_of(scene).read([TileAddress(0, (200, 0))])


def test_packings_say_how_the_batch_is_stored():
    batch = reader_of(make_scene()).read([TileAddress(0, (0, 0))])
    assert batch.packings == {
        "red": Packing(scale_factor=1e-4, is_declared=True),
        "nir": Packing(scale_factor=1e-4, is_declared=True),
        "dem": Packing(),
    }


def test_a_nodata_value_beyond_float32_is_nodata():
    scene = make_scene()
    heights = scene.cube["dem"].values.astype(np.float64)
    heights[np.isnan(heights)] = -1.7976931348623157e308
    attrs = {"_FillValue": -1.7976931348623157e308}
    cube = scene.cube.assign(dem=(("y", "x"), heights, attrs))
    double = TrainingScene(name="a", cube=cube, truth=scene.truth)
    addresses = [TileAddress(0, (20, 30))]
    wide, plain = (reader_of(each).read(addresses) for each in (double, scene))
    assert torch.equal(wide.valid, plain.valid)
    assert torch.equal(wide.stored, plain.stored)


SEEN: list[torch.Tensor] = []


class Watching(torch.nn.Module):
    """Remembers every tile that it is shown, of all copies of it that a bundle makes."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        if batch.device.type != "meta":  # on which a bundle only looks at shapes
            SEEN.extend(batch.clone().unbind(0))
        return batch[:, :1] * 0


@pytest.mark.parametrize("is_lazy", [False, True])
@pytest.mark.parametrize("fill", [0.0, -3.0])
@pytest.mark.parametrize("shape", [(90, 120), (90, 20)])
def test_channels_are_those_that_inference_feeds_the_network(is_lazy, fill, shape):
    scene = make_scene(shape=shape, chunks=37 if is_lazy else None)
    bundle = ModelBundle.from_module(Watching(), inputs=INPUTS, tile=32, overlap=8, stride=4, fill=fill)
    SEEN.clear()
    found = predict_cube(scene.cube, bundle, tile=32, overlap=8, batch_size=2, device="cpu", backend="eager").compute()
    plan = PredictionPlan.from_json(found.attrs["plan"])
    tiles = [tile for tile in plan.tiling if found["valid"].values[tile.support].any()]
    reader = TileReader([scene], inputs=INPUTS, tile=32, cache_bytes=10**7)
    batch = reader.read([TileAddress(0, tile.start) for tile in tiles])
    shown = {tile.numpy().tobytes() for tile in SEEN}
    read = {tile.numpy().tobytes() for tile in batch.channels(INPUTS, fill=fill)}
    assert len(read) == len(tiles) > 3
    assert read == shown


def test_what_inference_calls_invalid_is_not_learnt_from():
    scene = make_scene(ignored=0.0)
    bundle = ModelBundle.from_module(Watching(), inputs=INPUTS, tile=32, overlap=8, stride=4)
    valid = predict_cube(scene.cube, bundle, tile=32, overlap=8, device="cpu", backend="eager")["valid"].values
    batch = TileReader([scene], inputs=INPUTS, tile=32, cache_bytes=0).read([TileAddress(0, (20, 30))])
    np.testing.assert_array_equal(batch.valid[0].numpy(), valid[20:52, 30:62])
    np.testing.assert_array_equal(batch.target()[0].numpy() == IGNORED, ~valid[20:52, 30:62])


def test_a_batch_moves_with_all_that_it_has():
    batch = TileReader([make_scene()], inputs=INPUTS, tile=32, cache_bytes=0).read([TileAddress(0, (0, 0))])
    moved = batch.to(torch.device("meta"))
    assert {moved.stored.device.type, moved.valid.device.type, moved.truth.device.type} == {"meta"}
    assert moved.layers == batch.layers
    assert json.dumps({name: packing.scale_factor for name, packing in moved.packings.items()})


class Counting:
    """Hands back what it was asked for, and fails when told to."""

    def __init__(self, *, fails_at: int | None = None) -> None:
        self.fails_at = fails_at
        self.asked: list[object] = []
        self.threads: set[str] = set()

    def read(self, addresses):  # type: ignore[no-untyped-def]
        self.threads.add(threading.current_thread().name)
        self.asked.append(addresses)
        if len(self.asked) - 1 == self.fails_at:
            raise OSError("the store is gone")
        return addresses


def test_order_is_kept_and_reading_happens_elsewhere() -> None:
    reader = Counting()
    with ReadAhead({"a": reader}, num_workers=0) as ahead:
        assert list(ahead.batches("a", range(20))) == list(range(20))  # type: ignore[arg-type, comparison-overlap]
    assert threading.current_thread().name not in reader.threads
    assert len(reader.threads) == 1


def test_it_reads_a_little_ahead_and_not_everything() -> None:
    reader = Counting()
    with ReadAhead({"a": reader}, num_workers=0) as ahead:
        batches = ahead.batches("a", range(100))  # type: ignore[arg-type]
        next(batches)
    assert len(reader.asked) <= 4


def test_an_error_comes_in_its_place() -> None:
    with ReadAhead({"a": Counting(fails_at=2)}, num_workers=0) as ahead:
        batches = ahead.batches("a", range(9))  # type: ignore[arg-type]
        assert [next(batches), next(batches)] == [0, 1]
        with pytest.raises(OSError, match="the store is gone"):
            next(batches)


def test_processes_read_the_same() -> None:
    recipe = make_recipe(training=(make_scene_of_loader("one"),))
    assert recipe.inputs is not None
    reader = TileReader(recipe.training, inputs=recipe.inputs, tile=32, cache_bytes=2**20)
    tiles = [[TileAddress(0, (8 * n, 4)), TileAddress(0, (0, 8 * n))] for n in range(3)]
    with warm.pools(), ReadAhead({"a": reader}, num_workers=1) as ahead:
        found = list(ahead.batches("a", tiles))
    for batch, addresses in zip(found, tiles, strict=True):
        here = reader.read(addresses)
        assert torch.equal(batch.stored, here.stored)
        assert torch.equal(batch.target(), here.target())
        assert batch.packings == here.packings
