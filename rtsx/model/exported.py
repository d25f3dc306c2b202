"""Networks that come as code: programs of `torch.export`, TorchScript files, and a user's own `torch.nn.Module`."""

import copy
import io
import logging
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from types import FunctionType
from typing import ClassVar, Literal

import torch

from rtsx.errors import BundleError, UntrustedModelError
from rtsx.model.source import Artifact, Framework, NetworkSource, digest_of_bytes, digest_of_tensors, fingerprint

_DAMAGED = (
    RuntimeError,
    AssertionError,
    KeyError,
    ValueError,
    EOFError,
    OSError,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)
"""What torch raises of an archive that it cannot read."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ExportSource(NetworkSource):
    """An exported program, as the bytes of its archive."""

    data: bytes = field(repr=False)
    """The whole .pt2 file."""
    architecture: str = "exported program"
    """Name of the module that was exported, where known."""
    recorded_digest: str | None = None
    """Digest of the module that a bundle was made from; None for an archive that came alone."""
    framework: ClassVar[Framework] = "export"

    @classmethod
    def from_bytes(cls, data: bytes, options: Mapping[str, object], *, trust: bool) -> "ExportSource":
        """Take an archive, checking that it can be read.

        Parameters
        ----------
        data
            The whole .pt2 file.
        options
            `architecture` and `digest` as a bundle recorded them; empty for an archive that came alone.
        trust
            Whether the caller vouches for the author.

        Raises
        ------
        UntrustedModelError
            The caller does not: `torch.export.load` unpickles parts of the archive and evaluates its shape
            expressions, and either can run any code. There is no safe mode.
        BundleError
            The archive is truncated or of an unknown version.
        """
        if not trust:
            raise UntrustedModelError(
                "A .pt2 archive can run code of its author when it is read (torch.export.load unpickles parts of it). "
                "If you trust where it comes from, pass trust=True; else ask for safetensors or ONNX."
            )
        digest = options.get("digest")
        source = cls(
            data=data,
            architecture=str(options.get("architecture", "exported program")),
            recorded_digest=None if digest is None else str(digest),
        )
        source.load_module()
        return source

    @cached_property
    def digest(self) -> str:
        """Digest of the exported module where recorded, else sha256 of the archive."""
        return self.recorded_digest or digest_of_bytes(self.data)

    def load_module(self) -> torch.nn.Module:
        """Read the archive; the graph is the one of evaluation mode and refuses `eval()` and `train()`."""
        try:
            with _without_log():
                program = torch.export.load(io.BytesIO(self.data))
        except _DAMAGED as error:
            raise BundleError(
                f"The .pt2 archive cannot be read: {error}. It is truncated, or was written by a newer torch than "
                f"{torch.__version__}; copy it again or export it again."
            ) from error
        return program.module()

    def artifact(self, *, n_layers: int, tile: int, stride: int) -> Artifact:
        """Hand the archive on unchanged."""
        return Artifact(kind="export", data=self.data, options={"architecture": self.architecture})


def archive_kind(data: bytes) -> Literal["export", "torchscript"] | None:
    """Return which of these a zip file is: a .pt2 archive, of today's layout or of torch 2.7 and before, or TorchScript; None for others."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return None
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        paths = archive.namelist()
    names = {path.rpartition("/")[2] for path in paths}
    if names & {"archive_format", "serialized_exported_program.json"}:
        return "export"
    is_script = any(path.endswith("/constants.pkl") for path in paths) and any("/code/" in path for path in paths)
    return "torchscript" if is_script else None


def export_module(module: torch.nn.Module, *, n_layers: int, tile: int, stride: int) -> bytes:
    """Export a module for any number of tiles of any size that is a multiple of its stride, as .pt2 bytes.

    Raises
    ------
    BundleError
        `torch.export` cannot follow the module, or only for one tile size, or the program answers differently.
    """
    auto = torch.export.Dim.AUTO
    # Two tiles of unequal sides, because export takes equal sides and ones for constants.
    side = max(stride, min(tile, 64) // stride * stride)
    example = torch.rand((2, n_layers, side, 2 * side), generator=torch.Generator().manual_seed(0))
    buffer = io.BytesIO()
    try:
        program = torch.export.export(module, (example,), dynamic_shapes=({0: auto, 2: auto, 3: auto},))
        torch.export.save(program, buffer)
    except Exception as error:  # torch.export has no common error, and whatever it raises means the same here
        raise BundleError(
            f"{type(module).__name__} cannot be saved, because torch.export cannot follow its code: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}. Use the bundle in memory "
            "(it can be sent to workers), or export the network to ONNX yourself and open that."
        ) from error
    other = torch.rand((3, n_layers, 3 * side, side), generator=torch.Generator().manual_seed(1))
    try:
        with torch.no_grad():
            agrees = torch.allclose(program.module()(other), module(other), atol=1e-5)
    except (RuntimeError, AssertionError) as error:
        raise BundleError(
            f"{type(module).__name__} cannot be saved for tiles of any size: {str(error).splitlines()[0]}. Take shapes "
            "from the input (x.shape) instead of numbers, or export it to ONNX for one tile size and open that."
        ) from error
    if not agrees:
        raise BundleError(
            f"{type(module).__name__} cannot be saved, because its exported program gives other answers: its code "
            "depends on values or on chance. Export it to ONNX yourself, check it, and open that."
        )
    return buffer.getvalue()


@contextmanager
def _without_log() -> Iterator[None]:
    # torch logs the traceback of a damaged archive before it raises; the error says it all.
    logger = logging.getLogger("torch.export")
    was_disabled = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = was_disabled


@dataclass(frozen=True, eq=False)
class TorchScriptSource(NetworkSource):
    """A TorchScript network, as the bytes of its file."""

    data: bytes = field(repr=False)
    """The whole file."""
    framework: ClassVar[Framework] = "torchscript"

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

    @cached_property
    def architecture(self) -> str:
        """Name of the class that was scripted or traced."""
        return str(getattr(self.load_module(), "original_name", "TorchScript"))

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

    def artifact(self, *, n_layers: int, tile: int, stride: int) -> Artifact:
        """Hand the file on unchanged."""
        return Artifact(kind="torchscript", data=self.data)


@dataclass(frozen=True, eq=False)
class ModuleSource(NetworkSource):
    """A module in memory: frozen as it was when the bundle was made, whatever its owner does with it later."""

    module: torch.nn.Module
    """A copy of the user's module: CPU, float32, evaluation mode; never handed out."""
    framework: ClassVar[Framework] = "torch"

    @classmethod
    def from_module(cls, module: torch.nn.Module) -> "ModuleSource":
        """Copy a module to the CPU as float32 in evaluation mode."""
        return cls(copy.deepcopy(module).cpu().float().eval())

    @property
    def architecture(self) -> str:
        """Name of the module's class."""
        return type(self.module).__name__

    @cached_property
    def digest(self) -> str:
        """sha256 over tensors, structure, settings and the code of every class that is not torch's own.

        Code is compared as byte code, so another Python version gives another digest; a saved bundle keeps its digest.
        """
        return digest_of_tensors(dict(_tensors(self.module)), header=_structure(self.module))

    def load_module(self) -> torch.nn.Module:
        """Copy the module."""
        return copy.deepcopy(self.module)

    def artifact(self, *, n_layers: int, tile: int, stride: int) -> Artifact:
        """Export the module with free batch size, height and width."""
        data = export_module(self.load_module(), n_layers=n_layers, tile=tile, stride=stride)
        exported = ExportSource(data=data, architecture=self.architecture)
        return exported.artifact(n_layers=n_layers, tile=tile, stride=stride)


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
    return "".join(
        fingerprint(value)
        for owner in kind.__mro__
        # torch's own layers are told apart by their repr; their code belongs to the environment, not to the model.
        if not owner.__module__.startswith(("torch.", "builtins"))
        for value in vars(owner).values()
        if isinstance(value, FunctionType)
    )
