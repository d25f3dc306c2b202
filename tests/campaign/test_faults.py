"""The proxy that other tests rely on."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import RemoteDisconnected

import pytest

from tests.campaign.conftest import S3
from tests.faults import Fault, FaultyProxy


def _answers(proxy: FaultyProxy, count: int) -> Iterator[str]:
    for _ in range(count):
        try:
            with urllib.request.urlopen(f"{proxy.url}/moto-api/", timeout=30) as answer:
                yield str(answer.status)
        except urllib.error.HTTPError as error:
            yield str(error.code)
        except (RemoteDisconnected, ConnectionResetError):
            yield "cut"


def test_it_fails_as_often_as_it_should_and_the_same_each_time(s3: S3) -> None:
    runs = []
    for _ in range(2):
        with FaultyProxy(s3.endpoint, rate=0.5, seed=7) as proxy:
            runs.append(list(_answers(proxy, 30)))
            assert (proxy.asked, proxy.failed) == (30, 30 - runs[-1].count("200"))
    assert runs[0] == runs[1]
    assert set(runs[0]) == {"200", "503", "cut"}


@pytest.mark.parametrize(("fault", "seen"), [("503", "503"), ("cut", "cut"), ("cut after", "cut")])
def test_each_fault_is_what_it_says(fault: Fault, seen: str, s3: S3) -> None:
    with FaultyProxy(s3.endpoint, rate=1.0, faults=(fault,)) as proxy:
        assert list(_answers(proxy, 1)) == [seen]


def test_only_what_was_chosen_fails(s3: S3) -> None:
    with FaultyProxy(s3.endpoint, rate=1.0, methods={"PUT"}) as proxy:
        assert list(_answers(proxy, 2)) == ["200", "200"]
        proxy.methods, proxy.path = None, "/elsewhere"
        assert list(_answers(proxy, 1)) == ["200"]
        proxy.path = "/moto-api"
        proxy.plan = lambda method, path: "503" if (method, path) == ("GET", "/moto-api/") else None
        assert list(_answers(proxy, 1)) == ["503"]
