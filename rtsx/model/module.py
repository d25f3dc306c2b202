"""A user's own `torch.nn.Module` as the source of a bundle."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FunctionType

import torch

from rtsx.model.digest import digest_of_tensors, fingerprint
from rtsx.model.source import Artifact, Framework, NetworkSource, refuse_onnx
from rtsx.model.torch_export import export_module

__all__ = ["ModuleSource"]


@dataclass(frozen=True, eq=False)
class ModuleSource:
    """A module in memory: frozen as it was when the bundle was made, whatever its owner does with it later."""

    module: torch.nn.Module
    """A copy of the user's module: CPU, float32, evaluation mode; never handed out."""

    @classmethod
    def from_module(cls, module: torch.nn.Module) -> "ModuleSource":
        """Copy a module to the CPU as float32 in evaluation mode."""
        return cls(copy.deepcopy(module).cpu().float().eval())

    @property
    def framework(self) -> Framework:
        """Always "torch"."""
        return "torch"

    @property
    def architecture(self) -> str:
        """Name of the module's class."""
        return type(self.module).__name__

    @property
    def n_parameters(self) -> int:
        """Trainable numbers."""
        return sum(part.numel() for part in self.module.parameters())

    @cached_property
    def digest(self) -> str:
        """sha256 over tensors, structure, settings and the code of every class that is not torch's own.

        Code is compared as byte code, so another Python version gives another digest; a saved bundle keeps its digest.
        """
        return digest_of_tensors(dict(_tensors(self.module)), header=_structure(self.module))

    def load_module(self) -> torch.nn.Module:
        """Copy the module."""
        return copy.deepcopy(self.module)

    def onnx_path(self) -> Path:
        """Raise `BundleError`: there is no such file."""
        raise refuse_onnx(self.architecture)

    def artifact(self, *, n_layers: int, tile: int, stride: int) -> Artifact:
        """Export the module with free batch size, height and width."""
        data = export_module(self.load_module(), n_layers=n_layers, tile=tile, stride=stride)
        return Artifact(
            kind="export",
            filename="model.pt2",
            artifact_type="torch.export.save",
            media_type="application/octet-stream; application=pytorch",
            data=data,
            options={"architecture": self.architecture},
        )


def _tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor):
                yield f"{prefix}.{name}", value


def _structure(module: torch.nn.Module) -> str:
    lines = [repr(module)]
    for prefix, part in module.named_modules():
        settings = {
            name: value
            for name, value in vars(part).items()
            # What torch keeps in a module of its own accord: registries, hooks and flags.
            if name not in vars(_BARE) and not isinstance(value, torch.Tensor)
        }
        lines.append(f"{prefix}:{type(part).__qualname__}:{fingerprint(settings)}:{_code_of(type(part))}")
    return "\n".join(lines)


_BARE = torch.nn.Module()


def _code_of(kind: type) -> str:
    functions = [
        fingerprint(value)
        for owner in kind.__mro__
        # torch's own layers are told apart by their repr; their code belongs to the environment, not to the model.
        if not owner.__module__.startswith(("torch.", "builtins"))
        for value in vars(owner).values()
        if isinstance(value, FunctionType)
    ]
    return "".join(functions)


def _conforms(source: ModuleSource) -> NetworkSource:
    return source  # a typed line that fails the type check when the class stops being a NetworkSource
