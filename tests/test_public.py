"""Every public name stands in `__all__`, in the documentation and has a docstring."""

import re
from importlib import import_module
from pathlib import Path

import pytest

import rtsx

API_PAGES = Path(__file__).parent.parent / "docs" / "api"
PUBLIC = [name for name in rtsx.__all__ if not name.startswith("__")]


def test_the_list_is_sorted_and_holds_nothing_twice() -> None:
    assert sorted(set(rtsx.__all__)) == rtsx.__all__


@pytest.mark.parametrize("name", PUBLIC)
def test_the_home_of_a_name_makes_it_public_too(name: str) -> None:
    home = import_module(getattr(rtsx, name).__module__.rpartition(".")[0])
    assert name in home.__all__


@pytest.mark.parametrize("name", PUBLIC)
def test_a_name_has_a_docstring(name: str) -> None:
    documentation = getattr(rtsx, name).__doc__
    assert documentation is not None
    assert len(documentation.strip()) > 20


@pytest.mark.parametrize("name", PUBLIC)
def test_a_name_stands_in_the_documentation(name: str) -> None:
    pages = "\n".join(page.read_text() for page in API_PAGES.glob("*.md"))
    assert re.search(rf"^::: rtsx\.{name}$", pages, re.MULTILINE)


@pytest.mark.parametrize(
    "room",
    [
        "campaign",
        "config",
        "cube",
        "errors",
        "evaluation",
        "footprints",
        "grid",
        "inference",
        "labels",
        "model",
        "ordering",
        "scores",
        "synthetic",
        "tiling",
    ],
)
def test_every_name_that_a_room_lists_exists(room: str) -> None:
    module = import_module(f"rtsx.{room}")
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize(
    ("room", "old", "new"),
    [("campaign", "FlightSummary", "RunSummary"), ("labels", "label_truth", "rasterize_labels")],
)
def test_a_name_that_has_changed_still_works_with_a_warning(room: str, old: str, new: str) -> None:
    module = import_module(f"rtsx.{room}")
    with pytest.warns(FutureWarning, match=f"rtsx.{room}.{old} is called rtsx.{room}.{new} now"):
        assert getattr(module, old) is getattr(module, new)
