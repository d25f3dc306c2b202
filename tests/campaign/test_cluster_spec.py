"""Choices of clusters that contradict each other are refused."""

from typing import Any

import pytest

from rtsx.campaign.recipe import ClusterSpec
from rtsx.errors import ClusterError


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
