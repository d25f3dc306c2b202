import threading
from collections import Counter

import dask
import dask.array as da
import numpy as np
import pytest

from rtsx.footprints import extract_footprints
from rtsx.footprints.blocks import NO_MARGINS, ExtractionPlan
from rtsx.footprints.extract import plan_blocks
from tests import warm

LOCK = threading.Lock()


@pytest.mark.parametrize("size", [4, 7, 25])
def test_each_chunk_is_computed_once(pred, size):
    """Probability, binary and valid come from one task, as they do from a network."""
    runs = Counter()

    def answer(block, block_info):
        with LOCK:
            runs[tuple(block_info[0]["chunk-location"])] += 1
        return block

    probability = da.from_array(pred["probability"].values, chunks=size)
    probability = da.map_blocks(answer, probability, dtype="uint8", meta=np.empty((0, 0), "uint8"))
    lazy = pred.assign(
        probability=pred["probability"].copy(data=probability),
        binary=pred["binary"].copy(data=(probability >= 50).astype("uint8")),
        valid=pred["valid"].copy(data=probability != 255),
    )
    footprints = extract_footprints(lazy)
    assert len(footprints) == 3
    assert set(runs.values()) == {1}
    assert len(runs) == np.prod(probability.numblocks)


def test_classes_share_one_run(predict, level):
    runs = Counter()

    def answer(block, block_info):
        with LOCK:
            runs[tuple(block_info[0]["chunk-location"])] += 1
        return block

    several = predict(np.stack([level, 100 - level])[None]).assign_coords({"class": ["slump", "rest"]})
    probability = da.from_array(several["probability"].values, chunks=(1, 2, 30, 30))
    probability = da.map_blocks(answer, probability, dtype="uint8", meta=np.empty((0, 0, 0, 0), "uint8"))
    lazy = several.assign(
        probability=several["probability"].copy(data=probability),
        binary=several["binary"].copy(data=(probability >= 50).astype("uint8")),
    )
    assert set(extract_footprints(lazy)["class_name"]) == {"slump", "rest"}
    assert set(runs.values()) == {1}


def test_variables_with_different_chunks_come_together(pred):
    whole = extract_footprints(pred)
    mixed = pred.assign(
        probability=pred["probability"].chunk(y=13, x=17), binary=pred["binary"].chunk(y=60, x=5), valid=pred["valid"]
    )
    assert whole.equals(extract_footprints(mixed))
    only_valid = pred.assign(valid=pred["valid"].chunk(y=9))
    assert whole.equals(extract_footprints(only_valid))


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["threads", "synchronous", "processes"])
def test_every_scheduler_gives_the_same(pred, scheduler):
    with warm.pools(), dask.config.set(scheduler=scheduler, num_workers=2):
        assert extract_footprints(pred).equals(extract_footprints(pred.chunk(y=25, x=33)))


def test_arrays_in_memory_are_worked_through_in_blocks(pred):
    assert plan_blocks(pred["probability"], margins=NO_MARGINS) == ExtractionPlan(rows=(60,), columns=(80,))
    assert plan_blocks(pred["probability"].chunk(y=50, x=40), margins=NO_MARGINS) == ExtractionPlan(
        rows=(50, 10), columns=(40, 40)
    )


def test_blocks_in_memory_change_nothing(pred, monkeypatch):
    whole = extract_footprints(pred)
    monkeypatch.setattr("rtsx.footprints.extract.BLOCK_SIZE", 11)
    assert whole.equals(extract_footprints(pred))
