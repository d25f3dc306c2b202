"""Names: public ones that load the module that defines them when they are first used, changed ones, and what somebody may have meant; packages by name."""

import ast
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any


def lazy(package: str, *, renamed: Mapping[str, str] = MappingProxyType({})) -> Callable[[str], object]:
    """Return the `__getattr__` of a package that imports its public names under `if TYPE_CHECKING:` alone.

    That block, which type checkers read, is the only list of names and homes, as a stub is for the library lazy_loader:
    `__all__` and `dir` are made of it where a package states none. No public name is that of a module of the package,
    because a module that is imported takes its name.

    Parameters
    ----------
    package
        Its `__name__`.
    renamed
        Old names and what is said now; an old one goes on working for a release, with a `FutureWarning`.
    """
    module = sys.modules[package]

    @cache
    def homes() -> dict[str, str]:
        return _homes(module)

    def load(name: str) -> object:
        if name == "__all__":
            return sorted(homes())
        if name in renamed:
            new = renamed[name]
            warnings.warn(
                f"{package}.{name} is called {package}.{new} now; the old name goes with the next release.",
                FutureWarning,
                stacklevel=2,
            )
            return getattr(module, new)
        if name not in homes():
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}; its public names are {', '.join(module.__all__)}"
            )
        value: object = getattr(import_module(homes()[name]), name)
        setattr(module, name, value)
        return value

    module.__dir__ = lambda: sorted({*vars(module), *homes()})  # type: ignore[method-assign]  # Python looks for it there
    return load


def is_background(name: str) -> bool:
    """Test whether a class is what none of the others is, by its name.

    Examples
    --------
    >>> [name for name in ("background", "Background", "_BG", "backwater") if is_background(name)]
    ['background', 'Background', '_BG']
    """
    return re.sub(r"[^a-z]", "", name.lower()) in ("background", "bg")


def _homes(module: ModuleType) -> dict[str, str]:
    loader: Any = module.__spec__.loader if module.__spec__ is not None else None
    return {
        alias.name: str(statement.module)
        for block in ast.parse(loader.get_source(module.__name__)).body
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question for the known name nearest to an unknown one, with a space before it; empty where none is near.

    Examples
    --------
    >>> did_you_mean("horizontalflip", ["HorizontalFlip", "Blur"])
    " Did you mean 'HorizontalFlip'?"
    """
    by_lower = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `did_you_mean`, and a sentence that lists all known names.

    Examples
    --------
    >>> suggest("horizontalflip", ["HorizontalFlip", "Blur"])
    " Did you mean 'HorizontalFlip'? Known are Blur, HorizontalFlip."
    """
    names = sorted(known)
    return f"{did_you_mean(name, names)} Known are {', '.join(names)}." if names else " It takes none."


DEMO = "demo"
"""Name of the bundle that ships with rtsx."""


def bundle_path(name: str) -> str:
    """Return the path of a model; `DEMO` is the bundle that ships with rtsx, unless a bundle or a file is called so here."""
    is_here = Path(name).is_file() or (Path(name) / "item.json").is_file()
    return name if name != DEMO or is_here else str(Path(__file__).parent / "synthetic" / "bundle")


def version_of(package: str) -> str | None:
    """Return the version of an installed package; None where it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
