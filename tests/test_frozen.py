"""What version 0.1 wrote is read by this one: a bundle, a run of a training, a built cube, and a campaign of which one cell is left.

The files in `tests/frozen` are never written again; a format that changes is read beside them.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtsx
from rtsx.campaign.cell_input import layers_of
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import LeaseTaken, acquire
from rtsx.campaign.plan import require_same
from rtsx.config import load_campaign_config
from rtsx.cube import CubeRecipe, LayerRecipe, QualityRecipe, SourceRecipe, StoreImages
from rtsx.cube.build_state import describe_recipe
from rtsx.cube.check import check_cube
from rtsx.cube.images import BandRequest
from rtsx.cube.mask_rules import mask_rule
from rtsx.errors import CampaignError, PixelSizeWarning
from rtsx.grid import Grid
from rtsx.storage.object_store import open_object_store
from rtsx.training import read_run
from tests.campaign.plans import make_plan

FROZEN = Path(__file__).parent / "frozen"
BUNDLE = FROZEN / "run" / "bundle"
LEFT = (310, -209)
"""The cell that another run holds."""


def test_a_bundle_and_a_cube_give_the_map_of_their_time() -> None:
    cube = rtsx.open_cube(FROZEN / "cube.zarr")
    with pytest.warns(PixelSizeWarning):  # its pixels of 10 m are few
        pred = rtsx.predict_cube(cube, rtsx.ModelBundle.open(BUNDLE), tile=32, overlap=8, device="cpu")
    np.testing.assert_array_equal(pred["probability"], np.load(FROZEN / "probability.npy"))


def test_a_built_cube_is_complete_and_undamaged() -> None:
    path = FROZEN / "cube.zarr"
    found = check_cube(rtsx.open_cube(path), path=str(path))
    assert found.problems == ()
    assert found.build is not None


def test_a_run_of_a_training_tells_what_came_of_it() -> None:
    run = read_run(FROZEN / "run")
    assert (run.epochs, run.best_epoch) == (1, 1)
    assert run.bundle.digest == json.loads((FROZEN / "run" / "result.json").read_text())["bundle_digest"]
    assert run.validation is not None
    assert run.validation.hits == 1008


def test_a_campaign_knows_its_cells_and_every_byte(tmp_path: Path) -> None:
    shutil.copytree(FROZEN / "campaign", tmp_path / "campaign")  # because a verification is recorded beside it
    campaign = rtsx.Campaign.open(tmp_path / "campaign")
    status = campaign.status()
    assert (status.cells, status.done, status.running, status.left) == (4, 3, (LEFT,), 0)
    assert campaign.verify().is_sound
    stored = json.loads((FROZEN / "campaign" / "years" / "2024" / "plan.json").read_text())
    assert json.loads(json.dumps(campaign.plan.to_document())) == stored
    mark = json.loads((FROZEN / "campaign" / "years" / "2024" / "marks" / "r310c-210.json").read_text())
    assert mark["plan_digest"] == campaign.plan.digest
    assert mark["bundles"] == [rtsx.ModelBundle.open(BUNDLE).digest]


@pytest.mark.parametrize("between", [{}, {"heeds_nodata": False}, {"uses_nodata": False}])
def test_layers_are_described_as_they_were_so_that_plans_and_builds_of_their_time_go_on(
    between: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTSX_CATALOG", "/region/catalog.json")
    cube = load_campaign_config(FROZEN.parents[1] / "configs" / "campaign-demo.yaml").cube.recipe()
    stored = json.loads((FROZEN / "layers.json").read_text())
    assert layers_of(cube) == stored
    plan = make_plan(layers=layers_of(cube))
    quality = stored["sources"][0]["quality"]
    quality["rule"] |= between | {"names": ["clear", "snow"]}
    quality["wanted"]["names"] = []
    require_same(make_plan(layers=stored), plan)
    quality["rule"]["uses_nodata"] = True
    with pytest.raises(CampaignError, match="uses_nodata is true there"):
        require_same(make_plan(layers=stored), plan)


def test_a_rule_of_the_users_own_is_described_with_the_numbers_that_it_names() -> None:
    """So that a plan from before nodata was invalid under it is not gone on with."""
    known, own = (_rule_described(rule) for rule in ("sentinel2-scl", {"invalid": "q == 3"}))
    assert set(known) == {"kind", "name", "bands", "quality"}
    assert own["named_numbers"] == [3]


def _rule_described(rule: str | dict[str, str]) -> dict[str, Any]:
    made = mask_rule(rule, data=None if isinstance(rule, str) else ["q"])
    quality = QualityRecipe(wanted=BandRequest(name="q"), rule=made)
    layer = LayerRecipe(wanted=BandRequest(name="red"))
    source = SourceRecipe(name="a", images=StoreImages(path="/a.zarr"), layers=(layer,), quality=quality)
    (described,) = describe_recipe(CubeRecipe(grid=Grid.arctic(), sources=(source,)))["sources"]
    found: dict[str, Any] = described["quality"]["rule"]
    return found


def test_a_lease_of_another_run_is_kept(tmp_path: Path) -> None:
    shutil.copytree(FROZEN / "campaign", tmp_path / "campaign")
    objects = open_object_store(str(tmp_path / "campaign"), {})
    with pytest.raises(LeaseTaken):
        acquire(objects, YearLayout(2024), LEFT, run="mine", lease_s=60.0)
