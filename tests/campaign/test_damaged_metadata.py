"""Metadata of a cube, a map or a store of pixels that are cut or garbled are named at every door, as an error of ours."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rtsx import Campaign, build_cube
from rtsx.campaign.plan import read_plan
from rtsx.campaign.recipe import CampaignRecipe
from rtsx.config.campaign import load_campaign
from rtsx.cube import open_source
from rtsx.cube.check import check_cube
from rtsx.errors import CampaignError, RtsxError
from rtsx.storage.object_store import LocalObjects
from tests.campaign.small_campaign import CELLS, GRID, write_years


@dataclass(frozen=True)
class Made:
    """A mapped year, its fetched pixels and a built cube, in a folder."""

    folder: Path
    recipe: CampaignRecipe

    @property
    def cube(self) -> Path:
        return self.folder / "cube.zarr"

    @property
    def campaign(self) -> Campaign:
        return Campaign.open(self.folder / "out")

    def build(self, *, overwrite: bool = False) -> None:
        build_cube(self.recipe.cube, self.cube, cell=GRID[CELLS[0]], overviews=False, overwrite=overwrite)

    def fetch(self) -> None:
        """Fetch all cells anew; what a cell raises is in the record of its failure."""
        for path in (self.folder / "pixels").rglob("*"):
            if path.is_file() and "marks" in path.parts:
                path.unlink()
        run = replace(self.campaign, recipe=self.recipe).fetch(self.folder / "pixels").run
        if run.set_aside:
            raise CampaignError(f"{run.set_aside[0].error}: {run.set_aside[0].message}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("whole")
    made = Made(folder, load_campaign(write_years(folder, 2024)))
    made.build()
    made.fetch()
    return made


@pytest.fixture
def made(whole: Made, tmp_path: Path) -> Made:
    shutil.copytree(whole.folder, tmp_path / "made")
    return Made(tmp_path / "made", replace(whole.recipe, output=str(tmp_path / "made" / "out")))


DOORS: dict[str, tuple[str, Callable[[Made], object]]] = {
    "open a cube": ("cube.zarr/zarr.json", lambda made: open_source(made.cube)),
    "check a cube": ("cube.zarr/build/zarr.json", lambda made: check_cube(open_source(made.cube), path=str(made.cube))),
    "go on with a cube": ("cube.zarr/zarr.json", lambda made: made.build()),
    "go on with its parts": ("cube.zarr/build/zarr.json", lambda made: made.build()),
    "open a map": ("out/map.zarr/zarr.json", lambda made: made.campaign.map()),
    "plan another year": (
        "out/map.zarr/zarr.json",
        lambda made: Campaign.create(replace(made.recipe, year=2025)),
    ),
    "work": ("out/map.zarr/probability/zarr.json", lambda made: replace(made.campaign, recipe=made.recipe).work()),
    "fetch": ("pixels/pixels.zarr/zarr.json", Made.fetch),
    "open a plan": ("out/years/2024/plan.json", lambda made: made.campaign),
    "take up a plan": ("out/years/2024/plan.json", lambda made: Campaign.create(made.recipe)),
    "read a plan": ("out/years/2024/plan.json", lambda made: read_plan(LocalObjects(str(made.folder / "out")), 2024)),
}
"""What is damaged, and what meets it."""
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "without what it describes": lambda _: b"{}",
    "no text": lambda _: b"\xff\xfe\x00" * 20,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("door", DOORS)
def test_damaged_metadata_are_named(made: Made, door: str, damage: str) -> None:
    key, enter = DOORS[door]
    path = made.folder / key
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    # Alone or as the reason of a cell, and by the name of the file.
    with pytest.raises(
        RtsxError, match=rf"^(?!JSONDecodeError|MetadataValidationError).*{key.partition('/')[2]}.*damaged"
    ):
        enter(made)
