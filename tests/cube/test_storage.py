"""Chunks and shards never let two tasks write one shard."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsx.cube.write import StoragePlan, plan_storage
from rtsx.errors import CubeError

LENGTHS = st.lists(st.integers(1, 3000), min_size=1, max_size=5)


@given(rows=LENGTHS, columns=LENGTHS, chunk=st.sampled_from([128, 256, 512, 500]))
def test_a_shard_is_whole_chunks_and_rechunking_to_shards_fits(rows: list[int], columns: list[int], chunk: int) -> None:
    shape = (sum(rows), sum(columns))
    plan = plan_storage(shape, (rows, columns), chunk=chunk, shard="auto")
    assert all(shard % inner == 0 for shard, inner in zip(plan.shard, plan.chunk, strict=True))
    assert all(inner <= max(chunk, 1) for inner in plan.chunk)
    array = da.zeros(shape, chunks=(tuple(rows), tuple(columns)), dtype=np.uint8)
    assert plan.fits(array.rechunk(plan.shard).chunks)


@given(
    length=st.sampled_from([200, 256, 500, 512, 1000, 1024, 1536, 2048, 4096]),
    count=st.integers(2, 5),
    last=st.integers(1, 200),
)
def test_equal_dask_chunks_are_kept(length: int, count: int, last: int) -> None:
    lengths = [length] * count + [last]
    plan = plan_storage((sum(lengths), sum(lengths)), (lengths, lengths), chunk=512, shard="auto")
    assert plan.shard == (length, length)
    assert plan.fits((lengths, lengths))
    assert 128 <= plan.chunk[0] <= 512


def test_a_large_dask_chunk_is_several_shards() -> None:
    plan = plan_storage((24576, 24576), ((12288, 12288), (12288, 12288)), chunk=512, shard="auto")
    assert plan == StoragePlan(chunk=(512, 512), shard=(4096, 4096))
    assert plan.fits(((12288, 12288), (12288, 12288)))


def test_a_small_raster_is_one_chunk_without_shards() -> None:
    assert not plan_storage((251, 251), ((251,), (251,)), chunk=512, shard="auto").has_shards


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(CubeError, match="whole number of chunks; got shards=1000 and chunks=512"):
        plan_storage((5, 5), ((5,), (5,)), chunk=512, shard=1000)
    with pytest.raises(CubeError, match="1 pixel or more"):
        plan_storage((5, 5), ((5,), (5,)), chunk=0, shard="auto")
