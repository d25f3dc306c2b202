"""Addresses."""

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rtsx
from rtsx.config.order import load_order_config
from rtsx.config.source import ItemsConfig
from rtsx.cube.stac import ItemTable
from rtsx.cube.stac.assets import absolute_href, base_of, beside, located, signer_named
from rtsx.errors import ConfigError, CubeError


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
    assert base_of(item) == base_of(item, "/data/a.json") == "s"
    assert base_of(item, "https://e.org/search") == "https://e.org/search"  # which cannot lie on a disk
    assert base_of({}, "f") == "f"
    assert base_of({}) is None
    assert base_of(located(item, "https://e.org/a.json")) == "https://e.org/a.json"


def test_a_file_beside_its_item(tmp_path: Path) -> None:
    (tmp_path / "red band.tif").touch()
    here = str(tmp_path / "item.json")
    assert beside("https://e.org/far/red%20band.tif?sig=1", here) == str(tmp_path / "red band.tif")
    assert beside("https://e.org/far/nir.tif", here) == "https://e.org/far/nir.tif"
    assert beside("https://e.org/red.tif", "https://e.org/item.json") == "https://e.org/red.tif"


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
    assert signer_named("mine")("a.tif") == signer_named(lambda href: f"{href}?token=1")("a.tif") == "a.tif?token=1"
    with pytest.raises(CubeError, match=r"needs 'nothing' in the module 'my_archive'"):
        signer_named("gone")
    with pytest.raises(CubeError, match=r"pip install no-such-archive"):
        signer_named("far")
    with pytest.raises(CubeError, match=r"has to be a function from an href to an href; got int"):
        signer_named("one")


@pytest.mark.parametrize("name", ["theirs", "os:system", "my_archive:sign", "builtins:eval", ""])
def test_a_config_names_no_function(tmp_path: Path, name: str) -> None:
    """Which would run any code as soon as a cube is opened."""
    with pytest.raises(CubeError, match=r"Known signing hooks are \['planetary-computer'.*; got '"):
        signer_named(name)
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
        ItemsConfig.from_source(ItemTable("items.parquet", sign=mine))


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
