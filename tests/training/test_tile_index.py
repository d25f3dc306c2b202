import tracemalloc

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from rtsx.errors import TrainingError
from rtsx.labels import IGNORED, StubLabelRaster
from rtsx.training import TrainingScene
from rtsx.training.tile_index import IntegralImage, index_tiles, tile_starts
from tests.training.scenes import INPUTS, make_cube, make_scene, trusted, truth_of


@pytest.mark.parametrize(
    ("shape", "tile", "chunks"),
    [
        ((90, 120), 32, None),
        ((90, 120), 32, ((30, 7, 53), (64, 56))),
        ((77, 131), 33, 40),
        ((40, 20), 64, 16),
        ((32, 32), 32, None),
        ((5, 90), 16, 7),
    ],
)
def test_counts_are_those_of_the_whole_scene(shape, tile, chunks):
    scene = make_scene(shape=shape, chunks=chunks, blobs=6)
    index = index_tiles([scene], inputs=INPUTS, tile=tile, min_valid=0.3)
    valid, truth = trusted(scene.cube), truth_of(scene)
    labelled = valid & (truth != 0) & (truth != IGNORED)
    expected = []
    for y in tile_starts(shape[0], tile):
        for x in tile_starts(shape[1], tile):
            window = np.s_[y : y + tile, x : x + tile]
            if valid[window].mean() >= 0.3 and (valid & (truth != IGNORED))[window].any():
                expected.append((y, x, valid[window].sum(), labelled[window].sum()))
    (tiles,) = index.scenes
    assert expected, "the scene has to have tiles for this to say anything"
    np.testing.assert_array_equal(np.column_stack([tiles.starts, tiles.valid, tiles.labelled]), expected)
    assert (index.n_positive, index.n_negative) == (
        sum(row[3] > 0 for row in expected),
        sum(row[3] == 0 for row in expected),
    )


def test_empty_tiles_are_dropped():
    scene = make_scene(shape=(128, 128), with_mask=False)
    index = index_tiles([scene], inputs=INPUTS, tile=32, min_valid=0.05)
    assert (0, 0) not in {tuple(start) for start in index.scenes[0].starts}, "this corner holds nodata alone"
    assert (96, 96) in {tuple(start) for start in index.scenes[0].starts}


def test_each_chunk_is_computed_once_and_alone():
    seen = []

    def watched(block, block_info=None):
        seen.append(block_info[0]["array-location"])
        return block

    scene = make_scene(chunks=((45, 45), (60, 60)))
    lazy = {
        name: scene.cube[name].copy(data=da.map_blocks(watched, scene.cube[name].data, dtype=scene.cube[name].dtype))
        for name in ("red", "nir", "dem")
    }
    watching = TrainingScene(name="a", cube=scene.cube.assign(lazy), truth=scene.truth)
    index_tiles([watching], inputs=INPUTS, tile=32, min_valid=0.05)
    assert len(seen) == 4 * 3


def test_all_layers_count_where_nobody_has_said_which_are_wanted():
    scene = make_scene()
    every = index_tiles([scene], inputs=None, tile=32, min_valid=0.05).scenes[0]
    only = index_tiles([scene], inputs=INPUTS[:1], tile=32, min_valid=0.05).scenes[0]
    valid = scene.cube["valid"].values
    assert only.counts.cells[0, -1, -1] == (valid & (scene.cube["red"].values != 0)).sum()
    assert every.counts.cells[0, -1, -1] == trusted(scene.cube).sum() < only.counts.cells[0, -1, -1]


def test_bounds_hold_for_any_window():
    random = np.random.default_rng(3)
    kinds = random.random((2, 50, 70)) < 0.2
    counts = IntegralImage.empty((50, 70), rows=[13, 30, 41], columns=[20, 21, 60], kinds=2)
    for window in (np.s_[0:17, 0:70], np.s_[17:50, 0:33], np.s_[17:50, 33:70]):
        counts.add(kinds[:, window[0], window[1]], window)
    summed = counts.summed()
    corners = np.sort(random.integers(0, 51, (200, 2)), axis=1), np.sort(random.integers(0, 71, (200, 2)), axis=1)
    windows = np.column_stack([corners[0][:, 0], corners[1][:, 0], corners[0][:, 1], corners[1][:, 1]])
    exact = np.array([kinds[:, top:bottom, left:right].sum((1, 2)) for top, left, bottom, right in windows]).T
    assert (summed.min_counts(windows) <= exact).all()
    assert (summed.max_counts(windows) >= exact).all()
    on_cuts = np.array([[13, 20, 41, 60], [0, 0, 50, 70], [30, 21, 30, 60]])
    exact = np.array([kinds[:, top:bottom, left:right].sum((1, 2)) for top, left, bottom, right in on_cuts]).T
    np.testing.assert_array_equal(summed.min_counts(on_cuts), exact)
    np.testing.assert_array_equal(summed.max_counts(on_cuts)[:, :2], exact[:, :2])


def scene_with(truth, *, name="a", valid=None, classes=("slump",)):
    cube = make_cube(truth.shape, with_mask=False)
    if valid is not None:
        cube["valid"] = (("y", "x"), valid)
    return TrainingScene(name=name, cube=cube, truth=StubLabelRaster(truth, classes=classes))


def test_a_scene_without_labels_is_fine_beside_one_with_labels():
    scenes = [make_scene("empty", blobs=0), make_scene("full")]
    index = index_tiles(scenes, inputs=INPUTS, tile=32, min_valid=0.05)
    assert index.scenes[0].labelled.sum() == 0 < index.scenes[1].labelled.sum()


@pytest.mark.parametrize(
    ("truth", "valid", "message"),
    [
        (np.zeros((64, 64)), None, r"no label lies within them.*CRS.*Scenes: a \(\d+ valid px, 0 px with a class\)"),
        (np.full((64, 64), IGNORED), None, "every valid pixel is ignored"),
        (np.ones((64, 64)), np.zeros((64, 64), bool), r"no pixel is valid.*a \(0 valid px, 4096 px with a class\)"),
        (np.eye(64), ~np.eye(64, dtype=bool), "labels lie only on pixels that are invalid or ignored"),
        (np.eye(64), None, "no tile of 32 px with a label has 99% valid pixels"),
        (np.full((64, 64), 2), None, r"The truth of scene 'a' has the value 2, but 1 classes \(slump\)"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_by_its_reason(truth, valid, message):
    with pytest.raises(TrainingError, match=message):
        index_tiles(
            [scene_with(truth.astype(np.uint8), valid=valid)],
            inputs=INPUTS,
            tile=32,
            min_valid=0.99 if "99%" in message else 0.05,
        )


def test_no_label_names_each_scene():
    with pytest.raises(TrainingError, match=r"no label lies within them.*Scenes: north \(.*\), south \("):
        index_tiles([make_scene(name, blobs=0) for name in ("north", "south")], inputs=INPUTS, tile=32, min_valid=0.05)


def test_a_scene_that_lacks_a_layer_is_named():
    scene = make_scene()
    with pytest.raises(TrainingError, match=r"Scene 'b' cannot be learnt from.*missing \['dem'\]"):
        index_tiles([scene, make_scene("b", layers=("red", "nir"))], inputs=None, tile=32, min_valid=0.05)


def test_a_chunk_that_cannot_be_read_is_named():
    def broken(block):
        raise OSError("disk on fire")

    scene = make_scene(chunks=((45, 45), (60, 60)))
    failing = da.map_blocks(broken, scene.cube["dem"].data, dtype=np.float32, meta=np.empty((0, 0), np.float32))
    cube: xr.Dataset = scene.cube.assign(dem=(("y", "x"), failing))
    with pytest.raises(
        TrainingError, match="Scene 'a' cannot be read at rows 0-45, columns 0-60: disk on fire"
    ) as told:
        index_tiles([TrainingScene(name="a", cube=cube, truth=scene.truth)], inputs=INPUTS, tile=32, min_valid=0.05)
    assert isinstance(told.value.__cause__, OSError)


def test_counting_takes_about_as_much_memory_as_the_chunk():
    kinds = np.ones((3, 512, 512), bool)
    counts = IntegralImage.empty((512, 512), rows=range(0, 512, 32), columns=range(0, 512, 32), kinds=3)
    tracemalloc.start()
    counts.add(kinds, np.s_[0:512, 0:512])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * kinds.nbytes
    assert (counts.cells == 32 * 32).all()


def test_one_class_everywhere_teaches_nothing():
    scene = make_scene(shape=(64, 64))
    truth = StubLabelRaster(
        np.where(truth_of(scene) == 1, 1, IGNORED).astype(np.uint8)
    )  # as of a mask whose 0 is its nodata
    with pytest.raises(TrainingError, match=r"none shows what it is not\. Where labels are a raster, is 0 its nodata"):
        index_tiles([TrainingScene(name="a", cube=scene.cube, truth=truth)], inputs=INPUTS, tile=32, min_valid=0.0)
