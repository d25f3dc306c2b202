"""Addresses."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from shapely import box
from shapely.geometry import mapping

import rtsx
from rtsx.config.order import load_order_config
from rtsx.config.source import SourceConfig
from rtsx.cube.images import BandRequest, Period
from rtsx.cube.open import open_source
from rtsx.cube.recipe import CubeRecipe, LayerRecipe, SourceRecipe
from rtsx.cube.stac import ItemTable, StacItems
from rtsx.cube.stac.assets import (
    absolute_href,
    get_signer,
    located,
    newest_processing,
    packing_of,
    select_asset,
    self_href,
    sibling_href,
)
from rtsx.cube.stac.item import bands_of
from rtsx.errors import ConfigError, CubeError
from rtsx.grid import Grid
from rtsx.ordering import StacProvider, StaticCatalog


@pytest.mark.parametrize(
    ("href", "base", "expected"),
    [
        ("red.tif", "/data/a.json", "/data/red.tif"),
        ("./x/../red.tif", "items/a.json", f"{Path.cwd()}/items/red.tif"),
        ("../../red.tif", "a/b.json", f"{Path.cwd().parent}/red.tif"),
        ("red.tif", None, f"{Path.cwd()}/red.tif"),
        ("/abs/red.tif", "https://e.org/i/a.json", "https://e.org/abs/red.tif"),
        ("//other.org/red.tif", "https://e.org/a.json", "https://other.org/red.tif"),
        ("./red.tif", "s3://bucket/items/a.json", "s3://bucket/items/red.tif"),
        ("../red.tif?sig=1", "https://e.org/i/a.json", "https://e.org/red.tif?sig=1"),
        ("s3://bucket/red.tif", "/data/a.json", "s3://bucket/red.tif"),
        ("/vsizip/a.zip/red.tif", "/data/a.json", "/vsizip/a.zip/red.tif"),
        ("/vsicurl/https://f.org/red.tif", "https://e.org/a.json", "/vsicurl/https://f.org/red.tif"),
        ("/vsizip//vsis3/b/a.zip/red.tif", "https://e.org/a.json", "/vsizip//vsis3/b/a.zip/red.tif"),
        ("memory://a/red.tif", "memory://a/a.json", "memory://a/red.tif"),
        ("file:///data/a%20b.tif", "/data/a.json", "/data/a b.tif"),
        ("FILE:/data/red.tif", None, "/data/red.tif"),
        ("red.tif", "file:///data/a.json", "/data/red.tif"),
    ],
)
def test_absolute(href: str, base: str | None, expected: str) -> None:
    assert absolute_href(href, base) == expected


LOCAL = [
    "file:///etc/hostname",
    "FILE:///etc/hostname",
    " file:/etc/hostname",
    "file://server/share/x",
    "/vsizip/a.zip/red.tif",
    "/vsizip//etc/a.zip",
    "/vsicurl?header_file=/etc/hostname&url=https://e.org/x",
    "/vsistdin/",
    "/vsisubfile/0_9,/etc/hostname",
    "/vsicurl/file:///etc/hostname",
    "zip+file:///etc/a.zip!x",
    "zip://x::file:///etc/a.zip",
    "simplecache::file:///etc/hostname",
    "local:///etc/hostname",
    "memory://x",
    "vrt:///etc/hostname?bands=1",
    'NETCDF:"/etc/x":v',
    "C:\\data\\x.tif",
    "http://[/x",
]


@pytest.mark.parametrize("base", ["https://e.org/i/a.json", "s3://bucket/i/a.json"])
@pytest.mark.parametrize("href", LOCAL)
def test_a_document_on_a_server_names_no_file_of_this_machine(href: str, base: str) -> None:
    with pytest.raises(CubeError, match=r"is no address on a server, and a document that lies on one"):
        absolute_href(href, base)


@pytest.mark.parametrize("base", ["https://e.org/i/a.json", "s3://bucket/i/a.json"])
@given(
    href=st.text(st.sampled_from("/\\.:%?#vsicurlfe-~ x\x00\t"), max_size=14)
    | st.sampled_from(LOCAL).map(lambda one: one[1:])
)
def test_whatever_it_says_leads_to_a_server(href: str, base: str) -> None:
    try:
        found = absolute_href(href, base)
    except CubeError:
        return
    assert found.startswith(("http://", "https://", "s3://", "ftp://", "/vsicurl/http", "/vsis3/"))


def test_the_base_is_the_self_link() -> None:
    item = {"links": [{"rel": "root", "href": "r"}, {"rel": "self", "href": "s"}]}
    assert self_href(item) == self_href(item, "/data/a.json") == "s"
    assert self_href(item, "https://e.org/search") == "https://e.org/search"  # which cannot lie on a disk
    assert self_href({}, "f") == "f"
    assert self_href({}) is None
    assert self_href(located(item, "https://e.org/a.json")) == "https://e.org/a.json"


def test_a_file_beside_its_item(tmp_path: Path) -> None:
    (tmp_path / "red band.tif").touch()
    here = str(tmp_path / "item.json")
    assert sibling_href("https://e.org/far/red%20band.tif?sig=1", here) == str(tmp_path / "red band.tif")
    assert sibling_href("https://e.org/far/nir.tif", here) == "https://e.org/far/nir.tif"
    assert sibling_href("https://e.org/red.tif", "https://e.org/item.json") == "https://e.org/red.tif"


def test_signing_hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_archive.py").write_text("sign = lambda href: f'{href}?token=1'\nnumber = 1\n")
    (tmp_path / "my_archive-1.0.dist-info").mkdir()
    names = {
        "mine": "my_archive:sign",
        "gone": "my_archive:nothing",
        "far": "no_such_archive:sign",
        "one": "my_archive:number",
    }
    points = "".join(f"{name} = {value}\n" for name, value in names.items())
    (tmp_path / "my_archive-1.0.dist-info" / "entry_points.txt").write_text(f"[rtsx.signers]\n{points}")
    (tmp_path / "my_archive-1.0.dist-info" / "METADATA").write_text("Name: my-archive\nVersion: 1.0\n")
    assert get_signer("mine")("a.tif") == get_signer(lambda href: f"{href}?token=1")("a.tif") == "a.tif?token=1"
    with pytest.raises(CubeError, match=r"needs 'nothing' in the module 'my_archive'"):
        get_signer("gone")
    with pytest.raises(CubeError, match=r"pip install no-such-archive"):
        get_signer("far")
    with pytest.raises(CubeError, match=r"has to be a function from an href to an href; got int"):
        get_signer("one")


@pytest.mark.parametrize("name", ["theirs", "os:system", "my_archive:sign", "builtins:eval", ""])
def test_a_config_names_no_function(tmp_path: Path, name: str) -> None:
    """Which would run any code as soon as a cube is opened."""
    with pytest.raises(CubeError, match=r"Known signing hooks are \['planetary-computer'.*; got '"):
        get_signer(name)
    cube = "grid: {crs: EPSG:32607, resolution: 100}\nregion: {bbox: [-141,69.5,-140.9,69.55]}\nsources:\n  s:\n"
    order = "name: x\nregion: {bbox: [-141,69.5,-140.9,69.55]}\nperiod: {years: 2024}\nout: out\n"
    (tmp_path / "order.yaml").write_text(f"{order}catalog: {{path: i.json, sign: '{name}'}}\n")
    with pytest.raises(ConfigError, match=r"Known signing hooks are"):
        load_order_config(tmp_path / "order.yaml")
    for images in ("catalog: {path: i.json", "items: {path: i.parquet", "stac: {url: 'https://e.org', collections: c"):
        (tmp_path / "cube.yaml").write_text(
            f"{cube}    {images}, sign: '{name}'}}\n    layers: {{red: {{asset: d}}}}\n"
        )
        with pytest.raises(
            ConfigError, match=r"sources\.s\.\w+\.sign: known signing hooks are|Known signing hooks are"
        ):
            rtsx.open_cube(tmp_path / "cube.yaml")


def test_a_function_cannot_be_stored(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hook 'mine' is a function, which no file can name"):
        SourceConfig.from_recipe(
            SourceRecipe(
                name="s",
                images=ItemTable("items.parquet", sign=mine),
                layers=(LayerRecipe(wanted=BandRequest(name="red")),),
            )
        )


def mine(href: str) -> str:
    return href


@pytest.mark.parametrize(
    "name", ["a b.tif", "a#b.tif", "\N{LATIN SMALL LETTER A WITH DIAERESIS}.tif", "a+b.tif", "100%.tif", "[1]?.tif"]
)
def test_local_hrefs_are_uris_or_plain_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "items").mkdir()
    base = str(tmp_path / "items" / "a.json")
    for href in (
        f"../{name}",
        f"../{quote(name)}",
        f"{tmp_path}/{quote(name)}",
        f"file://{tmp_path}/{quote(name)}",
        (tmp_path / name).as_uri(),
    ):
        for document in (base, Path(base).as_uri()):
            assert absolute_href(href, document) == str(tmp_path / name)
    # A file that really has such a name is meant.
    (tmp_path / quote(name)).touch()
    assert absolute_href(f"../{quote(name)}", base) == str(tmp_path / quote(name))
    assert absolute_href("../no%20such.tif", base) == str(tmp_path / "no%20such.tif")


EIGHT = ("Coastal Blue", "Blue", "Green I", "Green", "Yellow", "Red", "Red Edge", "Near-Infrared")


def eo(*names: str, common: tuple[str | None, ...] = ()) -> dict[str, Any]:
    commons = common or (None,) * len(names)
    return {
        "href": f"{names}.tif",
        "eo:bands": [{"name": n} | ({"common_name": c} if c else {}) for n, c in zip(names, commons, strict=True)],
    }


def numbers(assets: dict[str, Any], wanted: BandRequest) -> tuple[str, tuple[int, ...] | None]:
    choice = select_asset({"id": "a", "assets": assets}, wanted)
    return choice.asset, None if choice.bands is None else tuple(band.number for band in choice.bands)


def test_the_asset_by_its_key_in_any_spelling() -> None:
    assets = {"SCL": eo("SCL"), "ortho_udm2": eo(*(f"B{n}" for n in range(1, 9)))}
    assert numbers(assets, BandRequest(name="scl", asset="SCL")) == ("SCL", (1,))
    assert numbers(assets, BandRequest(name="scl", asset="scl")) == ("SCL", (1,))
    assert numbers(assets, BandRequest(name="udm2")) == ("ortho_udm2", tuple(range(1, 9)))
    assert numbers(assets, BandRequest(name="x", asset="udm2", bands=(1, 8))) == ("ortho_udm2", (1, 8))


def test_the_asset_by_its_planet_type() -> None:
    assets = {"2022_3B_SR_tif": eo(*EIGHT) | {"pl:asset_type": "ortho_analytic_8b_sr"}}
    for name in ("ortho_analytic_8b_sr", "analytic_8b_sr"):
        assert numbers(assets, BandRequest(name="nir", asset=name, bands=("Near-Infrared",))) == (
            "2022_3B_SR_tif",
            (8,),
        )
    assert numbers(assets, BandRequest(name="green_i")) == ("2022_3B_SR_tif", (3,))
    assert numbers(assets, BandRequest(name="rgb", bands=("Red", "Green", "Blue"))) == ("2022_3B_SR_tif", (6, 4, 2))


def test_an_exact_name_goes_before_a_common_name_and_that_before_another_spelling() -> None:
    assets = {
        "spelled": eo("Red"),
        "common": eo("B4", common=("red",)),
        "exact": eo("red"),
    }
    assert numbers(assets, BandRequest(name="red"))[0] == "exact"
    del assets["exact"]
    assert numbers(assets, BandRequest(name="red"))[0] == "common"
    del assets["common"]
    assert numbers(assets, BandRequest(name="red"))[0] == "spelled"


@pytest.mark.parametrize(
    ("band", "wish"),
    [
        (("Near Infrared", None), "near_infrared"),
        (("Near-Infrared", None), "nir"),
        (("B08", "nir"), "Near Infrared"),
        (("Blue", None), "blue"),
        (("blue", None), "Blue"),
        (("Coastal Blue", None), "coastal"),
    ],
)
def test_names_in_any_spelling(band: tuple[str, str | None], wish: str) -> None:
    assets = {"all": eo("B8A", band[0], "Green I", common=("nir08", band[1], None))}
    for wanted in (
        BandRequest(name=wish),
        BandRequest(name=wish, asset="all"),
        BandRequest(name="x", asset="all", bands=(wish,)),
    ):
        assert numbers(assets, wanted) == ("all", (2,))


def test_a_layer_of_sentinel2_is_found_by_its_number_where_the_common_name_is_another() -> None:
    def selected(assets: dict[str, Any], name: str) -> str:
        item = {"id": "a", "properties": {"constellation": "Sentinel 2"}, "assets": assets}
        return select_asset(item, BandRequest(name=name)).asset

    edges = {key: eo(key, common=("rededge",)) for key in ("B05", "B8A")}
    assert [selected(edges, name) for name in ("nir08", "rededge1")] == ["B8A", "B05"]
    assert selected({"B8A": {"href": "a.tif"}, "B08": eo("B08", common=("nir",))}, "nir08") == "B8A"
    assert selected({"nir": eo("B08", common=("nir08",)), "B8A": eo("B8A")}, "nir08") == "nir"  # the item decides
    with pytest.raises(
        CubeError, match=r"no band 'nir08'\. .*B08 \(B08 nir\).* calls 'nir08' B8A\..*'nir'\? Write `nir08: B"
    ):
        selected({"B08": eo("B08", common=("nir",))}, "nir08")
    with pytest.raises(CubeError, match=r"no band 'nir'\. .*B8A \(B8A rededge\).* calls 'nir' B08\."):
        selected(edges, "nir")
    with pytest.raises(CubeError, match="no band 'nir08'"):  # of another mission, B8A may be anything
        numbers(edges, BandRequest(name="nir08"))


def test_all_bands_only_where_none_has_the_name() -> None:
    assets = {"all": eo("B05", "B06", "SCL", common=("rededge", "rededge", None))}
    assert numbers(assets, BandRequest(name="scl", asset="all")) == ("all", (3,))
    assert numbers(assets, BandRequest(name="clouds", asset="all")) == ("all", (1, 2, 3))
    for wanted in (BandRequest(name="rededge", asset="all"), BandRequest(name="rededge")):
        with pytest.raises(CubeError, match=r"has bands \[1, 2\] called 'rededge'; give a number"):
            numbers(assets, wanted)


def test_pictures_never_answer_for_a_band() -> None:
    assets = {"visual": eo("B04", "B03", common=("red", "green")), "pic": eo("red") | {"roles": ["overview"]}}
    with pytest.raises(
        CubeError, match=r"Item a has no band 'red'\. Its assets and bands are: visual \(B04 red, B03 green\)"
    ):
        numbers(assets, BandRequest(name="red"))
    assert numbers(assets, BandRequest(name="red", asset="visual")) == ("visual", (1,))


def test_metadata_never_answers_for_a_band() -> None:
    assets = {"red": {"href": "red.json"}, "B4": eo("B4", common=("red",))}
    assert numbers(assets, BandRequest(name="red"))[0] == "B4"


def test_the_finest_pixels_then_the_cloud_optimised_file() -> None:
    coarse, fine = eo("B02") | {"proj:transform": [20, 0, 0, 0, -20, 0]}, eo("B02") | {"gsd": 10}
    assert numbers({"blue_20m": coarse, "blue_10m": fine}, BandRequest(name="B02"))[0] == "blue_10m"
    cog = fine | {"type": "image/tiff; application=geotiff; profile=cloud-optimized"}
    assert numbers({"jp2": fine | {"type": "image/jp2"}, "cog": cog}, BandRequest(name="B02"))[0] == "cog"


def test_two_products_are_an_error_instead_of_a_guess() -> None:
    assets = {"analytic": eo("Red"), "analytic_sr": eo("Red")}
    with pytest.raises(CubeError, match=r"in several assets: \['analytic', 'analytic_sr'\].*name one with asset="):
        numbers(assets, BandRequest(name="red"))


def test_what_is_missing_is_named_with_what_is_there() -> None:
    assets = {"sr": eo("Red", "Green")}
    with pytest.raises(CubeError, match=r"no asset 'analytic'\. Its assets and bands are: sr \(Red, Green\)"):
        numbers(assets, BandRequest(name="red", asset="analytic"))
    with pytest.raises(CubeError, match=r"no band 3 in asset 'sr', which has 2"):
        numbers(assets, BandRequest(name="red", asset="sr", bands=(3,)))
    with pytest.raises(CubeError, match=r"no band 0 in asset 'sr', which has 1"):
        numbers({"sr": eo("Red")}, BandRequest(name="red", asset="sr", bands=(0,)))
    with pytest.raises(CubeError, match=r"no band 'nir' in asset 'sr'"):
        numbers(assets, BandRequest(name="nir", asset="sr", bands=("nir",)))
    with pytest.raises(CubeError, match=r"no asset 'thing' to take bands \[1\] of"):
        numbers(assets, BandRequest(name="thing", bands=(1,)))
    with pytest.raises(CubeError, match=r"Its assets and bands are: none"):
        numbers({}, BandRequest(name="red"))


def test_names_that_fit_twice_are_an_error() -> None:
    edges = eo("B05", "B06", common=("rededge", "rededge"))
    with pytest.raises(CubeError, match=r"has bands \[1, 2\] called 'rededge'; give a number"):
        numbers({"all": edges}, BandRequest(name="edge", asset="all", bands=("rededge",)))
    with pytest.raises(CubeError, match=r"several assets that go by 'scl': \['SCL', 'Scl'\]"):
        numbers({"SCL": eo("a"), "Scl": eo("b")}, BandRequest(name="scl"))


def test_what_an_item_does_not_list_is_left_to_the_file() -> None:
    bare, unnamed = {"href": "sr.tif"}, {"href": "sr.tif", "raster:bands": [{}, {}]}
    assert numbers({"sr": bare}, BandRequest(name="red", asset="sr", bands=("red",))) == ("sr", None)
    assert numbers({"sr": unnamed}, BandRequest(name="red", asset="sr")) == ("sr", None)
    assert numbers({"sr": unnamed}, BandRequest(name="red", asset="sr", bands=(2,))) == ("sr", (2,))


OLD = "S2B_MSIL2A_20210721T212529_N0301_R043_T07WFT_20210722T003344"
NEW = "S2B_MSIL2A_20210721T212529_N0500_R043_T07WFT_20230215T112233"
OTHER_DAY = "S2B_MSIL2A_20210724T213529_N0301_R086_T07WFT_20210725T003344"
OTHER_TILE = "S2B_MSIL2A_20210721T212529_N0301_R043_T07WET_20210722T003344"


def item(name: str, ground: Any = None, **properties: Any) -> dict[str, Any]:
    date = datetime.strptime(name.split("_")[2][:8], "%Y%m%d").replace(tzinfo=UTC)
    return {
        "type": "Feature",
        "id": name,
        "geometry": None if ground is None else mapping(ground),
        "bbox": None if ground is None else list(ground.bounds),
        "properties": {"datetime": date.isoformat()} | properties,
        "assets": {},
    }


def kept(*items: dict[str, Any]) -> list[str]:
    return [str(one["id"]) for one in newest_processing(items)]


WHOLE = box(-139, 69, -138, 70)


@pytest.mark.parametrize("ground", [None, WHOLE])
def test_the_highest_baseline_of_a_pass_counts(ground: Any) -> None:
    names = OLD, NEW, OTHER_DAY, OTHER_TILE
    assert kept(*(item(name, ground) for name in names)) == [NEW, OTHER_DAY, OTHER_TILE]
    assert kept(*(item(name, ground) for name in reversed(names))) == [OTHER_TILE, OTHER_DAY, NEW]


@pytest.mark.parametrize("stated", ["s2:processing_baseline", "processing:version"])
def test_ids_of_earth_search(stated: str) -> None:
    first, second = "S2A_52WDV_20210721_0_L2A", "S2A_52WDV_20210721_1_L2A"
    for baselines, expected in ((("03.01", "05.00"), second), (("05.00", "03.01"), first)):
        items = [item(name, WHOLE, **{stated: one}) for name, one in zip((first, second), baselines, strict=True)]
        assert kept(*items) == [expected]


def test_ids_without_a_baseline_and_other_sensors() -> None:
    planetary = [NEW.replace("_N0500", ""), OLD.replace("_N0301", "")]
    stated = [
        item(name, WHOLE, **{"s2:processing_baseline": one})
        for name, one in zip(planetary, ("05.00", "03.01"), strict=True)
    ]
    assert kept(*stated) == [planetary[0]]
    landsat = item("LC08_L2SP_20210721_02_T1", WHOLE)
    assert kept(landsat, landsat) == [landsat["id"]] * 2


def test_the_last_processing_of_a_scene_of_landsat_counts() -> None:
    scene, again, below, mission = (
        {**item("LC08_L2SP_20210721", WHOLE), "id": name}
        for name in (
            "LC08_L2SP_068011_20210721_20210730_02_RT",
            "LC08_L2SR_068011_20210721_20210810_02_T1",
            "LC08_L2SP_068012_20210721_20210730_02_T1",
            "LE07_L2SP_068011_20210721_20210730_02_T1",
        )
    )
    assert kept(scene, again, below, mission) == [again["id"], below["id"], mission["id"]]


def test_two_strips_of_one_tile_both_count() -> None:
    west, east = box(-139, 69, -138.5, 70), box(-138.6, 69, -138, 70)
    again = NEW.replace("20230215T112233", "20230215T112244")
    assert kept(item(NEW, west), item(again, east)) == [NEW, again]
    assert kept(item(NEW, WHOLE), item(again, WHOLE)) == [again]
    assert kept(item(OLD, WHOLE), item(NEW, west)) == [OLD, NEW]
    assert kept(item(OLD, WHOLE), item(NEW, west), item(again, east)) == [NEW, again]


def _cube(tmp_path: Path, **source: Any) -> Any:
    grid = Grid("EPSG:32607", 10.0, cell_size=32, origin=(500_000.0, 7_700_000.0))
    items = []
    for cloud_cover, (name, value) in enumerate(((OLD, 2000), (NEW, 6000), (OTHER_DAY, 4000))):
        path = tmp_path / f"{name}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", height=32, width=32, count=1, dtype="uint16", crs="EPSG:32607", nodata=0,
            transform=Affine(10, 0, 500_000, 0, -10, 7_700_000),
        ) as file:  # fmt: skip
            file.write(np.full((1, 32, 32), value, np.uint16))
        items.append(
            item(name, **{"eo:cloud_cover": cloud_cover})
            | {"assets": {"B04": {"href": str(path), "eo:bands": [{"name": "B04"}]}}}
        )
    layers = (LayerRecipe(wanted=BandRequest(name="red", asset="B04")),)
    recipe = SourceRecipe(name="s2", images=StacItems(items), layers=layers, **source)
    return open_source(CubeRecipe(grid=grid, sources=(recipe,)), grid[0, 0]).compute()


def _reflectances(layer: Any) -> list[float]:
    values = layer.values.reshape(-1, 32 * 32)[:, 0] * layer.attrs["scale_factor"] + layer.attrs["add_offset"]
    return np.round(values, 4).tolist()


def test_composites_and_series_count_a_pass_once(tmp_path: Path) -> None:
    # 0.5 of the new processing, with its offset, and 0.4 of another day; the old one of the first day says 0.2.
    assert _reflectances(_cube(tmp_path, composite="first").red) == [0.5]
    assert _reflectances(_cube(tmp_path, composite="median").red) == [0.45]
    assert _reflectances(_cube(tmp_path, composite="mean").red) == [0.45]
    series = _cube(tmp_path, group="day")
    assert _reflectances(series.red) == [0.5, 0.4]
    assert series.item_ids.values.tolist() == [NEW, OTHER_DAY]


def test_an_order_takes_a_pass_once(tmp_path: Path) -> None:
    names = OLD, NEW, OTHER_DAY
    for name in names:
        (tmp_path / f"{name}.json").write_text(json.dumps(item(name, WHOLE) | {"stac_version": "1.0.0"}))
    links = [{"rel": "item", "href": f"./{name}.json"} for name in names]
    (tmp_path / "catalog.json").write_text(json.dumps({"type": "Catalog", "id": "s2", "links": links}))
    provider = StacProvider(StaticCatalog(str(tmp_path / "catalog.json")))
    scenes = provider.search(WHOLE, Period(date(2021, 7, 1), date(2021, 7, 31)))
    assert [scene.id for scene in scenes] == [NEW, OTHER_DAY]


STATED = {"data_type": "uint16", "nodata": 0, "scale": 1e-4, "offset": -0.1}


def packed(
    properties: dict[str, Any],
    *,
    raster: dict[str, Any] | None = None,
    key: str = "red",
    name: str = "B04",
    **item: Any,
) -> tuple[float | None, float | None]:
    asset = {"href": "x", "eo:bands": [{"name": name}]} | ({"raster:bands": [raster]} if raster else {})
    whole = {"id": "a", "properties": properties, "assets": {key: asset}} | item
    found = packing_of(whole, key, band=bands_of(whole, key)[0])
    return found.scale, None if found.offset is None else round(found.offset, 12)


@pytest.mark.parametrize(
    ("properties", "raster", "expected"),
    [
        ({"s2:processing_baseline": "02.12"}, None, (1e-4, 0.0)),
        ({"s2:processing_baseline": "03.01"}, None, (1e-4, 0.0)),
        ({"s2:processing_baseline": "04.00"}, None, (1e-4, -0.1)),
        ({"s2:processing_baseline": "05.11"}, None, (1e-4, -0.1)),
        ({"s2:processing_baseline": "05.09"}, STATED, (1e-4, -0.1)),
        ({"s2:processing_baseline": "05.09"}, STATED | {"offset": 0}, (1e-4, 0.0)),
        ({"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True}, STATED, (1e-4, 0.0)),
        ({"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False}, STATED, (1e-4, -0.1)),
        ({"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True}, None, (1e-4, 0.0)),
        ({"s2:processing_baseline": "04.00"}, {"data_type": "uint16", "scale": 1.0}, (1.0, -1000.0)),
        ({"s2:product_uri": "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157.SAFE"}, None, (1e-4, -0.1)),
        ({"s2:product_uri": "S2A_MSIL2A_20190625T234621_N0212_R073_T01WCP_20190626T022157.SAFE"}, None, (1e-4, 0.0)),
        ({"platform": "landsat-8"}, STATED, (1e-4, -0.1)),
        ({"platform": "landsat-8"}, None, (None, None)),
    ],
)
def test_the_rule(
    properties: dict[str, Any], raster: dict[str, Any] | None, expected: tuple[float | None, float | None]
) -> None:
    assert packed(properties, raster=raster) == expected


def test_only_reflectance_has_it() -> None:
    new = {"s2:processing_baseline": "05.09"}
    assert packed(new, key="SCL", name="SCL") == (None, None)
    assert packed(new, key="visual", name="B04") == (None, None)
    assert packed(new, key="B8A", name="B8A") == (1e-4, -0.1)
    assert packed(new, key="picture", name="B04", raster={"data_type": "uint8"}) == (None, None)
    assert packed(new, key="B04_10m", name="red") == (1e-4, -0.1)


def test_earth_search_calls_bands_by_their_colours() -> None:
    new = {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True}
    assert packed(new, key="red", name="red", raster=STATED) == (1e-4, 0.0)
    assert packed(new, key="rededge1", name="rededge1", raster=STATED) == (1e-4, 0.0)
    assert packed(new, key="aot", name="aot", raster={"scale": 0.001}) == (0.001, None)
    original = {"id": "a", "properties": new, "assets": {"red-jp2": {"href": "x", "type": "image/jp2"}}}
    original["assets"]["red-jp2"] |= {"eo:bands": [{"name": "red"}], "raster:bands": [STATED]}
    assert packing_of(original, "red-jp2", band=bands_of(original, "red-jp2")[0]).offset == -0.1
