"""Lists of cells."""

import pickle
from typing import Any

import numpy as np
import pytest

from rtsx.campaign.cells import CellTable
from rtsx.errors import CampaignError


def test_cells_come_in_their_order_each_once() -> None:
    addresses = np.stack([np.arange(9000), -np.arange(9000)], axis=1)
    table = CellTable(addresses)
    assert list(table) == [(n, -n) for n in range(9000)]
    assert table.places[(4097, -4097)] == 4097
    assert (8999, -8999) in table
    assert (1, 1) not in table
    assert len(table) == 9000


def test_none_at_all_is_a_table() -> None:
    empty = CellTable(np.zeros((0, 2), np.int32))
    assert (len(empty), list(empty), (0, 0) in empty) == (0, [], False)


def test_a_table_is_closed_and_leaves_what_it_was_made_from_open() -> None:
    mine = np.array([[1, 2], [3, 4]], np.int32)
    table = CellTable(mine)
    mine[0] = 9
    assert list(table) == [(1, 2), (3, 4)]
    with pytest.raises(ValueError, match="read-only"):
        table.addresses[0] = 5


def test_a_table_travels_without_its_index() -> None:
    table = CellTable(np.stack([np.arange(5000), np.arange(5000)], axis=1))
    assert (7, 7) in table
    sent = pickle.dumps(table)
    assert len(sent) < 8 * 5000 + 1000
    again = pickle.loads(sent)
    assert again == table
    assert hash(again) == hash(table)
    assert not again.addresses.flags.writeable


@pytest.mark.parametrize(
    ("addresses", "message"),
    [
        ([[1, 2], [1, 2]], "Every cell of a campaign comes once; some come twice"),
        ([[-1, 2**31 - 1], [-1, 2**31 - 1]], "some come twice"),
        ([1, 2], r"Cells are an array \(cell, 2\) of rows and columns; got shape \(2,\)"),
        ([[1, 2, 3]], r"got shape \(1, 3\)"),
        ([[1.5, 2.0]], "Rows and columns of cells are whole numbers; got float64"),
        ([["r1", "c1"]], "whole numbers; got str"),
    ],
)
def test_what_is_no_table_is_refused(addresses: Any, message: str) -> None:
    with pytest.raises(CampaignError, match=message):
        CellTable(np.array(addresses))


def test_negative_columns_are_other_cells() -> None:
    assert len(CellTable(np.array([[0, -1], [-1, -1], [0, 1], [1, -1], [-1, 1]], np.int32))) == 5
