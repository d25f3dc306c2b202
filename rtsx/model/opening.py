"""Opens whatever holds a network, at a local path or any fsspec URL, and tells formats apart by content."""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import fsspec
import torch

from rtsx.errors import BundleError
from rtsx.model.checkpoints import read_checkpoint
from rtsx.model.digest import digest_of_bytes
from rtsx.model.eager import open_eager
from rtsx.model.item import ITEM_NAME, Item, read_item
from rtsx.model.metadata import Metadata
from rtsx.model.onnx import OnnxSource
from rtsx.model.onnxruntime import open_onnx
from rtsx.model.smp import SmpSource
from rtsx.model.source import NetworkSource
from rtsx.model.torch_export import ExportSource, is_exported
from rtsx.model.torch_thread import on_torch_thread
from rtsx.model.torchscript import TorchScriptSource, is_torchscript
from rtsx.model.trial import check_output, try_network
from rtsx.storage import absolute, file_options, start_problem, without_query

__all__ = ["DEMO", "Opened", "check_network", "open_source"]

DEMO = "demo"
"""Name of the small bundle that ships with rtsx."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A network and everything known about it."""

    source: NetworkSource
    """The network."""
    metadata: Metadata
    """The caller's word over the file's."""


@dataclass(frozen=True)
class _Location:
    """A file or folder in a file system."""

    fs: Any
    """The fsspec file system."""
    path: str
    """Path in the file system, without a slash at its end."""

    def __truediv__(self, name: str) -> "_Location":
        bare = without_query(self.path)
        return _Location(
            self.fs, f"{bare}/{name}{self.path.removeprefix(bare)}"
        )  # signed for the whole folder, if at all

    @property
    def name(self) -> str:
        """Last part of the path."""
        return without_query(self.path).rpartition("/")[2]

    @property
    def parent(self) -> "_Location":
        """The folder that this is in."""
        bare = without_query(self.path)
        return _Location(self.fs, bare.rpartition("/")[0] + self.path.removeprefix(bare))

    def read(self) -> bytes:
        """Content of the file."""
        try:
            content: bytes = self.fs.cat_file(self.path)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise BundleError(
                f"There is no file {self.path}. Check the path; bundles have to be copied whole."
            ) from error
        except PermissionError as error:
            raise BundleError(f"{self.path} may not be read by this user. Ask its owner for access.") from error
        return content

    def read_if_exists(self) -> bytes | None:
        """Content of the file, None where there is none."""
        return self.read() if self.fs.isfile(self.path) else None


def open_source(
    path: str, *, said: Metadata, trust: bool, network: Mapping[str, str], storage_options: Mapping[str, Any]
) -> Opened:
    """Open a network and complete what is known about it.

    Parameters
    ----------
    path
        Local path or fsspec URL of a bundle's folder, or of a file of weights; `DEMO`, unless something is called so.
    said
        What the caller says; counts more than what the file says.
    trust
        Whether the caller vouches for the author of a file that can run code when it is read.
    network
        `architecture` and `encoder` of a checkpoint, where the caller says them; refused for anything else.
    storage_options
        Arguments of the URL's file system, such as credentials.

    Raises
    ------
    BundleError
        Nothing is there, or it is no model, or something about it is missing; `UntrustedModelError` for files that can
        run code.
    """
    if path == DEMO and not Path(path).exists():
        path = str(Path(str(resources.files("rtsx"))) / "synthetic" / "bundle")
    location = _locate(path, storage_options)
    folder = _bundle_folder(location)
    if folder is not None:
        _refuse_network(network, what=path)
        return _open_bundle(folder, said=said, trust=trust)
    if location.fs.isdir(location.path):
        raise BundleError(
            f"The folder {path} is no bundle: it has no {ITEM_NAME}. Open one of its files: "
            f"{sorted(name.rpartition('/')[2] for name in location.fs.ls(location.path, detail=False))[:8]}."
        )
    data = location.read()
    problem = start_problem(data)
    if problem is not None:
        raise BundleError(f"{path} cannot be opened: {problem}")
    _refuse_inflating(data, path)
    opened = on_torch_thread(lambda: _open_file(location, data, said=said, trust=trust, network=network))
    metadata = opened.metadata
    provenance = {"file": location.name, "sha256": digest_of_bytes(data), **_versions(), **(metadata.provenance or {})}
    return replace(opened, metadata=replace(metadata, provenance=provenance, id=metadata.id or _stem(location)))


def _locate(path: str, storage_options: Mapping[str, Any]) -> _Location:
    try:
        fs, inside = fsspec.core.url_to_fs(absolute(path), **file_options(path, storage_options))
    except (ValueError, ImportError) as error:
        raise BundleError(f"{path!r} cannot be opened: {error}. Check the URL, or install its file system.") from error
    location = _Location(fs, inside.rstrip("/") or "/")
    if not fs.exists(location.path):
        raise BundleError(f"There is no model at {path}. Check the path; it is a bundle's folder or a file of weights.")
    return location


def _bundle_folder(location: _Location) -> _Location | None:
    if location.name in {ITEM_NAME, "weights.safetensors"} and location.fs.isfile((location.parent / ITEM_NAME).path):
        return location.parent
    return location if location.fs.isfile((location / ITEM_NAME).path) else None


def _open_bundle(folder: _Location, *, said: Metadata, trust: bool) -> Opened:
    where = (folder / ITEM_NAME).path
    item = read_item((folder / ITEM_NAME).read(), where=where)
    data = (folder / item.filename).read()
    if digest_of_bytes(data) != item.checksum:
        raise BundleError(
            f"{(folder / item.filename).path} is not the file that {ITEM_NAME} describes: its sha256 does not begin with "
            f"{item.checksum[:12]}. It is truncated or was exchanged; copy the bundle again."
        )
    _refuse_inflating(data, (folder / item.filename).path)
    source = on_torch_thread(lambda: _source_of(item, data, trust=trust))
    metadata = said.over(item.metadata).scaled()
    metadata.require(described=folder.path)
    on_torch_thread(lambda: check_network(source, metadata, described=folder.path))
    return Opened(source=source, metadata=metadata)


def _refuse_network(network: Mapping[str, str], *, what: str) -> None:
    if network:
        raise BundleError(
            f"{what} holds its network whole, so architecture= and encoder= cannot change it; got {dict(network)}. Leave "
            "them out; they are for checkpoints."
        )


def _refuse_inflating(data: bytes, what: str) -> None:
    """Refuse an archive that unpacks to far more than itself; torch stores numbers as they are."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > 4 * len(data) + _SMALL_BYTES:
        raise BundleError(
            f"{what} has {len(data):,} bytes and would unpack to {unpacked:,}; four times its size and {_SMALL_BYTES:,} bytes are "
            "the limit. Save it anew with torch.save, which compresses nothing."
        )


_SMALL_BYTES = 16_000_000
"""What code and names may take besides, which torch does compress."""


def _source_of(item: Item, data: bytes, *, trust: bool) -> SmpSource | TorchScriptSource | ExportSource | OnnxSource:
    options = {name: value for name, value in item.options.items() if name != "digest"}
    if item.kind == "smp":
        return SmpSource.from_bytes(data, options)
    if item.kind == "torchscript":
        return TorchScriptSource.from_bytes(data, trust=trust)
    if item.kind == "export":
        return ExportSource.from_bytes(data, item.options, trust=trust)
    if item.kind == "onnx":
        return OnnxSource.from_bytes(data)
    raise BundleError(f"Unknown kind of network {item.kind!r} in {ITEM_NAME}. Update rtsx, or copy the bundle again.")


def _open_file(location: _Location, data: bytes, *, said: Metadata, trust: bool, network: Mapping[str, str]) -> Opened:
    suffix = location.name.rpartition(".")[2].lower()
    if suffix == "onnx":
        _refuse_network(network, what=location.path)
        return _open_onnx(location, data, said=said)
    if suffix == "safetensors":
        raise BundleError(
            f"{location.path} holds weights without their description: there is no {ITEM_NAME} beside it. Open the "
            "bundle's whole folder, or the checkpoint that they were taken from."
        )
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if is_exported(archive):
                _refuse_network(network, what=location.path)
                return _described(ExportSource.from_bytes(data, {}, trust=trust), said=said, what=location.path)
            if is_torchscript(archive):
                _refuse_network(network, what=location.path)
                return _described(TorchScriptSource.from_bytes(data, trust=trust), said=said, what=location.path)
    checkpoint = read_checkpoint(data, read_run_config=lambda: _run_config(location), told=network, trust=trust)
    metadata = said.over(checkpoint.metadata).scaled()
    metadata.require(described=location.path)
    check_network(checkpoint.source, metadata, described=location.path)
    return Opened(source=checkpoint.source, metadata=metadata)


def _run_config(location: _Location) -> bytes | None:
    beside = location.parent / "config.yml"
    above = location.parent.parent / "config.yml"
    return beside.read_if_exists() or above.read_if_exists()


def _open_onnx(location: _Location, data: bytes, *, said: Metadata) -> Opened:
    source = OnnxSource.from_bytes(data, read_sibling=lambda name: (location.parent / name).read())
    shapes = source.shapes
    found = Metadata(tile=shapes.height, activation="none" if shapes.has_activation else None)
    metadata = said.over(found).scaled()
    metadata.require(described=location.path)
    check_network(source, metadata, described=location.path)
    return Opened(source=source, metadata=metadata)


def check_network(source: NetworkSource, metadata: Metadata, *, described: str) -> None:
    """Refuse a network that does not fit a complete description; it is run on small tiles where that is needed to know.

    Raises
    ------
    BundleError
        It takes other layers or tiles, returns other classes, or returns no scores; see `check_output`.
    """
    inputs = metadata.inputs or ()
    tile = metadata.tile or 0
    stride = metadata.stride or min(32, tile or 32)
    cpu = torch.device("cpu")
    if isinstance(source, SmpSource):
        _check_channels(metadata, n_channels=source.n_channels, n_classes=source.n_classes)
        if source.options.get("activation") in (None, "identity"):
            return  # it returns scores by its build
    if isinstance(source, OnnxSource):
        _check_onnx(source, metadata, described=described)
        side, forward = source.shapes.height or tile, open_onnx(source.onnx_path(), device=cpu)
    else:
        module = source.load_module()
        answer = try_network(module, n_layers=len(inputs), classes=metadata.classes or (), tile=tile, stride=stride)
        side, forward = answer.shape[-1], open_eager(module, device=cpu, dtype=torch.float32)
    check_output(forward, inputs=inputs, side=side, activation=metadata.activation, described=described)


def _check_onnx(source: OnnxSource, metadata: Metadata, *, described: str) -> None:
    shapes = source.shapes
    _check_channels(metadata, n_channels=shapes.n_channels, n_classes=shapes.n_classes)
    fixed = {side for side in (shapes.height, shapes.width) if side is not None}
    if fixed - {metadata.tile}:
        cure = f"Pass tile={min(fixed)}, or export" if len(fixed) == 1 else "Tiles are square: export"
        raise BundleError(
            f"{described} takes tiles of {shapes.height or 'any'} x {shapes.width or 'any'} px only; got "
            f"tile={metadata.tile}. {cure} the network with free height and width."
        )


def _described(source: ExportSource | TorchScriptSource, *, said: Metadata, what: str) -> Opened:
    metadata = said.scaled()
    metadata.require(described=what)
    check_network(source, metadata, described=what)
    return Opened(source=source, metadata=metadata)


def _check_channels(metadata: Metadata, *, n_channels: int | None, n_classes: int | None) -> None:
    layers = [layer.name for layer in metadata.inputs or ()]
    classes = list(metadata.classes or ())
    if n_channels not in {None, len(layers)}:
        raise BundleError(
            f"The network takes {n_channels} channels, but {len(layers)} layers are named: {layers}. Pass layers= (with "
            "mean= and std=, or preset=) in the order of the network's channels."
        )
    if n_classes not in {None, len(classes)}:
        raise BundleError(
            f"The network answers with {n_classes} channels, but {len(classes)} classes are named: {classes}. Pass "
            "classes= in the order of the network's output."
        )


def _versions() -> dict[str, str]:
    found = {}
    for package in ("rtsx", "torch", "segmentation-models-pytorch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # rtsx itself, run from a checkout that is not installed
            found[package] = "unknown"
    return found


def _stem(location: _Location) -> str:
    stem = location.name.rpartition(".")[0] or location.name
    # TSS numbers its checkpoints by epoch, so the run's name has to come with it.
    return f"{location.parent.parent.name}-{stem}" if location.parent.name == "checkpoints" else stem
