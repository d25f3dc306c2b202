import json

import jsonschema
import numpy as np
import pystac
import pytest
import referencing
import torch
from pystac.extensions.mlm import MLMExtension
from pystac.validation.local_validator import get_local_schema_cache
from stac_model.schema import MLModelProperties

from rtsx.errors import BundleError
from rtsx.model import ModelBundle
from rtsx.model.bundle_io import _mlm_name, read_item
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
