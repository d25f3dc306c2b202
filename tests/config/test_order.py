import re
from datetime import date
from pathlib import Path

import pytest

from rtsx.config.order import OrderConfig, load_order_config
from rtsx.config.place import PeriodConfig, RegionConfig
from rtsx.errors import ConfigError, MissingExtraError
from rtsx.ordering import OrderCriteria, OrderLimits, StacProvider

CONFIGS = Path(__file__).parents[2] / "configs"
ORDER = """name: a
region: {bbox: [0, 60, 1, 61]}
period: {years: 2024}
out: scenes
catalog: {path: there/catalog.json}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "order.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["order-planet", "order-stac", "order-basemap"])
def test_the_examples_load_and_come_back_equal(name, tmp_path):
    config = load_order_config(CONFIGS / f"{name}.yaml")
    assert load_order_config(write(tmp_path, config.to_yaml())) == config
    assert config.geometry().bounds == (-139.143, 69.545, -138.870, 69.640)


def test_values_are_those_of_the_library_where_nothing_is_said(tmp_path):
    config = load_order_config(write(tmp_path, ORDER))
    assert (config.limits, config.wishes) == (OrderLimits(), OrderCriteria())
    assert config.folder == tmp_path / "scenes"
    assert config.collection_id == "a"
    assert isinstance(config.provider(), StacProvider)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("limits: {max_clouds: 20}", r"line 6, limits\.max_clouds: unknown key; did you mean 'max_cloud'"),
        ("limits: {coverage: 90}", r"line 6, limits\.coverage: .*less than or equal to 1"),
        ("stac: {url: 'https://a', collections: b}", "one of planet, stac, catalog and basemap; got stac and catalog"),
        ("wishes: {overlap: -1}", r"wishes\.overlap: .*greater than or equal to 0"),
        ("parallel: 0", "parallel: "),
        ("basemap: {mosaic: a}", "got catalog and basemap"),
    ],
)
def test_what_is_wrong_is_told_by_line(tmp_path, change, told):
    with pytest.raises(ConfigError, match=told):
        load_order_config(write(tmp_path, ORDER + change + "\n"))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("name: a", "name: ../a", "name: "),
        ("bbox: [0, 60, 1, 61]", "cell: r001c002", "cells belong to a cube's grid"),
        ("catalog: {path: there/catalog.json}", "basemap: {mosaic: a}", "leave period out"),
        ("period: {years: 2024}", "", "add period"),
        ("out: scenes", "out: s3://bucket/scenes", "out is a local folder"),
        ("catalog: {path: there/catalog.json}", "", "got none"),
    ],
)
def test_what_an_order_cannot_be(tmp_path, old, new, told):
    with pytest.raises(ConfigError, match=told):
        load_order_config(write(tmp_path, ORDER.replace(old, new)))


def test_the_digest_follows_what_changes_the_plan(tmp_path):
    def digest(more: str = "", old: str = "", new: str = "") -> str:
        return load_order_config(write(tmp_path, ORDER.replace(old, new) + more)).digest()

    same = digest()
    assert digest("limits: {budget_km2: 5}\n") == same
    assert digest("parallel: 2\n") == same
    assert digest("", "out: scenes", "out: other") == same
    changed = {
        digest("limits: {max_cloud: 5}\n"),
        digest("wishes: {cloud: 1}\n"),
        digest("", "2024", "2023"),
        digest("", "61]", "62]"),
    }
    assert len(changed | {same}) == 5


def test_without_the_sdk_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "planet", None)
    monkeypatch.delitem(sys.modules, "rtsx.ordering.planet", raising=False)
    order = {"name": "a", "region": {"bbox": [0, 60, 1, 61]}, "period": {"years": 2024}, "out": "s", "planet": {}}
    with pytest.raises(MissingExtraError, match=r"pip install 'rtsx\[order\]'"):
        OrderConfig.model_validate(order).provider()


@pytest.mark.parametrize(
    ("period", "meant"),
    [
        ('{years: "2024"}', {"years": (2024, 2024)}),
        ("{years: 2024.0}", {"years": (2024, 2024)}),
        (
            "{start: 2024-07-01T10:00:00Z, end: 2024-08-31T23:59:59Z}",
            {"start": date(2024, 7, 1), "end": date(2024, 8, 31)},
        ),
    ],
)
def test_days_and_years_in_other_spellings(tmp_path, period, meant):
    config = load_order_config(write(tmp_path, ORDER.replace("{years: 2024}", period)))
    assert config.period == PeriodConfig(**meant)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        (
            "period: {years: 2024}",
            "period: {start: 20240701, end: 31.08.2024}",
            "a day is written 2024-07-01; got 20240701",
        ),
        (
            "period: {years: 2024}",
            "period: {years: 2024}\nlimits: {max_cloud: 0.2}",
            "max_cloud is a percentage, 0 to 100, such as 20",
        ),
        (
            "period: {years: 2024}",
            "period: {years: 2024}\nwishes: {around: 2023-08-01}",
            "a day of the period, 2024-01-01 to 2024-12-31",
        ),
    ],
)
def test_days_and_shares_that_mean_something_else(tmp_path, key, value, told):
    with pytest.raises(ConfigError, match=told):
        load_order_config(write(tmp_path, ORDER.replace(key, value)))


def test_a_region_is_a_box_or_a_file_alone(tmp_path):
    for given, meant in (
        ("[0, 60, 1, 61]", {"bbox": (0, 60, 1, 61)}),
        ("aoi.gpkg", {"file": str(tmp_path / "aoi.gpkg")}),
    ):
        region = re.sub(r"region: .*", f"region: {given}", ORDER)
        assert load_order_config(write(tmp_path, region)).region == RegionConfig(**meant)
