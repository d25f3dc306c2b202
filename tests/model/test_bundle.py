import json
import pickle
import re

import cloudpickle
import pytest
import torch

from rtsx.errors import BundleError, OutputExistsError
from rtsx.model import InputLayer, ModelBundle, Reach, build_network

EAGER = {"device": "cpu", "precision": "float32", "backend": "eager"}
SAID = {"layers": ("red", "nir"), "mean": (0.1, 0.2), "std": (0.1, 0.1), "tile": 64, "overlap": 32}


def convolution(classes=1):
    torch.manual_seed(0)
    return torch.nn.Conv2d(2, classes, 3, padding=1)


def bundle(module=None, **changes):
    return ModelBundle.from_module(module or convolution(), **{**SAID, "stride": 1, **changes})


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    network = build_network("Unet", {"encoder_name": "resnet18", "in_channels": 2, "classes": 1})
    return ModelBundle.from_module(network, **SAID, trim=4, threshold=0.4, temperature=1.25, pixel_m=3.0, id="unet")


def tiles(n=2):
    return torch.rand(n, 2, 64, 64, generator=torch.Generator().manual_seed(1))


def test_a_module_becomes_a_bundle_with_plain_defaults():
    model = bundle()
    assert model.layers == ("red", "nir")
    assert model.inputs[0] == InputLayer.from_statistics("red", mean=0.1, std=0.1)
    assert (model.classes, model.activation, model.threshold, model.fill) == (("target",), "sigmoid", 0.5, 0.0)
    assert (model.trim, model.reach, model.preset, model.bn_mode) == (None, None, None, "eval")
    assert (model.id, model.n_parameters) == ("Conv2d", 19)
    with torch.no_grad():
        torch.testing.assert_close(model.network(**EAGER)(tiles()), convolution()(tiles()).sigmoid())


def test_several_classes_are_told_apart_by_softmax():
    model = bundle(convolution(3), classes=("clear", "cloud", "shadow"))
    assert model.activation == "softmax"
    answer = model.network(**EAGER)(tiles())
    torch.testing.assert_close(answer.sum(dim=1), torch.ones(2, 64, 64))


def test_layers_without_scaling_go_in_as_they_are():
    assert bundle(mean=None, std=None).inputs == (InputLayer(name="red"), InputLayer(name="nir"))


def test_a_network_of_the_library_knows_its_stride(unet):
    assert unet.stride == 32
    assert unet.source.architecture == "Unet/resnet18"


def test_saved_and_opened_it_is_the_same(tmp_path, unet):
    unet.save(tmp_path / "unet")
    again = ModelBundle.open(tmp_path / "unet")
    assert sorted([path.name for path in (tmp_path / "unet").iterdir()]) == ["item.json", "weights.safetensors"]
    assert again == unet
    assert again.digest == unet.digest
    assert hash(again) == hash(unet)
    module = again.source.load_module()
    with torch.no_grad():
        assert torch.equal(module(tiles()), unet.source.load_module()(tiles()))
    assert again.network(**EAGER) is unet.network(**EAGER)
    assert ModelBundle.open(tmp_path / "unet" / "item.json") == unet
    assert ModelBundle.open(tmp_path / "unet" / "weights.safetensors") == unet


def test_any_module_is_saved_as_an_exported_program(tmp_path):
    model = bundle()
    model.save(tmp_path / "own")
    again = ModelBundle.open(tmp_path / "own", trust=True)
    assert again == model
    answer = again.network(**EAGER)(tiles(5))
    torch.testing.assert_close(answer, model.network(**EAGER)(tiles(5)))
    again.save(tmp_path / "twice")
    assert ModelBundle.open(tmp_path / "twice", trust=True).digest == model.digest


def test_it_lives_in_an_object_store_too(unet):
    unet.save("memory://bundles/unet")
    assert ModelBundle.open("memory://bundles/unet") == unet
    with pytest.raises(OutputExistsError, match=r"memory://bundles/unet exists already"):
        unet.save("memory://bundles/unet")
    unet.save("memory://bundles/unet", overwrite=True)


def test_an_existing_path_is_kept(tmp_path, unet):
    unet.save(tmp_path / "unet")
    with pytest.raises(OutputExistsError, match=r"pass overwrite=True"):
        unet.save(tmp_path / "unet")
    unet.with_reach(Reach(stride=32, radius=90, depends_on_tile=False)).save(tmp_path / "unet", overwrite=True)
    assert ModelBundle.open(tmp_path / "unet").reach.radius == 90


def test_a_module_that_cannot_be_saved_leaves_nothing(tmp_path):
    class Branching(torch.nn.Module):
        def forward(self, x):
            return x[:, :1] if x.sum().item() > 0 else x[:, 1:]

    with pytest.raises(BundleError, match=r"Use the bundle in memory"):
        bundle(Branching()).save(tmp_path / "own")
    assert [path.name for path in tmp_path.iterdir()] == []


def test_exchanged_and_truncated_weights_are_refused(tmp_path, unet):
    unet.save(tmp_path / "unet")
    weights = tmp_path / "unet" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(BundleError, match=r"is not the file that item.json describes: .*copy the bundle again"):
        ModelBundle.open(tmp_path / "unet")
    weights.unlink()
    with pytest.raises(BundleError, match=r"There is no file .*weights.safetensors"):
        ModelBundle.open(tmp_path / "unet")


def test_an_unknown_kind_of_network_is_refused(tmp_path, unet):
    unet.save(tmp_path / "unet")
    path = tmp_path / "unet" / "item.json"
    item = json.loads(path.read_text())
    item["properties"]["rtsx:network"]["kind"] = "tensorflow"
    path.write_text(json.dumps(item))
    with pytest.raises(BundleError, match=r"Unknown kind of network 'tensorflow'"):
        ModelBundle.open(tmp_path / "unet")


def test_keywords_change_an_opened_bundle_and_its_digest(tmp_path, unet):
    unet.save(tmp_path / "unet")
    changed = ModelBundle.open(tmp_path / "unet", threshold=0.7, tile=128)
    assert (changed.threshold, changed.tile, changed.overlap, changed.trim) == (0.7, 128, 32, 4)
    assert changed.digest != unet.digest


@pytest.mark.parametrize("classes", [("Background", "a"), ("a", "_bg_")])
def test_background_has_one_name_but_in_bundles_that_are_stored(tmp_path, monkeypatch, classes):
    first = next(name for name in classes if name != "a")
    cured = [{"a": "a"}.get(name, "background") for name in classes]
    message = re.escape(f"Class {first!r} is what none of") + f".*{re.escape(f'pass classes={cured}')}"
    with pytest.raises(BundleError, match=message):
        bundle(convolution(2), classes=classes)
    with monkeypatch.context() as before:
        before.setattr("rtsx.model.bundle.check_background", lambda classes: None)
        stored = bundle(convolution(2), classes=classes)
    stored.save(tmp_path / "bundle")
    again = ModelBundle.open(tmp_path / "bundle", trust=True, threshold=0.5)
    assert again.classes == classes
    assert again.digest == stored.digest
    assert ModelBundle.open(tmp_path / "bundle", trust=True, classes=cured).classes == tuple(cured)
    with pytest.raises(BundleError, match=message):
        ModelBundle.open(tmp_path / "bundle", trust=True, classes=classes)


def test_every_setting_that_changes_answers_is_in_the_digest():
    digest = bundle().digest
    assert bundle(id="other", provenance={"a": 1}).digest == digest
    assert bundle().with_reach(Reach(stride=1, radius=1, depends_on_tile=False)).digest == digest
    changes = [
        {"mean": (0.1, 0.3)},
        {"layers": ("red", "green")},
        {"activation": "none"},
        {"classes": ("lake",)},
        {"threshold": 0.6},
        {"tile": 96},
        {"overlap": 16},
        {"trim": 2},
        {"stride": 2},
        {"fill": -1.0},
        {"temperature": 1.5},
    ]
    assert len({digest, *(bundle(**change).digest for change in changes)}) == len(changes) + 1


def test_reach_and_name_count_for_equality():
    assert bundle() == bundle()
    assert bundle() != bundle(id="other")
    assert bundle() != bundle().with_reach(Reach(stride=1, radius=1, depends_on_tile=False))
    assert bundle() != "bundle"


def test_a_bundle_of_a_local_class_can_be_sent_to_workers():
    class Own(torch.nn.Module):
        def forward(self, x):
            return x[:, :1] * 2

    model = bundle(Own())
    sent = pickle.loads(cloudpickle.dumps(model))
    assert sent == model
    assert sent.digest == model.digest
    torch.testing.assert_close(sent.network(**EAGER)(tiles()), (tiles()[:, :1] * 2).sigmoid())


def test_batch_statistics_reproduce_networks_that_were_never_put_in_evaluation(tmp_path):
    torch.manual_seed(0)
    module = torch.nn.Sequential(convolution(4), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 1, 1)).eval()
    stored, batch = bundle(module), bundle(module, bn_mode="batch")
    assert stored.digest != batch.digest
    module.train()
    with torch.no_grad():
        expected = torch.cat([module(tile[None]) for tile in tiles(3)]).sigmoid()
    torch.testing.assert_close(batch.network(**EAGER)(tiles(3)), expected)
    assert (stored.network(**EAGER)(tiles(3)) - expected).abs().max() > 0.01
    with pytest.raises(BundleError, match=r"bn_mode has to be 'eval' or 'batch'; got 'train'"):
        bundle(module, bn_mode="train")


def test_opening_leaves_the_caller_s_random_numbers_alone(tmp_path, unet):
    unet.save(tmp_path / "unet")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    ModelBundle.open(tmp_path / "unet").source.load_module()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overlap": 64}, r"overlap has to be at least 0 and below the tile of 64 px; got 64"),
        ({"classes": ()}, r"at least one class"),
        ({"layers": ("red", "red")}, r"each once; got \['red', 'red'\]"),
        ({"mean": (0.1,)}, r"layers, mean and std have to be of one length; got 2, 1 and 2"),
        ({"mean": None}, r"does not say its mean"),
        (
            {"layers": None, "mean": None, "std": None},
            r"The module Conv2d does not say its layers, mean, std\. Pass them, such as ModelBundle\.from_module\(module, layers=",
        ),
        ({"layers": ("a", "b", "c"), "mean": (0, 0, 0), "std": (1, 1, 1)}, r"cannot run on 3 layers"),
        ({"pixel_m": 0.0}, r"ground length of a pixel, above 0 m; got 0.0"),
        ({"temperature": 0.0}, r"temperature has to be a finite number above 0; got 0.0"),
        ({"temperature": 2.0, "activation": "none"}, r"Leave temperature out"),
        ({"classes": ("a", "b")}, r"With classes \['a', 'b'\] .*Name as many classes"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(BundleError, match=message):
        bundle(**changes)


def test_it_prints_as_one_line():
    assert str(bundle()) == ("Conv2d: Conv2d, 2 layers (red, nir) to target by sigmoid, tiles of 64 px with overlap 32")
