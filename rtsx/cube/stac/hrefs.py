"""Addresses of assets: made absolute, taken from beside the item, and signed."""

import importlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from urllib.parse import unquote, urljoin, urlsplit

from rtsx.cube.stac.item import ItemDict
from rtsx.errors import CubeError
from rtsx.storage import absolute, is_url, local_path

__all__ = ["SIGNERS", "absolute_href", "base_of", "beside", "signer_named"]

SIGNERS = MappingProxyType({"planetary-computer": "planetary_computer:sign"})
"""Signing hooks by name: functions from an href to the href that may be read, as ``module:function``."""


def absolute_href(href: str, base: str | None) -> str:
    """An href that needs no base any more; local ones become paths, and what only GDAL knows is left alone.

    Parameters
    ----------
    href
        As a document states it.
    base
        Where the document lies; None: relative hrefs count from the working folder.

    Examples
    --------
    >>> absolute_href("./red.tif", "https://example.org/items/a.json")
    'https://example.org/items/red.tif'
    >>> absolute_href("../red.tif", "/data/items/a.json")
    '/data/red.tif'
    """
    if is_url(href) or href.startswith("/vsi"):
        return href
    if href.startswith("file:/") or base is None or Path(href).is_absolute():
        return absolute(href)
    if is_url(base):
        scheme, rest = base.split("://", 1)
        # urljoin resolves only schemes that it knows, and s3 is none of them.
        return urljoin(f"http://{rest}", href).replace("http://", f"{scheme}://", 1)
    parts: list[str] = []
    for part in (local_path(base).parent / href).parts:
        parts = parts[:-1] if part == ".." and parts and parts[-1] != ".." else [*parts, part]
    return str(Path(*parts))


def base_of(item: ItemDict) -> str | None:
    """Where an item says that it lies; None where it does not."""
    links = item.get("links") or ()
    return next((str(link["href"]) for link in links if link.get("rel") == "self" and link.get("href")), None)


def beside(href: str, base: str | None) -> str:
    """The file of an asset's name that lies beside its local item, where there is one; else the href itself."""
    if base is None or is_url(base):
        return href
    file = local_path(base).parent / PurePosixPath(unquote(urlsplit(href).path)).name
    return str(file) if file.is_file() else href


def signer_named(name: str) -> Callable[[str], str]:
    """The signing hook of a name in `SIGNERS`, or of ``module:function``.

    Raises
    ------
    CubeError
        There is none, or the library that has it is not installed.
    """
    module, colon, function = SIGNERS.get(name, name).partition(":")
    if not colon:
        raise CubeError(
            f"Known signing hooks are {sorted(SIGNERS)}; got {name!r}. Name one, or give 'module:function'."
        )
    try:
        hook = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise CubeError(
            f"Signing hook {name!r} needs {function!r} in the module {module!r}, and there: {error}. "
            f"Install the package that brings it, e.g. pip install {module.split('.')[0].replace('_', '-')}."
        ) from error
    if not callable(hook):
        raise CubeError(
            f"Signing hook {name!r} has to be a function from an href to an href; got {type(hook).__name__}."
        )
    return lambda href: str(hook(href))
