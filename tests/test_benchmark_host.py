"""The benchmarks of the host and of what a device waits for run small, and their fakes stand in for the device."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from benchmarks import feed, host


def test_host_prints_every_contender(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # it would stay for every later test of this process
    monkeypatch.setattr(
        host, "find_spec", lambda name: name != "monai" or None
    )  # which takes as long to load as all else
    monkeypatch.setattr(host, "TILES", ())
    blocks = []
    submit = host.FakeDevice.submit

    def counted(device: host.FakeDevice, *given: object, **how: object) -> object:
        blocks.append(given)
        return submit(device, *given, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(host.FakeDevice, "submit", counted)
    found = host.run(size=256, rounds=1)
    labels = ["floor", "rtsx auto"]
    assert list(found) == [*labels, *(f"{label} + zarrs" for label in labels)]
    assert all(spent > 0 for spent in found.values())
    assert len(blocks) == 4  # the one block of the raster in each of two runs of two contenders
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 + len(found)


def test_feed_draws_what_the_device_does(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(feed, "_BLOCK", 128)
    monkeypatch.setattr(
        feed, "ProcessPoolExecutor", lambda count, _: ThreadPoolExecutor(count)
    )  # each would load torch
    waits = feed.run(size=256, rounds=1, rates=(50,), readers=(2,))
    assert list(waits) == [50]
    assert all(0 <= share < 1 for share in waits.values())
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 + 1 + 1 + 2
    assert all(len(line.split("|")[1]) == 60 for line in printed[-2:])
