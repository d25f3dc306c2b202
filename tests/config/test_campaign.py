"""The config of a campaign: what it means, what it refuses, and that it comes back."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import shapely
import yaml
from pydantic import TypeAdapter

from rtsx.campaign.recipe import CampaignRecipe, ClusterSpec, OutlineSpec, PredictionSpec, Prices, RetrySpec
from rtsx.config.campaign import (
    CampaignConfig,
    campaign_schema,
    load_campaign,
    load_campaign_config,
)
from rtsx.config.cube import load_cube_recipe
from rtsx.errors import BundleError, ConfigError
from rtsx.model import ModelBundle
from rtsx.synthetic import demo_bundle_path

BOX = [-132.05, 67.38, -131.95, 67.42]


@pytest.fixture
def values() -> dict[str, Any]:
    """A campaign with nothing said that need not be."""
    return {
        "name": "small",
        "year": 2024,
        "region": BOX,
        "cube": {
            "grid": {"cell_size": 512},
            "period": {"years": "{year}", "months": [7]},
            "sources": {"scene": {"files": "images/{year}.tif", "layers": ["blue", "green", "red", "nir"]}},
        },
        "model": "demo",
        "output": "out",
    }


def write(folder: Path, values: dict[str, Any], name: str = "campaign.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def test_what_is_not_said_is_what_a_recipe_says(tmp_path: Path, values: dict[str, Any]) -> None:
    recipe = load_campaign(write(tmp_path, values))
    usual = CampaignRecipe(
        name="small",
        year=2024,
        region=shapely.box(*BOX),
        cube=recipe.cube,
        bundles=recipe.bundles,
        output=str(tmp_path / "out"),
        shard=512,  # no larger than the cell
        chunk=512,
    )
    assert recipe == usual
    assert [bundle.digest for bundle in recipe.bundles] == [ModelBundle.open(demo_bundle_path()).digest]


def test_everything_said_arrives(tmp_path: Path, values: dict[str, Any]) -> None:
    said = {
        "without": {"wkt": "POLYGON ((-132 67.4, -131.9 67.4, -131.9 67.5, -132 67.4))"},
        "extent": {"bbox": [-140, 60, -130, 70]},
        "model": [str(demo_bundle_path()), "demo"],
        "prediction": {
            "tile": 256, "overlap": 64, "trim": 16, "blend": "linear", "batch_size": 3, "device": "cpu",
            "precision": "float32", "backend": "onnx", "augment": "hflip", "scales": [1, 0.5], "merge": "max", "memory": "8GB",
        },
        "outlines": {"min_area_m2": 100, "threshold": 0.4, "edge_distance": 3, "water": "lakes.gpkg", "max_water": 0.3},
        "cogs": True,
        "shard": 256,
        "chunk": 128,
        "output": "s3://bucket/map",
        "storage_options": {"anon": True},
        "retry": {"attempts": 2, "backoff_s": 1, "longest_backoff_s": 9, "most_failures": 7, "lease_s": 60},
        "prices": {"device_hour": 1.5, "gigabyte_month": 0.02, "gigabyte_read": 0.1, "currency": "USD"},
    }  # fmt: skip
    recipe = load_campaign(write(tmp_path, {**values, **said}))
    assert recipe.without == shapely.from_wkt(said["without"]["wkt"])
    assert recipe.extent == shapely.box(-140, 60, -130, 70)
    assert len(recipe.bundles) == 2
    assert recipe.prediction == PredictionSpec(
        tile=256, overlap=64, trim=16, blend="linear", batch_size=3, device="cpu", precision="float32", backend="onnx",
        augment=("hflip",), scales=(1.0, 0.5), merge="max", memory_bytes=8_000_000_000,
    )  # fmt: skip
    water = str(tmp_path / "lakes.gpkg")
    assert recipe.outlines == OutlineSpec(min_area_m2=100, threshold=0.4, edge_distance=3, water=water, max_water=0.3)
    assert (recipe.cogs, recipe.shard, recipe.chunk) == (True, 256, 128)
    assert (recipe.output, recipe.storage_options) == ("s3://bucket/map", {"anon": True})
    assert recipe.retry == RetrySpec(attempts=2, backoff_s=1, longest_backoff_s=9, most_failures=7, lease_s=60)
    assert recipe.prices == Prices(device_hour=1.5, gigabyte_month=0.02, gigabyte_read=0.1, currency="USD")


def test_the_year_stands_in_the_cube_and_may_be_another(tmp_path: Path, values: dict[str, Any]) -> None:
    path = write(tmp_path, values)
    for year in (2024, 2025):
        recipe = load_campaign(path, year=None if year == 2024 else year)
        (source,) = recipe.cube.sources
        assert recipe.year == year
        assert f"images/{year}.tif" in repr(source.images)
        assert source.period is not None
        assert (source.period.start.year, source.period.end.year) == (year, year)
    del values["year"]
    bare = write(tmp_path, values)
    assert load_campaign_config(bare, year=2023).year == 2023
    with pytest.raises(
        ConfigError, match="year of the map is missing; say it here, or to the command with --year"
    ) as told:
        load_campaign_config(bare)
    assert "years" not in str(told.value)  # nothing else is wrong


def test_the_cube_may_be_a_file_of_its_own(tmp_path: Path, values: dict[str, Any]) -> None:
    (tmp_path / "cubes").mkdir()
    write(tmp_path / "cubes", values["cube"], "cube-2024.yaml")
    named = load_campaign(write(tmp_path, {**values, "cube": "cubes/cube-{year}.yaml"}))
    # Its paths count from its own folder.
    assert str(tmp_path / "cubes" / "images" / "2024.tif") in repr(named.cube.sources[0].images)
    values["cube"]["sources"]["scene"]["layer"] = values["cube"]["sources"]["scene"].pop("layers")
    write(tmp_path / "cubes", values["cube"], "cube-2024.yaml")
    with pytest.raises(ConfigError, match=r"cube: .*cube-2024\.yaml.*layer: unknown key; did you mean 'layers'"):
        load_campaign_config(tmp_path / "campaign.yaml")


def test_the_region_of_the_cube_serves_where_none_is_named(tmp_path: Path, values: dict[str, Any]) -> None:
    del values["region"]
    with pytest.raises(ConfigError, match="a campaign needs a region"):
        load_campaign_config(write(tmp_path, values))
    values["cube"]["region"] = {"bbox": BOX}
    path = write(tmp_path, values)
    assert load_campaign(path).region == shapely.box(*BOX)
    values["region"] = {"north_of": 75}
    assert load_campaign(write(tmp_path, values)).region.bounds == (-180, 75, 180, 90)
    assert load_campaign(path).cube.region is None
    # So that a recipe, and with it the digest of the plan, does not depend on where the region is said.
    assert (
        load_cube_recipe(write(tmp_path, load_campaign_config(path).resolved().cube.model_dump(mode="json"))).region
        is None
    )


@pytest.mark.parametrize("outlines", [False, True, {"threshold": 0.3}])
def test_a_config_comes_back_with_everything_said(tmp_path: Path, values: dict[str, Any], outlines: Any) -> None:
    handed = {"gateway": "http://a", "adapt": [0, 4], "options": {"environment": {"AWS_SECRET_ACCESS_KEY": "secret"}}}
    more = {"outlines": outlines, "cluster": handed, "storage_options": {"key": "secret"}}
    resolved = load_campaign_config(write(tmp_path, {**values, **more})).resolved()
    again = tmp_path / "elsewhere" / "again.yaml"
    again.parent.mkdir()
    again.write_text(resolved.to_yaml())
    read = load_campaign_config(again)
    assert read == resolved == read.resolved()
    assert (read.outlines is None) == (outlines is False)
    assert "secret" not in resolved.without_secrets().to_yaml()
    assert load_campaign_config(again).recipe().cube == load_campaign(tmp_path / "campaign.yaml").cube


def test_paths_are_said_without_detours(tmp_path: Path, values: dict[str, Any]) -> None:
    (tmp_path / "configs").mkdir()
    values["output"] = "../maps/./arctic"
    assert load_campaign_config(write(tmp_path / "configs", values)).output == str(tmp_path / "maps" / "arctic")
    (tmp_path / "elsewhere" / "kept").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere" / "kept")
    led = Path(load_campaign_config(write(tmp_path / "linked", values)).output)
    assert led.resolve() == (tmp_path / "elsewhere" / "maps" / "arctic").resolve()  # as the system reads it


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"modle": "demo"}, r"line \d+, modle: unknown key; did you mean 'model'"),
        ({"retry": {"attempt": 3}}, r"retry\.attempt: unknown key; did you mean 'attempts'"),
        ({"retry": {"backoff_s": 400}}, r"line \d+, retry: backoff_s lies between 0 and longest_backoff_s"),
        ({"prediction": {"memory_bytes": 9}}, r"prediction\.memory_bytes: unknown key; did you mean 'memory'"),
        ({"prediction": {"backend": "auto"}}, r"prediction\.backend: .*'eager'"),
        ({"name": "a/b"}, "line 1, name: "),
        ({"year": 20}, "line 2, year: "),
        ({"output": "maps/{year}"}, "output is the same for all years"),
        ({"model": []}, "model: a campaign needs a model"),
        ({"cluster": {"scheduler": "tcp://a:1", "workers": 2}}, "cluster: .*used as they are"),
        ({"cluster": {"gateway": "http://a", "adapt": [0, 4], "memory": "4GB"}}, "cluster: threads and memory are"),
        ({"cluster": {"memory": "four"}}, r"cluster\.memory: memory is a number with a unit"),
        ({"region": "arctic", "extent": {"cell": "r001c001"}}, r"extent\.cell: unknown key"),
    ],
)
def test_what_is_wrong_is_told_by_line(
    tmp_path: Path, values: dict[str, Any], change: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        load_campaign_config(write(tmp_path, {**values, **change}))


def test_what_only_shows_in_the_recipe_names_the_file(tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"campaign\.yaml: A cell is whole shards"):
        load_campaign(write(tmp_path, {**values, "shard": 300}))
    with pytest.raises(ConfigError, match=r"campaign\.yaml: The region in .*absent\.gpkg cannot be read"):
        load_campaign(write(tmp_path, {**values, "without": "absent.gpkg"}))
    with pytest.raises(BundleError, match="absent-bundle"):
        load_campaign(write(tmp_path, {**values, "model": "absent-bundle"}))


def test_braces_without_quotes_are_explained(tmp_path: Path, values: dict[str, Any]) -> None:
    path = write(tmp_path, values)
    path.write_text(path.read_text().replace("'{year}'", "{year}"))
    with pytest.raises(ConfigError, match=r'cube: {year} stands in quotes, "{year}"'):
        load_campaign_config(path)


def test_the_schema_takes_what_the_config_takes(tmp_path: Path, values: dict[str, Any]) -> None:
    schema = campaign_schema()
    spelt: list[dict[str, Any]] = [
        {},
        {"region": "arctic", "without": "sea.gpkg", "outlines": False, "model": ["demo", "demo"]},
        {"region": ["42_18", "42_19"], "outlines": True, "prediction": {"augment": ["hflip"]}},
        {"region": {"north_of": 66}, "cluster": {"memory": "8GB", "workers": 2}},
    ]
    for change in spelt:
        jsonschema.validate({**values, **change}, schema)
        load_campaign_config(write(tmp_path, {**values, **change}))
    with pytest.raises(jsonschema.ValidationError, match="regoin"):
        jsonschema.validate({**values, "regoin": "arctic"}, schema)
    published = Path(__file__).parents[2] / "configs" / "campaign.schema.json"
    assert json.loads(published.read_text()) == json.loads(json.dumps(schema))


ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "howto" / "campaign.md").read_text()


def test_the_campaign_of_the_documentation_is_the_one_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RTSX_CATALOG", "RTSX_MAPS"):
        monkeypatch.delenv(name, raising=False)
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    told, example = tmp_path / "told.yaml", tmp_path / "example.yaml"
    told.write_text(block)
    # As `rtsx config example` writes it: what its commands make lies below the working directory.
    example.write_text((ROOT / "configs" / "campaign-demo.yaml").read_text().replace("../", ""))
    assert load_campaign_config(told) == load_campaign_config(example)


def table(heading: str) -> list[list[str]]:
    """Cells of the table below a heading of the page, without its first two lines."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [re.split(r" *(?<!\\)\| *", line.strip("| ")) for line in lines[2:]]


@pytest.mark.parametrize("spelt", re.findall("`([^`]+)`", " ".join(row[0] for row in table("Regions"))))
def test_a_region_of_the_documentation_is_one(tmp_path: Path, values: dict[str, Any], spelt: str) -> None:
    shown = {"{bbox: ...}": "{bbox: [-132, 67, -131, 68]}", "{arcticdem: ...}": "{arcticdem: 42_18_2_1}"}.get(
        spelt, spelt
    )
    path = write(tmp_path, {**values, "region": "REGION"})
    path.write_text(
        path.read_text().replace("REGION", shown.replace('"POLYGON ((...))"', '"POLYGON ((0 70, 1 70, 1 71, 0 70))"'))
    )
    region = load_campaign_config(path).region
    assert region is not None
    if region.file is None:
        assert not region.geometry().is_empty


@pytest.mark.parametrize("row", table("Machines"), ids=lambda row: row[0].split()[0].strip("`"))
def test_machines_of_the_documentation_are_those_of_the_command_line(
    tmp_path: Path, values: dict[str, Any], row: list[str]
) -> None:
    line, block, _ = row
    path = write(tmp_path, {**values, "cluster": "CLUSTER"})
    filled = {"URL": "http://a", "...": "tcp://10.0.0.1:8786"}
    for word, meant in filled.items():
        line, block = line.replace(word, meant), block.replace(word, f'"{meant}"')
    path.write_text(path.read_text().replace("CLUSTER", block.strip("`")))
    words = shlex.split(line.strip("`"))
    given = {name[2:]: words[place + 1] for place, name in enumerate(words) if name.startswith("--")}
    if "adapt" in given:
        place = words.index("--adapt")
        given["adapt"] = (int(words[place + 1]), int(words[place + 2]))
    config = load_campaign_config(path)
    assert config.cluster == TypeAdapter(ClusterSpec).validate_python(given)


def test_every_key_is_documented() -> None:
    told = set(re.findall("`([a-z_0-9]+)`", " ".join(cell for row in table("Keys") for cell in row)))
    assert told >= set(CampaignConfig.model_fields)
    for part in ("RetrySpec", "Prices", "OutlineSpec", "PredictionSpec"):
        assert told >= set(campaign_schema()["$defs"][part]["properties"])
