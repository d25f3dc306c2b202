"""Addresses."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from rtsx.cube.stac.hrefs import absolute_href, base_of, beside, signer_named
from rtsx.errors import CubeError


@pytest.mark.parametrize(
    ("href", "base", "expected"),
    [
        ("red.tif", "/data/a.json", "/data/red.tif"),
        ("./x/../red.tif", "items/a.json", "items/red.tif"),
        ("../../red.tif", "a/b.json", "../red.tif"),
        ("red.tif", None, "red.tif"),
        ("/abs/red.tif", "https://e.org/a.json", "/abs/red.tif"),
        ("./red.tif", "s3://bucket/items/a.json", "s3://bucket/items/red.tif"),
        ("../red.tif?sig=1", "https://e.org/i/a.json", "https://e.org/red.tif?sig=1"),
        ("s3://bucket/red.tif", "/data/a.json", "s3://bucket/red.tif"),
        ("/vsizip/a.zip/red.tif", "https://e.org/a.json", "/vsizip/a.zip/red.tif"),
        ("file:///data/a%20b.tif", "https://e.org/a.json", "/data/a b.tif"),
        ("red.tif", "file:///data/a.json", "/data/red.tif"),
    ],
)
def test_absolute(href: str, base: str | None, expected: str) -> None:
    assert absolute_href(href, base) == expected


def test_the_base_is_the_self_link() -> None:
    assert base_of({"links": [{"rel": "root", "href": "r"}, {"rel": "self", "href": "s"}]}) == "s"
    assert base_of({}) is None


def test_a_file_beside_its_item(tmp_path: Path) -> None:
    (tmp_path / "red band.tif").touch()
    here = str(tmp_path / "item.json")
    assert beside("https://e.org/far/red%20band.tif?sig=1", here) == str(tmp_path / "red band.tif")
    assert beside("https://e.org/far/nir.tif", here) == "https://e.org/far/nir.tif"
    assert beside("https://e.org/red.tif", "https://e.org/item.json") == "https://e.org/red.tif"


def test_signing_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("my_archive")
    module.sign = lambda href: f"{href}?token=1"  # type: ignore[attr-defined]
    module.number = 1  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_archive", module)
    assert signer_named("my_archive:sign")("a.tif") == "a.tif?token=1"
    with pytest.raises(CubeError, match=r"Known signing hooks are \['planetary-computer'\]; got 'mine'"):
        signer_named("mine")
    with pytest.raises(CubeError, match=r"needs 'nothing' in the module 'my_archive'"):
        signer_named("my_archive:nothing")
    with pytest.raises(CubeError, match=r"pip install no-such-archive"):
        signer_named("no_such_archive:sign")
    with pytest.raises(CubeError, match=r"has to be a function from an href to an href; got int"):
        signer_named("my_archive:number")
