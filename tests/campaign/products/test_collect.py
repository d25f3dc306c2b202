"""Everything that is collected, on a local disk and on an object store, at once and cell by cell."""

import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import geopandas
import numpy as np
import pystac
import pytest
import xarray as xr
import zarr
from geopandas.testing import assert_geodataframe_equal
from pystac.validation.local_validator import get_local_schema_cache

import rtsx
from rtsx.campaign.layout import MAP, YearLayout
from rtsx.campaign.map import open_map
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.products import collect, collect_year, tables
from rtsx.campaign.products.collect import footprint_keys
from rtsx.campaign.products.footprints import FOOTPRINTS
from rtsx.campaign.products.tables import cell_states
from rtsx.campaign.recipe import OutlineSpec
from rtsx.cube import BandRequest, write
from rtsx.cube.images import Period
from rtsx.cube.stac.sources import StacCatalog
from rtsx.errors import CampaignError, FootprintError, MissingExtraError, OutputNotWritableError
from rtsx.footprints import ConfidenceRule, ConfidenceStratum
from rtsx.storage.object_store import LocalObjects, open_object_store
from rtsx.storage.zarr import open_group
from tests.campaign.collect.finished import LEFT, TOP, Output, make_pixels, masked, plan_of, whole, whole_footprints

DONE = [(TOP + j, LEFT + i) for j, i in ((0, 1), (1, 1), (2, 2), (7, 8))]
LATER = [(TOP + 1, LEFT + 2), (TOP + 8, LEFT + 8)]


@pytest.fixture(autouse=True)
def small_overviews(monkeypatch):
    """Levels down to 256 px, so that maps of a few hundred pixels have some."""
    monkeypatch.setattr(write, "_SMALLEST_TOP_LEVEL", 256)


@pytest.fixture(scope="module")
def plan():
    """9 by 9 cells of 64 px: two levels of overviews, and no more than a few cells that are ever finished."""
    return plan_of(9, 9, cell=64, without=[(0, 2)], cogs=True)


@pytest.fixture(scope="module")
def pixels(plan):
    return make_pixels(plan, seed=4, smooth=3.0, threshold=0.2)


@pytest.fixture(scope="module")
def written(plan, pixels, tmp_path_factory):
    """The folder of an output with some finished cells, for tests that may not change it."""
    folder = tmp_path_factory.mktemp("written") / "out"
    Output(plan, folder).finish(pixels, DONE)
    return folder


@pytest.fixture
def finished(plan, written):
    """Make a copy of that output, because to write it takes seconds."""

    def copy(folder):
        shutil.copytree(written, folder, dirs_exist_ok=True)
        return Output(plan, folder)

    return copy


@pytest.fixture(scope="module")
def small():
    """Two by three cells without overviews."""
    return plan_of(2, 3, cell=32)


@pytest.fixture
def small_partitions(monkeypatch):
    monkeypatch.setattr(tables, "SIDE", 2)


def files(folder: Path) -> dict[str, bytes]:
    """Everything that collecting writes, and the map."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ("products" in path.parts or MAP in path.parts or path.name == "catalog.json")
    }


@pytest.mark.parametrize("has_outlines", [True, False])
def test_an_output_that_cannot_be_written_is_told(finished, plan, tmp_path, request, has_outlines):
    output = finished(tmp_path / "out")
    request.getfixturevalue("without_rights")
    with pytest.raises(OutputNotWritableError, match=r"out.* cannot be written: Permission denied.*Choose a folder"):
        collect_year(output.path, plan if has_outlines else replace(plan, outlines=None))


def test_a_rule_gives_outlines_a_class_and_is_kept(small, tmp_path):
    output = Output(small, tmp_path / "out")
    output.finish(make_pixels(small, seed=4, threshold=0.2), small.cells)
    options = {"overviews": False, "tracks": False}
    plain = collect_year(output.path, small, **options)
    median = float(geopandas.read_parquet(tmp_path / "out" / plain.footprints)["area_m2"].median())
    numbers = {"reviewed": 40, "precision": 0.8, "low": 0.65, "high": 0.9}
    large = ConfidenceStratum(
        prob_max=(None, None), area_m2=(median, None), confidence_class="high_confidence", **numbers
    )
    digest = "+".join(small.prediction.members)
    rule = ConfidenceRule(bundle_digest=digest, class_name=None, precision_floor=0.5, interval=0.95, strata=(large,))
    rule.write(tmp_path / "rule.json")
    collected = collect_year(output.path, small, confidence_rule=tmp_path / "rule.json", formats=["gpkg"], **options)
    for path in (collected.footprints, collected.level2, f"{collected.footprints}.gpkg"):
        read = geopandas.read_file if path.endswith(".gpkg") else geopandas.read_parquet
        table = read(tmp_path / "out" / path)
        assert (table["confidence_class"].eq("high_confidence") == (table["area_m2"] >= median)).all()
        assert 0 < table["confidence_class"].notna().sum() < len(table) == plain.n_footprints
    collection = json.loads((tmp_path / "out" / collected.stac).read_text())
    kept = (tmp_path / "out" / collected.stac).parent / collection["assets"]["confidence_rule"]["href"]
    assert ConfidenceRule.open(kept) == rule
    assert collect_year(output.path, small, **options).rewritten == ()
    with pytest.raises(FootprintError, match="measured on outlines of the bundle another"):
        collect_year(output.path, small, confidence_rule=replace(rule, bundle_digest="another"), **options)


def test_outlines_in_water_are_flagged_and_follow_the_file(small, tmp_path):
    output = Output(small, tmp_path / "out")
    output.finish(make_pixels(small, seed=4, threshold=0.2), small.cells)
    options = {"overviews": False, "tracks": False, "stac": False}
    plain = geopandas.read_parquet(tmp_path / "out" / collect_year(output.path, small, **options).footprints)
    lakes = tmp_path / "lakes.gpkg"
    plain.geometry[:3].to_crs(4326).to_file(lakes)
    wet = replace(small, outlines=replace(small.outlines, water=str(lakes), max_water=0.5))
    assert wet.digest == small.digest
    assert CampaignPlan.from_document(wet.to_document(), wet.cells) == wet
    collected = collect_year(output.path, wet, formats=["gpkg"], **options)
    for path in (collected.footprints, collected.level2, f"{collected.footprints}.gpkg"):
        read = geopandas.read_file if path.endswith(".gpkg") else geopandas.read_parquet
        table = read(tmp_path / "out" / path).set_index("footprint_id").loc[plain["footprint_id"]]
        assert len(table) == len(plain) > 3
        assert table["water_fraction"][:3].to_numpy() == pytest.approx(1, abs=1e-3)
        assert (table["water_fraction"][3:] < 0.01).all()
        assert table["flags"].fillna("").str.contains("water").tolist() == [True] * 3 + [False] * (len(plain) - 3)
    assert collect_year(output.path, wet, **options).rewritten == ()
    lakes.unlink()
    assert all(
        FOOTPRINTS in key
        for key in footprint_keys(output.objects, wet, cell_states(output.ledger.marks(), output.layout))
    )
    plain.geometry[:1].to_file(lakes)
    again = geopandas.read_parquet(tmp_path / "out" / collect_year(output.path, wet, **options).footprints)
    assert again["flags"].str.contains("water").sum() == 1
    dry = geopandas.read_parquet(tmp_path / "out" / collect_year(output.path, small, **options).footprints)
    assert_geodataframe_equal(dry, plain)


def test_the_map_is_opened_once_for_what_outlines_want_of_it(tmp_path, monkeypatch):
    plan = plan_of(2, 3, spec=OutlineSpec(min_area_m2=0.0, edge_distance=3, nodata_fraction=True))
    output = Output(plan, tmp_path / "out")
    output.finish(make_pixels(plan, seed=4, threshold=0.2), plan.cells)
    opened = []
    monkeypatch.setattr(collect, "open_group", lambda *given: opened.append(given) or open_group(*given))
    collected = collect_year(output.path, plan, overviews=False, tracks=False, stac=False)
    assert collected.n_footprints > 1
    assert len(opened) == 1
    collect_year(output.path, plan, overviews=False, tracks=False, stac=False)
    assert len(opened) == 1


@pytest.mark.slow
def test_cell_by_cell_is_all_at_once(plan, pixels, finished, tmp_path, small_partitions):
    output = finished(tmp_path / "steps")
    first = collect_year(output.path, plan, formats=["gpkg"])
    assert first.n_cells == len(DONE)
    assert first.n_missing == len(plan.cells) - len(DONE)
    assert first.overview_levels == 2
    assert first.overview_shards == 4 + 3  # one of the finest level for each cell
    assert set(first.files) == {"years/2024/products/footprints.gpkg"}
    assert "4 cells, 76 not finished yet" in str(first)

    before = files(tmp_path / "steps")
    again = collect_year(output.path, plan)
    assert (again.rewritten, again.removed, again.overview_shards) == ((), (), 0)
    assert files(tmp_path / "steps") == before

    output.finish(pixels, LATER)
    second = collect_year(output.path, plan)
    after = files(tmp_path / "steps")
    changed = {key for key in after if after[key] != before.get(key)}
    tables = {key for key in changed if key.startswith("years/2024/products/footprints/")}
    # The first of the new cells lies beside three partitions of finished ones, the second beside one.
    assert tables <= {f"years/2024/products/footprints/{name}.parquet" for name in NEIGHBOURS}
    assert tables == {key for key in second.rewritten if "/footprints/" in key}
    items = {key for key in changed if "/products/stac/" in key and Path(key).name.startswith("r")}
    assert {Path(key).stem for key in items} == {"r301c-208", "r308c-202"}
    shards = {key for key in changed if key.startswith(f"{MAP}/2x/probability/c/")}
    assert shards == {f"{MAP}/2x/probability/c/0/1/2", f"{MAP}/2x/probability/c/0/8/8"}
    assert second.overview_shards == 2 + 2

    anew = Output(plan, tmp_path / "once")
    anew.finish(pixels, [*LATER, *DONE])
    collect_year(anew.path, plan, formats=["gpkg"])
    once = files(tmp_path / "once")
    assert once.keys() == after.keys()
    assert [key for key in once if once[key] != after[key]] == []


NEIGHBOURS = ("r150c-105", "r150c-104", "r151c-104", "r153c-101", "r154c-101", "r151c-105")


@pytest.mark.slow
def test_a_cell_that_lost_its_mark_is_gone(plan, pixels, finished, tmp_path, small_partitions):
    output = finished(tmp_path / "lost")
    collect_year(output.path, plan)
    output.ledger.retire(DONE[-1])
    lost = collect_year(output.path, plan)
    assert "years/2024/products/footprints/r153c-101.parquet" in lost.removed
    assert "years/2024/products/stac/r153c-101/r307c-202.json" in lost.removed
    anew = Output(plan, tmp_path / "never")
    anew.finish(pixels, DONE[:-1])
    collect_year(anew.path, plan)
    kept, never = files(tmp_path / "lost"), files(tmp_path / "never")
    # The pixels of the cell are still in the map, but no overview shows them.
    assert {key for key in kept if never.get(key) != kept[key]} == {
        key for key in kept if "/c/0/" in key and key.startswith(MAP) and "x/" not in key and key not in never
    }
    assert never.keys() <= kept.keys()


@pytest.mark.slow
def test_overviews_are_those_of_write_cube(plan, pixels, finished, tmp_path):
    output = finished(tmp_path / "out")
    collect_year(output.path, plan, stac=False)
    known = whole(masked(pixels, plan, DONE), plan).expand_dims("time")
    rtsx.write_cube(known, tmp_path / "whole.zarr")
    for group in ("2x", "4x"):
        mine, theirs = (
            xr.open_zarr(path / group, mask_and_scale=False, decode_coords="all").load()
            for path in (tmp_path / "out" / MAP, tmp_path / "whole.zarr")
        )
        xr.testing.assert_equal(mine, theirs)
        assert {name: one.attrs for name, one in mine.data_vars.items()} == {
            name: one.attrs for name, one in theirs.data_vars.items()
        }
        assert mine.attrs == theirs.attrs
    mine, theirs = (dict(zarr.open_group(path).attrs) for path in (tmp_path / "out" / MAP, tmp_path / "whole.zarr"))
    for name in ("multiscales", "zarr_conventions", "proj:code", "spatial:bbox"):
        assert mine[name] == theirs[name]
    assert "spatial:shape" not in mine
    stored = open_map(output.path, storage_options={})
    assert stored.isel(time=0)["valid"].values.sum() == known["valid"].values.sum()


@pytest.mark.slow
def test_footprints_are_one_dataset(plan, pixels, finished, tmp_path, small_partitions):
    output = finished(tmp_path)
    collected = collect_year(output.path, plan, formats=["gpkg", "flatgeobuf", ".pmtiles"], overviews=False)
    folder = tmp_path / collected.footprints
    expected = whole_footprints(masked(pixels, plan, DONE), plan)
    found = geopandas.read_parquet(folder)
    assert len(found) == len(expected) == collected.n_footprints > 10
    west, south, east, north = plan.grid[DONE[0]].bounds
    some = geopandas.read_parquet(folder, bbox=(west, south, east, north))
    assert sorted(some["footprint_id"]) == sorted(expected.cx[west:east, south:north]["footprint_id"])
    assert 0 < len(some) < len(found)
    for name in ("footprints.gpkg", "footprints.fgb"):
        table = geopandas.read_file(folder.parent / name)
        assert table.crs == expected.crs
        assert sorted(table["footprint_id"]) == sorted(expected["footprint_id"])
    tiles = geopandas.read_file(folder.parent / "footprints.pmtiles")
    assert set(tiles["footprint_id"]) == set(expected["footprint_id"])
    level2 = geopandas.read_parquet(tmp_path / collected.level2)
    assert sorted(level2["footprint_id"]) == sorted(expected["footprint_id"])
    assert level2["date"].isna().all()
    assert set(level2["year"]) == {2024}
    assert (collected.tracks, collected.n_tracked) == (None, 0)


@pytest.mark.slow
def test_files_that_were_asked_for_follow(small, tmp_path):
    output = Output(small, tmp_path)
    pixels = make_pixels(small, seed=2)
    output.finish(pixels, list(small.cells)[:3])
    collect_year(output.path, small, formats=["flatgeobuf"])
    output.finish(pixels, list(small.cells)[3:])
    collected = collect_year(output.path, small)
    (key,) = collected.files
    assert key in collected.rewritten
    assert len(geopandas.read_file(tmp_path / key)) == collected.n_footprints


@pytest.mark.slow
def test_what_was_removed_or_damaged_by_hand_comes_back(small, tmp_path):
    output = Output(small, tmp_path)
    output.finish(make_pixels(small, seed=2), small.cells)
    collected = collect_year(output.path, small, formats=["fgb"])
    before = files(tmp_path)
    next((tmp_path / collected.footprints).iterdir()).unlink()
    (tmp_path / "years/2024/products/footprints.fgb").unlink()
    item, *_ = sorted((tmp_path / "years/2024/products/stac").glob("*/r*.json"))
    item.unlink()
    (item.parent / "catalog.json").unlink()
    next((tmp_path / "years/2024/products/collected/level2").iterdir()).write_text("{")
    collect_year(output.path, small)
    assert files(tmp_path) == before


class Stopped(Exception):
    """Somebody pulled the plug."""


@pytest.mark.slow
def test_a_file_whose_writing_was_stopped_still_follows(small, tmp_path, monkeypatch):
    output = Output(small, tmp_path)
    pixels = make_pixels(small, seed=2)
    output.finish(pixels, list(small.cells)[:3])
    collect_year(output.path, small, formats=["fgb"])
    output.finish(pixels, list(small.cells)[3:])

    def stop(*_, **__):
        raise Stopped

    with monkeypatch.context() as patched:
        put = LocalObjects.put
        patched.setattr(
            LocalObjects, "put", lambda self, key, content: (stop if key.endswith(".fgb") else put)(self, key, content)
        )
        with pytest.raises(Stopped):
            collect_year(output.path, small)
    collected = collect_year(output.path, small)
    (key,) = collected.files
    assert len(geopandas.read_file(tmp_path / key)) == collected.n_footprints


@pytest.mark.slow
def test_documents_of_lost_cells_go_though_their_removal_was_stopped(small, tmp_path, monkeypatch):
    output = Output(small, tmp_path)
    output.finish(make_pixels(small, seed=2), small.cells)
    collect_year(output.path, small, overviews=False)
    for cell in small.cells:
        output.ledger.retire(cell)
    with monkeypatch.context() as patched:
        delete = LocalObjects.delete

        def stop(self, key):
            if "/stac/" in key and "/collected/" not in key:
                raise Stopped
            delete(self, key)

        patched.setattr(LocalObjects, "delete", stop)
        with pytest.raises(Stopped):
            collect_year(output.path, small, overviews=False)
    collect_year(output.path, small, overviews=False)
    documents = (tmp_path / "years/2024/products/stac").rglob("*.json")
    assert [path.name for path in documents] == ["collection.json"]


@pytest.fixture(scope="module")
def stac_errors():
    """Messages about a STAC document; every schema from the disk."""
    import jsonschema
    import referencing

    resources = [(uri, referencing.Resource.from_contents(one)) for uri, one in get_local_schema_cache().items()]
    registry = referencing.Registry().with_resources(resources)

    def errors(document):
        kind = {"Feature": "item", "Collection": "collection", "Catalog": "catalog"}[document["type"]]
        schema = f"https://schemas.stacspec.org/v1.1.0/{kind}-spec/json-schema/{kind}.json"
        return [
            one.message for one in jsonschema.Draft7Validator({"$ref": schema}, registry=registry).iter_errors(document)
        ]

    return errors


@pytest.mark.slow
def test_stac_is_valid_and_leads_to_the_products(plan, finished, tmp_path, stac_errors, small_partitions):
    output = finished(tmp_path / "written")
    collected = collect_year(output.path, plan, overviews=False, formats=["fgb"])
    moved = (tmp_path / "written").rename(tmp_path / "moved")
    documents = [moved / "catalog.json", *(moved / "years/2024/products/stac").rglob("*.json")]
    assert len(documents) == 1 + 1 + 3 + len(DONE)  # catalog, collection, partitions, cells
    for path in documents:
        assert stac_errors(json.loads(path.read_text())) == []
    catalog = pystac.Catalog.from_file(str(moved / "catalog.json"))
    (collection,) = catalog.get_children()
    assert (collection.id, collected.stac) == ("small-2024", "years/2024/products/stac/collection.json")
    for one in collection.assets.values():
        assert Path(one.get_absolute_href()).exists()
    items = list(catalog.get_items(recursive=True))
    assert {item.id for item in items} == {f"small-2024-{plan.grid[cell].id}" for cell in DONE}
    assert {item.get_collection().id for item in items} == {"small-2024"}
    for item in items:
        assert set(item.assets) >= {"map", "probability", "binary"}
        for one in item.assets.values():
            assert Path(one.get_absolute_href()).exists()


def test_stac_opens_through_our_own_sources(plan, pixels, finished, tmp_path, small_partitions):
    output = finished(tmp_path)
    collect_year(output.path, plan, overviews=False)
    cell = DONE[2]
    area = plan.grid[cell].polygon.buffer(-100)
    lonlat = geopandas.GeoSeries([area], crs=plan.grid.crs).to_crs(4326).iloc[0]
    source = StacCatalog(str(tmp_path / "catalog.json"), collections=("small-2024",))
    wanted = [BandRequest(name="probability", asset="probability"), BandRequest(name="binary", asset="binary")]
    (image,) = source.find(lonlat, Period(date(2024, 1, 1), date(2024, 12, 31)), wanted)
    assert image.id == "small-2024-r302c-208"
    assert image.bands["probability"].scale_factor == 0.01
    assert source.find(lonlat, Period(date(2023, 1, 1), date(2023, 12, 31)), wanted) == ()
    files = [image.bands[name].href for name in ("probability", "binary")]
    opened = rtsx.open_cube(files, plan.grid[cell], layers=["probability", "binary"])
    item = pystac.Item.from_file(str(tmp_path / "years/2024/products/stac/r151c-104/r302c-208.json"))
    stored = rtsx.open_cube(item.assets["map"].get_absolute_href(), plan.grid[cell]).isel(time=0)
    for name in ("probability", "binary"):
        expected = pixels[name][plan.region(cell)]
        assert np.array_equal(opened[name].values, expected)
        assert np.array_equal(stored[name].values, expected)


def test_a_catalog_that_states_an_extent_is_passed_over_elsewhere(plan, finished, tmp_path, small_partitions):
    output = finished(tmp_path)
    collect_year(output.path, plan, overviews=False)
    far = tmp_path / "years/2024/products/stac/r153c-101/r307c-202.json"
    far.write_text("no JSON")
    lonlat = plan.grid[DONE[0]].lonlat.centroid.buffer(1e-4)
    wanted = [BandRequest(name="binary", asset="binary")]
    for names in ((), ("small-2024",)):
        source = StacCatalog(str(tmp_path / "catalog.json"), collections=names)
        assert [image.id for image in source.find(lonlat, None, wanted)] == ["small-2024-r300c-209"]


@pytest.mark.slow
def test_two_years_make_tracks_and_share_the_map(tmp_path, small_partitions):
    years = {}
    for year in (2023, 2024):
        plan = plan_of(2, 3, cell=32, year=year)
        output = Output(plan, tmp_path)
        pixels = make_pixels(plan, seed=year, smooth=4.0, threshold=0.0)
        output.finish(pixels, plan.cells)
        years[year] = whole_footprints(pixels, plan)
        collected = collect_year(output.path, plan)
        assert (collected.tracks is None) == (year == 2023)
    expected = rtsx.track_footprints(years)
    found = geopandas.read_parquet(tmp_path / collected.tracks)
    key = ["year", "footprint_id"]
    assert found[key].value_counts().max() == 1
    for name in ("track_id", "event", "parents", "children", "merged_tracks", "family_id"):
        mine, theirs = (table.set_index(key)[name].sort_index().tolist() for table in (found, expected))
        assert mine == theirs
    children = pystac.Catalog.from_file(str(tmp_path / "catalog.json")).get_children()
    assert {child.id for child in children} == {"small-2023", "small-2024"}
    # A cell of the earlier year that changes is seen in the tracks of the later one.
    early = Output(plan_of(2, 3, cell=32, year=2023), tmp_path)
    early.ledger.retire((TOP, LEFT))
    collect_year(early.path, early.plan)
    assert any("/tracks/" in key for key in collect_year(output.path, plan).rewritten)


@pytest.mark.slow
def test_a_year_more_makes_room_in_the_overviews(tmp_path):
    for year in (2025, 2023):
        plan = plan_of(5, 5, cell=64, year=year)
        output = Output(plan, tmp_path)
        pixels = make_pixels(plan, seed=year)
        output.finish(pixels, DONE[:3])
        collect_year(output.path, plan, stac=False)
        level = xr.open_zarr(tmp_path / MAP / "2x", mask_and_scale=False)
        assert level.sizes["time"] == (1 if year == 2025 else 2)
        known = whole(masked(pixels, plan, DONE[:3]), plan)["valid"].values
        coarse = known[::2, ::2] | known[1::2, ::2] | known[::2, 1::2] | known[1::2, 1::2]
        assert np.array_equal(level["valid"].sel(time=f"{year}-01-01").values, coarse)


@pytest.mark.slow
def test_several_classes(tmp_path):
    plan = plan_of(5, 5, cell=64, classes=("slump", "pond"))
    output = Output(plan, tmp_path / "out")
    pixels = make_pixels(plan, seed=1)
    output.finish(pixels, DONE[:3])
    collected = collect_year(output.path, plan)
    known = masked(pixels, plan, DONE[:3])
    rtsx.write_cube(whole(known, plan).expand_dims("time"), tmp_path / "w.zarr")
    mine, theirs = (
        xr.open_zarr(path / "2x", mask_and_scale=False) for path in (tmp_path / "out" / MAP, tmp_path / "w.zarr")
    )
    for name in ("probability", "binary", "valid"):
        assert np.array_equal(mine[name].transpose(*theirs[name].dims).values, theirs[name].values)
    assert mine["class"].values.tolist() == ["slump", "pond"]
    found = geopandas.read_parquet(tmp_path / "out" / collected.footprints)
    assert set(found["class_name"]) == {"slump", "pond"}
    assert len(found) == len(whole_footprints(known, plan))


def test_outlines_are_not_needed(tmp_path):
    plan = plan_of(2, 2, cell=32)
    output = Output(plan, tmp_path)
    output.finish(make_pixels(plan, seed=1), plan.cells)
    bare = plan_of(2, 2, cell=32, spec=None, outlines=None)
    collected = collect_year(output.path, bare)
    assert (collected.footprints, collected.level2, collected.n_items) == (None, None, 4)
    with pytest.raises(CampaignError, match="planned without outlines"):
        collect_year(output.path, bare, formats=["gpkg"])


def test_nothing_done_is_collected_as_nothing(small, tmp_path, stac_errors):
    output = Output(small, tmp_path)
    collected = collect_year(output.path, small, formats=["gpkg"])
    assert (collected.n_cells, collected.n_missing, collected.n_footprints, collected.n_items) == (0, 6, 0, 0)
    assert stac_errors(json.loads((tmp_path / collected.stac).read_text())) == []
    output.finish({name: np.zeros_like(array) for name, array in make_pixels(small, seed=1).items()}, small.cells)
    empty = collect_year(output.path, small)
    assert (empty.n_cells, empty.n_items, empty.n_footprints) == (6, 0, 0)
    assert len(geopandas.read_parquet(tmp_path / empty.footprints)) == 0


def test_edges_need_not_be_flagged(tmp_path):
    plan = plan_of(2, 2, cell=32, spec=OutlineSpec(min_area_m2=0.0, edge_distance=0))
    output = Output(plan, tmp_path)
    pixels = make_pixels(plan, seed=1)
    output.finish(pixels, plan.cells)
    collected = collect_year(output.path, plan, overviews=False, stac=False)
    found = geopandas.read_parquet(tmp_path / collected.footprints)
    assert len(found) == len(whole_footprints(pixels, plan))
    assert not found["touches_edge"].any()


def test_outlines_that_changed_behind_a_mark_are_refused(small, tmp_path):
    output = Output(small, tmp_path)
    output.finish(make_pixels(small, seed=2), small.cells)
    cell = next(cell for cell in small.cells if output.objects.get(output.layout.outline(cell)))
    output.objects.put(output.layout.outline(cell), b"other")
    with pytest.raises(CampaignError, match=r"has changed since cell r\d+c-\d+ was committed.*verify"):
        collect_year(output.path, small)
    output.objects.delete(output.layout.outline(cell))
    with pytest.raises(CampaignError, match="is missing since cell"):
        collect_year(output.path, small)


def test_unknown_formats_are_refused(small, tmp_path, monkeypatch):
    with pytest.raises(CampaignError, match=r"gpkg, flatgeobuf, pmtiles, beside GeoParquet; got 'shp'"):
        collect_year(str(tmp_path), small, formats=["shp"])
    monkeypatch.setattr("pyogrio.list_drivers", lambda: {"GPKG": "rw"})
    with pytest.raises(MissingExtraError, match="cannot write PMTiles"):
        collect_year(str(tmp_path), small, formats=["pmtiles"])


@pytest.mark.slow
def test_an_object_store_gets_the_same(s3, tmp_path, small_partitions):
    plan = plan_of(5, 5, cell=64)
    pixels = make_pixels(plan, seed=3)
    local, remote = Output(plan, tmp_path), Output(plan, s3.url, s3.options)
    for output in (local, remote):
        output.finish(pixels, DONE[:1])
        collected = collect_year(output.path, plan, storage_options=output.options)
        output.finish(pixels, DONE[1:2])
        collected = collect_year(output.path, plan, storage_options=output.options, formats=["gpkg"])
    assert collected.overview_shards > 0
    store = open_object_store(s3.url, s3.options)
    for key, content in files(tmp_path).items():
        if key != f"{MAP}/zarr.json" and not key.endswith("spatial_ref/zarr.json"):
            assert store.get(key) == content, key
    layout = YearLayout(2024)
    found = geopandas.read_parquet(f"{s3.url}/{layout.products}/footprints", storage_options=s3.options)
    expected = whole_footprints(masked(pixels, plan, DONE[:2]), plan)
    assert sorted(found["footprint_id"]) == sorted(expected["footprint_id"])
    stored = rtsx.open_cube(f"{s3.url}/{MAP}", storage_options=s3.options)
    assert int(stored["valid"].sum()) == int(masked(pixels, plan, DONE[:2])["valid"].sum())
