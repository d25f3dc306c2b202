"""OpenVINO: the fastest way to run most networks on a CPU."""

import os
import warnings
from pathlib import Path

import numpy as np
import torch

from rtsx.errors import BundleError, MissingExtraError
from rtsx.model.forward import Forward

__all__ = ["open_openvino"]


def open_openvino(model: torch.nn.Module | Path, *, n_layers: int, tile: int) -> Forward:
    """Raw forward pass in float32 on the CPU, of a torch network or an ONNX file.

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
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("backend='openvino' needs the openvino extra: pip install 'rtsx[openvino]'.") from error
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
            answer = request.infer({0: np.ascontiguousarray(batch.numpy(force=True))}, share_inputs=True)[0]
        except RuntimeError as error:
            raise BundleError(
                f"OpenVINO failed on tiles {tuple(batch.shape)}: {error}. "
                "Predict with the tile that the model was exported for."
            ) from error
        return torch.from_numpy(answer.copy())  # a copy, because the next pass writes into the same buffer

    return forward
