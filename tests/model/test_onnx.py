import re
import sys

import numpy as np
import pytest
import torch

from rtsx.errors import BundleError, MissingExtraError
from rtsx.model.onnx import OnnxShapes, OnnxSource, open_onnx

onnx = pytest.importorskip("onnx", reason="needs the onnx extra")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402 - after the check that it is there


def model(given=("n", 3, "h", "w"), returned=("n", 2, "h", "w"), *, last=None, elem=TensorProto.FLOAT, inputs=1):
    weights = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "weights")
    nodes = [helper.make_node("Conv", ["x0", "weights"], ["y" if last is None else "raw"])]
    if last == "Softmax":
        nodes += [helper.make_node("Softmax", ["raw"], ["p"], axis=1), helper.make_node("Identity", ["p"], ["y"])]
    elif last is not None:
        nodes.append(helper.make_node(last, ["raw"], ["y"]))
    values = [helper.make_tensor_value_info(f"x{n}", elem, given) for n in range(inputs)]
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, returned)
    graph = helper.make_graph(nodes, "net", values, [answer], initializer=[weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def test_free_and_fixed_shapes_are_read():
    source = OnnxSource.from_bytes(model().SerializeToString())
    assert source.shapes == OnnxShapes(
        batch=None, n_channels=3, height=None, width=None, n_classes=2, has_activation=False
    )
    assert (source.framework, source.architecture, source.n_parameters) == ("onnx", "net", 6)
    fixed = OnnxSource.from_bytes(model((1, 3, 256, 128), (1, 2, 256, 128)).SerializeToString()).shapes
    assert (fixed.batch, fixed.height, fixed.width) == (1, 256, 128)


@pytest.mark.parametrize(("last", "expected"), [("Softmax", True), ("Sigmoid", True), ("Relu", False)])
def test_an_activation_at_the_end_is_seen(last, expected):
    assert OnnxSource.from_bytes(model(last=last).SerializeToString()).shapes.has_activation is expected


def test_the_local_file_holds_the_model():
    source = OnnxSource.from_bytes(model().SerializeToString())
    path = source.onnx_path()
    assert path.read_bytes() == source.data
    path.write_bytes(b"exchanged by someone")
    assert source.onnx_path().read_bytes() == source.data


def test_weights_in_files_beside_it_are_taken_in(tmp_path):
    whole = model()
    digest = OnnxSource.from_bytes(whole.SerializeToString()).digest
    onnx.save(whole, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    data = (tmp_path / "net.onnx").read_bytes()
    source = OnnxSource.from_bytes(data, read_sibling=lambda name: (tmp_path / name).read_bytes())
    weights = onnx.load(source.onnx_path()).graph.initializer[0]
    assert numpy_helper.to_array(weights).tolist() == np.ones((2, 3, 1, 1)).tolist()
    assert source.digest != digest  # another file, whose weights the runtime finds inside
    with pytest.raises(BundleError, match=r"keeps its weights in \['net.data'\], which did not come with it"):
        OnnxSource.from_bytes(data)


@pytest.mark.parametrize("name", [b"../a.dat", b"/etc/dat", b"a\0bc.dat"])
def test_weights_outside_of_the_folder_are_refused(name, tmp_path):
    whole = model()
    onnx.save(whole, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    data = (tmp_path / "net.onnx").read_bytes().replace(b"net.data", name)
    with pytest.raises(BundleError, match=rf"weights outside of its folder: \[{re.escape(repr(name.decode()))}\]"):
        OnnxSource.from_bytes(data, read_sibling=lambda _: b"")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"inputs": 2}, r"one input and one output; it has inputs \['x0', 'x1'\]"),
        ({"elem": TensorProto.FLOAT16}, "has to take float32"),
        ({"given": (1, 3, 64)}, r"has to turn \(tile, layer, y, x\) into \(tile, class, y, x\)"),
        ({"returned": (1, 64, 64)}, r"has to turn \(tile, layer, y, x\) into \(tile, class, y, x\)"),
    ],
)
def test_what_is_no_network_from_tiles_to_maps_is_refused(changed, message):
    with pytest.raises(BundleError, match=message):
        OnnxSource.from_bytes(model(**changed).SerializeToString())


def test_damaged_files_are_refused():
    data = model().SerializeToString()
    with pytest.raises(BundleError, match=r"The ONNX file cannot be read"):
        OnnxSource.from_bytes(data[:-9])
    with pytest.raises(BundleError, match=r"The ONNX file holds no network|cannot be read"):
        OnnxSource.from_bytes(b"no model at all")
    with pytest.raises(BundleError, match=r"An ONNX file holds no torch module. Run it with backend='onnx'"):
        OnnxSource.from_bytes(data).load_module()


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rtsx\[onnx\]'"):
        OnnxSource.from_bytes(b"")


@pytest.mark.parametrize("side", [None, 8])
@pytest.mark.parametrize("answer_last", [True, False])
def test_channels_that_come_last_are_put_first(side, answer_last):
    torch = pytest.importorskip("torch")
    from rtsx.model.onnx import open_onnx

    first = model((1, 3, side, side), (1, 2, side, side))
    last = model((1, side, side, 3), (1, side, side, 2) if answer_last else (1, 2, side, side))
    nodes = last.graph.node
    nodes[0].input[0], nodes[0].output[0] = "first", "scores" if answer_last else "y"
    nodes.insert(0, helper.make_node("Transpose", ["x0"], ["first"], perm=(0, 3, 1, 2)))
    if answer_last:
        nodes.append(helper.make_node("Transpose", ["scores"], ["y"], perm=(0, 2, 3, 1)))
    source, expected = (OnnxSource.from_bytes(one.SerializeToString()) for one in (last, first))
    assert source.shapes == expected.shapes
    tiles = torch.rand(2, 3, 8, 8)
    answers = [open_onnx(one.data, device=torch.device("cpu"))(tiles) for one in (source, expected)]
    assert torch.equal(*answers)
    onnx.checker.check_model(onnx.load_from_string(source.data), full_check=True)


@pytest.mark.parametrize(
    ("given", "n_channels"), [((1, 256, 128, 128), 256), ((1, 4, 4, 4), 4), (("n", 3, "h", 128), 3)]
)
def test_channels_that_come_first_stay(given, n_channels):
    data = model(given, ("n", 2, "h", "w")).SerializeToString()
    source = OnnxSource.from_bytes(data)
    assert (source.data, source.shapes.n_channels) == (data, n_channels)


@pytest.mark.parametrize("channels", [3, -1])
def test_a_network_that_is_baked_for_one_tile_is_fed_one_at_a_time(channels):
    """With a batch of two it fails, or returns one image."""
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    baked = model(returned=(1, 2, 8, 8))
    baked.graph.initializer.extend(
        numpy_helper.from_array(np.array(value), name)
        for name, value in {"shape": (1, channels, 8, 8), "from": (0,), "to": (3,), "axis": (1,)}.items()
    )
    baked.graph.node[0].input[0] = "one"
    baked.graph.node.insert(0, helper.make_node("Slice", ["flat", "from", "to", "axis"], ["one"]))
    baked.graph.node.insert(0, helper.make_node("Reshape", ["x0", "shape"], ["flat"]))
    tiles = torch.rand(3, 3, 8, 8)
    answers = [
        open_onnx(OnnxSource.from_bytes(one.SerializeToString()).data, device=torch.device("cpu"))(tiles)
        for one in (baked, model())
    ]
    torch.testing.assert_close(*answers)


def test_a_gpu_that_onnx_runtime_cannot_use_is_told_instead_of_taking_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """It offers what it was built for, and goes on without where a library of CUDA does not load."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    given: list[object] = []
    real = onnxruntime.InferenceSession

    def session(model: bytes, options: object, *, providers: list[object]) -> object:
        given.extend(providers)
        return real(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(BundleError, match=r"ONNX Runtime runs on \['CPUExecutionProvider'\] instead of cuda:1"):
        open_onnx(model().SerializeToString(), device=torch.device("cuda", 1))
    ((name, options),) = given
    assert (name, options["device_id"], options["use_tf32"]) == ("CUDAExecutionProvider", 1, 0)
