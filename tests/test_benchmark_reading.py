"""The benchmark of the read path runs, and its contenders do the same work."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("stackstac", reason="one of the contenders")

from benchmarks import reading


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_every_contender_reads_every_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(reading.Nowhere):
        total = 0

        def __setitem__(self, place: Any, block: Any) -> None:
            Counted.total += block.size

    monkeypatch.setattr(reading, "Nowhere", Counted)
    work = reading.Work.make(tmp_path, size=256, chunk=128)
    totals = {}
    for label in ("rtsx", "stackstac"):
        Counted.total = 0
        reading.CONTENDERS[label](work)
        totals[label] = Counted.total
    assert totals == {"rtsx": 11 * 256 * 256, "stackstac": 11 * 256 * 256}
    reading.CONTENDERS["GDAL"](work)
    assert [reading._gdal_chunk(work, *chunk) for chunk in work.chunks] == [11 * 128 * 128] * 4


def test_every_codec_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scene.npz"
    np.savez(path, image=np.arange(20 * 30 * 2, dtype=np.uint16).reshape(20, 30, 2), mask=np.zeros((20, 30)))
    bands = reading.bands_of(path, least=64)
    assert [band.shape for band in bands] == [(64, 64)] * 2
    found = reading.compare_codecs({"scene": bands}, rounds=1)
    assert set(found) == {("scene", layout, codec) for layout in reading.LAYOUTS for codec in reading.CODECS}
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(found)
