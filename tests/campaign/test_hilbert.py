"""The order of cells."""

import numpy as np
import pytest

from rtsx.campaign.cells import hilbert_order


@pytest.mark.parametrize("exponent", [0, 1, 2, 5])
def test_every_step_over_a_full_square_goes_to_a_neighbour(exponent: int) -> None:
    along = np.arange(2**exponent) - 3
    addresses = np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2).astype(np.int32)
    order = hilbert_order(np.random.default_rng(0).permutation(addresses))
    assert sorted(order.tolist()) == list(range(4**exponent))
    placed = np.random.default_rng(0).permutation(addresses)[order].astype(int)
    assert (np.abs(np.diff(placed, axis=0)).sum(axis=1) == 1).all()


def test_no_cells_have_an_order() -> None:
    assert len(hilbert_order(np.zeros((0, 2), np.int32))) == 0
    assert hilbert_order(np.array([[4, 7]], np.int32)).tolist() == [0]


def test_the_order_of_a_part_is_that_of_the_whole() -> None:
    along = np.arange(8)
    addresses = np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2).astype(np.int32)
    whole = [tuple(cell) for cell in addresses[hilbert_order(addresses)].tolist()]
    part = addresses[np.random.default_rng(1).random(64) < 0.5]
    part = np.concatenate([part, [[0, 0], [7, 7]]]).astype(np.int32)  # the same square
    kept = {tuple(cell) for cell in part.tolist()}
    found = [tuple(cell) for cell in part[hilbert_order(part)].tolist()]
    assert list(dict.fromkeys(found)) == [cell for cell in whole if cell in kept]
