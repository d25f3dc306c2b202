"""TorchScript files (.ts, .jit, .pt): code in a language of its own, read when its author is trusted."""

import io
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from rtsx.errors import BundleError, UntrustedModelError
from rtsx.model.digest import digest_of_bytes
from rtsx.model.source import Artifact, Framework, NetworkSource, refuse_onnx

__all__ = ["TorchScriptSource", "is_torchscript"]


@dataclass(frozen=True, eq=False)
class TorchScriptSource:
    """A TorchScript network, as the bytes of its file."""

    data: bytes = field(repr=False)
    """The whole file."""

    @classmethod
    def from_bytes(cls, data: bytes, *, trust: bool) -> "TorchScriptSource":
        """Take a file, checking that it can be read.

        Parameters
        ----------
        data
            The whole file.
        trust
            Whether the caller vouches for the author.

        Raises
        ------
        UntrustedModelError
            The caller does not: the file is a program whose operators read and write files and call native libraries.
        BundleError
            The file is truncated or of an unknown version.
        """
        if not trust:
            raise UntrustedModelError(
                "A TorchScript file is a program of its author, which can read and write files when it is opened. If you "
                "trust where it comes from, pass trust=True; else ask for safetensors or ONNX."
            )
        source = cls(data)
        source.load_module()
        return source

    @classmethod
    def from_module(cls, module: torch.jit.ScriptModule) -> "TorchScriptSource":
        """Freeze a scripted or traced module that is already in memory."""
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*torch\.jit", category=Warning)
            torch.jit.save(module, buffer)
        return cls(buffer.getvalue())

    @property
    def framework(self) -> Framework:
        """Always "torchscript"."""
        return "torchscript"

    @cached_property
    def architecture(self) -> str:
        """Name of the class that was scripted or traced."""
        return str(getattr(self.load_module(), "original_name", "TorchScript"))

    @cached_property
    def n_parameters(self) -> int:
        """Trainable numbers."""
        return sum(part.numel() for part in self.load_module().parameters())

    @cached_property
    def digest(self) -> str:
        """sha256 of the file."""
        return digest_of_bytes(self.data)

    def load_module(self) -> torch.nn.Module:
        """Read the file as a scripted module in evaluation mode."""
        try:
            with warnings.catch_warnings():
                # torch advises torch.export to authors; whoever has only the file cannot follow the advice.
                warnings.filterwarnings("ignore", message=r".*torch\.jit", category=Warning)
                module: torch.nn.Module = torch.jit.load(io.BytesIO(self.data), map_location="cpu")
        except (RuntimeError, ValueError, EOFError) as error:
            raise BundleError(
                f"The TorchScript file cannot be read: {str(error).splitlines()[0]}. It is truncated, or was written by "
                f"a newer torch than {torch.__version__}; copy it again or ask for ONNX."
            ) from error
        return module.float().eval()

    def onnx_path(self) -> Path:
        """Raise `BundleError`: there is no such file."""
        raise refuse_onnx(self.architecture)

    def artifact(self, *, n_layers: int, tile: int, stride: int) -> Artifact:
        """Hand the file on unchanged."""
        options: Mapping[str, object] = {}
        return Artifact(
            kind="torchscript",
            filename="model.ts",
            artifact_type="torch.jit.save",
            media_type="application/octet-stream; application=pytorch",
            data=self.data,
            options=options,
        )


def is_torchscript(archive: zipfile.ZipFile) -> bool:
    """Whether a zip file is a TorchScript archive."""
    names = archive.namelist()
    return any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names)


def _conforms(source: TorchScriptSource) -> NetworkSource:
    return source  # a typed line that fails the type check when the class stops being a NetworkSource
