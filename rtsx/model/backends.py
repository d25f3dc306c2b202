"""Backends of a forward pass: eager torch, which is the reference, torch.compile and OpenVINO."""

import os
import shutil
import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rtsx.errors import BundleError, MissingExtraError, require_extra

Forward = Callable[[torch.Tensor], torch.Tensor]
"""A network without its activation: (tile, layer, y, x) float32 to (tile, class, y, x) of any floating dtype."""


def fixed_batches(forward: Forward, size: int) -> Forward:
    """Make a forward pass that only takes `size` tiles at once take any number of them.

    The last batch is filled up with copies of its last tile, whose outputs are dropped.

    Examples
    --------
    >>> seen = []
    >>> def pairs(batch):
    ...     seen.append(len(batch))
    ...     return batch * 2
    >>> fixed_batches(pairs, 2)(torch.ones(3, 1, 4, 4)).shape, seen
    (torch.Size([3, 1, 4, 4]), [2, 2])
    """

    def forward_any(batch: torch.Tensor) -> torch.Tensor:
        outputs = []
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            missing = size - len(part)
            if missing:
                part = torch.cat([part, part[-1:].expand(missing, -1, -1, -1)])
            # A copy, because a backend may hand out the same buffer again on the next pass.
            outputs.append(forward(part)[: size - missing].clone())
        return torch.cat(outputs)

    return forward_any


def single_output(raw: object) -> torch.Tensor:
    """Take the network's output as it is when it is one tensor, and refuse it otherwise.

    Raises
    ------
    BundleError
        The network returns a tuple, a dictionary or something else that holds several tensors.
    """
    if isinstance(raw, torch.Tensor):
        return raw
    inside = f" with keys {sorted(map(str, raw))}" if isinstance(raw, dict) else ""
    raise BundleError(
        f"The network has to return one tensor (tile, class, y, x); it returned a {type(raw).__name__}{inside}. "
        "Wrap it in a module whose forward returns the segmentation alone."
    )


def open_eager(module: torch.nn.Module, *, device: torch.device, dtype: torch.dtype) -> Forward:
    """Put a module on a device and return its raw forward pass, which builds no gradients.

    Parameters
    ----------
    module
        Any `torch.nn.Module`, scripted and exported ones included, already in the mode it has to run in. It is moved
        to `device` in place and belongs to the returned function from then on.
    dtype
        Dtype of the arithmetic; anything but float32 runs under autocast, with weights kept in float32.
    """
    shape = exported_shape(module)
    # channels_last, because it is 1.2-1.9 times faster than NCHW on CPUs and what tensor cores want on GPUs.
    module = _moved(module, device).to(memory_format=torch.channels_last)
    forward = cast_forward(module, device=device, dtype=dtype)
    if uses_batch_statistics(module):
        # One by one, because batch statistics would otherwise mix tiles, and a tile's answer depend on its neighbours.
        return fixed_batches(forward, 1)
    return forward if shape is None else _of_exported_shape(forward, shape)


def _moved(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Move a module: an exported one with its constants and the devices that its graphs name, a traced one with what its graph has fixed."""
    module = module.to(device)
    for part in module.modules():
        if isinstance(part, torch.fx.GraphModule):  # another one within for what stands under no_grad or autocast
            for node in part.graph.nodes:
                if node.op == "get_attr":
                    path, _, name = str(node.target).rpartition(".")
                    owner = part.get_submodule(path)
                    if isinstance(value := getattr(owner, name), torch.Tensor):
                        setattr(owner, name, value.to(device))
                elif "device" in node.kwargs:
                    node.update_kwarg("device", device)
                elif node.target is torch.ops.aten.to.device:
                    node.update_arg(1, device)
            part.recompile()
        elif isinstance(part, torch.jit.ScriptModule) and part._c._has_method("forward"):  # as a ModuleList has not
            _fix_convolutions(part.graph)
    return module


def _fix_convolutions(graph: Any) -> None:
    """Have convolutions of a traced graph, which keeps torch's settings of when it was traced, compute in float32 and in one way."""
    for node in graph.findAllNodes("aten::_convolution", recurse=True):
        *_, benchmark, deterministic, _, allow_tf32 = range(node.inputsSize())
        for place, value in ((benchmark, False), (deterministic, True), (allow_tf32, False)):
            constant = graph.insertConstant(value)
            constant.node().moveBefore(node)
            node.replaceInput(place, constant)


def cast_forward(module: torch.nn.Module, *, device: torch.device, dtype: torch.dtype) -> Forward:
    """Return the raw forward pass of a module: channels_last input, autocast to `dtype` unless that is float32, no gradients."""
    # no_grad instead of inference_mode, because callers blend answers in place and an inference tensor refuses that.
    # Whose first passes on a GPU would be profiled and those after them be fused, with other last bits.
    is_unfused = isinstance(module, torch.jit.ScriptModule) and device.type == "cuda"
    optimized: Any = torch.jit.optimized_execution if is_unfused else lambda _: nullcontext()  # type: ignore[attr-defined]

    def forward(batch: torch.Tensor) -> torch.Tensor:
        # No cache of cast weights, because it is one for all threads, whose streams do not wait for each other.
        cast = torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32, cache_enabled=False)
        with torch.no_grad(), cast, optimized(False):
            return single_output(module(batch.contiguous(memory_format=torch.channels_last)))

    return forward


def uses_batch_statistics(module: torch.nn.Module) -> bool:
    """Test whether a batch normalisation in the module normalises by the tiles of the batch instead of stored averages."""
    return any(
        part.training or part.running_mean is None
        for part in module.modules()
        # A scripted module keeps the name of the class it was made from.
        if getattr(part, "original_name", type(part).__name__).startswith(("BatchNorm", "SyncBatchNorm"))
    )


def exported_shape(module: torch.nn.Module) -> tuple[int | None, ...] | None:
    """Return the batch size, height and width that an exported program is bound to, None where free; None for other modules."""
    if not isinstance(module, torch.fx.GraphModule):
        return None
    for node in module.graph.nodes:
        if node.op == "placeholder" and isinstance(node.meta.get("val"), torch.Tensor):
            size = node.meta["val"].shape
            return tuple(length if isinstance(length, int) else None for length in (size[0], *size[2:]))
    return None


def _of_exported_shape(forward: Forward, shape: tuple[int | None, ...]) -> Forward:
    """Hold an exported program to the tile it was exported for, and feed it the batches it was exported for."""
    batched = forward if shape[0] is None else fixed_batches(forward, shape[0])

    def forward_checked(batch: torch.Tensor) -> torch.Tensor:
        if any(bound not in {None, length} for bound, length in zip(shape[1:], batch.shape[2:], strict=True)):
            raise BundleError(
                f"This program was exported for tiles of {shape[1]} x {shape[2]} px; it got {batch.shape[2]} x "
                f"{batch.shape[3]}. Predict with that tile, or export it with dynamic sizes of y and x."
            )
        return batched(batch)

    return forward_checked


def can_compile(device: torch.device) -> bool:
    """Test whether the machine has what torch.compile calls: a C++ compiler for a CPU; Triton, which calls a C compiler, for a GPU."""
    if device.type == "cuda":
        compilers = (os.environ.get("CC", ""), "cc", "gcc", "clang")
        return find_spec("triton") is not None and any(map(shutil.which, compilers))
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def open_compiled(module: torch.nn.Module, *, device: torch.device, dtype: torch.dtype) -> Forward:
    """Return the raw forward pass whose kernels are compiled at the first call of each shape of batch.

    Weights are frozen into the kernels, so that normalisation folds into convolutions. Kernels are chosen by rule and not by what is
    fastest here, where torch can, so that processes agree to the bit.

    Raises
    ------
    MissingExtraError
        There is no compiler.
    BundleError
        The network cannot be compiled as it is.
    """
    if not can_compile(device):
        wanted = "Triton and a C compiler, such as gcc," if device.type == "cuda" else "a C++ compiler, such as g++,"
        raise MissingExtraError(f"backend='compile' needs {wanted} on this machine. Install it, or take 'eager'.")
    if isinstance(module, torch.jit.ScriptModule) or uses_batch_statistics(module):
        raise BundleError("Scripted networks and batch statistics cannot be compiled. Run them with backend='eager'.")
    module = _moved(module, device).to(memory_format=torch.channels_last)
    import torch._inductor.config as inductor  # takes a second

    # Not as options of torch.compile, because what traces the network reads freezing, too, and never sees those.
    settings = {"freezing": True, **({"deterministic": True} if hasattr(inductor, "deterministic") else {})}
    # All networks share the code of their forward pass, and beyond its limit torch would run the next of them uncompiled.
    limits = {"recompile_limit": 1 << 16, "accumulated_recompile_limit": 1 << 16}
    compiled = torch.compile(cast_forward(module, device=device, dtype=dtype), dynamic=False)
    shapes: set[torch.Size] = set()

    @torch.no_grad()  # around all of it, because what needs gradients is not frozen
    def forward(batch: torch.Tensor) -> torch.Tensor:
        if batch.shape in shapes:
            return single_output(compiled(batch))
        with _COMPILING, inductor.patch(settings), torch._dynamo.config.patch(limits):
            output = single_output(compiled(batch))
        shapes.add(batch.shape)
        return output

    return forward


_COMPILING = threading.Lock()
"""Around the settings of torch's compiler, which are the process's."""


def open_openvino(model: torch.nn.Module | Path, *, n_layers: int, tile: int) -> Forward:
    """Return the raw forward pass in float32 on the CPU, of a torch network or an ONNX file.

    Parameters
    ----------
    model
        The network, or the path of an ONNX file.
    n_layers, tile
        Input channels, and a side in px that the network takes: what it is traced with.

    Raises
    ------
    MissingExtraError
        OpenVINO is not installed.
    BundleError
        It cannot convert the network.
    """
    # Before the import, because it would otherwise report its use over the network.
    os.environ.setdefault("OPENVINO_TELEMETRY_DISABLE", "1")
    with require_extra("backend='openvino' needs the openvino extra: pip install 'rtsx[openvino]'."):
        import openvino
    try:
        if isinstance(model, Path):
            converted = openvino.Core().read_model(str(model))
        else:
            with warnings.catch_warnings():
                # It traces the network with torch.jit.trace, whose end torch has announced.
                warnings.simplefilter("ignore")
                converted = openvino.convert_model(model, example_input=torch.rand(1, n_layers, tile, tile))
    except Exception as error:  # a conversion runs the module's own code
        raise BundleError(f"OpenVINO cannot convert the network: {error}. Run it with backend='eager'.") from error
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # it takes bfloat16 by itself where the CPU has it
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(converted, "CPU", settings).create_infer_request()

    def forward(batch: torch.Tensor) -> torch.Tensor:
        try:
            output = request.infer({0: np.ascontiguousarray(batch.numpy(force=True))}, share_inputs=True)[0]
        except RuntimeError as error:
            raise BundleError(
                f"OpenVINO failed on tiles {tuple(batch.shape)}: {error}. "
                "Predict with the tile that the model was exported for."
            ) from error
        return torch.from_numpy(output.copy())  # a copy, because the next pass writes into the same buffer

    return forward
