"""The fault run: a campaign on machines, stores and sources that fail all the time ends as if nothing had been."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr

import rtsx
from rtsx.campaign.cell_task import cell_job
from rtsx.campaign.cells import Address
from rtsx.campaign.layout import MAP, YearLayout
from rtsx.campaign.map import create_map
from tests.campaign import stage
from tests.campaign.actors import Cluster, Operator
from tests.campaign.conftest import S3
from tests.faults import FaultyProxy

YEAR = YearLayout(2024)
HEALTHY = sorted(set(stage.cells()) - {stage.POISONED})


@dataclass(frozen=True)
class Sources:
    """The country's files, of which one read in ten fails."""

    urls: list[str]
    proxy: FaultyProxy


@pytest.fixture
def sources(s3: S3, tmp_path: Path) -> Iterator[Sources]:
    """The files, in a bucket, behind a proxy."""
    system = fsspec.filesystem("s3", **s3.options)
    folder = tmp_path / "country"
    folder.mkdir()
    with FaultyProxy(s3.endpoint, rate=0.1, methods={"GET"}, path=".tif", seed=1) as proxy:
        urls = []
        for file in stage.write_country(folder):
            system.put_file(str(file), f"{s3.bucket}/country/{file.name}", ACL="public-read")
            urls.append(f"{proxy.url}/{s3.bucket}/country/{file.name}")
        yield Sources(urls, proxy)


def undisturbed(tmp_path: Path, *, sources: Sources, bundle: Path) -> Path:
    """The output of the same campaign, its cells run one after the other in this process."""
    output = tmp_path / "undisturbed"
    config = stage.write_campaign(
        tmp_path / "undisturbed.yaml", files=sources.urls, output=str(output), options={}, bundle=bundle
    )
    recipe = rtsx.load_campaign(config)
    plan = rtsx.Campaign.create(recipe).plan
    create_map(recipe.output, plan, bundle_id="demo", storage_options={})
    job = cell_job(recipe, plan)
    outcomes = {}
    for cell in plan.cells:
        for attempt in range(1, 7):
            outcomes[cell] = job(cell, attempt, "undisturbed")
            if outcomes[cell].failure is None or outcomes[cell].failure.kind == "lasting":
                break
    assert {cell for cell, one in outcomes.items() if one.state != "done"} == {stage.POISONED}

    return output


class Reader:
    """Looks at the map as anybody may, at any moment: a cell that `valid` knows is there as a whole."""

    def __init__(self, url: str, options: dict[str, Any], *, whole: Path) -> None:
        self._url, self._options = url, options
        self._whole = {name: array.values for name, array in self._map(str(whole), {}).items()}
        self._seen: set[Address] = set()

    def looks(self) -> int:
        """Check that every cell is there as a whole or not at all; returns how many are there."""
        seen = self._map(self._url, self._options)
        valid = seen["valid"].values  # first: what it says was written before it
        for cell in stage.cells():
            y, x = ((place - first) * stage.CELL for place, first in zip(cell, stage.FIRST, strict=True))
            window = (0, slice(y, y + stage.CELL), slice(x, x + stage.CELL))
            if not valid[window].any():
                self._seen.discard(cell)  # one that was killed before its mark is withdrawn as a whole, and made anew
            elif cell in self._seen:
                np.testing.assert_array_equal(valid[window], self._whole["valid"][window])
            else:
                self._seen.add(cell)
                for name, array in seen.items():
                    np.testing.assert_array_equal(array[window], self._whole[name][window], err_msg=f"{name} of {cell}")
        return len(self._seen)

    @staticmethod
    def _map(output: str, options: dict[str, Any]) -> xr.Dataset:
        # Plain xarray, because readers do not have to know rtsx.
        store = xr.open_zarr(f"{output}/{MAP}", storage_options=options or None, mask_and_scale=False, chunks=None)
        return store[["valid", "probability", "binary"]]


def writes_after_marks(answered: list[tuple[str, str]]) -> dict[Address, list[str]]:
    """Objects of cells that were written after the cell's mark: there must be none."""
    marked: set[Address] = set()
    late = defaultdict(list)
    for method, path in answered:
        key = path.split("?")[0]
        if method != "PUT" or "/campaign/" not in key:
            continue
        if f"/{YEAR.marks}/" in key:
            cell = YEAR.address_of(key)
            if cell in marked:
                late[cell].append(key)
            marked.add(cell)
        elif f"/{YEAR.outlines}/" in key and YEAR.address_of(key) in marked:
            late[YEAR.address_of(key)].append(key)
        elif f"/{MAP}/valid/c/" in key:
            j, i = map(int, key.split("/")[-2:])
            if (stage.FIRST[0] + j, stage.FIRST[1] + i) in marked:
                late[stage.FIRST[0] + j, stage.FIRST[1] + i].append(key)
    return late


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_campaign_on_failing_machines_ends_as_if_nothing_had_been(s3: S3, sources: Sources, tmp_path: Path) -> None:
    bundle = stage.write_bundle(tmp_path / "bundle")
    whole = undisturbed(tmp_path, sources=sources, bundle=bundle)
    with FaultyProxy(s3.endpoint, rate=0.1, methods={"PUT", "DELETE"}, seed=2) as store:
        options = s3.through(store.url)
        config = stage.write_campaign(
            tmp_path / "campaign.yaml", files=sources.urls, output=s3.url, options=options, bundle=bundle
        )
        environment = {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"}
        with Cluster(workers=2, folder=tmp_path, environment=environment) as cluster:
            operator = Operator(config, scheduler=cluster.address, folder=tmp_path, environment=environment)
            reader = Reader(s3.url, s3.options, whole=whole)
            statuses, reader_saw = play(operator, cluster, store, reader=reader)
            status = operator.status()
    assert status not in (0, None), "one cell is poisoned, so the campaign is not complete"
    assert all(one != 0 for one in statuses)
    assert reader_saw[-1] == sum(bool(one.any()) for one in valid_cells(whole))
    assert store.failed > 8, "the store was meant to fail"
    assert sources.proxy.failed > 2, "the sources were meant to fail"
    campaign = rtsx.Campaign.open(s3.url, storage_options=s3.options)
    standing = campaign.status()
    assert (standing.done, set(standing.failed), standing.left) == (len(HEALTHY), {stage.POISONED}, 0)
    assert campaign.verify().is_sound
    assert "damaged.tif" in operator.said()
    assert writes_after_marks(store.answered) == {}
    assert campaign.plan == rtsx.Campaign.open(str(whole)).plan
    page = campaign.objects.get(campaign.report().path.removeprefix(f"{s3.url}/"))
    assert page is not None
    assert b"damaged.tif" in page
    ours, theirs = stage.objects_of(s3.url, s3.options), stage.objects_of(str(whole), {})
    assert sorted(ours) == sorted(theirs)
    assert [key for key in ours if ours[key] != theirs[key]] == []


def valid_cells(output: Path) -> Iterator[Any]:
    """`valid` of each cell."""
    valid = xr.open_zarr(f"{output}/{MAP}", chunks=None)["valid"].values[0]
    for j in range(stage.ACROSS):
        for i in range(stage.ACROSS):
            yield valid[j * stage.CELL : (j + 1) * stage.CELL, i * stage.CELL : (i + 1) * stage.CELL]


def play(operator: Operator, cluster: Cluster, store: FaultyProxy, *, reader: Reader) -> tuple[list[int], list[int]]:
    """Everything that goes wrong, each at a number of finished cells; returns exit statuses on the way, and what was seen."""

    def full(method: str, path: str) -> Any:
        return "507" if method == "PUT" else None

    def operator_gives_up() -> None:
        operator.kill()
        operator.run()

    def disk_is_full() -> None:
        store.plan = full
        wait(lambda: operator.status() is not None)
        statuses.append(operator.status() or 0)
        store.plan = None
        operator.run()

    def scheduler_is_gone() -> None:
        cluster.kill_scheduler()
        wait(lambda: operator.status() is not None)
        statuses.append(operator.status() or 0)
        operator.run()

    script = [
        (2, cluster.kill_worker),
        (4, operator_gives_up),
        (6, disk_is_full),
        (8, scheduler_is_gone),
        (10, cluster.kill_worker),
        (12, operator_gives_up),
    ]
    statuses: list[int] = []
    seen: list[int] = []

    def until(cells: int) -> None:
        """Wait for so many cells; a run that gives up, because a file could not be opened while it planned, is run again."""
        for _ in range(10):
            wait(lambda: done(store) >= cells or operator.status() is not None)
            if done(store) >= cells and operator.status() is None:
                return
            statuses.append(operator.status() or 0)
            operator.run()
        raise AssertionError(f"no run got as far as {cells} cells:\n{operator.said()[-4000:]}")

    operator.run()
    for cells, event in script:
        until(cells)
        event()
        seen.append(reader.looks())
    for _ in range(10):
        wait(lambda: operator.status() is not None)
        if done(store) == len(HEALTHY) and "damaged.tif" in operator.said():  # or the last run ended while it planned
            break
        statuses.append(operator.status() or 0)
        operator.run()
    seen.append(reader.looks())
    return statuses, seen


def done(store: FaultyProxy) -> int:
    """Cells with a mark."""
    return sum(method == "PUT" and f"/{YEAR.marks}/" in path for method, path in list(store.answered))


def wait(until: Any, *, limit_s: float = 240.0) -> None:
    """Look again until something is so."""
    deadline = time.monotonic() + limit_s
    while not until():
        assert time.monotonic() < deadline, "it took too long"
        threading.Event().wait(0.1)
