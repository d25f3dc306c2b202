"""The network of a bundle as one file that other software runs."""

from typing import TYPE_CHECKING, Literal

from rtsx.errors import BundleError

if TYPE_CHECKING:
    from rtsx.model import ModelBundle  # which loads torch

__all__ = ["network_file"]


def network_file(bundle: "ModelBundle", *, kind: Literal["onnx", "pt2"]) -> bytes:
    """Export the network alone, without scaling and activation, for any number of tiles of any size it can take.

    Raises
    ------
    BundleError
        The network cannot be exported so.
    MissingExtraError
        ONNX needs the extra `onnx`.
    """
    # Here, because they load torch, which `--help` should not wait for.
    from rtsx.model.onnxruntime import exported_onnx
    from rtsx.model.torch_export import export_module

    if bundle.bn_mode != "eval":
        raise BundleError(
            f"{bundle.id} takes the statistics of each tile (bn_mode='batch'), which no file can say. "
            "Import it with --bn-mode eval first."
        )
    if bundle.source.framework == "onnx" and kind == "onnx":
        return bundle.source.onnx_path().read_bytes()
    module = bundle.source.load_module()
    if kind == "onnx":
        return exported_onnx(module, n_layers=len(bundle.inputs), tile=bundle.tile)
    return export_module(module, n_layers=len(bundle.inputs), tile=bundle.tile, stride=bundle.stride)
