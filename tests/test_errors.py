"""Errors come from other processes as they were raised there."""

import pickle

import dask
import pytest
from dask.delayed import delayed
from rasterio._err import CPLE_AppDefinedError

import rtsx.errors
from rtsx.campaign.ledger import LeaseTaken
from rtsx.errors import RtsxError
from tests import warm

KINDS = [one for one in map(vars(rtsx.errors).get, rtsx.errors.__all__) if issubclass(one, RtsxError)]


class Odd(Exception):
    """Cannot be unpickled: its arguments are not those of its `__init__`."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"odd {one}{two}")


def fail(kind: type[RtsxError], depth: int = 1) -> None:
    try:
        if depth:
            fail(kind, depth - 1)
        raise Odd(1, 2)
    except Exception as error:
        raise kind("what to do", 7) from error


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_survives_the_way(kind: type[RtsxError]) -> None:
    with pytest.raises(kind) as caught:
        fail(kind)
    there = pickle.loads(pickle.dumps(caught.value))
    assert type(there) is kind
    assert str(there) == str(caught.value)
    assert type(there.__cause__) is kind
    assert "odd 12" in str(there.__cause__.__cause__), "itself, or its text"


def test_one_with_arguments_of_its_own() -> None:
    there = pickle.loads(pickle.dumps(LeaseTaken("wait", free_after_s=3.0)))
    assert (str(there), there.free_after_s) == ("wait", 3.0)


def test_from_processes_of_dask() -> None:
    with (
        pytest.raises(rtsx.errors.CubeError, match="what to do"),
        dask.config.set(scheduler="processes", num_workers=1),
    ):
        delayed(fail)(rtsx.errors.CubeError).compute()


def test_from_a_worker_of_distributed() -> None:
    from distributed import Client, LocalCluster

    with (
        warm.workers(),
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
        pytest.raises(rtsx.errors.CubeError, match="what to do"),
    ):
        client.submit(fail, rtsx.errors.CubeError).result()


def test_gdal_errors_behind_one_are_told() -> None:
    error = rtsx.errors.CubeError("broken")
    error.__cause__ = CPLE_AppDefinedError(1, 2, "strip 3")
    assert "strip 3" in str(pickle.loads(pickle.dumps(error)).__cause__)
