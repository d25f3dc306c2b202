"""Expected area in a delivery: what `rtsx area` computes, and no pixel read again of what has not changed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr

from rtsx.campaign.products.coarse import ExpectedArea
from rtsx.campaign.products.rasters import MapReader
from rtsx.campaign.products.tables import cell_states, partition_sources
from rtsx.evaluation import expected_area
from rtsx.grid import Grid
from tests.campaign.collect.finished import plan_of
from tests.campaign.products.test_deliver import LAST, Finished, changed, files

DEGREES = Grid("EPSG:4326", 0.01, cell_size=64, origin=(0.0, 200.0))
"""Cells of 0.64 degrees; those of the tests lie near 8 degrees north."""


def told(made: Finished, class_name: str | None = None) -> xr.Dataset:
    """What `rtsx area` says of the map."""
    pred = made.campaign.map().isel(time=0, drop=True)
    if made.plan.grid.crs == "EPSG:4326":
        return expected_area(pred, cell_degrees=0.5, class_name=class_name)
    return expected_area(pred, class_name=class_name)


@pytest.mark.parametrize(
    ("grid", "classes"), [(None, ("target",)), (DEGREES, ("target",)), (None, ("background", "a", "b"))]
)
def test_rasters_are_those_of_the_public_function(tmp_path: Path, grid: Grid | None, classes: tuple[str, ...]) -> None:
    made = Finished(tmp_path, plan_of(2, 3, cell=64, classes=classes, **({} if grid is None else {"grid": grid})))
    made.campaign.deliver(tmp_path / "to", expected_area=True, outlines=False)
    targets = [name for name in classes if name != "background"]
    areas = [told(made, name if len(classes) > 1 else None) for name in targets]
    assert len({area.sizes["x"] for area in areas}) == 1
    for name, each in (("expected_area_m2", areas), ("valid_area_m2", areas[:1])):
        with rasterio.open(tmp_path / "to" / "overview" / f"{name}.tif") as file:
            assert (file.count, str(file.crs), file.nodata) == (len(each), made.plan.grid.crs, -1)
            assert np.allclose(tuple(file.transform)[:6], tuple(each[0].rio.transform())[:6])
            for band, area in enumerate(each, start=1):
                known = area["valid_area_m2"].values > 0
                assert np.allclose(file.read(band), np.where(known, area[name].values, -1), rtol=1e-6)
    sheet = (tmp_path / "to" / "fact_sheet.md").read_text()
    for name, area in zip(targets, areas, strict=True):
        of = f" of {name}" if len(targets) > 1 else ""
        total = f"{float(area['expected_area_m2'].sum()) / 1e6:,.3f}"
        assert f"| Expected area{of}: probability x ground, without a threshold, km² | {total} |" in sheet
    assert "as far as probabilities are calibrated" in (tmp_path / "to" / "CAVEATS.md").read_text()


def test_only_what_has_changed_is_summed_again_and_it_goes_where_it_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Finished(tmp_path, plan_of(2, 3, cell=64), without=[LAST])
    options: dict[str, Any] = {"expected_area": True, "outlines": False}
    made.campaign.deliver(tmp_path / "to", allow_missing=True, **options)
    made.output.finish(made.pixels, [LAST])
    summed: list[str] = []
    sums = ExpectedArea.sums
    monkeypatch.setattr(ExpectedArea, "sums", lambda self, name: summed.append(name) or sums(self, name))
    made.campaign.deliver(tmp_path / "to", **options)
    states = cell_states(made.output.ledger.marks(), made.output.layout)
    assert len(partition_sources(states)) == 2
    assert len(summed) == 1
    made.campaign.deliver(tmp_path / "new", **options)
    assert files(tmp_path / "to") == files(tmp_path / "new")

    record = f"records/expected_area-{summed[0]}.json"
    content = (tmp_path / "to" / record).read_bytes()
    (tmp_path / "to" / record).write_bytes(content.replace(b"0", b"1"))
    mended = made.campaign.deliver(tmp_path / "to", **options)
    assert set(mended.rewritten) <= {record, "SHA256SUMS"}
    assert files(tmp_path / "to") == files(tmp_path / "new")
    before = changed(tmp_path / "to")
    assert made.campaign.deliver(tmp_path / "to", **options).rewritten == ()
    assert changed(tmp_path / "to") == before
    made.campaign.deliver(tmp_path / "to", outlines=False, expected_area=False)
    assert not [name for name in files(tmp_path / "to") if "area_m2" in name or "expected" in name]


def test_cells_of_which_nothing_is_known_are_missing(tmp_path: Path) -> None:
    made = Finished(tmp_path, plan_of(1, 3, cell=64))
    states = cell_states(made.output.ledger.marks(), made.output.layout)
    mapped = [cell for cell, state in states.items() if not state.is_empty]
    reader = MapReader.of(made.campaign.output, made.plan, "probability", options={}, finished=mapped)
    expected = ExpectedArea(reader=reader, states=states)
    cells = np.array([[0, 0], [2, 1]])
    (_, content), _ = expected.rasters(cells, np.array([[1.0, 2.0], [3.0, 4.0]]))
    with rasterio.MemoryFile(content) as memory, memory.open() as file:
        assert file.read(1).tolist() == [[-1, 3], [-1, -1], [1, -1]]
