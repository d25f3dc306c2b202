"""Item tables, as two other libraries write them."""

import asyncio
import pickle
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shapely import box

from rtsx.cube.images import Period, Wanted
from rtsx.cube.stac import ItemTable, StacItems
from rtsx.cube.stac.geoparquet import table_items
from rtsx.errors import CubeError

Make = Callable[..., dict[str, Any]]
RED = [Wanted(name="red")]
ALL = box(-180, -90, 180, 90)


@pytest.fixture(params=["stac-geoparquet", "rustac"])
def write_table(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[list[dict[str, Any]]], Path]:
    """Write items as GeoParquet."""

    def write(items: list[dict[str, Any]]) -> Path:
        path = tmp_path / "items.parquet"
        if request.param == "rustac":
            rustac = pytest.importorskip("rustac")

            async def written() -> None:
                await rustac.write(str(path), items)

            asyncio.run(written())
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of others, about each other
                arrow = pytest.importorskip("stac_geoparquet.arrow")
                arrow.to_parquet(arrow.parse_stac_items_to_arrow(items), path)
        return path

    return write


@pytest.fixture
def items(make_item: Make) -> list[dict[str, Any]]:
    """Five places and days, one of them across the antimeridian, with different properties."""
    across = make_item("across", at=(179.5, 60), day="2023-07-05T00:00:00Z")
    ring = [[179.5, 60], [180, 60], [180, 61], [179.5, 61], [179.5, 60]]
    west = [[-180, 60], [-179.5, 60], [-179.5, 61], [-180, 61], [-180, 60]]
    across["geometry"] = {"type": "MultiPolygon", "coordinates": [[ring], [west]]}
    across["bbox"] = [179.5, 60, -179.5, 61]
    return [
        make_item("a", day="2023-07-01T00:00:00Z", properties={"eo:cloud_cover": 10}),
        make_item("b", day="2023-07-02T23:59:59Z", collection="others"),
        make_item("c", day="2023-07-03T00:00:00Z", properties={"view:sun_azimuth": 170.0}),
        make_item("far", at=(-60, 60), day="2023-07-04T00:00:00Z"),
        across,
    ]


def test_a_table_finds_what_its_items_find(
    write_table: Callable[[list[dict[str, Any]]], Path], items: list[dict[str, Any]]
) -> None:
    table, plain = ItemTable(str(write_table(items))), StacItems(items)
    period = Period(date(2023, 7, 2), date(2023, 7, 5))
    for area in (
        ALL,
        box(10.2, 60.2, 10.4, 60.4),
        box(179.6, 60, 179.7, 61),
        box(-179.9, 60, -179.8, 61),
        box(0, 0, 1, 1),
    ):
        for days in (None, period, Period(date(2023, 7, 1), date(2023, 7, 2))):
            assert table.find(area, days, RED) == plain.find(area, days, RED)
    assert [image.id for image in table.find(ALL, period, RED)] == ["b", "c", "far", "across"]
    assert pickle.loads(pickle.dumps(table)) == table


def test_rows_are_ruled_out_before_they_become_items(
    write_table: Callable[[list[dict[str, Any]]], Path], items: list[dict[str, Any]]
) -> None:
    path = str(write_table(items))

    def rows(area: Any, period: Period | None = None, collections: tuple[str, ...] = ()) -> list[Any]:
        return [item["id"] for item in table_items(path, collections=collections, area=area, period=period)]

    assert rows(box(10.2, 60.2, 10.4, 60.4)) == ["a", "b", "c"]
    assert rows(box(-179.9, 60, -179.8, 61)) == ["across"]
    assert rows(ALL, Period(date(2023, 7, 2), date(2023, 7, 2))) == ["b"]
    assert rows(ALL, None, ("others",)) == ["b"]


def test_row_groups_elsewhere_are_not_read(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    arrow = pytest.importorskip("stac_geoparquet.arrow")
    path = tmp_path / "items.parquet"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pq.write_table(pa.table(arrow.parse_stac_items_to_arrow(items[:4]).read_all()), path, row_group_size=1)
    raw = bytearray(path.read_bytes())
    group = pq.ParquetFile(path).metadata.row_group(3)
    for column in (group.column(number) for number in range(group.num_columns)):
        start = column.dictionary_page_offset or column.data_page_offset
        raw[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(raw)  # whoever reads the last row group fails now
    assert [image.id for image in ItemTable(str(path)).find(box(10.2, 60.2, 10.4, 60.4), None, RED)] == ["a", "b", "c"]
    with pytest.raises(CubeError, match=r"The item table .* cannot be read"):
        ItemTable(str(path)).find(ALL, None, RED)


def test_relative_hrefs_count_from_the_table(
    write_table: Callable[[list[dict[str, Any]]], Path], make_item: Make, tmp_path: Path
) -> None:
    item = make_item()
    item["assets"]["red"]["href"] = "files/red.tif"
    (image,) = ItemTable(str(write_table([item]))).find(ALL, None, RED)
    assert image.bands["red"].href == str(tmp_path / "files" / "red.tif")


def test_what_is_no_item_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(CubeError, match=r"nowhere\.parquet cannot be read"):
        ItemTable(str(tmp_path / "nowhere.parquet")).find(ALL, None, RED)
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(CubeError, match=r"no column \['assets', 'geometry'\] among \['id'\]"):
        ItemTable(str(tmp_path / "t.parquet")).find(ALL, None, RED)
    (tmp_path / "x.parquet").write_text("nonsense")
    with pytest.raises(CubeError, match=r"x\.parquet cannot be read"):
        ItemTable(str(tmp_path / "x.parquet")).find(ALL, None, RED)
