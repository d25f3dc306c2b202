"""ONNX files as the source of a bundle, and ONNX Runtime, which also runs torch networks exported on the way."""

import math
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from rtsx.errors import BundleError, require_extra
from rtsx.model.backends import Forward, fixed_batches
from rtsx.model.source import Artifact, Framework, NetworkSource, digest_of_bytes
from rtsx.storage import write_object

if TYPE_CHECKING:
    import onnxruntime

_FLOAT32 = 1
"""`TensorProto.FLOAT`."""
_TRANSPARENT = {"Cast", "Identity", "Transpose"}
"""Operators that change no probability."""
_MISSING = "backend='onnx' needs the onnx extra: pip install 'rtsx[onnx]'."


@dataclass(frozen=True, kw_only=True)
class OnnxShapes:
    """What an ONNX file says about its input (tile, layer, y, x) and output (tile, class, y, x); None where free."""

    batch: int | None
    """Tiles in each pass."""
    n_channels: int | None
    """Input channels."""
    height: int | None
    """Rows of a tile."""
    width: int | None
    """Columns of a tile."""
    n_classes: int | None
    """Output channels."""
    has_activation: bool
    """Whether the graph ends in a sigmoid or softmax, so that its outputs are probabilities already."""


@dataclass(frozen=True, eq=False)
class OnnxSource(NetworkSource):
    """An ONNX network, as the bytes of its file with all weights inside."""

    data: bytes = field(repr=False)
    """The whole model, external tensors included."""
    framework: ClassVar[Framework] = "onnx"

    @classmethod
    def from_bytes(cls, data: bytes, *, read_sibling: Callable[[str], bytes] | None = None) -> "OnnxSource":
        """Take a file, reading the weights that it keeps in files beside it; channels that it has last are put first.

        Parameters
        ----------
        data
            The .onnx file.
        read_sibling
            Reads a file by its name relative to the .onnx file; None where there are none.

        Raises
        ------
        BundleError
            The file is truncated, its weights are missing, or it is no network from tiles to maps.
        MissingExtraError
            The `onnx` extra is not installed.
        """
        model = _parse(data)
        external = _external_names(model)
        if external and read_sibling is None:
            raise BundleError(f"The ONNX file keeps its weights in {external}, which did not come with it.")
        if external and read_sibling is not None:
            data = _inlined(data, siblings={name: read_sibling(name) for name in external})
        source = cls(_channels_first(data))
        _ = source.shapes  # refuses what is no network from tiles to maps
        return source

    @cached_property
    def architecture(self) -> str:
        """Name of the graph."""
        return _parse(self.data).graph.name or "ONNX"

    @cached_property
    def n_parameters(self) -> int:
        """Numbers in all stored tensors of the graph."""
        return sum(math.prod(tensor.dims) for tensor in _parse(self.data).graph.initializer)

    @cached_property
    def digest(self) -> str:
        """sha256 of the model with all weights inside."""
        return digest_of_bytes(self.data)

    @cached_property
    def shapes(self) -> OnnxShapes:
        """Declared shapes.

        Raises
        ------
        BundleError
            The network has several inputs or outputs, other dimensions, or no float32 input.
        """
        graph = _parse(self.data).graph
        inputs = _inputs(graph)
        if len(inputs) != 1 or len(graph.output) != 1:
            raise BundleError(
                f"The ONNX network has to have one input and one output; it has inputs {[v.name for v in inputs]} and "
                f"outputs {[v.name for v in graph.output]}. Export the segmentation alone."
            )
        if inputs[0].type.tensor_type.elem_type != _FLOAT32:
            raise BundleError(
                f"The ONNX network has to take float32; it takes {_type_name(inputs[0].type.tensor_type.elem_type)}. Export it in float32, or "
                "with a cast at its beginning (keep_io_types of ONNX converters does so)."
            )
        given, returned = _dimensions(inputs[0]), _dimensions(graph.output[0])
        if len(given) != 4 or len(returned) not in {0, 4}:
            raise BundleError(
                "The ONNX network has to turn (tile, layer, y, x) into (tile, class, y, x); it declares "
                f"{given} and {returned}. Export it without a head that drops or adds dimensions."
            )
        return OnnxShapes(
            batch=given[0],
            n_channels=given[1],
            height=given[2],
            width=given[3],
            n_classes=returned[1] if returned else None,
            has_activation=_last_operator(graph) in {"Sigmoid", "Softmax"},
        )

    def onnx_path(self) -> Path:
        """Write the model into this user's temporary folder, once per content, and return its path."""
        folder = Path(tempfile.gettempdir()) / f"rtsx-onnx-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise BundleError(f"{folder} belongs to another user, who could exchange models in it. Set TMPDIR.")
        path = folder / f"{self.digest}.onnx"
        # The content is compared, because anyone could have put a file there before.
        if not (path.exists() and digest_of_bytes(path.read_bytes()) == self.digest):
            write_object(path, self.data, replace=True)
        return path

    def artifact(self, *, n_layers: int, tile: int, stride: int) -> Artifact:
        """Hand the model on unchanged."""
        return Artifact(kind="onnx", data=self.data)


# onnx's protobuf classes carry no types, hence Any.
def _parse(data: bytes) -> Any:
    with require_extra("ONNX models need the onnx extra: pip install 'rtsx[onnx]'."):
        import onnx
    try:
        model = onnx.load_from_string(data)
    except Exception as error:  # protobuf's DecodeError, whose module differs between its versions
        raise BundleError(
            f"The ONNX file cannot be read: {error}. It is truncated or damaged; copy it again."
        ) from error
    if not model.graph.node:
        raise BundleError("The ONNX file holds no network: its graph is empty. It is damaged; copy or export it again.")
    return model


def _external_names(model: Any) -> list[str]:
    names = {
        entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    outside = sorted(name for name in names if Path(name).is_absolute() or {"..", "\0"} & {*Path(name).parts, *name})
    if outside:
        raise BundleError(f"The ONNX file refers to weights outside of its folder: {outside}. Export it again.")
    return sorted(names)


def _inlined(data: bytes, *, siblings: dict[str, bytes]) -> bytes:
    import onnx  # part of an extra; `_parse` has found it

    with tempfile.TemporaryDirectory() as folder:
        for name, content in siblings.items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_bytes(content)
        model = onnx.load_from_string(data)
        onnx.load_external_data_for_model(model, folder)
    try:
        complete: bytes = model.SerializeToString()
    except ValueError as error:
        raise BundleError(
            f"The ONNX model is above 2 GiB with its weights inside, the limit of its format: {error}. "
            "Open the network's checkpoint instead."
        ) from error
    return complete


def _channels_first(data: bytes) -> bytes:
    """Return a model that takes and returns (tile, layer, y, x), where it has its channels last, as TensorFlow has them."""
    model = _parse(data)
    graph, inputs = model.graph, _inputs(model.graph)
    if len(inputs) != 1 or len(graph.output) != 1 or not _has_channels_last(_dimensions(inputs[0])):
        return data
    import onnx  # part of an extra; `_parse` has found it

    given, returned = inputs[0], graph.output[0]
    sizes = _dimensions(returned)
    renamed = _turned(given)
    graph.node.insert(0, onnx.helper.make_node("Transpose", [renamed.name], [given.name], perm=(0, 2, 3, 1)))
    graph.input.insert(0, renamed)
    graph.input.remove(given)
    # Its sizes, too, unless that says otherwise.
    if len(sizes) == 4 and not (sizes[1] is not None and sizes[2] == sizes[3] != sizes[1]):
        last = _turned(returned)
        graph.node.append(onnx.helper.make_node("Transpose", [returned.name], [last.name], perm=(0, 3, 1, 2)))
        graph.output.remove(returned)
        graph.output.append(last)
    turned: bytes = model.SerializeToString()
    return turned


def _has_channels_last(dimensions: tuple[int | None, ...]) -> bool:
    """Test whether rows and columns are alike, or free, and what comes after them is not."""
    return len(dimensions) == 4 and dimensions[3] is not None and dimensions[1] == dimensions[2] != dimensions[3]


def _turned(value: Any) -> Any:
    """Return an input or output under another name, with its channels before its rows and columns."""
    turned = type(value)()
    turned.CopyFrom(value)
    turned.name = f"{value.name}_channels_first"
    shape = turned.type.tensor_type.shape
    del shape.dim[:]
    shape.dim.extend(value.type.tensor_type.shape.dim[place] for place in (0, 3, 1, 2))
    return turned


def _type_name(number: int) -> str:
    import onnx  # part of an extra; `_parse` has found it

    return str(onnx.TensorProto.DataType.Name(number)).lower()


def _inputs(graph: Any) -> list[Any]:
    stored = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in stored]


def _dimensions(value: Any) -> tuple[int | None, ...]:
    return tuple(
        dim.dim_value if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0 else None
        for dim in value.type.tensor_type.shape.dim
    )


def _last_operator(graph: Any) -> str:
    makers = {name: node for node in graph.node for name in node.output}
    node = makers.get(graph.output[0].name)
    while node is not None and node.op_type in _TRANSPARENT:
        node = makers.get(node.input[0])
    return "" if node is None else str(node.op_type)


def open_onnx(model: Path | bytes, *, device: torch.device) -> Forward:
    """Return the raw forward pass of an ONNX model; one whose input or answer has a fixed batch size is fed batches of that size.

    Parameters
    ----------
    model
        File, or its content.
    device
        A GPU needs the GPU build of ONNX Runtime.

    Raises
    ------
    MissingExtraError
        ONNX Runtime is not installed.
    BundleError
        It cannot read the model, or cannot run on the device.
    """
    session = _session(model, device)
    (given,) = session.get_inputs()
    name, returned = given.name, session.get_outputs()[0].shape
    # Also of the answer, because a reshape for one tile is baked into some networks whose input is free.
    batch = next((one[0] for one in (given.shape, returned) if one and isinstance(one[0], int)), None)

    def forward(tiles: torch.Tensor) -> torch.Tensor:
        try:
            (output,) = session.run(None, {name: np.ascontiguousarray(tiles.numpy(force=True))})
        except Exception as error:  # its own classes, which share no base and move between versions
            raise BundleError(
                f"ONNX Runtime failed on tiles {tuple(tiles.shape)}, the model takes {given.shape}: {error}. "
                "Predict with the tile that the model was exported for."
            ) from error
        return torch.from_numpy(output).to(device)

    return forward if batch is None else fixed_batches(forward, batch)


def exported_onnx(module: torch.nn.Module, *, n_layers: int, tile: int) -> bytes:
    """Return a torch network as an ONNX model with free batch size, height and width.

    Raises
    ------
    MissingExtraError
        The exporter's library is not installed.
    BundleError
        The network has something that ONNX lacks.
    """
    with require_extra(_MISSING):
        import onnxscript  # noqa: F401 - torch's exporter is built on it
    free = torch.export.Dim.DYNAMIC
    with warnings.catch_warnings():
        # The exporter warns of its own insides, which nobody who reads a map can mend.
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                module,
                # Two tiles, because a size of one would be taken for a constant.
                (torch.rand(2, n_layers, tile, tile),),
                dynamo=True,
                verbose=False,
                dynamic_shapes=({0: free, 2: free, 3: free},),
            )
        except Exception as error:  # whatever a module's own code raises while it is traced
            raise BundleError(
                f"The network cannot be exported to ONNX: {error}. Run it with backend='eager' or 'openvino'."
            ) from error
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def onnx_runs_on_gpus() -> bool:
    """Test whether the ONNX Runtime that is installed, if one is, can use CUDA."""
    try:
        import onnxruntime
    except ImportError:
        return False
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _session(model: Path | bytes, device: torch.device) -> "onnxruntime.InferenceSession":
    with require_extra(_MISSING):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # its errors are raised, and go to stderr past Python besides
    provider = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise BundleError(
            f"This build of ONNX Runtime cannot run on {device}: it offers {onnxruntime.get_available_providers()}. "
            "Install onnxruntime-gpu in its place, or take device='cpu'."
        )
    # Float32 is float32, and every process takes the same algorithms: by rule, and not by which was the fastest there.
    of_gpus = {"device_id": device.index or 0, "use_tf32": 0, "cudnn_conv_algo_search": "DEFAULT"}
    try:
        session = onnxruntime.InferenceSession(
            str(model) if isinstance(model, Path) else model,
            options,
            providers=[(provider, of_gpus if device.type == "cuda" else {})],
        )
    except Exception as error:  # its own classes, which share no base and move between versions
        raise BundleError(f"ONNX Runtime cannot read the model: {error}. Export it again.") from error
    session.disable_fallback()  # to the CPU, of which it says nothing
    if provider not in session.get_providers():
        raise BundleError(
            f"ONNX Runtime runs on {session.get_providers()} instead of {device}: libraries of CUDA or cuDNN that it needs are missing, or "
            "of another version. Install those that its version asks for, or take device='cpu'."
        )
    return session
