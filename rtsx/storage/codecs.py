"""The codecs of Zarr arrays without a step of the event loop for every chunk: reads by the library zarrs, whole shards encoded in one go.

zarr-python takes each chunk through its one event loop, with a thread's wake-up for each codec: ten times what encoding takes, and two thirds of
what a process can read. What is read of a local store goes through zarrs, where that is installed; what is written never does, because its
files appear half-written.
"""

import asyncio
import logging
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.codec import Codec
from zarr.abc.store import ByteGetter, ByteSetter, Store
from zarr.codecs import ShardingCodec
from zarr.codecs._v2 import V2Codec
from zarr.core import codec_pipeline, indexing
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer, default_buffer_prototype
from zarr.core.codec_pipeline import BatchedCodecPipeline, fill_value_or_default
from zarr.core.common import concurrent_map
from zarr.core.indexing import SelectorTuple
from zarr.core.metadata import ArrayMetadata, ArrayV2Metadata
from zarr.registry import register_pipeline
from zarr.storage import LocalStore

from rtsx.storage.zarr import WholeStore

_log = logging.getLogger(__name__)

_indexing: Any = indexing  # whose names differ between the versions of zarr
_pipelines: Any = codec_pipeline
if hasattr(indexing, "morton_order_coords"):
    _morton_order, _merged_chunk = _indexing.morton_order_coords, _pipelines._merge_chunk_array
else:  # before zarr 3.3
    _morton_order = _indexing.morton_order_iter
    _merged_chunk = partial(_pipelines.BatchedCodecPipeline._merge_chunk_array, None)

Part = tuple[slice, ...]
"""Of an array: a start and a stop for each axis."""


@dataclass(frozen=True)
class QuickCodecs(BatchedCodecPipeline):
    """zarr's own codecs, without its detours where none is needed."""

    state: tuple[ArrayMetadata, WholeStore] | None = None
    """What the pipeline of zarrs is made of; None for a store that it does not read."""
    reading: Any = None
    """The pipeline of zarrs; None where it does not know the array."""

    @classmethod
    def from_array_metadata_and_store(cls, array_metadata: ArrayMetadata, store: Store) -> "QuickCodecs":
        """Make the pipeline of an array; zarr calls it where it opens one."""
        codecs: Iterable[Codec]
        if isinstance(array_metadata, ArrayV2Metadata):
            named: Iterable[Any] = array_metadata.filters or ()
            codecs = (V2Codec(filters=array_metadata.filters, compressor=array_metadata.compressor),)
        else:
            named = codecs = array_metadata.codecs
        made = cls.from_codecs(codecs)
        if not (isinstance(store, WholeStore) and isinstance(store.wrapped, LocalStore)):
            return made
        global _has_threads
        reading, pipeline = None, _zarrs()
        # zarrs computes FixedScaleOffset in other precision, and so reads other values.
        if pipeline is not None and not any("fixedscaleoffset" in str(codec).lower() for codec in named):
            _has_threads = True
            try:
                reading = pipeline.from_array_metadata_and_store(array_metadata, store.wrapped)
            except Exception as error:  # for codecs and dtypes that it does not know, each of another kind
                _log.debug("zarr's own codecs read an array that zarrs does not know: %s", error)
        return replace(made, state=(array_metadata, store), reading=reading)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.state is None:
            return type(self).from_codecs, (tuple(self),)
        return _unpickled, self.state

    async def read(
        self,
        batch_info: Iterable[tuple[ByteGetter, ArraySpec, SelectorTuple, SelectorTuple, bool]],
        out: NDBuffer,
        drop_axes: tuple[int, ...] = (),
    ) -> Any:
        """Read chunks into `out`; what zarr from 3.3 on wants to know of each chunk, all of which count as there."""
        batch: list[Any] = list(batch_info)
        if self.reading is not None and self.state is not None and not _is_forked:
            for getter, *_ in batch:
                self.state[1].require(getter.path)
            try:
                await self.reading.read(batch, out, drop_axes)
                return ({"status": "present"},) * len(batch)
            except Exception as error:  # zarr's own codecs read it then, or say in their words what is wrong
                _log.debug("zarr's own codecs read what zarrs does not: %s", error)
        return await super().read(batch, out, drop_axes)

    def read_directly(self, array: "zarr.Array[Any]", part: Part, *, out: NDArray[Any]) -> bool:
        """Read part of an array of this store into the first rows and columns of another, past the event loop; False where that cannot be."""
        if self.reading is None or self.state is None or _is_forked or not out.flags.c_contiguous:
            return False
        if array.dtype != out.dtype or not out.dtype.isnative or out.dtype.kind not in "biuf":
            return False
        from zarrs._internal import ChunkItem  # there, because `reading` is

        unit = array.shards or array.chunks
        items = []
        shape = (*(1 for _ in range(array.ndim - out.ndim)), *out.shape)
        ranges = (range(own.start // size, -(-own.stop // size)) for own, size in zip(part, unit, strict=True))
        for index in product(*ranges):
            key = (array.store_path / array.metadata.encode_chunk_key(index)).path
            self.state[1].require(key)
            spans = [
                (max(own.start, number * size), min(own.stop, (number + 1) * size))
                for own, number, size in zip(part, index, unit, strict=True)
            ]
            within = [
                slice(a - number * size, b - number * size)
                for (a, b), number, size in zip(spans, index, unit, strict=True)
            ]
            into = [slice(a - own.start, b - own.start) for (a, b), own in zip(spans, part, strict=True)]
            items.append(ChunkItem(key=key, chunk_subset=within, chunk_shape=unit, subset=into, shape=shape))
        try:
            self.reading.impl.retrieve_chunks_and_apply_index(items, out)
        except Exception as error:  # see `read`
            _log.debug("zarr's own codecs read what zarrs does not: %s", error)
            return False
        return True

    async def write(
        self,
        batch_info: Iterable[tuple[ByteSetter, ArraySpec, SelectorTuple, SelectorTuple, bool]],
        value: NDBuffer,
        drop_axes: tuple[int, ...] = (),
    ) -> None:
        """Write chunks; those that are whole are encoded in one go, each in a thread."""
        codecs = tuple(self)
        whole: list[tuple[ByteSetter, ArraySpec, SelectorTuple, SelectorTuple, bool]] = []
        others: list[tuple[ByteSetter, ArraySpec, SelectorTuple, SelectorTuple, bool]] = []
        for one in batch_info:
            (whole if one[4] and value.shape and _is_plain(codecs) and _is_basic(one[2]) else others).append(one)

        async def written(*chunk: Any) -> None:
            setter, spec, within, selected, _ = chunk
            pixels = _merged_chunk(None, value, selected, spec, within, True, drop_axes).as_numpy_array()
            ends = tuple(one.stop if isinstance(one, slice) else one + 1 for one in within)
            content = await asyncio.to_thread(_encoded, pixels, spec, codecs=codecs, ends=ends)
            await (setter.delete() if content is None else setter.set(content))

        await concurrent_map(whole, written, zarr.config.get("async.concurrency"))
        if others:
            await super().write(others, value, drop_axes)


def read_part(array: "zarr.Array[Any]", part: Part, *, out: NDArray[Any]) -> None:
    """Read part of an array into the first rows and columns of another, which may lack its leading axes of length one."""
    codecs = array.async_array.codec_pipeline
    if not isinstance(codecs, QuickCodecs) or not codecs.read_directly(array, part, out=out):
        shape = tuple(own.stop - own.start for own in part[array.ndim - out.ndim :])
        out[tuple(map(slice, shape))] = np.asarray(array[part]).reshape(shape)


def _is_basic(selection: SelectorTuple) -> bool:
    return isinstance(selection, tuple) and all(isinstance(one, slice | int | np.integer) for one in selection)


def _is_plain(codecs: Sequence[Codec]) -> bool:
    """Test whether all codecs can be run in place, those within shards included."""
    return all(
        _is_plain(codec.codecs) and _is_plain(codec.index_codecs) if isinstance(codec, ShardingCodec) else hasattr(codec, "_encode_sync")
        for codec in codecs
    )  # fmt: skip


def _encoded(pixels: NDArray[Any], spec: ArraySpec, *, codecs: Sequence[Codec], ends: tuple[int, ...]) -> Buffer | None:
    """Encode a chunk or shard; None where it holds nothing but the fill value, and that is not stored.

    Parameters
    ----------
    pixels
        Of the whole chunk.
    spec
        Of it.
    codecs
        One after the other.
    ends
        Where the array ends in it.
    """
    content: Any = spec.prototype.nd_buffer.from_numpy_array(pixels)
    if not spec.config.write_empty_chunks and not isinstance(codecs[0], ShardingCodec):
        fill = fill_value_or_default(spec)
        first = pixels.flat[0]
        if (first == fill or first != first) and content.all_equal(fill):  # nearly always the first pixel tells
            return None
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            content = _encoded_shard(pixels, spec, sharding=codec, ends=ends)
        else:
            content = codec._encode_sync(content, spec)  # type: ignore[union-attr]  # see `_is_plain`
        if content is None:
            return None
    encoded: Buffer = content
    return encoded


def _encoded_shard(
    pixels: NDArray[Any], spec: ArraySpec, *, sharding: ShardingCodec, ends: tuple[int, ...]
) -> Buffer | None:
    inner = replace(spec, shape=sharding.chunk_shape)
    counts = tuple(length // size for length, size in zip(spec.shape, sharding.chunk_shape, strict=True))
    index = np.full((*counts, 2), 2**64 - 1, np.uint64)
    found: list[Buffer] = []
    at = 0
    for place in _morton_order(counts):
        begins = [number * size for number, size in zip(place, sharding.chunk_shape, strict=True)]
        if any(begin >= end for begin, end in zip(begins, ends, strict=True)):
            continue
        chunk = pixels[
            tuple(slice(begin, begin + size) for begin, size in zip(begins, sharding.chunk_shape, strict=True))
        ]
        ends_here = tuple(end - begin for begin, end in zip(begins, ends, strict=True))
        content = _encoded(chunk, inner, codecs=sharding.codecs, ends=ends_here)
        if content is not None:
            index[place] = at, len(content)
            at += len(content)
            found.append(content)
    if not found:
        return None
    is_first = getattr(sharding.index_location, "value", sharding.index_location) == "start"  # an enum before zarr 3.4
    if is_first:
        index[..., 0][index[..., 1] != 2**64 - 1] += np.uint64(sharding._shard_index_size(counts))
    table = _encoded(index, sharding._get_index_chunk_spec(counts), codecs=sharding.index_codecs, ends=index.shape)
    assert table is not None, "an index of a shard that holds something"
    parts = [table, *found] if is_first else [*found, table]
    return default_buffer_prototype().buffer.create_zero_length().combine(parts)


_CONFIG_LOCK = threading.RLock()
"""Held while zarr's configuration, which is one for all threads, is ours."""
_has_threads = False
"""zarrs has been asked for something here, and so has threads."""
_is_forked = False
"""This is the child of a process in which zarrs had threads: here it would wait for them for ever."""


def _forget_threads() -> None:
    global _CONFIG_LOCK, _is_forked
    _CONFIG_LOCK, _is_forked = threading.RLock(), _is_forked or _has_threads


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


@contextmanager
def fast_codecs() -> Iterator[None]:
    """Open or create arrays within it, and nothing else: they are then written without detours, and those of a local store read through zarrs.

    zarr chooses the codecs of an array when it is opened, by its configuration. One that somebody has changed is left alone.
    """
    with _CONFIG_LOCK:  # also to look, because what another thread has set is ours
        if zarr.config.get("codec_pipeline.path") not in (_PYTHON_CODECS, _OUR_CODECS):
            yield
            return
        register_pipeline(QuickCodecs)
        with zarr.config.set({"codec_pipeline.path": _OUR_CODECS, "codec_pipeline.strict": True}):
            yield


_OUR_CODECS = f"{QuickCodecs.__module__}.{QuickCodecs.__qualname__}"
_PYTHON_CODECS = "zarr.core.codec_pipeline.BatchedCodecPipeline"
_ZARRS = (0, 2)
"""The first version of zarrs whose pipeline reads what zarr 3.1 writes."""


def _zarrs() -> Any:
    """Return the pipeline of zarrs; None where it is not installed or its threads are not, or with a warning where it cannot be used."""
    if _is_forked:
        return None
    try:
        import zarrs

        if tuple(int(part) for part in zarrs.__version__.split(".")[:2]) >= _ZARRS:
            return zarrs.ZarrsCodecPipeline
        reason = f"it is version {zarrs.__version__}"
    except ModuleNotFoundError as error:
        if error.name == "zarrs":
            return None
        reason = str(error)
    except (ImportError, AttributeError) as error:
        reason = str(error)
    warnings.warn(
        f"The library zarrs that is installed cannot read for rtsx: {reason}. Reading goes on without it, more slowly; install the "
        "right one with: pip install 'rtsx[fast]', or remove it with: pip uninstall zarrs.",
        RuntimeWarning,
        stacklevel=2,
    )
    return None


def _unpickled(metadata: ArrayMetadata, store: WholeStore) -> QuickCodecs:
    """Return the same pipeline in another process, where zarrs may not be installed."""
    with _CONFIG_LOCK, zarr.config.set({"codec_pipeline.strict": True}):
        return QuickCodecs.from_array_metadata_and_store(metadata, store)
