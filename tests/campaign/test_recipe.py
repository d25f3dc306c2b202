"""What a campaign is asked to do, and what is no such thing."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from shapely import Polygon

from rtsx.campaign.recipe import CampaignRecipe, ClusterSpec, RetrySpec
from rtsx.errors import CampaignError, ClusterError
from tests.campaign.plans import make_recipe


def test_a_recipe_travels(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    again = pickle.loads(pickle.dumps(recipe))
    assert isinstance(again, CampaignRecipe)
    assert (again.name, again.year, again.region, again.shard) == (recipe.name, 2024, recipe.region, 32)
    assert again.bundles[0].digest == recipe.bundles[0].digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "A campaign has a name without slashes; got ''"),
        ({"name": "a/b"}, "A campaign has a name without slashes; got 'a/b'"),
        ({"year": 24}, "A campaign maps one year, such as 2024; got 24"),
        ({"year": 2024.5}, "The year of a campaign is a whole number; got 2024.5"),
        ({"year": "2024"}, "The year of a campaign is a whole number; got '2024'"),
        ({"shard": "32"}, "The shard of a campaign is a whole number; got '32'"),
        ({"chunk": 16.0}, "The chunk of a campaign is a whole number; got 16.0"),
        ({"region": Polygon()}, "The region of a campaign is empty: no cell can meet it"),
        ({"shard": 48}, "got cells of 64, shards of 48 and chunks of 16 px"),
        ({"chunk": 24}, "A cell is whole shards and a shard whole chunks, .* shards of 32 and chunks of 24 px"),
        ({"chunk": 0}, "chunks of 0 px"),
        ({"shard": 128, "chunk": 32}, "got cells of 64, shards of 128"),
    ],
)
def test_what_is_no_campaign_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match=message):
        make_recipe(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attempts": 1.5}, "RetrySpec takes `attempts` as a whole number; got float 1.5"),
        ({"lease_s": "9"}, "RetrySpec takes `lease_s` as a number; got the text '9'"),
        ({"attempts": 0}, "attempts and most_failures are at least 1; got 0 and 100"),
        ({"most_failures": 0}, "at least 1; got 4 and 0"),
        ({"backoff_s": -1.0}, "backoff_s lies between 0 and longest_backoff_s.*got -1.0, 300.0 and 120.0 s"),
        ({"backoff_s": 400.0}, "got 400.0, 300.0 and 120.0 s"),
        ({"lease_s": 0.0}, "lease_s is above 0; got 5.0, 300.0 and 0.0 s"),
        ({"lease_s": float("nan")}, "lease_s is above 0"),
    ],
)
def test_what_is_no_rule_of_retries_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CampaignError, match=message):
        RetrySpec(**changes)


def test_a_folder_is_the_same_in_every_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_recipe(tmp_path, output="maps/2024").output == str(tmp_path / "maps" / "2024")
    assert make_recipe(tmp_path, output=f"file://{tmp_path}/maps").output == str(tmp_path / "maps")
    assert make_recipe(tmp_path, output="s3://maps/arctic").output == "s3://maps/arctic"


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"scheduler": "tcp://a:1", "gateway": "http://b"}, "at a scheduler or at a gateway"),
        ({"profile": "gpu"}, "no gateway was given"),
        ({"scheduler": "tcp://a:1", "options": {"a": 1}}, "no gateway was given"),
        ({"scheduler": "tcp://a:1", "workers": 2}, "used as they are"),
        ({"workers": 2, "adapt": (0, 2)}, "not both"),
        ({"gateway": "http://b"}, "say how many"),
        ({"workers": 0}, "at least 1"),
        ({"threads": 0}, "at least 1"),
        ({"memory_bytes": 0}, "above 0"),
        ({"adapt": (3, 2)}, "least and most workers"),
        ({"adapt": (0, 0)}, "least and most workers"),
        ({"adapt": (-1, 2)}, "least and most workers"),
    ],
)
def test_choices_that_contradict_each_other_are_refused(choices: dict[str, Any], told: str) -> None:
    with pytest.raises(ClusterError, match=told):
        ClusterSpec(**choices)


@pytest.mark.parametrize(
    ("choices", "kind"),
    [({}, "local"), ({"scheduler": "tcp://a:1"}, "scheduler"), ({"gateway": "http://b", "workers": 1}, "gateway")],
)
def test_what_is_given_says_which_cluster_it_is(choices: dict[str, Any], kind: str) -> None:
    assert ClusterSpec(**choices).kind == kind
