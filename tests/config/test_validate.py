"""Paths with placeholders."""

from pathlib import Path

import pytest

from rtsx.config.validate import format_path, glob_paths
from rtsx.errors import ConfigError


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
