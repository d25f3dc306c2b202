"""Coast lines: read from any vector file, found where they are installed, and refused where they say nothing."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from pyproj import Transformer
from shapely import LineString, Point, box

from rtsx.campaign.report_map import Coast, MapFrame
from rtsx.errors import CampaignError, InputNotFoundError, LabelError


def write(path: Path, shapes: list[shapely.Geometry], *, crs: str = "EPSG:4326") -> Path:
    geopandas.GeoDataFrame(geometry=shapes, crs=crs).to_file(path)
    return path


def edges(coast: Coast) -> set[frozenset[tuple[float, ...]]]:
    points = [tuple(np.round(one, 6)) for one in coast.lonlat.tolist()]
    return {frozenset(points[n : n + 2]) for n in range(len(points) - 1) if coast.line[n] == coast.line[n + 1]}


def test_borders_of_neighbours_and_cuts_at_the_antimeridian_are_no_coast(tmp_path: Path) -> None:
    coast = Coast.read(write(tmp_path / "land.gpkg", [box(170, 60, 175, 70), box(175, 60, 180, 70)]))
    assert coast.name == "land.gpkg"
    found = edges(coast)
    assert frozenset({(170.0, 60.0), (170.0, 70.0)}) in found
    assert not any({x for x, _ in edge} <= {175.0, 180.0} and len({x for x, _ in edge}) == 1 for edge in found)


def test_lines_come_in_any_crs(tmp_path: Path) -> None:
    line = LineString([(-130, 70), (-131, 71)])
    there = geopandas.GeoSeries([line], crs=4326).to_crs(3413)
    coast = Coast.read(write(tmp_path / "coast.fgb", list(there), crs="EPSG:3413"))
    np.testing.assert_allclose(coast.lonlat, line.coords, atol=1e-9)


def test_land_across_180_degrees_or_around_a_pole_keeps_its_coast_and_that_of_others(tmp_path: Path) -> None:
    x, y = Transformer.from_crs(4326, 3413, always_xy=True).transform([180, 0, -125], [71.2, 90, 71])
    land = [Point(*at).buffer(1e5) for at in zip(x, y, strict=True)]
    bow = shapely.Polygon([(2e6, 0), (2.2e6, 2e5), (2.2e6, 0), (2e6, 2e5)])  # which crosses itself
    coast = Coast.read(write(tmp_path / "land.gpkg", [*land, bow], crs="EPSG:3413"))
    frame = MapFrame(crs="EPSG:3413", box=(-4e6, -4e6, 4e6, 4e6), width=8000.0)
    drawn = shapely.union_all(frame.lines(coast.lonlat, coast.line))
    wanted = shapely.boundary(shapely.union_all(shapely.make_valid([*land, bow])))
    wanted = shapely.transform(wanted, lambda at: np.stack([(at[:, 0] + 4e6) / 1e3, (4e6 - at[:, 1]) / 1e3], axis=1))
    assert shapely.hausdorff_distance(drawn, wanted) < 0.01
    assert drawn.length == pytest.approx(wanted.length, rel=1e-6)


def test_what_lies_beyond_the_earth_is_left_out(tmp_path: Path) -> None:
    line = LineString([(-2e6, -1e6), (-2e6, 0), (2e7, 2e7), (2e6, 0), (2e6, 1e6)])
    coast = Coast.read(write(tmp_path / "coast.gpkg", [line], crs="EPSG:6931"))
    assert np.isfinite(coast.lonlat).all()
    assert len(edges(coast)) == 2


def test_what_cartopy_has_comes_first_and_damage_there_costs_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shapefiles" / "natural_earth" / "physical"
    folder.mkdir(parents=True)
    monkeypatch.setenv("CARTOPY_DATA_DIR", str(tmp_path))
    write(folder / "ne_50m_coastline.shp", [LineString([(1, 2), (3, 4)])])
    (folder / "ne_10m_coastline.shp").write_bytes(b"half a download")
    coast = Coast.installed()
    assert coast is not None
    assert (coast.name, len(coast.lonlat)) == ("Natural Earth, 1:50 million", 2)


def test_files_without_a_coast_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="neither lines nor polygons"):
        Coast.read(write(tmp_path / "points.gpkg", [Point(1, 2)]))
    bare = write(tmp_path / "bare.shp", [box(0, 0, 1, 1)])
    bare.with_suffix(".prj").unlink()
    with pytest.raises(CampaignError, match="does not say its CRS"):
        Coast.read(bare)
    with pytest.raises(InputNotFoundError, match="Coast lines are read from a file"):
        Coast.read(tmp_path / "nowhere.shp")
    (tmp_path / "text.gpkg").write_text("no vectors")
    with pytest.raises(LabelError, match="cannot be read as coast lines"):
        Coast.read(tmp_path / "text.gpkg")
