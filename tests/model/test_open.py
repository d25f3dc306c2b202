""""""

import hashlib
import io
import json
import warnings
import zipfile

import fsspec
import numpy as np
import pytest
import safetensors.torch
import segmentation_models_pytorch
import torch
import yaml

from rtsx.errors import BundleError, UntrustedModelError
from rtsx.model import InputLayer, ModelBundle, build_network
from rtsx.model.open import check_output, smoke_test
from rtsx.synthetic import demo_bundle_path
from tests.ordering.file_server import FileServer

SAID = {
    "layers": ("red", "nir"),
    "mean": (0.1, 0.2),
    "std": (0.1, 0.1),
    "classes": ("a", "b"),
    "tile": 64,
    "overlap": 32,
}
TEN = ("ndvi", "blue", "green", "red", "nir", "relative_elevation", "slope")


def saved(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network("Unet", {"encoder_name": "mobilenet_v2", "in_channels": 7, "classes": 1})


def darts_checkpoint(network):
    model = {"arch": "Unet", "encoder_name": "mobilenet_v2", "in_channels": 7, "classes": 1}
    return {"config": {"model": model, "bands": list(TEN)}, "statedict": network.state_dict()}


class Net(torch.nn.Module):
    def __init__(self, classes=2, *, softmax=False):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(2, classes, 3, padding=1)
        self.softmax = softmax

    def forward(self, x):
        answer = self.conv(x)
        return answer.softmax(1) if self.softmax else answer


def scripted(module) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises torch.export
        torch.jit.save(torch.jit.trace(module, torch.rand(1, 2, 32, 32)), buffer)
    return buffer.getvalue()


def exported(module) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(module.eval(), (torch.rand(1, 2, 64, 64),)), buffer)
    return buffer.getvalue()


def onnx_bytes(given=("n", 2, 64, 64), returned=("n", 2, 64, 64), *, last=None):
    pytest.importorskip("onnx", reason="needs the onnx extra")
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), "weights")
    nodes = [helper.make_node("Conv", ["x", "weights"], ["raw"]), helper.make_node(last or "Identity", ["raw"], ["y"])]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", given), ("y", returned))
    ]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], initializer=[weights])
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def test_a_checkpoint_needs_no_keywords(tmp_path, network):
    (tmp_path / "rts.ckpt").write_bytes(saved(darts_checkpoint(network)))
    bundle = ModelBundle.open(tmp_path / "rts.ckpt")
    assert bundle.id == "rts"
    assert bundle.layers == TEN
    assert (bundle.preset, bundle.activation, bundle.classes) == ("darts-v2", "sigmoid", ("thaw_slump",))
    assert (bundle.tile, bundle.overlap, bundle.stride, bundle.threshold) == (1024, 256, 32, 0.5)
    assert bundle.provenance["format"] == "DN checkpoint"
    assert bundle.provenance["file"] == "rts.ckpt"
    assert len(str(bundle.provenance["sha256"])) == 64


def test_a_run_folder_is_found_around_its_checkpoint(tmp_path, network):
    run = tmp_path / "run7"
    (run / "checkpoints").mkdir(parents=True)
    model = {"architecture": "Unet", "encoder": "mobilenet_v2", "encoder_weights": "random", "input_channels": 7}
    sources = ["planet", "ndvi", "slope", "relative_elevation"]
    (run / "config.yml").write_text(yaml.safe_dump({"model": model, "data_sources": sources}))
    (run / "checkpoints" / "42.pt").write_bytes(saved(network.state_dict()))
    bundle = ModelBundle.open(run / "checkpoints" / "42.pt")
    assert (bundle.id, bundle.preset, bundle.layers) == ("run7-42", "tss-v1", TEN)


def test_a_bare_state_dict_takes_architecture_and_layers(tmp_path, network):
    path = tmp_path / "best.pt"
    path.write_bytes(saved(network.state_dict()))
    with pytest.raises(BundleError, match=r"say it, such as ModelBundle.open\('best.pt', architecture='Unet'"):
        ModelBundle.open(path)
    with pytest.raises(BundleError, match=r"does not say its mean, std, classes, tile, overlap"):
        ModelBundle.open(path, architecture="Unet", encoder="mobilenet_v2", layers=TEN)
    told = {"preset": "tss-v1", "classes": ("slump",), "tile": 64, "overlap": 32}
    bundle = ModelBundle.open(path, architecture="Unet", encoder="mobilenet_v2", layers=TEN, **told)
    assert (bundle.preset, bundle.layers) == ("tss-v1", TEN)
    with pytest.raises(BundleError, match=r"takes 7 channels, but 6 layers are named"):
        ModelBundle.open(path, architecture="Unet", encoder="mobilenet_v2", layers=TEN[:6], **told)


def test_keywords_count_more_than_the_checkpoint(tmp_path, network):
    (tmp_path / "rts.pt").write_bytes(saved(darts_checkpoint(network)))
    bundle = ModelBundle.open(tmp_path / "rts.pt", preset="tss-v1", tile=512, overlap=128, classes=("lake",), trim=8)
    assert (bundle.preset, bundle.inputs[1].clip) == ("tss-v1", None)
    assert (bundle.tile, bundle.overlap, bundle.classes, bundle.trim) == (512, 128, ("lake",), 8)
    with pytest.raises(BundleError, match=r"takes 7 channels, but 2 layers are named: \['red', 'nir'\]"):
        ModelBundle.open(tmp_path / "rts.pt", layers=("red", "nir"))
    with pytest.raises(BundleError, match=r"answers with 1 channels, but 2 classes are named"):
        ModelBundle.open(tmp_path / "rts.pt", classes=("a", "b"))


def test_any_url_opens(network):
    with fsspec.open("memory://opening/rts.pt", "wb") as file:
        file.write(saved(darts_checkpoint(network)))
    assert ModelBundle.open("memory://opening/rts.pt").layers == TEN


@pytest.mark.parametrize("suffix", ["pt", "ts", "jit"])
def test_torchscript_is_told_by_its_content(tmp_path, suffix):
    path = tmp_path / f"net.{suffix}"
    path.write_bytes(scripted(Net()))
    bundle = ModelBundle.open(path, **SAID, trust=True)
    assert bundle.source.framework == "torchscript"
    assert (bundle.activation, bundle.stride) == ("softmax", 32)


@pytest.mark.parametrize("write", [scripted, lambda module: onnx_bytes(), exported])
def test_all_that_is_missing_is_named_at_once(tmp_path, write):
    path = tmp_path / ("net.onnx" if write not in {scripted, exported} else "net.pt")
    path.write_bytes(write(Net()))
    with pytest.raises(BundleError, match=r"does not say its layers, mean, std, classes, .*such as ModelBundle.open\("):
        ModelBundle.open(path, trust=True)


def test_wrong_channels_and_classes_of_torchscript_are_refused(tmp_path):
    path = tmp_path / "net.ts"
    path.write_bytes(scripted(Net()))
    with pytest.raises(BundleError, match=r"cannot run on 3 layers"):
        ModelBundle.open(path, **{**SAID, "layers": ("a", "b", "c"), "mean": (0, 0, 0), "std": (1, 1, 1)}, trust=True)
    with pytest.raises(BundleError, match=r"Name as many classes"):
        ModelBundle.open(path, **{**SAID, "classes": ("a",)}, trust=True)


def test_probabilities_are_not_activated_behind_the_caller_s_back(tmp_path):
    path = tmp_path / "net.ts"
    path.write_bytes(scripted(Net(softmax=True)))
    with pytest.raises(BundleError, match=r"returns probabilities .* already, .*activation='none'"):
        ModelBundle.open(path, **SAID, trust=True)
    assert ModelBundle.open(path, **SAID, trust=True, activation="none").activation == "none"


def test_exported_programs_need_trust(tmp_path):
    path = tmp_path / "net.pt2"
    path.write_bytes(exported(Net()))
    with pytest.raises(UntrustedModelError, match=r"pass trust=True"):
        ModelBundle.open(path, **SAID)
    bundle = ModelBundle.open(path, **SAID, trust=True)
    assert bundle.source.framework == "export"


def test_onnx_brings_its_tile_and_activation(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx_bytes(last="Sigmoid"))
    bundle = ModelBundle.open(path, **{**SAID, "tile": None})
    assert (bundle.tile, bundle.activation) == (64, "none")
    path.write_bytes(onnx_bytes())
    assert ModelBundle.open(path, **SAID).activation == "softmax"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile": 128}, "takes tiles of 64 x 64 px only; got tile=128. Pass tile=64"),
        ({"classes": ("a", "b", "c")}, "answers with 2 channels, but 3 classes are named"),
        ({"layers": ("a",), "mean": (0,), "std": (1,)}, "takes 2 channels, but 1 layers are named"),
        ({"inputs": tuple(InputLayer(name=name) for name in "abc")}, "takes 2 channels, but 3 layers are named"),
        ({"std": (0, 1)}, "deviation of layer 'red' has to be above 0"),
        ({"preset": "v3", "mean": None, "std": None}, "preset has to be one of"),
    ],
)
def test_what_contradicts_an_onnx_file_is_refused(tmp_path, changes, message):
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx_bytes())
    with pytest.raises(BundleError, match=message):
        ModelBundle.open(path, **{**SAID, **changes})


FREE = ("n", None, None, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("a",)}, r"With classes \['a'\] .* it returned \(1, 2, 64, 64\)"),
        ({"layers": ("a",), "mean": (0,), "std": (1,)}, "cannot run on 1 layers and a tile of 64 px"),
    ],
)
def test_what_an_onnx_file_leaves_open_is_tried(tmp_path, capfd, changes, message):
    (tmp_path / "net.onnx").write_bytes(onnx_bytes(FREE, FREE))
    said = {**SAID, "tile": 64, "overlap": 32}
    assert ModelBundle.open(tmp_path / "net.onnx", **said).activation == "softmax"
    with pytest.raises(BundleError, match=message):
        ModelBundle.open(tmp_path / "net.onnx", **{**said, **changes})
    assert not capfd.readouterr().err


def test_onnx_weights_beside_the_file_are_found(tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs the onnx extra")
    model = onnx.load_from_string(onnx_bytes())
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    assert ModelBundle.open(tmp_path / "net.onnx", **SAID).n_parameters == 4
    (tmp_path / "net.data").unlink()
    with pytest.raises(BundleError, match=r"There is no file .*net.data"):
        ModelBundle.open(tmp_path / "net.onnx", **SAID)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("net.pt", b"", "It is empty"),
        ("net.pt", b"what is this", "neither a zip archive nor a pickle"),
        ("weights.safetensors", b"12345678", "holds weights without their description: there is no item.json"),
        ("net.safetensors", b"12345678", "cannot be read"),
    ],
)
def test_files_that_are_no_models_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError, match=message):
        ModelBundle.open(tmp_path / name)


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_a_folder_of_save_pretrained_opens(tmp_path, name):
    options = {"encoder_name": "resnet18", "in_channels": 2, "classes": 1, "decoder_attention_type": "scse"}
    trained = build_network("Unet", options)
    trained.save_pretrained(tmp_path / "hub")
    said = {**SAID, "classes": ("a",), "overlap": 32}
    bundle = ModelBundle.open(tmp_path / "hub" / name, **said)
    tiles = torch.randn(1, 2, 64, 64)
    with torch.no_grad():
        assert torch.equal(bundle.source.load_module()(tiles), trained(tiles))
    with pytest.raises(BundleError, match="weights do not fit UnetPlusPlus"):
        ModelBundle.open(tmp_path / "hub" / name, architecture="UnetPlusPlus", **said)
    (tmp_path / "hub" / "config.json").write_text("{")
    with pytest.raises(BundleError, match=r"config\.json"):
        ModelBundle.open(tmp_path / "hub" / name, **said)


def test_a_program_for_another_tile_says_which(tmp_path):
    program = torch.export.export(torch.nn.Conv2d(2, 2, 1), (torch.zeros(2, 2, 64, 64),))
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(BundleError, match=r"exported for tiles of 64 x 64 px; got tile=128\. Pass tile=64"):
        ModelBundle.open(tmp_path / "net.pt2", trust=True, **{**SAID, "tile": 128, "overlap": 32})


def test_places_without_a_model_are_refused(tmp_path):
    with pytest.raises(BundleError, match=r"There is no model at .*/none.pt. Check the path"):
        ModelBundle.open(tmp_path / "none.pt")
    with pytest.raises(
        BundleError, match=r"nowhere://net cannot be reached: .* What can be written to is a folder, s3://"
    ):
        ModelBundle.open("nowhere://net")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(BundleError, match=r"is no bundle: it has no item.json. Open one of its files: \['a.txt'\]"):
        ModelBundle.open(tmp_path)


@pytest.mark.parametrize("kind", ["smp", "torchscript", "export", "onnx"])
def test_keywords_over_a_saved_bundle_are_checked(tmp_path, kind):
    if kind == "smp":
        module = build_network("Unet", {"encoder_name": "resnet18", "in_channels": 2, "classes": 2})
        made = ModelBundle.from_module(module, **SAID)
    else:
        write, suffix = {"torchscript": (scripted, "ts"), "export": (exported, "pt2")}.get(kind, (None, "onnx"))
        (tmp_path / f"net.{suffix}").write_bytes(onnx_bytes() if write is None else write(Net()))
        made = ModelBundle.open(tmp_path / f"net.{suffix}", **SAID, trust=True)
    made.save(tmp_path / "saved")
    three = {"layers": tuple("abc"), "mean": (0, 0, 0), "std": (1, 1, 1)}
    for keywords, message in (
        ({"layers": ("a", "b")}, r"saved does not say its mean, std"),
        ({"mean": (0, 0)}, r"saved does not say its std"),
        (three, r"3 layers"),
        ({"classes": ("a", "b", "c")}, r"'a', 'b', 'c'"),
        ({"architecture": "Unet"}, r"architecture= and encoder= cannot change it"),
    ):
        with pytest.raises(BundleError, match=message):
            ModelBundle.open(tmp_path / "saved", **keywords, trust=True)
    assert ModelBundle.open(tmp_path / "saved", trust=True, classes=("c", "d")).classes == ("c", "d")


@pytest.mark.parametrize("kind", ["ts", "pt2", "onnx"])
def test_an_architecture_for_a_whole_network_is_refused(tmp_path, kind):
    path = tmp_path / f"net.{kind}"
    path.write_bytes({"ts": scripted, "pt2": exported, "onnx": lambda _: onnx_bytes()}[kind](Net()))
    with pytest.raises(BundleError, match=r"holds its network whole.*Leave them out"):
        ModelBundle.open(path, **SAID, encoder="resnet18", trust=True)


def small_bundle(folder):
    network = segmentation_models_pytorch.Unet(
        "resnet18", encoder_weights=None, in_channels=2, encoder_depth=3, decoder_channels=(16, 8, 4)
    )
    ModelBundle.from_module(network, layers=["red", "nir"], tile=64, overlap=32, id="n").save(folder)
    return json.loads((folder / "item.json").read_text())


HREFS = [
    "../good/weights.safetensors",
    "/etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1:9/x",
    "..",
    "",
    "a/../../x",
    "a\\b",
]


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_weights_lie_in_the_bundle_s_own_folder(tmp_path, scheme):
    item = small_bundle(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    place = "memory://hostile/bad" if scheme else str(tmp_path / "bad")
    for href in [*HREFS, "%2e%2e/good/weights.safetensors", str(tmp_path / "good" / "weights.safetensors")]:
        item["assets"]["weights"]["href"] = href
        fsspec.filesystem("memory" if scheme else "file").pipe(f"{place}/item.json", json.dumps(item).encode())
        with pytest.raises(BundleError, match=r"they have to lie in the same folder"):
            ModelBundle.open(place)


def test_a_link_to_the_described_weights_is_followed_and_no_other_file_is_told_of(tmp_path):
    """Caches of model hubs keep their files so; what is read is what the item describes, by its checksum."""
    small_bundle(tmp_path / "a")
    weights = tmp_path / "a" / "weights.safetensors"
    weights.rename(tmp_path / "blob")
    weights.symlink_to(tmp_path / "blob")
    assert ModelBundle.open(str(tmp_path / "a")).layers == ("red", "nir")
    secret = tmp_path / "secret"
    secret.write_bytes(b"topsecret")
    weights.unlink()
    weights.symlink_to(secret)
    with pytest.raises(BundleError, match=r"is not the file that item\.json describes") as told:
        ModelBundle.open(str(tmp_path / "a"))
    assert hashlib.sha256(b"topsecret").hexdigest()[:12] not in str(told.value)


@pytest.mark.parametrize("name", ["data/1", "code/__torch__.py", "bomb"])
def test_an_archive_that_inflates_is_not_unpacked(tmp_path, name):
    torch.save({"a": torch.zeros(4)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"a/{name}", bytes(40_000_000))
    for trust in (False, True):
        with pytest.raises(
            BundleError, match=r"would unpack to [\d,]+; four times its size and 16,000,000 bytes are the limit"
        ):
            ModelBundle.open(str(tmp_path / "a.pt"), trust=trust, layers=["red"], preset="tss-v1")


def test_a_signed_address_of_a_model_is_known_by_its_name(tmp_path):
    (tmp_path / "m.onnx").write_bytes(onnx_bytes())
    server = FileServer(tmp_path)
    try:
        bundle = ModelBundle.open(f"{server.url}/m.onnx?sig=a/b.pt", **SAID)
        assert bundle.provenance["file"] == "m.onnx"
    finally:
        server.close()


def test_the_model_that_ships_with_rtsx_opens_by_its_name(tmp_path, monkeypatch, network):
    monkeypatch.chdir(tmp_path)
    shipped = ModelBundle.open("demo")
    assert shipped == ModelBundle.open(demo_bundle_path())
    (tmp_path / "demo").mkdir()  # as `rtsx demo --out demo` makes it
    assert ModelBundle.open("demo") == shipped
    (tmp_path / "demo").rmdir()
    (tmp_path / "demo").write_bytes(saved(darts_checkpoint(network)))  # what is there by that name counts more
    assert ModelBundle.open("demo").digest != shipped.digest


CLASSES = ("target",)


class OfOneSize(torch.nn.Module):
    def forward(self, x):
        return x[:, :1].reshape(-1, 1, 256, 256)


class Answering(torch.nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


def test_a_small_tile_is_tried_first_and_the_own_one_next():
    assert smoke_test(torch.nn.Conv2d(2, 1, 1), n_layers=2, classes=CLASSES, tile=1024, stride=32).shape[-1] == 128
    assert smoke_test(OfOneSize(), n_layers=2, classes=CLASSES, tile=256, stride=1).shape[-1] == 256
    assert smoke_test(torch.nn.Conv2d(2, 1, 1), n_layers=2, classes=CLASSES, tile=16, stride=1).shape[-1] == 16


class OfOneAnswer(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.interpolate(x[:, :1, ::2, ::2], size=(256, 256))


def test_an_answer_of_one_size_is_compared_at_the_own_tile():
    network = OfOneAnswer()
    assert smoke_test(network, n_layers=2, classes=CLASSES, tile=256, stride=2).shape == (1, 1, 256, 256)
    with pytest.raises(BundleError, match=r"tiles \(1, 2, 512, 512\) .* returned \(1, 1, 256, 256\)"):
        smoke_test(network, n_layers=2, classes=CLASSES, tile=512, stride=2)


class OfBytes(torch.nn.Module):
    def forward(self, x):
        assert x.dtype == torch.uint8, f"expected uint8, got {x.dtype}"
        return x[:, :1].float()


@pytest.mark.parametrize("network", [torch.nn.Conv2d(3, 1, 1).half(), torch.nn.Conv2d(3, 1, 1).double(), OfBytes()])
def test_a_network_of_other_numbers_is_refused(network):
    with pytest.raises(BundleError, match=r"cannot run on 3 layers .*Tiles come in float32"):
        smoke_test(network, n_layers=3, classes=CLASSES, tile=64, stride=1)


def test_a_wrong_number_of_layers_is_refused():
    with pytest.raises(BundleError, match=r"cannot run on 4 layers and a tile of 64 px: .*Check that the layers"):
        smoke_test(torch.nn.Conv2d(3, 1, 1), n_layers=4, classes=CLASSES, tile=64, stride=1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: (x[:, :1], x), "has to return one tensor .*; it returned a tuple"),
        (lambda x: x[:, :2], r"With classes \['target'\] .* it returned \(1, 2, 64, 64\).*Name as many classes"),
        (lambda x: x[:, :1, ::4, ::4], r"it returned \(1, 1, 16, 16\).* at the resolution of its input"),
        (lambda x: x[:, 0], r"it returned \(1, 64, 64\)\. Let it keep the dimension of its one class"),
        (lambda x: x[:, :1].permute(0, 2, 3, 1), r"\(1, 64, 64, 1\)\. Let it return its classes second"),
        (lambda x: x * torch.ones(1, 1, 1, 3) if x.shape[-1] == 3 else 1 / 0, "takes its channels last"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(answer, message):
    with pytest.raises(BundleError, match=message):
        smoke_test(Answering(answer), n_layers=3, classes=CLASSES, tile=64, stride=1)


INPUTS = tuple(InputLayer.from_statistics(name, mean=0.1, std=0.05) for name in ("red", "green", "nir"))


def check(answer, *, activation=None, channels=2, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, channels, 1)
        )
    network = torch.nn.Sequential(head, Answering(answer)).eval()
    check_output(network, inputs=INPUTS, side=32, activation=activation, described="The file")


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: torch.nn.functional.dropout(x, 0.2, training=True),
        lambda x: x + 0.01 * torch.randn_like(x),
        lambda x, seen=[]: x + 0.1 * len(seen.append(0) or seen),
    ],
    ids=["dropout", "noise", "memory"],
)
def test_a_network_that_answers_otherwise_the_second_time_is_refused(answer):
    with pytest.raises(
        BundleError, match=r"other numbers for the same tile the second time .*Let evaluation switch that off"
    ):
        check(answer)


@pytest.mark.parametrize("activation", [None, "sigmoid", "softmax", "none"])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x - x.mean(), "comes with another one .*normalises over the whole batch, or mixes"),
        (lambda x: (x - x.mean((0, 2, 3), keepdim=True)) / x.std(), "comes with another one"),
        (lambda x: x.reshape(1, -1, 32, 32)[:, :2], r"returns \(1, 2, 32, 32\) for two"),
        (lambda x: x.reshape(1, 2, 32, 32), "takes one tile at a time, and fails on two: .*for a batch of one"),
    ],
)
def test_a_tile_is_answered_as_if_it_were_alone(answer, message, activation):
    def probable(x):
        return answer(x).sigmoid() if activation == "none" else answer(x)

    with pytest.raises(BundleError, match=message):
        check(probable, activation=activation)


@pytest.mark.parametrize("activation", [None, "sigmoid", "softmax", "none"])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x[:, :1].softmax(1), "returns 1 everywhere"),
        (lambda x: x.softmax(0), "returns 1 everywhere"),
        (lambda x: x.softmax(2), "sum to 1 over each column"),
        (lambda x: x.softmax(-1), "sum to 1 over each row"),
    ],
)
def test_a_softmax_goes_over_classes(answer, message, activation):
    with pytest.raises(BundleError, match=rf"{message}.*softmax that does not go over its classes"):
        check(answer, activation=activation)


def resized(x):
    return torch.nn.functional.interpolate(x[..., ::2, ::2], scale_factor=2, mode="bicubic")


PROBABILITIES = {
    "sigmoid": lambda x: x.sigmoid(),
    "softmax": lambda x: x.softmax(1),
    "softmax, one class": lambda x: x.softmax(1)[:, 1:],
    "hardsigmoid": torch.nn.functional.hardsigmoid,
    "clipped": lambda x: x.sigmoid().clamp(1e-4, 1 - 1e-4),
    "half": lambda x: x.sigmoid().half().float(),
    "mean of two": lambda x: (x.sigmoid() + x.flip(-1).sigmoid()) / 2,
    "resized": lambda x: torch.nn.functional.interpolate(x[..., ::2, ::2].softmax(1), scale_factor=2, mode="bilinear"),
    "rare": lambda x: (x - x.abs().amax((1, 2, 3), keepdim=True) - 9).sigmoid(),
    "complement": lambda x: 1 - x.softmax(1)[:, :1],
}


@pytest.mark.parametrize("activation", [None, "sigmoid", "softmax"])
@pytest.mark.parametrize("last", PROBABILITIES)
def test_probabilities_are_not_activated_a_second_time(last, activation):
    with pytest.raises(BundleError, match=r"The file returns probabilities.* already, .*Pass activation='none'"):
        check(PROBABILITIES[last], activation=activation)
    check(PROBABILITIES[last], activation="none")


@pytest.mark.parametrize(
    ("answer", "activation", "message"),
    [
        (lambda x: x.tanh(), None, r"numbers of a tanh .*\(\(x \+ 1\) / 2\).*activation='none'"),
        (lambda x: 100 * x.sigmoid(), None, r"probabilities times 100 .*\(x / 100\)"),
        (lambda x: 100 * x.softmax(1), "softmax", r"percentages .*\(x / 100\)"),
        (lambda x: 255 * x[:, :1].sigmoid(), "sigmoid", r"probabilities times 255"),
        (lambda x: x.log_softmax(1), "sigmoid", r"logarithms of probabilities .*activation='softmax'"),
        (
            lambda x: x[:, :1].log_softmax(1) + 1,
            None,
            r"returns 1 everywhere.*a softmax that does not go over its classes",
        ),
        (lambda x: x.log_softmax(1)[:, 1:], None, r"logarithms of probabilities .*x.exp\(\).*activation='none'"),
        (lambda x: torch.nn.functional.logsigmoid(x), "sigmoid", r"numbers never above 0"),
        (lambda x: x[:, :1].relu(), None, r"numbers never below 0 .*such as a ReLU"),
        (lambda x: x.relu(), "sigmoid", r"numbers never below 0"),
        (lambda x: torch.nn.functional.softplus(x[:, :1]), "sigmoid", r"numbers never below 0"),
        (lambda x: 1000 * x[:, :1].sigmoid(), None, r"numbers never below 0 .*a factor"),
        (lambda x: 65535 * x[:, :1].sigmoid(), None, r"numbers never below 0"),
        (lambda x: resized(x[:, :1].sigmoid()), None, r"probabilities that were resized .*x.clamp\(0, 1\)"),
        (lambda x: resized(x.softmax(1)), None, r"probabilities that were resized"),
        (lambda x: x.argmax(1, keepdim=True), None, r"whole numbers \(0, 1; torch.int64\), which are class numbers"),
        (lambda x: x.argmax(1, keepdim=True), "none", r"whole numbers \(0, 1; torch.int64\)"),
        (lambda x: x[:, :1] > 0, "none", r"torch.bool"),
        (lambda x: x.argmax(1, keepdim=True).float(), None, r"whole numbers \(0, 1; torch.float32\)"),
        (lambda x: 2.0 * x.argmax(1, keepdim=True), "none", r"whole numbers \(0, 2; torch.float32\)"),
        (lambda x: (100 * x.sigmoid()).to(torch.uint8), None, r"torch.uint8"),
    ],
)
def test_other_numbers_than_scores_are_refused(answer, activation, message):
    with pytest.raises(BundleError, match=message):
        check(answer, activation=activation)


SCORES = {
    "logits": lambda x: x,
    "logits near one half": lambda x: 0.01 * x + 0.5,
    "one logit": lambda x: x[:, :1],
    "logarithms": lambda x: x.log_softmax(1),
    "relu": lambda x: x.relu(),
    "elu": torch.nn.functional.elu,
    "one logit, capped": lambda x: x[:, :1].clamp(-5, 5),
    "leaky": lambda x: torch.nn.functional.leaky_relu(x, 0.01),
    "normalised": lambda x: torch.nn.functional.instance_norm(x),
    "capped": lambda x: 30 * (x / 30).tanh(),
    "constant": lambda x: 0 * x + 0.5,
    "half": lambda x: x.half().float(),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("last", SCORES)
def test_scores_are_not_taken_for_probabilities(last, seed):
    check(SCORES[last], seed=seed)


@pytest.mark.parametrize("seed", range(20))
def test_a_tiny_network_with_random_weights_is_not_refused(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = torch.nn.Conv2d(3, 1, 1)
    check_output(network, inputs=INPUTS, side=32, activation=None, described="The file")


@pytest.mark.parametrize("architecture", ["Unet", "FPN", "DeepLabV3Plus", "Segformer"])
def test_untrained_networks_of_the_library_return_scores(architecture):
    network = build_network(architecture, {"encoder_name": "resnet18", "in_channels": 3, "classes": 1})
    check_output(network, inputs=INPUTS, side=64, activation=None, described="The file")


def test_a_program_exported_for_a_number_of_tiles_gets_that_number():
    program = torch.export.export(torch.nn.Conv2d(2, 1, 1), (torch.rand(3, 2, 64, 64),)).module()
    assert smoke_test(program, n_layers=2, classes=CLASSES, tile=64, stride=1).shape == (3, 1, 64, 64)


@pytest.mark.parametrize("prefix", ["", "module.model."])
def test_safetensors_alone_open_where_the_network_is_said(tmp_path, prefix):
    state = {
        f"{prefix}{name}": one
        for name, one in build_network("Unet", {"encoder_name": "efficientnet-b0", "in_channels": 2})
        .state_dict()
        .items()
    }
    safetensors.torch.save_file(state, tmp_path / "net.safetensors")
    said = {**SAID, "classes": ("a",), "overlap": 32}
    opened = ModelBundle.open(tmp_path / "net.safetensors", architecture="unet", encoder="efficientnet-b0", **said)
    assert opened.n_parameters == sum(
        one.numel() for name, one in state.items() if not name.endswith(("mean", "var", "tracked"))
    )
    with pytest.raises(BundleError, match="does not say what its network is"):
        ModelBundle.open(tmp_path / "net.safetensors", **said)
