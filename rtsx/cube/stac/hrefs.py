"""Addresses of assets: made absolute, taken from beside the item, and signed."""

from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from os.path import lexists
from pathlib import PurePosixPath
from types import MappingProxyType
from urllib.parse import unquote, urljoin, urlsplit

from rtsx.cube.stac.item import ItemDict, item_name
from rtsx.errors import CubeError
from rtsx.storage import REMOTE_SCHEMES, absolute, is_url, leads_to_server, local_path

__all__ = [
    "SIGNERS",
    "Signer",
    "absolute_href",
    "asset_href",
    "base_of",
    "beside",
    "check_signer",
    "located",
    "signer_named",
]

Signer = Callable[[str], str]
"""A signing hook: from an href to the href that may be read."""

SIGNERS = MappingProxyType({"planetary-computer": "planetary_computer:sign"})
"""Signing hooks by name, as ``module:function``."""

SIGNER_GROUP = "rtsx.signers"
"""Entry points by which other packages add theirs."""


def absolute_href(href: str, base: str | None) -> str:
    """An href that needs no base any more; local ones become paths, and what only GDAL knows is left alone.

    Parameters
    ----------
    href
        As a document states it.
    base
        Where the document lies; None: relative hrefs count from the working folder.

    Raises
    ------
    CubeError
        The document lies on a server and names something else than what lies on servers.

    Examples
    --------
    >>> absolute_href("./red.tif", "https://example.org/items/a.json")
    'https://example.org/items/red.tif'
    >>> absolute_href("../red.tif", "/data/items/a.json")
    '/data/red.tif'
    """
    if base is not None and is_url(base):
        return _remote_href(href.strip(), base)
    folder = None if base is None else local_path(base).parent
    plain = absolute(href, folder=folder)
    if "%" not in href or is_url(href) or lexists(plain):
        return plain
    decoded = absolute(unquote(href), folder=folder)
    return decoded if lexists(decoded) else plain  # hrefs are URIs, though many documents hold plain names


def _remote_href(href: str, base: str) -> str:
    """The same for a document on a server: it may be a stranger's, so that it never names files of this machine."""
    own, rest = base.split("://", 1)
    with suppress(ValueError):  # no address at all, such as http://[
        if not urlsplit(href).scheme and not href.startswith("/vsi"):
            # urljoin resolves only schemes that it knows, and s3 is none of them.
            return urljoin(f"http://{rest}", href).replace("http://", f"{own}://", 1)
    if not leads_to_server(href, own):
        raise CubeError(
            f"{href[:200]!r} is no address on a server, and a document that lies on one, as {base.split('?')[0]} does, may "
            f"refer to nothing else, lest it reads files of this machine. Addresses begin with {own}:// or one of "
            f"{', '.join(sorted(REMOTE_SCHEMES))}. Correct the document; or copy it and its files to this machine, where "
            "an item's self link, if it has one, has to say so."
        )
    return href


def base_of(item: ItemDict, found: str | None = None) -> str | None:
    """Where an item lies: as its ``self`` link says, but on a server if it was found on one; else where it was found."""
    links = item.get("links") or ()
    stated = next((str(link["href"]) for link in links if link.get("rel") == "self" and link.get("href")), None)
    return found if stated is None or (found is not None and is_url(found) > is_url(stated)) else stated


def asset_href(item: ItemDict, key: str) -> str:
    """Where the file of an asset lies, as `absolute_href` has it.

    Raises
    ------
    CubeError
        The asset has no href, or one that an item on a server may not have.
    """
    name = f"Asset {key!r} of item {item_name(item)}"
    stated = item["assets"][key].get("href")
    if not stated:
        raise CubeError(f"{name} has no href. Correct the item.")
    try:
        return absolute_href(str(stated), base_of(item))
    except CubeError as error:
        raise CubeError(f"{name}: {error}") from error


def located(item: ItemDict, base: str | None) -> ItemDict:
    """An item whose ``self`` link says where it lies, whatever it said itself, so that its hrefs count from there."""
    links = [link for link in item.get("links") or () if link.get("rel") != "self"]
    return {**item, "links": links if base is None else [*links, {"rel": "self", "href": base}]}


def beside(href: str, base: str | None) -> str:
    """The file of an asset's name that lies beside its local item, where there is one; else the href itself."""
    if base is None or is_url(base):
        return href
    file = local_path(base).parent / PurePosixPath(unquote(urlsplit(href).path)).name
    return str(file.absolute()) if file.is_file() else href


def signer_named(sign: str | Signer) -> Signer:
    """The signing hook of a name; a function of the caller's own is taken as it is.

    Raises
    ------
    CubeError
        There is none of that name (`check_signer`), or the library that has it is not installed.
    """
    if callable(sign):
        return lambda href: str(sign(href))
    point = check_signer(sign)
    try:
        hook = point.load()
    except (ImportError, AttributeError) as error:
        raise CubeError(
            f"Signing hook {sign!r} needs {point.attr!r} in the module {point.module!r}, and there: {error}. "
            f"Install the package that brings it, e.g. pip install {point.module.split('.')[0].replace('_', '-')}."
        ) from error
    if not callable(hook):
        raise CubeError(
            f"Signing hook {sign!r} has to be a function from an href to an href; got {type(hook).__name__}."
        )
    return lambda href: str(hook(href))


def check_signer(name: str) -> EntryPoint:
    """Where the signing hook of a name is; imports nothing.

    Only installed packages name hooks, because a config that named any function would run any code.

    Raises
    ------
    CubeError
        No installed package has one of that name.
    """
    known = {point.name: point for point in entry_points(group=SIGNER_GROUP)}
    known |= {own: EntryPoint(own, value, SIGNER_GROUP) for own, value in SIGNERS.items()}
    if name not in known:
        raise CubeError(
            f"Known signing hooks are {sorted(known)}; got {name!r}. Name one. A package adds its own by an entry point of the "
            f"group {SIGNER_GROUP!r}; in Python, a function may be given."
        )
    return known[name]
