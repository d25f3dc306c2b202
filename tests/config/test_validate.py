"""Unknown keys, and paths with placeholders."""

from pathlib import Path

import pytest

from rtsx.config import load_campaign_config, load_cube_config
from rtsx.config.yaml import format_path, glob_paths, refuse_unknown_keys
from rtsx.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


def test_every_match_says_what_the_names_stand_for(tmp_path: Path) -> None:
    for name in ("peel/b_SR.tif", "peel/a_SR.tif", "horton/c.1_SR.tif", "peel/a_udm2.tif", "peel/deep/x_SR.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert glob_paths(f"{tmp_path}/{{region}}/{{scene}}_SR.tif") == (
        {"region": "horton", "scene": "c.1"},
        {"region": "peel", "scene": "a"},
        {"region": "peel", "scene": "b"},
    )


def test_a_name_that_comes_twice_stands_for_one_thing(tmp_path: Path) -> None:
    for name in ("a/a.tif", "a/b.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert glob_paths(f"{tmp_path}/{{scene}}/{{scene}}.tif") == ({"scene": "a"},)


def test_other_signs_of_patterns_mean_themselves(tmp_path: Path) -> None:
    for name in ("[1]_a.tif", "1_a.tif"):
        (tmp_path / name).touch()
    assert glob_paths(f"{tmp_path}/[1]_{{scene}}.tif") == ({"scene": "a"},)


def test_nothing_that_matches_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No path matches .*/\{scene\}\.tif\. Check the folder and the pattern"):
        glob_paths(f"{tmp_path}/{{scene}}.tif")
    with pytest.raises(ConfigError, match="Patterns match local paths; got s3://"):
        glob_paths("s3://bucket/{scene}.zarr")
    (tmp_path / "peel12.tif").touch()  # p and eel12, or peel1 and 2
    with pytest.raises(ConfigError, match=r"says where the first of \{region\}\{number\} ends\. Write text between"):
        glob_paths(f"{tmp_path}/{{region}}{{number}}.tif")


def test_a_name_that_stands_for_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"\{region\} stands for nothing.*which has \{scene\}"):
        format_path("{region}/{scene}", {"scene": "a"})


TYPOS = {
    "cube": """
grid: {crs: "EPSG:3413", resoluton: 3}
region: {bbox: [-133, 68, -132.9, 68.1]}
sources:
  a: {catalog: {path: x.json, colections: b}, layers: {red: {bnd: 1}}}
  b: {filez: a.tif, files: [b.tif], layers: [nir], quality: {rule: {good: clear}, asst: x}}
""",
    "campaign": """
name: a
year: 2024
region: {north_off: 60, north_of: 60}
cube: {sources: {a: {files: {red: [a.tif], odd: b.tif}, layers: [red], qualty: {asset: x}}}}
model: demo
output: out
storage_options: {anything: 1}
yaer: 3
outlines: false
cluster: {workrs: 2}
prediction: {memry: 8GB}
""",
}


@pytest.mark.parametrize("kind", ["cube", "campaign"])
def test_unknown_keys_are_known_from_the_schema_as_from_the_models(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.yaml"
    path.write_text(TYPOS[kind])
    with pytest.raises(ConfigError) as early:
        refuse_unknown_keys(str(path), kind)
    with pytest.raises(ConfigError) as late:
        (load_cube_config if kind == "cube" else load_campaign_config)(path)
    assert [line for line in str(late.value).splitlines() if "unknown key" in line] == str(early.value).splitlines()[1:]
    assert str(early.value).count("unknown key") == 5


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("c*-*.yaml")), ids=lambda path: path.stem)
def test_configs_that_ship_have_no_unknown_key(path: Path) -> None:
    refuse_unknown_keys(str(path), "cube" if path.stem.startswith("cube") else "campaign")
