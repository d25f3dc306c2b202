"""Whether all that marks name is there."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger
from rtsx.campaign.stages import Verification, verify_year
from rtsx.storage.object_store import ObjectStore, open_object_store
from tests.campaign.conftest import S3
from tests.campaign.test_ledger import MARK

YEAR = YearLayout(2024)
CELLS = [(iy, ix) for iy in range(2) for ix in range(3)]

Output = tuple[str, dict[str, object], ObjectStore]


@pytest.fixture(params=["disk", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Output:
    """A year of six cells with two objects each."""
    where: tuple[str, dict[str, object]] = (str(tmp_path), {})
    if request.param == "s3":
        s3: S3 = request.getfixturevalue("s3")
        where = (s3.url, s3.options)
    objects = open_object_store(*where)
    ledger = CampaignLedger(objects, YEAR)
    for iy, ix in CELLS:
        written = {f"map.zarr/{name}/c/0/{iy}/{ix}": f"{name} {iy} {ix}".encode() for name in ("binary", "valid")}
        for key, content in written.items():
            objects.put(key, content)
        digests = {key: sha256(content).hexdigest() for key, content in written.items()}
        assert ledger.commit(replace(MARK, cell=(iy, ix), objects=digests))
    return *where, objects


def _verify(output: Output, **choices: object) -> Verification:
    return verify_year(output[0], YEAR, storage_options=output[1], **choices)  # type: ignore[arg-type]


def test_what_is_whole_is_sound(output: Output) -> None:
    found = _verify(output)
    assert found == Verification(n_cells=6, n_objects=12, n_bytes=6 * (10 + 9))
    assert found.is_sound
    assert str(found) == "6 cells, 12 objects, 0.0 GB read: all bytes are those that were written."


def test_nothing_is_not_called_sound_without_a_word(output: Output) -> None:
    found = _verify(output, cells=[])
    assert str(found) == "No cell with a mark was found, so nothing was read."


def test_what_is_missing_changed_or_cut_is_found(output: Output) -> None:
    objects = output[2]
    objects.delete("map.zarr/valid/c/0/0/0")
    objects.put("map.zarr/valid/c/0/0/1", b"valid 0 2")
    objects.put("map.zarr/binary/c/0/1/2", b"binary 1")
    objects.put(YEAR.mark((1, 0)), b"{")
    found = _verify(output)
    assert found.missing == {(0, 0): ("map.zarr/valid/c/0/0/0",)}
    assert found.damaged == {(0, 1): ("map.zarr/valid/c/0/0/1",), (1, 2): ("map.zarr/binary/c/0/1/2",)}
    assert list(found.unreadable) == [(1, 0)]
    assert found.cells == ((0, 0), (0, 1), (1, 0), (1, 2))
    assert not found.is_sound
    lines = str(found).splitlines()
    assert lines[0].endswith("4 cells are not what their marks say.")
    assert lines[1] == "r000c000: missing map.zarr/valid/c/0/0/0"
    assert "no commit mark" in lines[3]


def test_cells_can_be_chosen(output: Output) -> None:
    output[2].delete("map.zarr/valid/c/0/0/0")
    assert _verify(output, cells=[(0, 1), (1, 1), (7, 7)]).is_sound
    assert _verify(output, cells=[(0, 1)]).n_cells == 1
    assert _verify(output, cells=[(0, 0)]).cells == ((0, 0),)


def test_a_long_list_is_printed_in_part() -> None:
    found = Verification(n_cells=30, n_objects=0, n_bytes=0, unreadable={(0, ix): "cut" for ix in range(30)})
    assert str(found).splitlines()[-1] == "and 20 more"
