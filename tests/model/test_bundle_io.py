""""""

import errno
import json
from pathlib import Path

import fsspec
import jsonschema
import numpy as np
import pystac
import pytest
import referencing
import torch
from pystac.extensions.mlm import MLMExtension
from pystac.validation.local_validator import get_local_schema_cache
from stac_model.schema import MLModelProperties

from rtsx.errors import BundleError, OutputExistsError, OutputNotWritableError
from rtsx.model import ModelBundle
from rtsx.model.bundle_io import _mlm_name, read_item, write_folder
from rtsx.model.metadata import Reach

ITEM = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"


def bundle(**changes):
    torch.manual_seed(0)
    settings = {"layers": ("red", "slope"), "preset": "darts-v2", "tile": 64, "overlap": 32, "stride": 1, "id": "net 1"}
    return ModelBundle.from_module(torch.nn.Conv2d(2, 1, 1), **{**settings, **changes})


def three_classes():
    return ModelBundle.from_module(
        torch.nn.Conv2d(2, 3, 1),
        layers=("red", "nir"),
        mean=(0.2, 0.3),
        std=(0.1, 0.1),
        classes=("clear sky", "cloud", "shadow"),
        tile=64,
        overlap=32,
        stride=1,
    )


def written(model, tmp_path):
    model.save(tmp_path / "bundle")
    return json.loads((tmp_path / "bundle" / "item.json").read_text())


def stac_validator():
    """Validator of a STAC Item with every schema from the disk: an unknown reference fails instead of downloading."""
    resources = [
        (uri, referencing.Resource.from_contents(document)) for uri, document in get_local_schema_cache().items()
    ]
    return jsonschema.Draft7Validator({"$ref": ITEM}, registry=referencing.Registry().with_resources(resources))


def is_within(own, other):
    """Whether everything that `own` says is said by `other` too."""
    if isinstance(own, dict):
        return all(name in other and is_within(value, other[name]) for name, value in own.items())
    if isinstance(own, list):
        return len(own) == len(other) and all(map(is_within, own, other))
    return own == other


@pytest.mark.parametrize("make", [bundle, three_classes])
def test_it_is_a_valid_stac_item(make, tmp_path):
    item = written(make(), tmp_path)
    validator = stac_validator()
    assert [error.message for error in validator.iter_errors(item)] == []
    del item["assets"]
    assert [error.message for error in validator.iter_errors(item)] != []  # the validator does look


@pytest.mark.parametrize("make", [bundle, three_classes])
def test_it_is_a_valid_mlm_model(make, tmp_path):
    item = written(make(), tmp_path)
    model = MLModelProperties.model_validate(item["properties"])
    # Written out again, what the MLM authors' own classes understood is what the file says.
    again = json.loads(model.model_dump_json(by_alias=True))
    own = {name: value for name, value in item["properties"].items() if name.startswith("mlm:")}
    assert is_within(own, again)
    # What the schema says about assets: one with the role, and only that one with an artifact type.
    roles = {name: asset["roles"] for name, asset in item["assets"].items() if "mlm:artifact_type" in asset}
    assert roles == {"weights": ["mlm:model", "mlm:weights"]}
    # Bands of the input are a dimension of it, and are declared among the item's bands.
    declared = [band["name"] for band in item["properties"]["bands"]]
    assert item["properties"]["mlm:input"][0]["bands"] == declared
    assert "bands" in item["properties"]["mlm:input"][0]["input"]["dim_order"]


def test_pystac_reads_it_as_a_model(tmp_path):
    item = pystac.Item.from_dict(written(three_classes(), tmp_path))
    model = MLMExtension.ext(item)
    assert model.mlm_name == "Conv2d"
    assert model.total_parameters == 9
    assert model.input[0].bands == ["red", "nir"]
    assert model.output[0].result.shape == [-1, 3, 64, 64]


def test_clipped_scaling_is_told_as_an_expression(tmp_path):
    scaling = written(bundle(), tmp_path)["properties"]["mlm:input"][0]["value_scaling"]
    assert {entry["type"] for entry in scaling} == {"processing"}
    red = [eval(scaling[0]["expression"], {"numpy": np, "x": x}) for x in (-0.3, -0.1, 0.2, 0.9)]
    assert red == pytest.approx([0, 0, 0.5, 1])


def test_everything_comes_back(tmp_path):
    model = bundle(trim=4, threshold=0.3, fill=0.5, provenance={"region": "Lena", "epochs": [1, 2]})
    model = model.with_reach(Reach(stride=1, radius=9, depends_on_tile=True))
    model.save(tmp_path / "bundle")
    again = ModelBundle.open(tmp_path / "bundle", trust=True)
    assert again == model
    assert again.reach == Reach(stride=1, radius=9, depends_on_tile=True)
    assert (again.trim, again.threshold, again.fill, again.preset) == (4, 0.3, 0.5, "darts-v2")
    assert again.inputs == model.inputs
    assert again.provenance == {"region": "Lena", "epochs": [1, 2]}


@pytest.mark.parametrize(
    ("name", "expected"), [("net 1", "net 1"), ("7-layers", "model-7-layers"), ("ab", "model-ab"), ("é", "model")]
)
def test_names_are_bent_to_what_mlm_allows(name, expected):
    assert _mlm_name(name) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda item: item.pop("assets"), r"item.json lacks or garbles KeyError\('assets'\)"),
        (lambda item: item["properties"].pop("rtsx:format"), "describes a model that rtsx did not save.*with layers="),
        (lambda item: item["properties"].update({"rtsx:format": 9}), "written by a newer rtsx .format 9"),
        (lambda item: item["properties"].pop("rtsx:tile"), r"lacks or garbles KeyError\('rtsx:tile'\)"),
    ],
)
def test_foreign_and_damaged_files_are_refused(change, message, tmp_path):
    item = written(bundle(), tmp_path)
    change(item)
    with pytest.raises(BundleError, match=message):
        read_item(json.dumps(item).encode(), where="item.json")


def test_no_json_is_refused():
    with pytest.raises(BundleError, match=r"item.json is no JSON.*restore it from a copy"):
        read_item(b"{", where="item.json")


FILES = {"weights.safetensors": b"w", "item.json": b"{}"}


def test_a_local_folder_appears_whole(tmp_path):
    write_folder(str(tmp_path / "deep" / "bundle"), FILES, overwrite=False)
    assert {path.name: path.read_bytes() for path in (tmp_path / "deep" / "bundle").iterdir()} == FILES
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["bundle"]


def test_what_exists_is_kept_unless_told(tmp_path):
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "item.json").write_text("mine")
    (target / "model.onnx").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"bundle exists already. .*overwrite=True"):
        write_folder(str(target), FILES, overwrite=False)
    assert (target / "item.json").read_text() == "mine"
    write_folder(str(target), FILES, overwrite=True)
    assert sorted(path.name for path in target.iterdir()) == sorted(FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    target = tmp_path / "bundle"
    write_folder(str(target), {"item.json": b"old"}, overwrite=False)
    written = []

    def full_disk(path, content):
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        return len(content)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OutputNotWritableError, match=r"bundle was not written: .*No space left.*Free space") as caught:
        write_folder(str(target), FILES, overwrite=True)
    assert isinstance(caught.value.__cause__, OSError)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (target / "item.json").read_bytes() == b"old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_remote_place_that_fails_while_it_is_written_is_no_defect(monkeypatch, number):
    def fails(*_, **__):
        raise OSError(number, "the service says no")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "pipe_file", fails)
    with pytest.raises(
        OutputNotWritableError,
        match=r"bundle cannot be written: .*the service says no.*Free space|bundle cannot be written: .*the service says no.*try again",
    ):
        write_folder(f"memory://folder-test/{number}/bundle", FILES, overwrite=False)


@pytest.mark.parametrize("place", ["local", "memory"])
@pytest.mark.parametrize(
    ("name", "message"),
    [("chapter.txt", r"is no bundle \(it has no item.json\)"), ("item.json", r"holds more than a bundle: \['notes'\]")],
)
def test_what_is_more_than_a_bundle_is_never_replaced(tmp_path, place, name, message):
    target = str(tmp_path / "thesis") if place == "local" else f"memory://folder-test/{name}/thesis"
    fs, inside = fsspec.core.url_to_fs(target)
    fs.makedirs(inside, exist_ok=True)
    for file in (name, "notes"):
        fs.pipe_file(f"{inside}/{file}", b"years of work")
    with pytest.raises(OutputExistsError, match=message):
        write_folder(target, FILES, overwrite=True)
    assert fs.cat_file(f"{inside}/notes") == b"years of work"


def test_a_file_is_never_replaced_by_a_folder(tmp_path):
    (tmp_path / "bundle").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"is a file, not a bundle"):
        write_folder(str(tmp_path / "bundle"), FILES, overwrite=True)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputNotWritableError, match=r"file/bundle cannot be written: .*may write to"):
        write_folder(str(tmp_path / "file" / "bundle"), FILES, overwrite=False)
    with pytest.raises(BundleError, match=r"nowhere://bundle cannot be reached: .*What can be written to"):
        write_folder("nowhere://bundle", FILES, overwrite=False)


def test_an_object_store_gets_the_mark_last(monkeypatch):
    fs = fsspec.filesystem("memory")
    order = []
    write_once = type(fs).pipe_file

    def recording(self, path, value, **keywords):
        order.append(path.rpartition("/")[2])
        return write_once(self, path, value, **keywords)

    monkeypatch.setattr(type(fs), "pipe_file", recording)
    write_folder("memory://folder-test/bundle", FILES, overwrite=False)
    assert order == list(FILES)
    with pytest.raises(OutputExistsError, match=r"exists already"):
        write_folder("memory://folder-test/bundle", FILES, overwrite=False)
    write_folder("memory://folder-test/bundle", {"item.json": b"new"}, overwrite=True)
    assert fs.ls("/folder-test/bundle", detail=False) == ["/folder-test/bundle/item.json"]
