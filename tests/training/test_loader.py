import threading

import pytest
import torch

from rtsx.training.dataset import TileReader
from rtsx.training.loader import ReadAhead
from rtsx.training.sampler import TileAddress
from tests import warm
from tests.training.little import make_recipe, make_scene


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
    recipe = make_recipe(training=(make_scene("one"),))
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
