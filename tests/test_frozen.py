"""What version 0.1 wrote is read by this one: a bundle, a run of a training, a built cube, and a campaign of which one cell is left.

The files in `tests/frozen` are never written again; a format that changes is read beside them.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import rtsx
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import LeaseTaken, acquire
from rtsx.cube.check import check_cube
from rtsx.errors import PixelSizeWarning
from rtsx.storage.object_store import open_object_store
from rtsx.training import read_run

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


def test_a_lease_of_another_run_is_kept(tmp_path: Path) -> None:
    shutil.copytree(FROZEN / "campaign", tmp_path / "campaign")
    objects = open_object_store(str(tmp_path / "campaign"), {})
    with pytest.raises(LeaseTaken):
        acquire(objects, YearLayout(2024), LEFT, run="mine", lease_s=60.0)
