"""Items to images."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from shapely import box

from rtsx.cube.images import BandRequest, BandSource, Period
from rtsx.cube.rasterio import RasterHeader, read_header
from rtsx.cube.resample.readers import open_reader
from rtsx.cube.stac import StacItems, images_of
from rtsx.errors import CubeError

Make = Callable[..., dict[str, Any]]
RED = [BandRequest(name="red")]
HERE = Affine(0.01, 0, 10, 0, -0.01, 61)


def test_a_described_item_needs_no_header(make_item: Make, no_header: Callable[[str], RasterHeader]) -> None:
    properties = {"eo:cloud_cover": 12, "view:sun_azimuth": 180, "view:sun_elevation": 30}
    (image,) = images_of([make_item(properties=properties)], RED, read_header=no_header)
    assert image.id == "a"
    assert image.time == datetime(2023, 7, 14, 10, tzinfo=UTC)
    assert (image.cloud_cover, image.sun_azimuth, image.sun_elevation) == (12, 180, 30)
    red = image.bands["red"]
    assert (red.href, red.bands, red.asset) == ("https://example.org/a/red.tif", (1,), "red")
    assert (red.dtype, red.nodata, red.scale_factor, red.add_offset, red.opener) == ("uint16", 0, 1, 0, "gdal")
    assert tuple(red.geobox.shape) == (100, 100)
    assert pickle.loads(pickle.dumps(image)) == image


def test_what_is_wanted_goes_before_what_is_declared(make_item: Make, no_header: Callable[[str], RasterHeader]) -> None:
    wanted = [BandRequest(name="red", nodata=7, scale_factor=1e-4, add_offset=-0.1)]
    (image,) = images_of([make_item()], wanted, read_header=no_header)
    red = image.bands["red"]
    assert (red.nodata, red.scale_factor, red.add_offset) == (7, 1e-4, -0.1)


def bare(item: dict[str, Any], path: Path | str, *, keep_grid: bool = False, **asset: Any) -> dict[str, Any]:
    """The item with an asset that says only where its file is."""
    kept = {key: value for key, value in item["assets"]["red"].items() if keep_grid and key.startswith("proj:")}
    return item | {"assets": {"red": {"href": str(path)} | kept | asset}}


def test_the_header_fills_what_the_item_leaves_open(make_item: Make, write_tif: Callable[..., Path]) -> None:
    pixels = np.ones((2, 50, 60), np.int16)
    path = write_tif("b.tif", pixels, descriptions=("blue", "red"), crs="EPSG:4326", transform=HERE, nodata=-1)
    (image,) = images_of([bare(make_item(), path)], [BandRequest(name="red"), BandRequest(name="all", asset="red")])
    assert image.bands["red"].bands == (2,)
    assert image.bands["all"].bands == (1, 2)
    assert (image.bands["red"].dtype, image.bands["red"].nodata) == ("int16", -1)
    assert image.bands["red"].geobox == read_header(path).geobox
    with pytest.raises(CubeError, match=r"Band 'nir' is wanted of asset 'red' of item a of scenes.*\['blue', 'red'\]"):
        images_of([bare(make_item(), path)], [BandRequest(name="nir", asset="red", bands=("nir",))])
    with pytest.raises(CubeError, match=r"Band 3 of asset 'red' of item a of scenes is wanted; .* has 2"):
        images_of([bare(make_item(), path)], [BandRequest(name="nir", asset="red", bands=(3,))])


STATED = {"nodata": 7, "scale": 1e-4, "offset": 0.5}


@pytest.mark.parametrize("wish", [(), ("blue", "red"), (1, 2)])
@pytest.mark.parametrize(
    "asset",
    [
        {"nodata": 7, "raster:scale": 1e-4, "raster:offset": 0.5},  # STAC 1.1, once for the asset
        {"raster:bands": [STATED, STATED]},
        {"raster:bands": [STATED] * 3},
    ],
)
def test_what_an_item_states_of_nameless_bands_counts_for_those_that_the_file_names(
    asset: dict[str, Any], wish: tuple[int | str, ...], make_item: Make, write_tif: Callable[..., Path]
) -> None:
    path = write_tif(
        "b.tif", np.ones((2, 50, 60), np.int16), descriptions=("blue", "red"), crs="EPSG:4326", transform=HERE
    )
    (image,) = images_of([bare(make_item(), path, **asset)], [BandRequest(name="all", asset="red", bands=wish)])
    both = image.bands["all"]
    assert (both.nodata, both.scale_factor, both.add_offset) == (7, 1e-4, 0.5)


def test_another_number_of_bands_than_in_the_file_is_refused_where_they_differ(
    make_item: Make, write_tif: Callable[..., Path]
) -> None:
    path = write_tif("b.tif", np.ones((1, 50, 60), np.int16), crs="EPSG:4326", transform=HERE)
    item = bare(make_item(), path, **{"raster:bands": [STATED, {"nodata": 0}]})
    with pytest.raises(CubeError, match=r"lists 2 bands that differ in dtype, nodata, .* file has 1"):
        images_of([item], [BandRequest(name="red")])


def test_bands_by_what_the_file_calls_them(make_item: Make, write_tif: Callable[..., Path]) -> None:
    names = ("Blue", "Near Infrared", "Red Edge", "red_edge")
    path = write_tif("b.tif", np.ones((4, 50, 60), np.int16), descriptions=names, crs="EPSG:4326", transform=HERE)

    def bands(wanted: BandRequest) -> tuple[int | str, ...]:
        return images_of([bare(make_item(), path)], [wanted])[0].bands[wanted.name].bands

    for wish, number in (("blue", 1), ("near_infrared", 2), ("nir", 2)):
        assert bands(BandRequest(name=wish, asset="red")) == (number,)
        assert bands(BandRequest(name="x", asset="red", bands=(wish,))) == (number,)
    assert bands(BandRequest(name="x", asset="red")) == (1, 2, 3, 4)
    with pytest.raises(CubeError, match=r"Bands \[3, 4\] of .*b.tif .* are called 'rededge'; give a number"):
        bands(BandRequest(name="rededge", asset="red"))


def test_one_header_answers_for_a_collection_and_each_item_for_its_grid(
    make_item: Make, write_tif: Callable[..., Path]
) -> None:
    path = write_tif("one.tif", np.ones((1, 50, 60), np.uint8), crs="EPSG:4326", transform=HERE)
    asked: list[str] = []

    def read(name: str) -> RasterHeader:
        asked.append(Path(name).name)
        return read_header(path)

    def scenes(*, keep_grid: bool, collection: str | None) -> list[dict[str, Any]]:
        return [bare(make_item(n, collection=collection), f"{n}.tif", keep_grid=keep_grid) for n in ("a", "b", "c")]

    first, second, _ = images_of(scenes(keep_grid=True, collection="scenes"), RED, read_header=read)
    assert asked == ["a.tif"]
    assert (first.bands["red"].dtype, second.bands["red"].dtype) == ("uint8", "uint8")
    assert Path(second.bands["red"].href).name == "b.tif"
    asked.clear()
    images_of(scenes(keep_grid=False, collection="scenes"), RED, read_header=read)
    assert sorted(asked) == ["a.tif", "b.tif", "c.tif"]
    asked.clear()
    images_of(scenes(keep_grid=True, collection=None), RED, read_header=read)
    assert sorted(asked) == ["a.tif", "b.tif", "c.tif"]


def test_a_grid_in_the_wrong_zone_is_not_believed(make_item: Make, write_tif: Callable[..., Path]) -> None:
    path = write_tif("right.tif", np.ones((1, 100, 100), np.uint16), crs="EPSG:4326", transform=HERE)
    item = make_item()
    item["assets"]["red"] |= {"href": str(path), "proj:transform": [0.01, 0, -70, 0, -0.01, 61]}
    (image,) = images_of([item], RED)
    assert image.bands["red"].geobox.affine == HERE


def test_a_header_that_cannot_be_read_names_item_and_asset(make_item: Make) -> None:
    with pytest.raises(CubeError, match=r"The header of asset 'red' of item a of scenes is needed.*no such file"):
        images_of([bare(make_item(), "nowhere/red.tif")], RED)


def test_bands_that_differ_cannot_be_one(make_item: Make, no_header: Callable[[str], RasterHeader]) -> None:
    item = make_item()
    item["assets"]["red"]["raster:bands"] = [{"data_type": "uint16"}, {"data_type": "uint8"}]
    item["assets"]["red"]["eo:bands"] = [{"name": "a"}, {"name": "b"}]
    with pytest.raises(CubeError, match=r"share their data_type; those of asset 'red' of item a of scenes have"):
        images_of([item], [BandRequest(name="both", asset="red")], read_header=no_header)


def test_an_asset_without_an_address_and_an_item_without_the_band(make_item: Make) -> None:
    item = make_item()
    del item["assets"]["red"]["href"]
    with pytest.raises(CubeError, match=r"Asset 'red' of item a of scenes has no href"):
        images_of([item], RED)
    with pytest.raises(
        CubeError, match=r"Item a of scenes has no band 'nir'\. Its assets and bands are: red \(B1 red\)"
    ):
        images_of([make_item()], [BandRequest(name="nir")])


def test_relative_hrefs_count_from_the_self_link(make_item: Make, no_header: Callable[[str], RasterHeader]) -> None:
    item = make_item() | {"links": [{"rel": "self", "href": "https://example.org/items/a.json"}]}
    item["assets"]["red"]["href"] = "../files/red.tif"
    (image,) = images_of([item], RED, read_header=no_header)
    assert image.bands["red"].href == "https://example.org/files/red.tif"


def test_hrefs_are_signed_before_the_header_is_read(make_item: Make, write_tif: Callable[..., Path]) -> None:
    path = write_tif("a.tif", np.ones((1, 50, 60), np.uint8), crs="EPSG:4326", transform=HERE)
    item = bare(make_item(), str(path).upper())
    (image,) = images_of([item], RED, sign=signed)
    assert image.bands["red"].href == signed(str(path).upper())


def signed(href: str) -> str:
    """A hook that has to be called before a file can be read."""
    return f"{Path('/', *(part.lower() for part in Path(href).parts[1:]))}"


def test_zarr_is_described_by_its_item_alone(make_item: Make, no_header: Callable[[str], RasterHeader]) -> None:
    item = make_item()
    item["assets"]["red"] |= {"href": "s3://bucket/scene.zarr", "type": "application/vnd+zarr"}
    (image,) = images_of([item], RED, read_header=no_header)
    assert (image.bands["red"].opener, image.bands["red"].bands) == ("zarr", ("B1",))
    del item["assets"]["red"]["proj:shape"]
    with pytest.raises(CubeError, match=r"For Zarr, the item has to state proj:code"):
        images_of([item], RED, read_header=no_header)


def test_without_an_outline_the_rasters_count(make_item: Make, no_header: Callable[[str], RasterHeader]) -> None:
    (image,) = images_of([make_item() | {"geometry": None}], RED, read_header=no_header)
    assert image.footprint is None


AREA = box(10.2, 60.2, 10.4, 60.4)


def found(items: list[Any], period: Period | None = None, **options: Any) -> list[str]:
    return [image.id for image in StacItems(items, **options).find(AREA, period, RED)]


def test_by_time_then_id_whatever_the_order_and_each_once(make_item: Make) -> None:
    items = [
        make_item("late", day="2023-08-01T00:00:00Z"),
        make_item("b"),
        make_item("a"),
        make_item("a"),
        make_item("none") | {"properties": {"datetime": None, "proj:epsg": 4326}},
        make_item("early", day="2022-08-01T00:00:00Z"),
    ]
    assert found(items) == found(items[::-1]) == ["early", "a", "b", "late", "none"]


def test_the_same_id_in_two_collections_is_two_items(make_item: Make) -> None:
    assert found([make_item("a", collection="one"), make_item("a", collection="two")]) == ["a", "a"]


def test_area(make_item: Make) -> None:
    assert found([make_item("here"), make_item("there", at=(20, 60)), make_item("south", at=(10, 50))]) == ["here"]


def test_without_an_outline_the_raster_decides(make_item: Make) -> None:
    items = [make_item("here") | {"geometry": None}, make_item("there", at=(20, 60)) | {"geometry": None}]
    assert found(items) == ["here"]


def test_both_sides_of_the_antimeridian(make_item: Make) -> None:
    across = make_item("across", at=(179.5, 60))
    across["geometry"] = {
        "type": "Polygon",
        "coordinates": [[[179.5, 60], [-179.5, 60], [-179.5, 61], [179.5, 61], [179.5, 60]]],
    }
    source = StacItems([across])
    for west, is_met in ((179.6, True), (-179.9, True), (-179.4, False), (179.0, False), (0, False)):
        assert bool(source.find(box(west, 60.2, west + 0.1, 60.4), None, RED)) is is_met


def test_days_and_months(make_item: Make) -> None:
    days = ("2022-07-31T23:59:59.9Z", "2023-07-01T00:00:00Z", "2023-12-31T23:59:59Z", "2024-01-01T00:00:00Z")
    items = [make_item(day[:10], day=day) for day in days]
    assert found(items, Period(date(2023, 7, 1), date(2023, 12, 31))) == ["2023-07-01", "2023-12-31"]
    assert found(items, Period(date(2022, 1, 1), date(2024, 12, 31), months=(7,))) == ["2022-07-31", "2023-07-01"]


def test_cloud_cover_keeps_only_what_states_one(make_item: Make) -> None:
    items = [make_item(str(cover), properties={"eo:cloud_cover": cover}) for cover in (0, 20, 21)] + [
        make_item("silent")
    ]
    assert found(items, max_cloud_cover=20) == ["0", "20"]


def test_pystac_items_keep_what_pystac_would_rewrite(make_item: Make) -> None:
    item = make_item()
    item["stac_extensions"] = ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"]
    (image,) = StacItems([pystac.Item.from_dict(item)]).find(AREA, None, RED)
    (expected,) = StacItems([item]).find(AREA, None, RED)
    assert image == expected


def test_something_else_than_items_is_refused() -> None:
    with pytest.raises(CubeError, match=r"pystac items or their JSON with 'assets'; got dict"):
        StacItems([{"type": "Collection"}])
    with pytest.raises(CubeError, match=r"got str 'item.json'"):
        StacItems(["item.json"])  # type: ignore[list-item]


@pytest.mark.parametrize("names", [("green", "red"), ()])
def test_assets_that_share_a_file_say_no_numbers(
    names: tuple[str, ...], make_item: Make, write_tif: Callable[..., Path]
) -> None:
    path = write_tif("b.tif", np.ones((2, 50, 60), np.int16), descriptions=names, crs="EPSG:4326", transform=HERE)
    stored = {"href": str(path), "raster:bands": [{"data_type": "int16"}]}
    item = make_item(assets={name: {**stored, "eo:bands": [{"name": name}]} for name in ("green", "red")})
    (image,) = images_of([item], RED)
    assert image.bands["red"].bands == ((2,) if names else (1, 2))  # a layer is one band: refused by plan_encodings
    (image,) = images_of([item], [BandRequest(name="red", asset="red", bands=(2,))])
    assert image.bands["red"].bands == (2,)
    both = [{"name": name} for name in ("green", "red")]
    listed = make_item(assets={name: {**stored, "eo:bands": both} for name in ("green", "red")})
    assert images_of([listed], RED)[0].bands["red"].bands == (2,)


@pytest.mark.parametrize(
    ("names", "wish", "is_refused"),
    [
        ((None,), (), False),
        ((None, None), (), True),
        (("blue", "red"), (), True),  # the first was read
        (("Red", "nir"), (), False),
        ((None, None), (1,), False),
        ((None, None), (2,), False),
    ],
)
def test_the_one_band_that_an_item_lists_is_no_band_of_several_in_its_file(
    names: tuple[str | None, ...],
    wish: tuple[int, ...],
    is_refused: bool,
    make_item: Make,
    write_tif: Callable[..., Path],
) -> None:
    path = write_tif("b.tif", np.ones((len(names), 50, 60), np.int16), crs="EPSG:4326", transform=HERE)
    with rasterio.open(path, "r+") as file:
        file.descriptions = names
    stated = {"proj:transform": list(HERE)[:6], "proj:shape": [50, 60], "proj:code": "EPSG:4326"}
    item = bare(make_item(), path, **stated, bands=[{"name": "red", "data_type": "int16"}])
    (image,) = images_of([item], [BandRequest(name="red", asset="red", bands=wish)])
    reader = open_reader(image.bands["red"])
    if wish:
        assert image.bands["red"].bands == wish
    if is_refused:
        with pytest.raises(CubeError, match=r"b.tif.* has 2 bands called .*, and its item lists one, 'red'"):
            reader.read(slice(0, 1), slice(0, 1))
    else:
        assert reader.read(slice(0, 1), slice(0, 1)).shape == (1, 1, 1)


@pytest.mark.parametrize(
    ("first", "second", "is_refused"),
    [
        ({}, {}, False),
        ({"scales": (0.5,) * 2}, {"scales": (0.5,) * 2}, False),
        ({"scales": (0.5,) * 2}, {}, True),
        ({}, {"offsets": (0.5,) * 2}, True),
        ({"descriptions": ("green", "red")}, {"descriptions": ("red", "green")}, True),
        ({"descriptions": ("green", "red")}, {"descriptions": ("Green", "RED")}, False),
        ({"descriptions": ("green", "red")}, {}, False),
    ],
)
@pytest.mark.parametrize("is_turned", [False, True])
def test_a_file_that_differs_from_the_one_that_answered_is_refused(
    first: dict[str, Any],
    second: dict[str, Any],
    is_refused: bool,
    is_turned: bool,
    make_item: Make,
    write_tif: Callable[..., Path],
) -> None:
    paths = [write_tif(f"{n}.tif", np.ones((2, 50, 60), np.int16), crs="EPSG:4326", transform=HERE) for n in "ab"]
    for path, words in zip(paths, (first, second), strict=True):
        with rasterio.open(path, "r+") as file:
            for key, value in words.items():
                setattr(file, key, value)
    stated = {"proj:transform": list(HERE)[:6], "proj:shape": [50, 60]}
    named = "descriptions" in first
    wish = BandRequest(name="red", asset="red", bands=() if named else (2,))
    order = paths[::-1] if is_turned and not named else paths
    images = images_of([bare(make_item(path.stem), path, **stated) for path in order], [wish])

    def read(band: BandSource) -> object:
        return open_reader(band).read(slice(0, 1), slice(0, 1))

    bands = [image.bands["red"] for image in images]
    read(bands[0])
    if is_refused:
        with pytest.raises(CubeError, match=r"its band 2 is called .* whose header answered for its collection"):
            read(bands[1])
    else:
        read(bands[1])
    # What the item states or the caller wants needs no header.
    packed = {"raster:bands": [{"scale": 2, "offset": 1}] * 2} if not named else {}
    wish = replace(wish, bands=(2,), **({"scale_factor": 2.0, "add_offset": 1.0} if named else {}))
    images = images_of([bare(make_item(path.stem), path, **stated, **packed) for path in order], [wish])
    for image in images:
        if named or not (first or second):
            read(image.bands["red"])
        assert (image.bands["red"].scale_factor, image.bands["red"].add_offset) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("described", "is_refused"),
    [(("snow", "cloud"), True), (("Cloud", "snow map"), False), (("a", "b"), False), ((None, "cloud"), True)],
)
def test_quality_data_that_names_its_bands_in_another_order_than_a_first_without_names_is_refused(
    described: tuple[str | None, ...], is_refused: bool, make_item: Make, write_tif: Callable[..., Path]
) -> None:
    paths = [write_tif(f"{n}.tif", np.ones((2, 50, 60), np.uint8), crs="EPSG:4326", transform=HERE) for n in "ab"]
    with rasterio.open(paths[1], "r+") as file:
        file.descriptions = described
    stated = {"proj:transform": list(HERE)[:6], "proj:shape": [50, 60]}
    wish = BandRequest(name="q", asset="red", names=("cloud", "snow"))
    images = images_of([bare(make_item(path.stem), path, **stated) for path in paths], [wish])
    first, second = (open_reader(image.bands["q"], any_value=True) for image in images)
    first.read(slice(0, 1), slice(0, 1))
    if not is_refused:
        second.read(slice(0, 1), slice(0, 1))
        return
    with pytest.raises(CubeError, match=r"b\.tif.* in another order"):
        second.read(slice(0, 1), slice(0, 1))
