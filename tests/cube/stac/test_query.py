"""The query extension on our side of the line."""

import pytest

from rtsx.cube.stac.client import check_query, meets_query
from rtsx.errors import CubeError

ITEM = {"id": "a", "properties": {"gsd": 3.0, "platform": "sentinel-2a", "instruments": ["msi"]}}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, True),
        ({"gsd": {"eq": 3}}, True),
        ({"gsd": {"neq": 3}}, False),
        ({"gsd": {"gt": 2, "lt": 3}}, False),
        ({"gsd": {"gte": 3, "lte": 3}}, True),
        ({"platform": {"startsWith": "sentinel"}, "gsd": {"lt": 3}}, False),
        ({"platform": {"endsWith": "2b"}}, False),
        ({"platform": {"contains": "nel-2"}}, True),
        ({"instruments": {"contains": "msi"}}, True),
        ({"platform": {"in": ["sentinel-2b", "sentinel-2a"]}}, True),
        ({"nothing": {"neq": 1}}, False),
        ({"platform": {"lt": 3}}, False),
        ({"gsd": {"startsWith": "3"}}, False),
        ({"properties.gsd": {"eq": 3}, "id": {"eq": "a"}}, True),
    ],
)
def test_operators(query: dict[str, dict[str, object]], expected: bool) -> None:
    check_query(query)
    assert meets_query(ITEM, query) is expected


@pytest.mark.parametrize("query", [{"gsd": 3}, {"gsd": {"<": 3}}])
def test_unknown_operators_are_refused(query: dict[str, object]) -> None:
    with pytest.raises(CubeError, match=r"A query is \{property: \{operator: value\}\} with the operators .*'gsd'"):
        check_query(query)
