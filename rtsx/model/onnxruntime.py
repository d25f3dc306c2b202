"""ONNX Runtime: runs ONNX files, and torch networks that are exported to ONNX on the way."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from rtsx.errors import BundleError, MissingExtraError
from rtsx.model.forward import Forward, in_batches_of

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["exported_onnx", "open_onnx"]


def open_onnx(model: Path | bytes, *, device: torch.device) -> Forward:
    """Raw forward pass of an ONNX model; a model of fixed batch size is fed batches of that size.

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
    name, batch = given.name, given.shape[0]

    def forward(tiles: torch.Tensor) -> torch.Tensor:
        try:
            (answer,) = session.run(None, {name: np.ascontiguousarray(tiles.numpy(force=True))})
        except Exception as error:  # its own classes, which share no base and move between versions
            raise BundleError(
                f"ONNX Runtime failed on tiles {tuple(tiles.shape)}, the model takes {given.shape}: {error}. "
                "Predict with the tile that the model was exported for."
            ) from error
        return torch.from_numpy(answer).to(device)

    return in_batches_of(forward, batch) if isinstance(batch, int) else forward


def exported_onnx(module: torch.nn.Module, *, n_layers: int, tile: int) -> bytes:
    """A torch network as an ONNX model with free batch size, height and width.

    Raises
    ------
    MissingExtraError
        The exporter's library is not installed.
    BundleError
        The network has something that ONNX lacks.
    """
    try:
        import onnxscript  # noqa: F401 - torch's exporter is built on it
    except ImportError as error:
        raise _missing() from error
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


def _session(model: Path | bytes, device: torch.device) -> "onnxruntime.InferenceSession":
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing() from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only: its warnings go to stderr past Python
    provider = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise BundleError(
            f"This build of ONNX Runtime cannot run on {device}: it offers {onnxruntime.get_available_providers()}. "
            "Install onnxruntime-gpu in its place, or take device='cpu'."
        )
    try:
        return onnxruntime.InferenceSession(
            str(model) if isinstance(model, Path) else model, options, providers=[provider]
        )
    except Exception as error:  # its own classes, which share no base and move between versions
        raise BundleError(f"ONNX Runtime cannot read the model: {error}. Export it again.") from error


def _missing() -> MissingExtraError:
    return MissingExtraError("backend='onnx' needs the onnx extra: pip install 'rtsx[onnx]'.")
