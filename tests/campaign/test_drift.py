"""A year whose images are others trips before anything is run, and one whose images are alike does not."""

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from rtsx import Campaign
from rtsx.campaign.cells import CellTable
from rtsx.campaign.drift import (
    LayerComparison,
    compare,
    compare_ranges,
    require_accepted,
)
from rtsx.campaign.drift_check import learnt_distributions, sampled_cells
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.run import require_ready
from rtsx.errors import CampaignError
from rtsx.model import InputLayer, ModelBundle
from rtsx.model.metadata import LayerDistribution
from rtsx.synthetic.scene import make_sky, sun_over, through_atmosphere
from tests.campaign.small_campaign import CELLS, LAYERS, make_bundle, make_recipe, write_country

Pixels = NDArray[np.uint16]


def country(
    folder: Path, change: Callable[[NDArray[np.float64]], NDArray[np.float64]] = lambda pixels: pixels
) -> tuple[Path, ...]:
    """Files of a year: red is brighter than nir by more than either varies, and each year has some noise of its own."""
    folder.mkdir()
    files = write_country(folder)
    for number, path in enumerate(files):
        with rasterio.open(path) as file:
            pixels, profile = file.read(), file.profile
        noise = np.random.default_rng([number, *folder.name.encode()]).normal(0, 30, pixels.shape)
        values = pixels.astype(float) + noise + np.array([1500.0, 0.0])[:, None, None]
        changed = np.where(pixels == 0, 0, np.clip(change(values), 1, 65535)).astype(np.uint16)
        with rasterio.open(path, "w", **profile) as file:
            file.write(changed)
            file.descriptions = ("red", "nir")
    return files


def year(files: tuple[Path, ...], tmp_path: Path, number: int = 2025, **changes: Any) -> Campaign:
    return Campaign.create(
        make_recipe(files, str(tmp_path / "out"), year=number, **{"bundles": (trained(),)} | changes)
    )


def trained() -> ModelBundle:
    """The model, which says what it has learnt from: images with less red than those of the campaign."""
    values = np.random.default_rng(0).normal(1500, 600, 5000)
    learnt = {name: asdict(LayerDistribution.of(values, pixels=values.size)) for name in LAYERS}
    return replace(make_bundle(), provenance={"layer_distributions": learnt})


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the images of the first year lie, and an output in which it was checked, and accepted."""
    folder = tmp_path_factory.mktemp("drift") / "first"
    country(folder)
    first = year((folder / "west.tif", folder / "east.tif"), folder, 2024)
    found = first.check(cells=6)
    assert {(one.layer, one.against) for one in found.findings} == {("red", "tiny")}
    first.accept_drift(name="Ada", reason="the region is bright")
    return folder


def checked_first(before: Path, tmp_path: Path) -> None:
    """The output of the first year, whose drift from the model somebody has accepted."""
    copytree(before / "out", tmp_path / "out")


def test_an_undisturbed_second_year_does_not_trip(before: Path, tmp_path: Path) -> None:
    checked_first(before, tmp_path)
    second = year(country(tmp_path / "second"), tmp_path)
    found = second.check(cells=6)
    assert not found.is_tripped
    assert found.may_run
    assert found.same_cells == 1
    assert max(abs(one.mean) for one in found.comparisons if one.against == "2024" and one.mean is not None) < 0.05
    # The model says what it said of the first year, and decides nothing where there is a year.
    assert {one.layer for one in found.comparisons if one.against == "tiny" and one.is_drifted} == {"red"}
    require_accepted(second.objects, second.plan)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda pixels: pixels * 10, "about 10 times those there: is the scale wrong"),
        (lambda pixels: pixels + 1000, "about \\+[\\d.]+ beside those there: is the offset wrong"),
        (lambda pixels: pixels[::-1], "like those of (nir|red) there: are bands swapped"),
    ],
    ids=["ten times", "offset", "swapped"],
)
def test_what_is_wrong_with_a_second_year_is_found_and_named(
    before: Path, tmp_path: Path, change: Callable[[NDArray[np.float64]], NDArray[np.float64]], hint: str
) -> None:
    checked_first(before, tmp_path)
    second = year(country(tmp_path / "second", change), tmp_path)
    found = second.check(cells=6)
    assert {one.layer for one in found.findings} == {"red", "nir"}
    assert all(re.search(hint, one.hint) for one in found.findings), str(found)


def test_layers_that_are_brighter_by_one_factor_are_not_swapped() -> None:
    def measured(red: float, nir: float) -> dict[str, LayerDistribution]:
        of = {"red": red, "nir": nir}
        return {name: LayerDistribution.of(np.arange(2000.0) * one, pixels=2000) for name, one in of.items()}

    def hints(red: float, nir: float) -> list[str]:
        then = measured(1, 2)
        found = compare(measured(red, nir), then, against="2024", with_invalid=True, decides=True)
        return [one.hint for one in found]

    assert hints(2, 4) == ["its values are about 2 times those there: is the scale wrong?"] * 2
    assert ["swapped" in one for one in hints(2, 1)] == [True, True]


def test_missing_ground_trips_and_is_no_value(before: Path, tmp_path: Path) -> None:
    checked_first(before, tmp_path)
    found = year(country(tmp_path / "second")[:1], tmp_path).check(cells=6)  # the eastern file is not there
    assert {one.layer for one in found.findings} == {"red", "nir", "valid"}
    assert all(one.invalid is not None and one.invalid > 0.2 for one in found.findings)


def test_a_first_year_of_which_nothing_can_be_trusted_trips(tmp_path: Path) -> None:
    files = country(tmp_path / "first", lambda pixels: pixels * 0)
    for path in files:
        with rasterio.open(path, "r+") as file:
            file.write(np.zeros(file.shape, np.uint16)[None].repeat(file.count, axis=0))
    found = year(files, tmp_path, bundles=(make_bundle(),)).check(cells=6)
    assert ("valid", 1.0) in [(one.layer, one.invalid) for one in found.findings]
    assert "no pixel of the sample can be trusted" in str(found)


@pytest.mark.parametrize(("haze", "trips"), [(0.03, False), (0.2, True)])
def test_haze_of_the_synthetic_sky_trips_and_that_of_a_usual_year_does_not(haze: float, trips: bool) -> None:
    ground = 0.08 + 0.015 * np.random.default_rng(0).normal(size=(4, 240, 240)).astype(np.float32)
    names = ("blue", "green", "red", "nir")
    sun = sun_over(68, date=dt.date(2024, 7, 20), hour=11)

    def seen(veil: float, days: range) -> dict[str, LayerDistribution]:
        images = [ground.copy() for _ in days]
        for image, day in zip(images, days, strict=True):
            sky = make_sky(240, sun=sun, cloud_cover=0, haze=veil, rng=np.random.default_rng(day))
            through_atmosphere(image, sky=sky)
        bands = np.concatenate(images, 1)
        return {name: LayerDistribution.of(band, pixels=band.size) for name, band in zip(names, bands, strict=True)}

    found = compare(seen(haze, range(8, 16)), seen(0.03, range(8)), against="2024", with_invalid=True, decides=True)
    assert ("blue" in {one.layer for one in found if one.is_drifted}) is trips, found


def test_nothing_runs_after_a_trip_until_somebody_says_who_and_why(before: Path, tmp_path: Path) -> None:
    first = year((before / "west.tif", before / "east.tif"), tmp_path, 2024)
    with pytest.raises(CampaignError, match="no drift to accept: the check of 2024 was not made"):
        first.accept_drift(name="Ada", reason="why not")
    first.check(cells=6)
    refused = r'drift check of 2024 has tripped: red against tiny: mean \+2.*--accept-drift "NAME: reason"'
    with pytest.raises(CampaignError, match=refused):
        first.work()
    assert first.recipe is not None
    with pytest.raises(CampaignError, match=refused):
        require_ready(first.plan, first.recipe, ledger=first.ledger, client=None)  # type: ignore[arg-type]  # before it is used
    assert first.status().done == 0
    for name, reason in (("", "bright"), ("Ada", " ")):
        with pytest.raises(CampaignError, match="says a name and a reason"):
            first.accept_drift(name=name, reason=reason)
    for _ in range(2):  # the same line given again says nothing new
        kept = first.accept_drift(name="Ada", reason="the region is bright")
    assert [(one.name, one.reason) for one in kept.acceptances] == [("Ada", "the region is bright")]
    assert first.check(cells=6).acceptances == kept.acceptances  # what was accepted was found again
    assert "the region is bright" in (first.objects.get(YearLayout(2024).drift_page) or b"").decode()
    require_accepted(first.objects, first.plan)
    assert "the region is bright" in Path(first.report(tmp_path / "report.html").path).read_text()


def test_a_check_of_another_plan_does_not_count(before: Path, tmp_path: Path) -> None:
    first = year((before / "west.tif", before / "east.tif"), tmp_path, 2024)
    first.check(cells=2)
    require = replace(first.plan, cogs=True)
    require_accepted(first.objects, require)
    with pytest.raises(CampaignError, match="2024 was not checked, its check cannot be read, or it has tripped"):
        year(country(tmp_path / "second"), tmp_path).check(cells=2, against=2024)
    with pytest.raises(CampaignError, match="2019 is no other year of this campaign; planned others: 2025"):
        first.check(cells=2, against=2019)


def test_what_is_no_check_is_an_error(before: Path, tmp_path: Path) -> None:
    first = year((before / "west.tif", before / "east.tif"), tmp_path, 2024)
    first.objects.put(YearLayout(2024).drift, b'{"plan_digest": 1}')
    with pytest.raises(CampaignError, match=r"years/2024/drift.json.*restore it from a copy"):
        first.work()
    assert first.check(cells=1).cells  # or made anew


def test_plans_that_share_ground_share_their_sample() -> None:
    table = CellTable(np.stack([np.zeros(1000), np.arange(1000)], 1).astype(np.int32))
    fewer = CellTable(table.addresses[100:])
    before, after = (set(sampled_cells(cells, 64)) for cells in (table, fewer))
    assert len(before) == len(after) == 64
    assert {one for one in before if one[0][1] >= 100} < after
    assert set(sampled_cells(table, 8)) < before
    assert len(sampled_cells(table, 5000)) == 1000
    assert {cell for cell, _ in sampled_cells(table, 1, also=[(0, 999), (5, 5)])} > {(0, 999)}


def test_what_a_model_has_learnt_is_what_its_training_kept() -> None:
    plain = make_bundle()
    assert learnt_distributions(plain) == {}
    known = trained()
    assert known.digest == plain.digest
    assert learnt_distributions(known)["red"].mean == pytest.approx(1500, rel=0.02)
    broken = replace(plain, provenance={"layer_distributions": {"red": 1}})
    with pytest.raises(CampaignError, match="layer_distributions in the provenance of model tiny"):
        learnt_distributions(broken)


def test_a_model_that_says_nothing_of_it_is_named_and_only_years_are_compared(before: Path, tmp_path: Path) -> None:
    files = before / "west.tif", before / "east.tif"
    first = year(files, tmp_path, 2024, bundles=(make_bundle(),)).check(cells=2)
    assert not first.is_tripped
    assert "model tiny does not say how what it has learnt from is distributed" in str(first)
    second = year(files, tmp_path, 2025, bundles=(make_bundle(),)).check(cells=2)
    assert {one.against for one in second.comparisons if one.decides} == {"2024"}


def distribution(values: Any, *, pixels: int | None = None) -> LayerDistribution:
    array = np.asarray(values)
    return LayerDistribution.of(array, pixels=array.size if pixels is None else pixels)


def against(now: LayerDistribution, then: LayerDistribution) -> LayerComparison:
    (found,) = compare({"layer": now}, {"layer": then}, against="2024", with_invalid=True, decides=True)
    return found


_RANDOM = np.random.default_rng(5)
_GROUND = _RANDOM.normal(0.25, 0.05, 20_000)
_WATER = _RANDOM.normal(0.02, 0.005, 20_000)


def mixed(share: float, other: Any = _WATER) -> Any:
    """Ground with a share of something else in it."""
    n = int(share * _GROUND.size)
    return np.concatenate([_GROUND[n:], other[:n]])


@pytest.mark.parametrize(
    ("now", "then"),
    [
        (mixed(0.28), mixed(0.22)),  # which moves a quarter of the values from ground to water
        (mixed(0.55), mixed(0.47)),
        (mixed(0.12, _GROUND + 0.6), mixed(0.06, _GROUND + 0.6)),  # snow
        (
            _RANDOM.choice([10, 20, 90], 9000, p=[0.3, 0.45, 0.25]),
            _RANDOM.choice([10, 20, 90], 9000, p=[0.3, 0.52, 0.18]),
        ),
        (1.0 * (_RANDOM.random(9000) < 0.52), 1.0 * (_RANDOM.random(9000) < 0.47)),
        (np.full(9000, 7), np.full(9000, 7)),
        (np.zeros(9000), np.zeros(9000)),
        (1.0 * (np.arange(9000) % 500 == 0), np.zeros(9000)),
        (np.full(9000, np.float32(0.1)), np.full(9000, 0.1)),
        ([], []),
    ],
    ids=[
        "water",
        "half water",
        "snow",
        "classes",
        "a mask",
        "constant",
        "zero",
        "almost zero",
        "rounded",
        "never valid",
    ],
)
def test_what_a_usual_year_changes_does_not_trip(now: Any, then: Any) -> None:
    pixels = 2 * max(len(now), 1)
    assert not (found := against(distribution(now, pixels=pixels), distribution(then, pixels=pixels))).is_drifted, found


@pytest.mark.parametrize(
    ("now", "then", "said"),
    [
        (mixed(0.6), mixed(0.22), "mean"),
        (mixed(0.08, _GROUND + 0.6), mixed(0.01, _GROUND + 0.6), "few of its pixels have other values"),
        (np.full(9000, 8), np.full(9000, 7), "is the offset wrong"),
        (_RANDOM.normal(0.5, 0.1, 9000), np.zeros(9000), "mean"),
        (_GROUND - _GROUND.mean(), 4 * (_GROUND - _GROUND.mean()), "0.25 times"),
        ([], _GROUND, "no value at all"),
    ],
    ids=["flood", "late snow", "another constant", "no longer constant", "spread alone", "gone"],
)
def test_what_no_usual_year_changes_trips(now: Any, then: Any, said: str) -> None:
    found = against(distribution(now, pixels=40_000), distribution(then, pixels=40_000))
    assert found.is_drifted
    assert said in str(found)


def test_few_values_are_not_compared_but_their_number_is(
    before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked_first(before, tmp_path)
    monkeypatch.setattr("rtsx.campaign.drift_check._LEAST", 1_000_000)
    found = year(country(tmp_path / "second", lambda pixels: pixels * 10), tmp_path).check(cells=6)
    assert not found.is_tripped
    assert "too few values to compare them" in str(found)


def test_a_damaged_check_of_another_year_is_passed_over_and_named(before: Path, tmp_path: Path) -> None:
    checked_first(before, tmp_path)
    second = year(country(tmp_path / "second"), tmp_path)
    second.objects.put(YearLayout(2024).drift, b"{}")
    found = second.check(cells=6)
    assert found.same_cells is None
    assert "2024 is not compared with, because its check cannot be read" in str(found)


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        (np.linspace(0.02, 0.2, 90), ""),
        (np.linspace(200, 2000, 90), "half of its"),
        (np.linspace(2e-6, 2e-5, 90), "its values fill less"),
    ],
)
def test_a_preset_tells_a_wrong_scale_by_its_range(values: NDArray[np.float64], hint: str) -> None:
    shown = [InputLayer.from_range("red", 0, 0.3, clip=True)]
    (found,) = compare_ranges({"red": LayerDistribution.of(values, pixels=90)}, shown, against="tiny", decides=True)
    assert found.hint.startswith(hint)
    assert found.is_drifted is bool(hint)
    assert "red against tiny: " in str(found)


def test_however_many_cells_are_looked_at_so_many_values_are_kept(
    before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = year((before / "west.tif", before / "east.tif"), tmp_path, 2024)
    whole = first.check(cells=6).layers["red"]
    monkeypatch.setattr("rtsx.campaign.drift_check._MOST", 2000)
    few = first.check(cells=6).layers["red"]
    assert few != whole
    assert (few.pixels, few.count) == (whole.pixels, whole.count)
    assert few.mean == pytest.approx(whole.mean, abs=0.2 * whole.std)


def test_the_sample_is_of_all_cells_where_there_are_few(before: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = year((before / "west.tif", before / "east.tif"), tmp_path, 2024).check(
        progress=lambda *now: seen.append(now)
    )
    assert len(found.cells) == len(CELLS)
    assert seen[-1] == (len(CELLS), len(CELLS))
