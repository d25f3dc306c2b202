"""Secrets become part of no text that is shown, logged or stored, and a stored config still works for whoever has them."""

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rtsx.campaign.recipe import RetrySpec
from rtsx.campaign.records import record_failure
from rtsx.campaign.task_queue import TaskQueue
from rtsx.config import load_campaign_config, load_cube_config
from rtsx.config.cube import config_of_built_cube
from rtsx.cube.build_state import describe_recipe
from rtsx.cube.chunk_loader import MissingImage, warn_missing
from rtsx.errors import ConfigError, CubeError, InputNotFoundError
from rtsx.redaction import redacted
from rtsx.storage.zarr import BUILD, COMPLETE

SECRET = "S3cret-Word-42"
ADDRESSES = [
    "https://me:{}@example.org/red.tif",
    "https://{}@example.org/red.tif",
    "s3://{}:{}@bucket/red.tif",
    "https://example.org/red.tif?sig={}&page=2",
    "https://example.org/red.tif?page=2&strange={}",
    "/vsicurl/https://me:{}@example.org/red.tif",
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("text", ["{}", "{} cannot be opened.", "no file ({}).", "['{}', 'b']", '{{"href": "{}"}}'])
def test_an_error_says_which_address_and_not_its_secret(address: str, text: str) -> None:
    error = InputNotFoundError(text.format(address.replace("{}", SECRET)))
    assert SECRET not in str(error)
    assert "red.tif" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == redacted(str(error))


@given(st.text(alphabet="abcX019+/=%:.-_~!", min_size=4) | st.text(alphabet="abcX019+=%@:.-_~!", min_size=4))
def test_whatever_a_password_is_made_of_it_is_left_out(password: str) -> None:
    told = redacted(f"https://me:x{password}9z@example.org/a.tif cannot be read")
    assert "9z" not in told
    assert told.endswith("example.org/a.tif cannot be read")


@pytest.mark.parametrize(
    "text",
    [
        "https://host:8080/x@2x.png",
        "abfs://container@account.dfs.core.windows.net/a.tif",
        "https://example.org/search?limit=100&datetime=2024-07-01",
        "tcp://10.0.0.1:8786 answers; a = b & c = d",
        "write it as ${NAME}, or $$ for a dollar",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_headers_and_entries_of_printed_dictionaries() -> None:
    told = redacted(
        f"Authorization: Bearer {SECRET}; {{'Authorization': 'x{SECRET}', 'aws_secret': \"{SECRET}\", 'a': 'b'}}"
    )
    assert SECRET not in told
    assert "'a': 'b'" in told


CUBE: dict[str, Any] = {
    "grid": {"crs": "EPSG:3413", "resolution": 10},
    "region": {"bbox": [-46, 89.985, -44, 89.995]},
    "sources": {"s": {"files": "", "layers": ["red"]}},
}


@pytest.mark.parametrize("address", [*ADDRESSES, "https://example.org/{}/red.tif"])
@pytest.mark.parametrize("name", ["RTSX_TOKEN", "RTSX_WORD"])
def test_a_stored_config_names_the_variable_and_works_where_it_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, name: str
) -> None:
    if name == "RTSX_WORD" and "/{}/" in address:
        return  # nothing says that such a part of a path is a secret
    secret = f"{SECRET}{len(address)}{name[-1]}"
    monkeypatch.setenv(name, secret)
    path = tmp_path / "cube.yaml"
    path.write_text(
        yaml.safe_dump({**CUBE, "sources": {"s": {"files": address.replace("{}", f"${{{name}}}"), "layers": ["red"]}}})
    )
    config = load_cube_config(path)
    stored = config.resolved().without_secrets().to_yaml()
    assert secret not in stored
    assert f"${{{name}}}" in stored
    again = tmp_path / "again.yaml"
    again.write_text(stored)
    assert load_cube_config(again) == config.resolved()
    assert secret not in json.dumps(describe_recipe(config.recipe()))
    assert secret not in str(CubeError(f"{config.recipe().sources[0].images} cannot be read"))
    monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match=f"variable {name} is not set"):
        load_cube_config(again)


def test_a_stored_config_says_what_was_left_out(tmp_path: Path) -> None:
    path = tmp_path / "cube.yaml"
    sources = {"s": {"files": f"https://me:{SECRET}@example.org/red.tif", "layers": ["red"]}}
    path.write_text(yaml.safe_dump({**CUBE, "sources": sources}))
    stored = load_cube_config(path).resolved().without_secrets().to_yaml()
    assert SECRET not in stored
    path.write_text(stored)
    with pytest.raises(ConfigError, match=r"image.*a secret was left out here .* write it as \$\{NAME\}"):
        load_cube_config(path)


def test_two_secrets_of_one_image_are_one_recipe(tmp_path: Path) -> None:
    """Signed addresses have another token every hour, and the campaign goes on."""
    described = []
    for token in ("first-12345", "second-6789"):
        path = tmp_path / "cube.yaml"
        sources = {"s": {"files": f"https://example.org/red.tif?sig={token}", "layers": ["red"]}}
        path.write_text(yaml.safe_dump({**CUBE, "sources": sources}))
        described.append(describe_recipe(load_cube_config(path).recipe()))
    assert described[0] == described[1]


def test_a_complaint_does_not_print_what_is_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "campaign.yaml"
    path.write_text(
        f"storage_options: {SECRET}\nname: a\nyear: 2024\noutput: o\nmodel: demo\ncube: {{sources: {{}}}}\n"
    )
    with pytest.raises(ConfigError, match="storage_options") as caught:
        load_campaign_config(path)
    assert SECRET not in str(caught.value)


def test_failures_and_warnings_have_none() -> None:
    error = ValueError(f"url: /red.tif?sig={SECRET} (Caused by ...)")
    failure = record_failure(error, cell=(0, 0), attempt=1, run="a")
    assert SECRET not in failure.to_json()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warn_missing(
            MissingImage("s", "a"), reason=f"https://me:{SECRET}@example.org is damaged.", error=CubeError("damaged")
        )
    assert SECRET not in str(told[0].message)


def test_what_a_worker_says_of_a_path_is_redacted_by_who_has_read_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = record_failure(
        ValueError("https://example.org/only-the-driver-knows-7/a.tif"), cell=(0, 0), attempt=1, run="a"
    )
    monkeypatch.setenv("PATH_TOKEN", "only-the-driver-knows-7")
    path = tmp_path / "cube.yaml"
    sources = {"s": {"files": "https://example.org/${PATH_TOKEN}/a.tif", "layers": ["red"]}}
    path.write_text(yaml.safe_dump({**CUBE, "sources": sources}))
    load_cube_config(path)
    queue = TaskQueue([(0, 0)], retry=RetrySpec(attempts=1))
    queue.take(1, 0.0)
    assert "only-the-driver" not in str(queue.worker_lost(failure, 0.0))


def test_a_stored_config_of_another_author_gets_no_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zarr

    monkeypatch.setenv("READERS_TOKEN", SECRET)
    sources = {"s": {"files": "https://example.org/${READERS_TOKEN}/a.tif", "layers": ["red"]}}
    root = zarr.create_group(tmp_path / "a.zarr", attributes={COMPLETE: True, BUILD: {"state": "complete"}})
    root.create_group("build", attributes={"index": {}, "config": yaml.safe_dump({**CUBE, "sources": sources})})
    config = config_of_built_cube(str(tmp_path / "a.zarr"), {})
    assert config is not None
    assert SECRET not in str(config.sources)
